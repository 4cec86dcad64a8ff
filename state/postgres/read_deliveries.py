"""Reading of subscriptions and deliveries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from state.deliveries import AttemptRow, Delivery, DeliveryQuery, SubscriptionLedger, SubscriptionState
from state.postgres.connection import Database
from state.postgres.events import is_glob, regex_of
from state.postgres.subscription_ledger import ledger
from state.rows import delivery_of, subscription_of

DELIVERY: Final = (
    "SELECT d.id, s.name, d.seq, d.origin, d.state, e.id, e.type, e.source, e.subject, d.attempts, d.queued_at, "
    "CASE d.state WHEN 'pending' THEN greatest(l.due, d.queued_at, s.open_until) END, "
    "d.finished_at, d.status, d.digest FROM deliveries d "
    "JOIN subscriptions s ON s.id = d.subscription LEFT JOIN events e ON e.seq = d.seq "
    "LEFT JOIN lanes l ON l.subscription = d.subscription AND l.lane = d.lane"
)

# While the breaker is open, a digest is sent when it is due, other deliveries when the receiver's Retry-After allows.
NEXT: Final = (
    "(SELECT min(CASE WHEN s.digest THEN due ELSE not_before END) FROM lanes WHERE subscription = s.id AND epoch = 0)"
)


def _conditions(query: DeliveryQuery) -> tuple[str, list[object]]:
    """A query as SQL, and its values."""
    by_time = {bound for bound in ("after", "before") if isinstance(getattr(query, bound), float)}
    subject = regex_of(query.subject) if query.subject is not None and is_glob(query.subject) else query.subject
    status = regex_of(query.status) if query.status is not None and is_glob(query.status) else query.status
    given: list[tuple[str, object]] = [
        ("s.name = ", query.subscription),
        ("e.subject ~ " if is_glob(query.subject) else "e.subject = ", subject),
        ("d.seq = ", query.seq),
        ("d.status ~ " if is_glob(query.status) else "d.status = ", status),
        ("d.queued_at >= " if "after" in by_time else "d.id > ", query.after),
        ("d.queued_at < " if "before" in by_time else "d.id < ", query.before),
    ]
    wanted = [(condition, value) for condition, value in given if value is not None]
    conditions = ["true", *(f"{condition}${place}" for place, (condition, _) in enumerate(wanted, start=1))]
    values = [value for _, value in wanted]
    if query.states:
        conditions.append(f"d.state = ANY(${len(values) + 1}::text[])")
        values.append(list(query.states))
    return " AND ".join(conditions), values


class DeliveryReader:
    """Reads subscriptions and deliveries."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def subscriptions(self) -> list[SubscriptionState]:
        """Every subscription by name, removed ones included."""
        last = int(self._db.value("SELECT coalesce(max(seq), 0) FROM events"))
        rows = self._db.run(
            "SELECT name, state, reason, cursor, pending, failures, open_until, probe_wait, last_error, filter_errors, "
            "filter_error, (SELECT count(*) FROM deliveries d WHERE d.subscription = s.id AND d.state = 'dead'), "
            f"CASE WHEN open_until IS NOT NULL THEN greatest(open_until, {NEXT}) END "
            "FROM subscriptions s ORDER BY name"
        )
        return [subscription_of(row, last) for row in rows]

    def deliveries(
        self,
        *,
        states: Iterable[str] = (),
        subscription: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[Delivery]:
        """At most `limit` deliveries, the latest first; `before` is the last id of the page before."""
        return self.find(DeliveryQuery(states=tuple(states), subscription=subscription, before=before), limit=limit)

    def find(self, query: DeliveryQuery, *, limit: int) -> list[Delivery]:
        """At most `limit` deliveries, the latest first."""
        where, values = _conditions(query)
        rows = self._db.run(f"{DELIVERY} WHERE {where} ORDER BY d.id DESC LIMIT ${len(values) + 1}", [*values, limit])
        return [delivery_of(row) for row in rows]

    def delivery(self, id_: int) -> Delivery | None:
        """One delivery, or None if the id does not exist."""
        if abs(id_) >= 2**63:
            return None  # no delivery has such a large number
        row = self._db.row(f"{DELIVERY} WHERE d.id = $1", [id_])
        return None if row is None else delivery_of(row)

    def unknown(self, ids: Sequence[int]) -> list[int]:
        """Those of these numbers that no delivery has."""
        wanted = [id_ for id_ in ids if abs(id_) < 2**63]
        known = {id_ for (id_,) in self._db.run("SELECT id FROM deliveries WHERE id = ANY($1::bigint[])", [wanted])}
        return [id_ for id_ in ids if id_ not in known]

    def attempts(self, id_: int) -> list[AttemptRow]:
        """Every attempt of a delivery, or of its digest, the first one first."""
        rows = self._db.run(
            "SELECT number, at, latency, status, text, reference FROM attempts "
            "WHERE delivery = $1 OR delivery = (SELECT digest FROM deliveries WHERE id = $1) ORDER BY at, number",
            [id_],
        )
        return [
            AttemptRow(number=number, at=at, latency=latency, status=status, text=text, reference=reference)
            for number, at, latency, status, text, reference in rows
        ]

    def ledger(self) -> list[SubscriptionLedger]:
        """The books of every subscription, computed from the tables."""
        return ledger(self._db)
