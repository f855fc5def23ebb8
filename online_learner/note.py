"""The note that a running `online-learner up` leaves in its data directory: where it is."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

NOTE = "endpoint.json"


@dataclass(frozen=True, slots=True)
class Note:
    """Where a service is, the key that it takes, its store, and its process."""

    url: str
    key: str = field(repr=False)
    store: str
    pid: int

    def write(self, data_dir: Path) -> None:
        """Leave the note, readable by this user only."""
        handle = os.open(data_dir / NOTE, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump(
                {"url": self.url, "key": self.key, "store": self.store, "pid": self.pid}, file
            )

    @classmethod
    def read(cls, data_dir: Path) -> Self | None:
        """Return what the service that runs on `data_dir` wrote down, or None where none runs."""
        try:
            found = json.loads((data_dir / NOTE).read_text())
            return cls(found["url"], found["key"], found["store"], int(found["pid"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
