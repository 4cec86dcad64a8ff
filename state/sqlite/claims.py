"""Settling and claiming: results of attempts are written, lanes are given back, and other lanes are claimed."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence

import orjson

from state.deliveries import AttemptOutcome, Claim, ClaimRequest, Job, Release, Settled, Settlement, SinkHealth
from state.leases import Lease
from state.rows import EVENT, job_of
from state.sqlite import subscriptions
from state.sqlite.notices import tell

_JOB = f"d.id, d.attempts, d.retries, d.refusals, d.digest, {', '.join(f'e.{name}' for name in EVENT.split(', '))}"
JOBS = (
    f"SELECT {_JOB} FROM deliveries d JOIN events e ON e.seq = d.seq "
    "WHERE d.subscription = ? AND d.lane = ? AND d.state = 'pending' ORDER BY d.id LIMIT ?"
)
OLDEST = (
    f"SELECT j.key, {_JOB} FROM json_each(?) j CROSS JOIN deliveries d ON d.id IN (SELECT p.id FROM deliveries p "
    "WHERE p.subscription = ? AND p.lane = j.value AND p.state = 'pending' ORDER BY p.id LIMIT ?) "
    "CROSS JOIN events e ON e.seq = d.seq"
)

_LANES = (
    "SELECT l.lane, l.due, l.not_before, r.reference "
    "FROM lanes l LEFT JOIN last_references r USING (subscription, lane)"
)
DUE = f"{_LANES} WHERE l.subscription = ? AND l.epoch < ? AND l.due <= ? ORDER BY l.due, l.first_seq LIMIT ?"
# A lane that a command has opened goes first: it is due at 0.
PROBE = (
    f"{_LANES} LEFT JOIN json_each(?) f ON f.value = l.lane WHERE l.subscription = ? AND l.epoch < ? "
    "AND l.not_before <= ? ORDER BY l.due > 0, f.key, l.due, l.first_seq LIMIT ?"
)

STATE = (
    f"SELECT state, {subscriptions.ROOM} > ?1 / 20 AND (cursor < (SELECT max(seq) FROM events) "
    "OR EXISTS (SELECT 1 FROM replays r WHERE r.subscription = s.id)), "
    "failures, open_until, probe_wait, last_error, dead_reported FROM subscriptions s WHERE id = ?3"
)


def settle(
    conn: sqlite3.Connection, lease: Lease, batch: Settlement, request: ClaimRequest | None, limit: int
) -> Settled:
    """Write one settlement in the caller's transaction; `limit` deliveries of a subscription are pending at most."""
    id_ = subscriptions.id_of(conn, lease.subject)
    _settle(conn, id_, batch.settled)
    _release(conn, id_, batch.released)
    if batch.health is not None:
        subscriptions.update_health(conn, id_, batch.health, batch.kept_until)
    if batch.disabled is not None:
        subscriptions.disable(conn, id_, batch.disabled)
    if batch.promote:
        conn.execute(
            "UPDATE lanes SET due = max(not_before, ?1) WHERE subscription = ?2 AND due > ?1 AND epoch < ?3",
            [batch.now, id_, lease.epoch],
        )
    recorded = tell(conn, batch.notices)
    state, wants_more, *health = conn.execute(STATE, [limit, batch.now, id_]).fetchone()
    is_probe = request is not None and request.probe
    claims = _claim(conn, id_, lease, request, batch.now) if request is not None and state == "active" else ()
    return Settled(
        state=state,
        claims=claims,
        next_due=None if claims and is_probe else _next_due(conn, id_, lease, is_probe=is_probe),
        recorded=len(recorded),
        wants_more=bool(wants_more),
        health=SinkHealth(
            failures=health[0],
            open_until=health[1],
            wait=health[2],
            last_error=health[3],
            dead_reported=bool(health[4]),
        ),
    )


def _next_due(conn: sqlite3.Connection, id_: int, lease: Lease, *, is_probe: bool) -> float | None:
    """When the next free lane is due, or may be probed. A lane claimed by an earlier owner is free."""
    order = "not_before" if is_probe else "due, first_seq"
    row = conn.execute(
        f"SELECT due, not_before FROM lanes WHERE subscription = ? AND epoch < ? ORDER BY {order} LIMIT 1",
        [id_, lease.epoch],
    ).fetchone()
    return None if row is None else row[is_probe]


def _settle(conn: sqlite3.Connection, id_: int, settled: Sequence[AttemptOutcome]) -> None:
    """Write the results of attempts, except for deliveries that were purged since."""
    if not settled:
        return
    ended = _update(conn, [one for one in settled if one.state != "pending"])
    _update(conn, [one for one in settled if one.state == "pending"])
    if ended:
        conn.execute("UPDATE subscriptions SET pending = pending - ? WHERE id = ?", [ended, id_])
    conn.execute(
        "INSERT INTO attempts SELECT j.value->>0, j.value->>1, j.value->>2, j.value->>3, j.value->>4, j.value->>5, "
        "j.value->>6 FROM json_each(?) j WHERE EXISTS (SELECT 1 FROM deliveries WHERE id = j.value->>0) "
        "ON CONFLICT DO NOTHING",
        [_table(_attempt(one) for one in settled)],
    )
    conn.executemany(
        "INSERT INTO last_references VALUES (?, ?, ?, ?) ON CONFLICT (subscription, lane) "
        "DO UPDATE SET reference = excluded.reference, at = excluded.at",
        [
            (id_, one.lane, one.attempt.reference, one.attempt.at)
            for one in settled
            if one.attempt.reference is not None
        ],
    )


def _table(rows: Iterable[object]) -> str:
    """Rows as JSON for `json_each`: one SQLite statement for all, because each statement hands over the interpreter
    lock.
    """
    return orjson.dumps(list(rows)).decode()


def _attempt(one: AttemptOutcome) -> tuple[object, ...]:
    row = one.attempt
    return one.ids[0], row.number, row.at, row.latency, row.status, row.text, row.reference


def _update(conn: sqlite3.Connection, settled: Sequence[AttemptOutcome]) -> int:
    """Write the state of the deliveries, and return how many of them still exist."""
    rows: dict[int, tuple[object, ...]] = {}  # of two attempts at one delivery the later counts
    for one in settled:
        row = one.attempt
        finished = None if one.state == "pending" else row.at + row.latency
        digest = one.ids[0] if one.digest else None
        written = (one.state, row.number, one.retries, one.refusals, finished, row.status, digest)
        rows |= dict.fromkeys(one.ids, written)
    if not rows:
        return 0
    return conn.execute(
        "UPDATE deliveries SET state = j.value->>1, attempts = j.value->>2, retries = j.value->>3, "
        "refusals = j.value->>4, finished_at = j.value->>5, status = j.value->>6, "
        "digest = coalesce(j.value->>7, digest) FROM json_each(?) j "
        "WHERE deliveries.id = j.value->>0 AND deliveries.state = 'pending'",
        [_table((delivery, *written) for delivery, written in rows.items())],
    ).rowcount


def _release(conn: sqlite3.Connection, id_: int, released: Sequence[Release]) -> None:
    """Give lanes back: deleted if nothing is pending in them, else due again."""
    if not released:
        return
    gone = conn.execute(
        "DELETE FROM lanes WHERE subscription = ?1 AND lane IN (SELECT value FROM json_each(?2)) AND NOT EXISTS "
        "(SELECT 1 FROM deliveries d WHERE d.subscription = ?1 AND d.lane = lanes.lane AND d.state = 'pending')",
        [id_, _table(release.lane for release in released)],
    ).rowcount
    if gone == len(released):
        return
    for release in released:
        due = _due(conn, id_, release) if release.due is None else release.due
        conn.execute(
            "UPDATE lanes SET due = ?, not_before = ?, epoch = 0 WHERE subscription = ? AND lane = ?",
            [due, release.not_before, id_, release.lane],
        )


def _due(conn: sqlite3.Connection, id_: int, release: Release) -> float:
    """When a lane's oldest delivery is due."""
    oldest = conn.execute(
        "SELECT due FROM deliveries WHERE subscription = ? AND lane = ? AND state = 'pending' ORDER BY id LIMIT 1",
        [id_, release.lane],
    ).fetchone()
    return max(release.not_before, 0.0 if oldest is None else oldest[0])


def _claim(conn: sqlite3.Connection, id_: int, lease: Lease, request: ClaimRequest, now: float) -> tuple[Claim, ...]:
    most = 1 if request.together else request.deliveries
    if request.probe:
        lanes = conn.execute(PROBE, [_table(request.failed), id_, lease.epoch, now, most]).fetchall()
    else:
        lanes = conn.execute(DUE, [id_, lease.epoch, now, most]).fetchall()
    if not lanes:
        return ()
    names = [lane for lane, *_ in lanes]
    conn.execute(
        "UPDATE lanes SET epoch = ? WHERE subscription = ? AND lane IN (SELECT value FROM json_each(?))",
        [lease.epoch, id_, _table(names)],
    )
    if request.together:
        jobs = {names[0]: _digest(conn, id_, names[0], request.together, request.max_bytes)}
    else:
        jobs = _oldest(conn, id_, names, max(1, min(request.per_lane, request.deliveries // len(names))))
    return tuple(
        Claim(lane=lane, due=due, not_before=not_before, jobs=jobs[lane], last_reference=reference)
        for lane, due, not_before, reference in lanes
    )


def _oldest(conn: sqlite3.Connection, id_: int, lanes: Sequence[str], most: int) -> dict[str, tuple[Job, ...]]:
    """The oldest deliveries of each lane, at most so many of each."""
    jobs: dict[str, list[Job]] = defaultdict(list)
    for number, *row in conn.execute(OLDEST, [_table(lanes), id_, most]):
        jobs[lanes[number]].append(job_of(row))
    return {lane: tuple(sorted(jobs[lane], key=lambda job: job.id)) for lane in lanes}


def _digest(conn: sqlite3.Connection, id_: int, lane: str, size: int, max_bytes: int) -> tuple[Job, ...]:
    """Everything pending that fits; for a digest that was attempted before, exactly its deliveries."""
    jobs: list[Job] = []
    digest, left = None, max_bytes
    for row in conn.execute(JOBS, [id_, lane, size]):
        job = job_of(row)
        left -= len(job.event.raw)
        if jobs and (row[4] != digest or left < 0):
            break
        digest = row[4]
        jobs.append(job)
    if jobs and digest is None:
        conn.executemany("UPDATE deliveries SET digest = ? WHERE id = ?", [(jobs[0].id, job.id) for job in jobs])
    return tuple(jobs)
