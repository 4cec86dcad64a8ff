"""The app that every listener serves: its routes, its errors and its OpenAPI description."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from poller.operations.log import Batch, read_batch
from poller.web.answers import ALWAYS, Problem, problems
from poller.web.context import WebContext
from poller.web.dashboard.actions import router as actions
from poller.web.dashboard.budget_pages import router as budget_pages
from poller.web.dashboard.delivery_pages import router as delivery_pages
from poller.web.dashboard.endpoint_pages import router as endpoint_pages
from poller.web.dashboard.event_pages import router as event_pages
from poller.web.dashboard.html import Outcomes
from poller.web.dashboard.overview import router as overview
from poller.web.delivery_routes import router as deliveries
from poller.web.endpoint_routes import router as endpoints
from poller.web.errors import handle_errors
from poller.web.event_routes import router as events
from poller.web.status_routes import router as status
from poller.web.stream import Tail
from poller.web.subscription_routes import router as subscriptions
from state.records import EventQuery

ROUTERS = (status, events, endpoints, deliveries, subscriptions)
PAGES = (overview, endpoint_pages, event_pages, delivery_pages, budget_pages, actions)


def build(context: WebContext) -> FastAPI:
    """The app of one context. Each listener decides who may use it."""
    api = FastAPI(
        title="Poller",
        summary="Events of APIs that have no webhooks, and their deliveries.",
        version="1",
        docs_url=None,  # they would load scripts from other servers
        redoc_url=None,
        redirect_slashes=False,  # the redirect would name the scheme that a proxy uses, not that of its client
        responses=problems(*ALWAYS),
    )
    api.state.context = context
    api.state.outcomes = Outcomes()
    api.state.tail = Tail(partial(_read, context))
    for router in (*ROUTERS, *PAGES):
        api.include_router(router)
        api.include_router(_head_of(router))
    handle_errors(api)
    described = api.openapi
    api.openapi = cache(lambda: _with_problem(described()))  # type: ignore[method-assign] # when somebody asks for it
    return api


async def _read(context: WebContext, query: EventQuery, limit: int) -> Batch:
    return await context.look(read_batch, query, limit)


def _with_problem(schema: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI document with the schema of problems, which its answers refer to."""
    schema["components"]["schemas"]["Problem"] = Problem.model_json_schema()
    return schema


def _head_of(router: APIRouter) -> APIRouter:
    """HEAD for every GET route. It is not described, because OpenAPI would list each operation twice."""
    head = APIRouter()
    for route in router.routes:
        if isinstance(route, APIRoute) and route.methods and "GET" in route.methods:
            head.add_api_route(route.path, route.endpoint, methods=["HEAD"], include_in_schema=False)
    return head
