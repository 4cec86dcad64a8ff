"""`poller plan`: what is polled how often, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from poller.budget import Limit
from poller.cli.chosen import Chosen
from poller.plan import Changes, Report, report
from poller.planner import Explanation
from poller.rates import duration_text, parse_rate

SHOWN = 20  # units in the table, unless all are asked for


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON for machines.")
@click.option("--all", "everything", is_flag=True, help=f"Every unit, not only the next {SHOWN}.")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), help="What if this share were used?")
@click.option("--weight", "weights", multiple=True, metavar="ENDPOINT=N", help="What if an endpoint weighed that much?")
@click.option("--limits", "limits", multiple=True, metavar="RATE", help="What if these were the limits?")
@click.pass_obj
def plan(
    chosen: Chosen,
    as_json: bool,
    everything: bool,
    share: float | None,
    weights: tuple[str, ...],
    limits: tuple[str, ...],
) -> None:
    """Show what is polled how often, why, when next, and what more calls would bring.

    Example: poller plan --weight projects=5 --share 1
    """
    changes = Changes(share=share, limits=limits_option(limits), weights=dict(map(_weight, weights)))
    found = report(chosen.situations(), changes)
    if as_json:
        click.echo(orjson.dumps(plan_json(found), option=orjson.OPT_INDENT_2))
    else:
        render_plan(found, Console(), units=None if everything else SHOWN)


def plan_json(found: Report) -> dict[str, Any]:
    """The report as JSON: units carry source, endpoint and key beside their figures; times are Unix seconds."""
    units = [{**_identity(one), **_figures(asdict(one))} for one in found.units]
    return {
        "budgets": [_figures(asdict(budget)) for budget in found.budgets],
        "endpoints": [_figures(asdict(endpoint)) for endpoint in found.endpoints],
        "units": units,
    }


def render_plan(found: Report, console: Console, *, units: int | None = SHOWN) -> None:
    """Print budgets, endpoints and the next units as tables."""
    for budget in found.budgets:
        limits = ", ".join(budget.limits)
        title = f"budget {budget.name}: {limits}, share {budget.share:g}: {budget.calls_per_day:,.0f} calls a day"
        console.print(_table(title, ["what if", "calls a day", "expected delay"], _outlooks(budget.expectations)))
    heads = ["endpoint", "units", "changes a day", "calls a day", "expected delay", "stalest", "weight", "busiest"]
    console.print(_table("endpoints", heads, [_endpoint(one) for one in found.endpoints]))
    heads = ["#", "unit", "changes a day", "unseen", "stale", "every", "expected delay", "next", "why"]
    console.print(_table("units, the next one first", heads, [_unit(one) for one in found.units[:units]]))
    if units is not None and len(found.units) > units:
        console.print(f"{len(found.units) - units} more: --all shows them")


def _outlooks(expectations: Sequence[Any]) -> list[list[str]]:
    return [[one.label, f"{one.calls_per_day:,.0f}", _span(one.expected_delay)] for one in expectations]


def _endpoint(one: Any) -> list[str]:
    return [
        f"{one.source}/{one.endpoint}",
        str(one.units),
        f"{one.changes_per_day:,.1f}",
        f"{one.calls_per_day:,.0f}",
        _span(one.expected_delay),
        _span(one.staleness),
        f"{one.weight:g}",
        one.busiest,
    ]


def _unit(one: Explanation) -> list[str]:
    return [
        str(one.rank),
        f"{one.unit.source}/{one.unit.endpoint} {one.unit.key}",
        f"{one.mean_rate * 86400:,.1f}",
        f"{one.unseen:.2f}",
        _span(one.staleness),
        _span(one.interval),
        _span(one.expected_delay),
        datetime.fromtimestamp(one.next_poll, UTC).strftime("%H:%M:%S"),
        one.reason,
    ]


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head)
    for row in rows:
        table.add_row(*row)
    return table


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "never polled"
    if seconds != seconds or seconds == float("inf"):
        return "-"
    return duration_text(round(seconds)) if seconds >= 1 else f"{seconds:.1f}s"


def _identity(one: Explanation) -> dict[str, str]:
    return {"source": one.unit.source, "endpoint": one.unit.endpoint, "key": one.unit.key}


def _figures(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows neither infinity nor NaN: orjson writes both as null."""
    return {name: value for name, value in values.items() if name != "unit"}


def limits_option(texts: Sequence[str]) -> tuple[Limit, ...]:
    try:
        return tuple(parse_rate(text) for text in texts)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--limits") from error


def _weight(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        weight = float(number)
    except ValueError:
        weight = 0.0
    if not name or not 0 < weight < float("inf"):
        raise click.BadParameter(f"{text!r} is not ENDPOINT=N with N above 0", param_hint="--weight")
    return name, weight
