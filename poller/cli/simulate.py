"""`poller simulate`: this configuration on a virtual clock, or the planner in a generated world."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from poller.cli.context import CliContext
from poller.cli.output import console, print_json, say
from poller.cli.plan import limits_option, weights_option
from poller.cli.simulation import draw, print_result, print_scenario, progress_of, result_row, scenario_row
from poller.cli.state import reading
from poller.config.models import Config
from poller.operations.planners import planner_states
from poller.options.quantities import parse_duration
from poller.planner.report import WhatIf, check_names
from poller.simulation import worlds
from poller.simulation.scenarios import DAYS, Scenario, changed, replay, run_scenario
from poller.simulation.simulator import Progress, Result, simulate_world, units_of

WORLD: Final[dict[str, Any]] = {"units": 200, "changes": 6000.0, "limits": ("20000/day",), "share": 1.0}  # defaults


@click.command()
@click.option("--days", type=click.FloatRange(0.1, 366), help="Days to simulate. Default: 14, or 500,000 calls.")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), help="What if this share were used?")
@click.option("--limits", multiple=True, metavar="RATE", help="What if these were the limits?")
@click.option("--weight", "weights", multiple=True, metavar="ENDPOINT=N", help="What if an endpoint weighed that much?")
@click.option("--changes", type=click.FloatRange(1), help="What if there were that many changes a day?")
@click.option("--from-history", is_flag=True, help="Replay the changes that the log holds.")
@click.option("--world", type=click.Choice(list(worlds.KINDS)), help="A generated world; needs no configuration.")
@click.option("--units", type=click.IntRange(1, 100_000), help="Units of the generated world.  [default: 200]")
@click.option("--max-staleness", metavar="DURATION", help="`max_staleness` of every unit of the generated world.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same result.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the delays into a PNG.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def simulate(context: CliContext, /, plot: Path | None, as_json: bool, **asked: Any) -> None:
    """Run this configuration on a virtual clock: how late are changes found, with how many calls?

    Sources, endpoints, weights, promises and budgets come from the configuration, units and rates from what was learned
    so far. The delays are shown next to those of polling in turn and D*, the least that constant rates allow.

    Example: poller simulate --days 7 --weight projects=5 --limits 5000/h
    """
    if asked["world"] is not None:
        _refuse(asked, with_world=True)
        with progress_of(f"world {asked['world']}") as progress:
            result = _in_world(progress, **asked)
        found, results = result_row(result), [result]
    else:
        _refuse(asked, with_world=False)
        scenarios = list(_scenarios(context.load_file(), asked))
        if not scenarios:
            raise click.ClickException("the log holds no change that could be replayed; leave out --from-history")
        found, results = {"budgets": [scenario_row(one) for one in scenarios]}, [one.result for one in scenarios]
    if plot is not None:
        draw(results, plot)
    if as_json:
        print_json(found)
    elif asked["world"] is not None:
        print_result(results[0], console())
    else:
        for one in scenarios:
            print_scenario(one, console())


def _refuse(asked: dict[str, Any], *, with_world: bool) -> None:
    names = ("from_history", "weights") if with_world else ("units", "max_staleness")
    for name in names:
        if asked[name]:
            option = {"weights": "--weight"}.get(name, f"--{name.replace('_', '-')}")
            raise click.UsageError(f"{option} can only be used {'without' if with_world else 'with'} --world")
    if asked["from_history"] and asked["changes"] is not None:
        raise click.UsageError("--changes can only be used without --from-history: the log says how many there were")


def _in_world(
    progress: Progress, *, world: str, days: float | None, max_staleness: str | None, seed: int, **asked: Any
) -> Result:
    settings = {name: asked[name] or default for name, default in WORLD.items()}
    made = worlds.make(
        world, units=settings["units"], days=days or DAYS, changes_per_day=settings["changes"], seed=seed
    )
    units = units_of(made, max_staleness=_duration(max_staleness))
    limits = limits_option(settings["limits"])
    return simulate_world(made, limits=limits, share=settings["share"], units=units, seed=seed, progress=progress)


def _scenarios(config: Config, asked: dict[str, Any]) -> Iterator[Scenario]:
    what_if = WhatIf(
        share=asked["share"], limits=limits_option(asked["limits"]), weights=weights_option(asked["weights"])
    )
    with reading(config) as reader:
        sums = None if reader is None else reader.sums
        states = planner_states(config, sums, now=time.time())
        seen = sums.seen_changes() if sums is not None and asked["from_history"] else []
    if sums is None and not asked["from_history"] and asked["changes"] is None:
        say("nothing is learned: every endpoint counts as one page, one change a day; try --changes", err=True)
    check_names(states, what_if)
    for state in states:
        here = changed(state, what_if)
        if not len(here.planner.units):
            continue
        with progress_of(f"budget {state.budget}") as progress:
            same: dict[str, Any] = {"days": asked["days"], "seed": asked["seed"], "progress": progress}
            if asked["from_history"]:
                replayed = replay(here, seen, **same)
                found = () if replayed is None else (replayed,)
            else:
                found = (run_scenario(here, changes_per_day=asked["changes"], **same),)
        yield from found


def _duration(text: str | None) -> float | None:
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--max-staleness") from error
