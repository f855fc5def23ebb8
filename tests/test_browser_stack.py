"""The console in a real browser, on the real stack under live traffic."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from the_service import bearer

from online_learner import auth
from online_learner.store import open_store

pytest.importorskip("playwright", reason="there is no browser to be driven")
from playwright.async_api import expect
from the_browser import Watched, site_of
from the_console import (
    MOVES,
    Traffic,
    label_by_keyboard,
    log_in,
    panel,
    pictures,
    roll_back,
    see_all,
)

# When each verdict came to be on the page, in seconds since 1970, by its id.
WATCH = """() => {
    window.appeared = {};
    new MutationObserver(() => {
        for (const item of document.querySelectorAll(".decided > li"))
            window.appeared[item.id] ??= Date.now() / 1000;
    }).observe(document.body, {childList: true, subtree: true});
}"""
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.ray]


async def test_pages_of_another_origin_ask_for_feedback(
    stack: Any,
    open_page: Callable[..., Awaitable[Watched]],
    eventually: Callable[..., Awaitable[None]],
) -> None:
    """What is clicked in the widget there is learned here; the page at `/docs` is here as well."""
    traffic = Traffic(stack.url, stack.key, "watched")
    [answer] = await traffic.ask(1)
    tag = f'<script src="{stack.url}/widget.js" data-hold="0" data-prediction="{{}}"></script>'
    page = f"<!doctype html><title>x</title><body>{tag.format(answer['prediction_id'])}"
    with site_of({"/": page, "/favicon.ico": ""}) as origin:
        watched = await open_page(origin)
        await watched.page.get_by_role("button", name="Good").click()

        async def learned() -> bool:
            said = await traffic.said(answer["prediction_id"])
            return {s["kind"]: s["status"] for s in said} == {
                "implicit": "kept",
                "thumbs": "learned",
            }

        await eventually(learned, within_s=20)
    await watched.page.goto(f"{stack.url}/docs")
    await expect(watched.page.locator(".opblock").first).to_be_visible(timeout=20_000)
    await traffic.close()


async def test_one_who_owns_a_model_sees_it_live(
    stack: Any,
    open_page: Callable[..., Awaitable[Watched]],
    eventually: Callable[..., Awaitable[None]],
) -> None:
    """Panels fill, a promotion appears, a label by keyboard is learned, and rolling back works."""
    watched = await open_page()
    page = watched.page
    traffic = Traffic(stack.url, stack.key, "watched")
    key = auth.new_key()  # who labels needs one that says so
    async with await open_store(stack.store_url) as store:
        await auth.allow(store, key, name="owner", scopes=auth.SCOPES)
    headers = bearer(key)
    async with httpx2.AsyncClient(base_url=stack.url, headers=headers) as http:

        async def known() -> bool:
            return (await http.get("/v1/session")).status_code == 200

        await eventually(known)
    await log_in(watched, stack.url, key, "watched")
    await page.evaluate(WATCH)
    async with traffic.flowing():
        await eventually(lambda: traffic.verdict(MOVES), within_s=30)
        verdict = await traffic.verdict(MOVES)
        assert verdict is not None
        await expect(page.locator(f'[id="verdict-{verdict["id"]}"]')).to_be_visible()
        seen_at = await page.evaluate("id => window.appeared[`verdict-${id}`]", verdict["id"])
        print(f"on the page {seen_at - verdict['at']:.2f} s after the verdict")  # noqa: T201
        await traffic.ask(10)
        await see_all(page)
        assert await pictures(watched, "stack") == []
        prediction_id = await label_by_keyboard(page)

        async def learned() -> bool:
            return "learned" in [s["status"] for s in await traffic.said(prediction_id)]

        await eventually(learned, within_s=20)
        await roll_back(page)
        await expect(panel(page, "verdicts").locator(".act.rollback").first).to_be_visible()
    assert (await traffic.get())["aliases"]["frozen"]
    await traffic.close()
