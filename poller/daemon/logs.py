"""Log lines: a constant event name with fields, on standard error."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any, Literal

import structlog

from poller.redaction import SECRETS, redacted
from poller.rendering.terminal import printable, printable_lines

LogFormat = Literal["auto", "console", "json", "journal"]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_PRIORITY = {
    "critical": 2,
    "error": 3,
    "warning": 4,
    "info": 6,
    "debug": 7,
}  # syslog(3), as systemd reads "<N>" prefixes


def configure(level: str = "info", style: LogFormat = "auto") -> None:
    """Set up logging for this process. `auto`: readable on a terminal, journal lines under systemd, else JSON."""
    if style == "auto":
        style = "console" if sys.stderr.isatty() else "journal" if os.environ.get("JOURNAL_STREAM") else "json"
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,  # as text, without the values of variables, which may hold secrets
        _without_secrets,
    ]
    renderers: dict[str, list[Any]] = {
        "console": [
            structlog.processors.TimeStamper(fmt="%H:%M:%S %Z", utc=False),
            _sentence_first,
            _printable,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        "json": [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        "journal": [_sentence_first, _journal_line],
    }
    structlog.configure(
        processors=[*shared, *renderers[style]],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Formatter("%(levelname)s %(name)s: %(message)s"))


class _Formatter(logging.Formatter):
    """Log lines of libraries, without secrets and printable, because they may quote servers and clients."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(redacted(super().format(record)))


def _without_secrets(_: Any, __: str, fields: Any) -> Any:
    """Mask secrets that a peer has echoed."""
    return SECRETS.redact(dict(fields))


def _printable(_: Any, __: str, fields: Any) -> Any:
    """Escape foreign text, so that it can neither control the terminal nor forge a line."""
    texts = {key: printable(value) for key, value in fields.items() if isinstance(value, str)}
    if "exception" in fields:  # a traceback has several lines
        texts["exception"] = printable_lines(fields["exception"])
    return {**fields, **texts}


def _sentence_first(_: Any, __: str, fields: Any) -> Any:
    """Begin a line that has a sentence with that sentence, followed by the fields for programs."""
    sentence = fields.pop("summary", None)
    if sentence is not None:
        fields["event"] = f"{sentence} [{fields['event']}]"
    return fields


def _journal_line(_: Any, __: str, fields: Any) -> str:
    """One line with a priority in the journal's form; the journal adds the time."""
    level, event = fields.pop("level", "info"), fields.pop("event", "")
    text = " ".join(f"{key}={value!r}" for key, value in fields.items())
    return f"<{_PRIORITY.get(level, 6)}>{printable(f'{event} {text}'.rstrip())}"
