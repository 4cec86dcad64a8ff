"""What one of several workers cannot do, since it does not have the secret for it. The others may have it."""

from __future__ import annotations

from poller.config.models import Config
from poller.options.secrets import SecretError, secrets_in
from state.leases import budget_lease, subscription_lease


def lacking(config: Config) -> dict[str, str]:
    """By "budget/NAME" or "subscription/NAME": why the secret that it needs cannot be read here."""
    found = {}
    for source in config.sources.values():
        if (why := _missing(source)) is not None:
            found[budget_lease(source.budget)] = f"sources.{source.name}: {why}"
    for subscription in config.subscriptions:
        if (why := _missing(subscription)) is not None:
            found[subscription_lease(subscription.name)] = f"subscriptions.{subscription.name}: {why}"
    return found


def _missing(table: object) -> str | None:
    for secret in secrets_in(table):
        try:
            secret.read()
        except SecretError as error:
            return f"{error}: {error.hint}"
    return None
