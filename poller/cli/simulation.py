"""Output of `poller simulate`: tables and a chart, JSON, a picture."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
from rich import progress
from rich.console import Console

from poller.cli.output import print_table, say
from poller.options.quantities import duration_text
from poller.rendering.counting import counted, plural
from poller.simulation.scenarios import Scenario
from poller.simulation.simulator import Progress, Result

_BARS: Final = 16  # characters of the longest bar; two fit on a terminal
_STEPS: Final = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 86400)  # seconds; steps of the chart
_FIGURES: Final = ("units", "days", "calls", "used", "mean", "in_turn", "optimum", "hourly_bound", "stalest")


@contextlib.contextmanager
def progress_of(what: str, *, every: float = 10.0) -> Iterator[Progress]:
    """Show how much of a simulation is done: a bar on a terminal; elsewhere a line every so many seconds."""
    if not sys.stderr.isatty():
        yield _lines(what, every)
        return
    columns = (
        progress.TextColumn(what),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def _lines(what: str, every: float) -> Progress:
    said = time.monotonic()

    def tell(share: float) -> None:
        nonlocal said
        if time.monotonic() - said >= every:
            said = time.monotonic()
            say(f"{what}: {share:.0%} simulated", err=True)

    return tell


def result_row(result: Result) -> dict[str, Any]:
    """The result as JSON; delays in seconds."""
    percentiles = {f"p{percent}": result.delays.percentile(percent) for percent in (50, 90, 99)}
    figures = {name: getattr(result, name) for name in _FIGURES}
    return {
        "world": result.world,
        **figures,
        "unseen": result.delays.unseen,
        **percentiles,
        "changes": int(result.delays.found.size),
    }


def scenario_row(found: Scenario) -> dict[str, Any]:
    """The result of a budget as JSON, with its endpoints."""
    return {
        "budget": found.budget,
        **result_row(found.result),
        "calls_per_day": found.result.calls / found.result.days,
        "endpoints": [asdict(one) for one in found.endpoints],
    }


def print_scenario(found: Scenario, out: Console | None) -> None:
    """Print the result of a budget and of each of its endpoints."""
    print_result(found.result, out)
    heads = ["endpoint", "units", "weight", "changes", "calls a day", "mean delay", "in turn"]
    rows = [
        [
            f"{one.source}/{one.endpoint}",
            f"{one.units:,}",
            f"{one.weight:g}",
            f"{one.changes:,}",
            f"{one.calls_per_day:,.0f}",
            _seconds(one.mean),
            _seconds(one.in_turn),
        ]
        for one in found.endpoints
    ]
    print_table(out, "endpoints", heads, rows)


def print_result(result: Result, out: Console | None) -> None:
    """Print the delays next to polling in turn and the bounds, and a chart of both distributions."""
    means = [("planner", result.mean), ("in turn", result.in_turn)]
    means += [("D*: constant rates known", result.optimum), ("hourly rates known", result.hourly_bound)]
    title = f"{result.world}: {counted(result.units, 'unit')}, {_days(result)}"
    rows = [
        [name, _seconds(delay), "-" if delay != delay else f"{delay / result.in_turn:.2f}"] for name, delay in means
    ]
    print_table(out, title, ["", "mean delay", "of in turn"], rows)
    if result.delays.found.size:
        print_table(out, "changes found within", ["", "planner", "", "in turn", ""], _chart(result))
    for line in _told(result):
        say(line)


def draw(results: Sequence[Result], path: Path) -> None:
    """Draw the distributions into a PNG. Raises click.ClickException if matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise click.ClickException("--plot needs matplotlib: pip install 'poller[plot]'") from error
    figure = Figure(figsize=(8, 4.2 * len(results)), layout="constrained")
    for axes, result in zip(figure.subplots(len(results), squeeze=False)[:, 0], results, strict=True):
        _panel(axes, result)
    figure.savefig(path, dpi=120)


def _panel(axes: Any, result: Result) -> None:
    shown = ((result.delays.found, "planner", "#1f77b4"), (result.delays.in_turn, "in turn", "#d95f02"))
    for delays, label, colour in shown:
        if delays.size:
            places = np.linspace(0, 1, delays.size)
            axes.plot(np.sort(delays), places, color=colour, label=f"{label}, mean {delays.mean():.0f} s")
    axes.axvline(result.optimum, color="grey", linestyle=":", label=f"D* = {result.optimum:.0f} s")
    axes.set(xscale="log", xlabel="detection delay, seconds", ylabel="share of changes", xlim=(1, None), ylim=(0, 1))
    units, calls = (
        f"{count:,} {plural(noun, count)}" for noun, count in (("unit", result.units), ("call", result.calls))
    )
    axes.set_title(f"{result.world}: {units}, {_days(result)}, {calls}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left", frameon=False)


def _chart(result: Result) -> list[list[str]]:
    rows = []
    for step in _STEPS:
        here, there = (float((delays <= step).mean()) for delays in (result.delays.found, result.delays.in_turn))
        bars = [("█" * round(part * _BARS)).ljust(_BARS, "·") for part in (here, there)]
        rows.append([duration_text(float(step)), f"{here:.0%}", bars[0], f"{there:.0%}", bars[1]])
    return rows


def _told(result: Result) -> list[str]:
    """The figures in lines for people."""
    calls = f"{result.calls:,} {plural('call', result.calls)} ({result.used:.1%} of those allowed)"
    if not result.delays.found.size:
        return [f"{calls}; no change was found"]
    found = result.delays.found.size
    half, most = (result.delays.percentile(percent) for percent in (50, 99))
    return [
        f"{calls}; {found:,} {plural('change', found)} found",
        f"half of them within {half:.0f} s, 99 % within {most:.0f} s;"
        f" no unit unpolled for more than {result.stalest:,.0f} s",
    ]


def _days(result: Result) -> str:
    return f"{result.days:.3g} {plural('day', result.days)}"


def _seconds(delay: float) -> str:
    return "-" if delay != delay else f"{delay:,.1f} s"
