"""The HTTP side: API, event stream, metrics and a status page."""

from poller.web.server import HttpServer, serve

__all__ = ["HttpServer", "serve"]
