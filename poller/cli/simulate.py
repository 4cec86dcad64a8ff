"""`poller simulate`: the real planner and budget on a virtual clock, in a made-up world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson
from rich.console import Console
from rich.table import Table

from poller import worlds
from poller.cli.plan import limits_option
from poller.rates import duration_text, parse_duration
from poller.simulate import Result, simulate_world, units_of

_BARS = 40  # characters of the longest bar
_STEPS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 86400)  # seconds, of the chart


@click.command()
@click.option("--days", type=click.FloatRange(0.1, 366), default=14.0, show_default=True, help="How long.")
@click.option("--world", type=click.Choice(list(worlds.KINDS)), default="realistic", show_default=True, help="Which.")
@click.option("--units", type=click.IntRange(1, 100_000), default=200, show_default=True, help="How many units.")
@click.option("--changes", type=click.FloatRange(1), default=6000.0, show_default=True, help="Changes a day.")
@click.option("--limits", multiple=True, default=["20000/day"], show_default=True, metavar="RATE", help="Of the key.")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True, help="Of them.")
@click.option("--max-staleness", metavar="DURATION", help="A promise for every unit.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same answer.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the delays into a PNG.")
@click.option("--json", "as_json", is_flag=True, help="JSON for machines.")
def simulate(
    days: float,
    world: str,
    units: int,
    changes: float,
    limits: tuple[str, ...],
    share: float,
    max_staleness: str | None,
    seed: int,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Try the planner on a virtual clock: how late would changes be found, and how late in turn?

    Example: poller simulate --days 3 --world rhythm --limits 5000/h
    """
    promise = _duration(max_staleness)
    made = worlds.make(world, units=units, days=days, changes_per_day=changes, seed=seed)
    result = simulate_world(
        made, limits=limits_option(limits), share=share, units=units_of(made, max_staleness=promise), seed=seed
    )
    if plot is not None:
        draw(result, plot)
    if as_json:
        click.echo(orjson.dumps(simulate_json(result), option=orjson.OPT_INDENT_2))
    else:
        render_simulation(result, Console())


def simulate_json(result: Result) -> dict[str, Any]:
    """The result as JSON; delays in seconds."""
    names = (
        "world",
        "units",
        "days",
        "calls",
        "used",
        "mean",
        "in_turn",
        "optimum",
        "hourly_bound",
        "stalest",
        "unseen",
    )
    percentiles = {f"p{percent}": result.percentile(percent) for percent in (50, 90, 99)}
    return {name: getattr(result, name) for name in names} | percentiles | {"changes": int(result.delays.size)}


def render_simulation(result: Result, console: Console) -> None:
    """Print the delays beside polling in turn and the bounds, and a chart of both distributions."""
    table = Table(title=f"{result.world}: {result.units} units, {result.days:g} days", title_justify="left")
    for head in ("", "mean delay", "of in turn"):
        table.add_column(head)
    rows = [("planner", result.mean), ("in turn", result.in_turn)]
    rows += [("D*: constant rates known", result.optimum), ("hourly rates known", result.hourly_bound)]
    for name, delay in rows:
        table.add_row(name, f"{delay:.1f} s", f"{delay / result.in_turn:.2f}")
    console.print(table)
    console.print(_chart(result))
    console.print(
        f"{result.calls:,} calls ({result.used:.1%} of those allowed), {result.delays.size:,} changes found, half of"
        f" them within {result.percentile(50):.0f} s, 99 % within {result.percentile(99):.0f} s; no unit went unpolled"
        f" for more than {result.stalest:.0f} s"
    )


def draw(result: Result, path: Path) -> None:
    """Draw both distributions into a PNG. Raises click.ClickException where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise click.ClickException("--plot needs matplotlib: pip install 'poller[plot]'") from error
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for delays, label in ((result.delays, "planner"), (result.delays_in_turn, "in turn")):
        axes.plot(np.sort(delays), np.linspace(0, 1, delays.size), label=f"{label}, mean {delays.mean():.0f} s")
    axes.axvline(result.optimum, color="grey", linestyle=":", label=f"D* = {result.optimum:.0f} s")
    axes.set(xscale="log", xlabel="detection delay, seconds", ylabel="share of changes", xlim=(1, None))
    axes.set_title(f"{result.world}: {result.units} units, {result.days:g} days")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def _chart(result: Result) -> Table:
    table = Table(box=None, title="changes found within", title_justify="left")
    for head in ("", "planner", "in turn", ""):
        table.add_column(head)
    for step in _STEPS:
        here, there = (float((delays <= step).mean()) for delays in (result.delays, result.delays_in_turn))
        bar = "█" * round(here * _BARS)
        table.add_row(duration_text(float(step)), f"{here:.0%}", f"{there:.0%}", bar)
    return table


def _duration(text: str | None) -> float | None:
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--max-staleness") from error
