"""`poller plan`: how often each unit is polled, and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import click

from poller.budget.limits import Limit
from poller.cli.context import CliContext
from poller.cli.output import away, console, print_json_line, print_table, say, span, unix
from poller.cli.state import reading
from poller.cli.view import DaemonView
from poller.operations.documents import Document
from poller.operations.planners import planner_states
from poller.options.quantities import parse_rate
from poller.planner.report import WhatIf, parse_weight, report, rows

SHOWN = 20  # units in the table without --all

T = TypeVar("T")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one budget, endpoint or unit per line.")
@click.option("--all", "everything", is_flag=True, help=f"Every unit, not only the next {SHOWN}.")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), help="What if this share were used?")
@click.option("--weight", "weights", multiple=True, metavar="ENDPOINT=N", help="What if an endpoint weighed that much?")
@click.option("--limits", "limits", multiple=True, metavar="RATE", help="What if these were the limits?")
@click.pass_obj
def plan(
    context: CliContext,
    as_json: bool,
    everything: bool,
    share: float | None,
    weights: tuple[str, ...],
    limits: tuple[str, ...],
) -> None:
    """Show how often each unit is polled, why, when next, and what more calls would bring.

    docs/columns.md explains every column.

    Example: poller plan --weight projects=5 --share 1
    """
    what_if = WhatIf(share=share, limits=limits_option(limits), weights=weights_option(weights))
    found = _found(context, what_if)
    if as_json:
        for row in found:
            print_json_line(row)
    else:
        print_plan(found, units=None if everything else SHOWN)


def _found(context: CliContext, what_if: WhatIf) -> list[Document]:
    """The rows of the plan, from the daemon if one runs, else from the saved state."""
    with context.daemon() as daemon:
        if daemon is not None:
            return DaemonView(daemon).plan(what_if)
    config, _ = context.load(reveal=False)
    with reading(config) as reader:
        sums = None if reader is None else reader.sums
        return list(rows(report(planner_states(config, sums, now=time.time()), what_if)))


def print_plan(found: Sequence[Document], *, units: int | None = SHOWN) -> None:
    """Print budgets, endpoints and the next units as tables."""
    out, now = console(), time.time()
    of_kind = {kind: [row for row in found if row["kind"] == kind] for kind in ("budget", "endpoint", "unit")}
    for budget in of_kind["budget"]:
        if budget["broken_promise"]:
            say(f"Warning: {budget['broken_promise']}")
        windows = ", ".join(f"{one['limit']} ({one['calls_per_day']:,.0f} a day)" for one in budget["windows"])
        heads = ["what if", "calls a day", "expected delay", "promises"]
        title = f"budget {budget['name']}, share {budget['share']:g}: {windows}"
        print_table(out, title, heads, list(_what_if(budget)))
    heads = ["endpoint", "units", "changes /day", "calls /day", "expected delay", "stalest", "weight", "busiest, UTC"]
    print_table(out, "endpoints", heads, [_endpoint(one) for one in of_kind["endpoint"]])
    heads = ["#", "unit", "changes /day", "unseen", "stale", "every", "expected delay", "next", "why"]
    print_table(out, "units, the next one first", heads, [_unit(one, now) for one in of_kind["unit"][:units]])
    if units is not None and len(of_kind["unit"]) > units:
        say(f"{len(of_kind['unit']) - units} more: --all shows them")


def _what_if(budget: Document) -> Iterator[list[str]]:
    for one in budget["expectations"]:
        kept = "kept" if one["keeps_promises"] else "broken"
        yield [one["label"], f"{one['calls_per_day']:,.0f}", _span(one["expected_delay_s"]), kept]


def _endpoint(one: Document) -> list[str]:
    return [
        f"{one['source']}/{one['endpoint']}",
        str(one["units"]),
        f"{one['changes_per_day']:,.1f}",
        f"{one['calls_per_day']:,.0f}",
        _span(one["expected_delay_s"]),
        _stale(one["staleness_s"]),
        f"{one['weight']:g}",
        one["busiest"].replace(" UTC, ", " x").removesuffix(" times the mean"),
    ]


def _unit(one: Document, now: float) -> list[str]:
    due = one["next_poll"]
    return [
        str(one["rank"]),
        f"{one['source']}/{one['endpoint']} {one['key']}",
        f"{one['mean_rate'] * 86400:,.1f}",
        f"{one['unseen']:.2f}",
        _stale(one["staleness_s"]),
        _span(one["interval_s"]),
        _span(one["expected_delay_s"]),
        away(unix(due) if isinstance(due, str) else due, now),
        one["reason"],
    ]


def _stale(seconds: float | None) -> str:
    return "never polled" if seconds is None else _span(seconds)


def _span(seconds: float | None) -> str:
    """A span; infinity and NaN are null in JSON."""
    return "-" if seconds is None or seconds != seconds or seconds == float("inf") else span(seconds)


def limits_option(texts: Sequence[str]) -> tuple[Limit, ...]:
    """Limits from an option. Raises click.BadParameter."""
    return tuple(_each("--limits", parse_rate, texts))


def weights_option(texts: Sequence[str]) -> dict[str, float]:
    """Weights from an option, by endpoint. Raises click.BadParameter."""
    return dict(_each("--weight", parse_weight, texts))


def _each(option: str, parse: Callable[[str], T], texts: Sequence[str]) -> list[T]:
    try:
        return [parse(text) for text in texts]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error
