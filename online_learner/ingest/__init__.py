"""Stage 3: accept feedback. Verify the id, validate, join, de-duplicate, append: one atomic step.

Signature and age are checked without touching the store. Kinds that speak of what was shown are
checked against the record (`admit`). Then one script does the rest, or nothing. Concurrent requests
share a round trip; each payload stays atomic by itself.

Where the model has an archive, what is said after the window goes on file (`late`): it is
`archived_only`, alters no weights, and datasets join it to the answer that is on file too.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from redis.exceptions import ResponseError

from online_learner.errors import (
    Erased,
    Invalid,
    NotFound,
    ServiceError,
    Unavailable,
    WindowClosed,
)
from online_learner.ids import LATE, Address, Kind, new_nonce
from online_learner.ingest import limits
from online_learner.ingest.admit import Admission
from online_learner.ingest.find import Finder, Place, present
from online_learner.ingest.late import READS, recall
from online_learner.ingest.limits import Limit, Standing
from online_learner.ingest.receipt import Receipt
from online_learner.ingest.speaker import LOCAL, OWN, Speaker
from online_learner.interpret import ERASED
from online_learner.requests import FeedbackRequest
from online_learner.schema import Feedback, Prediction, pack
from online_learner.store import Durability, Fields
from online_learner.store.group import GroupCommit
from online_learner.store.keys import Keys, said_field

R = TypeVar("R")

GROUP_MAX = 256

__all__ = ["GROUP_MAX", "LOCAL", "OWN", "Admission", "Ingest", "Receipt", "Speaker"]


@dataclass(slots=True)
class Ingest(Finder):
    """The door for feedback on all models; see `Finder` for what it is made of."""

    durability: Durability = "unknown"
    _group: GroupCommit[_Call, list[Any]] = field(init=False)
    _reads: GroupCommit[tuple[str, Address], Prediction | None] = field(init=False)
    _recalls: GroupCommit[tuple[str, Address], Prediction | None] = field(init=False)

    def __post_init__(self) -> None:
        self._group = GroupCommit(self._run, most=GROUP_MAX)
        self._reads = GroupCommit(self._fetch, most=GROUP_MAX)
        self._recalls = GroupCommit(lambda group: recall(self.admissions, group), most=READS)

    async def accept(
        self,
        request: FeedbackRequest,
        speaker: Speaker = LOCAL,
        *,
        key: str | None = None,
    ) -> Receipt:
        """Accept a payload; returns once it is as durable as the receipt says.

        Parameters
        ----------
        speaker
            Who sends it.
        key
            The idempotency key of the header, where the body has none.
        """
        self.store.health.check_feedback()
        place = self.locate_own(request) if speaker.own else await self.locate(request)
        speaker.check(request)
        keys = Keys(place.model)
        key, seen = None if request.dry_run else request.idempotency_key or key, None
        if key:
            holder = f"prediction:{place.address.entry}" if speaker.own else speaker.name
            seen = keys.seen(holder, key)
        place, feedback = await self._admitted(request, place, speaker, seen)
        limited = self._limits(place, speaker, feedback)
        names = [keys.predictions, keys.late if place.late else keys.feedback]
        names += [keys.said(f"late:{one}" if place.late else one) for one in place.entries]
        names += [seen] if seen else []
        names += [keys.rate(limit.of, limit.name) for limit in limited]
        head = self._head(place, request, limited, keyed=bool(seen))
        reply = await self._group.submit(_Call(names, [*head, *_arguments(request, feedback)]))
        standings = limits.standings(limited, reply[1])
        try:
            _check_status(reply, request, standings)
        except ServiceError as error:
            error.headers = limits.headers(standings)
            raise
        return self._receipt(place, request, reply, standings)

    async def accept_many(
        self,
        requests: Sequence[FeedbackRequest | ServiceError],
        speaker: Speaker = LOCAL,
    ) -> list[Receipt | ServiceError]:
        """Accept each by itself; errors are returned in their places."""

        async def one(request: FeedbackRequest | ServiceError) -> Receipt | ServiceError:
            if isinstance(request, ServiceError):
                return request
            try:
                return await self.accept(request, speaker)
            except ServiceError as error:
                return error

        return list(await asyncio.gather(*map(one, requests)))

    async def _admit(
        self, request: FeedbackRequest, place: Place, speaker: Speaker
    ) -> list[Feedback]:
        admission, said = self.admissions[place.model], request.said()
        several = said[0] is not request
        record: Prediction | None = None
        _each(said, admission.check_kind, several=several)
        needed = speaker.own or any(map(admission.needs_record, said))
        if place.late:
            record = await self._recall(request, place, speaker)
        elif place.other is None and needed:
            record = await self._reads.submit((place.model, place.address))
            if record is None:
                raise _lost()
        source = speaker.source(request, record, place.address.entry)
        said_by: dict[str, Any] = {
            "prediction_id": place.prediction_id,
            "source": source if speaker.own else admission.inputs.source(source),
            "auditor": speaker.auditor,
        }
        noted = admission.read_comment(request.comment)

        def admit(signal: Any) -> Feedback:
            return admission.admit(signal, request, record, **said_by, noted=noted)

        return _each(said, admit, several=several)

    async def _recall(
        self, request: FeedbackRequest, place: Place, speaker: Speaker
    ) -> Prediction | None:
        """Return an answer whose window has passed, where it can be read here, and is one alone.

        Raises
        ------
        Erased, WindowClosed
            Nothing of it is kept, or nothing of it can be known, and the sender has but its id.
        """
        wanted = [(place.model, address) for address in (place.address, *present(place.other))]
        found = await asyncio.gather(*map(self._recalls.submit, wanted))
        for record in found:
            if record is None:
                if speaker.own:
                    raise WindowClosed(
                        "the window in which feedback is taken has passed, and who was answered "
                        "cannot be read here: send a key with scope 'feedback'"
                    )
                continue
            made = str(record.version if record.model_version is None else record.model_version)
            if request.model_version is not None and str(request.model_version) != made:
                raise _mismatch()
        return found[0] if place.other is None else None

    async def _admitted(
        self, request: FeedbackRequest, place: Place, speaker: Speaker, seen: str | None
    ) -> tuple[Place, list[Feedback]]:
        """Return what is said, and the answer that it is about."""
        try:
            return place, await self._admit(request, place, speaker)
        except Invalid:
            before = await self._place_before(request, place, seen)
            if before is None:
                raise
            return before, await self._admit(request, before, speaker)

    async def _place_before(
        self, request: FeedbackRequest, place: Place, seen: str | None
    ) -> Place | None:
        """Return the answer that a name led to when the same key was first used, if it was."""
        if seen is None or request.prediction_id is not None or place.other is not None:
            return None
        mark = await self.store.call("GET", seen)
        if mark is None:
            return None
        _, entry, nonce, *_ = mark.split(b"|")
        ms, seq = entry.split(b"-")
        address = Address(int(ms), int(seq), nonce.decode())
        return Place(place.model, address, self.keyring.seal("prediction", place.model, address))

    def _limits(self, place: Place, speaker: Speaker, feedback: list[Feedback]) -> list[Limit]:
        """Return the limits that a payload falls under; raises where it can never keep to them."""
        if not speaker.limited:
            return []
        spec, key = self.admissions[place.model].limits, None if speaker.own else speaker.name
        found = limits.limits_on(spec, key=key, source=feedback[0].source)
        limits.check_size(found, len(feedback))
        return found

    def _head(
        self, place: Place, request: FeedbackRequest, limited: list[Limit], *, keyed: bool
    ) -> list[_Argument]:
        """Return what the script needs of the payload as a whole; `-` stands for nothing."""
        known = [place.address, *present(place.other)]
        found = [part for address in known for part in (address.entry, address.nonce)]
        # What is said of an answer counts as known to the end of its window.
        left_s = [int(address.ms / 1000 + self.window_s - self.clock()) + 1 for address in known]
        if place.late:  # or for as long again
            left_s = [int(self.window_s) + 1 for _ in known]
        found += [str(max(1, seconds)) for seconds in left_s]
        mode = "dry" if request.dry_run else "keyed" if keyed else "free"
        mode += "-late" if place.late else ""
        version = "" if request.model_version is None else str(request.model_version)
        found += [limit.words for limit in limited]
        return [" ".join([mode, str(len(known)), *found]), version]

    def _receipt(
        self,
        place: Place,
        request: FeedbackRequest,
        reply: list[Any],
        standings: tuple[Standing, ...],
    ) -> Receipt:
        status, _, *done = reply
        model, prediction_id = place.model, place.prediction_id
        if done and done[-1][0] == b"answer":  # a name may lead to another answer by now
            prediction_id = self._sealed("prediction", model, done[-1])
        signals = [
            {"kind": said.kind, "feedback_id": self._sealed("feedback", model, found), "status": s}
            for said, found in zip(request.said(), done, strict=False)
            for s in [found[0].decode()]
        ]
        return Receipt(
            feedback_id=signals[0]["feedback_id"] if signals else None,
            prediction_id=prediction_id,
            model=model,
            status=status.decode(),
            durability=self.durability,
            signals=tuple(signals) if len(signals) > 1 else (),
            standings=standings,
        )

    def _sealed(self, kind: Kind, model: str, found: Sequence[bytes]) -> str:
        _, entry, nonce = found
        ms, seq = entry.removeprefix(b"L").split(b"-")
        shard = LATE if entry.startswith(b"L") else 0
        return self.keyring.seal(kind, model, Address(int(ms), int(seq), nonce.decode(), shard))

    async def _run(self, group: list[_Call]) -> list[list[Any] | Exception]:
        calls = [(call.keys, call.args) for call in group]
        replies = await self.store.run_many("ingest", calls)
        return [_service_error(r) if isinstance(r, Exception) else r for r in replies]

    async def _fetch(
        self, group: list[tuple[str, Address]]
    ) -> Sequence[Prediction | Exception | None]:
        places = [(Keys(model).predictions, address.entry) for model, address in group]
        found = await self.store.entries(places)
        return [
            _record(fields or {}, address)
            for fields, (_, address) in zip(found, group, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Call:
    keys: list[str]
    args: list[_Argument]


_Argument: TypeAlias = bytes | str


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


def _record(fields: Fields, address: Address) -> Prediction | Exception | None:
    if ERASED in fields:
        return Erased(Erased.TOLD)
    if fields.get(b"n", b"").decode() != address.nonce:
        return None
    return Prediction.model_validate_json(fields[b"r"])


def _mismatch() -> Invalid:
    return Invalid.at(
        "/model_version",
        "this prediction was made by another version: GET /v1/predictions/{id} tells by which",
        code="version_mismatch",
    )


def _lost() -> NotFound:
    return NotFound(
        "this prediction was issued here, but is not in the log: the store has lost data, or "
        "its retention is shorter than window_s",
        code="unknown_prediction",
    )


def _check_status(
    reply: list[Any], request: FeedbackRequest, standings: Sequence[Standing]
) -> None:
    status = reply[0]
    if status == b"limited":
        raise limits.refusal(standings, len(request.said()))
    if status == b"mismatch":
        raise _mismatch()
    if status == b"erased":
        raise Erased(Erased.TOLD)
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
        return Unavailable(f"the store refused the signal: {str(error).partition(' ')[0]}")
    return error
