"""An event loop whose time jumps to whatever is next: hours pass in milliseconds, and every run is the same."""

from __future__ import annotations

import asyncio
import selectors

BEGIN = 1_700_000_000.0


class _Jumping(selectors.SelectSelector):
    """Never waits: where nothing is ready, time goes on at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = BEGIN

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout == 0:  # others are ready, and nothing comes from outside
            return []
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everybody waits, and nothing is left to happen")
        if not ready and timeout:
            self.now += timeout
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """asyncio with a time of its own."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)
        self._clock_resolution = 1e-6  # finer steps are lost in Unix seconds as floats, and a timer would never be due

    def time(self) -> float:
        """Unix seconds of the model's world."""
        return self._jumping.now


class LoopClock:
    """The running loop's time as the engine's clock."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    steady = now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
