"""A proxy for the Redis protocol, on a unix socket: between us and the server, it does harm on cue.

It knows which process is at the other end of a connection, and which command a reply belongs to.
A trap waits for a command; when one comes by, the trap alone says what becomes of it:

    async def reset_before_reply(exchange):
        exchange.send()
        await exchange.reply()
        exchange.reset()
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Self, TypeAlias

from online_learner.store import SCRIPTS

CHUNK_BYTES = 1 << 18
_SOURCES = {
    name: resources.files("online_learner.store").joinpath(f"lua/{name}.lua").read_bytes()
    for name in SCRIPTS
}
_BY_SHA = {
    hashlib.sha1(source, usedforsecurity=False).hexdigest().encode(): name
    for name, source in _SOURCES.items()
}


@dataclass(slots=True)
class Exchange:
    """One command that ran into a trap, and the connection that it came by."""

    request: bytes
    pid: int
    _connection: _Connection

    def send(self) -> None:
        """Let the server have the command."""
        self._connection.send(self.request)

    def send_half(self) -> None:
        """Let the server have half of the command."""
        self._connection.send(self.request[: len(self.request) // 2])

    async def reply(self) -> bytes:
        """Return the server's reply, which the client has not got."""
        return await self._connection.replies.get()

    def give(self, reply: bytes) -> None:
        """Let the client have a reply, or a part of one."""
        self._connection.give(reply)

    def reset(self) -> None:
        """Break the client's connection."""
        self._connection.reset()

    async def gone(self) -> None:
        """Wait until the client has broken off."""
        await self._connection.client_gone.wait()


Act: TypeAlias = Callable[[Exchange], Awaitable[None]]


@dataclass(slots=True)
class Trap:
    """What happens to the next command of a kind; a trap is sprung once.

    Parameters
    ----------
    of
        The name of a script (`ingest`), or of a command (`XREAD`).
    pid
        Only that process's commands; None takes anybody's.
    with_
        What has to be in the command.
    """

    of: str
    act: Act
    pid: int | None = None
    with_: bytes = b""
    sprung: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)


Watcher: TypeAlias = Callable[[str, int, bytes, bytes], None]  # name, process, request, reply


class Proxy:
    """Passes everything on, but for what runs into a trap.

    Parameters
    ----------
    path
        Where clients connect.
    server
        The socket of the real server.
    """

    def __init__(self, path: Path, server: Path) -> None:
        self.path = path
        self.server = server
        self.traps: list[Trap] = []
        self.deaf = False  # subscribers get no messages
        self.watcher: Watcher | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where to connect."""
        return f"unix://{self.path}"

    def trap(self, of: str, act: Act, *, pid: int | None = None, with_: bytes = b"") -> Trap:
        """Set a trap for the next command of a kind."""
        trap = Trap(of, act, pid, with_)
        self.traps.append(trap)
        return trap

    def caught(self, name: str, pid: int, request: bytes) -> Trap | None:
        """Return the trap that a command runs into, if there is one; it is not set any more."""
        for trap in self.traps:
            if trap.of == name and trap.pid in (None, pid) and trap.with_ in request:
                self.traps.remove(trap)
                return trap
        return None

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_unix_server(self._accept, self.path)
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._listener is not None:
            self._listener.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_unix_connection(self.server)
        except OSError:  # the server is dead: so are connections to it
            writer.transport.abort()
            return
        connection = _Connection(self, _peer(writer), writer, to_server)
        passing = asyncio.create_task(connection.pass_replies(from_server))
        try:
            await connection.pass_requests(reader)
        except OSError:
            pass
        finally:
            passing.cancel()
            for end in (writer, to_server):
                end.transport.abort()


class _Connection:
    def __init__(
        self, proxy: Proxy, pid: int, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._pid = pid
        self._client = client
        self._server = server
        self._waiting: deque[tuple[str, bytes]] = deque()  # what was sent and has no reply yet
        self._settled = asyncio.Event()
        self._trapped = False
        self._subscribed = False
        self.replies: asyncio.Queue[bytes] = asyncio.Queue()
        self.client_gone = asyncio.Event()

    def send(self, request: bytes) -> None:
        self._server.write(request)

    def give(self, reply: bytes) -> None:
        self._client.write(reply)

    def reset(self) -> None:
        self._client.transport.abort()

    # --- to the server ------------------------------------------------------------------------

    async def pass_requests(self, reader: asyncio.StreamReader) -> None:
        arrived: asyncio.Queue[bytes] = asyncio.Queue()
        reading = asyncio.create_task(self._read(reader, arrived))
        buffer = bytearray()
        try:
            while part := await arrived.get():
                buffer += part
                await self._pass_whole(buffer)
        finally:
            reading.cancel()

    async def _read(self, reader: asyncio.StreamReader, arrived: asyncio.Queue[bytes]) -> None:
        """Read on while a command is trapped, so that it is known when the client breaks off."""
        with contextlib.suppress(OSError):
            while part := await reader.read(CHUNK_BYTES):
                arrived.put_nowait(part)
        self.client_gone.set()
        arrived.put_nowait(b"")

    async def _pass_whole(self, buffer: bytearray) -> None:
        """Send on the whole commands in a buffer, and take them out of it."""
        at = sent = 0
        while (end := frame_end(buffer, at)) > 0:
            request = bytes(buffer[at:end])
            name = command(request)
            trap = self._proxy.caught(name, self._pid, request)
            if trap is not None:
                self.send(bytes(buffer[sent:at]))
                await self._spring(trap, request)
                sent = end
            else:
                self._waiting.append((name, request))
                self._subscribed |= name == "SUBSCRIBE"
            at = end
        self.send(bytes(buffer[sent:at]))
        del buffer[:at]

    async def _spring(self, trap: Trap, request: bytes) -> None:
        while self._waiting:  # what was sent before comes first
            self._settled.clear()
            await self._settled.wait()
        self._trapped = True
        trap.sprung.set()
        try:
            await trap.act(Exchange(request, self._pid, self))
        finally:
            self._trapped = False
            trap.over.set()

    # --- to the client ------------------------------------------------------------------------

    async def pass_replies(self, reader: asyncio.StreamReader) -> None:
        buffer = bytearray()
        with contextlib.suppress(OSError):
            while part := await reader.read(CHUNK_BYTES):
                buffer += part
                self._give_whole(buffer)
        self.reset()  # the server has gone
        self.replies.put_nowait(b"")

    def _give_whole(self, buffer: bytearray) -> None:
        at, passed = 0, bytearray()
        while (end := frame_end(buffer, at)) > 0:
            reply, at = bytes(buffer[at:end]), end
            if self._subscribed:
                if self._proxy.deaf and reply.startswith(b"*3\r\n$7\r\nmessage"):
                    continue
                passed += reply
            elif self._trapped:
                self.replies.put_nowait(reply)
            elif self._waiting:  # else it is to a command whose client has gone
                name, request = self._waiting.popleft()
                if self._proxy.watcher is not None:
                    self._proxy.watcher(name, self._pid, request, reply)
                passed += reply
        self.give(bytes(passed))
        del buffer[:at]
        if not self._waiting:
            self._settled.set()


def frame_end(data: bytearray, at: int) -> int:
    r"""Return where the value (RESP2) that begins at `at` ends, or -1 where more is to come.

    >>> frame_end(bytearray(b"*2\r\n$3\r\nGET\r\n:1\r\n+OK"), 0)
    17
    >>> frame_end(bytearray(b"$5\r\nhal"), 0)
    -1
    """
    missing = 1
    while missing:
        line = data.find(b"\r\n", at)
        if line < 0:
            return -1
        missing -= 1
        if data[at] in b"*$":
            count = int(data[at + 1 : line])
            if data[at] == ord("*"):
                missing += max(0, count)
            elif count >= 0:
                line += count + 2
        at = line + 2
    return at if at <= len(data) else -1


def command(request: bytes) -> str:
    r"""Return the name of a command, or of the script of ours that it runs.

    >>> command(b"*2\r\n$3\r\nget\r\n$1\r\na\r\n")
    'GET'
    """
    name, at = _part(request, request.index(b"\r\n") + 2)
    if name.upper() not in (b"EVALSHA", b"EVAL"):
        return name.decode().upper()
    script, _ = _part(request, at)
    if name.upper() == b"EVAL":
        script = hashlib.sha1(script, usedforsecurity=False).hexdigest().encode()
    return _BY_SHA.get(script, name.decode().upper())


def _part(request: bytes, at: int) -> tuple[bytes, int]:
    """Return the part of a command that begins at `at`, and where the next one does."""
    line = request.index(b"\r\n", at)
    end = line + 2 + int(request[at + 1 : line])
    return request[line + 2 : end], end + 2


def _peer(writer: asyncio.StreamWriter) -> int:
    """Return the process at the other end."""
    end: socket.socket = writer.get_extra_info("socket")
    credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, _, _ = struct.unpack("3i", credentials)
    return int(pid)
