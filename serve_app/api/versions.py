"""`POST /v1/models/{model}/versions`: weights that were trained elsewhere."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel

from online_learner.auth import Credential
from online_learner.bring import MAX_NOTE, Becomes, bring
from online_learner.errors import RequestTimeout, TooLarge, UnsupportedMediaType
from online_learner.schema import Version
from serve_app.access import allowed

BINARY = "application/octet-stream"
UPLOAD_S = 120.0  # for all of a file to arrive

Operator = Annotated[Credential, allowed("operate")]
Note = Annotated[str, Query(max_length=MAX_NOTE)]


class RegisterResponse(BaseModel):
    """What became of a file: whether it answers now or is tested first, and in words."""

    dry_run: bool
    version: Version
    becomes: Becomes
    duplicate: bool
    sentence: str


def add_versions(app: FastAPI) -> None:
    """Add the route."""
    one_at_a_time = asyncio.Semaphore(1)  # a file is held in memory several times over

    @app.post("/v1/models/{model}/versions")
    async def register(
        who: Operator,
        request: Request,
        model: str,
        *,
        note: Note = "",
        candidate: bool = False,
        dry_run: bool = False,
    ) -> RegisterResponse:
        """Register weights that were trained elsewhere: a first version, or a candidate.

        Where nothing has been learned yet they answer at once, but as a `candidate`.
        """
        service = request.app.state.service
        room = service.room(model)
        async with one_at_a_time:
            blob = await _file(request, service.settings.max_version_bytes)
            taken = await bring(
                room.registry,
                room.learner,
                blob,
                by=f"key:{who.name}",
                now=time.time(),
                note=note,
                candidate=candidate,
                dry_run=dry_run,
            )
        return RegisterResponse(
            dry_run=dry_run,
            version=taken.version,
            becomes=taken.becomes,
            duplicate=taken.duplicate,
            sentence=taken.sentence,
        )


async def _file(request: Request, limit: int) -> bytes:
    """Return the file in a body, read in pieces.

    Raises
    ------
    UnsupportedMediaType
        It is not declared as a file, or is compressed.
    TooLarge
        It is longer than `max_version_bytes`.
    RequestTimeout
        It has not arrived within `UPLOAD_S`.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind.lower() != BINARY:
        raise UnsupportedMediaType(f"this takes the bytes of a file: send {BINARY}")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("the body is compressed: send it as it is")
    try:
        async with asyncio.timeout(UPLOAD_S):
            return await _pieces(request, limit)
    except TimeoutError:
        raise RequestTimeout(f"the file has not arrived within {UPLOAD_S:g} s") from None


async def _pieces(request: Request, limit: int) -> bytes:
    too_large = TooLarge(f"the file is over {limit} bytes: raise max_version_bytes, or prune it")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    found = bytearray()
    async for piece in request.stream():
        found += piece
        if len(found) > limit:
            raise too_large
    return bytes(found)
