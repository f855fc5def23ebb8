"""Take signals back: at once on file, for datasets and receipts; the learner is told in its stream.

Whoever takes a signal back has the right to: `serve_app` sees to that. It can be done at any age.
What has left the store is marked like the rest, and is left out of every dataset that is compiled
from then on. The weights follow in the background, see `unlearn`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from online_learner.archive.log import Log
from online_learner.errors import NotFound
from online_learner.forget.replace import taint_brought
from online_learner.registry import Registry
from online_learner.schema import Control, Feedback
from online_learner.store import Fields
from online_learner.store.keys import said_field

MOST = 500  # signals in one control entry
LATE = "L"  # before the entry of a signal that only went on file: its stream is another one

Mark = tuple[str, str, str]  # a hash of `said`, a field of it, the entry that it leads to


@dataclass(frozen=True, slots=True)
class Retraction:
    """What was taken back.

    Parameters
    ----------
    entries
        Those that had not been before; the others were taken back already, and stay so.
    controls
        The entries of the feedback stream that tell the learner.
    """

    entries: tuple[str, ...]
    controls: tuple[str, ...]


async def retract(
    registry: Registry,
    entries: Sequence[str],
    *,
    by: str,
    reason: str = "",
    log: Log | None = None,
    clock: Callable[[], float] = time.time,
) -> Retraction:
    """Take signals back for good. Doing it twice is as doing it once.

    Parameters
    ----------
    entries
        Of the feedback stream, in any order; those of signals that only went on file (`late`) begin
        with `L`, as in the hash `retracted`. Each `MOST` of them are one atomic step.
    by, reason
        Who wants it, and why, for the record.
    log
        Where archived signals are read, too; by default the store alone.
    """
    log = log or Log(registry)
    late = [entry for entry in entries if entry.startswith(LATE)]
    heard = [entry for entry in entries if not entry.startswith(LATE)]
    told = Control(action="retract", by=by, reason=reason).pack()
    taken: list[str] = []
    controls: list[str] = []
    for part, head in ((heard, told), (late, b"")):
        for start in range(0, len(part), MOST):
            control, fresh = await _retract(registry, log, part[start : start + MOST], head)
            taken += fresh
            controls += [control] if control else []
    if late:  # again where that was cut short
        await taint_brought(registry, [one.removeprefix(LATE) for one in late], now=clock())
    return Retraction(tuple(taken), tuple(controls))


async def _retract(
    registry: Registry, log: Log, entries: Sequence[str], head: bytes
) -> tuple[str, list[str]]:
    stream = "feedback" if head else "late"
    found = await log.entries([(stream, entry.removeprefix(LATE)) for entry in entries])
    marks = [
        mark
        for entry, fields in zip(entries, found, strict=True)
        if fields is not None
        for mark in _marks(registry, entry, fields)
    ]
    keys = registry.keys
    reply = await registry.store.run(
        "retract",
        [keys.retracted, keys.feedback, keys.unlearned, *(said for said, _, _ in marks)],
        [head, len(entries), *entries, *(part for _, *rest in marks for part in rest)],
    )
    control, *fresh = (part.decode() for part in reply)
    return control, fresh


def _marks(registry: Registry, entry: str, fields: Fields) -> Iterator[Mark]:
    """Yield what stands in the way of the same source's next word: of a pair, on both answers."""
    try:
        feedback = Feedback.model_validate_json(fields[b"f"])
        answers = [fields[b"p"].decode()]
    except (KeyError, ValidationError):  # erased, or none of ours
        return
    if b"q" in fields:
        answers.append(fields[b"q"].decode())
    elif b"o" in fields and isinstance(feedback.value, dict):
        answers += _second(registry, feedback, answers[0])
    name = said_field(feedback.source, feedback.kind, feedback.subject())
    prefix = "late:" if entry.startswith(LATE) else ""
    for answer in answers:
        yield registry.keys.said(prefix + answer), name, entry


def _second(registry: Registry, feedback: Feedback, first: str) -> list[str]:
    """Return the entry of the other answer of a pair."""
    found = []
    for named in feedback.value.values():
        try:
            entry = registry.keyring.open("prediction", named)[1].entry
        except (NotFound, AttributeError, TypeError, ValueError):
            continue
        if entry != first:
            found.append(entry)
    return found
