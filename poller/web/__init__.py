"""The HTTP side: API, event stream, metrics and dashboard."""
