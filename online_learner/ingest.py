"""Stage 3: accept feedback. Verify the id, validate, join, de-duplicate, append: one atomic step.

Signature and age are checked without touching the store. Kinds that speak of what was shown are
checked against the record (`admit`). Then one script does the rest, or nothing. Concurrent requests
share a round trip; each payload stays atomic by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from redis.exceptions import ResponseError

from online_learner.admit import Admission
from online_learner.errors import Invalid, NotFound, ServiceError, Unavailable, did_you_mean
from online_learner.ids import Address, Keyring, Kind, check_age, model_hash, new_nonce
from online_learner.requests import FeedbackRequest
from online_learner.requests.telling import Preference
from online_learner.schema import Feedback, Prediction, pack
from online_learner.store import Durability, Store
from online_learner.store.group import GroupCommit
from online_learner.store.keys import Keys, said_field

R = TypeVar("R")

GROUP_MAX = 256


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one payload at the door.

    `signals` has the kind, id and status of each, where the payload carried several.
    """

    feedback_id: str | None
    prediction_id: str
    model: str
    status: str
    durability: Durability
    signals: tuple[dict[str, str | None], ...] = ()

    def render(self) -> dict[str, Any]:
        """Return the receipt as the client gets it."""
        found: dict[str, Any] = {
            "feedback_id": self.feedback_id,
            "prediction_id": self.prediction_id,
            "model": self.model,
            "status": self.status,
            "durability": self.durability,
        }
        return found | ({"signals": list(self.signals)} if self.signals else {})


@dataclass(frozen=True, slots=True)
class Place:
    """The answer that feedback is about, or the two that it compares."""

    model: str
    address: Address
    prediction_id: str
    other: Address | None = None

    @property
    def entries(self) -> list[str]:
        """The entry of the answer, and of the second where there is one."""
        return [address.entry for address in (self.address, *_present(self.other))]


@dataclass(slots=True)
class Ingest:
    """The door for feedback on all models.

    Parameters
    ----------
    admissions
        What may be said, for each configured model.
    window_s
        For how many seconds after a prediction feedback is taken.
    clock
        Seconds since the epoch.
    """

    store: Store
    keyring: Keyring
    admissions: Mapping[str, Admission]
    window_s: float
    durability: Durability = "unknown"
    clock: Callable[[], float] = time.time
    _group: GroupCommit[_Call, list[Any]] = field(init=False)
    _reads: GroupCommit[tuple[str, Address], Prediction | None] = field(init=False)

    def __post_init__(self) -> None:
        self._group = GroupCommit(self._run, most=GROUP_MAX)
        self._reads = GroupCommit(self._fetch, most=GROUP_MAX)

    # --- which answer -------------------------------------------------------------------------

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
        for model in self.admissions:
            if model_hash(model) == digest:
                check_age(address, now=self.clock(), window_s=self.window_s)
                return model, address
        raise NotFound(
            "this prediction_id belongs to a model that is not configured here",
            code="unknown_prediction",
        )

    async def locate(self, request: FeedbackRequest) -> Place:
        """Return the answer that a payload is about: by its id, by another name, or by two ids.

        Raises
        ------
        Invalid
            It names no answer, or more than one way of finding it, or answers of two models.
        """
        ways = (request.prediction_id, request.external_id, request.session_id)
        named = [way for way in ways if way is not None]
        if len(named) > 1:
            raise Invalid.at("/", "name the answer once: prediction_id, external_id or session_id")
        if request.prediction_id is not None:
            model, address = self.resolve(request.prediction_id)
            self._check_model(request, model)
            return Place(model, address, request.prediction_id)
        if named:
            return await self._by_name(request)
        return self._by_pair(request)

    def _check_model(self, request: FeedbackRequest, model: str) -> None:
        if request.model is not None and request.model != model:
            raise Invalid.at("/model", f"this prediction_id is of the model '{model}'")

    async def _by_name(self, request: FeedbackRequest) -> Place:
        """Find the latest answer of a session, or under the caller's own id."""
        model = request.model
        if model is None:
            raise Invalid.at("/model", "name the model beside external_id or session_id")
        if model not in self.admissions:
            hint = did_you_mean(model, self.admissions)
            raise NotFound(f"no model '{model}' here.{hint}", code="unknown_model")
        kind = "external_id" if request.external_id is not None else "session_id"
        name = request.external_id or request.session_id or ""
        found = await self.store.call("LINDEX", Keys(model).ref(kind, name), 0)
        if found is None:
            raise NotFound(
                f"no answer of '{model}' is known under {kind} '{name}': it was sent with no such "
                f"{kind}, or is older than {self.window_s:g} s",
                code="unknown_prediction",
            )
        entry, nonce = found.decode().split("|")
        ms, seq = map(int, entry.split("-"))
        address = Address(ms, seq, nonce)
        check_age(address, now=self.clock(), window_s=self.window_s)
        return Place(model, address, self.keyring.seal("prediction", model, address))

    def _by_pair(self, request: FeedbackRequest) -> Place:
        """Find the two answers that a preference compares; it is joined to the older one."""
        said = request.said()
        if len(said) != 1 or not isinstance(said[0], Preference):
            raise Invalid.at("/prediction_id", "this field is required")
        ids = [said[0].chosen, said[0].rejected]
        (one, a), (two, b) = (self.resolve(id_) for id_ in ids)
        if one != two:
            raise Invalid.at(
                "/rejected", f"is an answer of the model '{two}', and the chosen one of '{one}'"
            )
        (older, id_), (newer, _) = sorted(zip((a, b), ids, strict=True), key=_age)
        self._check_model(request, one)
        return Place(one, older, id_, newer)

    # --- accepting ----------------------------------------------------------------------------

    async def accept(
        self,
        request: FeedbackRequest,
        *,
        credential: str = "local",
        key: str | None = None,
        auditor: bool = False,
    ) -> Receipt:
        """Accept a payload; returns once it is as durable as the receipt says.

        Parameters
        ----------
        credential
            Who sends it; scopes the idempotency key.
        key
            The idempotency key of the header, where the body has none.
        auditor
            Whether the credential is an auditor's. Nothing in a body can say so.
        """
        place = await self.locate(request)
        said_by = {"source": source_of(request, credential), "auditor": auditor}
        feedback = await self._admit(request, place, said_by)
        keys = Keys(place.model)
        names = [keys.predictions, keys.feedback, *map(keys.said, place.entries)]
        key = None if request.dry_run else request.idempotency_key or key
        if key:
            names.append(keys.seen(credential, key))
        head = self._head(place, request, keyed=bool(key))
        reply = await self._group.submit(_Call(names, [*head, *_arguments(request, feedback)]))
        _check_status(reply, request)
        return self._receipt(place, request, reply)

    async def accept_many(
        self, requests: Sequence[FeedbackRequest | ServiceError], **sender: Any
    ) -> list[Receipt | ServiceError]:
        """Accept each by itself, `sender` as for `accept`; errors are returned in their places."""

        async def one(request: FeedbackRequest | ServiceError) -> Receipt | ServiceError:
            if isinstance(request, ServiceError):
                return request
            try:
                return await self.accept(request, **sender)
            except ServiceError as error:
                return error

        return list(await asyncio.gather(*map(one, requests)))

    async def _admit(
        self, request: FeedbackRequest, place: Place, said_by: dict[str, Any]
    ) -> list[Feedback]:
        admission, said = self.admissions[place.model], request.said()
        several = said[0] is not request
        record: Prediction | None = None
        _each(said, admission.check_kind, several=several)
        if place.other is None and any(map(admission.needs_record, said)):
            record = await self._reads.submit((place.model, place.address))
            if record is None:
                raise _lost()
        about = said_by | {"prediction_id": place.prediction_id}
        noted = admission.read_comment(request.comment)

        def admit(signal: Any) -> Feedback:
            return admission.admit(signal, request, record, **about, noted=noted)

        return _each(said, admit, several=several)

    def _head(self, place: Place, request: FeedbackRequest, *, keyed: bool) -> list[_Argument]:
        """Return what the script needs of the payload as a whole; `-` stands for nothing."""
        known = [place.address, *_present(place.other)]
        found = [part for address in known for part in (address.entry, address.nonce)]
        # What is said of an answer counts as known to the end of its window.
        left_s = [int(address.ms / 1000 + self.window_s - self.clock()) + 1 for address in known]
        found += [str(max(1, seconds)) for seconds in left_s]
        mode = "dry" if request.dry_run else "keyed" if keyed else "free"
        version = "" if request.model_version is None else str(request.model_version)
        return [" ".join([mode, str(len(known)), *found]), version]

    def _receipt(self, place: Place, request: FeedbackRequest, reply: list[Any]) -> Receipt:
        status = reply[0].decode()
        model, prediction_id = place.model, place.prediction_id
        if reply[-1][0] == b"answer":  # a name may lead to another answer by now
            prediction_id = self._sealed("prediction", model, reply[-1])
        signals = [
            {"kind": said.kind, "feedback_id": self._sealed("feedback", model, found), "status": s}
            for said, found in zip(request.said(), reply[1:], strict=False)
            for s in [found[0].decode()]
        ]
        return Receipt(
            feedback_id=signals[0]["feedback_id"] if signals else None,
            prediction_id=prediction_id,
            model=model,
            status=status,
            durability=self.durability,
            signals=tuple(signals) if len(signals) > 1 else (),
        )

    def _sealed(self, kind: Kind, model: str, found: Sequence[bytes]) -> str:
        _, entry, nonce = found
        ms, seq = entry.split(b"-")
        return self.keyring.seal(kind, model, Address(int(ms), int(seq), nonce.decode()))

    async def _run(self, group: list[_Call]) -> list[list[Any] | Exception]:
        calls = [(call.keys, call.args) for call in group]
        replies = await self.store.run_many("ingest", calls)
        return [_service_error(r) if isinstance(r, Exception) else r for r in replies]

    async def _fetch(self, group: list[tuple[str, Address]]) -> list[Prediction | None]:
        places = [(Keys(model).predictions, address.entry) for model, address in group]
        found = await self.store.entries(places)
        return [
            Prediction.model_validate_json(fields[b"r"])
            if fields is not None and fields[b"n"].decode() == address.nonce
            else None
            for fields, (_, address) in zip(found, group, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Call:
    keys: list[str]
    args: list[_Argument]


_Argument: TypeAlias = bytes | str


def _age(pair: tuple[Address, str]) -> tuple[int, int]:
    return pair[0].ms, pair[0].seq


def _present(address: Address | None) -> tuple[Address, ...]:
    return () if address is None else (address,)


def _arguments(request: FeedbackRequest, feedback: list[Feedback]) -> list[_Argument]:
    """Return the digest of all that is said, then for each signal its marks, and itself."""
    bodies = [one.pack() for one in feedback]
    sent = [_as_sent(request, one, body) for one, body in zip(feedback, bodies, strict=True)]
    arguments: list[_Argument] = [_digest(*sent)]
    for one, body in zip(feedback, bodies, strict=True):
        field_name = said_field(one.source, one.kind, one.subject())
        # An auditor who says what was said before in the same name has said more than that.
        signal = _digest(pack([one.kind, one.value, *([True] if one.auditor else [])]))
        arguments += (f"{field_name} {signal} {new_nonce()}", body)
    return arguments


def _as_sent(request: FeedbackRequest, feedback: Feedback, body: bytes) -> bytes:
    """Return what is the same when a payload is sent again.

    A session may have another latest answer by then, and the rules may read the words otherwise.
    """
    if request.prediction_id is not None:
        return feedback.model_copy(update={"flags": []}).pack() if feedback.flags else body
    name = [request.model, request.external_id, request.session_id]
    return feedback.model_copy(update={"flags": [], "prediction_id": ""}).pack() + pack(name)


def _each(said: Sequence[Any], work: Callable[[Any], R], *, several: bool) -> list[R]:
    """Do the work for each signal; an error names the one, of several, in which it was found."""
    done: list[R] = []
    try:
        for signal in said:
            done.append(work(signal))  # noqa: PERF401
    except Invalid as error:
        raise error.under("signals", len(done)) if several else error from None
    return done


def _digest(*parts: bytes) -> str:
    return hashlib.blake2b(b"\0".join(parts), digest_size=16).hexdigest()


def source_of(request: FeedbackRequest, credential: str) -> str:
    """Return who says it: the source named in the body, else the credential itself."""
    if request.source is not None:
        return f"{request.source.type}:{request.source.id}"
    if request.user_id is not None:
        return f"human:{request.user_id}"
    return f"key:{credential}"


def _lost() -> NotFound:
    return NotFound(
        "this prediction was issued here, but is not in the log: the store has lost data, or "
        "its retention is shorter than window_s",
        code="unknown_prediction",
    )


def _check_status(reply: list[Any], request: FeedbackRequest) -> None:
    status = reply[0]
    if status == b"mismatch":
        made = reply[1].decode()
        raise Invalid.at(
            "/model_version",
            f"this prediction was made by version {made}, not {request.model_version}",
            code="version_mismatch",
        )
    if status == b"unknown":
        raise _lost()
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
