"""Content codings are undone in small pieces and within bounds, whatever is nested in them."""

import gzip
import zlib

import brotli
import pytest

from poller.sources.content_coding import PIECE, CodingError, TooMuch, Unpacker, codings_of

TEXT = bytes(range(256)) * 1000
PACKERS = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress}


def unpacked(codings, body, *, most=10**9, step=1000):
    unpacker = Unpacker(codings, most=most)
    pieces = [piece for at in range(0, len(body), step) for piece in unpacker.feed(body[at : at + step])]
    unpacker.finish()
    return pieces


@pytest.mark.parametrize("step", [1, 1000, 10**9])
@pytest.mark.parametrize("codings", [[], ["gzip"], ["deflate"], ["br"], ["gzip", "br"], ["deflate", "gzip", "br"]])
def test_what_was_packed_comes_out_again_in_small_pieces(codings, step):
    body = TEXT
    for coding in codings:
        body = PACKERS[coding](body)

    pieces = unpacked(codings, body, step=step)

    assert b"".join(pieces) == TEXT
    assert not codings or max(map(len, pieces)) <= 2 * PIECE


@pytest.mark.parametrize("step", [1, 7, 10**9])
@pytest.mark.parametrize("after", [b"", b"\x1f", b"\n", bytes(100), b"<!-- -->" + gzip.compress(b"no more", mtime=0)])
def test_every_member_of_a_gzip_body_is_read_and_nothing_else_after_its_end(step, after):
    body = gzip.compress(TEXT[:100]) + gzip.compress(b"") + gzip.compress(TEXT[100:9000])

    assert b"".join(unpacked(["gzip"], body + after, step=step)) == TEXT[:9000]


@pytest.mark.parametrize(("body", "text"), [(gzip.compress(b"[]", mtime=0), b"[]"), (b"[\x1f\x8b]", b"[\x1f\x8b]")])
def test_gzip_that_no_header_announces_is_unpacked(body, text):
    assert b"".join(unpacked([], body)) == text


def test_deflate_without_zlibs_frame_is_read_as_well():
    assert b"".join(unpacked(["deflate"], zlib.compress(TEXT)[2:-4])) == TEXT


@pytest.mark.parametrize("codings", [["gzip"], ["br"], ["gzip", "gzip"], ["gzip", "gzip", "gzip"], ["br", "gzip"]])
def test_a_bomb_is_given_up_at_the_bound(codings):
    body = bytes(50_000_000)
    for coding in codings:
        body = PACKERS[coding](body)
    assert len(body) < 100_000

    with pytest.raises(TooMuch):
        unpacked(codings, body, most=1_000_000)


def test_an_inner_layer_is_bounded_though_the_outcome_is_small():
    body = gzip.compress(gzip.compress(b"small") + bytes(50_000_000))  # what follows the end of gzip is ignored

    with pytest.raises(TooMuch):
        unpacked(["gzip", "gzip"], body, most=1_000_000)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
@pytest.mark.parametrize("body", [b"plain text", b"\xff" * 100, b"{}"])
def test_a_body_that_is_not_what_it_says_is_an_error(coding, body):
    with pytest.raises(CodingError):
        unpacked([coding], body)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_a_body_that_ends_in_its_middle_is_an_error(coding):
    with pytest.raises(CodingError, match="ends before"):
        unpacked([coding], PACKERS[coding](TEXT)[:-20])
    if coding == "gzip":
        with pytest.raises(CodingError, match="ends before"):
            unpacked([coding], gzip.compress(b"[1,") + gzip.compress(TEXT)[:-20])


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_no_body_at_all_is_none_in_any_coding(coding):
    assert unpacked([coding], b"") == []


@pytest.mark.parametrize(
    ("header", "codings"),
    [
        ("", []),
        ("identity", []),
        ("GZIP", ["gzip"]),
        ("x-gzip", ["gzip"]),
        ("gzip, br", ["gzip", "br"]),
        ("UTF-8", []),
        ("\xff", []),
        ("application/json, gzip", ["gzip"]),
    ],
)
def test_codings_are_read_from_the_header(header, codings):
    assert codings_of(header) == codings


@pytest.mark.parametrize("header", ["zstd", "gzip, compress", "gzip, gzip, gzip, gzip"])
def test_codings_that_nobody_asked_for_or_too_many_are_refused(header):
    with pytest.raises(CodingError):
        codings_of(header)
