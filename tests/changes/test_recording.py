"""What is recorded of one poll, and of what its unit vouches."""

from poller.changes.comparison import PageComparison, RequestTimes
from poller.changes.decision import Decision, Undecided
from poller.changes.recording import decided_members, poll_record, unchanged_unit
from state.polls import UnitState


def test_a_unit_does_not_vouch_for_an_object_that_it_may_show_as_it_was_before():
    members = {b"a": "1", b"b": "2", b"c": "3"}
    decision = Decision(undecided=Undecided(digests={b"b": True, b"c": False}))  # 3 belongs to another unit
    unit = UnitState(id=1, key="list", position=b"{}")
    unit = unchanged_unit(unit, RequestTimes(at=2.0, answered_at=3.0))
    comparison = PageComparison(members=members, fresh=())

    record = poll_record(unit, decided_members(decision, members), comparison, decision, 0, owns=True)

    assert record.members == {b"a": "1"}
    assert list(record.unsure) == ["2"]
    assert not record.stays_within_unit
