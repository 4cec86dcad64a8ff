"""A configuration that believes a deletion as soon as it is proved, for tests that do not wait."""

from poller.config.models import Config, SourceConfig


def believed_at_once(config: Config) -> Config:
    """The configuration with `absent_for = "0s"` at every endpoint."""
    return config.model_copy(update={"sources": {name: _at_once(one) for name, one in config.sources.items()}})


def _at_once(source: SourceConfig) -> SourceConfig:
    names = [endpoint.name for endpoint in source.chosen(source.build().endpoints())]
    settings = {name: source.endpoint(name).model_copy(update={"absent_for": 0.0}) for name in names}
    return source.model_copy(update={"endpoints": settings})
