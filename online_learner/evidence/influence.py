"""How much of the evidence one rater may give."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Influence:
    """A cap on the share that one rater has of the last points that counted.

    After a point is added to n, its rater may hold ceil(share min(n + 1, window)) of them: one
    alone gives a single point, with a share of a tenth fewer than ten never get past nine points,
    and ten can go on for ever.

    Parameters
    ----------
    share
        The largest share of the window, in (0, 1].
    window
        How many points it reaches back.
    raters
        Who gave the points in it, the oldest first.
    """

    share: float
    window: int = 100
    raters: list[str] = field(default_factory=list)

    def admits(self, rater: str) -> bool:
        """Tell whether one more point of this rater may count."""
        size = min(len(self.raters) + 1, self.window)
        return self.raters.count(rater) < math.ceil(self.share * size - 1e-9)

    def add(self, rater: str) -> None:
        """Count a point of this rater."""
        self.raters.append(rater)
        del self.raters[: -self.window]

    def pack(self) -> dict[str, Any]:
        """Return the state as plain JSON."""
        return {"share": self.share, "window": self.window, "raters": list(self.raters)}

    @classmethod
    def unpack(cls, state: dict[str, Any]) -> Influence:
        """Return what `pack` wrote."""
        return cls(state["share"], state["window"], list(state["raters"]))
