"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias, TypeVar, Unpack

import httpx2

from online_learner.client import calls, rewards, signals
from online_learner.client.answers import Answer, NamedAnswer, id_of
from online_learner.client.errors import ApiError
from online_learner.client.fields import FeedbackFields, LogFields, PredictFields, SignalFields
from online_learner.client.labelling import Lane
from online_learner.client.place import locate
from online_learner.client.receipts import BatchReceipt, Fate, Receipt
from online_learner.client.sending import Json, Outcome, Retry, Sent
from online_learner.client.stream import KINDS, TIMEOUT, Event, Reader

T = TypeVar("T")
AsyncAnswer: TypeAlias = Answer[Awaitable[Receipt]]


class AsyncClient:
    """`Client` for asyncio: the same methods, parameters and errors, to be awaited.

    Examples
    --------
    >>> here = httpx2.MockTransport(lambda request: httpx2.Response(503, json={"ready": False}))
    >>> async def look() -> bool:
    ...     async with AsyncClient("http://learner:8000", transport=here) as client:
    ...         return (await client.ready())["ready"]
    >>> asyncio.run(look())
    False
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 10.0,
        retry: Retry | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        place = locate(url, key)
        self.url = place.url
        self._http = httpx2.AsyncClient(transport=transport, **place.options(timeout_s))
        self._retry = retry or Retry()
        self._sleep = sleep

    async def _send(self, what: Sent[T]) -> T:
        course = what.course(self._retry.begin())
        wait_s, request = next(course)
        while True:
            if wait_s:
                await self._sleep(wait_s)
            outcome: Outcome
            try:
                outcome = await self._http.request(**request)
            except httpx2.RequestError as error:
                outcome = error
            try:
                wait_s, request = course.send(outcome)
            except StopIteration as done:
                result: T = done.value
                return result

    async def predict(
        self, model: str, features: Mapping[str, Any], **fields: Unpack[PredictFields]
    ) -> AsyncAnswer:
        """See `Client.predict`; what is said of the answer is to be awaited."""
        return await self._send(calls.predict(self._say, model, features, fields))

    async def predict_batch(
        self, model: str, instances: Iterable[Mapping[str, Any]]
    ) -> list[AsyncAnswer | ApiError]:
        """See `Client.predict_batch`."""
        return await self._send(calls.predict_batch(self._say, model, instances))

    async def log(
        self,
        model: str,
        *,
        outputs: Iterable[str | Mapping[str, Any]] | None = None,
        prompt: str | None = None,
        messages: Sequence[Any] | None = None,
        features: Mapping[str, Any] | None = None,
        options: Sequence[Mapping[str, Any]] | None = None,
        output: Any = None,
        scores: Mapping[str, float] | None = None,
        **fields: Unpack[LogFields],
    ) -> AsyncAnswer:
        """See `Client.log`."""
        answered = {"features": features, "options": options, "output": output, "scores": scores}
        asked = calls.made(prompt, messages, outputs, answered)
        return await self._send(calls.log(self._say, model, asked, fields))

    async def log_batch(
        self, model: str, answers: Iterable[Mapping[str, Any]]
    ) -> list[AsyncAnswer | ApiError]:
        """See `Client.log_batch`."""
        return await self._send(calls.log_batch(self._say, model, answers))

    async def log_chat(
        self, model: str, request: Any, response: Any, **fields: Unpack[LogFields]
    ) -> AsyncAnswer:
        """See `Client.log_chat`."""
        asked = {"request": request, "response": response}
        return await self._send(calls.log(self._say, model, asked, fields))

    async def score(
        self,
        model: str,
        *,
        outputs: Iterable[str | Mapping[str, Any]],
        prompt: str | None = None,
        messages: Sequence[Any] | None = None,
    ) -> list[float]:
        """See `Client.score`."""
        return await self._send(calls.score(model, calls.generated(prompt, messages, outputs)))

    def reward_func(self, model: str) -> Callable[..., Awaitable[list[float]]]:
        """See `Client.reward_func`."""

        async def reward(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
            groups = rewards.by_prompt(prompts, completions)
            asks = (self._send(calls.score(model, asked)) for _, asked in groups)
            found = await asyncio.gather(*asks)
            return rewards.in_order([places for places, _ in groups], found)

        reward.__name__ = model
        return reward

    async def feedback(
        self, prediction_id: str, kind: str, value: Any = None, **fields: Unpack[SignalFields]
    ) -> Receipt:
        """See `Client.feedback`."""
        signal = signals.of_kind(kind, value)
        return await self._say({"prediction_id": prediction_id, **signal, **fields})

    def about(
        self, model: str, *, external_id: str | None = None, session_id: str | None = None
    ) -> NamedAnswer[Awaitable[Receipt]]:
        """See `Client.about`."""
        return NamedAnswer(model, external_id, session_id, self._say)

    async def prefer(
        self,
        chosen: Answer[Any] | str,
        rejected: Answer[Any] | str,
        **fields: Unpack[FeedbackFields],
    ) -> Receipt:
        """See `Client.prefer`."""
        return await self._say({**signals.preference(id_of(chosen), id_of(rejected)), **fields})

    async def _say(self, body: Json) -> Receipt:
        return await self._send(calls.feedback(body))

    async def feedback_batch(self, items: Iterable[Mapping[str, Any]]) -> BatchReceipt:
        """See `Client.feedback_batch`."""
        return await self._send(calls.feedback_batch(items))

    async def receipt(self, feedback_id: str) -> Fate:
        """See `Client.receipt`."""
        return await self._send(calls.receipt(feedback_id))

    async def retract(self, feedback_id: str) -> Json:
        """See `Client.retract`."""
        return await self._send(calls.retract(feedback_id))

    async def prediction(self, prediction_id: str) -> Json:
        """See `Client.prediction`."""
        return await self._send(calls.prediction(prediction_id))

    async def models(self) -> list[Json]:
        """See `Client.models`."""
        return await self._send(calls.models())

    async def model(self, model: str) -> Json:
        """See `Client.model`."""
        return await self._send(calls.model(model))

    async def versions(self, model: str) -> list[Json]:
        """See `Client.versions`."""
        return await self._send(calls.versions(model))

    async def verdicts(
        self, model: str, *, count: int = 100, after: str | None = None
    ) -> list[Json]:
        """See `Client.verdicts`."""
        return await self._send(calls.verdicts(model, count=count, after=after))

    async def evidence(self, model: str, *, count: int = 1000, after: str = "0-0") -> list[Json]:
        """See `Client.evidence`."""
        return await self._send(calls.evidence(model, count=count, after=after))

    async def signals(
        self,
        model: str,
        *,
        kind: str | None = None,
        status: str | None = None,
        after: str | None = None,
        count: int = 100,
    ) -> Json:
        """See `Client.signals`."""
        wanted = {"kind": kind, "status": status, "after": after, "count": count}
        return await self._send(calls.signals(model, **wanted))

    async def metrics(self, model: str, *, window_s: float = 900.0) -> Json:
        """See `Client.metrics`."""
        return await self._send(calls.metrics(model, window_s))

    async def bias(self, model: str) -> Json:
        """See `Client.bias`."""
        return await self._send(calls.bias(model))

    async def alarms(self, model: str, *, count: int = 100, after: str | None = None) -> list[Json]:
        """See `Client.alarms`."""
        return await self._send(calls.alarms(model, count=count, after=after))

    async def quarantine(self, model: str, *, after: str | None = None, count: int = 100) -> Json:
        """See `Client.quarantine`."""
        return await self._send(calls.quarantine(model, after=after, count=count))

    async def release(
        self,
        model: str,
        feedback_ids: Iterable[str] = (),
        *,
        rolled_back: bool = False,
        reason: str = "",
        dry_run: bool = False,
    ) -> Json:
        """See `Client.release`."""
        wanted = {"rolled_back": rolled_back, "reason": reason, "dry_run": dry_run}
        return await self._send(calls.release(model, feedback_ids, **wanted))

    async def audits(self, model: str, *, count: int = 20) -> list[Json]:
        """See `Client.audits`."""
        return await self._send(calls.queue(model, "audit", count))

    async def queue(self, model: str, lane: Lane = "any", *, count: int = 20) -> list[Json]:
        """See `Client.queue`."""
        return await self._send(calls.queue(model, lane, count))

    async def lease(
        self,
        model: str,
        *,
        count: int = 20,
        lane: Lane = "any",
        seconds: float = 300.0,
        rater: str | None = None,
        prediction_ids: Iterable[str] | None = None,
    ) -> Json:
        """See `Client.lease`."""
        ids = None if prediction_ids is None else list(prediction_ids)
        wanted = {"count": count, "lane": lane, "seconds": seconds, "rater": rater}
        return await self._send(calls.lease(model, wanted | {"prediction_ids": ids}))

    async def skip(
        self,
        model: str,
        prediction_ids: Iterable[str],
        *,
        rater: str | None = None,
        again: bool = False,
    ) -> int:
        """See `Client.skip`."""
        return await self._send(calls.skip(model, prediction_ids, rater, again=again))

    async def gold(
        self, model: str, features: Mapping[str, Any], value: Any, **fields: Any
    ) -> Json:
        """See `Client.gold`."""
        return await self._send(calls.gold(model, {"features": features, "value": value, **fields}))

    async def register(
        self,
        model: str,
        file: bytes | Path | str,
        *,
        note: str = "",
        candidate: bool = False,
        dry_run: bool = False,
    ) -> Json:
        """See `Client.register`."""
        read = Path("" if isinstance(file, bytes) else file).read_bytes
        wanted = {"candidate": candidate, "dry_run": dry_run}
        sent = file if isinstance(file, bytes) else await asyncio.to_thread(read)
        return await self._send(calls.register(model, sent, note, **wanted))

    async def promote(self, model: str, version: int, *, dry_run: bool = False) -> Json:
        """See `Client.promote`."""
        body = {"version": version, "dry_run": dry_run}
        return await self._send(calls.operation(model, "promote", body))

    async def rollback(
        self, model: str, version: int | None = None, *, dry_run: bool = False
    ) -> Json:
        """See `Client.rollback`."""
        body = {"version": version, "dry_run": dry_run}
        return await self._send(calls.operation(model, "rollback", body))

    async def freeze(self, model: str, *, dry_run: bool = False) -> Json:
        """See `Client.freeze`."""
        return await self._send(calls.operation(model, "freeze", {"dry_run": dry_run}))

    async def thaw(self, model: str, *, dry_run: bool = False) -> Json:
        """See `Client.thaw`."""
        return await self._send(calls.operation(model, "thaw", {"dry_run": dry_run}))

    async def stream(
        self,
        model: str,
        events: Iterable[str] = KINDS,
        *,
        after: str | None = None,
        patience_s: float = 60.0,
    ) -> AsyncGenerator[Event]:
        """See `Client.stream`: `async for event in client.stream("spam"):`.

        Who leaves the loop early, and goes on, closes it: `async with aclosing(client.stream(...))
        as events`.
        """
        reader = Reader(model, events, after=after, retry=self._retry, patience_s=patience_s)
        outcome: Outcome | None = None
        while True:
            wait_s, request = reader.again(outcome)
            if wait_s:
                await self._sleep(wait_s)
            try:
                async with self._http.stream(**request, timeout=TIMEOUT) as outcome:
                    if not outcome.is_success:
                        await outcome.aread()
                        continue
                    async for line in outcome.aiter_lines():
                        if (event := reader.line(line)) is not None:
                            yield event
            except httpx2.RequestError as error:
                outcome = error

    async def ready(self) -> Json:
        """See `Client.ready`."""
        return await self._send(calls.ready())

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
