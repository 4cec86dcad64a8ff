"""Source `nutcache`: every documented list of a Nutcache company.

Only the list form is read, because list and detail differ. Names, paths and links that the API leaves open are a table
in `profiles`. docs/nutcache.md says what the API requires of a poller, and how the source meets it.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Annotated, ClassVar, Final, Literal
from urllib.parse import quote

import httpx
import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from plugins.nutcache.normalise import guid, normaliser
from plugins.nutcache.profiles import BASE_URL, LIMITS, MAX_PAGE_SIZE, PROFILES, Profile, Resource
from poller import Endpoint, Limit, Page, PageError, Position
from poller.options.quantities import parse_rate
from poller.options.secrets import Secret
from poller.sources.auth import (
    AuthError,
    HeaderName,
    StaticAuth,
    TokenAuth,
    authorize,
    http_url,
    revealed,
    text,
    token_request,
)
from poller.sources.pagination import same_origin
from poller.sources.paths import Answer, Path, identity

_GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NEXT: Final = "navigation-next"
_MOST_COMPANIES: Final = 20  # pages of companies


class EndpointTable(BaseModel):
    """The table of an endpoint: it has no keys besides those that every endpoint has."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NutcacheOptions(BaseModel):
    """The `[sources.NAME]` table of a `nutcache` source."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    server: Annotated[str, AfterValidator(http_url)] = BASE_URL
    profile: Literal["v4", "v3"] = "v4"
    access_token: Secret | None = None
    username: Secret | None = None
    password: Secret | None = None
    api_key: Secret | None = None
    company: str | None = Field(default=None, min_length=1)
    company_header: HeaderName | None = None
    endpoints: dict[str, EndpointTable] | None = None

    @model_validator(mode="after")
    def _credentials_are_whole(self) -> NutcacheOptions:
        login = {"username": self.username, "password": self.password, "api_key": self.api_key}
        absent = [key for key, value in login.items() if value is None]
        if self.access_token is not None and len(absent) < 3:
            raise ValueError("access_token, or username + password + api_key: keep one of them")
        if self.access_token is None and len(absent) == 3:
            raise ValueError('credentials are missing: set access_token = { env = "NUTCACHE_TOKEN" }')
        if self.access_token is None and absent:
            raise ValueError(f"a login also needs {' and '.join(absent)}")
        return self

    @model_validator(mode="after")
    def _endpoints_exist(self) -> NutcacheOptions:
        resources = PROFILES[self.profile].resources
        for name in self.endpoints or ():
            if name not in resources:
                near = get_close_matches(name, resources, n=1)
                told = f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(resources)}"
                raise ValueError(f'endpoints: profile {self.profile} has no "{name}"; {told}')
            parent = resources[name].parent
            if parent and parent not in (self.endpoints or ()):
                raise ValueError(
                    f'endpoints: "{name}" is a list per object of "{parent}": add [...endpoints.{parent}], too'
                )
        return self


@dataclass(frozen=True, slots=True)
class PasswordGrant:
    """Tokens by the account's password and API key. They last 14 days; there is no refresh token."""

    url: str
    options: NutcacheOptions

    def ask(self, refresh: str | None) -> httpx.Request:  # noqa: ARG002
        """The request for a token."""
        options = self.options
        form = {"grant_type": "password"}
        for name, secret in (
            ("username", options.username),
            ("password", options.password),
            ("api_key", options.api_key),
        ):
            if secret is not None:
                form[name] = revealed(secret)
        return token_request(self.url, form)


class NutcacheSource:
    """The lists of one company."""

    Options: ClassVar[type[BaseModel]] = NutcacheOptions
    namespace: ClassVar[str] = "nutcache"
    limits: Sequence[Limit] = tuple(parse_rate(limit) for limit in LIMITS)

    def __init__(self, name: str, options: NutcacheOptions) -> None:
        self._name = name
        self._profile = PROFILES[options.profile]
        self._base = httpx.URL(options.server.rstrip("/") + "/")
        self._company_header = options.company_header or self._profile.company_header
        self._wanted = options.company
        self._chosen = options.endpoints
        company = guid(options.company) if options.company else ""
        self._company: str | None = company if _GUID.fullmatch(company) else None
        self.auth: httpx.Auth | None = _auth(options, self._base, self._profile)

    def endpoints(self) -> Sequence[Endpoint]:
        """The chosen lists, or all that the profile documents; parents before their children."""
        names = self._profile.resources if self._chosen is None else self._chosen
        return [_endpoint(resource) for name, resource in self._profile.resources.items() if name in names]

    def request(self, endpoint: Endpoint, at: Position) -> httpx.Request:
        """The request for a page of a list, always the largest page."""
        resource = self._profile.resources[endpoint.name]
        if at.cursor is not None:
            return self._get(resource, self._own(at.cursor))
        parent = "" if at.parent is None else identity("id")(at.parent) or ""
        if resource.parent and not parent:
            raise PageError(f"{self._name}: {endpoint.name} is a list per {resource.parent}, which needs an id")
        path = resource.path.replace("{parent}", quote(parent, safe=""))
        return self._get(resource, self._page_url(path, at.page or 1))

    def page(self, endpoint: Endpoint, at: Position, response: httpx.Response) -> Page:
        """The page that an answer contains. Raises PageError."""
        answer = Answer(response.content)
        objects = answer.objects(_member(answer, endpoint.name))
        if not objects:  # a next link may even follow the last page
            return Page(objects=objects)
        href = _next_href(answer)
        return Page(objects=objects, next=None if href is None else self._next(at, href, response.request.url))

    def item_request(self, endpoint: Endpoint, object_id: str) -> httpx.Request | None:
        """A record's own URL, for resources that document one."""
        resource = self._profile.resources[endpoint.name]
        if not resource.has_items:
            return None
        return self._get(resource, self._base.join(f"{resource.path}/{quote(object_id, safe='')}"))

    def discover(self) -> Generator[httpx.Request, httpx.Response, None]:
        """Ask for the companies that the key may see, unless the configuration has the GUID."""
        if self._company is not None:
            return
        resource = self._profile.resources[self._profile.companies]
        endpoint = _endpoint(resource)
        seen: dict[str, str] = {}
        at: Position | None = endpoint.first
        for _ in range(_MOST_COMPANIES):
            if at is None:
                break
            response = yield self.request(endpoint, at)
            if response.status_code == httpx.codes.UNAUTHORIZED:
                raise AuthError(f"{self._name}: the credentials are refused: 401 from {resource.path}", status=401)
            if not response.is_success:
                raise PageError(
                    f"{self._name}: the companies cannot be listed: {response.status_code} from {resource.path}",
                    hint="check the credentials, or set `company` to its GUID",
                )
            page = self.page(endpoint, at, response)
            seen |= dict(_companies(resource, page))
            at = page.next
        self._company = _choose(self._name, self._wanted, seen)

    def _get(self, resource: Resource, url: httpx.URL) -> httpx.Request:
        headers = {"Accept": "application/json", "api-version": self._profile.api_version}
        if resource.tenant:
            if self._company is None:
                raise PageError(
                    f"{self._name}: the company is not known yet", hint="set `company`, or let it be looked up first"
                )
            headers[self._company_header] = self._company
        return httpx.Request("GET", url, headers=headers)

    def _page_url(self, path: str, page: int) -> httpx.URL:
        return self._base.join(path).copy_merge_params({"limit": MAX_PAGE_SIZE, "page": page})

    def _own(self, href: str) -> httpx.URL:
        """A link of the API, relative to the base URL and without a leading slash."""
        try:
            url = self._base.join(href)
        except httpx.InvalidURL as exc:
            raise PageError(f"{self._name}: the next link is not a URL: {exc}") from exc
        if not same_origin(url, self._base):
            raise PageError(f"{self._name}: the next link leads to another origin than `server`")
        return url

    def _next(self, at: Position, href: str, asked: httpx.URL) -> Position | None:
        """The number of the page that a next link names; a link by keys is followed unchanged."""
        url = self._own(href)
        number = url.params.get("page", "")
        if number.isascii() and number.isdigit() and len(number) < 10 and at.cursor is None:
            here = at.page or 1
            if int(number) > here + 1:
                raise PageError(f"{self._name}: the next link of page {here} leads to page {number}")
            return replace(at, page=here + 1) if int(number) > here else None
        if url == asked:
            raise PageError(f"{self._name}: the next link leads to the same page again")
        return replace(at, page=None, cursor=str(url))


def _auth(options: NutcacheOptions, base: httpx.URL, profile: Profile) -> httpx.Auth:
    token = options.access_token
    if token is not None:
        return StaticAuth(base, lambda request: authorize(request, profile.scheme, text(token)))
    grant = PasswordGrant(str(base.join(profile.token_path)), options)
    return TokenAuth(base, grant, scheme=profile.scheme)


def _endpoint(resource: Resource) -> Endpoint:
    deleted = resource.deleted_status
    return Endpoint(
        name=resource.name,
        id=resource.id[0] if len(resource.id) == 1 else resource.id,
        first=Position(page=1),
        parent=resource.parent,
        ignore=tuple(f"/{field}" for field in resource.volatile),
        exclude=("/links",),
        deleted_when=None if deleted is None else f"object.status == {deleted}",
        normalise=normaliser(resource),
    )


def _member(answer: Answer, name: str) -> Path:
    """The path of an envelope's member, regardless of the case of its key."""
    key = next((key for key in answer.members() or () if key.lower() == name), name)
    return Path(text=f"$.{key}", names=(key,))


def _next_href(answer: Answer) -> str | None:
    links = answer.value(_member(answer, "links"))
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and str(link.get("rel", "")).lower() == _NEXT and isinstance(link.get("href"), str):
            return str(link["href"])
    return None


def _companies(resource: Resource, page: Page) -> Iterator[tuple[str, str]]:
    """GUID and name of every company on a page."""
    normalise = normaliser(resource)
    for item in page.objects:
        record = normalise(msgspec.json.decode(item) if isinstance(item, msgspec.Raw) else dict(item))
        if isinstance(record["guid"], str):
            yield record["guid"], str(record["name"])


def _choose(source: str, wanted: str | None, seen: Mapping[str, str]) -> str:
    """The GUID of the right company: by its name, or the only one."""
    found = [key for key, name in seen.items() if wanted is None or name.casefold() == wanted.casefold()]
    if len(found) == 1:
        return found[0]
    told = ", ".join(f'"{name}" ({key})' for key, name in list(seen.items())[:10]) or "none"
    if wanted is None:
        problem = "the key sees no company" if not seen else "the key sees several companies"
    else:
        problem = f'{len(found) or "no"} companies are named "{wanted}"'
    raise PageError(f"{source}: {problem}: {told}", hint="set `company` to the GUID of the right one")
