"""The retry schedule: the decision on a delivery after an attempt. Pure: time and chance are arguments."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from poller.http_dates import LONGEST
from poller.sinks.protocol import DeliveryError, Gone, Receipt, Refused, Rejected, RetryLater
from state.deliveries import State

SCHEDULE = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)  # seconds; Standard Webhooks 1.0.0
JITTER = 0.1  # part of a wait, in both directions
REFUSALS = 3  # attempts if the receiver refuses a delivery


class Unfinished(Exception):
    """The program stopped before the answer arrived."""


class RetryDecision(msgspec.Struct, frozen=True, kw_only=True):
    """The decision on a delivery after an attempt."""

    state: State
    retries: int
    refusals: int
    due: float | None = None  # while pending: time of the next attempt; None: as soon as possible
    not_before: float = 0.0  # no attempt before then, by the receiver's own request
    disables: bool = False  # the receiver wants no more events of this subscription
    halves: bool = False  # each half of what was attempted is a separate digest from now on


def judge(
    answer: Receipt | BaseException,
    *,
    retries: int,
    refusals: int,
    schedule: Sequence[float],
    now: float,
    chance: float,
    was_due: float | None = None,
) -> RetryDecision:
    """Decide on a delivery after an attempt. `chance` in 0..1 spreads the wait.

    `was_due` is when the delivery was due, if a probe was sent earlier: its failure uses up no retry.
    """
    if isinstance(answer, Receipt):
        return RetryDecision(state="delivered", retries=retries, refusals=refusals)
    if isinstance(answer, Gone):
        return RetryDecision(state="pending", retries=retries, refusals=refusals, disables=True)
    if isinstance(answer, Rejected):
        return RetryDecision(state="dead", retries=retries + 1, refusals=refusals)
    wait = named_wait(getattr(answer, "after", None)) if isinstance(answer, RetryLater) else None
    not_before = 0.0 if wait is None else now + wait
    if was_due is not None:
        return RetryDecision(
            state="pending", retries=retries, refusals=refusals, due=max(was_due, not_before), not_before=not_before
        )
    refusals += isinstance(answer, Refused)
    if retries >= len(schedule) or refusals >= REFUSALS:
        return RetryDecision(state="dead", retries=retries + 1, refusals=refusals, not_before=not_before)
    due = max(now + jittered(schedule[retries], chance), not_before)
    return RetryDecision(state="pending", retries=retries + 1, refusals=refusals, due=due, not_before=not_before)


def named_wait(after: object) -> float | None:
    """The wait that a receiver asked for, in seconds and at most `LONGEST`; None if it named no valid one."""
    if not isinstance(after, int | float) or not after > 0:  # NaN is not above anything
        return None
    return float(min(after, LONGEST))


def jittered(wait: float, chance: float) -> float:
    """A wait, randomly up to a tenth shorter or longer."""
    return wait * (1 + JITTER * (2 * chance - 1))


def receipt_of(answer: Receipt | BaseException) -> Receipt:
    """The receipt of any answer or exception."""
    if isinstance(answer, Receipt):
        return answer
    receipt = getattr(answer, "receipt", None)  # a plugin's own exception may not have called its parent's constructor
    if isinstance(answer, DeliveryError) and isinstance(receipt, Receipt):
        return receipt
    status = "timeout" if isinstance(answer, TimeoutError) else type(answer).__name__
    return Receipt(status=status, text=_words(answer))


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - even `str` of it is a plugin's code
        return ""
