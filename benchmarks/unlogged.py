"""The gateway without its log: what a durable record costs, by leaving out nothing else.

The same application on the same ingress, but its journal acknowledges at once and keeps nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any
from unittest import mock

from starlette.applications import Starlette

from online_learner.ids import Address, new_nonce
from online_learner.schema import Prediction
from serve_app import app as serve_applications
from serve_app.gateway import create_app


class InstantJournal:
    """A journal that gives addresses away and writes nothing."""

    def __init__(self) -> None:
        self._sequence = itertools.count()

    async def append(self, predictions: Sequence[Prediction]) -> list[Address]:
        """Return an address for each answer, at once."""
        ms = time.time_ns() // 1_000_000
        return [Address(ms, next(self._sequence), new_nonce()) for _ in predictions]


def unlogged(application: Starlette) -> Starlette:
    """Take the log out of an application, right after it has started."""
    start = application.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(running: Starlette) -> AsyncIterator[None]:
        async with start(running):
            rooms = running.state.service.rooms
            for room in rooms.values():
                room.journal = InstantJournal()
            yield

    application.router.lifespan_context = lifespan
    return application


def create_unlogged_app(store_url: str, data_dir: str) -> Starlette:
    """Return the application without its log."""
    return unlogged(create_app(store_url, data_dir))


class Unlogged(serve_applications.Gateway):
    """The gateway's deployment around the application without a log."""

    def __serve_build_asgi_app__(self) -> Any:
        return create_unlogged_app(*self._place)


def gateway(store_url: str, data_dir: str) -> Any:
    """Return the Serve application: the gateway's own options, to the letter."""
    with mock.patch.object(serve_applications, "Gateway", Unlogged):
        return serve_applications.gateway(store_url, data_dir)
