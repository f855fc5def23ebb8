"""A log as a service leaves it, written straight into an archive: real records, planted troubles.

Of the signals, some are replaced by a later word of the same person, some are said twice, some come
after the window, some are taken back; one account speaks in bursts, and a few people know nothing.
"""

from __future__ import annotations

import heapq
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks.compiled import LABELS
from online_learner.archive.files import SegmentWriter, path_of
from online_learner.archive.place import Place
from online_learner.archive.segments import field_of, sealed
from online_learner.registry import Registry
from online_learner.schema import Ask, Feedback, Prediction, Shadow
from online_learner.store import Entry

BEGINS_MS = 1_700_000_000_000
GAP_MS = 850  # between two answers: a million take ten days
WINDOW_MS = 86_400_000
USERS = 4000
SPEAKS = 0.196  # of the answers; with second words, and those too late, a fifth
SECOND, LATE, TAKEN_BACK, WRONG = 0.03, 0.02, 0.005, 0.15
SEGMENT_ROWS = 50_000
_WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")


@dataclass
class World:
    """What is answered and said, in the order of the log.

    Parameters
    ----------
    predictions
        How many answers there are.
    """

    predictions: int
    seed: int = 0
    retracted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._late: list[tuple[int, Entry]] = []
        self._waiting: list[tuple[int, int, Any]] = []
        self._order = 0
        self._last = (0, 0)
        self.signals = 0

    def streams(self) -> Iterator[tuple[str, Entry]]:
        """Yield (stream, entry) as they come about; late ones at the end."""
        for number in range(self.predictions):
            ms = BEGINS_MS + number * GAP_MS
            yield from self._said(ms)
            entry, fields = f"{ms}-0", self._answer(number)
            yield "predictions", (entry, fields)
            if self._rng.random() < SPEAKS:
                self._speak(ms, entry, fields, number)
        yield from self._said(1 << 60)
        for ms, (_, fields) in sorted(self._late, key=lambda one: one[0]):
            self.signals += 1
            yield "late", (self._entry(ms), fields)

    def _answer(self, number: int) -> dict[bytes, bytes]:
        rng = self._rng
        features: dict[str, Any] = {f"x{i}": round(rng.gauss(0.0, 1.0), 4) for i in range(8)}
        features |= {"country": rng.choice(("DE", "FR", "NL")), "known": rng.random() < 0.5}
        features["subject"] = " ".join(rng.choices(_WORDS, k=6))
        truth = self._truth(features)
        output = truth if rng.random() < 0.8 else rng.choice(LABELS)
        share = round(rng.uniform(0.4, 0.9), 6)
        scores = {label: share if label == output else (1 - share) / 2 for label in LABELS}
        audited = rng.random() < 0.1
        shadow = Shadow(version=1, lineage=1, step=number // 50, output=output, scores=scores)
        record = Prediction(
            model="web",
            features=features,
            output=output,
            scores=scores,
            uncertainty=1 - share,
            version=1 + number // 100_000,
            lineage=1,
            step=number // 50,
            user_id=f"u{rng.randrange(USERS)}",
            tags={"campaign": rng.choice("abc")},
            latency_ms=0.5,
            ask=Ask(reason="audit", probability=0.1) if audited else None,
            shadows={"champion": shadow} if audited else {},
        )
        return {b"n": rng.randbytes(4).hex().encode(), b"r": record.pack()}

    def _truth(self, features: dict[str, Any]) -> str:
        return LABELS[0 if features["x0"] > 0.3 else 1 if features["x1"] > 0 else 2]

    def _speak(self, ms: int, answer: str, fields: dict[bytes, bytes], number: int) -> None:
        """Let a person speak of an answer, now or too late; perhaps once more."""
        rng = self._rng
        record = json.loads(fields[b"r"])
        source = f"human:{record['user_id']}"
        told = self._word(record, source, answer)
        if rng.random() < LATE:
            late = {b"n": b"00000000", b"f": told, b"p": answer.encode(), b"m": fields[b"n"]}
            self._late.append((ms + WINDOW_MS + int(rng.expovariate(1e-8)), ("", late)))
            return
        said = {b"f": told, b"p": answer.encode(), b"r": fields[b"r"]}
        at = ms + 1 + int(rng.expovariate(1 / 600_000))
        if number % 20_000 < 400:  # many at once, by one account
            at, source = ms + 400_000 - (number % 20_000) * GAP_MS, "human:loud"
            said[b"f"] = self._word(record, source, answer)
        again = self._word(record, source, answer) if rng.random() < SECOND else None
        self._wait(at, (said, again))

    def _word(self, record: dict[str, Any], source: str, answer: str) -> bytes:
        rng, knows = self._rng, hash_of(source) % 20 > 0
        truth = self._truth(record["features"])
        if not knows or rng.random() < WRONG:
            truth = rng.choice(LABELS)
        kind = rng.choices(("correction", "thumbs", "rating", "implicit"), (60, 25, 12, 3))[0]
        values: dict[str, Any] = {
            "correction": truth,
            "thumbs": truth == record["output"],
            "rating": {"value": 4 if truth == record["output"] else 2, "scale": [1, 5]},
            "implicit": {"event": "click", "value": None},
        }
        return Feedback(kind=kind, value=values[kind], source=source, prediction_id=answer).pack()

    def _wait(self, at: int, what: Any) -> None:
        self._order += 1
        heapq.heappush(self._waiting, (at, self._order, what))

    def _said(self, until_ms: int) -> Iterator[tuple[str, Entry]]:
        """Yield what is said up to a moment."""
        rng = self._rng
        while self._waiting and self._waiting[0][0] <= until_ms:
            at, _, (said, again) = heapq.heappop(self._waiting)
            entry = self._entry(at)
            self.signals += 1
            yield "feedback", (entry, {b"n": b"00000000", **said})
            if rng.random() < TAKEN_BACK:
                self.retracted.append(entry)
            if again is not None:
                replaced = {**said, b"f": again, b"s": entry.encode()}
                self._wait(at + 1 + int(rng.expovariate(1 / 60_000)), (replaced, None))

    def _entry(self, ms: int) -> str:
        before_ms, before = self._last
        self._last = (before_ms, before + 1) if ms <= before_ms else (ms, 0)
        return f"{self._last[0]}-{self._last[1]}"


def hash_of(name: str) -> int:
    """Return a number for a name, the same in every process."""
    return sum(name.encode()) * 2_654_435_761 % 1_000_003


async def write(registry: Registry, place: Place, world: World) -> None:
    """Write a log into an archive, and list it in the store."""
    writers: dict[str, SegmentWriter] = {}
    pages: dict[str, list[Entry]] = {}

    async def finish(stream: str) -> None:
        writer = writers.pop(stream, None)
        if writer is None:
            return
        page = pages.pop(stream)
        if page:
            writer.add(page)
        last = writer.last
        name = path_of(registry.model, stream, writer.after, last)
        segment = writer.finish(place, name, last)
        store, keys = registry.store, registry.keys
        await store.call("HSET", keys.segments, field_of(segment), sealed(registry, segment))
        await store.call("HSET", keys.archive, stream, last)
        ends[stream] = last

    ends: dict[str, str] = {}
    for stream, entry in world.streams():
        if stream not in writers:
            begins = ends.get(stream, "0-0")
            writers[stream], pages[stream] = SegmentWriter(registry.model, stream, begins), []
        page = pages[stream]
        page.append(entry)
        if len(page) >= 5000:
            writers[stream].add(page)
            page.clear()
            if writers[stream].rows >= SEGMENT_ROWS:
                await finish(stream)
    for stream in list(writers):
        await finish(stream)
    await _retract(registry, world.retracted)


async def _retract(registry: Registry, entries: Iterable[str]) -> None:
    for entry in entries:
        await registry.store.call("HSET", registry.keys.retracted, entry, "1-0")
