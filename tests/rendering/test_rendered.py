"""Rendering beside the event loop: it goes on, whatever is rendered."""

from __future__ import annotations

import asyncio
import threading

import pytest

from poller.rendering.rendered import SMALL, rendered
from poller.testing import make_event

MANY = [make_event({"id": 1, "note": "x" * SMALL})]


async def test_what_is_small_is_rendered_where_it_stands() -> None:
    assert await rendered(threading.current_thread, [make_event()], None) is threading.current_thread()


async def test_much_and_templates_of_ones_own_are_rendered_in_a_thread() -> None:
    for events, template in ((MANY, None), ([make_event()], "{{ event.name }}")):
        assert await rendered(threading.current_thread, events, template) is not threading.current_thread()


async def test_what_is_raised_is_handed_on() -> None:
    with pytest.raises(ZeroDivisionError):
        await rendered(lambda: 1 // 0, MANY, None)


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), StopIteration()])
async def test_what_would_end_the_program_is_an_error_like_any_other(error: BaseException) -> None:
    def raising() -> None:
        raise error

    with pytest.raises(RuntimeError, match=type(error).__name__):
        await rendered(raising, MANY, None)


async def test_the_loop_goes_on_while_templates_do_not_end_and_others_wait() -> None:
    ended = threading.Event()
    endless = [asyncio.create_task(rendered(ended.wait, MANY, None)) for _ in range(3)]
    await asyncio.sleep(0)  # the loop is free: two run, the third waits its turn
    endless[0].cancel()
    ended.set()

    assert await asyncio.gather(*endless[1:]) == [True, True]
    assert endless[0].cancelled()
