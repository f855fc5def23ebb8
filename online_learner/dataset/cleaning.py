"""What counts, and what it weighs: one pass over the signals, in order.

It holds no signals: what it decides of each goes to a file beside the part that the signal is in,
and workers make rows of both. What a later signal replaced is known at the end only, so that it is
told to the workers apart.

Why signals make no row, as counted:

| reason                     | what                                                               |
|----------------------------|--------------------------------------------------------------------|
| `retracted`, `erased`      | taken back, or erased with the person, whenever that was said      |
| `superseded`               | the same source said something else of the same answer later       |
| `duplicate`, `flip`, `contradiction`, `burst` | validation doubts it, and nobody released it    |
| `not_served`               | said late, of something that had not been shown                    |
| `answer_gone`              | said late, of an answer that is in the log no more                 |
| `implicit`, `gold`         | what users did; what was asked to learn about raters               |
| `inputs_not_kept`          | what was asked is not in the log (`log_inputs: none`)              |
| `nothing_to_learn`         | it says nothing that this format holds                             |
| `outside_of_time`, `where` | before `since`; not as the filter asks                             |
| `straddles_the_cut`, `on_both_sides` | split: it belongs neither here nor there (see `split`)   |
| `unreadable`               | it cannot be read by this release, or a policy failed on it        |
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pyarrow as pa

from online_learner.dataset.believing import Aside, Policies
from online_learner.dataset.heard import Heard
from online_learner.dataset.query import Query
from online_learner.dataset.replaced import Entries
from online_learner.dataset.rows import FORMATS, Shape
from online_learner.dataset.settling import Columns
from online_learner.dataset.where import Test
from online_learner.errors import NotFound
from online_learner.ids import Keyring, entry_order
from online_learner.interpret import ERASED
from online_learner.schema import Feedback, pack
from online_learner.settings import ModelSpec
from online_learner.store import Entry, Fields

LATE = "L"  # before the entry of a signal that came late: its stream is another one
_DOUBTED = frozenset({"duplicate", "flip", "contradiction", "burst", "unreadable", "not_served"})


_About: TypeAlias = tuple[str, str, str, str]


def decisions_schema(factors: Sequence[str]) -> pa.Schema:
    """Return the columns of what is decided.

    The signal's entry, when what it speaks of was answered, what it weighs and by what factors,
    and what a row needs beside the records (JSON); for a late signal, these records too.
    """
    weights = ("weight", "weight_raw", *(f"weight_{name}" for name in factors))
    return pa.schema(
        [
            pa.field("entry", pa.string()),
            pa.field("answered_ms", pa.int64()),
            *(pa.field(name, pa.float64()) for name in weights),
            *(pa.field(name, pa.binary()) for name in ("payload", "record", "other")),
        ]
    )


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known before the pass.

    Parameters
    ----------
    retracted
        Signals that were taken back; late ones with `L` before their entry.
    erased
        Signals that are being erased; late ones likewise.
    released
        Signals that an operator said are to be believed, with the control entries that say so.
    late_answers
        Answers that are spoken of late.
    """

    retracted: Collection[str] = frozenset()
    erased: Collection[str] = frozenset()
    released: Mapping[str, str] = field(default_factory=dict)
    late_answers: Collection[str] = frozenset()

    def is_released(self, entry: str, until: str) -> bool:
        """Tell whether a signal was released by an entry up to `until`."""
        return any(
            entry_order(control) <= entry_order(until)
            for control in self.released.get(entry, "").split()
        )


class Cleaner:
    """Decides of each signal whether it counts, and what it weighs.

    Parameters
    ----------
    test
        The query's filter; None takes all.
    until
        The last entry of `feedback` that is looked at.
    """

    def __init__(
        self,
        spec: ModelSpec,
        keyring: Keyring,
        query: Query,
        facts: Facts,
        *,
        test: Test | None,
        until: str,
    ) -> None:
        self.spec = spec
        self.policies = Policies(spec)
        self.excluded: Counter[str] = Counter()
        self.signals = 0
        self.could: set[str] = set()  # formats that hold what this one does not
        self.superseded, self.late_superseded = Entries(), Entries()
        self._keyring = keyring
        self._facts = facts
        self._format = FORMATS[query.format]
        self._others = {
            name: other
            for name, other in FORMATS.items()
            if name != query.format and spec.task in other.tasks
        }
        self._since_ms = 0 if query.since is None else query.since * 1000
        self._test = test
        self._until = until
        self._columns = Columns(spec, query.format, self.policies.factors)
        self._schema = decisions_schema(self.policies.factors)
        self._passed_by: dict[str, str] = {}  # doubted signals -> what they would have replaced
        self._spoken_of: dict[_About, tuple[str, Any]] = {}

    def feedback(self, entries: Iterable[Entry]) -> tuple[pa.Table, set[str]]:
        """Return what is decided of the next signals, and which answers people spoke of."""
        rows: list[list[Any]] = []
        answers: set[str] = set()
        for entry, fields in entries:
            if b"c" in fields:
                self.policies.heed(fields)
                continue
            self.signals += 1
            try:
                rows.append(self._feedback(entry, fields, answers))
            except Aside as aside:
                self.excluded[aside.reason] += 1
        return self._table(rows), answers

    def late(
        self, entries: Iterable[Entry], records: Mapping[tuple[str, str], bytes]
    ) -> tuple[pa.Table, set[str]]:
        """Return what is decided of signals that came late.

        Parameters
        ----------
        records
            What they speak of, by entry and nonce.
        """
        rows: list[list[Any]] = []
        answers: set[str] = set()
        for entry, fields in entries:
            self.signals += 1
            try:
                rows.append(self._late(entry, fields, records, answers))
            except Aside as aside:
                self.excluded[aside.reason] += 1
        return self._table(rows), answers

    def shape(self) -> Shape:
        """Return what the columns are, as all that counts has settled it.

        Raises
        ------
        DataError
            There are too many features for a column each (`not_fillable`).
        """
        return self._columns.shape()

    # --- one signal -------------------------------------------------------------------------------

    def _feedback(self, entry: str, fields: Fields, answers: set[str]) -> list[Any]:
        if ERASED in fields or entry in self._facts.erased:
            raise Aside("erased")
        replaced = fields.get(b"s")
        if entry in self._facts.retracted:
            if replaced is not None:  # who took it back had left that behind before
                self._replace(replaced.decode())
            raise Aside("retracted")
        released = self._facts.is_released(entry, self._until)
        try:
            heard = self.policies.hear(entry, fields, released=released, late=False)
        except Aside as aside:
            if aside.heard is not None:
                _note(aside.heard, answers)
            if replaced is not None:
                if aside.reason in _DOUBTED:
                    self._passed_by[entry] = replaced.decode()
                else:
                    self._replace(replaced.decode())
            raise
        _note(heard, answers)
        if replaced is not None:
            self._replace(replaced.decode())
        if heard.answer in self._facts.late_answers:
            about = _about(heard.answer, heard.feedback)
            self._spoken_of[about] = (entry, heard.feedback.value)
        return self._decide(heard, fields)

    def _late(
        self,
        entry: str,
        fields: Fields,
        records: Mapping[tuple[str, str], bytes],
        answers: set[str],
    ) -> list[Any]:
        name = f"{LATE}{entry}"
        if ERASED in fields or name in self._facts.erased:
            raise Aside("erased")
        if name in self._facts.retracted:
            self._leave_behind(name, fields)
            raise Aside("retracted")
        joined = _joined(fields, records)
        heard = self.policies.hear(entry, joined, released=False, late=True)
        _note(heard, answers)
        about = _about(heard.answer, heard.feedback)
        before = self._spoken_of.get(about)
        if before is not None and before[1] == heard.feedback.value:
            raise Aside("duplicate", heard)
        self._speak(about, name, heard.feedback.value)
        return self._decide(heard, joined, late=True)

    def _leave_behind(self, name: str, fields: Fields) -> None:
        """Let a late signal that was taken back replace what it did: that stays replaced."""
        with contextlib.suppress(KeyError, ValueError):
            feedback = Feedback.model_validate_json(fields[b"f"])
            self._speak(_about(fields[b"p"].decode(), feedback), name, feedback.value)

    def _speak(self, about: _About, name: str, value: Any) -> None:
        """Put a late signal in the place of what the same source had said."""
        before, _ = self._spoken_of.get(about, ("", None))
        if before.startswith(LATE):
            self.late_superseded.add(before.removeprefix(LATE))
        elif before:
            self.superseded.add(before)
        self._spoken_of[about] = (name, value)

    def _replace(self, entry: str) -> None:
        """Note that a signal was replaced, and with it what a doubted one in between was to."""
        while entry:
            self.superseded.add(entry)
            entry = self._passed_by.pop(entry, "")

    def _decide(self, heard: Heard, fields: Fields, *, late: bool = False) -> list[Any]:
        payload = self._format.payload(heard)
        if payload is None:
            self._look_elsewhere(heard)
            raise Aside("nothing_to_learn")
        said_ms, answered_ms = entry_order(heard.entry)[0], self._answered_ms(heard)
        if said_ms < self._since_ms:
            raise Aside("outside_of_time")
        if self._test is not None and not self._test(_row(heard)):
            raise Aside("where")
        self._columns.note(heard, payload)
        factors = [heard.factors.get(name, 1.0) for name in self.policies.factors]
        records = [fields.get(b"r"), fields.get(b"o")] if late else [None, None]
        weights = [heard.weight, heard.raw, *factors]
        return [heard.entry, answered_ms, *weights, pack(payload), *records]

    def _look_elsewhere(self, heard: Heard) -> None:
        for name in self._others.keys() - self.could:
            if self._others[name].payload(heard) is not None:
                self.could.add(name)

    def _answered_ms(self, heard: Heard) -> int:
        """Return when the answer was given, and of two answers the later one."""
        found = entry_order(heard.answer)[0]
        if heard.other is None:
            return found
        for name in heard.feedback.value.values():
            try:
                found = max(found, self._keyring.open("prediction", name)[1].ms)
            except NotFound:  # issued under a key that is no longer there
                continue
        return found

    def _table(self, rows: list[list[Any]]) -> pa.Table:
        columns: list[Sequence[Any]] = [[] for _ in self._schema]
        if rows:
            columns = list(zip(*rows, strict=True))
        arrays = [
            pa.array(column, kind.type) for column, kind in zip(columns, self._schema, strict=True)
        ]
        return pa.Table.from_arrays(arrays, schema=self._schema)


def _joined(fields: Fields, records: Mapping[tuple[str, str], bytes]) -> Fields:
    """Return a late signal with the records that it speaks of; raises `Aside`."""
    if b"f" not in fields:
        raise Aside("erased")
    found = dict(fields)
    for name, entry, nonce in ((b"r", b"p", b"m"), (b"o", b"q", b"t")):
        found.pop(name, None)
        if entry in fields:
            record = records.get((fields[entry].decode(), fields.get(nonce, b"").decode()))
            if record is None:
                raise Aside("answer_gone")
            found[name] = record
    return found


def _about(answer: str, feedback: Feedback) -> _About:
    return (answer, feedback.source, feedback.kind, feedback.subject())


def _note(heard: Heard, answers: set[str]) -> None:
    """Note that somebody spoke of an answer: the system's own flags, and what users do, are not."""
    feedback = heard.feedback
    if feedback.kind != "implicit" and not feedback.source.startswith("system:"):
        answers.add(heard.answer)


def _row(heard: Heard) -> dict[str, Any]:
    """Return a signal as a filter sees it."""
    feedback, prediction = heard.feedback, heard.prediction
    output = prediction.output
    return {
        "kind": feedback.kind,
        "source": feedback.source,
        "auditor": feedback.auditor,
        "output": next(iter(output), None) if isinstance(output, list) else output,
        "user": prediction.user_id,
        "session": prediction.session_id,
        "external_id": prediction.external_id,
        "version": prediction.version,
        "step": prediction.step,
        "role": prediction.role,
        "model_version": prediction.model_version,
        "explored": prediction.explored,
        "weight": heard.weight,
        "weight_raw": heard.raw,
        "features": prediction.features,
        "tags": {**prediction.tags, **feedback.tags},
    }
