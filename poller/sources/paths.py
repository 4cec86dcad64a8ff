"""Paths into a JSON answer: the list, its objects' ids, the cursor, the total.

An answer is parsed only as far as needed: a list is split into `msgspec.Raw` objects without parsing them. Plain paths
(`$`, `$.data.items`, `data.id`) are walked key by key; any other JSONPath (RFC 9535) parses the whole answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from poller.documents.diff import Rules, fingerprint
from poller.late import late
from poller.sources.protocol import PageError
from state.errors import PollerError

if TYPE_CHECKING:
    import jsonpath
else:
    jsonpath = late("jsonpath")

Form = Literal["null", "absent", "text", "object"]  # what an answer may have in the place of a list

MISSING: Final = object()
NO_LIST: Final = "if this stands for an empty list, or for a list of one object, name its form in `instead_of_list`"
CONTENT: Final = "content"
KEY: Final = "key"  # the id of objects that are members of an object: the key
VALUE: Final = "value"  # the id of list elements that are texts or numbers: the element
EMPTY_TEXT: Final = "%"  # represents an empty text in a composite id
MOST_KEYS: Final = 400_000  # keys parsed at once: building more objects blocks all other threads
MOST_MEMBERS: Final = 100  # members of an object that contains more keys than that
_QUOTED: Final = str.maketrans({"%": "%25", ":": "%3A"})
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`(?: - at `\$.*)?", re.DOTALL)

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements = msgspec.json.Decoder(list[msgspec.Raw]).decode
_parse = msgspec.json.Decoder().decode

Object = Mapping[str, Any]


class PathError(PollerError, ValueError):
    """Text that is not a path into a JSON answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A compiled path: its plain beginning, and a query for the whole path if it is not plain to the end."""

    text: str
    names: tuple[str, ...]  # the keys up to the first step that is not a plain key
    query: jsonpath.JSONPath | None = None

    @property
    def is_single(self) -> bool:
        """Whether it can match at most one value."""
        return self.query is None or self.query.singular_query()


@lru_cache(maxsize=1024)
def compile_path(text: str) -> Path:
    """Read `data.id`, `$.data.id` or any JSONPath (which begins with `$`). Raises PathError."""
    if not text.startswith("$"):
        names = tuple(text.split("."))
        if not all(names):
            raise PathError(f"{text!r} has an empty step", hint="write 'data.id', or JSONPath as in $['data.id']")
        return Path(text=text, names=names)
    try:
        query = jsonpath.compile(text)
    except jsonpath.JSONPathError as exc:
        reason = str(exc).partition("\n")[0]
        raise PathError(f"{text!r} is not JSONPath: {reason}", hint="write $.data.items, for example") from exc
    if not isinstance(query, jsonpath.JSONPath):
        raise PathError(f"{text!r} is more than one path", hint="write one JSONPath")
    names = _plain_names(query)
    return Path(text=text, names=names, query=None if len(names) == len(query.segments) else query)


def _plain_names(query: jsonpath.JSONPath) -> tuple[str, ...]:
    names: list[str] = []
    for segment in query.segments:
        match getattr(segment, "selectors", ()):
            case (jsonpath.selectors.NameSelector(name=name),) if type(segment).__name__ == "JSONPathChildSegment":
                names.append(name)
            case _:
                break
    return tuple(names)


_NO_OBJECTS: Final = ("errors", "error", "warnings")  # names of lists that are no list of objects


class NoList(PageError):
    """An answer that is not JSON, or in which there is no list."""


class Answer:
    """One JSON answer, parsed only as far as needed. Every method raises PageError if it is not JSON."""

    def __init__(self, content: bytes) -> None:
        self._content = content.removeprefix(b"\xef\xbb\xbf").lstrip()
        self._opened: dict[tuple[str, ...], dict[str, msgspec.Raw]] = {}

    def keyed(self, path: Path | None = None) -> list[msgspec.Raw]:
        """The members of the object at `path`, or of the answer itself, each with its key as the member `key`."""
        raw = self._raw(path.names if path else ())
        if path is not None and path.query is not None:
            raise PageError(f'{path.text} is not a plain path, which id = "{KEY}" needs')
        if raw is None or _first(raw) != b"{":
            raise NoList(f"there is no object at {path.text if path else '$'}: it is {_what(raw)}")
        _refuse_wide(raw)
        return [_with_key(key, item) for key, item in _decode(_members, raw).items()]

    def is_keyed(self, path: Path | None = None) -> bool:
        """Whether there is an object where a list is expected."""
        return (path is None or path.query is None) and self._starts(path.names if path else (), b"{")

    def objects(
        self, path: Path | None = None, *, instead: Collection[Form] | None = None
    ) -> Sequence[Object | msgspec.Raw]:
        """The list at `path`; without a path the answer itself, or the only list in it.

        `instead` names the forms that may be at a plain path in its place. None: the source has no key for them.
        """
        if path is None:
            return _split(self._raw(self.only_list()) or b"null", "the answer")
        if path.query is not None:
            return self._found(path, path.query)
        try:
            return _list_decoder(path.names)(self._content)
        except (ValueError, RecursionError):  # another form, or a key that msgspec cannot skip to
            return self._explained(path, instead)

    def instead(self, path: Path, forms: Collection[Form]) -> list[msgspec.Raw] | None:
        """The list that one of these forms at a plain path stands for: one object, or none. None: it is not there.

        `absent` is a missing key of an object, `null` also stands for what contains the list, `text` is an empty one.
        """
        raw: msgspec.Raw | None = None
        for depth, name in enumerate(path.names):
            members = self.members(path.names[:depth])
            raw = None if members is None else members.get(name)
            if raw is None or _first(raw) == b"n":
                form: Form = "absent" if raw is None else "null"
                return [] if form in forms and members is not None else None
        if raw is not None and bytes(memoryview(raw)[:3]) == b'""':
            return [] if "text" in forms else None
        return [raw] if raw is not None and "object" in forms and _first(raw) == b"{" else None

    def _explained(self, path: Path, forms: Collection[Form] | None) -> list[msgspec.Raw]:
        """The list at a plain path, found step by step, so that an error can name what is there instead."""
        found = self.instead(path, forms) if forms else None
        if found is not None:
            return found
        raw, hint = self._raw(path.names), None if forms is None else NO_LIST
        if raw is None:
            _parsed(self._content)
            raise NoList(f"the answer has no list at {path.text}", hint=hint)
        return _split(raw, path.text, hint=hint)

    def value(self, path: Path) -> Any:
        """The first value at `path`, parsed, or MISSING."""
        if path.query is None:
            raw = self._raw(path.names)
            return MISSING if raw is None else _parsed(raw)
        return next(iter(path.query.findall(_parsed(self._content))), MISSING)

    def members(self, names: tuple[str, ...] = ()) -> dict[str, msgspec.Raw] | None:
        """The unparsed members of the object at these keys, or None if there is no object."""
        if names not in self._opened:
            raw = self._raw(names)
            if raw is None or _first(raw) != b"{":
                return None
            self._opened[names] = _decode(_few_members if _is_wide(raw) else _members, raw)
        return self._opened[names]

    def _raw(self, names: tuple[str, ...]) -> bytes | msgspec.Raw | None:
        if not names:
            return self._content
        members = self.members(names[:-1])
        return None if members is None else members.get(names[-1])

    def only_list(self) -> tuple[str, ...]:
        """Where a list is without a path: the answer itself, or the only list on the highest level that has one,
        besides an empty list of errors. Raises PageError if there is none, or several.
        """
        if _first(self._content) == b"[":
            return ()
        level: list[tuple[str, ...]] = [()]
        while level:
            members = [(*names, key) for names in level for key in self.members(names) or ()]
            found = [names for names in members if self._starts(names, b"[")]
            lists = [names for names in found if not self._is_empty_list_of_errors(names)] or found
            if len(lists) > 1:
                told = ", ".join("$." + ".".join(names) for names in lists[:4])
                raise PageError(f"the answer contains several lists ({told})", hint="set `items` to the right one")
            if lists and lists[0][-1] in _NO_OBJECTS:
                raise PageError(f"the answer contains only a list of {lists[0][-1]}", hint="set `items` to the list")
            if lists:
                return lists[0]
            level = [names for names in members if self._starts(names, b"{")]
        _parsed(self._content)
        raise NoList("the answer contains no list", hint="set `items` to its path if it has another form")

    def _is_empty_list_of_errors(self, names: tuple[str, ...]) -> bool:
        return names[-1] in _NO_OBJECTS and not bytes(self._raw(names) or b"")[1:-1].strip()

    def _starts(self, names: tuple[str, ...], sign: bytes) -> bool:
        raw = self._raw(names)
        return raw is not None and _first(raw) == sign

    def _found(self, path: Path, query: jsonpath.JSONPath) -> Sequence[Object]:
        """The matches of a JSONPath: lists are joined, objects are themselves."""
        if not self._starts(path.names, b"[") and not self._starts(path.names, b"{"):
            # An answer of another form matches nothing, which must not count as an empty list.
            raise NoList(f"the answer has no {'.'.join(('$', *path.names))} for `items` = {path.text}")
        found = query.findall(_parsed(self._content))
        if not found and path.is_single:
            raise NoList(f"the answer has no list at {path.text}")
        objects: list[Any] = [item for match in found for item in (match if isinstance(match, list) else [match])]
        if not all(isinstance(item, dict) for item in objects):
            raise PageError(f"{path.text} matches something that is not an object")
        return objects


def identity(spec: str | tuple[str, ...], *, rules: Rules | None = None) -> Callable[[Object], str | None]:
    """Compile an `Endpoint.id` into a function that returns an object's id as text, or None if it has none.

    Parts of a composite id are joined with ":" (":" and "%" in them are percent-encoded). A part may be null (written
    as nothing) or an empty text (written "%"), but not absent. "content" digests the canonical form under `rules`.
    Raises PathError.
    """
    if spec == CONTENT:
        chosen = rules or Rules()
        return lambda found: fingerprint(found, chosen).hex()
    if isinstance(spec, str):
        return _part(spec)
    parts = [_reader(compile_path(part)) for part in spec]
    if not parts:
        raise PathError("an id needs at least one key", hint='Write id = "id".')

    def composite(found: Object) -> str | None:
        values = [read(found) for read in parts]
        if MISSING in values or all(value in (None, "") for value in values):
            return None
        texts = [_part_text(value) for value in values]
        return None if None in texts else ":".join(str(text) for text in texts)

    return composite


def unparsed_identity(spec: str | tuple[str, ...]) -> Callable[[bytes], list[str | None]] | None:
    """Compile an `Endpoint.id` into a function that reads only the ids of a list of objects in JSON.

    It raises `msgspec.DecodeError` if an element is not an object or has no id. None if the id takes more than one
    plain path.
    """
    if not isinstance(spec, str) or spec == CONTENT:
        return None
    path = compile_path(spec)
    if path.query is not None:
        return None
    form, names = _nested(Any, path.names), path.names
    decode = msgspec.json.Decoder(list[form]).decode  # type: ignore[valid-type]

    def identify(raw: bytes) -> list[str | None]:
        found: list[Any] = decode(raw)
        for _ in names:
            found = list(map(_inner, found))
        if set(map(type, found)) == {int}:  # the common case
            return list(map(str, found))
        return list(map(_id_text, found))

    return identify


def reader(text: str) -> Callable[[Object], Any]:
    """Compile a path into a function that returns the first value there, or MISSING. Raises PathError."""
    return _reader(compile_path(text))


def _part(text: str) -> Callable[[Object], str | None]:
    read = _reader(compile_path(text))
    return lambda found: _id_text(read(found))


def _reader(path: Path) -> Callable[[Object], Any]:
    query = path.query
    if query is not None:
        return lambda found: next(iter(query.findall(found)), MISSING)
    if len(path.names) == 1:
        name = path.names[0]
        return lambda found: found.get(name, MISSING)
    return lambda found: _walk(found, path.names)


def _walk(found: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        if not isinstance(found, Mapping) or name not in found:
            return MISSING
        found = found[name]
    return found


def _part_text(value: Any) -> str | None:
    """A part of a composite id as text; different parts always have different texts."""
    if value is None:
        return ""
    if value == "":
        return EMPTY_TEXT
    text = _id_text(value)
    return None if text is None else text.translate(_QUOTED)


def _id_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return value if value and "\0" not in value else None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else None


def _split(raw: bytes | msgspec.Raw, where: str, *, hint: str | None = None) -> list[msgspec.Raw]:
    if _first(raw) != b"[":
        _decode(_parse, raw)
        raise NoList(f"there is no list at {where}: it is {noun(raw)}", hint=hint)
    found: list[msgspec.Raw] = _decode(_elements, raw)
    return found


_inner = attrgetter("inner")  # of a form made by `_nested`


@lru_cache(maxsize=256)
def _list_decoder(names: tuple[str, ...]) -> Callable[[bytes], list[msgspec.Raw]]:
    """A decoder that reads the list under these keys in one pass over an answer."""
    decode = msgspec.json.Decoder(_nested(list[msgspec.Raw], names)).decode

    def split(content: bytes) -> list[msgspec.Raw]:
        found: Any = decode(content)
        for _ in names:
            found = found.inner
        items: list[msgspec.Raw] = found
        return items

    return split


def _nested(form: Any, names: tuple[str, ...]) -> Any:
    """A form of an answer with this form under these keys; everything else in it is skipped."""
    for name in reversed(names):
        form = msgspec.defstruct("Object", [("inner", form)], rename={"inner": name})
    return form


def _first(raw: bytes | msgspec.Raw) -> bytes:
    return bytes(memoryview(raw)[:1])


def wrapped(items: Sequence[Object | msgspec.Raw]) -> list[Object | msgspec.Raw]:
    """A list whose texts and numbers become objects with that `value`."""
    return [
        msgspec.Raw(b'{"value":%b}' % bytes(item))
        if isinstance(item, msgspec.Raw) and _first(item) not in (b"{", b"[", b"n")
        else item
        for item in items
    ]


def _with_key(key: str, item: msgspec.Raw) -> msgspec.Raw:
    members: dict[str, msgspec.Raw] = _decode(_members, item) if _first(item) == b"{" else {VALUE: item}
    if KEY in members:
        raise PageError(f'the object {key!r} has a member "{KEY}" of its own', hint="set `id` to a path within it")
    inner = b",".join(b"%b:%b" % (msgspec.json.encode(name), bytes(value)) for name, value in members.items())
    return msgspec.Raw(b'{"key":%b%b}' % (msgspec.json.encode(key), b"," + inner if inner else b""))


def _parsed(raw: bytes | msgspec.Raw) -> Any:
    _refuse_wide(raw)
    return _decode(_parse, raw)


def _is_wide(raw: bytes | msgspec.Raw) -> bool:
    """Whether there are so many keys that the objects must not be built at once."""
    return len(memoryview(raw)) > 2 * MOST_KEYS and bytes(raw).count(b'":') > MOST_KEYS


def _refuse_wide(raw: bytes | msgspec.Raw) -> None:
    if _is_wide(raw):
        raise PageError(f"more than {MOST_KEYS:,} keys in what has to be parsed at once", hint="ask for smaller pages")


def _few_members(raw: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """The members of an object, found one after the other, so that an object with millions of them is never built.

    Raises PageError if there are more than `MOST_MEMBERS`.
    """
    names: list[str] = []
    while len(names) <= MOST_MEMBERS:
        fields = [(f"m{place}", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for place in range(len(names))]
        rename = {f"m{place}": name for place, name in enumerate(names)}
        form = msgspec.defstruct("Object", fields, rename=rename, forbid_unknown_fields=True)
        try:
            found = msgspec.json.decode(raw, type=form)
        except msgspec.ValidationError as exc:
            unknown = _UNKNOWN.fullmatch(str(exc))
            if unknown is None:
                raise
            names.append(unknown[1])
        else:
            return {name: getattr(found, field) for field, name in rename.items()}
    raise PageError(
        f"more than {MOST_KEYS:,} keys in the answer, and more than {MOST_MEMBERS} of them side by side",
        hint="ask for smaller pages",
    )


def _what(raw: bytes | msgspec.Raw | None) -> str:
    return "nothing" if raw is None else noun(raw)


def noun(raw: bytes | msgspec.Raw) -> str:
    """The kind of a JSON value, in a word."""
    nouns = {b"{": "an object", b'"': "text", b"n": "null", b"t": "true", b"f": "false", b"[": "a list"}
    return nouns.get(_first(raw), "a number")


def _decode(decode: Callable[[bytes | msgspec.Raw], Any], raw: bytes | msgspec.Raw) -> Any:
    try:
        return decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        looks = "HTML" if _first(raw) == b"<" else "not JSON"
        raise NoList(f"the answer is {looks}: {exc}") from exc
    except RecursionError as exc:
        raise PageError("the answer is nested too deeply") from exc
