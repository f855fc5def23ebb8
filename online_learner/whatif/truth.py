"""Which answers were told to be right or wrong, by whom that stands."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from online_learner.archive.log import Log
from online_learner.evidence import Standing
from online_learner.ids import entry_order
from online_learner.interpret import NOTHING
from online_learner.replay.forgotten import RETRACTED
from online_learner.schema import Feedback, Output, Prediction, Said, Step
from online_learner.settings import ModelSpec
from online_learner.stages import make_signals

SYSTEM = "system:"


@dataclass(frozen=True, slots=True)
class Told:
    """An answer that was served, and what is right.

    Parameters
    ----------
    entry, at_ms
        Of the answer, and when it was given.
    signal, told_ms
        The feedback entry that stands, and when it was said.
    version
        That served it.
    """

    entry: str
    at_ms: int
    signal: str
    told_ms: int
    said: Said
    served: Output
    version: int
    lineage: int
    audited: bool


async def told_answers(log: Log, spec: ModelSpec, until: str = "+") -> list[Told]:
    """Return the answers whose right one was told, in the order in which they were given.

    Of several signals on one answer an auditor's stands, then the strongest, then the latest.
    What was taken back, or set aside and not released, tells nothing; neither do answers that were
    withheld, or whose input is not in the log.
    """
    signals, doubted = make_signals(spec), await _doubted(log)
    standing: dict[str, tuple[Standing, Told]] = {}
    async for page in log.pages("feedback", until=until):
        for entry, fields in page:
            if b"f" not in fields or entry in doubted:
                continue
            try:
                feedback = Feedback.model_validate_json(fields[b"f"])
                record = Prediction.model_validate_json(fields[b"r"])
                said = signals.said(feedback, record)
            except (ValidationError, KeyError, ValueError, TypeError):
                continue  # the learner sets it aside, too
            if feedback.source.startswith(SYSTEM) or not _tells(said, record, feedback):
                continue
            place, heard = fields[b"p"].decode(), Standing(said, feedback.source, feedback.auditor)
            before = standing.get(place)
            if before is None or heard.rank >= before[0].rank:
                standing[place] = heard, _told(place, entry, said, record)
    found = [told for _, told in standing.values()]
    return sorted(found, key=lambda told: entry_order(told.entry))


def _tells(said: Said, record: Prediction, feedback: Feedback) -> bool:
    if record.withheld or record.inputs == "none" or feedback.kind == "implicit":
        return False
    planted = record.ask is not None and record.ask.reason == "gold"
    return not planted and (said.right is not None or said.wrong is not None)


def _told(place: str, entry: str, said: Said, record: Prediction) -> Told:
    return Told(
        entry=place,
        at_ms=entry_order(place)[0],
        signal=entry,
        told_ms=entry_order(entry)[0],
        said=said,
        served=record.output,
        version=record.version,
        lineage=record.lineage,
        audited=record.audited,
    )


async def _doubted(log: Log) -> set[str]:
    """Return the signals that validation set aside and nobody released, and those taken back."""
    found: set[str] = set()
    async for page in log.pages("steps"):
        for _, fields in page:
            packed = fields[b"s"]
            if b'"set_aside"' not in packed and b'"released"' not in packed:
                continue
            step = Step.model_validate_json(packed)
            found.difference_update(step.released)
            found.update(
                entry
                for entry, reason in step.set_aside.items()
                if reason == RETRACTED or not reason.startswith((NOTHING, "poison"))
            )
    registry = log.registry
    taken_back = await registry.store.hash(registry.keys.retracted)
    return found | {entry.decode() for entry in taken_back}
