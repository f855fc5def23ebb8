"""What is open on the network: the ports of a running `up`, and whom they ask for what."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from online_learner.cli.finding import Finding, Level
from online_learner.note import Note
from online_learner.store.probe import is_local

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_LISTENS = "0A"
_ASK_FOR_TOKEN = ("raylet", "gcs_server", "dashboard.py")
_TABLES = ("tcp", "tcp6")
_TIMEOUT_S = 1.0
_REDIS_PORT = 6379


@dataclass(frozen=True, slots=True)
class Listener:
    """A port, and the process that listens there."""

    process: str
    address: str
    port: int

    @property
    def open(self) -> bool:
        """Whether other machines reach it, where no firewall is in between."""
        return not _plain(ipaddress.ip_address(self.address)).is_loopback

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port} ({self.process})"


def listeners(pids: Iterable[int]) -> list[Listener]:
    """Return the TCP ports on which processes listen, by port; Linux only, else none."""
    ports = _listening()
    found = {
        Listener(_name(pid), *ports[inode])
        for pid in pids
        for inode in _sockets(pid)
        if inode in ports
    }
    return sorted(found, key=lambda listener: (listener.port, listener.address))


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found = [pid]
    for one in found:  # it grows meanwhile
        found += children.get(one, [])
    return found


def asks_for_token(pids: Iterable[int]) -> bool:
    """Tell whether the Ray of these processes asks for a token."""
    return any(_variable(pid, "RAY_AUTH_MODE") == "token" for pid in pids)


def asks_for_password(url: str) -> bool | None:
    """Tell whether a store asks for a password; None where it is not asked, or does not answer."""
    parts = urlsplit(url)
    if parts.scheme != "redis" or parts.hostname is None:
        return None
    with (
        contextlib.suppress(OSError, ValueError),
        socket.create_connection((parts.hostname, parts.port or _REDIS_PORT), _TIMEOUT_S) as probe,
    ):
        probe.sendall(b"PING\r\n")
        reply = probe.recv(64)
        return None if not reply else not reply.startswith(b"+PONG")
    return None


# --- what doctor says -------------------------------------------------------------------------


def network(data_dir: Path) -> Iterator[Finding]:
    """Look at the ports of the `up` that runs on a data directory: which others can reach."""
    note = Note.read(data_dir)
    pids = [] if note is None else family(note.pid)
    front = None if note is None else _port(note.url)
    found = listeners(pids)
    private = [listener for listener in found if not listener.open]
    count = f"{len(private)} ports of `up` are on loopback"
    all_are = len(private) == len(found)
    yield Finding("network", "ok", f"{count}, and none is open to others" if all_are else count)
    guarded = asks_for_token(pids)
    yield from (beyond(listener, front, guarded=guarded) for listener in found if listener.open)


def beyond(listener: Listener, front: int | None, *, guarded: bool) -> Finding:
    """Say what somebody on another machine finds at a port."""
    if listener.port == front:
        message = f"{listener} is open to other machines: it asks for keys, without TLS"
        return Finding("network", "warning", message, "put a proxy in front that speaks TLS")
    if not listener.process.startswith("ray::") and listener.process not in _ASK_FOR_TOKEN:
        cure = "close the port by a firewall"
        return Finding("network", "warning", f"{listener} is open, and asks for nothing", cure)
    if guarded:
        return Finding("network", "ok", f"{listener} is open, and asks for a key or Ray's token")
    message = f"{listener} is open, and runs what anybody sends"
    cure = "set RAY_AUTH_MODE=token and start it anew; until then, close the port by a firewall"
    return Finding("network", "problem", message, cure)


def _port(url: str) -> int | None:
    with contextlib.suppress(ValueError):
        return urlsplit(url).port
    return None


def store_access(url: str) -> Iterator[Finding]:
    """Look whether others can read and write the store as well."""
    asked, local = asks_for_password(url), is_local(url)
    if asked is False:
        message = "it asks for no password: whoever reaches it reads and changes everything"
        cure = "requirepass, or an ACL user; then give the URL in OL_STORE or OL_STORE_FILE"
        level: Level = "warning" if local else "problem"
        yield Finding("store access", level, message, cure)
    if not local and urlsplit(url).scheme == "redis":
        message = "passwords and data travel to it in clear"
        yield Finding("store access", "warning", message, "use rediss://, or a private network")
    elif asked is not False:
        yield Finding("store access", "ok", "private" if local else "encrypted")


# --- what the kernel knows --------------------------------------------------------------------


def _listening() -> dict[str, tuple[str, int]]:
    """Return address and port of each listening socket, by inode."""
    found = {}
    for table in _TABLES:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == _LISTENS:
                    address, _, port = words[1].partition(":")
                    found[words[9]] = (read_address(address), int(port, 16))
    return found


def read_address(text: str) -> str:
    """Return an address as the kernel writes it, words of 4 bytes with the lowest byte first.

    >>> read_address("0100007F"), read_address("00000000000000000000000000000000")
    ('127.0.0.1', '::')
    """
    raw = bytes.fromhex(text)
    words = (raw[n : n + 4][::-1] for n in range(0, len(raw), 4))
    return str(ipaddress.ip_address(b"".join(words)))


def _plain(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _sockets(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                kind, _, inode = str(link.readlink()).partition(":")
                if kind == "socket":
                    yield inode.strip("[]")


def _name(pid: int) -> str:
    """Return what a process is known as: Ray's own title, else its program."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "a process that has ended"
    title = words[0].strip()
    if title.startswith("ray::"):
        return title
    program = next((word for word in words[1:] if not word.startswith("-")), title)
    return Path(program if Path(title).name.startswith("python") else title).name


def _variable(pid: int, name: str) -> str | None:
    with contextlib.suppress(OSError):
        for pair in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            key, _, value = pair.partition(b"=")
            if key == name.encode():
                return value.decode(errors="replace")
    return None
