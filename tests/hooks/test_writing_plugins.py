"""The guide for plugin authors and the reference of sinks: their code runs, and they leave nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from poller import Attempt, Event, PageError, RetryLater
from poller.hooks import hookspecs
from poller.hooks.loading import Plugins, installed
from poller.options.validation import keys_of

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "writing-plugins.md").read_text()
REFERENCE = (DOCS / "sinks.md").read_text()


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Plugins:
    """The guide's code, put where it says and loaded from there."""
    folder = tmp_path_factory.mktemp("plugins.d")
    for code in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
        for name in re.findall(r'"""plugins\.d/(\w+\.py)"""', code):
            (folder / name).write_text(code)
    found = Plugins()
    found.load_folder(folder)
    assert found.failed == []
    return found


def test_the_guides_source_asks_and_reads(plugins: Plugins) -> None:
    cls = plugins.sources["wiki"]
    source = cls("handbook", cls.Options.model_validate({"url": "https://wiki.example/api"}))  # type: ignore[call-arg]
    [endpoint] = source.endpoints()
    request = source.request(endpoint, endpoint.first)
    first = source.page(endpoint, endpoint.first, httpx.Response(200, json=[{"id": 1}], request=request))
    assert first.next is not None
    last = source.page(endpoint, first.next, httpx.Response(200, json=[], request=request))

    assert str(request.url) == "https://wiki.example/api/pages?page=1"
    assert (first.next.page, last.next) == (2, None)
    with pytest.raises(PageError):
        source.page(endpoint, endpoint.first, httpx.Response(200, json={"error": "maintenance"}, request=request))


async def test_the_guides_sink_delivers_or_asks_for_patience(plugins: Plugins, tmp_path: Path) -> None:
    cls = plugins.sinks["notes"]
    event = Event(
        id="k4x",
        source="/sources/handbook",
        type="handbook.pages.created",
        subject="pages/1",
        time=0.0,
        observed_after=None,
        raw=b"{}",
        seq=1,
    )
    options = cls.Options.model_validate({"folder": tmp_path / "notes"})
    async with cls("notes", options) as sink:  # type: ignore[call-arg]
        with pytest.raises(RetryLater):
            await sink.deliver([event], Attempt(number=1, delivery_id="7"))
        (tmp_path / "notes").mkdir()
        await sink.deliver([event], Attempt(number=2, delivery_id="7"))

    assert (tmp_path / "notes" / "k4x.json").read_bytes() == b"{}"


def test_the_guide_names_every_hook() -> None:
    hooks = {name for name, found in vars(hookspecs).items() if hasattr(found, "poller_spec")}

    assert hooks
    assert {hook for hook in hooks if f"`{hook}(" not in GUIDE} == set()


@pytest.mark.parametrize("name", ["http", "slack", "email", "console", "jsonl", "apprise"])
def test_the_reference_names_every_key_of_a_sink(name: str) -> None:
    found = Plugins(installed())
    found.load_offered()
    section = re.split(rf"^## {name}$", REFERENCE, flags=re.MULTILINE)[1].split("\n## ")[0]

    assert {key for key in keys_of(found.sinks[name].Options) if key not in section} == set()


def test_links_between_pages_lead_somewhere() -> None:
    for text in (GUIDE, REFERENCE):
        for target in re.findall(r"\]\((\.\./[^)#]+)", text):
            assert (DOCS / target).exists(), target
