"""The HTTP side: API, event stream, metrics and a status page."""

from poller.web.server import serve

__all__ = ["serve"]
