"""Stage 3, first of all: which answer is meant, by its signed id, by a name, or as one of a pair.

A signed id is an address: it is opened without touching the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from online_learner.errors import Invalid, NotFound, Unauthorized, WindowClosed, did_you_mean
from online_learner.ids import Address, Keyring, check_age, model_hash
from online_learner.ingest.admit import Admission
from online_learner.requests import FeedbackRequest
from online_learner.requests.telling import Preference
from online_learner.store import Store
from online_learner.store.keys import Keys


@dataclass(frozen=True, slots=True)
class Place:
    """The answer that feedback is about, or the two that it compares.

    It is `late` where the window of one of them has passed, and the model has an archive.
    """

    model: str
    address: Address
    prediction_id: str
    other: Address | None = None
    late: bool = False

    @property
    def entries(self) -> list[str]:
        """The entry of the answer, and of the second where there is one."""
        return [address.entry for address in (self.address, *present(self.other))]


@dataclass(slots=True)
class Finder:
    """Finds the answers that feedback on any model is about.

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
    clock: Callable[[], float] = time.time

    @property
    def public(self) -> bool:
        """Whether any model takes feedback by the signed id alone."""
        return any(admission.public for admission in self.admissions.values())

    def resolve(self, prediction_id: str) -> tuple[str, Address]:
        """Return model and address of an id, without touching the store.

        Raises
        ------
        NotFound
            The id is forged, foreign, or of a model that is no longer configured.
        WindowClosed
            The prediction is older than the window.
        """
        model, address = self._open(prediction_id)
        check_age(address, now=self.clock(), window_s=self.window_s)
        return model, address

    def _is_late(self, model: str, address: Address) -> bool:
        """Tell whether an answer's window has passed, and what is said of it goes on file alone.

        Raises `WindowClosed` where it has passed, and the model has no archive.
        """
        try:
            check_age(address, now=self.clock(), window_s=self.window_s)
        except WindowClosed:
            if self.admissions[model].log is None:
                raise
            return True
        return False

    def _open(self, prediction_id: str) -> tuple[str, Address]:
        digest, address = self.keyring.open("prediction", prediction_id)
        for model in self.admissions:
            if model_hash(model) == digest:
                return model, address
        raise NotFound(
            "this prediction_id belongs to a model that is not configured here",
            code="unknown_prediction",
        )

    def locate_own(self, request: FeedbackRequest) -> Place:
        """Return the answer whose signed id is all that the sender has.

        Raises
        ------
        Unauthorized
            There is no id, or it is not ours, or its model takes no feedback without a key. Which
            of these it is, is nobody's business.
        WindowClosed
            The prediction is older than the window, and the model has no archive.
        """
        try:
            model, address = self._open(request.prediction_id or "")
        except NotFound:
            raise _needs_key() from None
        if not self.admissions[model].public:
            raise _needs_key()
        late = self._is_late(model, address)
        return Place(model, address, request.prediction_id or "", late=late)

    async def locate(self, request: FeedbackRequest) -> Place:
        """Return the answer that a payload is about: by its id, by another name, or by two ids.

        Raises
        ------
        Invalid
            It names no answer, or more than one way of finding it, or answers of two models.
        WindowClosed
            The answer is older than the window, and the model has no archive.
        """
        ways = (request.prediction_id, request.external_id, request.session_id)
        named = [way for way in ways if way is not None]
        if len(named) > 1:
            raise Invalid.at("", "name the answer once: prediction_id, external_id or session_id")
        if request.prediction_id is not None:
            model, address = self._open(request.prediction_id)
            late = self._is_late(model, address)
            self._check_model(request, model)
            return Place(model, address, request.prediction_id, late=late)
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
            raise NotFound(f"there is no such model here.{hint}", code="unknown_model")
        kind = "external_id" if request.external_id is not None else "session_id"
        sent = request.external_id or request.session_id
        name = self.admissions[model].inputs.name(sent) or ""
        found = await self.store.call("LINDEX", Keys(model).ref(kind, name), 0)
        if found is None:
            raise NotFound(
                f"no answer of '{model}' is known under this {kind}: it was sent with no such "
                f"{kind}, or is older than {self.window_s:g} s",
                code="unknown_prediction",
            )
        entry, nonce = found.decode().split("|")
        ms, seq = map(int, entry.split("-"))
        address = Address(ms, seq, nonce)
        late = self._is_late(model, address)
        return Place(model, address, self.keyring.seal("prediction", model, address), late=late)

    def _by_pair(self, request: FeedbackRequest) -> Place:
        """Find the two answers that a preference compares; it is joined to the older one."""
        said = request.said()
        if len(said) != 1 or not isinstance(said[0], Preference):
            raise Invalid.at("/prediction_id", "this field is required")
        ids = [said[0].chosen, said[0].rejected]
        (one, a), (two, b) = (self._open(id_) for id_ in ids)
        if one != two:
            raise Invalid.at(
                "/rejected", f"is an answer of the model '{two}', and the chosen one of '{one}'"
            )
        (older, id_), (newer, _) = sorted(zip((a, b), ids, strict=True), key=_age)
        late = [self._is_late(one, address) for address in (older, newer)]
        self._check_model(request, one)
        return Place(one, older, id_, newer, late=any(late))


def _needs_key() -> Unauthorized:
    return Unauthorized(
        "send a key with scope 'feedback': without one, only the prediction_id of an answer of a "
        "model with `public_feedback: true` is taken"
    )


def _age(pair: tuple[Address, str]) -> tuple[int, int]:
    return pair[0].ms, pair[0].seq


def present(address: Address | None) -> tuple[Address, ...]:
    """Return the address in a tuple, which is empty where there is none."""
    return () if address is None else (address,)
