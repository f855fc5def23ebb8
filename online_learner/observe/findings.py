"""What follows from what one observer saw, checked: it may be a team's own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from online_learner.observe.lens import Lens
from online_learner.schema import Raised, Scaling, finite

MOST_RAISED = 100  # alarms of one observer, at once
MOST_TABLE_BYTES = 1 << 20  # it is an entry of the feedback stream, and in each checkpoint
MOST_BYTES = 16 << 20  # of what it knows, and of what it reports


@dataclass(frozen=True, slots=True)
class Findings:
    """All that one observer passes on at one moment; `told` is its report, as JSON."""

    table: dict[str, Any]
    scalings: dict[str, Scaling]
    ask: float
    alarms: list[Raised]
    state: str  # JSON
    report: dict[str, Any]
    told: str

    @classmethod
    def of(cls, lens: Lens) -> Findings:
        """Ask an observer for all of it.

        Raises
        ------
        Exception
            Any that the observer raises; `TypeError` and `ValueError` where what it says is not
            plain JSON, not finite where it has to be, or too large to be kept.
        """
        table = _text("table", lens.table(), MOST_TABLE_BYTES, allow_nan=False)
        scalings, ask = lens.scalings(), lens.ask()
        numbers = [n for s in scalings.values() for n in (s.slope, *s.shifts.values())]
        if not finite(numbers) or not (math.isfinite(ask) and ask >= 0.0):
            raise ValueError(f"a scaling, or `ask` ({ask!r}), is no finite number")
        report = lens.report()
        return cls(
            table=json.loads(table),
            scalings=dict(scalings),
            ask=float(ask),
            state=_text("state", lens.state(), MOST_BYTES),
            report=report,
            told=_text("report", report, MOST_BYTES),
            alarms=lens.alarms()[-MOST_RAISED:],
        )


def joined(parts: Mapping[str, str]) -> bytes:
    """Return one JSON object of texts that are JSON, by name."""
    inner = ", ".join(f"{json.dumps(name)}: {part}" for name, part in parts.items())
    return f"{{{inner}}}".encode()


def _text(what: str, value: dict[str, Any], most: int, *, allow_nan: bool = True) -> str:
    text = json.dumps(value, allow_nan=allow_nan)
    if len(text) > most:
        raise ValueError(f"its {what} is {len(text):,} bytes of JSON, and may have {most:,}")
    return text
