"""Who may import whom, read from the source: the arrows of docs/architecture.md."""

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import poller

ROOT = Path(__file__).parent.parent
PACKAGES = ("poller", "plugins", "state")
NOUNS = {
    "state",
    "state.records",
    "state.errors",
    "state.place",
    "state.members",
    "state.move",
    "state.polls",
    "state.deliveries",
    "state.leases",
    "state.commands",
    "state.notices",
    "state.operational",
    "state.status",
    "state.tables",
    "state.rows",
    "state.steps",
    "state.store",
}  # of the state: what is kept, no I/O
PURE = [
    "polling.results",
    "simulation.bounds",
    "delivery.batches",
    "delivery.breaker",
    "delivery.claims",
    "delivery.notices",
    "delivery.settlement",
    "delivery.subscription_health",
    "budget.budget",
    "budget.counted_calls",
    "budget.limits",
    "budget.remaining",
    "budget.throttle",
    "budget.windows",
    "events.cloudevents",
    "changes.comparison",
    "changes.decide",
    "changes.decision",
    "changes.endpoint_rules",
    "changes.exemptions",
    "changes.page",
    "changes.quarantine",
    "changes.recording",
    "changes.many_missing",
    "polling.sweep",
    "polling.unit_keys",
    "documents.diff",
    "operations.doctor",
    "events.events",
    "planner.explanation",
    "sources.paths",
    "events.filters",
    "changes.guards",
    "polling.episodes",
    "polling.health",
    "polling.stall",
    "polling.notices",
    "planner.learning",
    "planner.memory",
    "planner.models",
    "planner.pacing",
    "planner.ranking",
    "planner.rates",
    "sources.pagination",
    "planner.report",
    "planner.planner",
    "planner.feasibility",
    "options.quantities",
    "delivery.retry",
    "budget.headers",
    "simulation.simulator",
    "polling.on_demand",
    "planner.units",
    "simulation.worlds",
]
INPUT_OUTPUT = {"asyncio", "http", "os", "select", "selectors", "signal", "socket", "sqlite3", "ssl", "subprocess"}
INPUT_OUTPUT |= {"threading", "urllib.request", "shutil", "tempfile"}
FRAMEWORKS = {"aiohttp", "apprise", "apscheduler", "click", "fastapi", "rich", "slack_sdk", "sqlite_utils", "starlette"}
FRAMEWORKS |= {"structlog", "uvicorn", "aiosmtplib", "prometheus_client"}
LAYERS: tuple[tuple[str, ...], ...] = (  # docs/architecture.md; each may import what is below it, never a neighbour
    ("poller.__main__",),
    ("poller.cli",),
    ("poller.daemon",),
    ("poller.web",),
    ("poller.operations", "poller.testing"),
    ("poller.app",),
    ("poller.polling", "poller.delivery"),  # they meet in the log only
    ("poller.config",),
    ("poller.hooks", "poller.changes", "poller.simulation"),
    ("poller.sources", "poller.planner"),
    ("poller.events", "poller.options"),
    ("poller.documents", "poller.rendering", "poller.sinks", "poller.budget"),
    (
        "poller.clock",
        "poller.garbage",
        "poller.http_dates",
        "poller.late",
        "poller.lean",
        "poller.redaction",
        "poller.tracing",
    ),
)
EDGES = ("poller.cli", "poller.__main__", "poller.daemon", "poller.web")


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


def imports_of(path: Path, *, late: bool = True) -> Iterator[str]:
    """Every module that is imported, also inside functions; names imported from one count as modules, too."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if late else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


FILES = dict(modules())
IMPORTS = {name: set(imports_of(path)) - {name} for name, path in FILES.items()}
OURS = {name: found & FILES.keys() for name, found in IMPORTS.items()}


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def arrows(inside: str, *to: str) -> list[str]:
    """The imports of modules in a room of modules in others."""
    return [
        f"{name} -> {other}"
        for name, found in IMPORTS.items()
        if within(name, inside)
        for other in sorted(found)
        if within(other, *to)
    ]


def test_the_state_knows_neither_the_engine_nor_plugins():
    assert arrows("state", "poller", "plugins") == []


def test_the_engine_knows_no_plugin():
    assert arrows("poller", "plugins") == []


def test_plugins_never_touch_the_state():
    assert arrows("plugins", "state") == []


def test_a_plugin_knows_no_sibling():
    rooms = {name.split(".")[1] for name in FILES if name.startswith("plugins.")}
    siblings = [
        arrow
        for room in rooms
        for arrow in arrows(f"plugins.{room}", *(f"plugins.{other}" for other in rooms - {room}))
    ]
    assert siblings == []


def test_plugins_import_only_what_is_public():
    """What `poller` exports, and modules that docs/writing-plugins.md names."""
    documented = (ROOT / "docs" / "writing-plugins.md").read_text()
    used = {
        other
        for name, found in IMPORTS.items()
        if within(name, "plugins")
        for other in found & FILES.keys()
        if within(other, "poller") and other != "poller"
    }
    assert sorted(module for module in used if f"`{module}`" not in documented) == []


def layer_of(name: str) -> tuple[int, str] | None:
    """The number of a module's layer, from the top, and its package in it."""
    for number, packages in enumerate(LAYERS):
        for package in packages:
            if within(name, package):
                return number, package
    return None


def test_every_module_of_the_engine_has_a_layer():
    assert [name for name in FILES if within(name, "poller") and name != "poller" and layer_of(name) is None] == []


def test_arrows_point_down_the_layers_and_never_to_a_neighbour():
    up = []
    for name, found in OURS.items():
        here = layer_of(name)
        for other in found if here is not None else ():
            there = layer_of(other)
            if here is not None and there is not None and here[1] != there[1] and there[0] <= here[0]:
                up.append(f"{name} -> {other}")
    assert sorted(up) == []


def test_only_those_who_open_a_state_know_how():
    openers = ("poller.app", "poller.operations", "poller.cli", "poller.web.context", "poller.testing")
    found = [name for name, other in OURS.items() if "state.open" in other and not within(name, "state", *openers)]
    assert found == []


def test_nothing_imports_in_a_circle():
    try:
        order = list(TopologicalSorter(OURS).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
    assert set(order) == set(FILES)


def test_the_edges_are_imported_by_nobody_but_each_other():
    inner = [name for name in FILES if within(name, "poller", "state") and not within(name, *EDGES)]
    assert [f"{name} -> {other}" for name in inner for other in IMPORTS[name] if within(other, *EDGES)] == []


def test_who_imports_poller_gets_neither_daemon_nor_command_line_nor_loader():
    reached, waiting = set(), ["poller"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += {other for other in imports_of(FILES[name], late=False) if other in FILES}
    assert [name for name in sorted(reached) if within(name, "poller.hooks.loading", "poller.app", *EDGES)] == []


@pytest.mark.parametrize("name", PURE)
def test_what_is_pure_does_no_input_or_output_and_knows_no_framework(name: str) -> None:
    found = IMPORTS[f"poller.{name}"]

    assert [other for other in sorted(found) if within(other, *INPUT_OUTPUT, *FRAMEWORKS)] == []


@pytest.mark.parametrize("name", PURE)
def test_what_is_pure_reads_no_clock(name: str) -> None:
    calls = {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(FILES[f"poller.{name}"].read_text()))
        if isinstance(node, ast.Call)
    }
    assert not calls & {"time.time", "time.monotonic", "datetime.now", "datetime.utcnow", "date.today"}


@pytest.mark.parametrize("name", PURE)
def test_what_is_pure_knows_of_the_state_only_its_nouns(name: str) -> None:
    assert {other for other in OURS[f"poller.{name}"] if within(other, "state")} <= NOUNS


def test_nouns_import_nothing_but_nouns():
    assert {name: OURS[name] - NOUNS for name in NOUNS if OURS[name] - NOUNS} == {}


def test_only_one_module_knows_which_stores_there_are():
    stores = ("state.sqlite", "state.postgres")
    knowing = {name for name, found in IMPORTS.items() if any(within(other, *stores) for other in found)}
    assert {name for name in knowing if not within(name, *stores)} == {"state.open"}


def test_stores_do_not_know_each_other():
    assert arrows("state.sqlite", "state.postgres") + arrows("state.postgres", "state.sqlite") == []


STEPS = {"steps", "_steps", "write", "_write"}  # what runs steps goes by these names
STORE_METHODS = {
    node.name
    for name, path in FILES.items()
    if within(name, "state.sqlite", "state.store")
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
}


def steps_of(tree: ast.AST) -> Iterator[ast.expr]:
    """The first argument of every call of what runs steps: `steps(...)`, `app.write(...)`, `steps.unhurried(...)`."""
    awaited = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Await)}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and node.args):
            continue
        called = node.func
        if isinstance(called, ast.Attribute) and called.attr == "unhurried":
            called = called.value
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
        if name in STEPS and (id(node) in awaited or ast.unparse(called) == "self._steps"):
            yield node.args[0]


def test_a_step_is_a_bound_method_of_a_store_and_nothing_else():
    """No code of ours or of a plugin runs under the lock of the store."""
    found = [
        (name, step)
        for name, path in FILES.items()
        if within(name, "poller")
        for step in steps_of(ast.parse(path.read_text()))
    ]
    assert len(found) > 30
    assert [
        f"{name}: {ast.unparse(step)}"
        for name, step in found
        if not (isinstance(step, ast.Attribute) and step.attr in STORE_METHODS)
    ] == []


# Larger classes, each with its reason; docs/architecture.md says the same of the records.
EXCUSED = {
    "state.polls.EndpointState": "one row of endpoints, read and compared as a whole",
    "state.polls.UnitState": "one row of units",
    "state.deliveries.Delivery": "one row of deliveries, as it is shown",
    "poller.sources.protocol.Endpoint": "what plugin authors write, as keyword arguments",
    "plugins.rest.EndpointTable": "the keys of [sources.X.endpoints.Y]",
    "plugins.nutcache.profiles.Resource": "one row of the table of lists that the API documents",
    "plugins.nutcache.sandbox.variants.Variants": "one switch for each answer that the documentation leaves open",
    "poller.operations.status.EndpointStatus": "one line of `poller status --json`, whose keys are a promise",
    "poller.operations.status.SubscriptionStatus": "one line of `poller status --json`, whose keys are a promise",
}


def size_of(node: ast.ClassDef) -> tuple[int, int]:
    """How many methods and fields a class has."""
    methods = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    fields = {f"self.{ast.unparse(one.target)}" for one in node.body if isinstance(one, ast.AnnAssign)}
    for one in (inner for method in methods for inner in ast.walk(method)):
        targets = one.targets if isinstance(one, ast.Assign) else [one.target] if isinstance(one, ast.AnnAssign) else []
        fields |= {text for target in targets if re.fullmatch(r"self\.\w+", text := ast.unparse(target))}
    return len(methods), len(fields)


def test_classes_have_at_most_15_methods_and_12_fields() -> None:
    large = {
        f"{name}.{node.name}"
        for name, path in FILES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        for methods, fields in [size_of(node)]
        if methods > 15 or fields > 12
    }
    assert large - EXCUSED.keys() == set()
    assert EXCUSED.keys() == large & EXCUSED.keys()  # an exception that nothing needs goes


def test_functions_of_configuration_polling_changes_state_and_plugins_have_at_most_40_lines() -> None:
    long = [
        f"{name}.{node.name}"
        for name, path in FILES.items()
        if within(name, "poller.config", "poller.polling", "poller.changes", "state", "plugins")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.end_lineno is not None and node.end_lineno - node.lineno >= 40
    ]
    assert long == []


def test_only_the_state_knows_sql():
    elsewhere = [
        name
        for name, found in IMPORTS.items()
        if not within(name, "state.sqlite") and any(within(other, "sqlite_utils", "sqlite3") for other in found)
    ]
    assert arrows("poller", "psycopg") + arrows("state.sqlite", "psycopg") == []
    assert elsewhere == ["poller.cli.failures", "poller.web.context"]  # they tell SQLite's errors


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("apscheduler", ("poller.app", "poller.config.models")),
        ("click", ("poller.cli", "poller.hooks.hookspecs", "plugins.nutcache")),
        ("rich", ("poller.cli", "poller.rendering.lines", "plugins.console")),
        ("fastapi", ("poller.web",)),
        ("uvicorn", ("poller.web", "plugins.nutcache.sandbox.server")),
        (
            "numpy",
            (
                "poller.planner",
                "poller.simulation.bounds",
                "poller.simulation.worlds",
                "poller.simulation.simulator",
                "poller.simulation.scenarios",
                "poller.cli",
            ),
        ),
        ("prometheus_client", ("poller.web.metrics",)),
    ],
)
def test_a_library_shows_up_in_few_rooms(library: str, rooms: tuple[str, ...]) -> None:
    found = [name for name, imported in IMPORTS.items() if any(within(other, library) for other in imported)]

    assert [name for name in found if not within(name, *rooms)] == []


def test_late_imports_are_for_what_is_optional_or_dear() -> None:
    """A late import hides an arrow: there is one for each reason, and no more."""
    late = {
        f"{name} -> {other}"
        for name, path in FILES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
        if isinstance(inner, ast.ImportFrom | ast.Import)
        for other in [inner.module if isinstance(inner, ast.ImportFrom) else inner.names[0].name]
    }
    dear = {"poller.cli -> poller.hooks.loading", "poller.events.filters -> cel"}
    dear |= {"poller.cli.output -> rich.console", "poller.cli.output -> rich.table", "poller.cli.output -> rich.text"}
    dear |= {"poller.cli.sweep -> rich.console", "poller.cli.sweep -> rich.progress"}
    dear |= {"state.sqlite.migrations -> sqlite_utils"}
    dear |= {f"poller.web.server -> poller.web{what}" for what in (".access", ".api", ".listener")}
    dear |= {"state.open -> state.sqlite.writer", "state.open -> state.sqlite.move"}
    optional = {"poller.cli.simulation -> matplotlib.figure"}
    optional |= {"state.open -> state.postgres.store", "state.open -> state.postgres.writer"}
    optional |= {"state.open -> state.postgres.move"}
    assert late <= dear | optional


def test_every_public_name_is_there() -> None:
    assert [name for name in poller.__all__ if not hasattr(poller, name)] == []
    assert sys.modules["poller"].__doc__ == "Public names for plugin authors."


def longest_chain(inside: str) -> list[str]:
    """The longest chain of imports between modules of one package."""
    inner = {name: {one for one in OURS[name] if within(one, inside) and one != inside} for name in FILES}
    longest: dict[str, list[str]] = {}
    for name in TopologicalSorter(inner).static_order():
        longest[name] = [name, *max((longest[one] for one in inner[name]), key=len, default=[])]
    return max((chain for name, chain in longest.items() if within(name, inside) and name != inside), key=len)


MOST_LINKS = 15  # of the longest chain of imports, from a command down to a record
MOST_LINKS_OF_POLLING = 10


def longest_chain_from(top: str | None = None) -> list[str]:
    """The longest chain of imports that begins with a module, or with any."""
    needed = {name: {*run_time_imports(path)} & FILES.keys() - {name} for name, path in FILES.items()}
    longest: dict[str, list[str]] = {}
    for name in TopologicalSorter(needed).static_order():
        longest[name] = [name, *max((longest[one] for one in sorted(needed[name])), key=len, default=[])]
    return longest[top] if top is not None else max(longest.values(), key=len)


def run_time_imports(path: Path) -> Iterator[str]:
    """What a module imports when it runs, in functions too: the module that is named where a name is one."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (one if one in FILES else node.module or "" for one in named)
        else:
            waiting += ast.iter_child_nodes(node)


@pytest.mark.parametrize(("top", "most"), [(None, MOST_LINKS), ("poller.polling.engine", MOST_LINKS_OF_POLLING)])
def test_no_chain_of_imports_is_long(top: str | None, most: int) -> None:
    chain = longest_chain_from(top)

    assert len(chain) <= most, f"{len(chain)} files: {' > '.join(chain)}"


def test_chains_of_imports_within_web_have_at_most_four_links() -> None:
    assert len(longest_chain("poller.web")) <= 5, longest_chain("poller.web")


def test_functions_of_web_have_at_most_40_lines() -> None:
    long = [
        f"{name}.{node.name}"
        for name, path in FILES.items()
        if within(name, "poller.web")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.end_lineno is not None and node.end_lineno - node.lineno >= 40
    ]
    assert long == []
