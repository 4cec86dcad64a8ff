"""Names of the Nutcache API: a table for each version, used by the source and by the sandbox.

Profile v3 is documented. Of profile v4 only the conventions are documented (versions, limits, errors, time text); its
paths and names are those of v3 with `organization` renamed to `company`. A wrong guess is corrected here, not in code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["int", "ref", "text", "bool", "decimal", "day", "timestamp", "local", "guid", "enum"]
EnumForm = Literal["int", "digit", "name"]

BASE_URL = "https://apps.nutcache.com/webapi"
LIMITS = ("5/s", "200/min", "20000/day")
DEFAULT_PAGE_SIZE = 10
MAX_PAGE_SIZE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One attribute of a resource: its documented name, how it is written, and the meaning of its values."""

    name: str
    kind: Kind
    wire: str  # the key as answers spell it; readers ignore its case
    members: Mapping[str, int] = field(default_factory=dict)  # for an enum: names to codes, the usual name first
    form: EnumForm = "int"  # how answers write an enum; readers accept all three
    refers: str | None = None  # for a reference: the type it points to, which may have no list of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One list of the API, in one profile."""

    name: str  # plural type name: the envelope's key and every record's `type`
    path: str  # relative to the base URL; `{parent}` stands for the parent's id
    fields: Mapping[str, Field]
    parent: str | None = None  # name of the resource that each such list belongs to
    parent_field: str | None = None  # the field that names the parent
    tenant: bool = True  # needs the company header
    has_items: bool = True  # GET of one record by its id
    id: tuple[str, ...] = ("id",)  # what identifies a record within its list
    includes: tuple[str, ...] = ()  # what `?includes=` accepts
    links: tuple[str, ...] = ()  # reference fields that a record links to
    self_link: bool = True
    volatile: tuple[str, ...] = ()  # changes without an edit, which cause no event
    deleted_status: int | None = None  # a `status` that says "deleted" while the record stays listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The conventions of one version of the API."""

    name: str
    api_version: str  # value of the request header `api-version`
    company_header: str
    companies: str  # resource (and path) of the companies that a key may see
    company_field: str  # field of a record that names its company
    resources: Mapping[str, Resource]
    zulu: bool  # timestamps end in Z, without a fraction
    scheme: str  # of the Authorization header
    token_path: str = "token"


_NAMES = "name_dede name_enus name_eses name_esus name_frca name_frfr name_itit name_plpl name_ptbr name_ruru"

_DATE_FORMAT = {f: i for i, f in enumerate(("yyyy-MM-dd", "MM-dd-yyyy", "MM/dd/yyyy", "dd-MM-yyyy", "dd/MM/yyyy"))}
_DATE_FORMAT["dd.MM.yyyy"] = 5
_ACTIVE = {"Active": 0, "Inactive": 1}
_MEMBERSHIP = {"Inactive": 0, "Active": 1}  # the opposite of every other status, according to the documentation

# Enums: names to codes. Names that no sample shows are the documented words, spelled like those in samples.
_ENUMS: Mapping[str, Mapping[str, int]] = {
    "organizations.status": {**_ACTIVE, "Expired": 2},
    "organizations.date_format": _DATE_FORMAT,
    "organizations.time_format": {"HH:mm": 0, "hh:mm tt": 1},
    "organizations.time_span_format": {"Decimal": 0, "HoursMinutes": 1},
    "organizations.time_rounding": {"None": 0, "Nearest": 1, "Up": 2},
    "organizations.time_tracking_type": {"Duration": 0, "StartEnd": 1},
    "customers.status": _ACTIVE,
    "projects.status": {"Planned": 0, "InProgress": 1, "Completed": 2, "Canceled": 3, "Archived": 4},
    "projects.project_type": {"Agile": 0, "Scrum": 1},
    "projects.budget_scope": {"Global": 0, "PerMember": 1, "PerService": 2},
    "projects.budget_type": {"WorkedHours": 0, "BillableHours": 1, "Costs": 2, "BillableAmounts": 3},
    "projects.billing_method": {
        "NotBillable": 0,
        "ServiceRate": 1,
        "TaskRate": 1,  # the name before 2018-10
        "MemberRate": 2,
        "FixedFee": 3,
        "ProjectHourlyRate": 4,
    },
    "project_members.status": _MEMBERSHIP,
    "project_services.status": _ACTIVE,
    "timers.status": {"Started": 0, "Stopped": 1, "SystemStopped": 2},
    "invoices.status": {
        "Draft": 0,
        "Sent": 1,
        "Viewed": 2,
        "PartiallyPaid": 3,
        "Paid": 4,
        "Disputed": 5,
        "Void": 6,
        "Deleted": 7,
    },
    "invoice_details.invoice_detail_type": {"Product": 0, "Task": 1},
    "expenses.status": {"ToPay": 0, "PartiallyPaid": 1, "Paid": 2, "Deleted": 3},
    "countries.date_format": _DATE_FORMAT,
    "countries.time_format": {"HH:mm": 0, "hh:mm tt": 1},
}

# Keys and values that samples spell differently from the tables.
_WIRE = {
    "projects.organization": "Organization",
    "projects.vision": "Vision",
    "projects.effectivebudgetamount": "EffectiveBudgetAmount",
    "projects.effectivebudgetminutes": "EffectiveBudgetMinutes",
}
_FORMS: Mapping[str, EnumForm] = {
    "projects.budget_scope": "digit",
    "projects.budget_type": "digit",
    "projects.billing_method": "name",
    "timers.status": "digit",
}

_REFERENCES = {
    "organization": "organizations",
    "customer": "customers",
    "project": "projects",
    "project_service": "project_services",
    "member": "members",
    "responsible": "members",
    "creation_userprofile": "members",
    "invoice": "invoices",
    "expense": "expenses",
    "country": "countries",
    "state": "states",
    "currency": "currencies",
    "item": "items",
    "tax": "taxes",
    "estimate": "estimates",
    "project_budget": "project_budget",
}


def _fields(resource: str, **kinds: str) -> dict[str, Field]:
    """Fields by kind, each a list of names separated by blanks."""
    table: dict[str, Field] = {}
    for kind, names in kinds.items():
        for name in names.split():
            key = f"{resource}.{name}"
            table[name] = Field(
                name=name,
                kind=kind,  # type: ignore[arg-type]
                wire=_WIRE.get(key, name),
                members=_ENUMS.get(key, {}),
                form=_FORMS.get(key, "int"),
                refers=_REFERENCES[name] if kind == "ref" else None,
            )
    return table


_RESOURCES = (
    Resource(
        name="organizations",
        path="organizations",
        tenant=False,
        fields=_fields(
            "organizations",
            int="id notification_count active_user_count time_rounding_minutes",
            guid="guid",
            text="name email address city zip_code phone website logo_url",
            ref="country state currency",
            timestamp="last_activity_date",
            bool="is_owner is_demo",
            enum="status date_format time_format time_span_format time_rounding time_tracking_type",
        ),
        includes=("countries", "states", "currencies"),
        links=("country",),
        volatile=("last_activity_date", "notification_count", "active_user_count"),
    ),
    Resource(
        name="customers",
        path="customers",
        fields=_fields(
            "customers",
            int="id",
            ref="organization country state tax currency",
            text="name email contact address city zip_code phone mobile_phone legal_notice communication_culture_code",
            enum="status",
        ),
        includes=("organizations", "countries", "currencies", "states", "taxes"),
        links=("organization", "country"),
    ),
    Resource(
        name="projects",
        path="projects",
        fields=_fields(
            "projects",
            int="id effectivebudgetminutes",
            ref="organization customer project_budget",
            text="code display_color description vision primary_contact_email primary_contact_name"
            " primary_contact_phone secondary_contact_email secondary_contact_name secondary_contact_phone",
            day="start_date end_date",
            enum="status project_type budget_scope budget_type billing_method",
            decimal="effectivebudgetamount billing_invoice_method_fixed_fee billing_invoice_method_hourly_rate",
            bool="budget_approved_only budget_restrictive billing_approved_entries_only",
        ),
        includes=("organizations", "customers", "project_services", "project_members"),
        links=("organization", "customer"),
    ),
    Resource(
        name="project_members",
        path="projects/{parent}/project_members",
        parent="projects",
        parent_field="project",
        has_items=False,
        fields=_fields(
            "project_members",
            int="id budget_minutes",
            text="name email display_color",
            enum="status",
            ref="project member",
            decimal="billing_rate budget_amount",
        ),
        includes=("members", "projects"),
        links=("project",),
        self_link=False,
    ),
    Resource(
        name="project_services",
        path="projects/{parent}/project_services",
        parent="projects",
        parent_field="project",
        has_items=False,
        fields=_fields(
            "project_services",
            int="id order budget_minutes",
            text="description notes",
            enum="status",
            ref="project item",
            decimal="billing_rate budget_amount",
        ),
        includes=("items", "projects"),
        links=("project",),
        self_link=False,
    ),
    Resource(
        name="time_entries",
        path="time_entries",
        fields=_fields(
            "time_entries",
            int="id billable_minutes minutes",
            timestamp="creation_date start_time end_time",
            ref="creation_userprofile project_service member project invoice",
            day="working_date",
            text="note",
        ),
        includes=("invoices", "members", "organizations", "projects", "project_services"),
        links=("project", "project_service", "member"),
    ),
    Resource(
        name="timers",
        path="timers",
        fields=_fields(
            "timers",
            int="id minutes",
            guid="guid",
            ref="member project project_service",
            local="time_start_local",
            timestamp="time_start_utc max_end_time_utc",
            enum="status",
            bool="email_reminder_sent",
        ),
        includes=("members", "projects", "project_services", "sprint_stories"),
        links=("project", "member"),
        volatile=("minutes",),
    ),
    Resource(
        name="invoices",
        path="invoices",
        fields=_fields(
            "invoices",
            int="id",
            text="invoice_number customer_name customer_address customer_city customer_contact customer_country"
            " customer_email customer_legal_notice customer_phone customer_phone_mobile customer_postal_zip_code"
            " customer_province_state custom_title description notes terms purchase_order",
            decimal="balance paid_to_date taxes_amount total total_amount_before_taxes",
            ref="organization customer estimate responsible",
            day="due_date invoice_date",
            enum="status",
        ),
        includes=("organizations", "customers", "members", "invoice_details", "invoice_taxes"),
        links=("organization", "customer"),
        deleted_status=7,
    ),
    Resource(
        name="invoice_details",
        path="invoices/{parent}/invoice_details",
        parent="invoices",
        parent_field="invoice",
        has_items=False,
        fields=_fields(
            "invoice_details",
            int="id",
            text="description",
            decimal="quantity price total_price",
            enum="invoice_detail_type",
            ref="project item tax invoice",
        ),
        includes=("invoices", "items", "projects"),
        links=("project", "invoice"),
        self_link=False,
    ),
    Resource(
        name="invoice_taxes",
        path="invoices/{parent}/invoice_taxes",
        parent="invoices",
        parent_field="invoice",
        has_items=False,
        id=("invoice", "sequence_number", "tax", "code"),  # it has no id of its own
        fields=_fields(
            "invoice_taxes",
            decimal="total rate",
            text="code identification",
            bool="compound",
            int="sequence_number",
            ref="invoice tax",
        ),
        includes=("invoices", "taxes"),
        links=("invoice",),
        self_link=False,
    ),
    Resource(
        name="expenses",
        path="expenses",
        fields=_fields(
            "expenses",
            int="id",
            text="expense_number description",
            day="expense_date due_date",
            ref="organization project member invoice",
            bool="billable",
            enum="status",
            decimal="amount_after_taxes amount_before_taxes amount_due amount_paid taxes_amount",
        ),
        includes=("organizations", "customers", "invoices", "expense_taxes"),
        links=("organization", "project"),
        deleted_status=3,
    ),
    Resource(
        name="expense_taxes",
        path="expenses/{parent}/expense_taxes",
        parent="expenses",
        parent_field="expense",
        has_items=False,
        fields=_fields("expense_taxes", ref="expense", int="id", decimal="tax_amount", text="tax_code"),
        includes=("expenses",),
        links=("expense",),
        self_link=False,
    ),
    Resource(
        name="countries",
        path="countries",
        tenant=False,
        fields=_fields(
            "countries", int="id", text=f"code short_code {_NAMES}", ref="currency", enum="date_format time_format"
        ),
        includes=("currencies",),
    ),
    Resource(
        name="states",
        path="states",
        tenant=False,
        fields=_fields("states", int="id", ref="country", text=f"code {_NAMES}"),
        includes=("countries",),
        links=("country",),
        self_link=False,
    ),
    Resource(
        name="currencies",
        path="currencies",
        tenant=False,
        fields=_fields("currencies", int="id decimal_count", text=f"code {_NAMES}"),
        self_link=False,
    ),
)

_COMPANY = {"organizations": "companies", "organization": "company", "Organization": "Company"}


def _in_company_words(resource: Resource) -> Resource:
    """The same resource with the names that v4 most likely uses."""

    def say(word: str) -> str:
        return _COMPANY.get(word, word)

    fields = {
        say(known.name): replace(
            known, name=say(known.name), wire=say(known.wire), refers=known.refers and say(known.refers)
        )
        for known in resource.fields.values()
    }
    return replace(
        resource,
        name=say(resource.name),
        path=say(resource.path),
        fields=fields,
        includes=tuple(map(say, resource.includes)),
        links=tuple(map(say, resource.links)),
    )


V3 = Profile(
    name="v3",
    api_version="3",
    company_header="OrganizationGuid",
    companies="organizations",
    company_field="organization",
    resources={resource.name: resource for resource in _RESOURCES},
    zulu=False,
    scheme="bearer",
)
V4 = Profile(
    name="v4",
    api_version="4",
    company_header="CompanyGuid",
    companies="companies",
    company_field="company",
    resources={resource.name: resource for resource in map(_in_company_words, _RESOURCES)},
    zulu=True,
    scheme="Bearer",
)
PROFILES: Mapping[str, Profile] = {"v4": V4, "v3": V3}
