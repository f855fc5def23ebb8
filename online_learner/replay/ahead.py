"""Read ahead: the recorded steps and the entries that they cover, a page at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

from pydantic import Field

from online_learner.archive.log import Log
from online_learner.ids import entry_order
from online_learner.schema import Step, Weighed
from online_learner.store import Entry

STEPS, ENTRIES = 200, 1000  # of a page


class _Recorded(Step):
    """A step as a replay reads it: what each lesson weighed is found out anew, and not parsed."""

    weighed: dict[str, Weighed] = Field(default_factory=dict, validation_alias="-")


class Ahead:
    """The recorded steps after a position, in order, each with the entries that it covers.

    What is appended meanwhile is met where the pages end: what has been read does not change.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self._steps: deque[tuple[str, Step]] = deque()
        self._bound = "0-0"  # where the steps end that have been read
        self._entries: list[Entry] = []
        self._names: list[str] = []  # of these entries
        self._place = 0  # of the first that has not been taken
        self._taken = "0-0"  # up to where entries have been taken
        self._read = "0-0"  # and up to where they have been read

    def clear(self) -> None:
        """Forget what has been read: the position is another one."""
        self._steps.clear()
        self._names, self._entries, self._place = [], [], 0
        self._taken = self._read = "0-0"

    async def next(self, after: str) -> tuple[str, Step] | None:
        """Return the first step after an entry, and its own entry; None where the record ends."""
        while self._steps and entry_order(self._steps[0][0]) <= entry_order(after):
            self._steps.popleft()
        if not self._steps:
            found = await self.log.range("steps", f"({after}", count=STEPS)
            self._steps.extend(
                (entry, _Recorded.model_validate_json(fields[b"s"])) for entry, fields in found
            )
        if not self._steps:
            return None
        self._bound = self._steps[-1][0]
        return self._steps[0]

    async def covered(self, step: Step) -> list[Entry]:
        """Return the entries of the feedback stream after which a step begins, up to its last."""
        if self._taken != step.after:
            self._names, self._entries, self._place = [], [], 0
            self._read = step.after
        self._taken, found = step.to, list[Entry]()
        while self._place < len(self._names) or await self._read_on():
            end = self._end(step.to)
            found += self._entries[self._place : end]
            self._place = end
            if end < len(self._names) or (found and found[-1][0] == step.to):
                break
        return found

    def _end(self, to: str) -> int:
        """Return where the entries end, of those that have been read, that are not after one."""
        try:
            return self._names.index(to, self._place) + 1
        except ValueError:  # it is on a later page, or gone
            last = entry_order(to)
            return bisect_right(self._names, last, lo=self._place, key=entry_order)

    async def _read_on(self) -> bool:
        """Read the next page of entries; False where there are no more of these steps."""
        if self._read == self._bound:
            return False
        page = await self.log.range("feedback", f"({self._read}", self._bound, count=ENTRIES)
        self._entries, self._names, self._place = page, [entry for entry, _ in page], 0
        self._read = page[-1][0] if len(page) == ENTRIES else self._bound
        return bool(page)
