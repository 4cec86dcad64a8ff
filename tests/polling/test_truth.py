"""No change is lost and none is invented, whatever happens to the upstream, its answers and this process.

Each run is a model API that is watched by the real engine on a real state, in a time of its own (`tests.truth`).
`make prove` tries thousands.
"""

import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, given, settings

from tests.truth.run import prove
from tests.truth.world import Step, World, runs


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(runs())
def test_the_log_tells_what_happened_and_nothing_else(run):
    prove(*run)


FOUND = {
    "an own URL that answers says nothing of what the object is like": (
        World(size=1, order="newest", has_items=True, concurrency=1, objects=2, seed=8),
        [
            Step(act="fault", pick=1, kind="500"),
            Step(act="create", wait=10.0),
            Step(act="edit", pick=2),
        ],
    ),
    "objects that cannot be used may be any object: they were not certainly absent": (
        World(size=3, has_items=True, concurrency=1, objects=1),
        [Step(act="fault", kind="no-id", times=3), Step(act="create", wait=4.0)],
    ),
    "a list that shifts while its chain is read repeats an object, and that is no second one": (
        World(style="cursor", size=1, content=True, concurrency=1, objects=2),
        [Step(act="create", wait=0.3), Step(act="create", wait=0.3)],
    ),
    "an empty page behind the end of a list does not tell what is on the pages before it": (
        World(size=2, order="id", baseline="emit", since=True, soft=True, seed=77, objects=2),
        [
            Step(act="crash", pick=4, kind="after", wait=1.0),
            Step(act="delete", pick=6),
            Step(act="delete", pick=5),
        ],
    ),
    "what a source held back is polled again at once after a restart": (
        World(size=1, has_items=True, concurrency=1, objects=0),
        [Step(act="fault", pick=1, kind="401"), Step(act="create", wait=2.0)],
    ),
    "refused credentials are tried again at once after a reload": (
        World(size=1, concurrency=1, objects=0),
        [Step(act="fault", kind="401", wait=0.3)],
    ),
    "a first sweep that was complete is so after a crash": (
        World(style="keyset", order="id", concurrency=1, objects=5),
        [Step(act="crash", pick=4, kind="before", wait=0.3), Step(act="edit")],
    ),
}


@pytest.mark.parametrize("run", FOUND.values(), ids=FOUND.keys())
def test_what_was_once_untrue_stays_true(run):
    prove(*run)
