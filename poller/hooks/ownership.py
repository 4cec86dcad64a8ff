"""Who may change a file: code is run, and a configuration is taken unasked, only from this user and root."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path


def distrust(path: Path) -> tuple[str, str] | None:
    """Why others may have written a file or folder, and what to do; None where this user or root alone can.

    The group may write it where it is its owner's own, with no other member, as many systems make it.
    """
    found = path.stat()
    if found.st_uid not in (os.geteuid(), 0):
        mine = f"chown {_user(os.geteuid())} {path}, if you trust what it says"
        return f"{path} belongs to {_user(found.st_uid)}", mine
    if found.st_mode & stat.S_IWOTH:
        return f"{path} can be written by everybody", f"chmod o-w {path}, and look what it says"
    if found.st_mode & stat.S_IWGRP and not _is_alone(found.st_uid, found.st_gid):
        return f"{path} can be written by the group {_group(found.st_gid)}", f"chmod g-w {path}, and look what it says"
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
