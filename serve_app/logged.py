"""Log answers, and reply each as its client gets it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from online_learner.auth import Credential
from online_learner.errors import ServiceError, Unavailable
from online_learner.ids import Address
from online_learner.journal import Known
from online_learner.render import render
from online_learner.schema import Prediction
from online_learner.stages import Stages
from serve_app.service import Service
from serve_app.telemetry import spans, tracing
from serve_app.telemetry.counting import count_answers
from serve_app.telemetry.logs import note


async def log_answers(
    service: Service,
    credential: Credential,
    room: Stages,
    records: list[Prediction],
    began: float,
    *,
    asked: Sequence[Any] = (),
) -> list[dict[str, Any] | ServiceError]:
    """Log the answers for which there is room, and return each as its client gets it.

    What is not in the log is refused or answered without an id, by `on_store_down`. Of what was
    `asked`, it is known which answers are logged once, and which were only tried (`dry_run`).
    """
    how: dict[str, Any] = {
        "window_s": service.settings.window_s,
        "reader": "read" in credential.scopes,
    }
    seal, model = service.keyring.seal, room.registry.model
    refuse = service.settings.on_store_down == "refuse"
    once = [getattr(item, "once", False) for item in asked]
    if any(getattr(item, "dry_run", False) for item in asked):
        return [render(record, None, None, **how) for record in records]
    places = await _places(service, room, records, once)
    lost = [place for place in places if isinstance(place, Unavailable)]
    if refuse and len(lost) == len(places):
        raise lost[0]
    count_answers(service.teller.of(model), places, refuse=refuse, began=began)
    answers: list[dict[str, Any] | ServiceError] = []
    for record, place in zip(records, places, strict=True):
        if isinstance(place, Address):
            answer = render(record, seal("prediction", model, place), place, **how)
            answers.append(answer | {"known": True} if isinstance(place, Known) else answer)
        else:
            answers.append(place if refuse else render(record, None, None, **how))
    spans.answered(model, answers)
    if isinstance(answers[0], dict) and len(answers) == 1:
        note(prediction_id=answers[0]["prediction_id"])
    return answers


async def _places(
    service: Service, room: Stages, records: list[Prediction], once: Sequence[bool]
) -> list[Address | Unavailable]:
    """Log answers; returns where each is, or why it is not in the log."""
    health = service.store.health
    refused = [health.no_room(audited=record.audited) for record in records]
    kept = [record for record, why in zip(records, refused, strict=True) if why is None]
    if once:
        once = [one for one, why in zip(once, refused, strict=True) if why is None]
    try:
        with tracing.span("journal append", model=room.registry.model, answers=len(kept)):
            logged = iter(await room.journal.append(kept, once) if kept else ())
    except Unavailable as error:
        return [why or error for why in refused]
    return [why or next(logged) for why in refused]
