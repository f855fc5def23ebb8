"""The panels on what observers found, in a real browser: by day, at night, and on a phone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("playwright", reason="there is no browser to be driven")
from playwright.async_api import expect
from the_browser import Watched
from the_console import log_in, panel, pictures
from the_observers import RAISED, REPORTS, report

from online_learner.ids import Keyring
from online_learner.registry import Registry
from online_learner.store import open_store

pytestmark = pytest.mark.asyncio(loop_scope="session")
Open = Callable[..., Awaitable[Watched]]
LABELS = ("news", "sport", "science")


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a service of one audited model."""
    return start_service(topic={"audit": 1.0})


async def test_what_observers_found_can_be_read(service: Any, open_page: Open) -> None:
    """Every panel has its say without a finding; an alarm appears on the open page by itself."""
    with service.client() as http:
        for n in range(40):
            sent = {"features": {"x": float(n % 3)}}
            id_ = http.post("/v1/models/topic/predict", json=sent).json()["prediction_id"]
            said = {"prediction_id": id_, "kind": "correction", "value": LABELS[n % 3]}
            http.post("/v1/feedback", json=said | {"user_id": f"u{n}"}).raise_for_status()
            if n % 10 == 9:
                await service.turn()
    async with await open_store(service.server.url) as store:
        registry = Registry(store, Keyring.load(service.data_dir), "topic")
        await report(registry, REPORTS)
        watched = await open_page()
        page = watched.page
        await log_in(watched, service.url, service.key, "topic")
        await expect(page.locator("html")).to_have_attribute("data-ready", "")
        for name in ("quality", "bias", "raters"):
            await expect(panel(page, name).locator(".empty"), name).to_have_count(0)
        await expect(panel(page, "alarms")).to_contain_text("Nothing has been raised")
        await report(registry, REPORTS, alarms=[RAISED])
        await expect(panel(page, "alarms")).to_contain_text(RAISED.sentence)
    await page.keyboard.press("g")
    await page.keyboard.press("b")
    await expect(panel(page, "bias")).to_be_focused()
    assert await pictures(watched, "observed") == []
