"""Templates to HTML, with the headers that keep a page to itself."""

from __future__ import annotations

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from serve_app.console import assets, charts, words

# Scripts, styles, pictures and connections of our own origin alone; no page may frame it.
POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with none at all, our own forms would name no origin
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


@functools.cache
def environment() -> Environment:
    """Return the templates; whatever they write is escaped."""
    found = Environment(
        loader=PackageLoader("serve_app.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    for name in ("span", "ms", "count", "percent", "value", "short", "when", "e_value", "role"):
        found.filters[name] = getattr(words, name)
    found.globals |= {"charts": charts, "asset": assets.address}
    return found


def render(template: str, **shown: Any) -> str:
    """Return a template filled in."""
    return environment().get_template(f"{template}.html").render(**shown)


def reply(html: str) -> HTMLResponse:
    """Return a page, or a part of one."""
    return HTMLResponse(html, headers=HEADERS)
