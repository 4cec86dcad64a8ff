"""No change is lost and none is invented, whatever happens to the upstream, its answers and this process.

Each run is a model API that is watched by the real engine on a real state, in a time of its own (`tests.truth`).
`make prove-truth` tries thousands.
"""

import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.truth.draw import run_of
from tests.truth.run import prove
from tests.truth.world import Step, World


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("number", range(30))
def test_the_log_tells_what_happened_and_nothing_else(number):
    prove(*run_of(number))


FOUND = {
    "an object that was shown without its id while another one had it": (
        World(style="none", seed=993, traits=("twin",)),
        [Step(act="fault", kind="no-id"), Step(act="restart", wait=30.0)],
    ),
    "a suspect that a fresh answer shows after a restart, behind caches": (
        World(style="offset", size=3, objects=2, seed=569, traits=("cached",)),
        [
            Step(act="fault", kind="errors", times=2, wait=30.0),
            Step(act="delete"),
            Step(act="flap", wait=2.0),
            Step(act="restore", wait=4.0),
            Step(act="fault", pick=4, kind="500", times=3),
            Step(act="delete", pick=7, wait=10.0),
            Step(act="create"),
        ],
    ),
    "a copy in a cache that was made between a query and its answer, and is shown after a restart": (
        World(style="page-open", size=3, since=True, objects=6, seed=636),
        [
            Step(act="restart", wait=1.0),
            Step(act="begin", kind="cached", wait=30.0),
            Step(act="fault", kind="timeout", wait=30.0),
            Step(act="edit", wait=1.0),
        ],
    ),
    "a list that showed nothing, answers 304 for ever and whose own URLs know nothing": (
        World(style="keyset", has_items=True, since=True, objects=1, seed=973, traits=("etag-stuck", "own-404")),
        [Step(act="flap", times=2, wait=1.0)],
    ),
    "a page beyond a short one is not dropped before it was read": (
        World(style="offset", size=3, objects=5, seed=371, traits=("caps-size",)),
        [Step(act="create")],
    ),
    "a list that grows where its server shows fewer objects than were asked for": (
        World(objects=2, seed=829, traits=("caps-size",)),
        [Step(act="delete", wait=1.0), Step(act="restore", pick=3, wait=1.0), Step(act="swap")],
    ),
    "an API that knows neither the page nor its size may have more than it shows": (
        World(seed=560, traits=("caps-size",)),
        [Step(act="begin", kind="ignores-page", wait=30.0), Step(act="delete")],
    ),
    "the last page of a list that became shorter is known as that after a restart": (
        World(style="page-open", size=1, content=True, objects=2, seed=797),
        [
            Step(act="conflict", pick=7, wait=1.0),
            Step(act="create", pick=4),
            Step(act="fault", pick=4, kind="502", times=2, wait=0.3),
            Step(act="reorder", pick=1, wait=0.3),
            Step(act="crash", kind="after", wait=4.0),
            Step(act="flap", wait=0.3),
            Step(act="delete", wait=1.0),
            Step(wait=1.0),
            Step(act="create", pick=5, wait=10.0),
            Step(act="delete", wait=1.0),
            Step(act="delete", wait=0.3),
            Step(act="fault", pick=4, kind="403-wait", wait=4.0),
        ],
    ),
    "an id that names two objects in answers of one chain is set aside": (
        World(size=1, since=True, concurrency=1, seed=104),
        [
            Step(act="swap", wait=4.0),
            Step(act="flap", wait=2.0),
            Step(act="fault", kind="503", times=3),
            Step(act="begin", kind="twin", wait=4.0),
        ],
    ),
    "an id that names two objects is no object that is edited and edited back, whenever the process restarts": (
        World(style="link", size=3, noisy=True, objects=5, absent_for=30.0, seed=97),
        [
            Step(act="flap", times=3, wait=1.0),
            Step(act="conflict", pick=2, times=2, wait=10.0),
            Step(act="conflict", pick=1, times=3, wait=0.3),
            Step(act="swap", pick=1, wait=2.0),
            Step(act="crash", pick=2, kind="after", wait=1.0),
            Step(act="delete", pick=1, wait=30.0),
            Step(act="crash", kind="inside"),
            Step(act="conflict", pick=5, times=3, wait=1.0),
            Step(act="crash", pick=2, kind="after", wait=4.0),
            Step(wait=2.0),
            Step(act="end", kind="ignores-page", wait=4.0),
            Step(act="begin", kind="twin", wait=2.0),
            Step(act="create", pick=5, wait=4.0),
        ],
    ),
    "own URLs that are right only after both of their denials prove nothing": (
        World(style="keyset", has_items=True, seed=363, traits=("ignores-page", "own-404")),
        [
            Step(act="end", kind="etag-newest", wait=30.0),
            Step(act="flap"),
            Step(act="end", kind="counts-more", wait=10.0),
        ],
    ),
    "a list that repeats its last page is not as long as a count says because that page was seen twice": (
        World(style="page-open", seed=432, traits=("counts-more", "repeats-last")),
        [],
    ),
    "own URLs that were right deny what exists later on": (
        World(style="page-open", has_items=True, concurrency=4, objects=6, seed=770),
        [
            Step(act="restart", wait=30.0),
            Step(act="delete", pick=2),
            Step(act="end", kind="etag-newest", wait=30.0),
            Step(act="begin", kind="own-404"),
            Step(act="restore", wait=4.0),
        ],
    ),
    "an own URL is not believed where the list shows nothing and its sweeps are uncertain": (
        World(
            style="page-more",
            size=1,
            has_items=True,
            soft=True,
            concurrency=1,
            seed=237,
            traits=("ignores-page", "own-404"),
        ),
        [
            Step(act="crash", kind="inside", wait=2.0),
            Step(act="crash", kind="after"),
            Step(act="flap", times=3, wait=2.0),
            Step(act="reorder", wait=4.0),
            Step(act="soften", wait=10.0),
        ],
    ),
    "of two objects under one id, the one that can be read first is told where the other has no id yet": (
        World(style="cursor", baseline="emit", seed=620, traits=("twin",)),
        [Step(act="fault", kind="no-id", wait=4.0)],
    ),
    "the same after a baseline that could read neither": (
        World(style="page-open", lines=True, objects=1, seed=454, traits=("twin",)),
        [
            Step(act="fault", pick=7, kind="no-id", times=2),
            Step(act="fault", kind="renamed", where="lines", wait=30.0),
        ],
    ),
    "an own URL that answers 403 for an object that is listed does not show that own URLs are right": (
        World(has_items=True, past_end=404, objects=6, absent_for=5.0, seed=348, traits=("modified-stuck", "own-404")),
        [
            Step(act="end", kind="ignores-page", wait=4.0),
            Step(act="unlist"),
            Step(wait=1.0),
            Step(act="flap", times=4),
            Step(act="begin", kind="etag-newest", wait=10.0),
            Step(act="fault", pick=7, kind="403", where="item", wait=30.0),
        ],
    ),
    "an own URL that denies what exists does not say when an object was absent": (
        World(style="page-open", has_items=True, since=True, objects=1, absent_for=5.0, seed=926),
        [
            Step(act="conflict", wait=1.0),
            Step(act="begin", kind="own-404", wait=10.0),
            Step(act="conflict", wait=1.0),
            Step(act="crash", pick=5, kind="after", wait=1.0),
            Step(act="delete"),
            Step(act="unlist", wait=10.0),
            Step(act="begin", kind="ignores-page", wait=2.0),
            Step(act="restore", wait=1.0),
        ],
    ),
    "a deletion is told once its own URL has had the time to say so twice, however many sweeps that takes": (
        World(has_items=True, objects=1, absent_for=30.0, seed=828),
        [
            Step(act="restart", wait=4.0),
            Step(act="edit", wait=10.0),
            Step(act="edit", wait=10.0),
            Step(act="delete"),
        ],
    ),
    "a list that was removed while it was polled, and was unchanged, keeps no deletion from being told": (
        World(style="page-total", has_items=True, etags=True, lines=True, objects=5, seed=227, traits=("total-odd",)),
        [
            Step(act="reorder", wait=4.0),
            Step(act="unlist", wait=1.0),
            Step(act="delete", pick=4),
            Step(act="conflict", pick=4, wait=10.0),
            Step(act="delete", pick=1),
            Step(act="delete", pick=5),
        ],
    ),
    "what an object that was hidden for a moment has pushed off the last page may follow what seems to be appended": (
        World(style="link", size=1, order="id", soft=True, objects=6, absent_for=30.0, seed=771),
        [
            Step(act="create", wait=0.3),
            Step(act="soften", wait=2.0),
            Step(act="flap", times=2),
        ],
    ),
    "nor is an object appended that takes the place of the last one": (
        World(style="page-more", size=1, order="id", has_items=True, lines=True, concurrency=1, objects=6, seed=351),
        [
            Step(act="conflict", wait=0.3),
            Step(act="edit", wait=4.0),
            Step(act="flap"),
        ],
    ),
    "an id that was edited and moved, and is edited and moved back, waits for the other page": (
        World(style="link", since=True, objects=2, seed=31),
        [
            Step(act="conflict", wait=2.0),
            Step(act="edit"),
            Step(act="restore", wait=4.0),
            Step(act="conflict", wait=2.0),
            Step(act="crash", pick=2, kind="inside", wait=0.3),
            Step(act="reorder", wait=4.0),
            Step(act="fault", pick=2, kind="429-date", times=2, wait=2.0),
            Step(act="edit", wait=2.0),
            Step(act="fault", pick=1, kind="no-id", wait=4.0),
            Step(act="create", pick=5, wait=4.0),
            Step(act="begin", kind="twin", wait=4.0),
        ],
    ),
    "what a liar hides, and denies under its own URL, counts as deleted": (
        World(style="cursor", has_items=True, since=True, objects=1, seed=541, traits=("etag-stuck",)),
        [
            Step(act="begin", kind="short-pages", wait=2.0),
            Step(act="unlist", wait=1.0),
            Step(act="relist", wait=2.0),
            Step(act="delete", wait=30.0),
            Step(act="edit", wait=1.0),
            Step(act="flap", wait=4.0),
            Step(act="begin", kind="own-404"),
            Step(act="create"),
            Step(act="flap", wait=2.0),
            Step(act="conflict", wait=10.0),
            Step(act="end", kind="more-at-end", wait=2.0),
        ],
    ),
    "two objects under one id are reported as one edit at most": (
        World(style="page-open", seed=925),
        [Step(act="crash", pick=7, kind="after", wait=30.0), Step(act="begin", kind="twin")],
    ),
    "an own URL that says 404 deletes nothing before the list was looked through, where it is the first to be asked": (
        World(style="page-open", size=1, order="newest", has_items=True, soft=True, objects=0, seed=337),
        [
            Step(act="reorder", wait=10.0),
            Step(act="begin", kind="own-404"),
            Step(act="create"),
            Step(act="create", wait=10.0),
            Step(act="soften", pick=1),
            Step(act="fault", pick=6, kind="202", wait=30.0),
        ],
    ),
    "a page that repeats the one before and says that there is more may hide others": (
        World(objects=6, seed=792, traits=("repeats-last",)),
        [Step(act="begin", kind="more-at-end")],
    ),
    "an answer of a chain that shows the objects of the one before is not its end": (
        World(style="cursor", size=1, objects=4, seed=974),
        [Step(act="begin", kind="tied"), Step(act="create", wait=30.0)],
    ),
    "what a list shows whose parent has left its own list may be deleted at any time": (
        World(style="page-total", has_items=True, lines=True, seed=424),
        [Step(act="reorder", wait=1.0), Step(act="unlist")],
    ),
    "what an object is like that no list shows any more is known whenever its own URL is asked": (
        World(style="page-total", size=1, has_items=True, since=True, soft=True, concurrency=4, seed=999),
        [
            Step(act="end", kind="more-at-end", wait=30.0),
            Step(act="unlist", pick=1, wait=2.0),
            Step(act="reorder", pick=1),
            Step(act="restart", wait=4.0),
            Step(act="begin", kind="total-shrinks", wait=10.0),
            Step(act="soften", pick=6, wait=2.0),
        ],
    ),
    "how long an object has been missing is counted from a sweep that is certain": (
        World(style="cursor", size=1, objects=2, absent_for=5.0, seed=519),
        [
            Step(act="flap", times=4),
            Step(act="swap"),
            Step(act="swap", wait=2.0),
            Step(act="begin", kind="tied", wait=4.0),
            Step(act="flap", times=4, wait=1.0),
        ],
    ),
    "a list that could not be read before the baseline ended is silent when it is read first": (
        World(style="offset", size=1, since=True, lines=True, line_size=1, objects=4, seed=178),
        [
            Step(act="fault", pick=2, kind="renamed", where="lines", wait=4.0),
            Step(act="delete", pick=7),
            Step(act="begin", kind="etag-stuck", wait=4.0),
            Step(act="edit-line", pick=3, wait=1.0),
            Step(act="crash", pick=7, kind="after", wait=30.0),
            Step(act="restore", pick=5, wait=2.0),
        ],
    ),
    "an object that a chain shows twice makes its sweep uncertain, whatever ignored field differs": (
        World(style="cursor", noisy=True, objects=6, seed=466, traits=("tied",)),
        [Step(act="conflict", wait=30.0)],
    ),
    "own URLs are tried again also where pages are answered with 304": (
        World(style="page-open", has_items=True, etags=True, concurrency=1, objects=6, seed=325, traits=("own-404",)),
        [Step(act="delete", wait=2.0), Step(act="conflict", wait=1.0), Step(act="restore")],
    ),
    "pages that show only what other pages show end the list, though an object of theirs is held aside": (
        World(style="offset", line_size=2, concurrency=1, seed=586),
        [
            Step(act="begin", kind="lines-ignore-page", wait=2.0),
            Step(act="begin", kind="ignores-page"),
            Step(act="edit"),
        ],
    ),
    "so they do whatever the flag says that names a next page": (
        World(
            style="page-more",
            soft=True,
            baseline="emit",
            past_end=416,
            concurrency=1,
            objects=5,
            absent_for=5.0,
            seed=614,
            traits=("ignores-page",),
        ),
        [
            Step(act="swap", pick=1, wait=1.0),
            Step(act="conflict", pick=7, wait=2.0),
            Step(wait=30.0),
            Step(act="soften", pick=6, wait=1.0),
            Step(act="harden", pick=1, wait=1.0),
            Step(act="crash", kind="before", wait=1.0),
        ],
    ),
    "what a baseline only has not shown was not certainly absent": (
        World(style="link", size=1, has_items=True, concurrency=4, objects=6, seed=202, traits=("tied",)),
        [
            Step(wait=4.0),
            Step(act="flap", pick=5, times=4, wait=2.0),
            Step(act="crash", pick=5, kind="inside", wait=30.0),
        ],
    ),
    "own URLs are tried again also where the list shows nothing any more": (
        World(style="offset-total", has_items=True, objects=2, seed=972, traits=("own-404",)),
        [Step(act="conflict", wait=4.0), Step(act="delete", wait=10.0), Step(act="unlist")],
    ),
    "a list of which the only object is unlisted is empty": (
        World(style="page-open", has_items=True, lines=True, objects=2, seed=808),
        [
            Step(act="unlist"),
            Step(act="delete", pick=5),
            Step(act="create"),
            Step(act="begin", kind="ignores-page", wait=4.0),
            Step(act="delete"),
        ],
    ),
    "equal content in two answers of a chain makes its sweep uncertain, whatever ignored field differs": (
        World(style="cursor", size=1, content=True, noisy=True, baseline="emit", seed=951, traits=("tied",)),
        [Step(act="conflict", wait=30.0)],
    ),
    "deletions are confirmed in a list whose last page is repeated": (
        World(objects=6, seed=792, traits=("repeats-last",)),
        [Step(wait=30.0), Step(act="delete"), Step(act="delete", wait=60.0)],
    ),
    "an answer of a chain that shows another object under the id of the one before is no repetition": (
        World(style="cursor", size=1, seed=921),
        [Step(act="reorder", pick=4), Step(act="begin", kind="twin")],
    ),
    "a clash of ids is remembered while one of the two objects is hidden": (
        World(
            style="link",
            baseline="emit",
            lines=True,
            own_numbers=True,
            concurrency=3,
            objects=5,
            absent_for=30.0,
            seed=46,
            traits=("twin",),
        ),
        [
            Step(act="flap", pick=2, times=3, wait=10.0),
            Step(act="flap", pick=7, times=3, wait=10.0),
            Step(act="flap", pick=5, wait=1.0),
        ],
    ),
    "pages that repeat an object of which `deleted_when` is true end the list": (
        World(
            style="page-more",
            size=1,
            order="newest",
            has_items=True,
            since=True,
            soft=True,
            concurrency=4,
            seed=841,
            traits=("repeats-last",),
        ),
        [
            Step(act="soften", pick=4, wait=30.0),
            Step(act="begin", kind="repeats-last"),
            Step(act="begin", kind="ignores-page"),
            Step(act="relist", pick=4, wait=30.0),
        ],
    ),
    "what was decided and not recorded has changed nothing: decided once more, it is news": (
        World(
            style="page-more",
            size=1,
            has_items=True,
            since=True,
            noisy=True,
            baseline="emit",
            concurrency=4,
            absent_for=30.0,
            seed=399,
            traits=("own-404", "repeats-last"),
        ),
        [
            Step(act="create", pick=7, wait=0.3),
            Step(act="crash", pick=6, kind="inside", wait=2.0),
            Step(act="edit", pick=4),
            Step(act="conflict", pick=3, wait=10.0),
        ],
    ),
    "answers of a chain that show the same content again end it, whatever ignored field differs": (
        World(
            style="keyset", content=True, noisy=True, concurrency=3, absent_for=30.0, seed=840, traits=("ignores-page",)
        ),
        [],
    ),
    "what a baseline takes as deleted without a word takes its lists with it": (
        World(
            style="offset-total",
            noisy=True,
            etags=True,
            lines=True,
            line_size=2,
            own_numbers=True,
            past_end=422,
            concurrency=1,
            objects=6,
            absent_for=5.0,
            seed=953,
            traits=("more-at-end", "total-high"),
        ),
        [Step(act="create", pick=5, wait=4.0), Step(act="delete", pick=3, wait=4.0)],
    ),
    "a cursor that the API does not know makes a list that may be short, and no list that is ok": (
        World(style="cursor", size=1, concurrency=1, objects=2, traits=("ignores-page",)),
        [],
    ),
    "pages that repeat the first one end the list, whatever ignored field differs": (
        World(size=1, noisy=True, concurrency=1, objects=1, seed=345, traits=("ignores-page",)),
        [],
    ),
    "what a baseline has reported as created is reported as deleted, though the baseline lasts": (
        World(
            size=3,
            has_items=True,
            baseline="emit",
            past_end=404,
            objects=4,
            seed=704,
            traits=("etag-stuck", "more-at-end"),
        ),
        [
            Step(act="begin", kind="etag-stuck", wait=1.0),
            Step(act="crash", pick=6, kind="after", wait=1.0),
            Step(act="flap", pick=1, times=2, wait=2.0),
        ],
    ),
    "what a baseline has reported as created is reported as updated, though the baseline lasts": (
        World(style="offset-total", baseline="emit", seed=416, traits=("more-at-end",)),
        [Step(act="crash", kind="before", wait=30.0), Step(act="edit")],
    ),
    "a page that repeated another one is read again once the other has changed": (
        World(
            style="offset",
            size=1,
            has_items=True,
            baseline="emit",
            lines=True,
            past_end=416,
            concurrency=1,
            objects=6,
            absent_for=5.0,
            seed=300,
            traits=("more-at-end", "tied"),
        ),
        [Step(act="crash", pick=3, kind="inside", wait=4.0)],
    ),
    "nothing was certainly absent from a list whose latest sweep was uncertain": (
        World(style="keyset", order="id", seed=536),
        [Step(act="begin", kind="ignores-page", wait=30.0), Step(act="fault", kind="no-id", wait=1.0)],
    ),
    "an offset that lies amid a page that was shorter once is no page any more": (
        World(style="offset-total", seed=6, traits=("modified-stuck", "short-pages")),
        [Step(act="create")],
    ),
    "an empty page under a status of `empty_status` confirms deletions when it is shown again": (
        World(style="page-open", content=True, past_end=404, seed=844),
        [Step(act="fault", kind="429", wait=30.0), Step(act="edit")],
    ),
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
    "what moves to a page that was not the last one may have been there while the last one was read": (
        World(style="page-more", order="id", lines=True, objects=6, seed=175),
        [
            Step(act="edit", wait=0.3),
            Step(act="delete", wait=2.0),
            Step(act="delete"),
            Step(act="delete", pick=7, wait=1.0),
            Step(act="wait", wait=2.0),
        ],
    ),
    "an own URL of a listed object that answers without it is asked again": (
        World(style="cursor", has_items=True, seed=740),
        [
            Step(act="fault", pick=1, kind="403", where="item", wait=1.0),
            Step(act="begin", kind="own-404"),
            Step(act="unlist", wait=4.0),
        ],
    ),
    "a list that says that it is incomplete does not show that an object was absent": (
        World(style="page-open", size=1, lines=True, concurrency=4, objects=4, seed=627, traits=("tied",)),
        [Step(act="fault", pick=5, kind="part", where="lines"), Step(act="crash", kind="after", wait=30.0)],
    ),
    "an empty answer just before an object is hidden makes it look away for longer": (
        World(
            style="page-open", past_end=404, concurrency=1, objects=2, absent_for=5.0, seed=287, traits=("counts-more",)
        ),
        [
            Step(act="swap", wait=1.0),
            Step(act="fault", kind="empty"),
            Step(act="fault", kind="403", wait=2.0),
            Step(act="flap", times=4),
        ],
    ),
    "sweeps that share copies of caches are one, however many": (
        World(style="page-open", size=3, objects=5, absent_for=5.0, seed=759, traits=("cached",)),
        [
            Step(act="conflict", wait=30.0),
            Step(act="flap", wait=10.0),
            Step(act="flap", times=4),
            Step(act="create", pick=4, wait=10.0),
            Step(act="fault", kind="401", wait=2.0),
            Step(act="delete"),
        ],
    ),
    "a list whose parameter is ignored ends also while its first page fails and an edit is undecided": (
        World(style="offset-total", baseline="emit", concurrency=1, seed=311, traits=("ignores-page",)),
        [Step(act="fault", pick=2, kind="503", wait=2.0), Step(act="edit")],
    ),
    "a first sweep that was complete is so after a crash": (
        World(style="keyset", order="id", concurrency=1, objects=5),
        [Step(act="crash", pick=4, kind="before", wait=0.3), Step(act="edit")],
    ),
}


@pytest.mark.parametrize("run", FOUND.values(), ids=FOUND.keys())
def test_what_was_once_untrue_stays_true(run):
    prove(*run)
