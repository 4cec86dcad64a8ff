"""Names a plugin's function that does not return on the thread that everything else waits for."""

from __future__ import annotations

import threading
from types import FrameType
from typing import TYPE_CHECKING, Final, Self

from poller.hooks.faults import call_under_way, where
from poller.late import late

if TYPE_CHECKING:
    import structlog
else:
    structlog = late("structlog")

LOOK: Final = 10.0  # seconds from one look at the thread to the next


class SlowCalls:
    """Looks at a thread, and logs each call of a plugin that is under way at two looks: plugins are set up there."""

    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread
        self._seen: FrameType | None = None
        self._is_said = False
        self._over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._run, name="slow calls", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def look(self) -> None:
        """Look at what runs now."""
        call = call_under_way(self._thread)
        if call is None or call is not self._seen:
            self._seen, self._is_said = call, False
        elif not self._is_said:
            self._is_said = True
            structlog.get_logger("poller").warning(
                "plugin.slow",
                function=where(call),
                module=call.f_globals.get("__name__"),
                seconds=LOOK,
                hint="nothing is polled or delivered until it returns",
            )

    def _run(self) -> None:
        while not self._over.wait(LOOK):
            self.look()
