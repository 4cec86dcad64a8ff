"""The health of a subscription: whether it accepts events, its breaker, and the notices of its episodes."""

from __future__ import annotations

from msgspec import structs

from poller.delivery import breaker, notices
from poller.delivery.retry import Unfinished
from poller.delivery.settlement import SettlementDraft
from poller.sinks.protocol import Gone, Receipt
from state.deliveries import Job, Settled, SinkHealth


class SubscriptionHealth:
    """Whether a subscription accepts events, and the health of its sink: as stored, and after attempts since."""

    def __init__(self, name: str, *, promotes: bool) -> None:
        self.name = name
        self.health = breaker.WELL
        self._kept = breaker.WELL  # the stored health
        self.active = True
        self._promotes = promotes  # waiting retries are sent as soon as the sink works again

    @property
    def is_open(self) -> bool:
        """Whether the breaker is open."""
        return breaker.is_open(self.health)

    @property
    def is_held(self) -> bool:
        """Whether only a probe may be sent."""
        return not self.active or self.is_open

    def may_probe(self, now: float) -> bool:
        """Whether an open breaker allows an attempt."""
        return breaker.may_probe(self.health, now=now)

    def learn(self, settled: Settled, draft: SettlementDraft) -> None:
        """Adopt the stored state, except where an attempt that ended since (`draft`) has newer information."""
        if draft.disabled is None:
            self.active = settled.state == "active"
        self._kept = settled.health
        if draft.health is None:
            self.health = settled.health

    def follow(
        self,
        answer: Receipt | BaseException,
        job: Job,
        number: int,
        receipt: Receipt,
        draft: SettlementDraft,
        *,
        now: float,
        not_before: float,
    ) -> None:
        """Record the answer to an attempt at `job`, here and in the draft."""
        if isinstance(answer, Unfinished):
            return
        before = self.health
        if isinstance(answer, Gone):
            if self.active:
                self.active = False
                draft.disabled = f"{receipt.status}: the receiver wants no more events"
                draft.notices.append(notices.disabled(self.name, job.event, number, receipt, now=now))
        elif isinstance(answer, Receipt):
            self._set(breaker.WELL, draft)
            if breaker.is_open(before):
                draft.promote = self._promotes
                draft.notices.append(notices.recovered(self.name, job.event, number, receipt, before, now=now))
        else:
            error = f"{receipt.status} {receipt.text[:200]}".strip()
            self._set(breaker.failed(before, error, now=now, not_before=not_before), draft)
            failures, probe = self.health.failures, self.health.open_until
            if probe is not None and not breaker.is_open(before):
                told = notices.failing(self.name, job.event, number, receipt, failures, probe=probe, now=now)
                draft.notices.append(told)

    def report_dead(self, job: Job, number: int, receipt: Receipt, draft: SettlementDraft, *, now: float) -> None:
        """Report a dead letter, unless one was reported since a delivery last succeeded."""
        if not self.health.dead_reported:
            self._set(structs.replace(self.health, dead_reported=True), draft)
            draft.notices.append(notices.dead(self.name, job, number, receipt, now=now))

    def _set(self, health: SinkHealth, draft: SettlementDraft) -> None:
        if health != self.health:
            self.health = draft.health = health
            draft.kept_until = self._kept.open_until
