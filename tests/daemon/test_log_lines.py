"""Log lines that quote others: they steer no terminal, and forge neither a line nor a priority."""

import io
import logging
import sys

import pytest
import structlog

from poller.daemon.logs import configure, kept

EVIL = "\x1b]0;owned\x07\x1b[31mred\u202e\n<0>kernel: forged"


@pytest.mark.parametrize("style", ["console", "json", "journal"])
def test_words_of_others_stay_text_on_their_line(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", style)  # type: ignore[arg-type]
    structlog.get_logger("poller").warning("delivery.failed", error=EVIL, summary=f"It said {EVIL}")
    lines = capsys.readouterr().err.splitlines()
    structlog.reset_defaults()

    assert len(lines) == 1
    assert not set(lines[0].replace("\x1b[0m", "")) & {"\x1b", "\x07", "\u202e"}


@pytest.mark.parametrize("style", ["console", "journal"])
def test_a_traceback_steers_no_terminal(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", style)  # type: ignore[arg-type]
    try:
        raise ValueError(EVIL)
    except ValueError as error:
        structlog.get_logger("poller").error("sink.raised", exc_info=error)
    written = capsys.readouterr().err
    structlog.reset_defaults()

    assert "ValueError" in written
    assert not set(written) & {"\x1b", "\x07", "\u202e"}
    assert "\n<0>" not in written


def test_what_libraries_log_is_printable_too(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:
        configure("info", "journal")
        logging.getLogger("library").warning(EVIL)
        written = capsys.readouterr().err
    finally:
        root.handlers = before
        structlog.reset_defaults()

    assert "library" in written
    assert not set(written) & {"\x1b", "\x07", "\u202e"}
    assert "\n<0>" not in written


def test_the_log_stays_as_it_is_whatever_a_plugin_does_to_logging_and_structlog(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bad(*_: object) -> bool:
        raise SystemExit("bad filter")

    library = logging.getLogger("some.library")
    with kept():
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        configure("info", "journal")
        monkeypatch.setattr(library, "filters", [bad])
        structlog.configure(processors=[bad])
        for _ in range(2):
            library.warning("a line")
        structlog.reset_defaults()
        structlog.get_logger("poller").info("next.line")

    structlog.reset_defaults()
    first, kept_as_it_is, again, last = sorted(capsys.readouterr().err.splitlines())
    assert first.startswith("<3>log.handler_raised logger='some.library' error='SystemExit: bad filter (line")
    assert kept_as_it_is == again
    assert (kept_as_it_is.split()[0], last) == ("<4>log.kept", "<6>next.line")
