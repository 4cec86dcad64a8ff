"""Outages of the state: while it cannot be written nothing is polled, and polling continues by itself afterwards.

Anything that prevents writing the state (a full disk, a lock of another program, a read-only file, an I/O error) ends
the engine at once. After a probe has written something, a new engine is opened from the state, as after a restart. No
poll is recorded twice, and polls that were received but not recorded are made again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from poller.app import App
from poller.events.cloudevents import iso
from poller.rendering.sentences import clause
from state.errors import PollerError, Unavailable
from state.notices import Notice

LOOK_EVERY = 1.0  # seconds
FIRST_WAIT = 0.5  # seconds between two probes, doubling
LONGEST_WAIT = 5.0
RELAPSE = 60.0  # seconds: an outage that begins so soon after another one waits twice as long before its first probe

log = structlog.get_logger("poller")


class OutageKeeper:
    """Handles the outages of one app's state. `resumed` is called when an engine is open again."""

    def __init__(self, app: App, *, resumed: Callable[[], None]) -> None:
        self._app = app
        self._resumed = resumed
        self._rest = FIRST_WAIT
        self._reasons: set[str] = set()  # logged reasons of the present outage
        self._told = ""  # the logged reason why the engine could not be opened
        self._ended_at = -RELAPSE  # steady

    async def run(self) -> None:
        """Wait for outages, and handle each until it is over, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._app.write.until_outage(), LOOK_EVERY)
            outage = self._app.write.outage
            if outage is not None or self._app.engines.is_stranded:
                await self._see_through(outage)

    async def _see_through(self, outage: Unavailable | None) -> None:
        app = self._app
        began = app.clock.now()
        self._reasons.clear()
        if outage is not None:
            self._explain(outage)
        is_relapse = app.clock.steady() - self._ended_at < RELAPSE
        self._rest = min(RELAPSE, 2 * self._rest) if is_relapse else FIRST_WAIT
        await app.engines.pause()
        wait = self._rest
        await app.clock.sleep(wait)
        while not await self._is_over():
            wait = max(self._rest, min(LONGEST_WAIT, 2 * wait))
            await app.clock.sleep(wait)
        if outage is not None:
            await self._tell(outage, began)
        self._ended_at = app.clock.steady()
        self._resumed()

    def _explain(self, outage: Unavailable) -> None:
        """Log why the state cannot be written, each reason once: it may begin as a lost connection, and then be a
        password that has changed.
        """
        if str(outage) in self._reasons:
            return
        self._reasons.add(str(outage))
        log.error(
            "state.failing",
            summary=f"Nothing is polled or delivered for now: {clause(str(outage))}.",
            hint=outage.hint,
            policy="it continues by itself once the state can be written",
        )

    async def _is_over(self) -> bool:
        """Whether the state can be written and the engine is open again."""
        try:
            await self._app.write.probe(self._app.store.probe)
            await self._app.engines.resume()
            await self._app.deliverer.resume()
        except Unavailable as error:
            self._explain(error)
            return False
        except PollerError as error:
            if str(error) != self._told:  # once, not at every attempt
                log.error("engine.not_opened", error=str(error), hint=error.hint)
            self._told = str(error)
            return False
        self._told = ""
        self._app.deliverer.wake()
        return True

    async def _tell(self, outage: Unavailable, began: float) -> None:
        """Report that the outage is over: in the log, and as notices of both its beginning and its end."""
        app, now = self._app, self._app.clock.now()
        detail = {"reason": str(outage), "since": iso(began), "until": iso(now)}
        failing = Notice(
            kind="state.failing",
            subject="state",
            summary=f"The state could not be written, so nothing was polled: {clause(str(outage))}.",
            detail=detail,
            time=began,
        )
        recovered = Notice(
            kind="state.recovered",
            subject="state",
            summary=f"The state can be written again, and polling continues after {now - began:.0f} s.",
            detail=detail,
            time=now,
        )
        log.info("state.recovered", summary=recovered.summary)
        with contextlib.suppress(Unavailable):  # the next outage has begun, and will be reported itself
            await app.write(app.store.notices.tell, [failing, recovered])
            app.deliverer.log_grew()
