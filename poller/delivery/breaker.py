"""The breaker of a subscription: when a failing sink is left alone, and when it is tried again. Pure.

After 5 failed attempts in a row the breaker opens. Only one probe at a time is sent: after 5 s, then after twice as
long each time, up to 5 min, and never before the receiver's own `Retry-After`. The first success closes it.
"""

from __future__ import annotations

from msgspec import structs

from state.deliveries import SinkHealth

OPENS_AFTER = 5  # failed attempts in a row
FIRST_WAIT = 5.0  # seconds
LONGEST_WAIT = 300.0  # seconds


def failed(health: SinkHealth, error: str, *, now: float, not_before: float) -> SinkHealth:
    """The health after a failed attempt. Attempts already in flight when the breaker opened do not postpone the
    probe.
    """
    health = structs.replace(health, failures=health.failures + 1, last_error=error)
    if is_open(health) and not may_probe(health, now=now):
        return health
    if health.failures < OPENS_AFTER:
        return health
    wait = min(LONGEST_WAIT, 2 * health.wait) if is_open(health) else FIRST_WAIT
    return structs.replace(health, open_until=max(now + wait, not_before), wait=wait)


def is_open(health: SinkHealth) -> bool:
    """Whether attempts are held back."""
    return health.open_until is not None


def may_probe(health: SinkHealth, *, now: float) -> bool:
    """Whether an open breaker lets one attempt through."""
    return health.open_until is not None and now >= health.open_until


WELL = SinkHealth()  # the health after a successful attempt, whatever it was before
