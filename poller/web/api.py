"""The app behind every listener: its routes, its errors and its description."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from poller.web.answers import ALWAYS, describe_problem, handle_errors, problems
from poller.web.context import WebContext
from poller.web.delivery_routes import delivery_routes, subscription_commands
from poller.web.event_routes import event_routes
from poller.web.status_routes import endpoint_commands, health_routes, status_routes


def build(context: WebContext) -> FastAPI:
    """The app. Who may use it is the listener's business."""
    api = FastAPI(
        title="Poller",
        summary="Events of APIs that have no webhooks, and how their delivery is going.",
        version="1",
        docs_url=None,  # they would load their scripts from elsewhere
        redoc_url=None,
        responses=problems(*ALWAYS),
    )
    for add in (health_routes, status_routes, event_routes, delivery_routes, subscription_commands, endpoint_commands):
        add(api, context)
    handle_errors(api)
    description = describe_problem(api.openapi())
    api.openapi = lambda: description  # type: ignore[method-assign]
    _answer_head(api)
    return api


def _answer_head(api: FastAPI) -> None:
    """Answer HEAD wherever GET is answered. It is not described: OpenAPI would have each operation twice."""
    routes: list[Any] = list(api.routes)
    for route in routes:
        if isinstance(route, APIRoute) and route.methods and "GET" in route.methods:
            route.methods.add("HEAD")
