"""A load generator for HTTP/1.1 with keep-alive: sockets and a selector, in a process of its own.

An HTTP library would be the bottleneck; this costs the machine about 15 us a request.
"""

from __future__ import annotations

import itertools
import math
import re
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from threading import Event
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")

_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a run: latencies in ms of all answers, shape `(n,)`, and their statuses."""

    seconds: float
    latencies_ms: NDArray[np.float64]
    statuses: Counter[int]
    bodies: list[bytes] = field(default_factory=list)

    @property
    def per_s(self) -> float:
        """Good answers a second."""
        good = sum(n for status, n in self.statuses.items() if 200 <= status < 300)
        return good / self.seconds

    @property
    def failed(self) -> int:
        """Answers other than 2xx, and connections that broke (status 0)."""
        return sum(n for status, n in self.statuses.items() if not 200 <= status < 300)

    def percentile(self, share: float) -> float:
        """Return a percentile of the latency, in ms."""
        return float(np.percentile(self.latencies_ms, share)) if self.latencies_ms.size else np.nan


def post(url: str, body: bytes, *, key: str) -> bytes:
    """Return the bytes of one request."""
    place = urlsplit(url)
    return (
        f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def get(url: str) -> bytes:
    """Return the bytes of one request without a body."""
    place = urlsplit(url)
    return f"GET {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode()


def apart(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function in a fresh process, on its main thread, and return the result."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def drive(
    url: str,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float = _PATIENCE_S,
    repeat: bool = True,
    keep_bodies: bool = False,
    enough: Event | None = None,
) -> Load:
    """Send requests over so many connections, each waiting for its answer before the next.

    Parameters
    ----------
    seconds
        No request is sent after that time.
    repeat
        Begin again at the end of `requests`, instead of stopping there.
    enough
        Once it is set, no request is sent either.
    """
    place = urlsplit(url)
    address = (place.hostname or "127.0.0.1", place.port or 80)
    pending = itertools.cycle(requests) if repeat else iter(requests)
    driver = _Driver(address, pending, keep_bodies=keep_bodies)
    return driver.run(connections, seconds, enough)


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    sent_at: float = 0.0
    received: bytes = b""
    missing: int = -1  # bytes still to come; -1 before the head was read
    last: bool = False  # the server says that it closes the connection after this answer


class _Driver:
    def __init__(
        self, address: tuple[str, int], pending: Iterator[bytes], *, keep_bodies: bool
    ) -> None:
        self._address = address
        self._pending = pending
        self._keep = keep_bodies
        self._selector = selectors.DefaultSelector()
        self._statuses: Counter[int] = Counter()
        self._latencies: list[float] = []
        self._bodies: list[bytes] = []

    def run(self, connections: int, seconds: float, enough: Event | None = None) -> Load:
        started = finished = checked = time.perf_counter()
        self._deadline = started + seconds
        for _ in range(connections):
            self._open()
        while self._selector.get_map() and finished < self._deadline + _PATIENCE_S:
            for key, _ in self._selector.select(0.1):
                self._receive(key.data)
            finished = time.perf_counter()
            if enough is not None and finished - checked > 0.1:
                checked = finished
                self._deadline = min(self._deadline, finished if enough.is_set() else math.inf)
        for key in list(self._selector.get_map().values()):
            self._close(key.data, failed=True)
        self._selector.close()
        latencies = np.array(self._latencies) * 1000
        return Load(finished - started, latencies, self._statuses, self._bodies)

    def _open(self) -> None:
        connection = _Connection(socket.create_connection(self._address, timeout=_PATIENCE_S))
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        self._send(connection)

    def _close(self, connection: _Connection, *, failed: bool = False) -> None:
        self._statuses[0] += failed
        self._selector.unregister(connection.socket)
        connection.socket.close()

    def _send(self, connection: _Connection) -> None:
        now = time.perf_counter()
        request = next(self._pending, None) if now < self._deadline else None
        if request is None:
            self._close(connection)
            return
        connection.received, connection.missing, connection.sent_at = b"", -1, now
        connection.socket.sendall(request)

    def _receive(self, connection: _Connection) -> None:
        try:
            part = connection.socket.recv(1 << 18)
        except OSError:
            part = b""
        if not part:
            self._close(connection, failed=True)
            if time.perf_counter() < self._deadline:
                self._open()
            return
        connection.received += part
        if connection.missing < 0:
            end = connection.received.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(connection.received, 0, end)
            connection.last = _CLOSE.search(connection.received, 0, end) is not None
            body = int(length[1]) if length else 0
            connection.missing = end + 4 + body - len(connection.received)
        else:
            connection.missing -= len(part)
        if connection.missing == 0:
            self._finish(connection)

    def _finish(self, connection: _Connection) -> None:
        self._latencies.append(time.perf_counter() - connection.sent_at)
        self._statuses[int(connection.received[9:12])] += 1
        if self._keep:
            self._bodies.append(connection.received.partition(b"\r\n\r\n")[2])
        if connection.last and time.perf_counter() < self._deadline:
            self._close(connection)
            self._open()
        else:
            self._send(connection)
