"""The simulator: the real planner and budget, compared with polling in turn and the lower bounds."""

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from poller.budget.limits import Limit
from poller.cli import cli
from poller.cli.simulation import progress_of
from poller.planner.planner import Unit
from poller.simulation.simulator import simulate_world, units_of
from poller.simulation.worlds import DAY, make, recorded

LIMITS = (Limit(5_000, DAY),)


def run(kind="lognormal", *, days=1.0, units=40, seed=1, **options):
    world = make(kind, units=units, days=days, changes_per_day=2000, seed=seed)
    return simulate_world(world, limits=options.pop("limits", LIMITS), seed=seed, **options)


def test_the_same_seed_gives_the_same_delays():
    assert np.array_equal(run().delays.found, run().delays.found)


def test_learned_rates_beat_polling_in_turn_and_near_the_optimum():
    result = run(days=2, since=DAY / 2)

    assert result.mean < 0.8 * result.in_turn
    assert result.mean < 1.15 * result.optimum
    assert result.mean > 0.9 * result.optimum


def test_the_budget_is_kept_and_used():
    result = run(days=2)

    assert result.calls <= 2 * 5000
    assert result.used > 0.95


def test_every_change_is_found_or_counted_as_unseen():
    world = make("bursts", units=30, days=1, changes_per_day=1000, seed=2)
    result = simulate_world(world, limits=LIMITS)

    assert result.delays.found.size + result.delays.unseen == world.times.size
    assert (result.delays.found >= 0).all()


@pytest.mark.slow
def test_polling_in_turn_is_half_a_round_late():
    result = run("equal", days=3)

    assert result.delays.in_turn.mean() == pytest.approx(result.in_turn, rel=0.03)
    assert result.mean == pytest.approx(result.in_turn, rel=0.06)


def test_a_promise_is_kept():
    world = make("lognormal", units=40, days=1, changes_per_day=2000, seed=3)
    result = simulate_world(world, limits=LIMITS, units=units_of(world, max_staleness=1200.0), since=3600.0)

    assert result.stalest <= 1200 + DAY / 5000


def test_units_that_cost_several_calls_spend_them():
    world = make("equal", units=3, days=0.2, changes_per_day=500, seed=4)
    units = [Unit("s", "e", str(number), cost=number + 1) for number in range(3)]
    result = simulate_world(world, limits=[Limit(1000, DAY)], units=units)

    assert result.calls <= 1000
    assert result.in_turn == pytest.approx(6 / (2 * 1000 / DAY))


def test_several_windows_hold_at_once():
    result = run(days=0.5, limits=(Limit(2, 10.0), Limit(300, 3600.0), Limit(5000, DAY)))

    assert result.calls <= 12 * 300 + 300


def test_a_recorded_history_can_be_polled():
    history = [[100.0 * step for step in range(1, 200)], [5000.0], []]
    result = simulate_world(recorded(history, start=0.0, end=20_000.0), limits=[Limit(2, 60.0)])

    assert result.delays.found.size + result.delays.unseen == 200
    assert result.mean < 100


def test_units_must_match_the_world():
    with pytest.raises(ValueError, match="2 units and 1 limits for a world of 40 units"):
        simulate_world(make("equal", units=40, days=0.1), limits=LIMITS, units=[Unit("s", "e", key) for key in "12"])


def command(*arguments):
    return CliRunner().invoke(
        cli, ["simulate", "--world", "lognormal", "--days", "0.2", "--units", "10", "--changes", "500", *arguments]
    )


def test_the_command_shows_delays_beside_in_turn_and_the_bounds():
    answer = command()

    assert answer.exit_code == 0, answer.output
    assert "in turn" in answer.output
    assert "D*" in answer.output
    assert "█" in answer.output


def test_the_command_answers_in_json():
    told = orjson.loads(command("--json", "--world", "zipf", "--seed", "4", "--max-staleness", "10m").output)

    assert told["world"] == "zipf"
    assert told["units"] == 10
    assert told["p50"] <= told["p99"]
    assert {"mean", "in_turn", "optimum", "hourly_bound", "used"} <= told.keys()


def test_the_command_draws_a_picture(tmp_path):
    answer = command("--plot", str(tmp_path / "delays.png"))

    assert answer.exit_code == 0, answer.output
    assert (tmp_path / "delays.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "wrong", [["--limits", "many"], ["--max-staleness", "soon"], ["--world", "mars"], ["--days", "0"]]
)
def test_wrong_usage_is_said_so(wrong):
    answer = command(*wrong)

    assert answer.exit_code == 2
    assert wrong[0].lstrip("-") in answer.output


def test_progress_is_told_from_the_beginning_to_the_end():
    told: list[float] = []
    run(days=1, progress=told.append)

    assert told == sorted(told)
    assert told[0] < 0.05
    assert told[-1] > 0.95


def test_a_command_says_how_far_a_simulation_is(capsys):
    with progress_of("budget shop", every=0.0) as progress:
        progress(0.25)

    assert capsys.readouterr().err == "budget shop: 25% simulated\n"
