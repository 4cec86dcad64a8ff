"""The control interface of the sandbox, below `/_sandbox/`: not part of the API, never counted, never limited."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import orjson

from plugins.nutcache.sandbox.exchange import Answer, Request, as_json
from plugins.nutcache.sandbox.office import describe
from plugins.nutcache.sandbox.sandbox import Sandbox


def answer(sandbox: Sandbox, request: Request) -> Answer:
    """Answer a request: journal, calls and office can be read; edits, activity and faults can be ordered."""
    order = _ORDERS.get((request.method, request.path))
    if order is None:
        known = ", ".join(f"{method} /{path}" for method, path in _ORDERS)
        return as_json({"message": f"There is nothing here; there are {known}."}, status=404)
    try:
        with sandbox.office.world.lock:
            return as_json(order(sandbox, request))
    except (KeyError, ValueError, TypeError, LookupError) as error:
        return as_json({"message": f"{type(error).__name__}: {error}"}, status=400)


def _journal(sandbox: Sandbox, request: Request) -> Any:
    entries = sandbox.journal.after(int(request.query.get("after", "0")))
    return {"last": len(sandbox.journal.entries), "entries": [asdict(entry) for entry in entries]}


def _calls(sandbox: Sandbox, _: Request) -> Any:
    return sandbox.calls()


def _office(sandbox: Sandbox, _: Request) -> Any:
    return {"now": sandbox.office.now, "companies": sandbox.office.world.visible, "records": describe(sandbox.office)}


def _edit(sandbox: Sandbox, request: Request) -> Any:
    """`{"do": "create|edit|delete|soft_delete", "resource": ..., "id": ..., "values": {...}}`."""
    given = _object(request)
    office, resource = sandbox.office, given["resource"]
    match given["do"]:
        case "create":
            return {"id": office.create(resource, **given.get("values", {}))}
        case "edit":
            return {"changed": office.edit(resource, int(given["id"]), **given["values"])}
        case "delete":
            office.delete(resource, int(given["id"]))
        case "soft_delete":
            office.soft_delete(resource, int(given["id"]))
        case unknown:
            raise ValueError(f"nobody can {unknown}")
    return {}


def _advance(sandbox: Sandbox, request: Request) -> Any:
    """`{"seconds": 3600}` of office time, or `{"steps": 5}`."""
    given = _object(request)
    changes = sum(sandbox.office.step() for _ in range(int(given.get("steps", 0))))
    return {"changes": changes + sandbox.office.advance(float(given.get("seconds", 0)))}


def _fault(sandbox: Sandbox, request: Request) -> Any:
    sandbox.faults.add(**_object(request))
    return {}


def _clear(sandbox: Sandbox, _: Request) -> Any:
    sandbox.faults.clear()
    return {}


def _expire(sandbox: Sandbox, _: Request) -> Any:
    sandbox.admission.expire_tokens()
    return {}


def _sight(sandbox: Sandbox, request: Request) -> Any:
    """`{"fields": ["customers.phone"], "resources": ["expenses"]}`: hide these from the user."""
    given = _object(request)
    sandbox.hide(*given.get("fields", ()))
    sandbox.forbid(*given.get("resources", ()))
    return {}


def _object(request: Request) -> dict[str, Any]:
    given = orjson.loads(request.body)
    if not isinstance(given, dict):
        raise TypeError("the body is an object")
    return given


_ORDERS: Mapping[tuple[str, str], Callable[[Sandbox, Request], Any]] = {
    ("GET", "_sandbox/journal"): _journal,
    ("GET", "_sandbox/calls"): _calls,
    ("GET", "_sandbox/office"): _office,
    ("POST", "_sandbox/office"): _edit,
    ("POST", "_sandbox/advance"): _advance,
    ("POST", "_sandbox/faults"): _fault,
    ("DELETE", "_sandbox/faults"): _clear,
    ("POST", "_sandbox/expire"): _expire,
    ("POST", "_sandbox/hidden"): _sight,
}
