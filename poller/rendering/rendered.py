"""Rendering off the event loop, in a thread if it may take long.

A digest of a megabyte takes most of a second, and a user's template may take as long as its limits allow.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from state.records import Event

SMALL: Final = 32 * 1024  # up to so many bytes of data are rendered on the loop
_AT_ONCE: Final = 2  # threads; more would only wait for each other

T = TypeVar("T")

_free = threading.BoundedSemaphore(_AT_ONCE)


async def rendered(make: Callable[[], T], events: Sequence[Event], template: str | None) -> T:
    """The result or exception of `make` for these events; in a thread for much data or a user's template."""
    if template is None and sum(len(event.raw) for event in events) <= SMALL:
        return make()
    while not _free.acquire(blocking=False):
        await asyncio.sleep(0.01)
    loop = asyncio.get_running_loop()
    made: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        outcome = _outcome(make)
        _free.release()
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(_settle, made, outcome)

    # Not a pool: the program would wait for a pool's threads at its end, and a template may never end.
    try:
        threading.Thread(target=work, name="rendering", daemon=True).start()
    except RuntimeError:  # the system has no thread to give
        _free.release()
        raise
    return await made


def _outcome(make: Callable[[], T]) -> tuple[T] | Exception:
    try:
        return (make(),)
    except StopIteration as error:  # a future cannot hold StopIteration
        return RuntimeError(f"rendering raised {error!r}")
    except Exception as error:  # noqa: BLE001 - handed on as it is, to who waits
        return error
    except BaseException as error:  # noqa: BLE001 - a filter of a plugin that ends the program ends no more than this
        return RuntimeError(f"rendering raised {error!r}")


def _settle(made: asyncio.Future[T], outcome: tuple[T] | Exception) -> None:
    if made.done():  # the caller no longer waits
        return
    if isinstance(outcome, Exception):
        made.set_exception(outcome)
    else:
        made.set_result(outcome[0])
