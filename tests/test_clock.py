"""Steady time goes on, whatever is done to the wall clock, the process or the machine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from poller.clock import Anchor, SystemClock, VirtualClock

WALL = 1_700_000_000.0


@dataclass
class Machine:
    """A wall clock that people set and a time since boot that they cannot."""

    wall: float = WALL
    up: float = 100.0
    boot: str = "boot-1"

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.up += seconds

    def reboot(self, seconds: float) -> None:
        self.wall += seconds
        self.up, self.boot = 5.0, "boot-2"

    def clock(self, saved: Anchor | str | None = None) -> SystemClock:
        return SystemClock.resume(saved, wall=lambda: self.wall, boottime=lambda: self.up, boot=self.boot)


def test_steady_time_begins_at_the_walls():
    assert Machine().clock().steady() == WALL


@pytest.mark.parametrize("jump", [-1e6, -1.0, 1.0, 86400.0, 1e6])
def test_a_wall_clock_that_is_set_does_not_move_steady_time(jump: float):
    machine = Machine()
    clock = machine.clock()
    machine.wall += jump
    machine.pass_(10)
    assert clock.steady() == WALL + 10
    assert clock.now() == WALL + 10
    assert clock.look() == jump
    clock.follow_wall()
    assert (clock.now(), clock.steady(), clock.look()) == (WALL + jump + 10, WALL + 10, 0.0)


@pytest.mark.parametrize("drift", [-0.9, -0.001, 0.001, 0.9])
def test_what_a_wall_clock_gains_or_loses_is_followed_at_once(drift: float):
    machine = Machine()
    clock = machine.clock()
    machine.wall += drift
    assert clock.look() == 0.0
    assert clock.now() == pytest.approx(WALL + drift)


@pytest.mark.parametrize("jump", [-1e6, 0.0, 1e6])
def test_steady_time_goes_on_after_a_restart_in_the_same_boot(jump: float):
    machine = Machine()
    saved = str(machine.clock().anchor())
    machine.pass_(60)
    machine.wall += jump
    assert machine.clock(saved).steady() == pytest.approx(WALL + 60, abs=1e-6)


@pytest.mark.parametrize(("jump", "expected"), [(0.0, WALL + 60), (-1e6, WALL), (3600.0, WALL + 3660)])
def test_after_a_reboot_steady_time_follows_the_wall_but_never_goes_back(jump: float, expected: float):
    machine = Machine()
    saved = machine.clock().anchor()
    machine.reboot(60)
    machine.wall += jump
    assert machine.clock(saved).steady() == expected


def test_without_a_boot_id_every_start_is_a_new_boot():
    machine = Machine(boot="")
    saved = machine.clock().anchor()
    machine.pass_(60)
    assert machine.clock(saved).steady() == WALL + 60


@pytest.mark.parametrize("saved", [None, "", "nonsense", "a b c"])
def test_an_anchor_that_cannot_be_read_counts_as_none(saved: str | None):
    assert Machine().clock(saved).steady() == WALL


def test_an_anchor_survives_being_written_down():
    anchor = Anchor(boot_id="b", boottime=0.1 + 0.2, steady=WALL + 1 / 3, wall=WALL + 2 / 3)
    assert Anchor.parse(str(anchor)) == anchor
    assert Anchor.parse(str(Anchor(boot_id="", boottime=1.0, steady=WALL, wall=WALL))).boot_id == ""


def test_an_anchor_of_an_earlier_version_says_that_the_wall_clock_was_right():
    machine = Machine()
    saved = f"boot-1 100.0 {WALL!r}"
    machine.reboot(60)
    assert machine.clock(saved).steady() == WALL + 60


@pytest.mark.parametrize(
    ("before", "after", "passed"),
    [
        (3600.0, 0.0, 60.0),  # set ahead before the latest call, and so it stays
        (-3600.0, 3600.0, 60.0),  # set back before it, and corrected while the machine was off
        (-30.0, 0.0, 30.0),  # set back, and so it stays: the next call waits longer than it must
        (3600.0, -3600.0, 0.0),  # set ahead and corrected: the same
        (3600.0, -20.0, 40.0),
        (0.0, -3600.0, 0.0),
    ],
)
def test_after_a_reboot_steady_time_is_never_ahead_of_the_true_one(before: float, after: float, passed: float):
    machine = Machine()
    clock = machine.clock()
    machine.wall += before
    saved = str(clock.anchor())
    machine.reboot(60)
    machine.wall += after
    assert machine.clock(saved).steady() == WALL + passed


async def test_the_machines_own_clock_is_steady_and_sleeps():
    clock = SystemClock()
    before = clock.steady()
    await clock.sleep(0)
    assert clock.steady() >= before
    assert abs(clock.steady() - clock.now()) < 60
    assert clock.anchor().steady >= before


async def test_a_virtual_sleep_ends_when_the_clock_has_passed_it():
    clock = VirtualClock()
    woken: list[int] = []

    async def sleeper(seconds: int) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    async with asyncio.TaskGroup() as tasks:
        for seconds in (3, 1, 2, 0):
            tasks.create_task(sleeper(seconds))
        await asyncio.sleep(0)
        assert clock.next_waking() == clock.steady() + 1
        clock.advance(2.5)
        await asyncio.sleep(0)
        assert woken == [0, 1, 2]
        clock.advance(0.5)
    assert woken == [0, 1, 2, 3]
    assert clock.next_waking() is None


async def test_a_cancelled_sleeper_is_forgotten():
    clock = VirtualClock()
    task = asyncio.create_task(clock.sleep(5))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert clock.next_waking() is None
    clock.advance(10)


def test_virtual_time_does_not_go_back_but_the_wall_may():
    clock = VirtualClock(WALL)
    clock.set_wall(-3600)
    clock.advance(1)
    assert (clock.now(), clock.steady()) == (WALL - 3599, WALL + 1)
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)
