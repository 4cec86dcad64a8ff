"""The records of the sandbox's office: tables, the order of their lists, and the journal of every change."""

from __future__ import annotations

import random
import threading
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from plugins.nutcache.profiles import Field, Profile, Resource
from plugins.nutcache.sandbox.journal import ChangeKind, Journal

GLOBAL = 0  # scope of the lists that belong to no company
# Types that records refer to and that have no list of their own in the documentation.
UNLISTED = ("members", "items", "taxes")
_FIRST_IDS = {
    "customers": 154600,
    "projects": 7301,
    "project_members": 73701,
    "project_services": 130401,
    "time_entries": 201501,
    "timers": 3601,
    "invoices": 14801,
    "invoice_details": 24001,
    "invoice_taxes": 1,
    "expenses": 234501,
    "expense_taxes": 229101,
    "members": 9101,
    "items": 337601,
    "taxes": 411,
}
_PARENTS = ("project", "invoice", "expense", "customer")


class Record:
    """One record in its current state. `form` is its rendered list form, kept until the record changes."""

    __slots__ = ("company", "form", "gone", "id", "resource", "scope", "values")

    def __init__(self, resource: str, record_id: int, *, company: int, scope: int, values: dict[str, Any]) -> None:
        self.resource = resource
        self.id = record_id
        self.company = company
        self.scope = scope
        self.values = values
        self.form: bytes | None = None
        self.gone = False

    def __getitem__(self, name: str) -> Any:
        return self.values.get(name)


class World:
    """Tables of records in the profile's words, changed only through `add`, `change` and `remove`."""

    def __init__(self, profile: Profile, *, journal: Journal, seed: int, now: float) -> None:
        self.profile = profile
        self.journal = journal
        self.random = random.Random(seed)
        self.now = now  # Unix seconds on the office's own clock
        self.lock = threading.RLock()
        self.tables: dict[str, dict[int, Record]] = {name: {} for name in (*profile.resources, *UNLISTED)}
        self.lists: dict[tuple[str, int], list[int]] = defaultdict(list)
        self.visible: list[int] = []  # companies that the user belongs to; activity happens in these
        self._next = {name: _FIRST_IDS.get(name, 1) for name in self.tables}

    # Reading

    def get(self, resource: str, record_id: int | None) -> Record | None:
        return None if record_id is None else self.tables[resource].get(record_id)

    def ids(self, resource: str, scope: int) -> list[int]:
        """The ids of one list, ascending. This is the list itself: do not change it."""
        return self.lists.get((resource, scope), [])

    def rows(self, resource: str, scope: int) -> Iterator[Record]:
        table = self.tables[resource]
        return (table[record_id] for record_id in list(self.ids(resource, scope)))

    def children(self, record: Record) -> Iterator[Record]:
        """Records of every child list of one record."""
        for resource in self.profile.resources.values():
            if resource.parent == record.resource:
                yield from self.rows(resource.name, record.id)

    # Changing

    def add(self, resource: str, values: Mapping[str, Any], *, record_id: int | None = None) -> Record:
        """Put a record into its lists; ids rise. Whatever `values` leaves out is null."""
        known = self.profile.resources.get(resource)
        record_id = self._next[resource] if record_id is None else record_id
        if record_id in self.tables[resource]:
            raise ValueError(f"{resource}/{record_id} exists")
        self._next[resource] = max(self._next[resource], record_id + 1)
        full: dict[str, Any] = dict.fromkeys(known.fields) if known else {}
        full.update(_coerced(known, values))
        full["id"] = record_id
        company = self._company(resource, full)
        scope = self._scope(known, company, full)
        record = Record(resource, record_id, company=company, scope=scope, values=full)
        self.tables[resource][record_id] = record
        insort(self.lists[resource, scope], record_id)
        self._tell(record, "created")
        return record

    def change(self, record: Record, **values: Any) -> tuple[str, ...]:
        """Set fields, and return the names of those that changed. A removed record is left unchanged."""
        if record.gone:
            return ()
        known = self.profile.resources.get(record.resource)
        new = _coerced(known, values)
        changed = tuple(name for name, value in new.items() if record.values.get(name) != value)
        if changed:
            before = self.is_deleted(record)
            record.values.update(new)
            record.form = None
            if "time_tracking_type" in changed:  # decides which fields time entries have
                for entry in self.rows("time_entries", record.id):
                    entry.form = None
            self._tell_change(record, changed, before=before)
        return changed

    def touch(self, record: Record, **values: Any) -> None:
        """Set fields that change by themselves (a running timer's minutes), without an entry in the journal."""
        record.values.update(values)
        record.form = None

    def remove(self, record: Record) -> None:
        """Remove a record and its children from their lists."""
        if record.gone:
            return
        for child in list(self.children(record)):
            self.remove(child)
        ids = self.lists[record.resource, record.scope]
        del ids[bisect_left(ids, record.id)]
        del self.tables[record.resource][record.id]
        record.gone = True
        self._tell(record, "deleted")

    def is_deleted(self, record: Record) -> bool:
        """Whether a record that is still listed is marked as deleted."""
        known = self.profile.resources.get(record.resource)
        return known is not None and known.deleted_status is not None and record["status"] == known.deleted_status

    def key(self, record: Record) -> int | tuple[Any, ...]:
        """The identity of a record in its list."""
        names = self.profile.resources[record.resource].id
        return record.id if names == ("id",) else tuple(record[name] for name in names)

    def _tell(self, record: Record, kind: ChangeKind, *, changed: tuple[str, ...] = (), soft: bool = False) -> None:
        known = self.profile.resources.get(record.resource)
        if known is None or (record.scope != GLOBAL and record.company not in self.visible):
            return
        parent = record.scope if known.parent else None
        self.journal.write(record.resource, self.key(record), kind, changed=changed, parent=parent, soft=soft)

    def _tell_change(self, record: Record, changed: tuple[str, ...], *, before: bool) -> None:
        after = self.is_deleted(record)
        if before == after:
            self._tell(record, "updated", changed=changed)
        else:
            self._tell(record, "deleted" if after else "created", changed=changed, soft=True)

    def _company(self, resource: str, values: Mapping[str, Any]) -> int:
        if resource == self.profile.companies:
            return int(values["id"])
        own = values.get(self.profile.company_field)
        if own is not None:
            return int(own)
        for name in _PARENTS:
            parent = self.get(f"{name}s", values.get(name))
            if parent is not None:
                return parent.company
        return self.visible[0] if self.visible else GLOBAL

    def _scope(self, known: Resource | None, company: int, values: Mapping[str, Any]) -> int:
        if known is None:
            return company
        if known.parent_field is not None:
            return int(values[known.parent_field])
        return company if known.tenant else GLOBAL


def _coerced(known: Resource | None, values: Mapping[str, Any]) -> dict[str, Any]:
    if known is None:
        return dict(values)
    unknown = values.keys() - known.fields.keys()
    if unknown:
        raise KeyError(f"{known.name} has no field {', '.join(sorted(unknown))}")
    return {name: _coerce(known.fields[name], value) for name, value in values.items()}


def _coerce(field: Field, value: Any) -> Any:
    """The exact decimal of a plain number, as tests and requests give it."""
    if value is None or field.kind != "decimal" or isinstance(value, Decimal):
        return value
    return Decimal(str(value))
