"""Events through Serve and its HAProxy: as they happen, from everybody who has a part in it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TypeAlias

import httpx2
import pytest
from the_stack import Stack

from online_learner.client import AsyncClient, NotReachable

pytestmark = pytest.mark.ray

Poll: TypeAlias = Callable[..., Awaitable[None]]

FEATURES = {"https": 0.0, "ip_in_url": 1, "age_of_domain": 1, "long_url": -1.0}


async def test_what_is_taught_is_heard_of(stack: Stack, eventually: Poll) -> None:
    """Signals, the first answers by weights that learned them, and the counts come as they do."""
    heard: set[str] = set()
    async with AsyncClient(stack.url, stack.key) as client:

        async def listen() -> None:
            async with aclosing(client.stream("eager")) as events:
                async for event in events:
                    heard.add(event.kind)

        async def speak() -> bool:
            with contextlib.suppress(NotReachable):  # where the ingress has just been reloaded
                answer = await client.predict("eager", FEATURES)
                await answer.correct(True)
            return heard >= {"metrics", "feedback", "swap"}

        listening = asyncio.create_task(listen())
        await eventually(speak, within_s=60)
        listening.cancel()
        await asyncio.wait([listening])


async def test_a_verdict_is_heard_of(stack: Stack, eventually: Poll) -> None:
    """A listener hears each decision, in order, through the ingress."""
    heard: dict[str, str] = {}
    async with AsyncClient(stack.url, stack.key) as client:

        async def listen() -> None:
            async with aclosing(client.stream("careful", events=("verdict",))) as events:
                async for event in events:
                    heard[event.data["id"]] = event.data["action"]

        async def switch() -> bool:
            await client.freeze("careful")
            await client.thaw("careful")
            return "thaw" in heard.values()

        listening = asyncio.create_task(listen())
        await eventually(switch, within_s=60)
        listening.cancel()
        await asyncio.wait([listening])
    by_hand = [action for action in heard.values() if action in {"freeze", "thaw"}]
    assert all(before != after for before, after in itertools.pairwise(by_hand))


async def test_nothing_holds_the_stream_back(stack: Stack, stack_http: httpx2.AsyncClient) -> None:
    """The greeting comes while nothing happens, with headers that keep proxies from buffering."""
    async with asyncio.timeout(20), stack_http.stream("GET", "/v1/stream?model=search") as reply:
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-accel-buffering"] == "no"
        lines = reply.aiter_lines()
        assert await anext(lines) == "retry: 1000"
        assert (await anext(lines)).startswith("id: ")
