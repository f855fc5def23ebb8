"""Secrets and personal data to be planted in requests, and looked for where they are not to be.

Each has the shape of something that people paste into the wrong place, and in it twelve random
letters and digits that stand nowhere else. They are found by those, in whatever writing.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable
from typing import Any

CORE = 12
MARK = "@"  # stands for a plant in a template, as a value or at the end of a key

_RUN = re.compile(rf"[a-z0-9]{{{CORE},}}")
_SHAPES: dict[str, Callable[[str], str]] = {
    "API key": lambda core: f"ol_{core}_live",
    "foreign API key": lambda core: f"sk-proj-{core}T3BlbkFJ",
    "password": lambda core: f"Tr0ub4dor&{core}!",
    "e-mail": lambda core: f"ada.{core}@example.org",
    "name": lambda core: f"Ada {core} Lovelace",
    "identifier": lambda core: f"patient_{core}",
}
_CARD = "card"


class Plants:
    """Makes them, and knows where each was planted."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.planted: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.planted)

    def new(self, place: str) -> str:
        """Return a new one, in one of the shapes."""
        shape = self._rng.choice([*_SHAPES, _CARD])
        letters = string.digits if shape == _CARD else string.ascii_lowercase + string.digits
        core = "".join(self._rng.choices(letters, k=CORE))
        self.planted[core] = f"{place} ({shape})"
        return f"4539{core}" if shape == _CARD else _SHAPES[shape](core)

    def fill(self, template: Any, place: str) -> Any:
        """Return a document with a new one wherever a template has a mark."""
        if isinstance(template, dict):
            return {
                self.new(f"{place}, a key") if key.endswith(MARK) else key: self.fill(
                    value, f"{place}.{key}"
                )
                for key, value in template.items()
            }
        if isinstance(template, list):
            return [self.fill(value, place) for value in template]
        return self.new(place) if template == MARK else template

    def found_in(self, text: str) -> dict[str, str]:
        """Return those that stand in a text, with the places where they were planted."""
        found = {}
        for run in set(_RUN.findall(text.lower())):
            for start in range(len(run) - CORE + 1):
                core = run[start : start + CORE]
                if core in self.planted:
                    found[core] = self.planted[core]
        return found
