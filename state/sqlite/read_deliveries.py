"""Reading of subscriptions and deliveries, on a read-only connection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from state.deliveries import AttemptRow, Delivery, DeliveryQuery, SubscriptionLedger, SubscriptionState
from state.rows import delivery_of, subscription_of
from state.sqlite.connection import State
from state.sqlite.events import is_glob
from state.sqlite.subscription_ledger import ledger

DELIVERY = (
    "SELECT d.id, s.name, d.seq, d.origin, d.state, e.id, e.type, e.source, e.subject, d.attempts, d.queued_at, "
    "CASE d.state WHEN 'pending' THEN max(l.due, d.queued_at, coalesce(s.open_until, 0)) END, "
    "d.finished_at, d.status, d.digest FROM deliveries d "
    "JOIN subscriptions s ON s.id = d.subscription LEFT JOIN events e ON e.seq = d.seq "
    "LEFT JOIN lanes l ON l.subscription = d.subscription AND l.lane = d.lane"
)

# While the breaker is open, a digest is sent when it is due, other deliveries when the receiver's Retry-After allows.
NEXT = (
    "(SELECT min(CASE WHEN s.digest THEN due ELSE not_before END) FROM lanes WHERE subscription = s.id AND epoch = 0)"
)


def _conditions(query: DeliveryQuery) -> tuple[str, list[int | float | str]]:
    """A query as SQL, and its values."""
    of = "d.subscription = (SELECT id FROM subscriptions WHERE name = ?)"
    by_time = {bound for bound in ("after", "before") if isinstance(getattr(query, bound), float)}
    given: list[tuple[str, int | float | str | None]] = [
        (of, query.subscription),
        ("e.subject GLOB ?" if is_glob(query.subject) else "e.subject = ?", query.subject),
        ("d.seq = ?", query.seq),
        ("d.status GLOB ?" if is_glob(query.status) else "d.status = ?", query.status),
        ("d.queued_at >= ?" if "after" in by_time else "d.id > ?", query.after),
        ("d.queued_at < ?" if "before" in by_time else "d.id < ?", query.before),
    ]
    wanted = [(condition, value) for condition, value in given if value is not None]
    conditions = ["1", *(condition for condition, _ in wanted)]
    if query.states:
        conditions.append(f"d.state IN ({', '.join('?' for _ in query.states)})")
    return " AND ".join(conditions), [*(value for _, value in wanted), *query.states]


class DeliveryReader:
    """Reads subscriptions and deliveries."""

    def __init__(self, db: State) -> None:
        self._db = db

    def subscriptions(self) -> list[SubscriptionState]:
        """Every subscription by name, removed ones included."""
        last = int(self._db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])
        rows = self._db.execute(
            "SELECT name, state, reason, cursor, pending, failures, open_until, probe_wait, last_error, filter_errors, "
            "filter_error, (SELECT count(*) FROM deliveries d WHERE d.subscription = s.id AND d.state = 'dead'), "
            f"CASE WHEN open_until IS NOT NULL THEN max(open_until, coalesce({NEXT}, 0)) END "
            "FROM subscriptions s ORDER BY name"
        ).fetchall()
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
        wanted = list(states)
        conditions = ["(?1 IS NULL OR d.subscription = (SELECT id FROM subscriptions WHERE name = ?1))", "d.id < ?2"]
        if wanted:
            conditions.append(f"d.state IN ({', '.join('?' for _ in wanted)})")
        rows = self._db.execute(
            f"{DELIVERY} WHERE {' AND '.join(conditions)} ORDER BY d.id DESC LIMIT ?",
            [subscription, 2**62 if before is None else before, *wanted, limit],
        )
        return [delivery_of(row) for row in rows]

    def find(self, query: DeliveryQuery, *, limit: int) -> list[Delivery]:
        """At most `limit` deliveries, the latest first."""
        where, values = _conditions(query)
        rows = self._db.execute(f"{DELIVERY} WHERE {where} ORDER BY d.id DESC LIMIT ?", [*values, limit])
        return [delivery_of(row) for row in rows]

    def delivery(self, id_: int) -> Delivery | None:
        """One delivery, or None if the id does not exist."""
        if abs(id_) >= 2**63:
            return None  # no delivery has such a large number
        row = self._db.execute(f"{DELIVERY} WHERE d.id = ?", [id_]).fetchone()
        return None if row is None else delivery_of(row)

    def unknown(self, ids: Sequence[int]) -> list[int]:
        """Those of these numbers that no delivery has."""
        return [id_ for id_ in ids if self.delivery(id_) is None]

    def attempts(self, id_: int) -> list[AttemptRow]:
        """Every attempt of a delivery, or of its digest, the first one first."""
        rows = self._db.execute(
            "SELECT number, at, latency, status, text, reference FROM attempts "
            "WHERE delivery = ?1 OR delivery = (SELECT digest FROM deliveries WHERE id = ?1) ORDER BY at, number",
            [id_],
        )
        return [
            AttemptRow(number=number, at=at, latency=latency, status=status, text=text, reference=reference)
            for number, at, latency, status, text, reference in rows
        ]

    def ledger(self) -> list[SubscriptionLedger]:
        """The books of every subscription, computed from the tables."""
        return ledger(self._db)
