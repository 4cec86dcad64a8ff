"""How long events have been in the log, whatever the clock said when they were recorded. Pure: time is an argument.

The time of an event does not say that: a clock that was years ahead gives a time that will not be old for years, and
under a clock that is years ahead, also since the machine was started, every event looks old. So what counts is the time
for which the log was looked after: marks note which number the log had reached at which age, and a pause between two
looks counts a day at most, because nobody knows how long the machine was off.
"""

from __future__ import annotations

from typing import Final

import msgspec

LONGEST_PAUSE: Final = 86_400.0  # seconds between two looks that count
MARKS: Final = 100  # parts that a retention is divided into: an event is kept at most one of them longer


class Mark(msgspec.Struct, frozen=True):
    """The last number of the log at an age of the log."""

    seq: int
    age: float  # seconds


class LogAge(msgspec.Struct, frozen=True, kw_only=True):
    """For how long a log was looked after, and which number it had reached when."""

    age: float = 0.0  # seconds
    looked_at: float | None = None  # steady seconds of the latest look; None: nobody has looked yet
    marks: tuple[Mark, ...] = ()  # in order

    @classmethod
    def parse(cls, saved: bytes | None) -> LogAge:
        """What `dump` gave. What is none, or cannot be read, is a log at which nobody has looked yet."""
        if saved is None:
            return cls()
        try:
            return msgspec.json.decode(saved, type=cls)
        except msgspec.DecodeError:
            return cls()

    def dump(self) -> bytes:
        """The age, for `parse` at the next look."""
        return msgspec.json.encode(self)

    def at(self, steady: float, last_seq: int, retention: float) -> LogAge:
        """The age at another look, when `last_seq` is the last number of the log.

        Of the marks that are as old as `retention`, only the latest is kept.
        """
        since = 0.0 if self.looked_at is None else min(max(0.0, steady - self.looked_at), LONGEST_PAUSE)
        age = self.age + since
        known = [mark for mark in self.marks if mark.seq <= last_seq]  # not those of another log
        old = sum(age - mark.age >= retention for mark in known)
        marks = known[max(0, old - 1) :]
        if not marks or age - marks[-1].age >= retention / MARKS:
            marks.append(Mark(last_seq, age))
        return LogAge(age=age, looked_at=steady, marks=tuple(marks))

    def outlived(self, retention: float) -> int:
        """The last number that has been in the log for this many seconds; 0 if there is none."""
        return max((mark.seq for mark in self.marks if self.age - mark.age >= retention), default=0)
