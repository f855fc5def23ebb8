"""What can become of a command between us and the server, each as an act of the proxy."""

from __future__ import annotations

import asyncio

from benchmarks.chaos.proxy import Act, Exchange
from online_learner.store import TIMEOUT_S

DELAY_S = 0.2
TOO_LATE_S = TIMEOUT_S + 0.3


async def delay(exchange: Exchange) -> None:
    """Give the reply late, but in time."""
    exchange.send()
    reply = await exchange.reply()
    await asyncio.sleep(DELAY_S)
    exchange.give(reply)


async def too_late(exchange: Exchange) -> None:
    """Give the reply when the client has given up: no other command may get it."""
    exchange.send()
    reply = await exchange.reply()
    await asyncio.sleep(TOO_LATE_S)
    exchange.give(reply)


async def reset_after_send(exchange: Exchange) -> None:
    """Break off at once; the server has the command, or it is on its way."""
    exchange.send()
    exchange.reset()


async def reset_before_reply(exchange: Exchange) -> None:
    """Break off when the server has done it and replied."""
    exchange.send()
    await exchange.reply()
    exchange.reset()


async def half_sent(exchange: Exchange) -> None:
    """Break off when half of the command is with the server."""
    exchange.send_half()
    exchange.reset()


async def half_a_reply(exchange: Exchange) -> None:
    """Break off when half of the reply is with the client."""
    exchange.send()
    reply = await exchange.reply()
    exchange.give(reply[: len(reply) // 2])
    exchange.reset()


async def half_a_reply_and_stall(exchange: Exchange) -> None:
    """Give half of the reply, and then nothing, and keep the connection."""
    exchange.send()
    reply = await exchange.reply()
    exchange.give(reply[: len(reply) // 2])
    await exchange.gone()


async def stall(exchange: Exchange) -> None:
    """Let the server do it, and say nothing."""
    exchange.send()
    await exchange.gone()


async def stall_before(exchange: Exchange) -> None:
    """Keep the command, and say nothing; the server gets it when the client has tried again."""
    await exchange.gone()
    await asyncio.sleep(DELAY_S)
    exchange.send()
    await exchange.reply()


HARM: dict[str, Act] = {
    "delay": delay,
    "reset after send": reset_after_send,
    "reset before reply": reset_before_reply,
    "half sent": half_sent,
    "half a reply": half_a_reply,
    "half a reply, then silence": half_a_reply_and_stall,
    "stall": stall,
    "stall, done later": stall_before,
    "reply too late": too_late,
}
