"""Ownership of files: code is run, and a configuration found by itself is used, only if it belongs to this user or
root.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path


def distrust(path: Path) -> tuple[str, str] | None:
    """Why others may have written a file or folder, and what to do; None if only this user or root can.

    A group may have write access if it is the owner's own, without other members, as many systems create it.
    """
    found = path.stat()
    if found.st_uid not in (os.geteuid(), 0):
        mine = f"chown {_user(os.geteuid())} {path}, if you trust its content"
        return f"{path} belongs to {_user(found.st_uid)}", mine
    if found.st_mode & stat.S_IWOTH:
        return f"{path} can be written by everybody", f"chmod o-w {path}, after a look at its content"
    if found.st_mode & stat.S_IWGRP and not _is_alone(found.st_uid, found.st_gid):
        return (
            f"{path} can be written by the group {_group(found.st_gid)}",
            f"chmod g-w {path}, after a look at its content",
        )
    return None


def _is_alone(user: int, group: int) -> bool:
    """Whether the group is that user's own."""
    try:
        owner, members = pwd.getpwuid(user), grp.getgrgid(group).gr_mem
    except KeyError:
        return False
    return owner.pw_gid == group and set(members) <= {owner.pw_name}


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
