"""How a call is written, when it may be sent again, and how its reply is read."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import httpx2

from online_learner.client.errors import ApiError, NotReachable, api_error

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Json: TypeAlias = dict[str, Any]
Outcome: TypeAlias = httpx2.Response | httpx2.RequestError
Repeat: TypeAlias = Literal["always", "refused", "unsent"]

_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_BROKEN = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)
_AWAY = HTTPStatus.SERVICE_UNAVAILABLE
BUSY = frozenset({429, 503})
_GATEWAY = frozenset({429, 502, 503, 504})
_IN_FRONT = frozenset({404, 500})  # HAProxy: it knows no route yet, or found no replica


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a call is sent, and how long to wait in between.

    Parameters
    ----------
    attempts
        The most times that one call is sent.
    first_s
        The first wait; each one after it is twice as long, less a random part of up to a half. To a
        `Retry-After` it is added, so that not all who were refused come back at once.
    longest_s
        No wait is longer. A `Retry-After` beyond it ends the retries.
    deadline_s
        Nothing is sent again later than this after the call began. The last attempt may still take
        the client's `timeout_s`.
    random
        Draws the random part, from [0, 1).
    clock
        Seconds, from any moment on.
    """

    attempts: int = 4
    first_s: float = 0.1
    longest_s: float = 5.0
    deadline_s: float = 30.0
    random: Callable[[], float] = random.random
    clock: Callable[[], float] = time.monotonic

    def wait_s(self, attempt: int, retry_after_s: float | None = None) -> float | None:
        """Return how long to wait after an attempt, counted from 1; None: give up.

        >>> retry = Retry(random=lambda: 0.0)
        >>> [retry.wait_s(attempt) for attempt in (1, 2, 3, 4)]
        [0.1, 0.2, 0.4, None]
        >>> retry.wait_s(1, retry_after_s=2.0), retry.wait_s(1, retry_after_s=60.0)
        (2.0, None)
        """
        if attempt >= self.attempts or (retry_after_s or 0.0) > self.longest_s:
            return None
        backoff_s = min(self.first_s * 2.0 ** min(attempt - 1, 64), self.longest_s)
        part_s = backoff_s * self.random() / 2
        return max(backoff_s - part_s, (retry_after_s or 0.0) + part_s)

    def begin(self) -> Patience:
        """Return what is left for a call that begins now."""
        return Patience(self, self.clock() + self.deadline_s)


@dataclass(slots=True)
class Patience:
    """What is left of a `Retry` for one call."""

    retry: Retry
    ends_at: float
    attempts: int = 0

    def wait_s(self, retry_after_s: float | None = None) -> float | None:
        """Return how long to wait after one more attempt that failed; None: give up."""
        self.attempts += 1
        wait_s = self.retry.wait_s(self.attempts, retry_after_s)
        if wait_s is None or self.retry.clock() + wait_s > self.ends_at:
            return None
        return wait_s


class Sending(NamedTuple):
    """What to send next, as the arguments of httpx's `request`, and how long to wait before."""

    wait_s: float
    request: dict[str, Any]


Course: TypeAlias = Generator[Sending, Outcome, T]


class Sent(Protocol[T_co]):
    """What a client can send: it says what goes out, and is told what came of it."""

    def course(self, patience: Patience) -> Course[T_co]:
        """Yield what to send, take what came of it, return the result."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One call of the API.

    Parameters
    ----------
    read
        Turns the JSON of the reply into the result.
    repeat
        When it may be sent again: `always` (it is a read, or carries an idempotency key), `refused`
        (the service did not take it), `unsent` (it never left).
    probe
        A 503 is an answer, and is read.
    file
        Bytes that are sent as they are, in place of a body.
    """

    method: str
    path: str
    read: Callable[[Json], T]
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeat: Repeat = "always"
    probe: bool = False
    file: bytes | None = None

    def request(self) -> dict[str, Any]:
        """Return the arguments of httpx's `request`."""
        headers = dict(self.headers)
        if self.file is not None:
            headers["content-type"] = "application/octet-stream"
            kept = {"headers": headers, "content": self.file}
            return {"method": self.method, "url": self.path, **kept}
        if self.body is None:
            return {"method": self.method, "url": self.path, "headers": headers}
        headers["content-type"] = "application/json"
        content = json.dumps(self.body, allow_nan=False, default=_plain, separators=(",", ":"))
        return {"method": self.method, "url": self.path, "headers": headers, "content": content}

    def course(self, patience: Patience, wait_s: float = 0.0) -> Course[T]:
        """Yield the call until it succeeds, each time with the wait before it; return its result.

        Raises
        ------
        ApiError, NotReachable
            The last attempt failed, or another one would not be safe.
        """
        request = self.request()
        while True:
            outcome = yield Sending(wait_s, request)
            if isinstance(outcome, httpx2.Response) and self._succeeded(outcome):
                return self.read(_json(outcome))
            again_s = patience.wait_s(_retry_after_s(outcome))
            if again_s is None or not self._may_repeat(outcome):
                raise _error(outcome, patience.attempts)
            wait_s = again_s

    def _succeeded(self, response: httpx2.Response) -> bool:
        return response.is_success or (self.probe and response.status_code == _AWAY)

    def _may_repeat(self, outcome: Outcome) -> bool:
        if not isinstance(outcome, httpx2.Response):
            return isinstance(outcome, _UNSENT if self.repeat != "always" else _BROKEN)
        status = outcome.status_code
        if self.repeat == "always":
            # What the application itself answers has a problem.
            return status in _GATEWAY or (status in _IN_FRONT and not _is_problem(outcome))
        return self.repeat == "refused" and status in BUSY


def _json(response: httpx2.Response) -> Json:
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ApiError(
            {
                "status": response.status_code,
                "code": "not_json",
                "detail": f"{_place(response.url)} does not speak this API: is the address right?",
            }
        )
    return found


def _error(outcome: Outcome, attempts: int) -> ApiError | NotReachable:
    if isinstance(outcome, httpx2.Response):
        if _is_problem(outcome):
            return api_error(_json(outcome))
        detail = f"{_place(outcome.url)} answered {outcome.status_code} {outcome.reason_phrase}"
        return ApiError({"status": outcome.status_code, "detail": detail})
    place = _place(outcome.request.url)
    what = str(outcome) or type(outcome).__name__
    return NotReachable(
        f"no answer from {place} after {attempts} attempt{'s' * (attempts > 1)} ({what}). Is it "
        "running? Start it with `online-learner up`, or set OL_URL; `online-learner doctor` tells "
        "more."
    )


def _place(url: httpx2.URL) -> str:
    """Return where a URL leads, without the password that it may carry."""
    return f"{url.scheme}://{url.netloc.decode()}"


def _is_problem(response: httpx2.Response) -> bool:
    return response.headers.get("content-type", "").startswith("application/problem+json")


def _retry_after_s(outcome: Outcome) -> float | None:
    if not isinstance(outcome, httpx2.Response):
        return None
    text = outcome.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else None


def _plain(value: Any) -> Any:
    """Return numpy's numbers as Python's own, and pydantic's objects (OpenAI's, say) as dicts."""
    if hasattr(value, "item") and hasattr(value, "dtype"):
        return value.item()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} cannot be sent: use numbers, strings and booleans")
