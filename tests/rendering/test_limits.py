"""A template that explodes fails at once and says why; one that works hard within reason is rendered."""

from __future__ import annotations

import tracemalloc

import pytest

from poller.rendering.templates import Escape, RenderError, render
from poller.testing import make_event

EXPLOSIONS = {
    "{% for i in range(10 ** 9) %}{% endfor %}": "",
    "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}": "200,000 steps",
    "{% for i in range(90000) %}{% for j in range(90000) %}x{% endfor %}{% endfor %}": "200,000 steps",
    "{{ 'a' * 10 ** 9 }}": "1,000,000,000 characters",
    "{{ 1000000000 * 'a' }}": "1,000,000,000 characters",
    "{{ [0] * 1000000000 }}": "1,000,000,000 characters or elements",
    "{{ 10 ** (10 ** 8) }}": "bits",
    "{{ 2 ** 5000 }}": "bits",
    "{{ 'a' | center(1000000000) }}": "center(1000000000)",
    "{{ 'a'.center(1000000000) }}": "center(1000000000)",
    "{{ 'a'.zfill(1000000000) }}": "zfill(1000000000)",
    "{{ 'a'.replace('', 'b' * 900000).replace('b', 'c' * 900000) }}": "characters",
    "{{ '%01000000000d' % 1 }}": "width",
    "{{ '%*d' % (1000000000, 1) }}": "width",
    "{{ '%01000000000d' | format(1) }}": "width",
    "{{ '{:>1000000000}'.format(1) }}": "width",
    "{{ '{:>{}}'.format(1, 1000000000) }}": "width",
    "{{ [1] | slice(1000000000) | list }}": "slice(1000000000)",
    "{{ 'a\nb' | indent(1000000000) }}": "indent(1000000000)",
    "{% set n = namespace(s='ab') %}{% for i in range(40) %}{% set n.s = n.s + n.s %}{% endfor %}": "characters",
    "{% set n = namespace(s='ab') %}{% for i in range(40) %}{% set n.s = n.s ~ n.s %}{% endfor %}": "characters",
    "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}": "",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}": "200,000 steps",
    "{% for i in range(3000) %}" + "x" * 1000 + "{% endfor %}": "2,000,000 characters",
}
FINE = {
    "{% for i in range(3) %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% endfor %}": "1/3,2/3,3/3",
    "{% for i in [] %}x{% else %}none{% endfor %}": "none",
    "{% for k, v in event.object.items() %}{{ k ~ '=' ~ v }} {% endfor %}": "id=1 name=B",
    "{{ '=' * 10 }}{{ 2 ** 10 }}{{ 1 + 2 }}{{ '%03d' % 7 }}{{ 'a' | center(3) }}{{ 7 % 4 }}": "=" * 10
    + "1024"
    + "3007 a 3",
    "{% for row in [1, [2, [3]]] recursive %}{{ loop(row) if row is iterable else row }}{% endfor %}": "123",
    "{% for i in range(50000) %}{{ i % 10 }}{% endfor %}": "0123456789" * 5000,
}


@pytest.mark.parametrize("text", EXPLOSIONS)
def test_an_explosion_is_an_error_that_says_what_is_too_much(text: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(RenderError) as refused:
            render(text, [make_event()])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert EXPLOSIONS[text] in str(refused.value)
    assert peak < 50_000_000


@pytest.mark.parametrize("text", FINE)
def test_what_works_within_reason_is_rendered(text: str) -> None:
    assert render(text, [make_event()]).strip() == FINE[text]


@pytest.mark.parametrize("escape", Escape)
def test_concatenation_is_escaped_as_ever(escape: Escape) -> None:
    event = make_event({"id": 1, "name": "<b>"})

    assert render("{{ event.object.name ~ '!' }}", [event], escape=escape) == render(
        "{{ event.object.name }}!", [event], escape=escape
    )
