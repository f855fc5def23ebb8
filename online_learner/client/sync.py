"""The client."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

import httpx2

from online_learner.client import calls, rewards, signals
from online_learner.client.answers import Answer, NamedAnswer, id_of
from online_learner.client.errors import ApiError
from online_learner.client.fields import FeedbackFields, LogFields, PredictFields, SignalFields
from online_learner.client.labelling import Labelling
from online_learner.client.place import locate
from online_learner.client.receipts import BatchReceipt, Fate, Receipt
from online_learner.client.sending import Json, Outcome, Retry, Sent
from online_learner.client.stream import KINDS, TIMEOUT, Event, Reader

T = TypeVar("T")


class Client(Labelling):
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
        self._http = httpx2.Client(transport=transport, **place.options(timeout_s))
        self._retry = retry or Retry()
        self._sleep = sleep

    def _send(self, what: Sent[T]) -> T:
        course = what.course(self._retry.begin())
        wait_s, request = next(course)
        while True:
            if wait_s:
                self._sleep(wait_s)
            outcome: Outcome
            try:
                outcome = self._http.request(**request)
            except httpx2.RequestError as error:
                outcome = error
            try:
                wait_s, request = course.send(outcome)
            except StopIteration as done:
                result: T = done.value
                return result

    def predict(
        self, model: str, features: Mapping[str, Any], **fields: Unpack[PredictFields]
    ) -> Answer[Receipt]:
        """Ask for one answer. It is in the log, and open for feedback, when this returns.

        Examples
        --------
        >>> reply = {"prediction_id": "AbC", "model": "spam", "version": 2, "step": 40,
        ...          "output": "spam", "scores": {"spam": 0.9, "ham": 0.1}, "uncertainty": 0.1,
        ...          "propensity": 1.0, "ask": None, "flags": [], "blocked": False,
        ...          "feedback_expires_at": "2030-01-01T00:00:00.000Z"}
        >>> here = httpx2.MockTransport(lambda request: httpx2.Response(200, json=reply))
        >>> client = Client("http://learner:8000", "ol_key", transport=here)
        >>> answer = client.predict("spam", {"length": 120, "links": 3}, user_id="ada")
        >>> answer.output, answer.scores["spam"], answer.version
        ('spam', 0.9, 2)
        """
        return self._send(calls.predict(self._say, model, features, fields))

    def predict_batch(
        self, model: str, instances: Iterable[Mapping[str, Any]]
    ) -> list[Answer[Receipt] | ApiError]:
        """Ask for several answers, `{"features": ...}` each; errors stand in their places."""
        return self._send(calls.predict_batch(self._say, model, instances))

    def log(
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
    ) -> Answer[Receipt]:
        """Log an answer that was made elsewhere, so that feedback on it joins.

        Parameters
        ----------
        outputs
            What was made: texts, or `{"id", "text" or "json", "logprobs"}`. Where it has none, an
            output's id is its place, from "0".
        prompt, messages
            What was asked: one of the two.
        features, options, output, scores
            For other tasks than `generation`, in their place: what was asked, and the label, the
            number, or the ids of the options in the order shown. Say with `model_version` of what.
        """
        answered = {"features": features, "options": options, "output": output, "scores": scores}
        asked = calls.made(prompt, messages, outputs, answered)
        return self._send(calls.log(self._say, model, asked, fields))

    def log_batch(
        self, model: str, answers: Iterable[Mapping[str, Any]]
    ) -> list[Answer[Receipt] | ApiError]:
        """Log several answers that were made elsewhere, each with the fields of `log`.

        Errors stand in their places. Where all of them are to be logged `once`, by `external_id`,
        the call is sent again also where no reply came.
        """
        return self._send(calls.log_batch(self._say, model, answers))

    def log_chat(
        self, model: str, request: Any, response: Any, **fields: Unpack[LogFields]
    ) -> Answer[Receipt]:
        """Log an OpenAI chat request and its response, as they are: dicts or OpenAI's objects.

        The response's `id` is the `external_id` of the answer, its `model` the `model_version`.
        """
        asked = {"request": request, "response": response}
        return self._send(calls.log(self._say, model, asked, fields))

    def score(
        self,
        model: str,
        *,
        outputs: Iterable[str | Mapping[str, Any]],
        prompt: str | None = None,
        messages: Sequence[Any] | None = None,
    ) -> list[float]:
        """Return the rewards that the reward model gives to some outputs. Nothing is logged."""
        return self._send(calls.score(model, calls.generated(prompt, messages, outputs)))

    def reward_func(self, model: str) -> Callable[..., list[float]]:
        """Return the reward model as a reward function of TRL; see `rewards`."""

        def reward(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
            groups = rewards.by_prompt(prompts, completions)
            found = [self._send(calls.score(model, asked)) for _, asked in groups]
            return rewards.in_order([places for places, _ in groups], found)

        reward.__name__ = model
        return reward

    def feedback(
        self, prediction_id: str, kind: str, value: Any = None, **fields: Unpack[SignalFields]
    ) -> Receipt:
        """Say one thing about one answer. It is durable, and learned once, when this returns.

        Each call is a signal of its own. Give the same `idempotency_key` to say the same thing
        again, from another process or after a restart.

        Parameters
        ----------
        kind, value
            `signals` has the kinds; some have other fields than a value.

        Raises
        ------
        PredictionGone
            The id is unknown, or its window is closed: drop the signal.
        """
        signal = signals.of_kind(kind, value)
        return self._say({"prediction_id": prediction_id, **signal, **fields})

    def about(
        self, model: str, *, external_id: str | None = None, session_id: str | None = None
    ) -> NamedAnswer[Receipt]:
        """Name an answer by your own id for it, or the latest answer of a session.

        Nothing is sent before something is said: `client.about("chat", session_id="s").rate(4)`.
        """
        return NamedAnswer(model, external_id, session_id, self._say)

    def prefer(
        self,
        chosen: Answer[Any] | str,
        rejected: Answer[Any] | str,
        **fields: Unpack[FeedbackFields],
    ) -> Receipt:
        """Say which of two answers of a model is better: answers, or their prediction ids."""
        return self._say({**signals.preference(id_of(chosen), id_of(rejected)), **fields})

    def _say(self, body: Json) -> Receipt:
        return self._send(calls.feedback(body))

    def feedback_batch(self, items: Iterable[Mapping[str, Any]]) -> BatchReceipt:
        """Say several things, `{"prediction_id", "kind", "value", ...}` each, each by itself.

        What is refused temporarily (429, 503) is sent again alone, as `retry` says.
        """
        return self._send(calls.feedback_batch(items))

    def receipt(self, feedback_id: str) -> Fate:
        """Tell what became of a signal."""
        return self._send(calls.receipt(feedback_id))

    def retract(self, feedback_id: str) -> Json:
        """Take back what was said; `unlearned` tells whether it is still in the weights."""
        return self._send(calls.retract(feedback_id))

    def prediction(self, prediction_id: str) -> Json:
        """Tell the whole story of an answer: the record, and what was said about it."""
        return self._send(calls.prediction(prediction_id))

    def release(
        self,
        model: str,
        feedback_ids: Iterable[str] = (),
        *,
        rolled_back: bool = False,
        reason: str = "",
        dry_run: bool = False,
    ) -> Json:
        """Have signals learned after all, all or none; or all that the last pull rolled back."""
        wanted = {"rolled_back": rolled_back, "reason": reason, "dry_run": dry_run}
        return self._send(calls.release(model, feedback_ids, **wanted))

    def register(
        self,
        model: str,
        file: bytes | Path | str,
        *,
        note: str = "",
        candidate: bool = False,
        dry_run: bool = False,
    ) -> Json:
        """Register weights that were trained elsewhere: a first version, or a candidate.

        Parameters
        ----------
        file
            A pickle of a River model, the safetensors of a torch head, or what `bring.save` writes:
            its bytes, or where it is.
        candidate
            Have it tested first, even where the model has learned nothing yet.

        Returns
        -------
        `version`, what it `becomes` (`champion` or `candidate`), whether it is a `duplicate`, and a
        `sentence`.
        """
        wanted = {"candidate": candidate, "dry_run": dry_run}
        sent = file if isinstance(file, bytes) else Path(file).read_bytes()
        return self._send(calls.register(model, sent, note, **wanted))

    def promote(self, model: str, version: int, *, dry_run: bool = False) -> Json:
        """Let a version answer, by hand."""
        body = {"version": version, "dry_run": dry_run}
        return self._send(calls.operation(model, "promote", body))

    def rollback(self, model: str, version: int | None = None, *, dry_run: bool = False) -> Json:
        """Go back to the version before, or to the one named, and freeze."""
        body = {"version": version, "dry_run": dry_run}
        return self._send(calls.operation(model, "rollback", body))

    def freeze(self, model: str, *, dry_run: bool = False) -> Json:
        """Let what answers now go on answering: nothing is promoted."""
        return self._send(calls.operation(model, "freeze", {"dry_run": dry_run}))

    def thaw(self, model: str, *, dry_run: bool = False) -> Json:
        """Let the gate decide again."""
        return self._send(calls.operation(model, "thaw", {"dry_run": dry_run}))

    def stream(
        self,
        model: str,
        events: Iterable[str] = KINDS,
        *,
        after: str | None = None,
        patience_s: float = 60.0,
    ) -> Generator[Event, None, None]:
        r"""Yield what happens to a model, as it happens, until you leave the loop.

        Where the connection breaks, it goes on after the event that came last: none is lost, and
        none comes twice. Its `close()` ends it, too.

        Parameters
        ----------
        events
            Some of `metrics`, `feedback`, `verdict`, `swap`, `alarm` and `quality`.
        after
            The `id` of an event: begin after it. Else from now on.
        patience_s
            For how long the service may be away before `NotReachable` is raised.

        Examples
        --------
        >>> sent = 'event: swap\ndata: {"model":"spam","at":1.5,"version":3}\nid: c1\n\n'
        >>> here = httpx2.MockTransport(lambda request: httpx2.Response(200, text=sent))
        >>> client = Client("http://learner:8000", "ol_key", transport=here)
        >>> for event in client.stream("spam", events=("verdict", "swap")):
        ...     print(event.kind, event.data)
        ...     break
        swap {'version': 3}
        """
        reader = Reader(model, events, after=after, retry=self._retry, patience_s=patience_s)
        outcome: Outcome | None = None
        while True:
            wait_s, request = reader.again(outcome)
            if wait_s:
                self._sleep(wait_s)
            try:
                with self._http.stream(**request, timeout=TIMEOUT) as outcome:
                    if outcome.is_success:
                        yield from filter(None, map(reader.line, outcome.iter_lines()))
                    else:
                        outcome.read()
            except httpx2.RequestError as error:
                outcome = error

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
