"""Until when the server of a budget wants no call, in steady seconds."""

from __future__ import annotations

from state.postgres.connection import Connection, Database, read_meta, write_meta


def throttle(conn: Connection, budget: str, until: float) -> None:
    """Note it, within the caller's transaction."""
    write_meta(conn, f"throttled {budget}", repr(until))


def throttled_until(db: Database, budget: str) -> float | None:
    """What was noted last; it may be over."""
    text = read_meta(db, f"throttled {budget}")
    return None if text is None else float(text)
