"""What is a person's in the log: what they asked, what they said, and what was said to them.

Theirs are the answers that name them as the user; those of sessions in which they are named, unless
another user is; what they say; and what anybody says of an answer of theirs, since each signal has
a copy of what was asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from online_learner.forget.mentions import in_controls, in_steps
from online_learner.forget.person import ANSWER, SESSION, Person, is_erased, parsed
from online_learner.forget.streams import Change
from online_learner.ids import entry_order
from online_learner.schema import label_key
from online_learner.store import Entry, Fields

MOST_WORDS = 100_000  # names of features and labels that are held against what observers know


class Record(Protocol):
    """What the log of a model has; see `archive.log`."""

    def pages(self, stream: str, after: str = ..., until: str = ...) -> AsyncIterator[list[Entry]]:
        """Yield the entries of a stream, a page at a time, in order."""

    async def last(self, stream: str) -> str:
        """Return the newest entry of a stream."""


@dataclass(slots=True)
class Theirs:
    """What was found to be a person's, by its places in the log.

    Parameters
    ----------
    predictions, feedback, late
        Entries of these streams.
    others
        Answers of others, of which they spoke.
    controls, steps
        Entries of feedback and steps that are not theirs, and speak of them.
    sessions, externals
        Names under which their answers are found.
    sources
        Under which they, or their sessions, speak.
    labels
        What they said to be right, where that is a text; with the first entry in which they did.
    words
        Names of features, and labels, that occur in what they sent.
    """

    predictions: set[str] = field(default_factory=set)
    feedback: set[str] = field(default_factory=set)
    late: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)
    controls: set[str] = field(default_factory=set)
    steps: set[str] = field(default_factory=set)
    sessions: set[str] = field(default_factory=set)
    externals: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    labels: dict[str, str] = field(default_factory=dict)
    words: set[str] = field(default_factory=set)

    @property
    def any(self) -> bool:
        """Whether there is anything."""
        return bool(self.predictions or self.feedback or self.late or self.controls)

    def counts(self) -> dict[str, int]:
        """Return how many entries there are, by stream."""
        return {
            "predictions": len(self.predictions),
            "feedback": len(self.feedback),
            "late": len(self.late),
        }


class Finder:
    """Looks for what is a person's.

    Parameters
    ----------
    alive
        Called with the number of entries of each page that was read.
    """

    def __init__(
        self, log: Record, person: Person, alive: Callable[[int], Awaitable[None]]
    ) -> None:
        self._log = log
        self._person = person
        self._alive = alive

    async def find(self, known: Theirs | None = None) -> Theirs:
        """Read the log once, and once more where sessions of theirs were found.

        Parameters
        ----------
        known
            What is known to be theirs already, as from an attempt that was cut short.
        """
        found = known or Theirs()
        found.sources |= self._person.sources
        await self._each("predictions", lambda e, f: self._answer(e, f, found))
        if found.sessions:
            found.sources |= {f"{SESSION}{name}" for name in found.sessions}
            await self._each("predictions", lambda e, f: self._of_session(e, f, found))
        await self.find_said(found)
        return found

    async def find_said(self, found: Theirs) -> None:
        """Look for what was said by them, and of their answers; and for what speaks of that."""
        await self._each("feedback", lambda e, f: self._signal(e, f, found, found.feedback))
        await self._each("late", lambda e, f: self._signal(e, f, found, found.late))
        if found.feedback:
            told = in_steps(found.feedback)
            await self._each("steps", lambda e, f: _note(told((e, f)), e, found.steps))

    async def _each(self, stream: str, look: Callable[[str, Fields], None]) -> None:
        until = await self._log.last(stream)
        if entry_order(until) == (0, 0):
            return
        async for page in self._log.pages(stream, until=until):
            for entry, fields in page:
                if not is_erased(fields):
                    look(entry, fields)
            await self._alive(len(page))

    # --- one by one ---------------------------------------------------------------------------

    def _answer(self, entry: str, fields: Fields, found: Theirs) -> None:
        packed = fields.get(b"r", b"")
        if entry not in found.predictions and not self._person.may_be_in(packed):
            return
        record = parsed(packed)
        if self._person.is_named(record.get("user_id")):
            self._take(entry, record, found)
            if (session := record.get("session_id")) is not None:
                found.sessions.add(session)

    def _of_session(self, entry: str, fields: Fields, found: Theirs) -> None:
        packed = fields.get(b"r", b"")
        if entry in found.predictions or b'"session_id"' not in packed:
            return
        record = parsed(packed)
        if record.get("session_id") in found.sessions and record.get("user_id") is None:
            self._take(entry, record, found)

    def _take(self, entry: str, record: Mapping[str, Any], found: Theirs) -> None:
        found.predictions.add(entry)
        if isinstance(name := record.get("external_id"), str):
            found.externals.add(name)
        words: set[str] = set()
        _read_words(record, words)
        _collect(words, found.words)

    def _signal(self, entry: str, fields: Fields, found: Theirs, into: set[str]) -> None:
        if b"c" in fields:
            _note(in_controls(self._person)((entry, fields)), entry, found.controls)
        if b"f" not in fields:
            return
        answers = {fields[name].decode() for name in (b"p", b"q") if name in fields}
        said = parsed(fields[b"f"]) if self._may_speak(fields[b"f"], found) else {}
        source = str(said.get("source", ""))
        speaks = self._person.speaks(source) or source in found.sources
        speaks = speaks or source.removeprefix(ANSWER) in found.predictions
        if speaks or answers & found.predictions or self._asked(fields, found):
            into.add(entry)
            if speaks and isinstance(value := said.get("value"), str):
                found.labels.setdefault(value, entry)
            found.others |= answers - found.predictions
            _collect(words_of(fields), found.words)

    def _may_speak(self, said: bytes, found: Theirs) -> bool:
        named = b'"session:' in said and bool(found.sessions)
        return self._person.may_be_in(said) or named or b'"prediction:' in said

    def _asked(self, fields: Fields, found: Theirs) -> bool:
        """Tell whether one of the answers that a signal speaks of is theirs, by their copies."""
        for name in (b"r", b"o"):
            packed = fields.get(name, b"")
            session = bool(found.sessions) and b'"session_id"' in packed
            if not packed or not (session or self._person.may_be_in(packed)):
                continue
            record = parsed(packed)
            user = record.get("user_id")
            if self._person.is_named(user):
                return True
            if user is None and record.get("session_id") in found.sessions:
                return True
        return False


def _note(change: Change | None, entry: str, into: set[str]) -> None:
    if change is not None:
        into.add(entry)


def _collect(words: set[str], into: set[str]) -> None:
    if len(into) < MOST_WORDS:
        into |= words


def words_of(fields: Fields) -> set[str]:
    """Return the names of features, and what was said to be right, in an entry of the log."""
    words: set[str] = set()
    for name in (b"r", b"o"):
        _read_words(parsed(fields.get(name, b"")), words)
    value = parsed(fields.get(b"f", b"")).get("value")
    if isinstance(value, str | int | bool):
        words.add(label_key(value))
    return words


def _read_words(record: Mapping[str, Any], words: set[str]) -> None:
    """Add what observers may know: names of features, their texts, and labels."""
    features = record.get("features")
    if isinstance(features, dict):
        words |= set(features)
        words |= {value for value in features.values() if isinstance(value, str)}
    for option in record.get("options") or ():
        words |= set(option.get("features") or ())
    words |= set(record.get("scores") or ())
