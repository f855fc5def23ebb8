"""What a gateway counts: answers, and what was refused or said twice. Streams know none of that.

Who is not let in is not counted, nor what names no model of ours: whoever can reach the port could
else write into a team's figures. A request that is refused as a whole counts once, and an answer
whose client hung up before it was logged does not count.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from online_learner.errors import Forbidden, NotFound, ServiceError, Unauthorized
from online_learner.ids import Address
from online_learner.ingest import Receipt
from online_learner.metrics import Series, Tally
from online_learner.metrics.names import KINDS, known
from online_learner.requests import FeedbackRequest, read_json
from serve_app.service import Service

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

READ_BYTES = 1 << 14  # of a refused body, that is read once more to find out what it is about
_OK: Series = ("predictions_total", "ok")  # made once: it is on the way of every answer
_OUTSIDE = (Unauthorized, Forbidden)
_APART = ("duplicate", "archived_only")


def counted(handler: Endpoint) -> Endpoint:
    """Count the requests that a handler refuses; those that it answers are with `count_answers`."""

    @functools.wraps(handler)
    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except ServiceError as error:
            service, model = request.app.state.service, request.path_params["model"]
            if model in service.rooms and not isinstance(error, _OUTSIDE):
                service.teller.of(model).count("predictions_total", outcome=error.code)
            raise

    return handle


def count_answers(
    tally: Tally, places: Iterable[Address | ServiceError], *, refuse: bool, began: float
) -> None:
    """Count answers by what became of them: what is not in the log is refused, or unlogged.

    Parameters
    ----------
    began
        When the request did, by `time.perf_counter`.
    """
    tally.time("prediction_seconds", time.perf_counter() - began)
    for place in places:
        if isinstance(place, Address):
            tally.counts[_OK] += 1
        else:
            tally.count("predictions_total", outcome=place.code if refuse else "unlogged")


def count_refused_items(service: Service, model: str, outcomes: Iterable[object]) -> None:
    """Count the items of a batch that were refused before there was an answer."""
    for outcome in outcomes:
        if isinstance(outcome, ServiceError):
            service.teller.of(model).count("predictions_total", outcome=outcome.code)


# --- feedback ---------------------------------------------------------------------------------


def count_feedback(
    service: Service,
    asked: FeedbackRequest | bytes,
    result: Receipt | ServiceError,
    *,
    by_key: bool = True,
) -> None:
    """Count what was said twice, late, or refused; what was accepted is counted from its stream.

    Parameters
    ----------
    asked
        The body where it could not be read.
    by_key
        Whether who says it showed a key. Without one, only an id of ours leads to a model.
    """
    if isinstance(result, Receipt):
        _count_others(service, asked, result)
        return
    if isinstance(result, _OUTSIDE):
        return
    sent = _sent(asked) if isinstance(asked, bytes) else asked.model_dump(exclude_unset=True)
    _count_refusal(service, sent, result, by_key=by_key)


def count_batch(
    service: Service,
    sent: Sequence[Any],
    asked: Sequence[FeedbackRequest | ServiceError],
    results: Sequence[Receipt | ServiceError],
) -> None:
    """Count what was said twice, or refused, in a batch.

    Parameters
    ----------
    sent
        The items as they came, for those that could not be read.
    """
    for item, signal, result in zip(sent, asked, results, strict=True):
        if isinstance(signal, FeedbackRequest):
            count_feedback(service, signal, result)
        elif isinstance(result, ServiceError):
            _count_refusal(service, item, result, by_key=True)


def _count_others(service: Service, asked: Any, receipt: Receipt) -> None:
    """Count what came to no stream that is counted: nothing of a dry run."""
    if receipt.status == "accepted" and not receipt.signals:
        return
    if receipt.feedback_id is None:
        return
    kinds = [said.kind for said in asked.said()]
    statuses = [signal["status"] for signal in receipt.signals] or [receipt.status] * len(kinds)
    tally = service.teller.of(receipt.model)
    for kind, status in zip(kinds, statuses, strict=True):
        if status in _APART:
            tally.count("feedback_total", kind=kind, outcome=status)


def _count_refusal(service: Service, sent: Any, error: ServiceError, *, by_key: bool) -> None:
    model = _model_of(service, sent, by_key=by_key)
    if model is None or sent.get("dry_run") is True:
        return
    signals = sent.get("signals")
    for signal in signals[:16] if isinstance(signals, list) else [sent]:
        kind = known(signal.get("kind") if isinstance(signal, dict) else None, KINDS)
        service.teller.of(model).count("feedback_total", kind=kind, outcome=error.code)


def _model_of(service: Service, sent: Any, *, by_key: bool) -> str | None:
    """Return the model of which something was said; None where that is none of ours."""
    if not isinstance(sent, dict):
        return None
    model = sent.get("model")
    if by_key and isinstance(model, str) and model in service.rooms:
        return model
    for name in ("prediction_id", "chosen"):
        prediction_id = sent.get(name)
        if isinstance(prediction_id, str):
            try:
                return service.open_id("prediction", prediction_id)[0].model
            except NotFound:
                continue
    return None


def _sent(body: bytes) -> Any:
    """Return a short body as JSON, as far as it is."""
    try:
        found = read_json(body) if len(body) <= READ_BYTES else {}
    except ServiceError:
        return {}
    return found if isinstance(found, dict) else {}
