"""Changes that queries of recent changes cannot show are noted where a sweep finds them."""

from __future__ import annotations

from typing import Any

import pytest

from poller.changes.late import late_changes
from poller.documents.diff import dump
from poller.sources.protocol import Endpoint
from state.polls import Presence, Snapshot

ASKED = 1_790_000_000.0  # 2026-09-21T14:13:20Z, when the latest query was made
UPDATED = Endpoint(name="items", since=True, since_field="meta.updated", overlap=100.0)
EARLY, LATE = ASKED - 100.0, ASKED - 101.0


def changed(*times: Any, presence: Presence = Presence.PRESENT) -> list[Snapshot]:
    return [
        Snapshot(
            object_id=f"{number}",
            version=1,
            body=dump({"meta": {"updated": time}}),
            unit=1,
            seen_at=1.0,
            presence=presence,
        )
        for number, time in enumerate(times)
    ]


@pytest.mark.parametrize(
    ("time", "noted"),
    [
        (LATE, True),
        (EARLY, False),  # the next query asks for it
        (int(LATE), True),
        (LATE * 1000, True),  # milliseconds
        (EARLY * 1000, False),
        ("2026-09-21T14:11:39Z", True),
        ("2026-09-21T14:11:40Z", False),
        ("2026-09-21T16:11:39+02:00", True),
        ("yesterday", False),
        (10**400, False),  # kept with all of its digits, and no float
        (None, False),
        (True, False),
        ([], False),
    ],
)
def test_a_change_is_late_where_its_time_is_before_what_the_next_query_asks_for(time: Any, noted: bool):
    assert (late_changes(UPDATED, changed(time), ASKED) is not None) is noted


def test_three_late_changes_are_named_and_all_are_counted():
    note = late_changes(UPDATED, changed(LATE, EARLY, LATE, LATE, LATE), ASKED)

    assert note is not None
    assert note.startswith("4 changes found by a complete sweep only (0, 2, 3): `meta.updated` is older than")


@pytest.mark.parametrize("presence", [Presence.DELETED, Presence.SUSPECT])
def test_what_is_gone_is_not_late(presence: Presence):
    assert late_changes(UPDATED, changed(LATE, presence=presence), ASKED) is None


def test_without_a_field_or_a_query_nothing_is_late():
    assert late_changes(Endpoint(name="items"), changed(LATE), ASKED) is None
    assert late_changes(UPDATED, changed(LATE), None) is None
    assert late_changes(UPDATED, [], ASKED) is None
