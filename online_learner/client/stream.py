"""What happens to a model, as it happens: server-sent events, and how a reader comes back.

Both clients read a connection line by line here, and are told what to ask when it breaks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from urllib.parse import urlencode

import httpx2

from online_learner.client.sending import Call, Course, Json, Outcome, Retry, Sending

KINDS = ("metrics", "feedback", "verdict", "swap", "alarm", "quality")
AGAIN_S = 0.5  # from the end of a connection to the next
TIMEOUT = httpx2.Timeout(10.0, read=30.0)  # the service shows every 10 s that it is there


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a model.

    Attributes
    ----------
    id
        Where to go on: given as `after`, in this process or another, it brings what came later. The
        same event may have another id when it is heard again.
    kind
        `metrics`, `feedback`, `verdict`, `swap`, `alarm` or `quality`; or `lost`, where what was
        missed is trimmed.
    at
        When, in seconds since 1970.
    data
        What else there is to tell, by kind.
    """

    id: str = field(compare=False)
    kind: str
    model: str
    at: float
    data: Json


Asked: TypeAlias = Course[Json]


class Reader:
    """Reads one stream, over as many connections as it takes.

    Parameters
    ----------
    patience_s
        For how long the service may be away before that is an error.

    Examples
    --------
    >>> reader = Reader("spam", after="c0")
    >>> reader.again().request["url"]
    '/v1/stream?model=spam&events=metrics,feedback,verdict,swap,alarm,quality&after=c0'
    >>> lines = ['event: swap', 'data: {"model":"spam","at":1.5,"step":7}', "id: c1", ""]
    >>> [event] = filter(None, map(reader.line, lines))
    >>> event.kind, event.at, event.data
    ('swap', 1.5, {'step': 7})
    >>> reader.again(None).request["url"][-8:]
    'after=c1'
    """

    def __init__(
        self,
        model: str,
        events: Iterable[str] = KINDS,
        *,
        after: str | None = None,
        retry: Retry | None = None,
        patience_s: float = 60.0,
    ) -> None:
        self._after = after
        self._asked = {"model": model, "events": ",".join(events)}
        self._retry = replace(retry or Retry(), attempts=1 << 30, deadline_s=patience_s)
        self._course: Asked | None = None
        self._heard = False
        self._block: dict[str, str] = {}

    def again(self, outcome: Outcome | None = None) -> Sending:
        """Return what to ask next, and how long to wait before.

        Parameters
        ----------
        outcome
            What the connection before came to, where there was one.

        Raises
        ------
        ApiError
            The service refuses, and would do so again.
        NotReachable
            It has been away for too long.
        """
        self._block = {}
        if self._course is None or self._heard or outcome is None:
            wait_s = AGAIN_S * (1 + self._retry.random()) if self._heard else 0.0
            self._course, self._heard = self._begin(wait_s), False
            return next(self._course)
        return self._course.send(outcome)

    def _begin(self, wait_s: float) -> Asked:
        after = {} if self._after is None else {"after": self._after}
        path = f"/v1/stream?{urlencode(self._asked | after, safe=',')}"
        call: Call[Json] = Call("GET", path, lambda reply: reply)
        return call.course(self._retry.begin(), wait_s)

    def line(self, line: str) -> Event | None:
        """Take one line of a connection; returns the event that it ends, where it ends one."""
        self._heard = True
        if line:
            name, _, value = line.partition(":")
            self._block[name] = value.removeprefix(" ")
            return None
        block, self._block = self._block, {}
        self._after = block.get("id", self._after)
        if "data" not in block:
            return None
        data: Json = json.loads(block["data"])
        model, at = data.pop("model"), data.pop("at")
        return Event(self._after or "", block.get("event", "message"), model, at, data)
