"""The HTTP side: API, event stream, metrics and a status page."""

from poller.web.serving import serve

__all__ = ["serve"]
