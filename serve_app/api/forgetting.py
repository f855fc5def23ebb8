"""`DELETE /v1/feedback/{feedback_id}`: what was said is taken back.

Whoever may say something may take it back. A key with `feedback` speaks for the users of its
application, and so takes back what they said; what an auditor, the system, or the holder of another
key said takes the scope `audit`, `system`, or that key. With `operate` anything can be taken back.
Without a key, where a model has `public_feedback`, the signed id is enough: it was given to whoever
said it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel, ValidationError

from online_learner import explain
from online_learner.auth import Credential
from online_learner.errors import Forbidden, NotFound, Unauthorized
from online_learner.explain.archived import find_entry
from online_learner.forget.retract import LATE as MARK
from online_learner.forget.retract import retract
from online_learner.ids import LATE, Address
from online_learner.schema import Feedback
from online_learner.stages import Stages
from online_learner.store import Durability, Fields
from serve_app.access import credential_of, is_anonymous, needs
from serve_app.service import Service

OWN_KINDS = {"human", "session", "prediction"}  # who speaks by the id alone; see `ingest.Speaker`


class Retracted(BaseModel):
    """That a signal was taken back, and whether it is still in the weights."""

    feedback_id: str
    model: str
    status: Literal["retracted"]
    unlearned: Literal["pending", "done", "nothing", "impossible"]
    unlearned_why: str = ""
    durability: Durability


@needs("feedback")
def _taker(request: Request) -> Credential | Unauthorized:
    """Return who asks; without a key, where that may do for some model, why it may not."""
    service: Service = request.app.state.service
    try:
        return credential_of(request, "feedback")
    except Unauthorized as no_key:
        if not is_anonymous(request) or not service.ingest.public:
            raise
        return no_key


Taker = Annotated[Credential | Unauthorized, Depends(_taker)]


def add_forgetting(app: FastAPI) -> None:
    """Add the route."""

    @app.delete("/v1/feedback/{feedback_id}", status_code=202)
    async def take_back(request: Request, who: Taker, feedback_id: str) -> Retracted:
        """Take back what was said: it is in no dataset from now on, and soon in no weights."""
        service: Service = request.app.state.service
        room, address = _opened(service, who, feedback_id)
        late = address.shard == LATE
        fields, _ = await find_entry(room.log, "late" if late else "feedback", address, "feedback")
        _check(room, who, fields)
        entry = (MARK if late else "") + address.entry
        by = "feedback_id" if isinstance(who, Unauthorized) else f"key:{who.name}"
        await retract(room.registry, [entry], by=by, log=room.log)
        found = await explain.receipt(room.registry, address, log=room.log)
        return Retracted(
            feedback_id=feedback_id,
            model=room.model,
            status="retracted",
            unlearned=found["unlearned"],
            unlearned_why=found.get("unlearned_why", ""),
            durability=service.ingest.durability,
        )


def _opened(
    service: Service, who: Credential | Unauthorized, feedback_id: str
) -> tuple[Stages, Address]:
    """Return the room and the address of a signal; without a key only where its model allows it."""
    if not isinstance(who, Unauthorized):
        return service.open_id("feedback", feedback_id)
    try:
        room, address = service.open_id("feedback", feedback_id)
    except NotFound:
        raise who from None
    if not room.admission.public:
        raise who
    return room, address


def _check(room: Stages, who: Credential | Unauthorized, fields: Fields) -> None:
    """Raise `Forbidden` where somebody may not take a signal back."""
    try:
        said = Feedback.model_validate_json(fields[b"f"])
    except (KeyError, ValidationError):
        raise NotFound("this is no feedback", code="unknown_feedback") from None
    scopes = frozenset[str]() if isinstance(who, Unauthorized) else who.scopes
    own = None if isinstance(who, Unauthorized) else room.inputs.source(f"key:{who.name}")
    if "operate" in scopes:
        return
    if said.auditor and "audit" not in scopes:
        raise Forbidden("an auditor said it: send a key with scope 'audit', or 'operate'")
    kind = said.source.partition(":")[0]
    if kind == "system" and "system" not in scopes:
        raise Forbidden("the system said it: send a key with scope 'system', or 'operate'")
    if kind == "key" and said.source != own:
        raise Forbidden("another key said it: send that one, or one with scope 'operate'")
    if isinstance(who, Unauthorized) and kind not in OWN_KINDS:
        raise Forbidden("it was said with a key: send one with scope 'feedback'")
