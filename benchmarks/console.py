"""The console in a browser, on loopback: when it is ready, what it shows how soon, how it grows."""

from __future__ import annotations

import asyncio
import random
import shutil
import statistics
from collections.abc import Sequence
from typing import Any

import httpx2
from playwright.async_api import Page, async_playwright

from benchmarks import report, sections
from benchmarks.hostile import site
from benchmarks.hostile.site import Site
from benchmarks.report import Bar
from benchmarks.sections import Found

MODEL = "mail"
MODELS = {
    MODEL: {
        "task": "classification",
        "labels": [False, True],
        "learner": "river:preprocessing.StandardScaler | linear_model.LogisticRegression",
        "audit": 1.0,
    }
}
LOADS = 20
EARLY, EVENTS = 2_000, 10_000
BATCH = 500
GROWN_MB = 2
PANELS = 9
_WATCH = """() => {
    window.seen = 0;
    window.appeared = {};
    const source = new EventSource("/v1/stream?model=mail&events=feedback");
    source.addEventListener("feedback", () => { window.seen += 1; });
    new MutationObserver(() => {
        for (const item of document.querySelectorAll(".decided > li"))
            window.appeared[item.id] ??= Date.now() / 1000;
    }).observe(document.body, {childList: true, subtree: true});
}"""
_READY = """() => {
    const [load] = performance.getEntriesByType("navigation");
    return load.loadEventEnd;
}"""


def section(full: bool) -> Found:
    """Return the table of what was measured."""
    with site.running(MODELS) as running:
        found = asyncio.run(_measure(running))
    ready, verdict_s, early, late = found
    rows = [
        ["page ready, median", f"{statistics.median(ready):.0f} ms"],
        [f"page ready, worst of {len(ready)}", f"{max(ready):.0f} ms"],
        ["first promotion: from verdict to the open page", f"{verdict_s:.2f} s"],
        [f"heap after {EARLY:,} events", f"{early / 1e6:.2f} MB"],
        [f"heap after {EVENTS:,} events", f"{late / 1e6:.2f} MB"],
    ]
    bars = [
        Bar("page ready, worst", max(ready), 1000, " ms", at_most=True),
        Bar("promotion seen", verdict_s, 2, " s", at_most=True),
        Bar("heap grown since", (late - early) / 1e6, GROWN_MB, " MB", at_most=True),
    ]
    return report.table(["what", "measured"], rows), bars


async def _measure(running: Site) -> tuple[list[float], float, int, int]:
    headers = {"authorization": f"Bearer {running.key}"}
    async with (
        async_playwright() as playwright,
        httpx2.AsyncClient(base_url=running.url, headers=headers, timeout=20.0) as http,
    ):
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = await browser.new_page()
        await page.goto(running.url)
        await page.get_by_label("API key").fill(running.key)
        await page.get_by_role("button", name="Log in").click()
        await page.evaluate(_WATCH)
        verdict_s = await _promoted(page, http)
        early = await _after(page, http, EARLY)
        late = await _after(page, http, EVENTS)
        ready = []
        for _ in range(LOADS):
            await page.goto(running.url, wait_until="load")
            assert await page.locator("[data-panel]").count() == PANELS
            ready.append(float(await page.evaluate(_READY)))
        await browser.close()
    return ready, verdict_s, early, late


async def _promoted(page: Page, http: httpx2.AsyncClient) -> float:
    """Let the learner earn trust; returns how long after the verdict the page showed it."""
    while True:
        await _turn(http, 20)
        found = (await http.get(f"/v1/models/{MODEL}/verdicts")).json()["verdicts"]
        moved = [v for v in found if v["action"] in {"promote", "follow"}]
        if moved:
            break
    name = f"verdict-{moved[0]['id']}"
    await page.wait_for_function("name => window.appeared[name]", arg=name)
    return float(await page.evaluate("name => window.appeared[name]", name) - moved[0]["at"])


async def _after(page: Page, http: httpx2.AsyncClient, events: int) -> int:
    """Return what the page's scripts hold after so many events, without garbage, in bytes."""
    while await page.evaluate("window.seen") < events:
        await _turn(http, BATCH)
    session = await page.context.new_cdp_session(page)
    await session.send("HeapProfiler.collectGarbage")
    return int((await session.send("Runtime.getHeapUsage"))["usedSize"])


async def _turn(http: httpx2.AsyncClient, count: int) -> None:
    """Ask, and say what is right."""
    instances = [{"features": {"x": random.uniform(-1, 1)}} for _ in range(count)]
    asked = {"instances": instances}
    answers = (await http.post(f"/v1/models/{MODEL}/predict_batch", json=asked)).json()
    items: list[dict[str, Any]] = [
        {
            "prediction_id": answer["prediction_id"],
            "kind": "correction",
            "value": instance["features"]["x"] > 0,
        }
        for answer, instance in zip(answers["predictions"], instances, strict=True)
    ]
    (await http.post("/v1/feedback_batch", json={"items": items})).raise_for_status()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it."""
    title = "The console in a browser"
    sections.run("console", title, {"Ready, live, and light": section}, arguments)
