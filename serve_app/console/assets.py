"""The files that the page needs, from memory: style, script, the chart library."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from fastapi import Request, Response

from online_learner.errors import NotFound
from serve_app.access import needs
from serve_app.pages import File

FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain; charset=utf-8",
}


@functools.cache
def _files() -> dict[str, File]:
    paths = sorted(path for path in FOLDER.iterdir() if path.suffix in _TYPES)
    return {path.name: File.read(path, _TYPES[path.suffix]) for path in paths}


@functools.cache
def _version() -> str:
    """Return a name for all of them as they are: a new release fetches none from a cache."""
    return hashlib.sha256(b"".join(file.packed for file in _files().values())).hexdigest()[:12]


def address(name: str) -> str:
    """Return where a file is; raises `KeyError` where there is none of that name."""
    assert _files()[name]
    return f"/static/{name}?v={_version()}"


@needs("nothing")
async def asset(request: Request, name: str) -> Response:
    """Return a file of the console."""
    if name not in _files():
        raise NotFound("there is no such file: see /openapi.json")
    return _files()[name].reply(request)
