import pytest

from poller.rendering.counting import counted, failing_of, plural


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (0, "call", "0 calls"),
        (1, "call", "1 call"),
        (2, "dead letter", "2 dead letters"),
        (1, "delivery", "1 delivery"),
    ],
)
def test_a_noun_follows_its_number(count: int, noun: str, text: str) -> None:
    assert counted(count, noun) == text


def test_a_noun_has_its_own_plural() -> None:
    assert [plural("delivery", 2), plural("day", 0.5), plural("day", 1.0)] == ["deliveries", "days", "day"]


@pytest.mark.parametrize(
    ("count", "whole", "said"),
    [(1, 12, "1 of 12 lists fails"), (2, 12, "2 of 12 lists fail"), (1, 1, "1 of 1 list fails")],
)
def test_one_of_many_fails_and_several_fail(count: int, whole: int, said: str) -> None:
    assert failing_of(count, whole, "list") == said
