"""Who may use a file that this user may not use, for the message that says so."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HIDDEN: Final = "its user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """The owner of a file, and the group that may use it as well; None if that group may not."""

    owner: str
    group: str | None = None
    is_ours: bool = False  # this user is the owner, or root: another user is no remedy

    @property
    def advice(self) -> str:
        """What this user can do."""
        ways = ["as root"]
        if self.owner not in {HIDDEN, "root"}:
            ways.insert(0, f"sudo -u {self.owner} poller ...")
        if self.group is not None:
            ways.append(f"as a member of the group {self.group}")
        return ", or ".join(ways)

    def __str__(self) -> str:
        return self.owner if self.group is None else f"{self.owner} and the group {self.group}"


def rights(path: Path) -> Rights:
    """Who may use a file. If it does not exist, or its folder is closed, who may use the folder."""
    for place in (path, path.parent):
        try:
            found = place.stat()
        except OSError:
            continue
        # What may be read, but was refused, was to be written.
        needed = stat.S_IWGRP if os.access(place, os.R_OK, effective_ids=True) else stat.S_IRGRP
        group = _group(found.st_gid) if found.st_mode & needed else None
        return Rights(owner=_user(found.st_uid), group=group, is_ours=os.geteuid() in (0, found.st_uid))
    return Rights(owner=HIDDEN)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"#{number}"  # as sudo takes it


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return f"#{number}"
