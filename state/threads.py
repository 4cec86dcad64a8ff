"""Threads that are shared by calls which block."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


class Threads(ThreadPoolExecutor):
    """A pool that continues with the threads which it has if the system starts no more of them.

    Otherwise a call would be refused, and made later nevertheless, since it waits in the queue by then. The first
    thread is started here. Raises RuntimeError if there is not even one.
    """

    def __init__(self, most: int, name: str) -> None:
        super().__init__(most, thread_name_prefix=name)
        self.submit(int)

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()
        except RuntimeError:
            if not self._threads:
                raise
