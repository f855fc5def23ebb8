"""The console in a real browser, on the whole service in one process: learners and all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from benchmarks.hostile import site
from benchmarks.hostile.site import Site

pytest.importorskip("playwright", reason="there is no browser to be driven")
from playwright.async_api import expect
from the_browser import Watched
from the_console import (
    MOVES,
    Traffic,
    heap_bytes,
    label_by_keyboard,
    log_in,
    panel,
    pictures,
    roll_back,
    see_all,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")
Open = Callable[..., Awaitable[Watched]]
Eventually = Callable[..., Awaitable[None]]

MODELS: dict[str, dict[str, Any]] = {
    "mail": {
        "task": "classification",
        "labels": [False, True],
        "learner": "river:preprocessing.StandardScaler | linear_model.LogisticRegression",
        "audit": 1.0,
    },
    "rent": {"task": "regression", "learner": "river.linear_model:LinearRegression"},
}

SEEN = """(hidden) => {
    Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    """Run the service in a process of its own."""
    with site.running(MODELS) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def traffic(running: Site) -> AsyncIterator[Traffic]:
    """Return those who ask and say what is right."""
    found = Traffic(running.url, running.key, "mail")
    yield found
    await found.close()


async def test_it_shows_the_loop_as_it_turns(
    running: Site, open_page: Open, traffic: Traffic, eventually: Eventually
) -> None:
    """Every panel fills, and the first promotion appears on the open page by itself."""
    watched = await open_page()
    page = watched.page
    await log_in(watched, running.url, running.key, "mail")
    assert await watched.findings() == []  # all the empty states
    async with traffic.flowing():
        await eventually(lambda: traffic.verdict(MOVES), within_s=20)
        verdict = await traffic.verdict(MOVES)
        assert verdict is not None
        await expect(page.locator(f'[id="verdict-{verdict["id"]}"]')).to_be_visible()
        # What waits for a label holds up the evidence after it: there has to be some before.
        await eventually(lambda: judged(traffic), within_s=20)
        await traffic.ask(5)  # for whoever labels
        await see_all(page)
    assert await pictures(watched, "console") == []


async def judged(traffic: Traffic) -> bool:
    """Tell whether audits have settled since the last promotion."""
    return (await traffic.get("/metrics"))["calibration"] is not None


async def test_it_can_be_read_without_scripts(running: Site, open_page: Open) -> None:
    """A browser that runs no JavaScript is let in, and shown the same panels."""
    watched = await open_page(java_script_enabled=False)
    page = watched.page
    await log_in(watched, running.url, running.key, "mail")
    await see_all(page)


async def test_labels_come_by_keyboard(
    running: Site, open_page: Open, traffic: Traffic, eventually: Eventually
) -> None:
    """One key labels the answer at hand, and the learner learns that."""
    await traffic.ask(5)
    watched = await open_page()
    await log_in(watched, running.url, running.key, "mail")
    prediction_id = await label_by_keyboard(watched.page)

    async def learned() -> bool:
        return [s["status"] for s in await traffic.said(prediction_id)] == ["learned"]

    await eventually(learned, within_s=15)


async def test_what_one_page_labels_no_other_is_handed(
    running: Site, open_page: Open, traffic: Traffic, eventually: Eventually
) -> None:
    """Who only looks on leases nothing; the first label leases the batch, and leaving frees it."""
    await traffic.ask(5)
    watched = await open_page()
    await log_in(watched, running.url, running.key, "mail")
    await expect(watched.page.locator("#queue-cards .card.at")).to_be_visible()

    async def leased() -> list[str]:
        with running.client() as http:
            found = http.get("/v1/models/mail/queue?lane=any&count=100").json()["queue"]
        return [item["prediction_id"] for item in found if item["leased_until"]]

    with running.client() as http:  # what pages of other tests had is free again
        ids = {"prediction_ids": await leased(), "again": True}
        http.post("/v1/models/mail/queue/skip", json=ids).raise_for_status()
    assert await leased() == []
    await label_by_keyboard(watched.page)
    await eventually(leased, within_s=10)
    await watched.page.goto("about:blank")

    async def freed() -> bool:
        return not await leased()

    await eventually(freed, within_s=10)


async def test_the_playground_takes_every_answer(
    running: Site, open_page: Open, traffic: Traffic, eventually: Eventually
) -> None:
    """What is asked there is answered, and what is said of it arrives."""
    watched = await open_page()
    page = watched.page
    await log_in(watched, running.url, running.key, "mail")
    ground = panel(page, "playground")
    await ground.get_by_role("button", name="Predict").click()
    article = ground.locator("article")
    await expect(article).to_be_visible()
    prediction_id = await article.get_attribute("data-prediction")
    await article.locator("[data-signal]").first.click()

    await eventually(lambda: traffic.said(str(prediction_id)))
    assert await watched.findings() == []


async def test_rolling_back_is_confirmed_first(
    running: Site, open_page: Open, traffic: Traffic
) -> None:
    """The page says what would change, does it when told so, and shows that it is done."""
    watched = await open_page()
    await log_in(watched, running.url, running.key, "mail")
    assert not (await traffic.get())["aliases"]["frozen"]
    await roll_back(watched.page)
    await expect(panel(watched.page, "verdicts").locator(".act.rollback").first).to_be_visible()
    assert (await traffic.get())["aliases"]["frozen"]


async def test_the_focus_stays_where_it_is(
    running: Site, open_page: Open, traffic: Traffic
) -> None:
    """Who goes by keyboard is not thrown out of a panel that is drawn anew."""
    watched = await open_page()
    page = watched.page
    await log_in(watched, running.url, running.key, "mail")
    await expect(page.locator("html")).to_have_attribute("data-ready", "")
    await page.locator("#details-traffic > summary").focus()
    await page.evaluate("document.querySelector('[data-panel=funnel]').dataset.old = ''")
    await traffic.step()
    await expect(page.locator("[data-panel=funnel]:not([data-old])")).to_be_visible()
    await expect(page.locator("#details-traffic > summary")).to_be_focused()


async def test_another_tab_may_log_in_anew(running: Site, open_page: Open) -> None:
    """A page of the session before goes on with the new one, whose token it asks for."""
    watched = await open_page()
    page = watched.page
    await log_in(watched, running.url, running.key, "mail")
    await expect(page.locator("html")).to_have_attribute("data-ready", "")
    await page.context.request.post(f"{running.url}/login", form={"key": running.key})
    watched.allowed.append("403")
    await panel(page, "versions").locator("[data-operate=freeze], [data-operate=thaw]").click()
    await expect(page.locator("#confirm-what")).to_contain_text("by hand")


async def test_a_tab_that_is_not_seen_holds_no_connection(running: Site, open_page: Open) -> None:
    """Browsers have few connections for all their tabs: one in the background leaves them alone."""
    watched = await open_page()
    page = watched.page
    await log_in(watched, running.url, running.key, "mail")
    await expect(page.locator("#live[data-state=live]")).to_be_visible()
    for hidden, event in ((True, "requestfailed"), (False, "request")):
        async with page.expect_event(event, lambda request: "/v1/stream" in request.url):
            await page.evaluate(SEEN, hidden)


async def test_events_leave_nothing_behind(
    running: Site, open_page: Open, traffic: Traffic, eventually: Eventually
) -> None:
    """Two thousand events more do not make the page heavier."""
    watched = await open_page()
    page = watched.page
    await log_in(watched, running.url, running.key, "mail")
    await page.evaluate(
        """() => {
            window.seen = 0;
            const source = new EventSource("/v1/stream?model=mail&events=feedback");
            source.addEventListener("feedback", () => { window.seen += 1; });
        }"""
    )
    sizes = []
    for upto in (1_000, 3_000):
        while await page.evaluate("window.seen") < upto:
            await traffic.step(500)
        sizes.append(await heap_bytes(page))
    assert sizes[1] < sizes[0] + 2_000_000
