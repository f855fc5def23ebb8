"""A real browser: Debian's Chromium, driven by Playwright, and what a test wants to know of a page.

Tests that use it run on the session's event loop, since one browser serves them all:
`pytestmark = pytest.mark.asyncio(loop_scope="session")`. No request may leave this machine and no
page may complain on its console: the fixture `open_page` fails a test where either happens.
"""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright

LOOPBACK = {"127.0.0.1", "localhost"}
ROOT = Path(__file__).parent.parent
SCREENSHOTS = ROOT / "out" / "screenshots"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@dataclass(slots=True)
class Watched:
    """A page, and what went on in it.

    Parameters
    ----------
    sent
        Its requests.
    errors
        What it wrote to the console as an error or a warning, and exceptions that nobody caught.
    allowed
        Parts of such messages that a test brings about itself.
    """

    page: Page
    sent: list[Request] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)

    def posts(self, path: str) -> list[Any]:
        """Return the bodies that were posted to a path."""
        return [
            request.post_data_json
            for request in self.sent
            if request.method == "POST" and urlsplit(request.url).path == path
        ]

    async def findings(self, level: tuple[str, ...] = ("serious", "critical")) -> list[str]:
        """Return what axe-core has against the page as it is, at these levels."""
        found = await Axe().run(self.page)
        return [
            f"{violation['id']}: {node['html'][:200]}"
            for violation in found.response["violations"]
            if violation["impact"] in level
            for node in violation["nodes"]
        ]

    async def picture(self, name: str) -> None:
        """Keep how the page looks."""
        await self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def check(self) -> None:
        """Fail where a request would have left, or the page complained."""
        hosts = {urlsplit(r.url).hostname for r in self.sent if r.url.startswith("http")}
        assert hosts <= LOOPBACK
        loud = [e for e in self.errors if not any(part in e for part in self.allowed)]
        assert loud == []


@asynccontextmanager
async def run_browser() -> AsyncIterator[Browser]:
    """Run the browser."""
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--js-flags=--expose-gc",
                # Other names lead nowhere: what a page asks of them is seen, and does not leave.
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
            ],
        )
        yield running
        await running.close()


async def watch(browser: Browser, url: str = "", **options: Any) -> Watched:
    """Open a page, as in a browser that nobody has used yet.

    Parameters
    ----------
    options
        Those of Playwright's contexts: `color_scheme="dark"`, `viewport={...}`.
    """
    context = await browser.new_context(**options)
    watched = Watched(await context.new_page())

    def hear(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            watched.errors.append(f"{message.text} {message.location['url']}")

    context.on("request", lambda request: watched.sent.append(request))  # noqa: PLW0108
    context.on("weberror", lambda error: watched.errors.append(str(error.error)))
    context.on("console", hear)
    if url:
        await watched.page.goto(url)
    return watched


@contextmanager
def site_of(pages: dict[str, str], headers: dict[str, str] | None = None) -> Iterator[str]:
    """Serve pages of HTML by path on a port of their own; yields the origin, on `localhost`.

    The pages may be changed while it runs.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = pages.get(self.path)
            self.send_response(404 if found is None else 200)
            self.send_header("content-type", "text/html; charset=utf-8")
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write((found or "").encode())

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
