"""The receivers of docs/how-to/receivers.md: they refuse what is not signed, drop repeats and keep the newest copy."""

import json
import sqlite3
import types
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook

from poller import Event
from poller.events.cloudevents import structured
from poller.testing import make_event
from tests.docs.fences import ROOT, fences

SECRET = "whsec_cG9sbGVyIHR1dG9yaWFsLCBub3QgZm9yIHByb2R1Y3Rpb24="
CODE = {fence.language: fence.text for fence in fences(ROOT / "docs" / "how-to" / "receivers.md")}


def signed(event: Event, secret: str = SECRET) -> tuple[bytes, dict[str, str]]:
    """An event as it leaves, with the headers of its signature."""
    body, now = structured(event), datetime.now(UTC)
    signature = Webhook(secret).sign(event.id, now, body.decode())
    return body, {
        "content-type": "application/cloudevents+json",
        "webhook-id": event.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }


def test_events_that_arrive_at_once_are_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRM_SECRET", SECRET)
    module = types.ModuleType("receiver")
    exec(CODE["python"], module.__dict__)
    events = [make_event({"id": number}, version=1, kind="created") for number in range(40)]

    def send(event: Event) -> int:
        body, headers = signed(event)
        return int(module.app.test_client().post("/hooks/poller", data=body, headers=headers).status_code)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(send, events)) == {204}
    assert module.database.execute("SELECT count(*) FROM copies").fetchone() == (40,)
    module.database.close()


def test_the_receiver_in_flask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRM_SECRET", SECRET)
    module = types.ModuleType("receiver")
    exec(CODE["python"], module.__dict__)
    client = module.app.test_client()
    first = make_event({"id": 1, "name": "A"}, version=1, kind="created")
    second = make_event({"id": 1, "name": "B"}, version=2)

    def send(event: Event, secret: str = SECRET) -> int:
        body, headers = signed(event, secret)
        return int(client.post("/hooks/poller", data=body, headers=headers).status_code)

    assert [send(second), send(second), send(first)] == [204, 204, 204]
    assert send(first, secret="whsec_" + "c2VjcmV0" * 6) == 401
    module.database.close()
    database = sqlite3.connect(tmp_path / "copies.db")
    [(subject, version, deleted, data)] = database.execute("SELECT * FROM copies").fetchall()
    assert (subject, version, deleted) == ("/sources/acme items/1", 2, 0)
    assert json.loads(data)["data"]["object"]["name"] == "B"
    assert database.execute("SELECT count(*) FROM seen").fetchone() == (2,)
    database.close()
