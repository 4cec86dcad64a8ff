"""Log lines: a constant event name with fields, on standard error."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, Final, Literal, TextIO

import structlog

from poller.hooks.faults import said
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


_MOST_TOLD: Final = 100  # different errors of handlers
_configure: Final = structlog.configure
_kept: list[TextIO] = []  # standard error as it was when the program began


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keep the log as Poller sets it up, and let no line of a library fail what it is about, whatever plugins do to
    `structlog`, `logging` and `sys.stderr` meanwhile.
    """
    with contextlib.ExitStack() as undo:

        def replace(owner: Any, name: str, value: object) -> None:
            undo.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)

        for name in ("configure", "configure_once", "reset_defaults"):
            replace(structlog, name, _refuse)
        replace(logging.Logger, "handle", _Handle())
        _kept.append(sys.stderr)
        undo.callback(_kept.clear)
        yield


def _refuse(*_: Any, **__: Any) -> None:
    hint = "a plugin has tried to configure structlog; it may configure loggers of its own, by structlog.wrap_logger"
    structlog.get_logger("poller").warning("log.kept", hint=hint)


class _Handle:
    """`Logger.handle`, whose handlers and filters may be those of plugins. What they raise goes no further."""

    def __init__(self) -> None:
        self._handle = logging.Logger.handle
        self._told: set[str] = set()

    def __get__(self, logger: logging.Logger, _: type) -> Any:
        return lambda record: self._try(logger, record)

    def _try(self, logger: logging.Logger, record: logging.LogRecord) -> None:
        try:
            self._handle(logger, record)
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything
            text = said(error)
            if text not in self._told and len(self._told) < _MOST_TOLD:
                self._told.add(text)
                hint = "fix the plugin that has added this handler or filter to Python's logging"
                structlog.get_logger("poller").error("log.handler_raised", logger=logger.name, error=text, hint=hint)


def configure(level: str = "info", style: LogFormat = "auto") -> None:
    """Set up logging for this process. `auto`: readable on a terminal, journal lines under systemd, else JSON."""
    stream = _kept[0] if _kept else sys.stderr
    if style == "auto":
        style = "console" if stream.isatty() else "journal" if os.environ.get("JOURNAL_STREAM") else "json"
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
            structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback),
        ],
        "json": [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        "journal": [_sentence_first, _journal_line],
    }
    _configure(
        processors=[*shared, *renderers[style]],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=stream)
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
