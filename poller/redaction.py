"""Redaction of secrets in texts from other parties, before these are stored, sent or logged.

Secrets are registered here when they are revealed or received at a login; one list serves the whole process. If a peer
echoes a secret (in an error page, a header, a redirect), a mask replaces it, in any of these forms: literal, quoted for
a URL, escaped for JSON, or in Base64, also of a text that contains it, such as a user name and password.
"""

from __future__ import annotations

import json
import re
import threading
from base64 import b64encode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

MASK: Final = "**********"
SHORTEST_IN_DATA: Final = 12  # characters; shorter secrets are not masked in list data
SHORTEST: Final = 4  # characters; masking shorter secrets would tear words apart without hiding anything
SHORTEST_WITHIN: Final = 6  # characters of Base64; fewer occur by chance
FEW: Final = 200  # forms that are looked for one after the other; a text is read once for more of them
MOST: Final = 10_000  # values remembered; the oldest are forgotten, for example renewed tokens
LONG: Final = 8  # characters; a shorter secret of letters only is a word that occurs in many texts by chance
_WORDS: Final = frozenset({"password", "username"})
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_USERINFO: Final = re.compile(r"(?<=://)[^\s/?#@\"'<>]*@(?=[\w\[])")
_KEY: Final = re.compile("key|token|secret|pass|pwd|sig|auth|code", re.IGNORECASE)  # names of secret parameters
_ORIGIN: Final = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s]*@)?([\w.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?(?=[/?#]|$)"
)
_LOGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^:/@]*):(.*)@[^@]*", re.DOTALL)  # a password may hold / and #


T = TypeVar("T", str, bytes)


class Forms(Generic[T]):
    """Forms of secrets, each at least `shortest` long, found in one pass over a text however many there are.

    A thousand subscriptions have ten thousand forms.
    """

    def __init__(self, forms: Iterable[T], *, shortest: int) -> None:
        self.all: frozenset[T] = frozenset(forms)
        self._shortest = shortest
        self._lengths: dict[T, list[int]] = {}  # by the first characters, the longest first
        for form in sorted(self.all, key=len, reverse=True):
            lengths = self._lengths.setdefault(form[:shortest], [])
            if len(form) not in lengths:
                lengths.append(len(form))

    def found(self, text: T) -> Iterator[tuple[int, T]]:
        """The forms in a text and where each begins: the first ones, and of those that begin together the longest."""
        lengths, shortest, end = self._lengths, self._shortest, 0
        for place in [at for at in range(len(text) - shortest + 1) if text[at : at + shortest] in lengths]:
            if place < end:
                continue
            for length in lengths[text[place : place + shortest]]:
                form = text[place : place + length]
                if form in self.all:
                    end = place + length
                    yield place, form
                    break

    def within(self, text: T) -> Forms[T] | None:
        """Those of them to look for in a text: a few are looked for one after the other, which is quicker. None: the
        text has none of them.
        """
        if len(self.all) > FEW:
            return self
        found = [one for one in self.all if one in text]
        return Forms(found, shortest=self._shortest) if found else None


class Redactor:
    """Secrets in use. Safe to call from any thread."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, frozenset[str]] = OrderedDict()  # with their forms that are masked
        self._forms: tuple[Forms[str], Forms[bytes]] | None = None  # in texts and in list data; None: to be collected
        self._lock = threading.Lock()

    def add(self, value: str) -> None:
        """Register a secret; of a URL, also its secret parts."""
        if value in self._values:
            return
        with self._lock:
            for part in _parts(value):
                self._values[part] = frozenset(form for form in _forms(part) if _is_hidden(form))
            while len(self._values) > MOST:
                self._values.popitem(last=False)
            self._forms = None

    def add_pair(self, username: str, password: str) -> None:
        """Register a user name and a password, in the form in which they are sent together (RFC 7617)."""
        self.add(password)
        self.add(b64encode(f"{username}:{password}".encode()).decode())

    def holds(self, value: str) -> bool:
        """Whether this exact text is a secret in use, of any length."""
        return value in self._values

    def redacted(self, text: str) -> str:
        """The text with a mask for every secret in it, and without passwords in URLs; secret URLs keep their host."""
        if len(text) < SHORTEST:  # such as "204"
            return text
        known, _ = self._forms or self._collect()
        forms = known.within(text)
        if forms is not None:
            text = _replaced(text, forms)
        return _USERINFO.sub(f"{MASK}@", text) if "://" in text else text

    def redacted_data(self, body: bytes) -> bytes:
        """The body of an answer with a mask for every secret that is too long to occur by chance."""
        _, known = self._forms or self._collect()
        forms = known.within(body)
        if forms is None:
            return body
        parts, end = [], 0
        for place, form in forms.found(body):
            parts += [body[end:place], MASK.encode()]
            end = place + len(form)
        return b"".join([*parts, body[end:]]) if parts else body

    def redact(self, value: Any) -> Any:
        """The value with every text in its lists, tuples and mappings redacted."""
        if isinstance(value, str):
            return self.redacted(value)
        if isinstance(value, dict):
            return {self.redact(key): self.redact(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.redact(inner) for inner in value) if type(value) in (list, tuple) else value
        return value

    def _collect(self) -> tuple[Forms[str], Forms[bytes]]:
        with self._lock:
            forms = {form for found in self._values.values() for form in found}
            long = (form.encode(errors="replace") for form in forms if len(form) >= SHORTEST_IN_DATA)
            self._forms = Forms(forms, shortest=SHORTEST), Forms(long, shortest=SHORTEST_IN_DATA)
            return self._forms


def _replaced(text: str, forms: Forms[str]) -> str:
    parts, end = [], 0
    for place, form in forms.found(text):
        parts += [text[end:place], _masked(form)]
        end = place + len(form)
    return "".join([*parts, text[end:]]) if parts else text


def _masked(form: str) -> str:
    """What a secret is replaced with; of a URL, scheme and host say which one is meant."""
    origin = _ORIGIN.match(form)
    if origin is None:
        return MASK
    shown = "".join(part or "" for part in origin.groups())
    rest = form[origin.end() :]
    return shown + (rest if rest in ("", "/") else f"/{MASK}")


def _is_hidden(form: str) -> bool:
    is_word = form.isalpha() and len(form) < LONG
    return len(form) >= SHORTEST and not is_word and form.lower() not in _WORDS


def _parts(value: str) -> Iterator[str]:
    """A secret; of a URL, also its path, user name and password, and the values of its query."""
    yield value
    if not _URL.match(value):
        return
    if login := _LOGIN.fullmatch(value):
        username, password = login.groups()
        yield from filter(None, (password, unquote(password)))
        yield b64encode(f"{unquote(username)}:{unquote(password)}".encode()).decode()
    with suppress(ValueError):
        url = urlsplit(value)
        last = url.path.rpartition("/")[2]
        found = [text for name, text in parse_qsl(url.query) if len(text) >= 16 or _KEY.search(name)]
        found += [url.path] if len(url.path) > 16 else []
        found += [last] if len(last) >= 16 else []
        yield from filter(None, found)


def _forms(value: str) -> set[str]:
    """All forms in which a secret may be echoed."""
    escaped = json.dumps(value)[1:-1]
    encoded = value.encode(errors="surrogatepass")
    return {
        value,
        value.strip(),
        quote(value, safe=""),
        quote(value),
        quote_plus(value),
        escaped,
        escaped.replace("/", "\\/"),
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        b64encode(encoded).decode(),
        urlsafe_b64encode(encoded).decode().rstrip("="),
        *_within_base64(encoded),
    }


def _within_base64(value: bytes) -> Iterator[str]:
    """The characters that stand for a secret in the Base64 of a text that contains it, as of a user name and password,
    whatever is before and after it.
    """
    for before in range(3):
        begin, end = -(-before * 8 // 6), (before + len(value)) * 8 // 6
        if end - begin >= SHORTEST_WITHIN:
            for encode in (b64encode, urlsafe_b64encode):
                yield encode(bytes(before) + value)[begin:end].decode()


SECRETS: Final = Redactor()


def redacted(text: str) -> str:
    """The text with a mask for every secret in use."""
    return SECRETS.redacted(text)
