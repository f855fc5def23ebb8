"""The calls of the API, without the sending: both clients build and read them here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote, urlencode
from uuid import uuid4

from online_learner.client.answers import Answer
from online_learner.client.batch import Batch, FeedbackBatch
from online_learner.client.errors import ApiError, api_error
from online_learner.client.receipts import Fate, Receipt
from online_learner.client.sending import Call, Json, Repeat

R = TypeVar("R")

# --- answers ----------------------------------------------------------------------------------


def predict(
    send: Callable[[Json], R], model: str, features: Mapping[str, Any], fields: Mapping[str, Any]
) -> Call[Answer[R]]:
    """Ask for one answer."""
    return _logged(send, _of(model, "predict"), {"features": features, **fields})


def predict_batch(
    send: Callable[[Json], R], model: str, instances: Iterable[Mapping[str, Any]]
) -> Call[list[Answer[R] | ApiError]]:
    """Ask for several answers; errors stand in their places."""

    def read(reply: Json) -> list[Answer[R] | ApiError]:
        return [
            Answer.read(send, item) if "output" in item else api_error(item)
            for item in reply["predictions"]
        ]

    body = {"instances": list(instances)}
    return Call("POST", _of(model, "predict_batch"), read, body, repeat="refused")


def log(
    send: Callable[[Json], R], model: str, asked: Json, fields: Mapping[str, Any]
) -> Call[Answer[R]]:
    """Log an answer that was made elsewhere; `asked` is what `made` returns, or a chat."""
    body = {**asked, **fields}
    call = _logged(send, _of(model, "log"), body)
    return replace(call, repeat="always") if body.get("once") else call


def log_batch(
    send: Callable[[Json], R], model: str, answers: Iterable[Mapping[str, Any]]
) -> Batch[Answer[R]]:
    """Log several answers that were made elsewhere; errors stand in their places."""
    bodies = [dict(body) for body in answers]
    once = all(body.get("once") for body in bodies)

    def call(part: list[Json]) -> Call[list[Answer[R] | ApiError]]:
        def read(reply: Json) -> list[Answer[R] | ApiError]:
            return [
                Answer.read(send, item) if "output" in item else api_error(item)
                for item in reply["answers"]
            ]

        repeat: Repeat = "always" if once else "refused"
        return Call("POST", _of(model, "log_batch"), read, {"answers": part}, repeat=repeat)

    return Batch(bodies, call)


def score(model: str, asked: Json) -> Call[list[float]]:
    """Ask for the rewards of some outputs; `asked` is what `generated` returns."""
    return Call("POST", _of(model, "score"), lambda reply: list(reply["rewards"]), asked)


def generated(
    prompt: str | None, messages: Any, outputs: Iterable[str | Mapping[str, Any]]
) -> Json:
    """Return what a generator was asked and made; an output without an id gets its place.

    >>> generated("Hi", None, ["Hello.", {"json": {"a": 1}}])["outputs"]
    [{'id': '0', 'text': 'Hello.'}, {'id': '1', 'json': {'a': 1}}]
    """
    asked = {"prompt": prompt, "messages": messages}
    made = [{"text": output} if isinstance(output, str) else output for output in outputs]
    return {
        **{name: value for name, value in asked.items() if value is not None},
        "outputs": [{"id": str(place), **output} for place, output in enumerate(made)],
    }


def made(
    prompt: str | None,
    messages: Any,
    outputs: Iterable[str | Mapping[str, Any]] | None,
    answered: Mapping[str, Any],
) -> Json:
    """Return what was asked and answered elsewhere: by a generator, or by another model.

    >>> made(None, None, None, {"features": {"a": 1}, "output": "spam", "options": None})
    {'features': {'a': 1}, 'output': 'spam'}
    """
    if outputs is not None:
        return generated(prompt, messages, outputs)
    asked = {"prompt": prompt, "messages": messages, **answered}
    return {name: value for name, value in asked.items() if value is not None}


def _logged(send: Callable[[Json], R], path: str, body: Json) -> Call[Answer[R]]:
    return Call("POST", path, lambda reply: Answer.read(send, reply), body, repeat="refused")


# --- feedback ---------------------------------------------------------------------------------


def feedback(body: Json) -> Call[Receipt]:
    """Say something about an answer, under an idempotency key."""
    key = {} if body.get("idempotency_key") else {"idempotency-key": uuid4().hex}
    return Call("POST", "/v1/feedback", Receipt.read, body, key)


def feedback_batch(items: Iterable[Mapping[str, Any]]) -> FeedbackBatch:
    """Say several things, each under an idempotency key of its own."""
    return FeedbackBatch(
        [{**item, "idempotency_key": item.get("idempotency_key") or uuid4().hex} for item in items]
    )


def receipt(feedback_id: str) -> Call[Fate]:
    """Ask what became of a signal."""
    return Call("GET", f"/v1/feedback/{quote(feedback_id, safe='')}", Fate.read)


def retract(feedback_id: str) -> Call[Json]:
    """Take back what was said."""
    return Call("DELETE", f"/v1/feedback/{quote(feedback_id, safe='')}", _whole)


# --- reading and moving -----------------------------------------------------------------------


def prediction(prediction_id: str) -> Call[Json]:
    """Ask for the whole story of an answer."""
    return Call("GET", f"/v1/predictions/{quote(prediction_id, safe='')}", _whole)


def models() -> Call[list[Json]]:
    """Ask for the state of every model."""
    return Call("GET", "/v1/models", lambda reply: list(reply["models"]))


def model(name: str) -> Call[Json]:
    """Ask for the state of one model."""
    return Call("GET", _of(name), _whole)


def versions(name: str) -> Call[list[Json]]:
    """Ask for the kept snapshots."""
    return Call("GET", _of(name, "versions"), lambda reply: list(reply["versions"]))


def verdicts(name: str, **wanted: Any) -> Call[list[Json]]:
    """Ask for decisions."""
    path = _asking(_of(name, "verdicts"), wanted)
    return Call("GET", path, lambda reply: list(reply["verdicts"]))


def evidence(name: str, **wanted: Any) -> Call[list[Json]]:
    """Ask for settled audits."""
    path = _asking(_of(name, "evidence"), wanted)
    return Call("GET", path, lambda reply: list(reply["evidence"]))


def metrics(name: str, window_s: float) -> Call[Json]:
    """Ask for the figures of one model."""
    return Call("GET", _asking(_of(name, "metrics"), {"window_s": window_s}), _whole)


def bias(name: str) -> Call[Json]:
    """Ask for what is known of those who speak and those who are silent."""
    return Call("GET", _of(name, "bias"), _whole)


def alarms(name: str, **wanted: Any) -> Call[list[Json]]:
    """Ask for what observers raised."""
    path = _asking(_of(name, "alarms"), wanted)
    return Call("GET", path, lambda reply: list(reply["alarms"]))


def signals(name: str, **wanted: Any) -> Call[Json]:
    """Ask for a page of what was said."""
    return Call("GET", _asking(_of(name, "feedback"), wanted), _whole)


def quarantine(name: str, **wanted: Any) -> Call[Json]:
    """Ask for a page of what was set aside or rolled back."""
    return Call("GET", _asking(_of(name, "quarantine"), wanted), _whole)


def queue(name: str, lane: str, count: int) -> Call[list[Json]]:
    """Ask for answers that wait for a label."""
    path = _asking(_of(name, "queue"), {"lane": lane, "count": count})
    return Call("GET", path, lambda reply: list(reply["queue"]))


def lease(name: str, body: Json) -> Call[Json]:
    """Ask for answers to label; where no reply comes, they may be leased all the same."""
    sent = {key: value for key, value in body.items() if value is not None}
    return Call("POST", _of(name, "queue/lease"), _whole, sent, repeat="refused")


def skip(name: str, prediction_ids: Iterable[str], rater: str | None, *, again: bool) -> Call[int]:
    """Give answers back unlabelled; a second time, there is nothing to give back."""
    body: Json = {"prediction_ids": list(prediction_ids), "again": again}
    sent = body if rater is None else body | {"rater": rater}
    return Call("POST", _of(name, "queue/skip"), lambda reply: int(reply["given_back"]), sent)


def gold(name: str, body: Json) -> Call[Json]:
    """Plant a question with its right answer; it may arrive once only."""
    return Call("POST", _of(name, "gold"), _whole, body, repeat="unsent")


def operation(name: str, action: str, body: Json | None = None) -> Call[Json]:
    """Move a model by hand; it may arrive once only, since others may move it as well."""
    return Call("POST", _of(name, action), _whole, body, repeat="unsent")


def register(name: str, file: bytes, note: str, *, candidate: bool, dry_run: bool) -> Call[Json]:
    """Send weights that were trained elsewhere; the same file again is known by its digest."""
    wanted: Json = {"note": note or None}
    wanted |= {"candidate": "true" if candidate else None, "dry_run": "true" if dry_run else None}
    return Call("POST", _asking(_of(name, "versions"), wanted), _whole, file=file)


def release(name: str, feedback_ids: Iterable[str], **wanted: Any) -> Call[Json]:
    """Have signals learned after all."""
    return operation(name, "quarantine/release", {"feedback_ids": list(feedback_ids), **wanted})


def ready() -> Call[Json]:
    """Ask whether everything is there."""

    def read(reply: Json) -> Json:
        return reply if "ready" in reply else {"ready": False, "detail": reply.get("detail")}

    return Call("GET", "/readyz", read, probe=True)


def _of(model: str, part: str = "") -> str:
    return f"/v1/models/{quote(model, safe='')}" + (f"/{part}" if part else "")


def _asking(path: str, wanted: Mapping[str, Any]) -> str:
    """Return a path with what is wanted of it.

    >>> _asking("/feedback", {"kind": "thumbs", "after": None})
    '/feedback?kind=thumbs'
    """
    return f"{path}?{urlencode({k: value for k, value in wanted.items() if value is not None})}"


def _whole(reply: Json) -> Json:
    return reply
