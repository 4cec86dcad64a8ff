"""Renaming and deleting stored data of subscriptions and sources."""

from __future__ import annotations

from typing import Final

from state.errors import StateError
from state.postgres import subscriptions
from state.postgres.connection import Connection, Database, transaction
from state.postgres.recording import rebaseline

OF_SUBSCRIPTION: Final = ("lanes", "replays", "last_references", "passed_over")
TOLD: Final = (  # whether there is, or was, an event of a source
    "SELECT 1 FROM events WHERE source = $1 UNION ALL SELECT 1 FROM objects o JOIN endpoints e ON e.id = o.endpoint "
    "WHERE e.source = $2 AND o.version > 0 LIMIT 1"
)
EMPTY: Final = b"{}"  # stored in place of a deleted object's content


class Names:
    """The names in one database. Every method is one step."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def rename_subscription(self, old: str, new: str) -> None:
        """Rename a subscription with its stored data; nothing may have been queued under the new name yet.

        Raises StateError if `old` is not known, or `new` has deliveries of its own.
        """
        with transaction(self._db) as conn:
            id_ = subscriptions.id_of(conn, old)
            _make_way_for_subscription(conn, id_, new)
            conn.run("UPDATE subscriptions SET name = $1 WHERE id = $2", [new, id_])
            conn.run("UPDATE lanes SET epoch = 0 WHERE subscription = $1", [id_])  # no lease has the new name yet
            _move_versions(conn, f"subscriptions/{old}", f"subscriptions/{new}")

    def rename_source(self, old: str, new: str, *, with_budget: bool) -> None:
        """Rename a source with its stored data; nothing may have been recorded under the new name yet.

        A budget of the same name is renamed with it, and its calls keep counting. Raises StateError if `old` is not
        known, or `new` has events of its own.
        """
        with transaction(self._db) as conn:
            conn.lift_limits()  # every event of the source is written
            if not _endpoints(conn, old):
                raise StateError(f"nothing is stored of a source {old!r}", hint=_known_sources(conn))
            if conn.value(TOLD, [f"/sources/{new}", new]) is not None:
                raise StateError(f"source {new!r} has events of its own", hint=f"it cannot take over those of {old!r}")
            for endpoint in _endpoints(conn, new):
                _drop_endpoint(conn, endpoint)
            conn.run("UPDATE endpoints SET source = $1 WHERE source = $2", [new, old])
            conn.run("UPDATE events SET source = $1 WHERE source = $2", [f"/sources/{new}", f"/sources/{old}"])
            _move_lanes(conn, f"/sources/{old} ", f"/sources/{new} ")
            _move_versions(conn, f"sources/{old}", f"sources/{new}")
            _move_versions(conn, f"endpoints/{old}/", f"endpoints/{new}/")
            _move_keys(conn, "learned", {f"{kind}:{old}": f"{kind}:{new}" for kind in ("health", "stall")})
            if with_budget:
                conn.run("UPDATE calls SET budget = $1 WHERE budget = $2", [new, old])
                _move_keys(conn, "meta", {f"throttled {old}": f"throttled {new}"})
                _move_keys(conn, "learned", {f"{kind}:{old}": f"{kind}:{new}" for kind in ("planner", "throttle")})

    def forget_subscription(self, name: str, *, limit: int) -> bool:
        """Delete at most `limit` deliveries of a removed subscription, and with the last ones the subscription.

        Returns whether it is deleted. Raises StateError if it is not known, or not removed.
        """
        with transaction(self._db) as conn:
            id_ = subscriptions.id_of(conn, name)
            if conn.value("SELECT state FROM subscriptions WHERE id = $1", [id_]) != "removed":
                raise StateError(f"subscription {name!r} is in use", hint="remove it from the configuration first")
            rows = conn.run("SELECT id FROM deliveries WHERE subscription = $1 ORDER BY id LIMIT $2", [id_, limit])
            found = [row[0] for row in rows]
            conn.run("DELETE FROM attempts WHERE delivery = ANY($1::bigint[])", [found])
            conn.run("DELETE FROM deliveries WHERE id = ANY($1::bigint[])", [found])
            if len(found) == limit:
                return False
            _drop_subscription(conn, id_)
            return True

    def forget_source(self, name: str, *, limit: int, now: float) -> bool:
        """Delete the content of at most `limit` objects of a source, and with the last ones its endpoints.

        Ids and versions of objects with events are kept, so that no event id is ever used twice. Returns whether it is
        deleted. Raises StateError if it is not known.
        """
        with transaction(self._db) as conn:
            endpoints = _endpoints(conn, name)
            if not endpoints:
                raise StateError(f"nothing is stored of a source {name!r}", hint=_known_sources(conn))
            left = limit
            for endpoint in endpoints:
                left -= _empty_objects(conn, endpoint, left)
                if left <= 0:
                    return False
            for endpoint in endpoints:
                _forget_endpoint(conn, endpoint, now)
            conn.run("DELETE FROM learned WHERE key = ANY($1::text[])", [[f"health:{name}", f"stall:{name}"]])
            return True

    def sources(self) -> list[str]:
        """Every source with stored data."""
        return _sources(self._db)


def _make_way_for_subscription(conn: Connection, old: int, new: str) -> None:
    """Delete the row of the new name, which exists if the configuration was reloaded before the renaming."""
    id_ = conn.value("SELECT id FROM subscriptions WHERE name = $1 FOR UPDATE", [new])
    if id_ is None:
        return
    used = "SELECT 1 FROM deliveries WHERE subscription = $1 UNION ALL SELECT 1 FROM replays WHERE subscription = $1"
    if conn.value(f"{used} LIMIT 1", [id_]) is not None:
        cursor = conn.value("SELECT cursor FROM subscriptions WHERE id = $1", [old])
        raise StateError(
            f"subscription {new!r} has deliveries of its own",
            hint=f"poller replay {new} --after {cursor} delivers to it what the other one did not get",
        )
    _drop_subscription(conn, id_)


def _drop_subscription(conn: Connection, id_: int) -> None:
    for table in OF_SUBSCRIPTION:
        conn.run(f"DELETE FROM {table} WHERE subscription = $1", [id_])
    conn.run("DELETE FROM subscriptions WHERE id = $1", [id_])


def _endpoints(conn: Connection, source: str) -> list[int]:
    query = "SELECT id FROM endpoints WHERE source = $1 AND shape != '' ORDER BY id FOR NO KEY UPDATE"
    return [row[0] for row in conn.run(query, [source])]


def _sources(db: Database | Connection) -> list[str]:
    query = "SELECT DISTINCT source FROM endpoints WHERE shape != '' ORDER BY source"
    return [row[0] for row in db.run(query)]


def _known_sources(conn: Connection) -> str:
    return f"known: {', '.join(_sources(conn)) or 'none'}"


def _drop_endpoint(conn: Connection, endpoint: int) -> None:
    for table in ("units", "objects"):
        conn.run(f"DELETE FROM {table} WHERE endpoint = $1", [endpoint])
    conn.run("DELETE FROM endpoints WHERE id = $1", [endpoint])


def _empty_objects(conn: Connection, endpoint: int, limit: int) -> int:
    """Delete the content of at most `limit` objects; returns how many."""
    of = "object IN (SELECT object FROM objects WHERE endpoint = $1 AND"
    gone = conn.changed(f"DELETE FROM objects WHERE endpoint = $1 AND {of} version = 0 LIMIT $2)", [endpoint, limit])
    emptied = conn.changed(
        "UPDATE objects SET body = $3::bytea, presence = 2, unit = NULL, missing_at = NULL, missing_sweep = NULL, "
        f"checks = 0, unlisted = false WHERE endpoint = $1 AND {of} (presence != 2 OR body != $3::bytea) LIMIT $2)",
        [endpoint, limit - gone, EMPTY],
    )
    return gone + emptied


def _forget_endpoint(conn: Connection, endpoint: int, now: float) -> None:
    if conn.value("SELECT 1 FROM objects WHERE endpoint = $1 LIMIT 1", [endpoint]) is None:
        _drop_endpoint(conn, endpoint)
        return
    order = conn.value("SELECT sweep_order FROM endpoints WHERE id = $1", [endpoint])
    rebaseline(conn, endpoint, now, order + 1)
    # Without a shape it counts as unknown: if it returns, it begins with a baseline.
    conn.run("UPDATE endpoints SET shape = '', objects = 0, revision = revision + 1 WHERE id = $1", [endpoint])


def _move_lanes(conn: Connection, old: str, new: str) -> None:
    conn.run("SELECT id FROM subscriptions ORDER BY id FOR NO KEY UPDATE")
    for before in ("", "replay "):
        for table in ("lanes", "deliveries", "last_references"):
            where = " AND state = 'pending'" if table == "deliveries" else ""
            conn.run(
                f"UPDATE {table} SET lane = $1::text || substr(lane, length($2::text) + 1) "
                f"WHERE starts_with(lane, $2::text){where}",
                [before + new, before + old],
            )
    conn.run("UPDATE lanes SET epoch = 0")


def _move_versions(conn: Connection, old: str, new: str) -> None:
    """Continue to count versions under the new subject (or, if it ends in a slash, all that begin with it); no version
    goes back.
    """
    where = "starts_with(subject, $1::text)" if old.endswith("/") else "subject = $1::text"
    conn.run(
        f"INSERT INTO versions SELECT $2::text || substr(subject, length($1::text) + 1), version FROM versions "
        f"WHERE {where} ON CONFLICT (subject) DO UPDATE SET version = greatest(versions.version, excluded.version)",
        [old, new],
    )


def _move_keys(conn: Connection, table: str, keys: dict[str, str]) -> None:
    for old, new in keys.items():
        if conn.value(f"SELECT 1 FROM {table} WHERE key = $1", [old]) is not None:
            conn.run(f"DELETE FROM {table} WHERE key = $1", [new])
            conn.run(f"UPDATE {table} SET key = $1 WHERE key = $2", [new, old])
