"""Renaming and deleting stored data of subscriptions and sources."""

from __future__ import annotations

import sqlite3
from typing import Final

from state.errors import StateError
from state.sqlite import subscriptions
from state.sqlite.connection import State, transaction
from state.sqlite.sweeps import rebaseline

OF_SUBSCRIPTION: Final = ("lanes", "replays", "last_references", "passed_over")
TOLD: Final = (  # whether there is, or was, an event of a source
    "SELECT 1 FROM events WHERE source = ? UNION ALL SELECT 1 FROM objects o JOIN endpoints e ON e.id = o.endpoint "
    "WHERE e.source = ? AND o.version > 0 LIMIT 1"
)
EMPTY: Final = b"{}"  # stored in place of a deleted object's content


class Names:
    """The names in one state file. Every method is one step."""

    def __init__(self, db: State) -> None:
        self._db = db

    def rename_subscription(self, old: str, new: str) -> None:
        """Rename a subscription with its stored data; nothing may have been queued under the new name yet.

        Raises StateError if `old` is not known, or `new` has deliveries of its own.
        """
        with transaction(self._db) as conn:
            id_ = subscriptions.id_of(conn, old)
            _make_way_for_subscription(conn, id_, new)
            conn.execute("UPDATE subscriptions SET name = ? WHERE id = ?", [new, id_])
            conn.execute("UPDATE lanes SET epoch = 0 WHERE subscription = ?", [id_])  # no lease has the new name yet
            _move_versions(conn, f"subscriptions/{old}", f"subscriptions/{new}")

    def rename_source(self, old: str, new: str, *, with_budget: bool) -> None:
        """Rename a source with its stored data; nothing may have been recorded under the new name yet.

        A budget of the same name is renamed with it, and its calls keep counting. Raises StateError if `old` is not
        known, or `new` has events of its own.
        """
        with transaction(self._db) as conn:
            if not _endpoints(conn, old):
                raise StateError(f"nothing is stored of a source {old!r}", hint=_known_sources(conn))
            if conn.execute(TOLD, [f"/sources/{new}", new]).fetchone():
                raise StateError(f"source {new!r} has events of its own", hint=f"it cannot take over those of {old!r}")
            for endpoint in _endpoints(conn, new):
                _drop_endpoint(conn, endpoint)
            conn.execute("UPDATE endpoints SET source = ? WHERE source = ?", [new, old])
            conn.execute("UPDATE events SET source = ? WHERE source = ?", [f"/sources/{new}", f"/sources/{old}"])
            _move_lanes(conn, f"/sources/{old} ", f"/sources/{new} ")
            _move_versions(conn, f"sources/{old}", f"sources/{new}")
            _move_versions(conn, f"endpoints/{old}/", f"endpoints/{new}/")
            _move_learned(conn, ("health", "stall"), old, new)
            if with_budget:
                _move_budget(conn, old, new)

    def forget_subscription(self, name: str, *, limit: int) -> bool:
        """Delete at most `limit` deliveries of a removed subscription, and with the last ones the subscription.

        Returns whether it is deleted. Raises StateError if it is not known, or not removed.
        """
        with transaction(self._db) as conn:
            id_ = subscriptions.id_of(conn, name)
            (state,) = conn.execute("SELECT state FROM subscriptions WHERE id = ?", [id_]).fetchone()
            if state != "removed":
                raise StateError(f"subscription {name!r} is in use", hint="remove it from the configuration first")
            query = "SELECT id FROM deliveries WHERE subscription = ? LIMIT ?"
            found = conn.execute(query, [id_, limit]).fetchall()
            conn.executemany("DELETE FROM attempts WHERE delivery = ?", found)
            conn.executemany("DELETE FROM deliveries WHERE id = ?", found)
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
            keys = [f"health:{name}", f"stall:{name}"]
            conn.execute("DELETE FROM learned WHERE key IN (?, ?)", keys)
            return True

    def sources(self) -> list[str]:
        """Every source with stored data."""
        return _sources(self._db.conn) if self._db.conn is not None else []


def _make_way_for_subscription(conn: sqlite3.Connection, old: int, new: str) -> None:
    """Delete the row of the new name, which exists if the configuration was reloaded before the renaming."""
    row = conn.execute("SELECT id FROM subscriptions WHERE name = ?", [new]).fetchone()
    if row is None:
        return
    used = "SELECT 1 FROM deliveries WHERE subscription = ? UNION ALL SELECT 1 FROM replays WHERE subscription = ?"
    if conn.execute(f"{used} LIMIT 1", [row[0], row[0]]).fetchone():
        (cursor,) = conn.execute("SELECT cursor FROM subscriptions WHERE id = ?", [old]).fetchone()
        raise StateError(
            f"subscription {new!r} has deliveries of its own",
            hint=f"poller replay {new} --after {cursor} delivers to it what the other one did not get",
        )
    _drop_subscription(conn, row[0])


def _drop_subscription(conn: sqlite3.Connection, id_: int) -> None:
    for table in OF_SUBSCRIPTION:
        conn.execute(f"DELETE FROM {table} WHERE subscription = ?", [id_])
    conn.execute("DELETE FROM subscriptions WHERE id = ?", [id_])


def _endpoints(conn: sqlite3.Connection, source: str) -> list[int]:
    query = "SELECT id FROM endpoints WHERE source = ? AND shape != '' ORDER BY id"
    return [row[0] for row in conn.execute(query, [source])]


def _sources(conn: sqlite3.Connection) -> list[str]:
    query = "SELECT DISTINCT source FROM endpoints WHERE shape != '' ORDER BY source"
    return [row[0] for row in conn.execute(query)]


def _known_sources(conn: sqlite3.Connection) -> str:
    return f"known: {', '.join(_sources(conn)) or 'none'}"


def _drop_endpoint(conn: sqlite3.Connection, endpoint: int) -> None:
    for table in ("units", "objects"):
        conn.execute(f"DELETE FROM {table} WHERE endpoint = ?", [endpoint])
    conn.execute("DELETE FROM endpoints WHERE id = ?", [endpoint])


def _empty_objects(conn: sqlite3.Connection, endpoint: int, limit: int) -> int:
    """Delete the content of at most `limit` objects; returns how many."""
    gone = conn.execute(
        "DELETE FROM objects WHERE id IN (SELECT id FROM objects WHERE endpoint = ? AND version = 0 LIMIT ?)",
        [endpoint, limit],
    ).rowcount
    emptied = conn.execute(
        "UPDATE objects SET body = ?1, presence = 2, unit = NULL, missing_at = NULL, missing_sweep = NULL, checks = 0, "
        "unlisted = 0 WHERE id IN (SELECT id FROM objects WHERE endpoint = ?2 AND (presence != 2 OR body != ?1) "
        "LIMIT ?3)",
        [EMPTY, endpoint, limit - gone],
    ).rowcount
    return gone + emptied


def _forget_endpoint(conn: sqlite3.Connection, endpoint: int, now: float) -> None:
    if conn.execute("SELECT 1 FROM objects WHERE endpoint = ? LIMIT 1", [endpoint]).fetchone() is None:
        _drop_endpoint(conn, endpoint)
        return
    (order,) = conn.execute("SELECT sweep_order FROM endpoints WHERE id = ?", [endpoint]).fetchone()
    rebaseline(conn, endpoint, now, order + 1)
    # Without a shape it counts as unknown: if it returns, it begins with a baseline.
    conn.execute("UPDATE endpoints SET shape = '', objects = 0, revision = revision + 1 WHERE id = ?", [endpoint])


def _move_lanes(conn: sqlite3.Connection, old: str, new: str) -> None:
    for before in ("", "replay "):
        begin = before + old
        for table in ("lanes", "deliveries", "last_references"):
            where = " AND state = 'pending'" if table == "deliveries" else ""
            conn.execute(
                f"UPDATE {table} SET lane = ? || substr(lane, ?) WHERE substr(lane, 1, ?) = ?{where}",
                [before + new, len(begin) + 1, len(begin), begin],
            )
    conn.execute("UPDATE lanes SET epoch = 0")


def _move_versions(conn: sqlite3.Connection, old: str, new: str) -> None:
    """Continue to count versions under the new subject (or, if it ends in a slash, all that begin with it); no version
    goes back."""
    where = "substr(subject, 1, ?) = ?" if old.endswith("/") else "? > 0 AND subject = ?"
    rows = conn.execute(f"SELECT subject, version FROM versions WHERE {where}", [len(old), old]).fetchall()
    conn.executemany(
        "INSERT INTO versions VALUES (?, ?) ON CONFLICT (subject) DO UPDATE SET version = max(version, "
        "excluded.version)",
        [(new + subject[len(old) :], version) for subject, version in rows],
    )


def _move_learned(conn: sqlite3.Connection, kinds: tuple[str, ...], old: str, new: str) -> None:
    for kind in kinds:
        conn.execute("UPDATE OR REPLACE learned SET key = ? WHERE key = ?", [f"{kind}:{new}", f"{kind}:{old}"])


def _move_budget(conn: sqlite3.Connection, old: str, new: str) -> None:
    conn.execute("UPDATE calls SET budget = ? WHERE budget = ?", [new, old])
    conn.execute("UPDATE OR REPLACE meta SET key = ? WHERE key = ?", [f"throttled {new}", f"throttled {old}"])
    _move_learned(conn, ("planner", "throttle"), old, new)
