"""Stage 3, before all else: who sends feedback, and how far their word goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from online_learner.auth import Credential
from online_learner.errors import Forbidden
from online_learner.requests import FeedbackRequest
from online_learner.schema import Prediction


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who sends a payload.

    Parameters
    ----------
    name
        The holder of the API key: idempotency keys are theirs, and so is what names no source.
    auditor
        Their word is taken as drawn without bias, and no share caps it. Nothing in a body can
        say so.
    system
        They may speak for the system itself.
    own
        They hold no key, but the signed id of one answer: they speak of that one only, in the name
        of the user whom it was given to.
    limited
        Whether the model's limits hold for them.
    """

    name: str
    auditor: bool = False
    system: bool = False
    own: bool = False
    limited: bool = True

    @classmethod
    def of(cls, credential: Credential) -> Self:
        """Return who speaks by an API key."""
        scopes = credential.scopes
        return cls(credential.name, auditor="audit" in scopes, system="system" in scopes)

    def check(self, request: FeedbackRequest) -> None:
        """Raise `Forbidden` where a body says more than its sender may."""
        if self.own:
            _check_own(request)
        elif request.source is not None and request.source.type == "system" and not self.system:
            raise Forbidden.at(
                "/source/type",
                "to speak for the system, send a key with scope 'system'; this one has none. Else "
                "name a source of type human or model.",
            )

    def source(self, request: FeedbackRequest, record: Prediction | None, entry: str) -> str:
        """Return who says it, as records name them.

        Parameters
        ----------
        record, entry
            The answer and its place in the log; without a key they decide, and not the body.
        """
        if self.own:
            assert record is not None
            return _user_of(record) or f"prediction:{entry}"
        if request.source is not None:
            return f"{request.source.type}:{request.source.id}"
        return f"key:{self.name}" if request.user_id is None else f"human:{request.user_id}"


# What runs in the process itself is the application: nobody to be kept out.
LOCAL = Speaker("local", system=True, limited=False)
OWN = Speaker("", own=True)

_TOLD = ("source", "user_id", "model", "external_id", "session_id")


def _check_own(request: FeedbackRequest) -> None:
    for name in _TOLD:
        if getattr(request, name) is not None:
            raise Forbidden.at(
                f"/{name}",
                "without a key, the prediction_id alone says which answer is meant and who speaks "
                "of it: leave this out, or send a key with scope 'feedback'",
            )
    if any(signal.kind == "flag" for signal in request.said()):
        raise Forbidden.at(
            "/kind",
            "a flag is the word of a rule of the system: send a key with scope 'feedback'",
        )


def _user_of(record: Prediction) -> str | None:
    if record.user_id is not None:
        return f"human:{record.user_id}"
    return None if record.session_id is None else f"session:{record.session_id}"
