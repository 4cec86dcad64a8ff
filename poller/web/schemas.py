"""Schemas of the answers, for OpenAPI. The routes build their answers themselves; `make prove-api` compares both."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class EventPage(BaseModel):
    """Events as CloudEvents, in order. Continue with `after` = `next`, or with `log_id`-`next`. `first` is the oldest
    number that is still in the log.
    """

    events: list[dict[str, Any]]
    next: int
    log_id: str
    first: int


class ObjectDocument(BaseModel):
    """The latest state of an object, and its latest events."""

    source: str
    endpoint: str
    id: str
    version: int
    presence: str
    seen_at: str
    object: Any
    history: list[dict[str, Any]]


class Attempt(BaseModel):
    """One attempt of a delivery. `latency` is in seconds, `text` the start of the answer."""

    number: int
    at: str
    latency: float
    status: str
    text: str
    reference: str | None


class DeliveredEvent(BaseModel):
    """The event that a delivery carries."""

    seq: int
    event_id: str
    event_type: str
    event_source: str
    event_subject: str


class DeliveryProgress(BaseModel):
    """Progress of a delivery. `due` is the time of the next attempt; `status` is that of the latest one."""

    state: str
    attempts: int
    queued_at: str
    due: str | None
    finished_at: str | None
    status: str | None


class DeliveryDocument(DeliveredEvent, DeliveryProgress):
    """A delivery; if requested by number it has its attempts in `log`."""

    id: int
    subscription: str
    origin: str
    digest: int | None
    log: list[Attempt] | None = None


class DeliveryPage(BaseModel):
    """Deliveries, the latest first. Continue with `before` = `next`; null: there are no more."""

    deliveries: list[DeliveryDocument]
    next: int | None


class Books(_Open):
    """The books of one subscription."""

    subscription: str
    events: int
    balanced: bool


class Done(_Open):
    """The result of a command. `summary` is one sentence; other members depend on the command."""

    summary: str


class TableDocument(BaseModel):
    """Rows of an open table, each with a value for every column. `next` is null at the end."""

    columns: list[str]
    rows: list[list[Any]]
    next: str | None


class Plan(BaseModel):
    """How often units are polled, and why."""

    budgets: list[dict[str, Any]]
    endpoints: list[dict[str, Any]]
    units: list[dict[str, Any]]


class ConfigurationDocument(BaseModel):
    """The configuration that the daemon runs. `digest` is the SHA-256 of its file as it was read."""

    path: str
    digest: str
    read_at: str
    process: int
    timezone: str
    sources: list[str]
    subscriptions: list[str]
    budgets: list[str]
