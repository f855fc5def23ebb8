"""What browsers load, the same for everybody: the page at `/docs`, and `/widget.js`.

All of it is local. The widget is for pages of any origin: it has no key, and asks for no cookie.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import FastAPI, Request, Response

from online_learner.errors import NotFound
from serve_app.access import needs

HERE = Path(__file__).parent
DOCS_CSP = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)

_SCRIPT = "text/javascript; charset=utf-8"
_ANY_ORIGIN = {"access-control-allow-origin": "*", "cross-origin-resource-policy": "cross-origin"}
_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Online learner: the API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<noscript>
This page needs JavaScript. All that it shows is in <a href="openapi.json">openapi.json</a>.
</noscript>
<main id="ui"></main>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class File:
    """A file that is sent as it is, compressed wherever the client does not refuse that.

    Parameters
    ----------
    packed
        Its bytes, by gzip.
    headers
        Beside those of every file.
    """

    packed: bytes
    media_type: str
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, media_type: str, headers: dict[str, str] | None = None) -> File:
        """Return a file of this package; one whose name ends in `.gz` is packed already."""
        found = path.read_bytes()
        packed = found if path.suffix == ".gz" else gzip.compress(found, mtime=0)
        return cls(packed, media_type, headers or {})

    def reply(self, request: Request) -> Response:
        """Return it, or 304 where the client has it. It may be kept for an hour unasked."""
        tag = f'W/"{hashlib.sha256(self.packed).hexdigest()[:16]}"'
        headers = {
            **self.headers,
            "cache-control": "public, max-age=3600",
            "etag": tag,
            "vary": "accept-encoding",
            "x-content-type-options": "nosniff",
        }
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", "gzip"):
            packed = headers | {"content-encoding": "gzip"}
            return Response(self.packed, headers=packed, media_type=self.media_type)
        return Response(gzip.decompress(self.packed), headers=headers, media_type=self.media_type)


def add_pages(app: FastAPI) -> None:
    """Add the routes."""
    widget = File.read(HERE / "widget.js", _SCRIPT, _ANY_ORIGIN)
    folder = HERE / "swagger"
    parts = {
        "swagger-ui-bundle.js": File.read(folder / "swagger-ui-bundle.js.gz", _SCRIPT),
        "swagger-ui.css": File.read(folder / "swagger-ui.css.gz", "text/css; charset=utf-8"),
        "start.js": File.read(folder / "start.js", _SCRIPT),
    }

    @app.get("/widget.js")
    @needs("nothing")
    async def feedback_widget(request: Request) -> Response:
        """Return the form for feedback, for a page of any origin: see `docs/widget.md`."""
        return widget.reply(request)

    @app.get("/docs")
    @needs("nothing")
    async def docs() -> Response:
        """Show this document, to read and to try."""
        headers = {
            "content-security-policy": DOCS_CSP,
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
        }
        return Response(_HTML, headers=headers, media_type="text/html")

    @app.get("/docs/{part}")
    @needs("nothing")
    async def docs_part(request: Request, part: str) -> Response:
        """Return a file of the page at `/docs`."""
        if part not in parts:
            raise NotFound("there is no such file: see /docs")
        return parts[part].reply(request)
