"""Contracts of plugins, checked when a plugin is loaded. Each breach is a PluginError of one line that names the class.

What can be checked without running plugin code is checked on the class. What a source builds (`limits`, `auth`, its
endpoints) is checked when it is built.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import httpx
from pydantic import BaseModel

from poller.budget.limits import Limit
from poller.documents.diff import compile_rules
from poller.events.filters import ExpressionError, ObjectRule
from poller.hooks.faults import PluginError
from poller.sources.paths import compile_path, identity
from poller.sources.protocol import Endpoint, Position

SYNCHRONOUS: Final = frozenset(
    {"register_sources", "register_sinks", "register_commands", "transform_event", "template_environment"}
)
_SOURCE: Final = {"endpoints": 0, "request": 2, "page": 3}  # required members: number of arguments besides self
_OPTIONAL: Final = {"item_request": 2, "discover": 0}
_ALSO: Final = {"item_request": 3}  # may take one more argument
_NOT_A_RECEIPT: Final = frozenset({"None", "bool", "str", "int", "dict"})
_ORDERS: Final = ("id", "newest", "any")
_NAMESPACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_ENDPOINT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def check_name(name: object, kind: str) -> None:
    """Check that a source or sink has a name that can be written in `plugin = "..."`. Raises PluginError."""
    if not (isinstance(name, str) and _ENDPOINT.fullmatch(name)):
        raise PluginError(f"{name!r:.80} is not a name for a {kind}: letters, digits and . _ - with a letter first")


def check_source(name: str, cls: Any) -> None:
    """Check that a class can be a source. Raises PluginError."""
    _check_options(name, cls)
    _check_construction(name, cls)
    for member, count in _SOURCE.items():
        _check_method(name, cls, member, count)
    for member, count in _OPTIONAL.items():
        if getattr(cls, member, None) is not None:
            _check_method(name, cls, member, count)
    if isinstance(limits := getattr(cls, "limits", ()), property):
        limits = ()  # set by the object, and checked when it is built
    check_limits(name, limits)
    namespace = getattr(cls, "namespace", None)
    if isinstance(namespace, property):
        return
    if namespace is not None and not (isinstance(namespace, str) and _NAMESPACE.fullmatch(namespace)):
        raise PluginError(f"{name!r}: `namespace` is {_shown(namespace)}, not a word of letters, digits, _ and -")


def check_sink(name: str, cls: Any) -> None:
    """Check that a class can be a sink. Raises PluginError."""
    _check_options(name, cls)
    _check_construction(name, cls)
    deliver = _check_method(name, cls, "deliver", 2, asynchronous=True)
    returns = inspect.signature(deliver).return_annotation
    if (returns if isinstance(returns, str) else getattr(returns, "__name__", str(returns))) in _NOT_A_RECEIPT:
        raise PluginError(f"{name!r}: `deliver` returns {_shown(returns)}, not a Receipt")
    for member, count in (("__aenter__", 0), ("__aexit__", 3)):
        if getattr(cls, member, None) is None:
            raise PluginError(f"{name!r}: it has no `{member}`: a sink is opened with `async with`")
        _check_method(name, cls, member, count, asynchronous=True)


def check_hook(hook: str, implementation: Any) -> None:
    """Check that an implementation of a hook can be called like the hook. Raises PluginError."""
    if implementation.hookwrapper or implementation.wrapper:
        raise PluginError(f"`{hook}` is a hook wrapper: Poller calls plain implementations only")
    if hook in SYNCHRONOUS and _is_async(implementation.function):
        raise PluginError(f"`{hook}` is async: write it with `def`, because its result is used at once")


def check_limits(name: str, limits: object) -> None:
    """Check that `limits` of a source are Limits. Raises PluginError."""
    if isinstance(limits, Sequence) and not isinstance(limits, str) and all(_is_limit(one) for one in limits):
        return
    raise PluginError(f"{name!r}: `limits` is {_shown(limits)}, not a tuple of Limits such as (Limit(60, 60.0),)")


def check_auth(name: str, auth: object) -> None:
    """Check that `auth` of a source can authorise requests. Raises PluginError."""
    if auth is not None and not isinstance(auth, httpx.Auth):
        raise PluginError(f"{name!r}: `auth` is {_shown(auth)}, not an httpx.Auth or None")


def check_endpoints(name: str, endpoints: object) -> list[Endpoint]:
    """The endpoints that a source offers, each of them checked. Raises PluginError."""
    if isinstance(endpoints, str | bytes) or not isinstance(endpoints, Sequence):
        raise PluginError(f"{name!r}: endpoints() gave {_shown(endpoints)}, not a list of Endpoints")
    seen: dict[str, Endpoint] = {}
    for endpoint in endpoints:
        if not isinstance(endpoint, Endpoint):
            raise PluginError(f"{name!r}: endpoints() gave a list with {_shown(endpoint)}, not an Endpoint, in it")
        _check_endpoint(name, endpoint)
        if endpoint.name in seen:
            raise PluginError(f"{name!r}: two endpoints are named {endpoint.name!r}")
        seen[endpoint.name] = endpoint
    for endpoint in seen.values():
        if endpoint.parent is not None and endpoint.parent not in seen:
            raise PluginError(f"{name!r}: endpoint {endpoint.name!r}: its parent {endpoint.parent!r} is not offered")
    return list(seen.values())


def _check_endpoint(name: str, endpoint: Endpoint) -> None:
    about = f"{name!r}: endpoint {endpoint.name!r:.80}"
    for wrong, what in _endpoint_faults(endpoint):
        if wrong:
            raise PluginError(f"{about}: {what}")
    try:
        compile_rules(endpoint.ignore, endpoint.exclude, endpoint.unordered)
        if endpoint.id != "content":
            identity(endpoint.id)
        if endpoint.since_field is not None:
            compile_path(endpoint.since_field)
        if endpoint.deleted_when is not None:
            ObjectRule(endpoint.deleted_when)
    except (ValueError, ExpressionError) as error:
        raise PluginError(f"{about}: {error}") from error


def _endpoint_faults(endpoint: Endpoint) -> list[tuple[bool, str]]:
    """(whether it is wrong, description) of each field."""
    overlap = endpoint.overlap
    found = [
        (not (isinstance(endpoint.name, str) and _ENDPOINT.fullmatch(endpoint.name)), "this is not a valid name"),
        (not _is_text(endpoint.id) and not (endpoint.id and _are_texts(endpoint.id)), "`id` is not a path or a tuple"),
        (not isinstance(endpoint.first, Position), "`first` is not a Position"),
        (endpoint.order not in _ORDERS, f"`order` is not one of {', '.join(_ORDERS)}"),
        (not isinstance(overlap, int | float) or not 0 <= overlap < 1e9, "`overlap` is not a number of seconds"),
        (endpoint.normalise is not None and not callable(endpoint.normalise), "`normalise` cannot be called"),
        (_is_async(endpoint.normalise), "`normalise` is async: it is called between two steps of a poll"),
    ]
    for key in ("parent", "since_field", "deleted_when"):
        value = getattr(endpoint, key)
        found.append((value is not None and not _is_text(value), f"`{key}` is {_shown(value)}, not a text"))
    for key in ("page_headers", "ignore", "exclude", "unordered"):
        value = getattr(endpoint, key)
        found.append((not _are_texts(value), f"`{key}` is {_shown(value)}, not a tuple of texts"))
    return found


def _check_options(name: str, cls: Any) -> None:
    if not isinstance(cls, type):
        raise PluginError(f"{name!r}: {_shown(cls)} is not a class")
    options = getattr(cls, "Options", None)
    if not (isinstance(options, type) and issubclass(options, BaseModel) and options is not BaseModel):
        raise PluginError(f"{name!r}: {cls.__name__} has no `Options` class derived from pydantic.BaseModel")


def _check_construction(name: str, cls: type[Any]) -> None:
    """Check that the class can be built with a name and its options. Raises PluginError."""
    try:
        inspect.signature(cls).bind(name, None)
    except TypeError as error:
        raise PluginError(f"{name!r}: {cls.__name__}(name, options) cannot be called ({error})") from error
    except ValueError:  # implemented in C, without a signature
        pass


def _check_method(name: str, cls: Any, member: str, count: int, *, asynchronous: bool = False) -> Callable[..., Any]:
    """Check that the class has a method that takes `count` arguments besides self. Raises PluginError."""
    method = getattr(cls, member, None)
    if method is None:
        raise PluginError(f"{name!r}: {cls.__name__} has no `{member}`")
    if not callable(method):
        raise PluginError(f"{name!r}: `{member}` is {_shown(method)}, not a method")
    if asynchronous and inspect.isasyncgenfunction(method):
        raise PluginError(f"{name!r}: `{member}` has a `yield`: it has to return its result")
    if asynchronous != _is_async(method):
        wanted = "not async: write it with `async def`" if asynchronous else "async: a source is written with `def`"
        raise PluginError(f"{name!r}: `{member}` is {wanted}")
    static = isinstance(inspect.getattr_static(cls, member), staticmethod | classmethod)
    given = range(count if static else count + 1)
    try:
        if not _takes(method, len(given) + _ALSO.get(member, count) - count):
            inspect.signature(method).bind(*given)
    except TypeError as error:
        plural = "argument" if count == 1 else "arguments"
        raise PluginError(f"{name!r}: `{member}` must take {count} {plural} besides self ({error})") from error
    except ValueError:  # implemented in C, without a signature
        pass
    assert callable(method)
    return method  # type: ignore[no-any-return]


def _takes(method: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(method).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def _is_async(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _is_limit(one: object) -> bool:
    if not isinstance(one, Limit):
        return False
    whole = isinstance(one.calls, int) and not isinstance(one.calls, bool) and one.calls > 0
    return whole and isinstance(one.seconds, int | float) and 0 < one.seconds < float("inf")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _are_texts(value: object) -> bool:
    return isinstance(value, tuple | list | frozenset | set) and all(_is_text(one) for one in value)


def _shown(value: object) -> str:
    """A plugin's value for a message: short, and safe whatever its `repr` does."""
    try:
        text = getattr(value, "__name__", None) if isinstance(value, type) else repr(value)
    except Exception:  # noqa: BLE001 - its `repr` is a plugin's code
        text = None
    return f"{text or type(value).__name__:.60}"
