"""A strict local server of the Nutcache API: it answers as documented and refuses everything else. `server` runs it on
a port."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugins.nutcache.profiles import LIMITS, V4, Profile
from plugins.nutcache.sandbox.admission import TOKEN_SECONDS, Admission
from plugins.nutcache.sandbox.exchange import HTML, Answer, Refusal, Request, error_answer
from plugins.nutcache.sandbox.faults import Fault, Faults
from plugins.nutcache.sandbox.journal import Journal
from plugins.nutcache.sandbox.office import MONDAY_MORNING, Office
from plugins.nutcache.sandbox.routes import Routes
from plugins.nutcache.sandbox.seeding import Size
from plugins.nutcache.sandbox.variants import Variants
from poller import Limit
from poller.options.quantities import parse_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of a sandbox. The office's time begins at `start`; `clock` is the server's clock (Unix seconds)."""

    profile: Profile = V4
    variants: Variants = field(default_factory=Variants)
    limits: Sequence[Limit] = tuple(map(parse_rate, LIMITS))
    size: Size = field(default_factory=Size)
    seed: int = 1
    start: float = MONDAY_MORNING
    clock: Callable[[], float] = field(default=time.time)
    token_seconds: float = TOKEN_SECONDS
    journal_path: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that came in below the base URL."""

    at: float
    method: str
    path: str
    query: str
    status: int  # 0: the connection was dropped


class Sandbox:
    """The server without its port: the office, the waiting faults, and the calls so far."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings = settings or Settings()
        self.profile = settings.profile
        self.variants = settings.variants
        self.office = Office(
            profile=settings.profile,
            seed=settings.seed,
            size=settings.size,
            start=settings.start,
            clock=settings.clock,
            journal_path=settings.journal_path,
        )
        self.faults = Faults()
        self.admission = Admission(
            settings.limits, self.variants, clock=settings.clock, token_seconds=settings.token_seconds
        )
        self.log: deque[Call] = deque(maxlen=100_000)
        self.statuses: Counter[int] = Counter()
        self._world = self.office.world
        self._routes = Routes(self._world, self.profile, self.variants)

    @property
    def journal(self) -> Journal:
        return self.office.journal

    def hide(self, *names: str) -> None:
        """Hide fields (`customers.phone`) from the user; without names, show all of them again."""
        with self._world.lock:
            self._routes.hide(frozenset(names))

    def forbid(self, *resources: str) -> None:
        """Forbid whole resources (403); without names, allow all of them again."""
        self._routes.forbidden = frozenset(resources)

    def calls(self) -> dict[str, Any]:
        """The number of calls and of refused calls, the highest use of each window, and a count of each status."""
        statuses = {str(status): count for status, count in sorted(self.statuses.items())}
        return {**self.admission.tallies(), "statuses": statuses, "logins": self.admission.logins}

    def note(self, request: Request, status: int) -> None:
        """Record that a call was answered; status 0 means that it was not."""
        self.statuses[status] += 1
        self.log.append(
            Call(
                at=self.settings.clock(),
                method=request.method,
                path=request.path,
                query=request.raw_query,
                status=status,
            )
        )

    def answer(self, request: Request) -> tuple[Fault | None, Answer]:
        """The answer to a call, and the fault that still has to be applied to it."""
        fault = None
        try:
            with self._world.lock:
                is_login = request.path == self.profile.token_path and request.method == "POST"
                login = self.admission.log_in(request) if is_login else None
                if login is None:
                    self.admission.admit(request)
                fault = self.faults.take(request.path, request.raw_query)
                if fault is not None and fault.kind in ("status", "html", "body"):
                    return fault, _faulty(fault)
                answer = login or self._routes.answer(request)
        except Refusal as refusal:
            return fault, error_answer(refusal, self.variants.errors)
        if fault is not None and fault.kind == "truncated":
            answer = Answer(status=answer.status, body=answer.body[: len(answer.body) // 2])
        return fault, answer


def _faulty(fault: Fault) -> Answer:
    headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
    if fault.kind == "html":
        page = "<!DOCTYPE html><html><body><h1>Down for maintenance</h1></body></html>"
        return Answer(status=fault.status or 200, body=(fault.body or page).encode(), content_type=HTML)
    status = fault.status or (500 if fault.kind == "status" else 200)
    return Answer(status=status, body=(fault.body or '{"message":"A fault on our side."}').encode(), headers=headers)
