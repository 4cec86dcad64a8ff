"""The pause that the server of a budget asked for: its end in steady seconds."""

from __future__ import annotations

from state.postgres.connection import Connection, Database, read_meta, write_meta


def throttle(conn: Connection, budget: str, until: float) -> None:
    """Store it, within the caller's transaction."""
    write_meta(conn, f"throttled {budget}", repr(until))


def throttled_until(db: Database, budget: str) -> float | None:
    """The stored end of the pause, which may be over."""
    text = read_meta(db, f"throttled {budget}")
    return None if text is None else float(text)
