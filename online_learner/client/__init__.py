"""The client library: ask, say what was wrong, read what became of it.

    from online_learner.client import Client

    with Client() as client:
        answer = client.predict("phishing", {"https": 0.0, "ip_in_url": 1})
        receipt = answer.correct(True)
        client.receipt(receipt.feedback_id).status  # "accepted", and soon "learned"

`AsyncClient` has the same methods, to be awaited. Feedback carries an idempotency key, so that it
is repeated safely where an answer did not come; a prediction is repeated only where the service
refused it, or was not reached.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Self, TypeAlias, TypeVar, Unpack

import httpx2

from online_learner.client import calls
from online_learner.client.answers import (
    Answer,
    BatchReceipt,
    Fate,
    FeedbackFields,
    PredictFields,
    Receipt,
)
from online_learner.client.calls import Call, Json, Retry
from online_learner.client.errors import ApiError, NotReachable, PredictionGone
from online_learner.client.place import Place, locate

__all__ = [
    "Answer",
    "ApiError",
    "AsyncClient",
    "BatchReceipt",
    "Client",
    "Fate",
    "NotReachable",
    "PredictionGone",
    "Receipt",
    "Retry",
]

T = TypeVar("T")
SyncAnswer: TypeAlias = Answer[Receipt]
AsyncAnswer: TypeAlias = Answer[Awaitable[Receipt]]


def _options(place: Place, timeout_s: float) -> dict[str, Any]:
    headers = {} if place.key is None else {"authorization": f"Bearer {place.key}"}
    return {
        "base_url": place.url,
        "headers": headers,
        "timeout": timeout_s,
        "trust_env": not place.is_local,
    }


class Client:
    """A connection to the service. Safe to share between threads.

    Parameters
    ----------
    url, key
        Where the service is, and a key for it; else `OL_URL` and `OL_API_KEY`, else what a running
        `online-learner up` wrote into `OL_DATA_DIR` or `./.online_learner`.
    timeout_s
        For connecting, and for each read and write. An attempt may take that long, and there are
        at most `retry.attempts`.
    retry
        How often, and how long to wait in between.
    sleep, transport
        For tests.

    Raises
    ------
    NotReachable
        No service is known.

    Every method raises `ApiError` where the service refuses, `NotReachable` where no answer comes.

    Examples
    --------
    >>> reply = {"durability": "fsynced", "models": [{"model": "phishing", "version": 3}]}
    >>> here = httpx2.MockTransport(lambda request: httpx2.Response(200, json=reply))
    >>> with Client("http://learner:8000", "ol_key", transport=here) as client:
    ...     client.models()
    [{'model': 'phishing', 'version': 3}]
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 10.0,
        retry: Retry | None = None,
        sleep: Callable[[float], object] = time.sleep,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        place = locate(url, key)
        self.url = place.url
        self._http = httpx2.Client(transport=transport, **_options(place, timeout_s))
        self._retry = retry or Retry()
        self._sleep = sleep

    def _send(self, call: Call[T]) -> T:
        request, course = call.request(), call.course(self._retry)
        wait_s = next(course)
        while True:
            if wait_s:
                self._sleep(wait_s)
            outcome: calls.Outcome
            try:
                outcome = self._http.request(**request)
            except httpx2.RequestError as error:
                outcome = error
            try:
                wait_s = course.send(outcome)
            except StopIteration as done:
                result: T = done.value
                return result

    def predict(
        self, model: str, features: Mapping[str, Any], **fields: Unpack[PredictFields]
    ) -> SyncAnswer:
        """Ask for one answer. It is in the log, and open for feedback, when this returns.

        Examples
        --------
        >>> reply = {"prediction_id": "AbC", "model": "spam", "version": 2, "step": 40,
        ...          "output": "spam", "scores": {"spam": 0.9, "ham": 0.1}, "uncertainty": 0.1,
        ...          "ask": None, "feedback_expires_at": "2030-01-01T00:00:00.000Z"}
        >>> here = httpx2.MockTransport(lambda request: httpx2.Response(200, json=reply))
        >>> client = Client("http://learner:8000", "ol_key", transport=here)
        >>> answer = client.predict("spam", {"length": 120, "links": 3}, user_id="ada")
        >>> answer.output, answer.scores["spam"], answer.version
        ('spam', 0.9, 2)
        """
        return self._send(calls.predict(self.feedback, model, features, fields))

    def predict_batch(
        self, model: str, instances: Iterable[Mapping[str, Any]]
    ) -> list[SyncAnswer | ApiError]:
        """Ask for several answers, `{"features": ...}` each; errors stand in their places."""
        return self._send(calls.predict_batch(self.feedback, model, instances))

    def feedback(
        self, prediction_id: str, kind: str, value: Any, **fields: Unpack[FeedbackFields]
    ) -> Receipt:
        """Say one thing about one answer. It is durable, and learned once, when this returns.

        Each call is a signal of its own. Give the same `idempotency_key` to say the same thing
        again, from another process or after a restart.

        Raises
        ------
        PredictionGone
            The id is unknown, or its window is closed: drop the signal.
        """
        return self._send(calls.feedback(prediction_id, kind, value, fields))

    def feedback_batch(self, items: Iterable[Mapping[str, Any]]) -> BatchReceipt:
        """Say several things, `{"prediction_id", "kind", "value", ...}` each, each by itself."""
        return self._send(calls.feedback_batch(items))

    def receipt(self, feedback_id: str) -> Fate:
        """Tell what became of a signal."""
        return self._send(calls.receipt(feedback_id))

    def prediction(self, prediction_id: str) -> Json:
        """Tell the whole story of an answer: the record, and what was said about it."""
        return self._send(calls.prediction(prediction_id))

    def models(self) -> list[Json]:
        """Tell who answers for each model, how far its learner is, and who is alive."""
        return self._send(calls.models())

    def model(self, model: str) -> Json:
        """Tell the same of one model."""
        return self._send(calls.model(model))

    def versions(self, model: str) -> list[Json]:
        """List the kept snapshots, oldest first."""
        return self._send(calls.versions(model))

    def verdicts(self, model: str, *, count: int = 100) -> list[Json]:
        """List the newest decisions with the numbers behind them, newest first."""
        return self._send(calls.verdicts(model, count))

    def promote(self, model: str, version: int, *, dry_run: bool = False) -> Json:
        """Let a version answer, by hand."""
        body = {"version": version, "dry_run": dry_run}
        return self._send(calls.operation(model, "promote", body))

    def rollback(self, model: str, version: int | None = None, *, dry_run: bool = False) -> Json:
        """Go back to the version before, or to the one named, and freeze."""
        body = {"version": version, "dry_run": dry_run}
        return self._send(calls.operation(model, "rollback", body))

    def freeze(self, model: str) -> Json:
        """Let what answers now go on answering: nothing is promoted."""
        return self._send(calls.operation(model, "freeze"))

    def thaw(self, model: str) -> Json:
        """Let the gate decide again."""
        return self._send(calls.operation(model, "thaw"))

    def ready(self) -> Json:
        """Tell whether store, weights and writers are all there: `{"ready": bool, ...}`."""
        return self._send(calls.ready())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


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
        self._http = httpx2.AsyncClient(transport=transport, **_options(place, timeout_s))
        self._retry = retry or Retry()
        self._sleep = sleep

    async def _send(self, call: Call[T]) -> T:
        request, course = call.request(), call.course(self._retry)
        wait_s = next(course)
        while True:
            if wait_s:
                await self._sleep(wait_s)
            outcome: calls.Outcome
            try:
                outcome = await self._http.request(**request)
            except httpx2.RequestError as error:
                outcome = error
            try:
                wait_s = course.send(outcome)
            except StopIteration as done:
                result: T = done.value
                return result

    async def predict(
        self, model: str, features: Mapping[str, Any], **fields: Unpack[PredictFields]
    ) -> AsyncAnswer:
        """See `Client.predict`; the answer's `correct` and `thumbs` are to be awaited."""
        return await self._send(calls.predict(self.feedback, model, features, fields))

    async def predict_batch(
        self, model: str, instances: Iterable[Mapping[str, Any]]
    ) -> list[AsyncAnswer | ApiError]:
        """See `Client.predict_batch`."""
        return await self._send(calls.predict_batch(self.feedback, model, instances))

    async def feedback(
        self, prediction_id: str, kind: str, value: Any, **fields: Unpack[FeedbackFields]
    ) -> Receipt:
        """See `Client.feedback`."""
        return await self._send(calls.feedback(prediction_id, kind, value, fields))

    async def feedback_batch(self, items: Iterable[Mapping[str, Any]]) -> BatchReceipt:
        """See `Client.feedback_batch`."""
        return await self._send(calls.feedback_batch(items))

    async def receipt(self, feedback_id: str) -> Fate:
        """See `Client.receipt`."""
        return await self._send(calls.receipt(feedback_id))

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

    async def verdicts(self, model: str, *, count: int = 100) -> list[Json]:
        """See `Client.verdicts`."""
        return await self._send(calls.verdicts(model, count))

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

    async def freeze(self, model: str) -> Json:
        """See `Client.freeze`."""
        return await self._send(calls.operation(model, "freeze"))

    async def thaw(self, model: str) -> Json:
        """See `Client.thaw`."""
        return await self._send(calls.operation(model, "thaw"))

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
