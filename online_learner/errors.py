"""One tree of errors. Each has a code, an HTTP status and a sentence that says what to do next.

OnlineLearnerError
├── ConfigError              the configuration file or an import path is wrong
├── StateError               stored state is damaged, or was not written by us
├── DataError                archived or compiled data is damaged, gone, or cannot be written
├── Fenced                   another process has taken over as the writer
├── Unfit                    a learner cannot take these features, and says why
└── ServiceError             everything a client can be told, as `application/problem+json`
    ├── Malformed            400 malformed
    ├── Unauthorized         401 unauthorized
    ├── Forbidden            403 forbidden
    ├── NotFound             404 unknown_model, unknown_prediction, unknown_feedback, ...
    ├── MethodNotAllowed     405 method_not_allowed
    ├── RequestTimeout       408 request_timeout
    ├── Conflict             409 conflict
    ├── Gone                 410 gone
    │   ├── WindowClosed     410 feedback_window_closed
    │   └── Erased           410 erased
    ├── TooLarge             413 too_large
    ├── UnsupportedMediaType 415 unsupported_media_type
    ├── Invalid              422 invalid_value, unknown_field, not_served, version_mismatch, ...
    ├── RateLimited          429 rate_limited
    └── Unavailable          503 store_unavailable, not_ready
        └── StoreFull        503 store_full

None of them repeats what was sent: no value, no key of a body that is not one of ours. It may be a
secret in the wrong place, and errors end up in logs.
"""

from __future__ import annotations

import contextlib
import difflib
import traceback
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import pydantic

MAX_PLACES = 100  # that the errors of one request name
MAX_HINTS = 5  # words of one request that a known one is sought for: difflib is slow
MAX_WORD = 80  # characters of such a word
MAX_FOUND = 1000  # wrong places that pydantic may list: it cannot list the first few alone


class OnlineLearnerError(Exception):
    """Base of every error raised on purpose by this package."""


class ConfigError(OnlineLearnerError):
    """The configuration cannot be used; the message names the key and the cure."""


class StateError(OnlineLearnerError):
    """Stored state is damaged, or carries no valid seal of ours. It is never parsed."""


class DataError(OnlineLearnerError):
    """Archived or compiled data is damaged, gone, or cannot be written; says what to do.

    Parameters
    ----------
    code
        `missing`, `damaged`, `no_space`, `not_writable`, `exists`, `empty`, `not_fillable`,
        `not_understood`, `other_form` or `changed`.
    """

    def __init__(self, message: str, *, code: str = "damaged") -> None:
        super().__init__(message)
        self.code = code


class Fenced(OnlineLearnerError):
    """A newer writer holds the fence: this one must stop and has committed nothing."""


class Unfit(OnlineLearnerError, ValueError):
    """A learner cannot take these features. Clients are told its words: no value, and no name.

    Of any other error that a learner raises, they are told the type alone.
    """


class ServiceError(OnlineLearnerError):
    """An error that a client is told about, in the form of RFC 9457."""

    status: ClassVar[int] = 500
    code: str = "internal"
    title: ClassVar[str] = "Internal error"
    retryable: ClassVar[bool] = False
    retry_after_s: int | None = None

    def __init__(
        self, detail: str, *, code: str | None = None, errors: Iterable[dict[str, str]] = ()
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.errors = list(errors)
        self.headers: dict[str, str] = {}  # that go with it, beside Retry-After

    @classmethod
    def at(cls, pointer: str, message: str, *, code: str | None = None) -> Self:
        """Build the error for one place in the body, `pointer` being a JSON pointer (RFC 6901)."""
        found = code or cls.code
        item = {"pointer": pointer, "code": found, "message": message}
        return cls(f"{pointer or '/'}: {message}", code=found, errors=[item])

    def under(self, *path: int | str) -> Self:
        """Return the error with the places in it below a path of the body."""
        prefix = json_pointer(*path)
        for place in self.errors:
            place["pointer"] = prefix + place["pointer"]
        return self

    def problem(self, *, instance: str = "", request_id: str = "") -> dict[str, Any]:
        """Return the `application/problem+json` body."""
        wait = {} if self.retry_after_s is None else {"retry_after_s": self.retry_after_s}
        return {
            "type": f"urn:online-learner:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            "errors": self.errors,
            "retryable": self.retryable,
            "request_id": request_id,
            **wait,
        }


class Malformed(ServiceError):
    """The body is not JSON, or not the JSON object that the route takes."""

    status, code, title = 400, "malformed", "Malformed request"


class Unauthorized(ServiceError):
    """No key, or one that nobody issued."""

    status, code, title = 401, "unauthorized", "Key missing or unknown"


class Forbidden(ServiceError):
    """The key is known, but lacks the scope."""

    status, code, title = 403, "forbidden", "Not allowed with this key"


class NotFound(ServiceError):
    """The thing named does not exist here."""

    status, code, title = 404, "not_found", "Not found"


class MethodNotAllowed(ServiceError):
    """The route exists, and takes other methods."""

    status, code, title = 405, "method_not_allowed", "Method not allowed"


class RequestTimeout(ServiceError):
    """The body did not arrive in time."""

    status, code, title = 408, "request_timeout", "Request timed out"
    retryable = True


class Conflict(ServiceError):
    """Somebody else moved first; read again, then decide again."""

    status, code, title = 409, "conflict", "Changed by somebody else"
    retryable = True


class Gone(ServiceError):
    """It was here, and nothing can be done with it any more."""

    status, code, title = 410, "gone", "Gone"


class WindowClosed(Gone):
    """The prediction is older than the window in which feedback is taken."""

    code, title = "feedback_window_closed", "Feedback window closed"


class Erased(Gone):
    """A record of which nothing is kept but its place, since a person wished so."""

    code, title = "erased", "Erased"
    TOLD: ClassVar[str] = "this was here, and its contents were erased at a person's wish"


class TooLarge(ServiceError):
    """The body is over the limit."""

    status, code, title = 413, "too_large", "Request too large"


class UnsupportedMediaType(ServiceError):
    """The body is not declared as JSON."""

    status, code, title = 415, "unsupported_media_type", "Send application/json"


class Invalid(ServiceError):
    """The body is well-formed, but a value in it cannot be accepted."""

    status, code, title = 422, "invalid_value", "Invalid value"


class RateLimited(ServiceError):
    """More was sent than this key, or this source, may send. Nothing was accepted."""

    status, code, title = 429, "rate_limited", "Too many requests"
    retryable, retry_after_s = True, 1


class Unavailable(ServiceError):
    """The store does not answer, or the model is still loading. Nothing was accepted."""

    status, code, title = 503, "store_unavailable", "Temporarily unavailable"
    retryable, retry_after_s = True, 1


class StoreFull(Unavailable):
    """The store answers, and has no room left. Nothing was accepted."""

    code, title = "store_full", "Store full"
    retry_after_s = 10


@dataclass(slots=True)
class Ration:
    """What the errors of one request may still name, so that a wrong one costs little."""

    each: int = MAX_PLACES  # places in one error
    places: int = MAX_PLACES
    hints: int = MAX_HINTS

    def take_places(self, found: int) -> int:
        """Return how many of the places found are to be named."""
        taken = min(found, self.each, self.places) if found <= MAX_FOUND else 0
        self.places -= taken
        return taken


_ration: ContextVar[Ration | None] = ContextVar("ration", default=None)


@contextlib.contextmanager
def rationed(each: int = MAX_PLACES) -> Iterator[Ration]:
    """Let all errors made within share one ration, with `each` places for one at most.

    Within another `rationed`, tasks and threads included, that one's ration is shared.
    """
    if (outer := _ration.get()) is not None:
        yield outer
        return
    ration = Ration(each)
    token = _ration.set(ration)
    try:
        yield ration
    finally:
        _ration.reset(token)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known word, or an empty string.

    >>> did_you_mean("auditt", ["audit", "alpha"])
    " Did you mean 'audit'?"
    """
    ration = _ration.get()
    if ration is not None:
        if not ration.hints:
            return ""
        ration.hints -= 1
    close = difflib.get_close_matches(str(word)[:MAX_WORD], list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""


def from_validation(error: pydantic.ValidationError, model: Any = None) -> ServiceError:
    """Translate pydantic's error into ours: one entry a place, with a did-you-mean for keys.

    The first places are named, within the ration of the request. None is where there are more than
    `MAX_FOUND`, or where other errors have used the ration up.
    """
    with rationed() as ration:
        count = error.error_count()
        named = ration.take_places(count)
        if not named:
            return Invalid(f"wrong in {count} places, too many to name: send less at a time")
        places = error.errors(include_url=False, include_input=False)[:named]
        items = [_item(found, model) for found in places]
    if any(item["code"] == "malformed" for item in items):
        return Malformed(items[0]["message"], errors=items)
    detail = "; ".join(f"{item['pointer'] or '/'}: {item['message']}" for item in items[:5])
    return Invalid(detail, code=items[0]["code"], errors=items)


def json_pointer(*path: int | str) -> str:
    """Return a path as a JSON pointer (RFC 6901).

    >>> json_pointer("features", "km/h")
    '/features/km~1h'
    """
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def trace(error: BaseException) -> str:
    """Return where an error and its causes were raised, and their types, but not what they say.

    The message of a foreign error may repeat what was sent.
    """
    parts, found = [], [error]
    while found:
        error = found.pop()
        parts.append("".join(traceback.format_tb(error.__traceback__)) + type(error).__qualname__)
        before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        found += [] if before is None else [before]
    return "\nwas raised because of\n".join(parts)


def _item(found: Any, model: Any) -> dict[str, str]:
    kind, path = found["type"], found["loc"]
    message, code = found["msg"].removeprefix("Value error, "), "invalid_value"
    if kind == "json_invalid":
        code, message = "malformed", "the body is not valid JSON"
    elif kind == "extra_forbidden":
        *path, key = path
        code, message = "unknown_field", _unknown_field(str(key), known_fields(model, path))
    elif kind in _NO_OBJECT:
        message = "must be a JSON object"
    else:
        message = _MESSAGES.get(kind, message)
    return {"pointer": json_pointer(*_follow(model, path)[1]), "code": code, "message": message}


# Where pydantic's own words name a class of ours, or repeat what was sent.
_NO_OBJECT = ("model_type", "model_attributes_type", "dict_type")
_MESSAGES = {
    "missing": "this field is required",
    "union_tag_invalid": "is none of the kinds that there are",
    "union_tag_not_found": "the field `kind` is required",
}


def _unknown_field(key: str, known: list[str]) -> str:
    hint = did_you_mean(key, known)
    return f"unknown field.{hint}" if hint else f"unknown field. Known: {', '.join(known)}."


def known_fields(model: Any, path: Iterable[int | str]) -> list[str]:
    """Return the field names that `model` (a pydantic model or a union of them) has at `path`."""
    found, _ = _follow(model, path)
    return sorted({name for m in found for name in _fields(m)})


def _follow(model: Any, path: Iterable[int | str]) -> tuple[list[Any], list[int | str]]:
    """Follow pydantic's path through a model; returns where it ends, and the path of the body.

    Pydantic names the member of a union on the way, which is no place in the body. The path ends
    before a key that is not one of ours.
    """
    found, places = _models_in(model), []
    for part in path:
        tagged = [m for m in found if part in _tags(m)]
        if tagged and len(found) > 1:
            found = tagged
            continue
        fields = [_fields(m)[part] for m in found if part in _fields(m)]
        if not fields and not isinstance(part, int):
            break
        places.append(part)
        found = [m for field in fields for m in _models_in(field.annotation)] or found
    return found, places


def _fields(model: Any) -> dict[Any, Any]:
    """Return the fields of a model by their names in a body."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    parts = getattr(annotation, "__args__", ())
    return [m for part in parts for m in _models_in(part)]


def _tags(model: Any) -> tuple[Any, ...]:
    kind = model.model_fields.get("kind")
    return getattr(kind.annotation, "__args__", ()) if kind is not None else ()
