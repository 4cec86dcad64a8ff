"""A Jinja2 sandbox with limits on steps, on the size of values and on the size of the text.

A thread that renders cannot be stopped, so a template that would take minutes or gigabytes must fail within a fraction
of a second. Steps are iterations of loops and calls. Sizes are limited for operations whose result can be much larger
than their arguments: `*`, `**`, `+`, `~`, `%`, and methods and filters that take a width.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from jinja2 import TemplateError, nodes
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_STEPS: Final = 200_000
MACRO_STEPS: Final = 50  # steps of a macro call, which takes as long as so many iterations
MOST_TEXT: Final = 2_000_000  # characters of the whole text
MOST_VALUE: Final = 1_000_000  # characters or elements of an intermediate value
MOST_WIDTH: Final = 10_000  # largest width that a text is padded to
MOST_BITS: Final = 4096  # bits of an integer
_WIDTHS: Final = ("center", "indent", "slice", "batch", "wordwrap", "format")  # filters that take a width
_FILLING: Final = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})  # string methods that take a width
_FORMAT_WIDTH: Final = re.compile(r"\d{5,}|\{[^{}]*\{")
_DIGITS: Final = re.compile(r"\d{5,}|\*")


class TooMuch(TemplateError):
    """A template exceeds a limit."""


_left: ContextVar[list[int]] = ContextVar("steps")


@contextmanager
def limited() -> Iterator[None]:
    """Render within this block: the steps of one rendering are counted together."""
    token = _left.set([MOST_STEPS])
    try:
        yield
    finally:
        _left.reset(token)


def joined(pieces: Iterable[str]) -> str:
    """The rendered text. Raises TooMuch once it is too long."""
    kept, length = [], 0
    for piece in pieces:
        kept.append(piece)
        length += len(piece)
        if length > MOST_TEXT:
            raise TooMuch(f"it makes a text of more than {MOST_TEXT:,} characters")
    return "".join(kept)


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox. When a template is read, loops and concatenations are wrapped in a filter that counts them."""

    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in _WIDTHS:
            self.filters[name] = _narrow(name, self.filters[name])
        self.filters.update({"_counted": _counted, "_sized": _sized})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        parsed = super()._parse(source, name, filename)
        for loop in list(parsed.find_all(nodes.For)):
            loop.iter = _through("_counted", loop.iter)
        for parent in list(parsed.find_all(nodes.Node)):
            for field, value in list(parent.iter_fields()):
                if isinstance(value, nodes.Concat):
                    setattr(parent, field, _through("_sized", value))
                elif isinstance(value, list):
                    value[:] = [_through("_sized", one) if isinstance(one, nodes.Concat) else one for one in value]
        return parsed

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method. Raises TooMuch for too many calls, or a result that is too large."""
        _step(MACRO_STEPS if isinstance(obj, Macro) else 1)
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str):
            _refuse_long(owner, name, args)
        return super().call(context, obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` of the sandbox. Raises TooMuch for a width that is too large or unknown."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None and _FORMAT_WIDTH.search(value.__self__):
            raise TooMuch(f"{value.__self__[:40]!r} pads to a width that is too large")
        return wrapped

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Apply an operator. Raises TooMuch if the result would be too large."""
        if operator == "**":
            _refuse_bits(_bits(left) * right if isinstance(right, int) else 0)
        elif operator == "*":
            _refuse_bits(_bits(left) + _bits(right))
            _refuse_size(_length(left) * _count(right) + _length(right) * _count(left))
        elif operator == "+":
            _refuse_size(_length(left) + _length(right))
        elif isinstance(left, str) and _DIGITS.search(left):
            raise TooMuch(f"{left[:40]!r} pads to a width that is too large")
        return super().call_binop(context, operator, left, right)


def _through(name: str, node: nodes.Node) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _step(steps: int = 1) -> None:
    left = _left.get(None)
    if left is None:
        return
    left[0] -= steps
    if left[0] < 0:
        raise TooMuch(f"it takes more than {MOST_STEPS:,} steps")


def _counted(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        _step()
        yield value


def _sized(text: Any) -> Any:
    _refuse_size(_length(text))
    return text


def _narrow(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that refuses a width beyond the limit."""

    def filtered(*args: Any, **kwargs: Any) -> Any:
        for given in (*args, *kwargs.values()):
            if isinstance(given, int) and abs(given) > MOST_WIDTH:
                raise TooMuch(f"{name}({given}) is more than {MOST_WIDTH:,}")
        if name == "format" and isinstance(args[0], str) and _DIGITS.search(args[0]):
            raise TooMuch(f"{args[0][:40]!r} pads to a width that is too large")
        return function(*args, **kwargs)

    for mark in ("jinja_pass_arg", "jinja_async_variant"):
        if hasattr(function, mark):
            setattr(filtered, mark, getattr(function, mark))
    return filtered


def _refuse_long(text: str, name: str, args: tuple[Any, ...]) -> None:
    """Raise TooMuch for a string method whose result would be too long."""
    if name in _FILLING and args and isinstance(args[0], int) and args[0] > MOST_WIDTH:
        raise TooMuch(f"{name}({args[0]}) is more than {MOST_WIDTH:,}")
    if name == "replace" and len(args) >= 2 and isinstance(args[0], str) and isinstance(args[1], str):
        _refuse_size(len(text) + text.count(args[0]) * len(args[1]))
    if name == "join" and args and isinstance(args[0], list | tuple):
        _refuse_size(len(text) * len(args[0]) + sum(_length(one) for one in args[0]))


def _refuse_size(size: int) -> None:
    if size > MOST_VALUE:
        raise TooMuch(f"it makes a value of {size:,} characters or elements; the limit is {MOST_VALUE:,}")


def _refuse_bits(bits: int) -> None:
    if bits > MOST_BITS:
        raise TooMuch(f"it makes a number of more than {MOST_BITS:,} bits")


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) and abs(value) > 1 else 0


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def _count(value: Any) -> int:
    return max(0, value) if isinstance(value, int) else 0
