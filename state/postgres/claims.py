"""Settling and claiming: results of attempts are written, lanes are given back, and other lanes are claimed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

from state.deliveries import AttemptOutcome, Claim, ClaimRequest, Job, Release, Settled, Settlement, SinkHealth
from state.leases import Lease
from state.postgres import subscriptions
from state.postgres.connection import Connection
from state.postgres.notices import tell
from state.rows import EVENT, job_of

# The oldest pending deliveries ($3 at most) of the lanes ($2) of a subscription ($1), lane by lane, in order.
JOBS: Final = (
    "SELECT c.place, d.id, d.attempts, d.retries, d.refusals, d.digest, "
    f"{', '.join(f'e.{name}' for name in EVENT.split(', '))} "
    "FROM unnest($2::text[]) WITH ORDINALITY AS c (lane, place) CROSS JOIN LATERAL (SELECT * FROM deliveries "
    "WHERE subscription = $1 AND lane = c.lane AND state = 'pending' ORDER BY id LIMIT $3) d "
    "JOIN events e ON e.seq = d.seq ORDER BY c.place, d.id"
)


def settle(conn: Connection, lease: Lease, batch: Settlement, request: ClaimRequest | None, limit: int) -> Settled:
    """Write one settlement in the caller's transaction; `limit` deliveries of a subscription are pending at most."""
    id_ = subscriptions.id_of(conn, lease.subject)
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
    row = conn.row(
        "SELECT state, pending < $1 AND (cursor < (SELECT max(seq) FROM events) OR EXISTS (SELECT 1 FROM replays r "
        "WHERE r.subscription = s.id)), failures, open_until, probe_wait, last_error, dead_reported "
        "FROM subscriptions s WHERE id = $2",
        [limit - limit // 20, id_],
    )
    assert row is not None
    state, wants_more, *health = row
    is_probe = request is not None and request.probe
    claims = _claim(conn, id_, lease, request, batch.now) if request is not None and state == "active" else ()
    next_due = None if claims and is_probe else _next_due(conn, id_, lease, is_probe=is_probe)
    return Settled(
        state=state,
        claims=claims,
        next_due=next_due,
        recorded=len(tell(conn, batch.notices)),
        wants_more=bool(wants_more),
        health=SinkHealth(
            failures=health[0],
            open_until=health[1],
            wait=health[2],
            last_error=health[3],
            dead_reported=health[4],
        ),
    )


def _next_due(conn: Connection, id_: int, lease: Lease, *, is_probe: bool) -> float | None:
    """When the next free lane is due, or may be probed. A lane claimed by an earlier owner is free."""
    order = "not_before" if is_probe else "due, first_seq"
    row = conn.row(
        f"SELECT due, not_before FROM lanes WHERE subscription = $1 AND epoch < $2 ORDER BY {order} LIMIT 1",
        [id_, lease.epoch],
    )
    return None if row is None else row[is_probe]


def _settle(conn: Connection, id_: int, settled: Sequence[AttemptOutcome]) -> None:
    """Write the results of attempts, except for deliveries that were purged since."""
    if not settled:
        return
    _update(conn, id_, settled)
    conn.run(
        "INSERT INTO attempts SELECT a.* FROM unnest($1::bigint[], $2::bigint[], $3::float8[], $4::float8[], "
        "$5::text[], $6::text[], $7::text[]) AS a (delivery, number, at, latency, status, text, reference) "
        "WHERE EXISTS (SELECT 1 FROM deliveries d WHERE d.id = a.delivery) ON CONFLICT DO NOTHING",
        _columns(
            [
                (one.ids[0], row.number, row.at, row.latency, row.status, row.text, row.reference)
                for one in settled
                for row in (one.attempt,)
            ]
        ),
    )
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

    Where one was attempted twice, the later attempt is the one that is written, after the earlier one.
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
    """Give lanes back: gone where nothing is pending any more, else due again, by itself where no time is given."""
    if not released:
        return
    gone = conn.changed(
        "DELETE FROM lanes l USING unnest($2::text[]) AS r (lane) WHERE l.subscription = $1 AND l.lane = r.lane "
        "AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.subscription = $1 AND d.lane = l.lane "
        "AND d.state = 'pending')",
        [id_, [release.lane for release in released]],
    )
    if gone == len(released):
        return
    conn.run(
        "UPDATE lanes l SET due = coalesce(r.due, greatest(r.not_before, (SELECT d.due FROM deliveries d "
        "WHERE d.subscription = $1 AND d.lane = l.lane AND d.state = 'pending' ORDER BY d.id LIMIT 1), 0)), "
        "not_before = r.not_before, epoch = 0 "
        "FROM unnest($2::text[], $3::float8[], $4::float8[]) AS r (lane, due, not_before) "
        "WHERE l.subscription = $1 AND l.lane = r.lane",
        [id_, *_columns([(one.lane, one.due, one.not_before) for one in {r.lane: r for r in released}.values()])],
    )


def _claim(conn: Connection, id_: int, lease: Lease, request: ClaimRequest, now: float) -> tuple[Claim, ...]:
    condition = "not_before <= $3::float8" if request.probe else "due <= $3::float8"
    lanes = conn.run(
        "WITH due AS (SELECT lane, due, first_seq FROM lanes WHERE subscription = $1 AND epoch < $2 "
        f"AND {condition} ORDER BY due, first_seq LIMIT $4), "
        "claimed AS (UPDATE lanes l SET epoch = $2 FROM due WHERE l.subscription = $1 AND l.lane = due.lane "
        "RETURNING l.lane, l.due, l.not_before, l.first_seq) "
        "SELECT c.lane, c.due, c.not_before, r.reference FROM claimed c LEFT JOIN last_references r "
        "ON r.subscription = $1 AND r.lane = c.lane ORDER BY c.due, c.first_seq",
        [id_, lease.epoch, now, 1 if request.together else request.deliveries],
    ).fetchall()
    if not lanes:
        return ()
    per_lane = max(1, min(request.per_lane, request.deliveries // len(lanes)))
    rows = conn.run(JOBS, [id_, [lane for lane, *_ in lanes], request.together or per_lane])
    jobs = {place: [row[1:] for row in group] for place, group in groupby(rows, key=lambda row: row[0])}
    return tuple(
        Claim(
            lane=lane,
            due=due,
            not_before=not_before,
            jobs=_digest(conn, jobs.get(place, []), request.max_bytes)
            if request.together
            else tuple(job_of(row) for row in jobs.get(place, [])),
            last_reference=reference,
        )
        for place, (lane, due, not_before, reference) in enumerate(lanes, start=1)
    )


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
