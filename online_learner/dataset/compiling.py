"""From the log to a version: what counts, its rows, in two splits, with all that is known of them.

The same bytes come of the same log, however many work on it, and be it in the store or on file: the
pass that decides goes through the signals in their order, workers do each part by itself, and what
they make is written in the order of the parts.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from online_learner.archive.log import Log
from online_learner.archive.parts import Part, entries_of
from online_learner.archive.place import Place
from online_learner.dataset.cleaning import LATE, Cleaner
from online_learner.dataset.gathering import Sources, gather, records_of
from online_learner.dataset.manifest import File, Manifest
from online_learner.dataset.provenance import code_sha256, config_sha256, libraries
from online_learner.dataset.query import Query
from online_learner.dataset.replaced import between
from online_learner.dataset.rows import FORMATS, Shape
from online_learner.dataset.running import Runner
from online_learner.dataset.split import TRAIN, VALIDATION, Split, cut_of
from online_learner.dataset.summing import Sums
from online_learner.dataset.versions import Draft
from online_learner.dataset.where import parse
from online_learner.dataset.working import (
    SIDE,
    Answers,
    Counts,
    Rows,
    Signals,
    read_table,
    write_table,
)
from online_learner.errors import DataError
from online_learner.ids import Keyring, entry_order
from online_learner.settings import ModelSpec

Advance = Callable[[int, str], None]


async def compile_dataset(
    log: Log,
    spec: ModelSpec,
    keyring: Keyring,
    query: Query,
    *,
    datasets: Place,
    runner: Runner,
    advance: Advance | None = None,
    now: float,
    watermarks: Mapping[str, str] | None = None,
) -> Manifest:
    """Compile a version of a dataset from all that was answered and said.

    Parameters
    ----------
    datasets
        The versions of this model.
    runner
        Who makes the rows.
    advance
        Told of each part that is done, as `advance(1, what)`.
    now
        Seconds since the epoch, to note.
    watermarks
        By stream, the last entry to look at; None: what is there now.

    Raises
    ------
    DataError
        The format is none that this model's feedback fills (`not_fillable`), nothing is left of the
        signals (`empty`), the filter is not understood, the archive is damaged, there is no room
        left, or a person was erased meanwhile (`changed`). Nothing is left behind.
    """
    check_fillable(spec, query)
    if query.model != log.registry.model:
        raise DataError("this version is of another model: name that one", code="missing")
    test = None if query.where is None else parse(query.where)
    started, stop = time.monotonic(), threading.Event()

    def told(what: str) -> None:
        if stop.is_set():
            raise _Stopped
        if advance is not None:
            advance(1, what)

    with Draft(datasets) as draft:
        sources = await gather(log, query, draft.scratch, watermarks)
        cleaner = Cleaner(
            spec, keyring, query, sources.facts, test=test, until=sources.watermarks["feedback"]
        )
        compilation = _Compilation(
            draft, spec, query, sources=sources, cleaner=cleaner, runner=runner, told=told
        )

        manifest = await _through(compilation.run, stop)
        await sources.erasures.check(log.registry)
        told("publishing")
        known = {"created_at": now, "took_s": round(time.monotonic() - started, 3)}
        known["workers"] = getattr(runner, "workers", 0)
        whole = manifest.model_copy(update=known)
        return await _through(lambda: draft.publish(whole), stop)


async def _through(work: Callable[[], Manifest], stop: threading.Event) -> Manifest:
    """Return what comes of work in a thread of its own; cancelled, it waits until that is over."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([working])  # it writes to the draft until then
        raise


def check_fillable(spec: ModelSpec, query: Query) -> None:
    """Raise `DataError` (`not_fillable`) where a format is not for a model's task."""
    if spec.task not in FORMATS[query.format].tasks:
        fits = [name for name, other in FORMATS.items() if spec.task in other.tasks]
        raise DataError(
            f"`{query.format}` holds nothing that is said on the task {spec.task}: take "
            f"{', '.join(fits)}",
            code="not_fillable",
        )


class _Stopped(Exception):
    """Whoever waited for the version has gone."""


class _Compilation:
    """All steps but the first and the last, in a thread of their own."""

    def __init__(
        self,
        draft: Draft,
        spec: ModelSpec,
        query: Query,
        *,
        sources: Sources,
        cleaner: Cleaner,
        runner: Runner,
        told: Callable[[str], None],
    ) -> None:
        self._draft = draft
        self._scratch = draft.scratch
        self._spec = spec
        self._query = query
        self._sources = sources
        self._cleaner = cleaner
        self._runner = runner
        self._told = told
        self._spoken: list[tuple[str, tuple[int, int], tuple[int, int]]] = []

    def run(self) -> Manifest:
        """Return the manifest, without a name; the files are in the draft."""
        decided = self._clean()
        shape = self._cleaner.shape()
        rows = Rows(self._scratch.url, self._query.format, shape, self._split(decided))
        sums = Sums(self._label(shape))
        files = self._write(rows, decided, sums)
        excluded = self._cleaner.excluded + sums.dropped
        if not sums.rows:
            raise self._nothing(excluded)
        answers = self._count()
        counts = {
            "predictions": sum(each["answers"] for each in answers.values()),
            "answered": sum(each["answered"] for each in answers.values()),
            "signals": self._cleaner.signals,
            "rows": sums.rows,
        }
        return Manifest(
            query=self._query,
            watermarks=self._sources.watermarks,
            counts=counts,
            by_kind=dict(sorted(sums.by_kind.items())),
            excluded={reason: n for reason, n in sorted(excluded.items()) if n},
            balance=sums.balance(),
            splits=dict(sums.splits),
            response={name: each for name, each in answers.items() if name},
            raters=sums.raters(),
            config_sha256=config_sha256(self._spec),
            code_sha256=code_sha256(self._spec),
            libraries=libraries(),
            files=files,
        )

    # --- what counts ------------------------------------------------------------------------------

    def _clean(self) -> list[Signals]:
        """Decide of all signals, a part at a time."""
        parts, found = self._sources.parts, list[Signals]()
        for number, part in enumerate(parts["feedback"]):
            table, answers = self._cleaner.feedback(entries_of(part))
            found.append(self._put(part, f"decided-{number}", table, answers))
            self._told("what counts")
        for number, part in enumerate(parts["late"]):
            records = records_of(part, parts["predictions"])
            table, answers = self._cleaner.late(entries_of(part), records)
            found.append(self._put(part, f"decided-late-{number}", table, answers))
            self._told("what counts of what came late")
        return list(self._replaced(found))

    def _put(self, part: Part, name: str, decided: pa.Table, answers: set[str]) -> Signals:
        write_table(self._scratch, name, decided)
        if answers:
            orders = sorted(map(entry_order, answers))
            listed = pa.table({"answer": [f"{ms}-{seq}" for ms, seq in orders]})
            write_table(self._scratch, f"spoken-{name}", listed)
            self._spoken.append((f"spoken-{name}", orders[0], orders[-1]))
        return Signals(part, name, mark=LATE if part.stream == "late" else "")

    def _replaced(self, decided: Sequence[Signals]) -> Iterator[Signals]:
        """Yield the parts, each with those of its signals that were replaced later."""
        cleaner = self._cleaner
        replaced = {"": cleaner.superseded.sorted(), LATE: cleaner.late_superseded.sorted()}
        for each in decided:
            gone = between(replaced[each.mark], each.part.after, each.part.until)
            yield Signals(each.part, each.decisions, gone, each.mark)

    def _split(self, decided: Sequence[Signals]) -> Split:
        query = self._query
        if query.split_by != "time" or not query.validation:
            return Split(query.split_by, query.validation, query.seed)
        cut = cut_of(self._times(decided), self._times(decided), query.validation)
        return Split("time", query.validation, query.seed, cut)

    def _times(self, decided: Sequence[Signals]) -> Iterator[Any]:
        """Yield when the answers were given, of all signals that count, a part at a time."""
        for each in decided:
            table = read_table(self._scratch, each.decisions, ["entry", "answered_ms"])
            if each.superseded:
                gone = pa.array(sorted(each.superseded), pa.string())
                table = table.filter(pc.invert(pc.is_in(table["entry"], value_set=gone)))
            if table.num_rows:
                yield np.asarray(table["answered_ms"].to_numpy(), dtype=np.int64)

    # --- rows and counts --------------------------------------------------------------------------

    def _write(self, rows: Rows, decided: Sequence[Signals], sums: Sums) -> list[File]:
        schema, file_format = rows.schema, self._query.file_format
        sinks = {
            split: self._draft.sink(split, schema, file_format) for split in (TRAIN, VALIDATION)
        }
        for table in self._runner.run(rows, decided):
            sides = table[SIDE]
            sums.add(table)
            for split, sink in sinks.items():
                part = table.filter(pc.equal(sides, split))
                if part.num_rows:
                    sink.write(part.select(schema.names))
            self._told("rows")
        return [file for sink in sinks.values() for file in sink.close()]

    def _label(self, shape: Shape) -> str | None:
        """Return the column by which rows are balanced: numbers are not."""
        label = FORMATS[self._query.format].balance
        return None if label == "target" and shape.target == "float" else label

    def _count(self) -> dict[str, dict[str, int]]:
        """Return how many answers there are, and of how many somebody spoke, by output."""
        labels = self._spec.task == "classification"
        since_ms = 0.0 if self._query.since is None else self._query.since * 1000
        work = Counts(self._scratch.url, labels, since_ms)
        parts = [
            Answers(part, tuple(self._spoken_within(part)))
            for part in self._sources.parts["predictions"]
        ]
        answers, answered = Counter[str](), Counter[str]()
        for table in self._runner.run(work, parts):
            for row in table.to_pylist():
                answers[row["output"]] += row["answers"]
                answered[row["output"]] += row["answered"]
            self._told("who speaks")
        return most_common(answers, answered)

    def _spoken_within(self, part: Part) -> Iterator[str]:
        low, high = entry_order(part.after), entry_order(part.until)
        for name, first, last in self._spoken:
            if first <= high and last > low:
                yield name

    # --- nothing ----------------------------------------------------------------------------------

    def _nothing(self, excluded: Counter[str]) -> DataError:
        """Return why there is no row."""
        told = ", ".join(f"{reason} {count:,}" for reason, count in excluded.most_common())
        signals = self._cleaner.signals
        left = excluded.most_common(1)
        if left and left[0][0] == "nothing_to_learn" and self._cleaner.could:
            fits = ", ".join(sorted(self._cleaner.could))
            return DataError(
                f"nothing of what was said fills `{self._query.format}`. What does: {fits}. Of "
                f"{signals:,} signals made no row: {told}",
                code="not_fillable",
            )
        if not signals:
            return DataError(
                "nothing was said in this time: there are no signals to compile", code="empty"
            )
        return DataError(
            f"nothing is left of {signals:,} signals: {told}. Select more (`--where`, `--from`, "
            "`--to`), or collect more",
            code="empty",
        )


def most_common(answers: Counter[str], answered: Counter[str]) -> dict[str, dict[str, int]]:
    """Return both counts by output: of the most frequent ones, the others together as `others`."""
    most = 100
    ranked = sorted(answers, key=lambda name: (-answers[name], name))
    found = {name: {"answers": answers[name], "answered": answered[name]} for name in ranked[:most]}
    rest = ranked[most:]
    if rest:
        rest += ["others"] if "others" in found else []
        found["others"] = {
            "answers": sum(answers[name] for name in rest),
            "answered": sum(answered[name] for name in rest),
        }
    return found
