"""Translation of PostgreSQL's errors: temporary ones are distinguished from permanent ones."""

from __future__ import annotations

import re
from typing import Final

import psycopg

from state.errors import StateError, Unavailable

# Classes and codes of SQLSTATE for temporary errors, with what an operator can do.
PASSING: Final = {
    "53100": "free space on the disk of the database",
    "53200": "give the database more memory",
    "53300": "raise max_connections of the database, or the limit of its user, or run fewer workers",
    "53": "look after the database: its log says more",
    "54000": "the database is at a limit, as before a wraparound of transaction ids: do what its own hint says",
    "57014": "the database is slow, or another transaction holds a lock: pg_stat_activity shows which",
    "57": "wait for the database to be up again",
    "55P03": "another transaction holds a lock: pg_stat_activity shows which",
    "25006": "if it is a replica, name the primary, with target_session_attrs=read-write; else find out why "
    "default_transaction_read_only is on: some services set it when the disk is nearly full",
    "25P03": "the worker was stopped, or starved, within a transaction",
    "58": "look after the disk of the database: its log says more",
    "40": "two workers wanted the same at once: it is done again",
    "08": "is the database up, can it be reached, and are its name, the user and the password in the URL right?",
}
_LACKING: Final = {
    "3F": "name a schema that is there: ALTER ROLE ... SET search_path = public",
    "28": "check the URL, the user's rights, and that the database is there",
}
_FULL: Final = re.compile("too many (?:clients|connections)|connection slots")
DAMAGED: Final = ("XX001", "XX002")
AGAIN: Final = ("40001", "40P01")  # nothing was written, and the same step may succeed at once


def translated(error: BaseException) -> BaseException:
    """The error to raise instead of one of PostgreSQL. Errors in the use of PostgreSQL are left unchanged."""
    if not isinstance(error, psycopg.Error):
        return error
    code = error.sqlstate or ""
    text = " ".join(str(error).split())
    if code in DAMAGED:
        return _caused(StateError(f"the state is damaged: {text}", hint="restore a backup of the database"), error)
    for passing in (code, code[:2]):
        if passing and passing in PASSING:
            return _caused(Unavailable(f"the state cannot be written: {text}", hint=PASSING[passing]), error)
    if not code and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        hint = PASSING["53300" if _FULL.search(text) else "08"]  # a connection that is refused has no code
        return _caused(Unavailable(f"the database cannot be reached: {text}", hint=hint), error)
    if code[:2] in ("28", "3D", "3F", "42"):
        what = f"the database does not let us in, or lacks what is needed: {text}"
        return _caused(StateError(what, hint=_LACKING.get(code[:2], _LACKING["28"])), error)
    return error


def _caused(ours: StateError, cause: psycopg.Error) -> StateError:
    ours.__cause__ = cause
    return ours
