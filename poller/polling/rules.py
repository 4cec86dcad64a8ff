"""Rules of an endpoint: what its plugin says of it, and what the configuration says."""

from __future__ import annotations

from collections.abc import Callable

from poller.changes.endpoint_rules import DeletionRules, EndpointRules
from poller.config.models import EndpointConfig, SourceConfig
from poller.documents.diff import compile_rules
from poller.events.filters import ObjectRule
from poller.hooks.loading import Plugins
from poller.hooks.source_adapter import SourceAdapter
from poller.sources.protocol import Endpoint, PageError
from state.records import NewEvent

Transform = Callable[[NewEvent], NewEvent | None]


def rules_of(config: SourceConfig, endpoint: Endpoint, plugins: Plugins) -> EndpointRules:
    """The rules of an endpoint, from its plugin and the configuration. Raises PollerError for a bad rule."""
    settings = config.endpoint(endpoint.name)
    deleted_when = settings.deleted_when or endpoint.deleted_when
    fields = compile_rules(
        (*endpoint.ignore, *settings.ignore),
        (*endpoint.exclude, *settings.exclude),
        (*endpoint.unordered, *settings.unordered),
    )
    return EndpointRules(
        source=config.name,
        namespace=config.namespace,
        endpoint=endpoint,
        fields=fields,
        deletion=DeletionRules(
            deletes=settings.deletes,
            soft=ObjectRule(deleted_when) if deleted_when else None,
            absent_for=settings.absent_for,
            unlisted=settings.unlisted,
            turnover=settings.turnover,
        ),
        conditional=settings.conditional,
        baseline=settings.baseline,
        max_depth=config.max_depth,
        transform=transformer(plugins),
    )


def transformer(plugins: Plugins) -> Transform | None:
    """The plugins' `transform_event` hooks as one function. It returns an event, or None to drop it."""
    return plugins.transform if plugins.implements("transform_event") else None


def shape_of(source: SourceAdapter, endpoint: Endpoint, settings: EndpointConfig) -> str:
    """What identifies the meaning of an endpoint's objects, as text: its path, id and excluded fields."""
    try:
        path = f"in each of {endpoint.parent}" if endpoint.parent else source.request(endpoint, endpoint.first).url.path
    except PageError:  # its path needs discovery first, so it comes from the plugin and not from the configuration
        path = endpoint.name
    exclude = sorted({*endpoint.exclude, *settings.exclude})
    return f"{path} id={endpoint.id} exclude={exclude}"
