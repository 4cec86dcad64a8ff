import pytest

from poller.rendering.counting import counted, plural


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
