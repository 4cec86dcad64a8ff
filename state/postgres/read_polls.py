"""Reading of endpoints, units and objects."""

from __future__ import annotations

from typing import Any

from state.polls import Snapshot
from state.postgres.connection import Database
from state.postgres.recording import KNOWN
from state.rows import snapshot_of
from state.status import UnitClaims, UnitProgress


class PollReader:
    """Reads endpoints, units and objects, beside the workers."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def endpoints(self) -> list[dict[str, Any]]:
        """One row per endpoint: source, endpoint, units, objects, last_sweep, suspects, held, failing, error, ..."""
        cursor = self._db.run(
            """
            SELECT e.id, e.source, e.name AS endpoint, e.last_sweep, e.last_sweep_began, e.sweep_began, e.held,
                e.uncertain, e.accepted,
                e.baseline_before IS NOT NULL AS baseline,
                (SELECT count(*) FROM units u WHERE u.endpoint = e.id) AS units,
                EXISTS (SELECT 1 FROM units u WHERE u.endpoint = e.id AND u.key LIKE 'parent=%') AS per_parent,
                (SELECT min(coalesce(u.asked_at, e.sweep_began)) FROM units u
                    WHERE u.endpoint = e.id) AS oldest_asked_at,
                (SELECT count(*) FROM units u WHERE u.endpoint = e.id AND u.failures > 0) AS failing,
                (SELECT u.error FROM units u WHERE u.endpoint = e.id AND u.error IS NOT NULL
                    ORDER BY u.failures DESC, u.id LIMIT 1) AS error,
                e.objects,
                (SELECT count(*) FROM objects o
                    WHERE o.endpoint = e.id AND o.unit IS NULL AND o.presence = 1) AS suspects,
                (SELECT count(*) FROM objects o WHERE o.endpoint = e.id AND o.unit IS NULL AND o.presence < 2
                    AND o.unlisted) AS unlisted
            FROM endpoints e ORDER BY e.source, e.id
            """
        )
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def units(self, source: str, endpoint: str, *, limit: int = 1000) -> list[UnitProgress]:
        """The units of one endpoint: failing ones first, then in the order in which they were created."""
        rows = self._db.run(
            "SELECT u.key, u.asked_at, u.shown, u.calls, u.failures, u.retry_at, u.error FROM units u "
            "JOIN endpoints e ON e.id = u.endpoint WHERE e.source = $1 AND e.name = $2 "
            "ORDER BY u.failures DESC, u.id LIMIT $3",
            [source, endpoint, limit],
        )
        names = ("key", "asked_at", "objects", "calls", "failures", "retry_at", "error")
        return [UnitProgress(**dict(zip(names, row, strict=True))) for row in rows]

    def claims(self, member: str, *, limit: int = 1000) -> list[UnitClaims]:
        """The units whose claims may have this member, in the order in which they were created."""
        rows = self._db.run(
            "SELECT e.source, e.name, u.key, u.claims FROM units u JOIN endpoints e ON e.id = u.endpoint "
            "WHERE position($1 in u.claims) > 0 ORDER BY u.id LIMIT $2",
            [f'"{member}":'.encode(), limit],
        )
        return [UnitClaims(source=row[0], endpoint=row[1], key=row[2], claims=bytes(row[3])) for row in rows]

    def object(self, source: str, endpoint: str, object_id: str) -> Snapshot | None:
        """The snapshot of one object, or None if it was never seen."""
        row = self._db.row(
            f"SELECT {KNOWN} FROM objects o LEFT JOIN units u ON u.id = o.unit JOIN endpoints e ON e.id = o.endpoint "
            "WHERE e.source = $1 AND e.name = $2 AND o.object = $3",
            [source, endpoint, object_id],
        )
        return None if row is None else snapshot_of(row)
