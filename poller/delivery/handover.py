"""Subscriptions that a worker takes over from other workers, or leaves to them, while it delivers."""

from __future__ import annotations

from collections.abc import Sequence

from poller.delivery.service import Deliverer
from state.errors import LeaseLost
from state.leases import Lease, subscription_lease


async def adopt(deliverer: Deliverer, leases: Sequence[Lease]) -> None:
    """Deliver these subscriptions from now on; those that are not configured are skipped."""
    async with deliverer.changing:
        by_lease = {subscription_lease(one.route.subscription.name): one.route for one in deliverer.wanted}
        for lease in leases:
            if lease.name in by_lease:
                deliverer.consumers.start(by_lease[lease.name], lease)
    deliverer.wake()


async def release(deliverer: Deliverer, name: str) -> None:
    """Stop delivering a subscription: let running attempts end, and give its lanes back."""
    await deliverer.consumers.end(name)


def drop(deliverer: Deliverer, name: str, error: LeaseLost) -> None:
    """Stop delivering a subscription that another worker owns."""
    deliverer.consumers.drop(name, error)
