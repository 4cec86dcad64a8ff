"""What the log says of attempts: one line for each episode of failures, and one of dead letters."""

from __future__ import annotations

from typing import Any

from poller.sinks.protocol import Receipt, Rejected
from tests.support.bench import Bench, bench, said

__all__ = ["bench", "said"]


def logged(said: list[Any], name: str) -> list[str]:
    return [entry["log_level"] for entry in said if entry["event"] == name]


async def test_a_receiver_that_is_down_for_a_day_is_one_line_and_its_next_outage_another(
    bench: Bench, said: list[Any]
) -> None:
    box = bench.route("crm")
    box.fail(ConnectionError("refused"))
    await bench.start()
    await bench.record(*range(1, 20))
    await bench.pass_(86_400)

    first, *later = logged(said, "delivery.failed")
    assert (first, set(later)) == ("info", {"debug"})
    assert len(later) > 100

    box.answer = box.accept
    await bench.pass_(86_400)
    box.fail(ConnectionError("refused"))
    await bench.record(20)
    assert logged(said, "delivery.failed")[-1] == "info"


async def test_dead_letters_are_one_line_until_a_delivery_succeeds(bench: Bench, said: list[Any]) -> None:
    box = bench.route("crm", concurrency=1)
    box.fail(Rejected(Receipt(status="413")))
    await bench.start()
    await bench.record(1, 2, 3)
    assert logged(said, "delivery.dead") == ["warning", "debug", "debug"]

    box.answer = box.accept
    await bench.record(4)
    box.fail(Rejected(Receipt(status="413")))
    await bench.record(5)
    assert logged(said, "delivery.dead")[3:] == ["warning"]
