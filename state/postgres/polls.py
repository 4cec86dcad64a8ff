"""Endpoints, units and objects: what the decision on a poll needs, and what one transaction records of the poll."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import structs

from state.leases import Lease
from state.members import NO_MEMBERS
from state.polls import EndpointSpec, Known, Opened, Recorded, Recording, Snapshot, Suspect, UnitTimes, Wanted
from state.postgres.connection import Database, transaction
from state.postgres.recording import KNOWN, make_unit, read_endpoint, read_members, rebaseline, write, write_times
from state.rows import ENDPOINT, SUSPECT, UNIT, endpoint_of, snapshot_of, suspect_of, unit_of

HOUR: Final = 3600.0


class Polls:
    """Steps of polling. Every method is one step."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def open(self, spec: EndpointSpec, *, now: float) -> Opened:
        """The endpoint and its units, created if they are new. If its shape has changed, a new baseline begins.

        Known objects stay, for their versions; the first sweep records whatever it shows without events.
        """
        with transaction(self._db) as conn:
            conn.run(
                "INSERT INTO endpoints (source, name, shape, sweep_began, baseline_before) "
                "VALUES ($1, $2, $3, $4::float8, $4::float8) ON CONFLICT (source, name) DO NOTHING",
                [spec.source, spec.name, spec.shape, now],
            )
            row = conn.row(
                f"SELECT {ENDPOINT} FROM endpoints WHERE source = $1 AND name = $2 FOR NO KEY UPDATE",
                [spec.source, spec.name],
            )
            assert row is not None
            state = endpoint_of(row)
            is_reshaped = state.shape not in (spec.shape, "")  # an empty one: it was deleted
            if state.shape != spec.shape:
                conn.run(
                    "UPDATE endpoints SET shape = $1, revision = revision + 1 WHERE id = $2", [spec.shape, state.id]
                )
                rebaseline(conn, state.id, now, state.sweep_order + 1)
            for key, position in spec.units:
                make_unit(conn, state.id, key, position)
        deletions, creations = (self._recent(spec, kind, now) for kind in ("deleted", "created"))
        opened = self.reopen(state.id)
        return structs.replace(opened, is_reshaped=is_reshaped, deletions=deletions, creations=creations)

    def _recent(self, spec: EndpointSpec, kind: str, now: float) -> list[float]:
        rows = self._db.run(
            "SELECT $1::float8 - time FROM events WHERE time > $1::float8 - $2::float8 AND time <= $1::float8 "
            "AND source = $3 AND starts_with(subject, $4) AND type LIKE $5 ORDER BY time",
            [now, HOUR, f"/sources/{spec.source}", f"{spec.name}/", f"%.{kind}"],
        )
        return [float(age) for (age,) in rows]

    def reopen(self, endpoint: int) -> Opened:
        """The endpoint and its units as currently stored."""
        rows = self._db.run(f"SELECT {UNIT} FROM units WHERE endpoint = $1 ORDER BY id", [endpoint])
        units, suspects = [unit_of(row) for row in rows], self.suspects(endpoint, limit=1)
        return Opened(state=read_endpoint(self._db, endpoint), units=units, has_suspects=bool(suspects))

    def known(self, endpoint: int, wanted: Sequence[Wanted]) -> list[Known]:
        """What is known of the objects of each unit, and of the requested objects."""
        return [self._known(endpoint, one) for one in wanted]

    def _known(self, endpoint: int, wanted: Wanted) -> Known:
        members = read_members(self._db, wanted.unit) if wanted.with_members else NO_MEMBERS
        return Known(members=members, snapshots=self.snapshots(endpoint, [*members.lost(wanted.digests), *wanted.ids]))

    def snapshots(self, endpoint: int, ids: Sequence[str]) -> dict[str, Snapshot]:
        """The snapshots of these objects, as far as they exist."""
        if not ids:
            return {}
        rows = self._db.run(
            f"SELECT {KNOWN} FROM objects o LEFT JOIN units u ON u.id = o.unit "
            "WHERE o.endpoint = $1 AND o.object = ANY($2::text[])",
            [endpoint, list(ids)],
        )
        found = {row[0]: snapshot_of(row) for row in rows}
        return {object_id: found[object_id] for object_id in ids if object_id in found}

    def record(self, lease: Lease, recording: Recording) -> Recorded:
        """Write a recording, all or nothing.

        Raises Conflict if the endpoint has changed since `recording.base`, and LeaseLost if another worker owns the
        budget now.
        """
        with transaction(self._db) as conn:
            return write(conn, lease, recording)

    def touch(self, times: Iterable[UnitTimes]) -> None:
        """Record which units showed exactly what they showed before, and when."""
        with transaction(self._db) as conn:
            write_times(conn, times)

    def suspect_count(self, endpoint: int) -> int:
        """The number of objects whose deletion is to be confirmed."""
        query = "SELECT count(*) FROM objects WHERE endpoint = $1 AND presence = 1 AND unit IS NULL"
        return int(self._db.value(query, [endpoint]))

    def suspects(self, endpoint: int, *, limit: int = 1000) -> list[Suspect]:
        """Objects whose deletion is to be confirmed, longest missing first."""
        rows = self._db.run(
            f"SELECT {SUSPECT} FROM objects WHERE endpoint = $1 AND presence = 1 AND unit IS NULL "
            "ORDER BY missing_at NULLS FIRST LIMIT $2",
            [endpoint, limit],
        )
        return [suspect_of(row) for row in rows]

    def listed(self, endpoint: int) -> Snapshot | None:
        """An object that its list shows; None if there is none."""
        rows = self._db.run(
            f"SELECT {KNOWN} FROM objects o JOIN units u ON u.id = o.unit WHERE o.endpoint = $1 AND o.presence = 0 "
            "LIMIT 1",
            [endpoint],
        )
        return next((snapshot_of(row) for row in rows), None)

    def parents(self, endpoint: int) -> list[str]:
        """The ids of the objects that exist, in order."""
        rows = self._db.run(
            "SELECT object FROM objects WHERE endpoint = $1 AND presence < 2 ORDER BY object", [endpoint]
        )
        return [row[0] for row in rows]

    def parent(self, source: str, endpoint: str, object_id: str) -> bytes | None:
        """The last known state of an existing object, as JSON."""
        body: bytes | None = self._db.value(
            "SELECT o.body FROM objects o JOIN endpoints e ON e.id = o.endpoint "
            "WHERE e.source = $1 AND e.name = $2 AND o.object = $3 AND o.presence < 2",
            [source, endpoint, object_id],
        )
        return body
