"""Troubleshooting: every line of the log has a meaning, and nothing is explained that is never said."""

from tools.log_lines import LOG_LINES
from tools.messages import AREAS, log_names, messages
from tools.notices import MEANINGS, kinds


def test_every_line_of_the_log_is_explained() -> None:
    names = log_names()

    assert names > {"config.refused", "state.failing"}
    assert names - LOG_LINES.keys() == set()


def test_nothing_is_explained_that_is_never_logged() -> None:
    assert LOG_LINES.keys() - log_names() - {"poll.failed"} == set()


def test_every_area_finds_its_messages() -> None:
    found = {area.title: [message.text for message in messages(area)] for area in AREAS}

    assert all(len(texts) > 10 for texts in found.values())
    assert any("cannot be opened" in text or "cannot open" in text for text in found["The state"])


def test_every_notice_is_explained_and_no_other() -> None:
    made = list(kinds())

    assert {one.kind for one in made} == MEANINGS.keys()
    assert "Subscription {name} fails: {failures} attempts" in " ".join(one.summary for one in made)
    assert any("next_try" in one.detail for one in made if one.kind == "source.failing")


def test_every_summary_of_a_notice_is_a_sentence_with_its_period() -> None:
    assert [one.summary for one in kinds() if not one.summary.endswith(".") or one.summary.endswith("..")] == []
