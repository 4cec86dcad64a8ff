"""What a receipt keeps of a receiver's words: valid Unicode of limited size, whatever they were."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller import Receipt
from poller.sinks.text import storable


@pytest.mark.parametrize(
    ("given_text", "kept"),
    [
        ("250 OK", "250 OK"),
        ("Gr\udcfc\udcdfe", "Gr\ufffd\ufffde"),  # latin-1 that was decoded with surrogateescape
        ("a\x00b", "ab"),
        ("\ud83d\ude00", "\ufffd\ufffd"),  # surrogates of a JSON escape
        ("é" * 3000, "é" * 2048),
        ("x" * 5000, "x" * 4096),
    ],
)
def test_a_receipt_can_be_stored(given_text: str, kept: str) -> None:
    receipt = Receipt(status="250", text=given_text, reference=given_text)

    assert receipt.text == receipt.reference == kept


def test_a_status_is_short() -> None:
    assert len(Receipt(status="é" * 1000).status.encode()) <= 256


@pytest.mark.parametrize("word", [200, None, b"ok"])
def test_a_plugin_that_gives_no_text_gets_one(word: Any) -> None:
    assert Receipt(status=word, text=word).text == str(word)


@given(st.text(st.characters(codec=None)), st.integers(1, 100))
def test_anything_is_storable_within_its_limit(text: str, limit: int) -> None:
    kept = storable(text, limit)

    assert len(kept.encode()) <= limit
    assert "\x00" not in kept
