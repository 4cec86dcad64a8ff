"""Settling and claiming: results of attempts are written, lanes are given back, and other lanes are claimed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from state.deliveries import AttemptOutcome, Claim, ClaimRequest, Job, Release, Settled, Settlement, SinkHealth
from state.leases import Lease
from state.postgres import subscriptions
from state.postgres.connection import Answer, Connection
from state.postgres.notices import tell
from state.rows import EVENT, job_of, room

# Claims free lanes of a subscription ($1) that are due ($3), $4 at most, and reads their oldest pending deliveries,
# lane by lane, in order: $5 of each lane at most, fewer if there are many lanes, and $6 in all. Lanes are updated by
# their place in the table, which cannot change while the subscription is locked: a join by name may be planned over all
# lanes of a subscription that the statistics do not know yet.
_CLAIM: Final = f"""
WITH due AS MATERIALIZED (
    SELECT ctid AS place FROM lanes WHERE subscription = $1 AND epoch < $2 AND {{condition}} <= $3::float8
    AND EXISTS (SELECT 1 FROM subscriptions WHERE id = $1 AND state = 'active')
    ORDER BY {{order}} LIMIT $4
), claimed AS (
    UPDATE lanes l SET epoch = $2 FROM due WHERE l.ctid = due.place
    RETURNING l.lane, l.due, l.not_before, l.first_seq
)
SELECT c.lane, c.due, c.not_before,
    (SELECT r.reference FROM last_references r WHERE r.subscription = $1 AND r.lane = c.lane),
    d.id, d.attempts, d.retries, d.refusals, d.digest, {", ".join(f"e.{name}" for name in EVENT.split(", "))}
FROM claimed c LEFT JOIN LATERAL (
    SELECT * FROM deliveries WHERE subscription = $1 AND lane = c.lane AND state = 'pending' ORDER BY id
    LIMIT greatest(1, least($5::bigint, $6::bigint / (SELECT count(*) FROM claimed)))
) d ON true LEFT JOIN events e ON e.seq = d.seq ORDER BY c.due, c.first_seq, c.lane, d.id
"""
CLAIM: Final = _CLAIM.format(condition="due", order="due, first_seq")
# A lane that a command has opened goes first: it is due at 0. Then those that have not failed ($7).
PROBE: Final = _CLAIM.format(
    condition="not_before", order="due > 0, array_position($7::text[], lane) NULLS FIRST, due, first_seq"
)
# Gives lanes back: deleted if nothing is pending in them, else due again, at their own time if none is given. The
# lane and its oldest pending delivery are looked up one by one, because a join may be planned over all of them.
RELEASE: Final = """
WITH given AS MATERIALIZED (
    SELECT r.*, (SELECT l.ctid FROM lanes l WHERE l.subscription = $1 AND l.lane = r.lane) AS place,
        (SELECT d.due FROM deliveries d WHERE d.subscription = $1 AND d.lane = r.lane AND d.state = 'pending'
        ORDER BY d.id LIMIT 1) AS next
    FROM unnest($2::text[], $3::float8[], $4::float8[]) AS r (lane, due, not_before)
), gone AS (
    DELETE FROM lanes l USING given r WHERE l.ctid = r.place AND r.next IS NULL
)
UPDATE lanes l SET due = coalesce(r.due, greatest(r.not_before, r.next, 0)), not_before = r.not_before, epoch = 0
FROM given r WHERE l.ctid = r.place AND r.next IS NOT NULL
"""
# A subscription ($1): its state, whether it has room for more of the log, and the health of its sink.
STATE: Final = (
    f"SELECT state, {room('$2::bigint', '$3::float8')} > $2::bigint / 20 "
    "AND (cursor < (SELECT max(seq) FROM events) OR EXISTS (SELECT 1 FROM replays r "
    "WHERE r.subscription = s.id)), failures, open_until, probe_wait, last_error, dead_reported "
    "FROM subscriptions s WHERE id = $1"
)
# When the next free lane is due, or may be probed. A lane claimed by an earlier owner is free.
NEXT: Final = "SELECT due, not_before FROM lanes WHERE subscription = $1 AND epoch < $2 ORDER BY {order} LIMIT 1"


def settle(
    conn: Connection, lease: Lease, id_: int, batch: Settlement, request: ClaimRequest | None, limit: int
) -> Settled:
    """Write one settlement in the caller's transaction; `limit` deliveries of a subscription are pending at most."""
    _settle(conn, id_, batch.settled)
    _release(conn, id_, batch.released)
    if batch.health is not None:
        subscriptions.update_health(conn, id_, batch.health, batch.kept_until)
    if batch.disabled is not None:
        subscriptions.disable(conn, id_, batch.disabled)
    if batch.promote:
        conn.run(
            "UPDATE lanes SET due = greatest(not_before, $1::float8) WHERE subscription = $2 AND due > $1::float8 "
            "AND epoch < $3",
            [batch.now, id_, lease.epoch],
        )
    is_probe = request is not None and request.probe
    shown = conn.run(STATE, [id_, limit, batch.now])
    claimed = None if request is None else _claim(conn, id_, lease, request, batch.now)
    next_ = conn.run(NEXT.format(order="not_before" if is_probe else "due, first_seq"), [id_, lease.epoch])
    claims = () if request is None or claimed is None else _claims(conn, claimed, request)
    state, wants_more, failures, open_until, wait, last_error, dead_reported = shown.fetchone() or ()
    free = None if claims and is_probe else next_.fetchone()
    return Settled(
        state=state,
        claims=claims,
        next_due=None if free is None else free[is_probe],
        recorded=len(tell(conn, batch.notices)),
        wants_more=bool(wants_more),
        health=SinkHealth(
            failures=failures, open_until=open_until, wait=wait, last_error=last_error, dead_reported=dead_reported
        ),
    )


def _settle(conn: Connection, id_: int, settled: Sequence[AttemptOutcome]) -> None:
    """Write the results of attempts, except for deliveries that were purged since."""
    if not settled:
        return
    conn.run(
        "INSERT INTO attempts SELECT a.* FROM unnest($1::bigint[], $2::bigint[], $3::float8[], $4::float8[], "
        "$5::text[], $6::text[], $7::text[]) AS a (delivery, number, at, latency, status, text, reference) "
        "WHERE EXISTS (SELECT 1 FROM deliveries d WHERE d.id = a.delivery AND d.state = 'pending') "
        "ON CONFLICT DO NOTHING",
        _columns(
            [
                (one.ids[0], row.number, row.at, row.latency, row.status, row.text, row.reference)
                for one in settled
                for row in (one.attempt,)
            ]
        ),
    )
    _update(conn, id_, settled)
    references = {one.lane: one.attempt for one in settled if one.attempt.reference is not None}
    if references:
        conn.run(
            "INSERT INTO last_references SELECT $1::bigint, * FROM unnest($2::text[], $3::text[], $4::float8[]) "
            "ON CONFLICT (subscription, lane) DO UPDATE SET reference = excluded.reference, at = excluded.at",
            [
                id_,
                list(references),
                [row.reference for row in references.values()],
                [row.at for row in references.values()],
            ],
        )


def _update(conn: Connection, id_: int, settled: Sequence[AttemptOutcome]) -> None:
    """Write the state of the deliveries, and how many of the subscription are pending.

    If one was attempted twice, the later attempt is written after the earlier one.
    """
    rows: dict[int, tuple[Any, ...]] = {}
    for one in settled:
        row = one.attempt
        finished = None if one.state == "pending" else row.at + row.latency
        told = (one.state, row.number, one.retries, one.refusals, finished, row.status)
        for delivery in one.ids:
            rows[delivery] = (delivery, *told, one.ids[0] if one.digest else None)
    conn.run(
        "WITH written AS (UPDATE deliveries d SET state = w.state, attempts = w.attempts, retries = w.retries, "
        "refusals = w.refusals, finished_at = w.finished, status = w.status, digest = coalesce(w.digest, d.digest) "
        "FROM unnest($2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::float8[], $8::text[], "
        "$9::bigint[]) AS w (id, state, attempts, retries, refusals, finished, status, digest) "
        "WHERE d.id = w.id AND d.state = 'pending' RETURNING w.state) "
        "UPDATE subscriptions SET pending = pending - (SELECT count(*) FROM written WHERE state != 'pending') "
        "WHERE id = $1",
        [id_, *_columns(list(rows.values()))],
    )


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _release(conn: Connection, id_: int, released: Sequence[Release]) -> None:
    """Give lanes back."""
    if released:
        lanes = {release.lane: release for release in released}.values()
        conn.run(RELEASE, [id_, *_columns([(one.lane, one.due, one.not_before) for one in lanes])])


def _claim(conn: Connection, id_: int, lease: Lease, request: ClaimRequest, now: float) -> Answer:
    """Claim lanes, and ask for their deliveries."""
    lanes, each, most = (
        (1, *[request.together] * 2) if request.together else (request.deliveries, request.per_lane, request.deliveries)
    )
    given = [id_, lease.epoch, now, lanes, each, most]
    return conn.run(PROBE, [*given, list(request.failed)]) if request.probe else conn.run(CLAIM, given)


def _claims(conn: Connection, claimed: Answer, request: ClaimRequest) -> tuple[Claim, ...]:
    """The claims, from the rows that were claimed."""
    claims = []
    for (lane, due, not_before, reference), rows in groupby(claimed, key=itemgetter(0, 1, 2, 3)):
        jobs = [row[4:] for row in rows if row[9] is not None]
        claims.append(
            Claim(
                lane=lane,
                due=due,
                not_before=not_before,
                jobs=_digest(conn, jobs, request.max_bytes) if request.together else tuple(map(job_of, jobs)),
                last_reference=reference,
            )
        )
    return tuple(claims)


def _digest(conn: Connection, rows: Sequence[tuple[Any, ...]], max_bytes: int) -> tuple[Job, ...]:
    """Everything pending that fits; for a digest that was attempted before, exactly its deliveries."""
    jobs: list[Job] = []
    digest, left = None, max_bytes
    for row in rows:
        job = job_of(row)
        left -= len(job.event.raw)
        if jobs and (row[4] != digest or left < 0):
            break
        digest = row[4]
        jobs.append(job)
    if jobs and digest is None:
        conn.run("UPDATE deliveries SET digest = $1 WHERE id = ANY($2::bigint[])", [jobs[0].id, [j.id for j in jobs]])
    return tuple(jobs)
