"""The page at `/docs`, in a real browser: all of it is local, and what it shows can be tried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

pytest.importorskip("playwright", reason="there is no browser to be driven")
from playwright.async_api import expect
from the_browser import Watched

pytestmark = pytest.mark.asyncio(loop_scope="session")
Open = Callable[..., Awaitable[Watched]]


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service."""
    return start_service(web={})


async def test_what_it_shows_can_be_tried(service: Any, open_page: Open) -> None:
    """It lists every route; a key is typed in once, and what is tried answers."""
    watched = await open_page(f"{service.url}/docs", color_scheme="dark")
    page = watched.page
    document = httpx2.get(f"{service.url}/openapi.json").json()
    await expect(page.locator(".opblock")).to_have_count(
        sum(len(operations) for operations in document["paths"].values())
    )
    await page.get_by_role("button", name="Authorize").first.click()
    await page.get_by_label("auth-bearer-value").fill(service.key)
    await page.get_by_role("button", name="Apply credentials").first.click()
    await page.get_by_role("button", name="Close").first.click()
    route = page.locator("#operations-read-get_models_model")
    await route.locator(".opblock-summary-control").click()
    await route.get_by_placeholder("model").fill("web")
    await route.get_by_role("button", name="Execute").click()
    shown = route.locator(".live-responses-table")
    await expect(shown.locator("tbody .response-col_status").first).to_contain_text("200")
    await expect(shown).to_contain_text("aliases")
    assert await page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    assert await page.evaluate(ground) == "rgb(28, 32, 34)"
    await watched.picture("docs")


async def test_its_files_are_kept_by_browsers(service: Any) -> None:
    """Each is sent packed, under a strict policy, and not again to one who has it."""
    with httpx2.Client(base_url=service.url) as http:
        policy = http.get("/docs").headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy
        for part in ("swagger-ui-bundle.js", "swagger-ui.css", "start.js"):
            found = http.get(f"/docs/{part}").raise_for_status()
            assert found.headers["content-encoding"] == "gzip"
            again = http.get(f"/docs/{part}", headers={"if-none-match": found.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        assert http.get("/docs/../openapi.py").status_code == 404
        assert http.get("/docs/README").status_code == 404
