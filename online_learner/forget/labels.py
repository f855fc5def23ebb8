"""Labels that only one person gave: words of theirs, by which the model has answered others.

Where a model learns its labels, what somebody says to be right becomes a label, and from then on
stands among the scores of what everybody is answered. Such a label is renamed in these records, to
a keyed hash, so that they stay what they were otherwise. One that others have given as well, or
that was known before, is nobody's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from online_learner.forget.finding import Record, Theirs
from online_learner.forget.person import is_erased, parsed
from online_learner.forget.streams import Change, Judge
from online_learner.ids import entry_order
from online_learner.interpret import RENAMED
from online_learner.naming import Names
from online_learner.schema import pack
from online_learner.store import Entry

RECORDS = {"predictions": (b"r",), "feedback": (b"r", b"o"), "audits": (b"a",), "late": ()}
Alive = Callable[[int], Awaitable[None]]


class Labels:
    """What becomes of labels.

    Parameters
    ----------
    names
        Returns the keyed hash that stands for a label; see `naming.label_names`.
    known
        The stand-ins of labels that earlier runs have found to be the person's.
    """

    def __init__(self, names: Names, known: Iterable[str] = ()) -> None:
        self._names = names
        self.own = set(known)

    async def find(self, log: Record, theirs: Theirs, alive: Alive) -> None:
        """Look for labels that only this person gave."""
        given = dict(theirs.labels)
        if given:
            await self._said_by_others(log, theirs, given, alive)
        if given:
            await self._known_before(log, given, alive)
        self.own |= {self._names(label) for label in given}

    async def _said_by_others(
        self, log: Record, theirs: Theirs, given: dict[str, str], alive: Alive
    ) -> None:
        async for page in log.pages("feedback"):
            for entry, fields in page:
                if entry not in theirs.feedback and b"f" in fields:
                    value = parsed(fields[b"f"]).get("value")
                    if isinstance(value, str):
                        given.pop(value, None)
            await alive(len(page))

    async def _known_before(self, log: Record, given: dict[str, str], alive: Alive) -> None:
        last = max(given.values(), key=entry_order)
        async for page in log.pages("predictions", until=last):
            for entry, fields in page:
                for label in [label for label in given if label.encode() in fields.get(b"r", b"")]:
                    earlier = entry_order(entry) < entry_order(given[label])
                    if earlier and label in _labels(parsed(fields[b"r"])):
                        del given[label]
            await alive(len(page))

    def judge(self, stream: str) -> Judge | None:
        """Return what becomes of the entries of a stream; None where they have no labels."""
        records = RECORDS.get(stream)
        if not self.own or not records:
            return None

        def judge(entry: Entry) -> Change | None:
            if is_erased(entry[1]):
                return None
            puts = []
            for field in records:
                renamed = self._renamed(entry[1].get(field))
                if renamed is not None:
                    puts.append((field.decode(), renamed))
            return Change("put", (*puts, (RENAMED.decode(), b"1"))) if puts else None

        return judge

    def _renamed(self, record: bytes | None) -> bytes | None:
        """Return a record with these labels renamed; None where it has none of them."""
        if record is None:
            return None
        document = parsed(record)
        found = {
            label: name for label in _labels(document) if (name := self._names(label)) in self.own
        }
        if not found:
            return None
        for part in _parts(document):
            if isinstance(part.get("output"), str):
                part["output"] = found.get(part["output"], part["output"])
            for scored in _scored(part):
                renamed = {found.get(label, label): value for label, value in scored.items()}
                scored.clear()
                scored.update(renamed)
        return pack(document)


def _parts(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the answers in a record: its own, and those of each role."""
    roles = [*document.get("shadows", {}).values(), *document.get("roles", {}).values()]
    return [document, *(role for role in roles if isinstance(role, dict))]


def _scored(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what an answer has by label."""
    found = [part.get("scores"), (part.get("scaling") or {}).get("shifts")]
    return [scored for scored in found if isinstance(scored, dict)]


def _labels(document: dict[str, Any]) -> set[str]:
    """Return the labels in a record."""
    labels: set[str] = set()
    for part in _parts(document):
        if isinstance(part.get("output"), str):
            labels.add(part["output"])
        for scored in _scored(part):
            labels |= set(scored)
    return labels
