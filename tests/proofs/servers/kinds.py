"""The servers: how each is started, asked for changes through its own API, and polled."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import httpx

HERE = Path(__file__).parent
ROWS = 130


class Kind(Protocol):
    """One server, running: its rows as {name: row}, and changes of them."""

    name: str
    config: str  # the [sources.it] tables of poller.toml
    fields: tuple[str, ...]

    def command(self, port: int) -> list[str]:
        """How it is started."""
        ...

    def ready(self) -> dict[str, dict[str, Any]]:
        """All rows, once it answers. Raises httpx.HTTPError before."""
        ...

    def create(self, row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Add a row, as its API does; its name and the row as the server has it."""
        ...

    def update(self, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Change a row; the row as the server has it."""
        ...

    def delete(self, name: str) -> None:
        """Remove a row."""
        ...


@dataclass(slots=True)
class Place:
    """Where a server runs: its folder, its programs, its port."""

    folder: Path
    python: Path  # of the environment that holds the servers of PyPI
    node: Path  # the folder of npm packages
    port: int = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


def _asked(response: httpx.Response) -> Any:
    response.raise_for_status()
    return response.json() if response.content else None


@dataclass
class Rest:
    """A server with one URL a row, changed by POST, PATCH and DELETE."""

    place: Place
    http: httpx.Client = field(default_factory=lambda: httpx.Client(trust_env=False, timeout=30))
    fields: tuple[str, ...] = ("name", "amount")

    def _list(self) -> str:
        raise NotImplementedError

    def create(self, row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Add a row."""
        made = _asked(self.http.post(self._list(), json=dict(row)))
        return str(made["id"]), made

    def update(self, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Change a row."""
        changed: dict[str, Any] = _asked(self.http.patch(self._row(name), json=dict(row)))
        return changed

    def delete(self, name: str) -> None:
        """Remove a row."""
        _asked(self.http.delete(self._row(name)))

    def _row(self, name: str) -> str:
        return f"{self._list()}/{name}"


class DjangoRest(Rest):
    """Django REST Framework: the same rows by page number, by offset and by cursor, behind OAuth2."""

    name = "Django REST Framework"
    config = """
[sources.it.auth]
type = "oauth2"
token_url = "URL/o/token/"
client_id = "poller"
client_secret = "hush"
scope = "read write"
[sources.it.endpoints.numbered]
path = "/api/numbered/"
items = "$.results"
order = "id"
pagination = { type = "page", size = 25, total = "$.count" }
item_path = "/api/numbered/{id}/"
[sources.it.endpoints.offset]
path = "/api/offset/"
items = "$.results"
order = "id"
pagination = { type = "offset", size = 100, total = "$.count" }
item_path = "/api/numbered/{id}/"
[sources.it.endpoints.cursor]
path = "/api/cursor/"
items = "$.results"
pagination = { type = "cursor" }
"""

    def command(self, port: int) -> list[str]:
        """The application of `drf_app.py`."""
        return [str(self.place.python), str(HERE / "drf_app.py"), str(port), str(self.place.folder)]

    def ready(self) -> dict[str, dict[str, Any]]:
        """Log in, and read the cursor chain."""
        form = {"grant_type": "client_credentials", "scope": "read write"}
        token = _asked(self.http.post(f"{self.place.url}/o/token/", auth=("poller", "hush"), data=form))["access_token"]
        self.http.headers["Authorization"] = f"Bearer {token}"
        rows, url = {}, f"{self.place.url}/api/cursor/"
        while url:
            page = _asked(self.http.get(url))
            rows |= {str(row["id"]): row for row in page["results"]}
            url = page["next"]
        return rows

    def _list(self) -> str:
        return f"{self.place.url}/api/numbered/"

    def _row(self, name: str) -> str:
        return f"{self.place.url}/api/numbered/{name}/"


class Kinto(Rest):
    """Kinto: a list whose next page is a URL in a header."""

    name = "Kinto"
    config = """
[sources.it.endpoints.records]
path = "/v1/buckets/b/collections/c/records"
params = { _limit = 25, _sort = "-last_modified" }
items = "$.data"
pagination = { type = "cursor", next = "header:Next-Page" }
item_path = "/v1/buckets/b/collections/c/records/{id}"
ignore = ["/last_modified", "/schema"]
"""

    def command(self, port: int) -> list[str]:
        """A server that keeps its records in memory and lets anybody write."""
        ini = self.place.folder / "kinto.ini"
        kinto = str(self.place.python.with_name("kinto"))
        made = [
            kinto,
            "init",
            "--ini",
            str(ini),
            "--backend",
            "memory",
            "--cache-backend",
            "memory",
            "--host",
            "127.0.0.1",
        ]
        subprocess.run(made, check=True, capture_output=True)
        text = ini.read_text().replace(
            "kinto.bucket_create_principals = account:admin", "kinto.bucket_create_principals = system.Everyone"
        )
        ini.write_text(text)
        return [kinto, "start", "--ini", str(ini), "--port", str(port)]

    def ready(self) -> dict[str, dict[str, Any]]:
        """Make the collection and its rows."""
        everybody = {"permissions": {"write": ["system.Everyone"]}}
        _asked(self.http.put(f"{self.place.url}/v1/buckets/b", json=everybody))
        _asked(self.http.put(f"{self.place.url}/v1/buckets/b/collections/c", json=everybody))
        return dict(self.create({"name": f"thing {n}", "amount": n}) for n in range(ROWS))

    def create(self, row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Add a record."""
        made = _asked(self.http.post(self._list(), json={"data": dict(row)}))["data"]
        return made["id"], made

    def update(self, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Change a record."""
        changed: dict[str, Any] = _asked(self.http.patch(self._row(name), json={"data": dict(row)}))["data"]
        return changed

    def _list(self) -> str:
        return f"{self.place.url}/v1/buckets/b/collections/c/records"


class Datasette(Rest):
    """Datasette: tokens of the next page, changed by its write API."""

    name = "Datasette"
    config = """
[sources.it.endpoints.rows]
path = "/data/things.json"
params = { _size = 25 }
items = "$.rows"
order = "id"
pagination = { type = "cursor", param = "_next" }
item_path = "/data/things/{id}.json"
"""

    def command(self, port: int) -> list[str]:
        """A database of one table, and a token that may do everything."""
        database, datasette = self.place.folder / "data.db", str(self.place.python.with_name("datasette"))
        with sqlite3.connect(database) as made:
            made.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT, amount INTEGER)")
            made.executemany("INSERT INTO things VALUES (?, ?, ?)", [(n, f"thing {n}", n) for n in range(1, ROWS + 1)])
        asked = [datasette, "create-token", "root", "--secret", "loopback"]
        token = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
        self.http.headers["Authorization"] = f"Bearer {token}"
        return [datasette, str(database), "--host", "127.0.0.1", "--port", str(port), "--secret", "loopback", "--root"]

    def ready(self) -> dict[str, dict[str, Any]]:
        """Read all rows at once."""
        rows = _asked(self.http.get(f"{self.place.url}/data/things.json?_size=max"))["rows"]
        return {str(row["id"]): row for row in rows}

    def create(self, row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Insert a row."""
        made = _asked(self.http.post(f"{self._list()}/-/insert", json={"row": dict(row), "return": True}))["rows"][0]
        return str(made["id"]), made

    def update(self, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Update a row."""
        body = {"update": dict(row), "return": True}
        answer = _asked(self.http.post(f"{self._row(name)}/-/update", json=body))
        changed: dict[str, Any] = answer["row"] if "row" in answer else answer["rows"][0]
        return changed

    def delete(self, name: str) -> None:
        """Delete a row."""
        _asked(self.http.post(f"{self._row(name)}/-/delete"))

    def _list(self) -> str:
        return f"{self.place.url}/data/things"


class JsonServer(Rest):
    """json-server: numbered pages, a total and links in headers."""

    name = "json-server"
    config = """
[sources.it.endpoints.pages]
path = "/things"
order = "id"
params = { _sort = "id", _order = "asc" }
pagination = { type = "page", param = "_page", size_param = "_limit", size = 25, total_header = "X-Total-Count" }
item_path = "/things/{id}"
[sources.it.endpoints.links]
path = "/things"
params = { _sort = "id", _order = "asc", _limit = 25, _page = 1 }
pagination = { type = "link", param = "_page" }
item_path = "/things/{id}"
"""

    def command(self, port: int) -> list[str]:
        """A file of rows."""
        rows = [{"id": n, "name": f"thing {n}", "amount": n} for n in range(1, ROWS + 1)]
        file = self.place.folder / "db.json"
        file.write_text(json.dumps({"things": rows}))
        node = shutil.which("node") or "node"
        program = self.place.node / "node_modules/json-server/lib/cli/bin.js"
        return [node, str(program), "--quiet", "--host", "127.0.0.1", "--port", str(port), str(file)]

    def ready(self) -> dict[str, dict[str, Any]]:
        """Read all rows at once."""
        return {str(row["id"]): row for row in _asked(self.http.get(self._list()))}

    def _list(self) -> str:
        return f"{self.place.url}/things"


KINDS: tuple[type[DjangoRest] | type[Kinto] | type[Datasette] | type[JsonServer], ...] = (
    DjangoRest,
    Kinto,
    Datasette,
    JsonServer,
)


def environment() -> dict[str, str]:
    """The environment of a server: no proxies, nothing of ours on its path."""
    dropped = ("PYTHONPATH", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    return {name: value for name, value in os.environ.items() if name not in dropped} | {"PYTHONWARNINGS": "ignore"}


def python_of(folder: Path) -> Path:
    """The interpreter of a virtual environment, made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        installed = [str(python), "-m", "pip", "install", "--quiet", "-r", str(HERE / "requirements.txt")]
        subprocess.run(installed, check=True)
    return python


def node_packages_of(folder: Path) -> Path:
    """The folder of json-server, installed if it is not there."""
    if not (folder / "node_modules" / "json-server").exists():
        subprocess.run(["npm", "install", "--silent", "--prefix", str(folder), "json-server@0.17.4"], check=True)
    return folder
