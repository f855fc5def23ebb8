"""Stage 3: accept feedback. Verify the id, validate, join, de-duplicate, append: one atomic step.

Signature and age are checked without touching the store. Then one script does the rest, or
nothing. Concurrent requests share a round trip; each signal stays atomic by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from redis.exceptions import ResponseError

from online_learner.errors import Invalid, NotFound, ServiceError, Unavailable
from online_learner.ids import Address, Keyring, check_age, model_hash, new_nonce
from online_learner.requests import Correction, FeedbackRequest, Thumbs
from online_learner.schema import Feedback, Label, pack
from online_learner.settings import ModelSpec
from online_learner.store import Durability, Store
from online_learner.store.group import GroupCommit
from online_learner.store.keys import Keys

GROUP_MAX = 256


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one signal at the door."""

    feedback_id: str | None
    prediction_id: str
    model: str
    status: str
    durability: Durability

    def render(self) -> dict[str, str | None]:
        """Return the receipt as the client gets it."""
        return {
            "feedback_id": self.feedback_id,
            "prediction_id": self.prediction_id,
            "model": self.model,
            "status": self.status,
            "durability": self.durability,
        }


@dataclass(slots=True)
class Ingest:
    """The door for feedback on all models.

    Parameters
    ----------
    models
        The configured models by name.
    window_s
        For how many seconds after a prediction feedback is taken.
    clock
        Seconds since the epoch.
    """

    store: Store
    keyring: Keyring
    models: Mapping[str, ModelSpec]
    window_s: float
    durability: Durability = "unknown"
    clock: Callable[[], float] = time.time
    _group: GroupCommit[_Call, _Reply] = field(init=False)

    def __post_init__(self) -> None:
        self._group = GroupCommit(self._run, most=GROUP_MAX)

    def resolve(self, prediction_id: str) -> tuple[str, Address]:
        """Return model and address of an id, without touching the store.

        Raises
        ------
        NotFound
            The id is forged, foreign, or of a model that is no longer configured.
        WindowClosed
            The prediction is older than the window.
        """
        digest, address = self.keyring.open("prediction", prediction_id)
        for model in self.models:
            if model_hash(model) == digest:
                check_age(address, now=self.clock(), window_s=self.window_s)
                return model, address
        raise NotFound(
            "this prediction_id belongs to a model that is not configured here",
            code="unknown_prediction",
        )

    async def accept(
        self, request: Thumbs | Correction, *, credential: str = "local", key: str | None = None
    ) -> Receipt:
        """Accept one signal; returns once it is as durable as the receipt says.

        Parameters
        ----------
        credential
            Who sends it; scopes the idempotency key.
        key
            The idempotency key of the header, where the body has none.
        """
        model, address = self.resolve(request.prediction_id)
        feedback = self._feedback(request, self.models[model], credential)
        call = _call(
            Keys(model),
            address,
            feedback,
            key=None if request.dry_run else request.idempotency_key or key,
            credential=credential,
            remember_s=max(1, int(address.ms / 1000 + self.window_s - self.clock()) + 1),
            version=request.model_version,
            dry=request.dry_run,
        )
        status, entry, nonce = await self._group.submit(call)
        _check_status(status, entry, request)
        if request.dry_run:
            return Receipt(None, request.prediction_id, model, "accepted", self.durability)
        ms, seq = entry.split(b"-")
        place = Address(int(ms), int(seq), nonce.decode())
        feedback_id = self.keyring.seal("feedback", model, place)
        return Receipt(feedback_id, request.prediction_id, model, status.decode(), self.durability)

    async def accept_many(
        self, requests: Sequence[Thumbs | Correction | ServiceError], *, credential: str = "local"
    ) -> list[Receipt | ServiceError]:
        """Accept each signal by itself, in order; errors are returned in their places."""

        async def one(request: Thumbs | Correction | ServiceError) -> Receipt | ServiceError:
            if isinstance(request, ServiceError):
                return request
            try:
                return await self.accept(request, credential=credential)
            except ServiceError as error:
                return error

        return list(await asyncio.gather(*map(one, requests)))

    def _feedback(self, request: Thumbs | Correction, spec: ModelSpec, credential: str) -> Feedback:
        value = request.value
        if isinstance(request, Correction):
            value = target_value(request.value, spec)
        return Feedback(
            kind=request.kind,
            value=value,
            source=source_of(request, credential),
            prediction_id=request.prediction_id,
            tags=dict(sorted(request.tags.items())),  # JSON objects have no order
            reasons=request.reasons,
            comment=request.comment,
            interface=None if request.interface is None else request.interface.model_dump(),
            observed_at=request.observed_at,
        )

    async def _run(self, group: list[_Call]) -> list[_Reply | Exception]:
        calls = [(call.keys, call.args) for call in group]
        replies = await self.store.run_many("ingest", calls)
        return [_service_error(r) if isinstance(r, Exception) else r for r in replies]


_Reply: TypeAlias = tuple[bytes, bytes, bytes]


@dataclass(frozen=True, slots=True)
class _Call:
    keys: list[str]
    args: list[bytes | str | int]


def _call(
    keys: Keys,
    address: Address,
    feedback: Feedback,
    *,
    key: str | None,
    credential: str,
    remember_s: int,
    version: int | None,
    dry: bool,
) -> _Call:
    body = feedback.pack()
    names = [
        keys.predictions,
        keys.feedback,
        keys.standing(feedback.source, address.entry, feedback.kind),
    ]
    if key is not None:
        names.append(keys.seen(credential, key))
    signal = hashlib.blake2b(pack([feedback.kind, feedback.value]), digest_size=16)
    whole = hashlib.blake2b(body, digest_size=16)
    return _Call(
        names,
        [
            address.entry,
            address.nonce,
            signal.hexdigest(),
            whole.hexdigest(),
            body,
            new_nonce(),
            remember_s,
            "" if version is None else str(version),
            "dry" if dry else "",
        ],
    )


def source_of(request: FeedbackRequest, credential: str) -> str:
    """Return who says it: the source named in the body, else the credential itself."""
    if request.source is not None:
        return f"{request.source.type}:{request.source.id}"
    if request.user_id is not None:
        return f"human:{request.user_id}"
    return f"key:{credential}"


def target_value(value: Label | float, spec: ModelSpec) -> Label | float:
    """Return a correction's value as the model's task takes it.

    Raises
    ------
    Invalid
        Not a label of the closed set (by type as well: `"true"` is not `true`), or not a number.
    """
    if spec.task == "regression":
        if isinstance(value, bool | str):
            raise Invalid.at("/value", "this model answers with numbers: send the right number")
        return float(value)
    if isinstance(value, float):
        raise Invalid.at("/value", "a label is a string, an integer or a boolean")
    if spec.labels is None:
        return value
    for label in spec.labels:
        if type(label) is type(value) and label == value:
            return label
    known = ", ".join(json.dumps(label) for label in spec.labels)
    raise Invalid.at("/value", f"{json.dumps(value)} is not a label of this model: {known}")


def _check_status(status: bytes, entry: bytes, request: FeedbackRequest) -> None:
    if status == b"mismatch":
        raise Invalid.at(
            "/model_version",
            f"this prediction was made by version {entry.decode()}, not {request.model_version}",
            code="version_mismatch",
        )
    if status == b"unknown":
        raise NotFound(
            "this prediction was issued here, but is not in the log: the store has lost data, or "
            "its retention is shorter than window_s",
            code="unknown_prediction",
        )
    if status == b"reused":
        raise Invalid.at(
            "/idempotency_key",
            "was used before with another body; use a new key for a new signal",
            code="idempotency_key_reused",
        )


def _service_error(error: Exception) -> Exception:
    if isinstance(error, ResponseError):
        return Unavailable(f"the store refused the signal: {error}")
    return error
