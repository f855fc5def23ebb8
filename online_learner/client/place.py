"""Where the service is, and the key that it takes."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from online_learner.client.errors import NotReachable
from online_learner.errors import ConfigError
from online_learner.note import Note
from online_learner.secret import from_environment


@dataclass(frozen=True, slots=True)
class Place:
    """The address of a service, and a key for it."""

    url: str
    key: str | None = field(default=None, repr=False)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, so that no proxy leads there.

        >>> Place("http://127.0.0.1:8000").is_local, Place("https://learn.example.org").is_local
        (True, False)
        """
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def options(self, timeout_s: float) -> dict[str, Any]:
        """Return the arguments of an httpx client that goes there."""
        headers = {} if self.key is None else {"authorization": f"Bearer {self.key}"}
        return {
            "base_url": self.url,
            "headers": headers,
            "timeout": timeout_s,
            "trust_env": not self.is_local,
        }


def locate(url: str | None = None, key: str | None = None, *, folder: Path | None = None) -> Place:
    """Return where the service is.

    Each of the two comes from the argument, else from `OL_URL` and `OL_API_KEY`, else from the note
    that a running `online-learner up` leaves in its data directory (`folder`, else `OL_DATA_DIR`,
    else `./.online_learner`). The key of the note is given to nobody but the service of the note.

    Raises
    ------
    NotReachable
        No address is known.
    ConfigError
        It is not an address.
    """
    noted = Note.read(folder or data_dir())
    url = url or os.environ.get("OL_URL") or (noted.url if noted else None)
    if url is None:
        raise NotReachable(
            "no service is known: start one with `online-learner up`, or set OL_URL and OL_API_KEY"
        )
    url = url.rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"'{url}' is not an address: write http://host:port")
    key = key or from_environment("OL_API_KEY")
    if key is None and noted is not None and noted.url == url:
        key = noted.key
    return Place(url, key)


def data_dir() -> Path:
    """Return the data directory of this user's service."""
    return Path(os.environ.get("OL_DATA_DIR") or ".online_learner")
