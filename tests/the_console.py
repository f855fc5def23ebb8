"""The console, as those who use it see it, and the traffic that it shows."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx2
from playwright.async_api import Locator, Page, expect
from the_browser import Watched
from the_service import bearer

PANELS = (
    "tiles",
    "score",
    "verdicts",
    "funnel",
    "calibration",
    "drift",
    "quality",
    "alarms",
    "bias",
    "raters",
    "queue",
    "versions",
    "playground",
)
LATE = {"alarms", "bias", "raters"}  # these have nothing to show before a window is over
MOVES = {"promote", "follow"}
RATERS = 40


class Traffic:
    """Those who ask a model for labels of true or false, and some of those who know better."""

    def __init__(self, url: str, key: str, model: str, seed: int = 0) -> None:
        self.model, self._random = model, random.Random(seed)
        self._http = httpx2.AsyncClient(base_url=url, headers=bearer(key), timeout=15.0)

    async def get(self, path: str = "") -> dict[str, Any]:
        """Return what is told of the model."""
        reply = await self._http.get(f"/v1/models/{self.model}{path}")
        return dict(reply.raise_for_status().json())

    async def ask(self, count: int) -> list[dict[str, Any]]:
        """Return answers, each with what is right; the sign of one feature decides."""
        instances = [
            {"features": {name: self._random.uniform(-1, 1) for name in ("x", "y")}}
            for _ in range(count)
        ]
        path = f"/v1/models/{self.model}/predict_batch"
        reply = await self._http.post(path, json={"instances": instances})
        answers = reply.raise_for_status().json()["predictions"]
        return [
            answer | {"right": instance["features"]["x"] > 0}
            for answer, instance in zip(answers, instances, strict=True)
        ]

    async def correct(self, answers: list[dict[str, Any]]) -> None:
        """Say of each answer what is right; no rater says more than a small part of it."""
        items = [
            {
                "prediction_id": answer["prediction_id"],
                "kind": "correction",
                "value": answer["right"],
                "user_id": f"u-{self._random.randrange(RATERS)}",
            }
            for answer in answers
        ]
        reply = await self._http.post("/v1/feedback_batch", json={"items": items})
        assert reply.raise_for_status().json()["rejected"] == 0

    async def step(self, count: int = 40) -> None:
        """Ask, and have all answers corrected: those before settle first."""
        await self.correct(await self.ask(count))

    async def said(self, prediction_id: str) -> list[dict[str, Any]]:
        """Return what was said of an answer, and what became of it."""
        reply = await self._http.get(f"/v1/predictions/{prediction_id}")
        return list(reply.raise_for_status().json()["feedback"])

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Go on, a few times a second, until the block ends."""

        async def flow() -> None:
            while True:
                await self.step(20)
                await asyncio.sleep(0.2)

        task = asyncio.create_task(flow())
        try:
            yield
            assert not task.done(), "the traffic has stopped"
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def verdict(self, actions: set[str]) -> dict[str, Any] | None:
        """Return the newest decision of some kinds, or None while there is none."""
        found = (await self.get("/verdicts"))["verdicts"]
        return next((v for v in reversed(found) if v["action"] in actions), None)

    async def close(self) -> None:
        """Disconnect."""
        await self._http.aclose()


def panel(page: Page, name: str) -> Locator:
    """Return a panel."""
    return page.locator(f'[data-panel="{name}"]')


async def log_in(watched: Watched, url: str, key: str, model: str) -> None:
    """Let somebody in by the form, and show a model."""
    page = watched.page
    await page.goto(url)
    await page.get_by_label("API key").fill(key)
    await page.get_by_role("button", name="Log in").click()
    await page.goto(f"{url}/?model={model}")
    await expect(panel(page, "tiles")).to_be_visible()


async def see_all(page: Page) -> None:
    """Wait until every panel has something to show."""
    for name in PANELS:
        await expect(panel(page, name)).to_be_visible()
    for name in (n for n in PANELS[:-1] if n not in LATE):  # nothing was asked in the playground
        await expect(panel(page, name).locator(".empty"), name).to_have_count(0, timeout=20_000)


async def label_by_keyboard(page: Page) -> str:
    """Label the answer at hand with one key; returns the id of the answer."""
    await expect(page.locator("html")).to_have_attribute("data-ready", "")
    await page.keyboard.press("g")
    await page.keyboard.press("q")
    card = page.locator("#queue-cards .card.at")
    await expect(card).to_be_in_viewport()
    prediction_id = await card.get_attribute("data-prediction")
    await page.keyboard.press("1")
    await expect(page.locator("#said")).to_contain_text("Press u to undo")
    return str(prediction_id)


async def roll_back(page: Page) -> None:
    """Roll back: what it would do is shown before it is done."""
    await page.locator('[data-operate="rollback"]').first.click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.locator("#confirm-what")).not_to_have_text("…")
    await dialog.get_by_role("button", name="Roll back").click()
    await expect(dialog).to_be_hidden()


async def pictures(watched: Watched, name: str) -> list[str]:
    """Keep how the page looks by day, at night and on a phone; returns what axe has against it."""
    page, found = watched.page, []
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 400), ("dark", 400)):
        await page.emulate_media(color_scheme=scheme)
        await page.set_viewport_size({"width": width, "height": 900})
        await watched.picture(f"{name}-{scheme}-{width}")
        found += [f"{scheme} {width}: {finding}" for finding in await watched.findings()]
        wide = await page.evaluate("document.documentElement.scrollWidth")
        found += [f"{scheme} {width}: {wide} pixels wide"] if wide > width else []
    return found


async def heap_bytes(page: Page) -> int:
    """Return what the page's scripts hold, once all that is garbage is gone."""
    session = await page.context.new_cdp_session(page)
    await session.send("HeapProfiler.collectGarbage")
    found = await session.send("Runtime.getHeapUsage")
    await session.detach()
    return int(found["usedSize"])
