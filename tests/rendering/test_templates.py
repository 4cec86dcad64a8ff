"""Texts of events: they read well by default, data stays data, and templates cannot break out."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from poller import Event
from poller.rendering.event_view import EventView
from poller.rendering.mrkdwn import inert
from poller.rendering.templates import (
    Escape,
    RenderError,
    Templated,
    environment,
    one_line,
    plain,
    render,
    render_default,
)

DATA = {
    "object": {"id": 7, "name": "Website", "status": 2, "updated_by": {"name": "Ana Roy"}},
    "version": 2,
    "changes": [
        {"path": "/status", "before": "planned", "after": "won"},
        {"path": "/lines/0/unit_price", "before": 10, "after": 12.5},
        {"path": "/end_date", "before": None, "after": "2026-12-01"},
        {"path": "/vision", "after": True},
        {"path": "/old", "before": [1, 2]},
    ],
}


def make_event(data: dict[str, Any] | None = None, **fields: Any) -> Event:
    return Event(
        **{
            "id": "k4x",
            "source": "/sources/acme",
            "type": "nutcache.projects.updated",
            "subject": "projects/7",
            "time": 1795472732.123,
            "observed_after": 1795472650.0,
            "raw": orjson.dumps(DATA if data is None else data),
            "seq": 1234,
            **fields,
        }
    )


def test_the_default_text_tells_what_who_and_each_field_before_and_after() -> None:
    assert render_default("text.j2", [make_event()]) == (
        "Project “Website” (7) updated\n"
        "  updated by: Ana Roy\n"
        "  status: planned → won\n"
        "  lines 0 unit price: 10 → 12.5\n"
        "  end date: none → 2026-12-01\n"
        "  vision: yes\n"
        "  old: [1,2] → (removed)\n"
        "  nutcache.projects.updated · projects/7 · acme · 2026-11-23 22:25:32 UTC · no. 1234\n"
    )


def test_something_created_is_told_by_its_facts() -> None:
    event = make_event({"object": {"id": 8, "note": "call back", "minutes": 90, "invoice": None}, "version": 1})
    text = render_default("text.j2", [event])

    assert "minutes: 90" in text
    assert "invoice" not in text


@pytest.mark.parametrize(
    ("type", "subject", "object", "headline"),
    [
        ("n.projects.created", "projects/7", {"name": "Website"}, "Project “Website” (7) created"),
        ("n.time_entries.deleted", "time_entries/9", {"minutes": 5}, "Time entry 9 deleted"),
        ("n.invoices.updated", "invoices/3", {"invoice_number": "0042"}, "Invoice “0042” (3) updated"),
        ("n.addresses.created", "addresses/3", {"id": 3}, "Address 3 created"),
        ("n.boxes.created", "boxes/3", {"id": 3}, "Box 3 created"),
        ("n.taxes.created", "taxes/3", {"id": 3}, "Tax 3 created"),
        ("n.status.created", "status/3", {"id": 3}, "Status 3 created"),
        ("n.x.updated", "x/a/b", {"name": " \n "}, "X a/b updated"),
    ],
)
def test_the_headline_says_what_happened_to_what(
    type: str, subject: str, object: dict[str, Any], headline: str
) -> None:
    assert EventView(make_event({"object": object}, type=type, subject=subject)).headline == headline


def test_the_programs_own_events_are_told_by_summary_and_detail() -> None:
    data = {"summary": "acme does not answer since 10:00", "version": 1, "detail": {"last_status": 503, "failures": 5}}
    event = make_event(data, source="/poller", type="poller.source.failing", subject="sources/acme")

    text = render_default("text.j2", [event])
    assert text.startswith("acme does not answer since 10:00\n")
    assert "  last status: 503\n" in text
    assert "poller.source.failing · sources/acme · poller" in text


def test_an_event_of_an_unknown_kind_still_reads() -> None:
    event = make_event({}, type="poller.ping", subject="subscriptions/crm", source="/poller")

    assert EventView(event).headline == "poller.ping: subscriptions/crm"


def test_many_fields_are_counted() -> None:
    changes = [{"path": f"/f{number}", "before": 1, "after": 2} for number in range(50)]

    assert "… and 10 more fields" in render_default("text.j2", [make_event({"object": {}, "changes": changes})])
    assert "… and more fields" in render_default("text.j2", [make_event({**DATA, "truncated": True})])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "yes"),
        (False, "no"),
        ("", "(empty)"),
        ("a\n b", "a b"),
        (1.5, "1.5"),
        ({"a": [1]}, '{"a":[1]}'),
        ("x" * 500, "x" * 199 + "…"),
        ("\x1b[31mred\u202e", "[31mred"),
    ],
)
def test_values_are_written_as_people_do(value: object, text: str) -> None:
    assert plain(value) == text


TEXTS = st.text(max_size=40) | st.sampled_from(["<script>", "a & b", "{{ 7 * 7 }}", "{% raw %}", "<@U1>", "\r\n.\r\n"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(object=st.dictionaries(TEXTS | st.sampled_from(["name", "user", "id"]), JSON), before=JSON, after=JSON)
@settings(max_examples=60, deadline=None)
def test_every_event_has_a_text_whatever_its_data(object: dict[str, Any], before: object, after: object) -> None:
    event = make_event({"object": object, "changes": [{"path": "/x", "before": before, "after": after}]})
    told = EventView(event)

    assert told.headline
    assert "\n" not in told.headline + told.title + str(told.fields[0])
    assert "49" not in render("{{ event.name }}", [make_event({"object": {"name": "{{ 7 * 7 }}"}})])
    for template, escape in (("text.j2", Escape.NONE), ("email.html.j2", Escape.HTML)):
        text = render_default(template, [event, event], escape=escape)
        assert "<script>" not in text or escape is Escape.NONE


@given(TEXTS)
def test_data_is_escaped_for_slack_with_its_entities_alone(text: str) -> None:
    shown = render("{{ event.data.object.x }}", [make_event({"object": {"x": text}})], escape=Escape.SLACK)

    assert "<" not in shown
    assert ">" not in shown
    assert shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == inert(text)


def test_data_is_escaped_in_html() -> None:
    shown = render("<b>{{ event.name }}</b>", [make_event({"object": {"name": "<i>"}})], escape=Escape.HTML)

    assert shown == "<b>&lt;i&gt;</b>"


def test_json_in_a_template_is_json_whatever_the_data() -> None:
    event = make_event({"object": {"name": 'a"b\n'}})
    body = render('{"n": {{ event.name|tojson }}, "x": {{ event.data.no.such|tojson }}}', [event])

    assert orjson.loads(body) == {"n": 'a"b', "x": None}


def test_fields_and_attributes_are_there_for_templates() -> None:
    template = "{{ event.sequence }} {{ event.kind }} {{ event.time|iso }} {{ total }} {{ event.fields[0].path }}"

    assert render(template, [make_event()]) == "1234 updated 2026-11-23 22:25:32 UTC 1 /status"
    fields = orjson.loads(render("{{ event.fields|tojson }}", [make_event()]))
    assert fields[0] == {"path": "/status", "label": "status", "before": "planned", "after": "won"}


def test_what_an_event_does_not_have_is_empty() -> None:
    assert render("[{{ event.data.object.a.b }}{{ event.who and '' }}{{ nothing }}]", [make_event()]) == "[]"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ event.__init__.__globals__ }}",
        "{{ event._event }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% for x in range(10**9) %}{% endfor %}",
        "{{ event.data.update({'a': 1}) }}",
        "{{ event.data.clear() }}",
        "{% include '/etc/passwd' %}",
        "{% include '../templates.py' %}",
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
    ],
)
def test_a_template_cannot_break_out_nor_change_the_event(template: str) -> None:
    event = make_event()
    try:
        text = render(template, [event])
    except RenderError as exc:
        text = str(exc)

    assert not any(word in text for word in ("builtins", "root:", "def ", "uid=", "Event("))
    assert event.data == DATA


def test_a_plugin_may_add_a_filter() -> None:
    environment(Escape.NONE).filters["shout"] = str.upper
    try:
        assert render("{{ event.name|shout }}", [make_event()]) == "WEBSITE"
    finally:
        del environment(Escape.NONE).filters["shout"]


def test_a_template_file_is_found_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "mail.j2").write_text("{{ event.name }}!")
    keys = Templated.model_validate({"template_file": "mail.j2"}, context={"root": tmp_path})

    assert keys.template == "{{ event.name }}!"


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"template": "{{ event.name"}, "line 1"),
        ({"template": "a\n{% endif %}"}, "line 2"),
        ({"template": "{{ x|nofilter }}"}, "nofilter"),
        ({"template_file": "nowhere.j2"}, "cannot be read"),
        ({"template": "x", "template_file": "nowhere.j2"}, "exclude each other"),
    ],
)
def test_a_wrong_template_is_told_when_the_configuration_is_read(
    tmp_path: Path, keys: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValidationError) as failure:
        Templated.model_validate(keys, context={"root": tmp_path})

    assert complaint in str(failure.value)


@given(st.text(), st.integers(1, 50))
def test_one_line_is_one_line_of_that_length(text: str, longest: int) -> None:
    line = one_line(text, longest)

    assert len(line) <= longest
    assert len(line.splitlines()) <= 1


def test_times_are_in_the_zone_of_the_configuration() -> None:
    template = "{{ event.time|iso }}"
    options = Templated.model_validate({"template": template}, context={"zone": ZoneInfo("Europe/Berlin")})

    assert render(template, [make_event()], zone=options.zone) == "2026-11-23 23:25:32 CET"
    assert Templated.model_validate({"template": template}).zone is UTC
