"""The pages of the dashboard in Debian's Chromium: accessible, no wider than the screen, and updated in place.

Needs playwright (`pip install playwright`), Chromium (`apt install chromium`) and npm, which brings axe-core. Writes
the screenshots of docs/images/; with a folder as its argument, those of every page into it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from tests.proofs.pages.scene import Scene, open_scene

IMAGES = Path(__file__).parents[3] / "docs" / "images"
AXE = "axe-core@4"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
PICTURES = ("overview", "overview-dark", "overview-phone", "endpoint", "event", "delivery", "budgets", "plan")
DESKTOP, PHONE = (1280, 900), (390, 844)
WIDTHS = {"desktop": DESKTOP, "phone": PHONE}
PATIENCE = 30_000.0  # milliseconds


class Proof:
    """What was found wrong."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def expect(self, claim: str, is_so: object) -> None:
        """Note and print whether a claim holds."""
        print(f"{'ok   ' if is_so else 'WRONG'} {claim}", flush=True)
        if not is_so:
            self.wrong.append(claim)


def main() -> int:
    """Exit status 0 when everything holds."""
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None or shutil.which("npm") is None:
        print("needs Chromium and npm: apt install chromium npm", file=sys.stderr)
        return 2
    proof = Proof()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        axe = _axe(folder)
        with open_scene(folder) as scene, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            look_at_every_page(proof, browser, scene, axe)
            keep_what_the_reader_does(proof, browser, scene)
            work_without_a_script(proof, browser, scene)
            browser.close()
        proof.expect("the daemon's log has no traceback", "Traceback" not in scene.daemon.log)
    print(f"{len(proof.wrong)} wrong")
    return 1 if proof.wrong else 0


def _axe(folder: Path) -> str:
    subprocess.run(["npm", "install", "--silent", "--prefix", str(folder), AXE], check=True)
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


@contextmanager
def page_of(browser: Browser, size: tuple[int, int], **settings: Any) -> Iterator[Page]:
    """A page of its own context."""
    width, height = size
    scale = 2 if width < 500 else 1
    context = browser.new_context(
        viewport={"width": width, "height": height}, device_scale_factor=scale, bypass_csp=False, **settings
    )
    context.set_default_timeout(PATIENCE)
    try:
        yield context.new_page()
    finally:
        context.close()


# Every page, as it looks.


def pages_of(scene: Scene) -> dict[str, str]:
    """The pages by the names of their pictures."""
    changed = scene.asked("/api/v1/events?type=nutcache.invoices.updated&newest=true&limit=200")["events"]
    subjects = [one["subject"] for one in changed]
    often = max(reversed(changed), key=lambda one: subjects.count(one["subject"]))
    versions = [int(one["sequence"]) for one in changed if one["subject"] == often["subject"]]
    dead = scene.asked("/api/v1/deliveries?state=dead&limit=1")["deliveries"][0]["id"]
    return {
        "overview": "/",
        "endpoint": "/endpoints/acme/time_entries",
        "held": "/endpoints/shop/products",
        "events": "/events",
        "event": f"/events/{versions[-1]}?a={versions[0]}&b={versions[-1]}",
        "deliveries": "/deliveries",
        "dead": "/deliveries?state=dead&subscription=billing",
        "delivery": f"/deliveries/{dead}",
        "subscription": "/subscriptions/billing",
        "budgets": "/budgets",
        "plan": "/plan?share=0.5&weight=acme/time_entries=10",
        "missing": "/events/999999",
    }


def look_at_every_page(proof: Proof, browser: Browser, scene: Scene, axe: str) -> None:
    """No page is wider than the screen, reports an error or has a finding of axe, in light and in dark."""
    IMAGES.mkdir(exist_ok=True)
    paths = pages_of(scene)
    for size in WIDTHS:
        for scheme in ("light", "dark"):
            with page_of(browser, WIDTHS[size], color_scheme=scheme) as page:
                said: list[str] = []
                page.on("console", lambda message, said=said: said.append(message.text))
                page.on("pageerror", lambda error, said=said: said.append(str(error)))
                for name, path in paths.items():
                    page.goto(scene.url + path)
                    page.wait_for_timeout(200)
                    _photograph(page, name, size, scheme)
                    _check(proof, page, f"{name}, {size}, {scheme}", axe)
                said = [text for text in said if "404" not in text]
                proof.expect(f"{size}, {scheme}: the console is silent {said[:3]}", not said)


def _photograph(page: Page, name: str, size: str, scheme: str) -> None:
    picture = "-".join([name, *([size] if size == "phone" else []), *([scheme] if scheme == "dark" else [])])
    if picture in PICTURES:
        page.screenshot(path=IMAGES / f"{picture}.png")
    if len(sys.argv) > 1:  # everything, to be looked at
        page.screenshot(path=Path(sys.argv[1]) / f"{picture}.png", full_page=True)


def _check(proof: Proof, page: Page, what: str, axe: str) -> None:
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    proof.expect(f"{what}: fits the screen ({wider})", wider <= 0)
    page.evaluate(axe)  # what a test evaluates, the page's policy does not concern
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate(f"axe.run({{runOnly: {rules}}}).then(found => found.violations)")
    for one in found:
        print("     ", one["id"], one["nodes"][0]["html"][:200], one["nodes"][0].get("failureSummary", "")[:300])
    proof.expect(f"{what}: axe finds nothing", not found)


# Updates in place.


def keep_what_the_reader_does(proof: Proof, browser: Browser, scene: Scene) -> None:
    """Selection, focus, scroll position, open details and typed text survive ten events."""
    with page_of(browser, DESKTOP) as page:
        page.goto(scene.url)
        page.evaluate("window.scrollTo(0, 500)")
        selected = page.evaluate(
            """() => { const range = document.createRange();
            range.selectNodeContents(document.querySelector(".events li:nth-child(2) .title"));
            getSelection().removeAllRanges(); getSelection().addRange(range); return String(getSelection()); }"""
        )
        page.evaluate("document.querySelector('.links tbody tr:nth-child(3) a').focus({preventScroll: true})")
        focus = "document.activeElement.getAttribute('href')"
        before = page.evaluate(f"[scrollY, {focus}]")
        top = page.evaluate("document.querySelector('.links').getBoundingClientRect().top")
        _ten_events(page, scene)
        after = page.evaluate(f"[scrollY, {focus}]")
        moved = page.evaluate("document.querySelector('.links').getBoundingClientRect().top") - top
        proof.expect(
            f"the selection survives ten events: {selected!r}", page.evaluate("String(getSelection())") == selected
        )
        proof.expect("the focus survives ten events", before[1] == after[1])
        proof.expect(f"what is in view does not move ({moved:+.0f} px)", abs(moved) < 2)
    with page_of(browser, DESKTOP) as page:
        page.goto(f"{scene.url}/deliveries")
        page.fill("input[name=subject]", "orders/*")
        rows = "[...document.querySelectorAll('tbody tr')].map(row => row.cells[3].textContent)"
        _until(lambda: (shown := page.evaluate(rows)) and all("orders/" in text for text in shown))
        proof.expect("a filter is answered while it is typed", "subject=orders" in page.url)
        page.goto(f"{scene.url}/subscriptions/crm")
        page.click("summary:has-text('Replay')")
        page.fill("input[name=after]", "12345")
        _ten_events(page, scene, count=False)
        kept = page.evaluate(
            "[document.querySelector('.confirm').open, document.querySelector('input[name=after]').value]"
        )
        proof.expect("an open form keeps what was typed", kept == [True, "12345"])


def _ten_events(page: Page, scene: Scene, *, count: bool = True) -> None:
    newest = scene.asked("/api/v1/status")["last_seq"]
    _until(lambda: scene.asked("/api/v1/status")["last_seq"] >= newest + 10)
    if count:
        page.wait_for_selector(f'.events li[data-key="e{newest + 10}"]')
    else:
        page.wait_for_timeout(4000)


def _until(is_so: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE / 1000
    while not is_so():
        if time.monotonic() > until:
            raise AssertionError("waited in vain")
        time.sleep(0.1)


# Without a script.


def work_without_a_script(proof: Proof, browser: Browser, scene: Scene) -> None:
    """Every page is whole, and every form does its command, as a browser alone sends it."""
    with page_of(browser, PHONE, java_script_enabled=False) as page:
        for name, path in pages_of(scene).items():
            page.goto(scene.url + path)
            proof.expect(f"{name} has a heading without a script", page.locator("h1").count() == 1)

        def press(where: str, label: str, said: str, *, opened: str | None = None) -> None:
            page.goto(scene.url + where)
            if opened is not None:
                page.click(f"summary:has-text({opened!r})")
            page.click(f"button:has-text({label!r}):visible")
            shown = page.locator(".outcome").inner_text()
            proof.expect(f"{label}: {shown}", said in shown and page.url.startswith(scene.url + where))

        press("/subscriptions/crm", "Pause", "Subscription crm is paused")
        press("/subscriptions/crm", "Resume", "Subscription crm is active")
        press("/subscriptions/crm", "Send a test", "A test event was queued")
        press("/subscriptions/crm", "Replay", "will be delivered to crm again", opened="Replay")
        dead = scene.asked("/api/v1/deliveries?state=dead&limit=1")["deliveries"][0]["id"]
        press(f"/deliveries/{dead}", "Redeliver", "1 delivery queued again")
        press("/endpoints/shop/orders", "Hold it", "is held", opened="Hold")
        press("/endpoints/shop/orders", "Release", "is released")
        press("/endpoints/shop/orders", "Ask now", "24 objects")
        press("/endpoints/shop/products", "Accept silently", "is released", opened="Release with")
        press("/endpoints/shop/orders", "Begin a new baseline", "new baseline", opened="Rebaseline")
    refused = httpx.post(f"{scene.url}/do/probe", data={"back": "/"}, headers={"sec-fetch-site": "cross-site"})
    proof.expect("a form of another site is refused", refused.status_code == 403)


if __name__ == "__main__":
    sys.exit(main())
