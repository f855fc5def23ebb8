"""What clients hold a 2xx for, and whether the store agrees: nothing lost, nothing twice.

Every signal carries a mark of its own, as a tag. A mark that was acknowledged has to be in the
feedback stream once, under the id that the receipt told; one that was not, once or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Self, TypeVar

from online_learner.errors import StateError, Unavailable
from online_learner.ids import entry_order
from online_learner.interpret import NOTHING
from online_learner.registry import Registry
from online_learner.schema import Feedback, GateState, Step, Verdict
from online_learner.stages import Stages
from online_learner.store import Entry, Store

MARK = "sent"
PAGE = 2000
WATCH_S = 0.02
TRIES = 20

T = TypeVar("T")


@dataclass(slots=True)
class Ledger:
    """What clients were told.

    Attributes
    ----------
    predictions
        Ids of the answers that they got.
    receipts
        By mark, the id under which a signal was acknowledged.
    renamed
        Signals that were acknowledged again under another id.
    published
        The digest of the weights at each step at which somebody saw them published; what a learner
        publishes when it has started anew is in no step.
    """

    predictions: list[str] = field(default_factory=list)
    receipts: dict[str, str] = field(default_factory=dict)
    renamed: int = 0
    published: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))

    def acknowledge(self, mark: str, feedback_id: str) -> None:
        """Note a receipt."""
        known = self.receipts.setdefault(mark, feedback_id)
        self.renamed += known != feedback_id

    async def watch(self, registry: Registry) -> None:
        """Look again and again at what is published, until cancelled."""
        while True:
            with contextlib.suppress(Unavailable):
                meta = await registry.checkpoint_meta()
                if meta is not None:
                    seen = json.loads(meta)
                    self.published[seen["step"]].add(seen["state_digest"])
            await asyncio.sleep(WATCH_S)


@dataclass(slots=True)
class Audit:
    """What is wrong with a store, by what its clients were told and by its own record.

    Attributes
    ----------
    lost, doubled
        Signals and answers that were acknowledged and are not there; signals that are there twice.
    unlearned, learned_twice
        Signals that no step covers, or more than one.
    misplaced
        Signals that are set aside without a step that says so, or the other way around.
    digests, unequal
        Recorded digests of the weights that were compared with the replay's; those that differ.
    judged_wrong
        Settled audits that are not in the evidence once, and decisions that were taken twice.
    """

    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    unlearned: int = 0
    learned_twice: int = 0
    misplaced: int = 0
    digests: int = 0
    unequal: int = 0
    settled: int = 0
    judged_wrong: int = 0
    restarts: int = 0

    def __add__(self, other: Audit) -> Self:
        """Return both together."""
        names = [part.name for part in fields(self)]
        return type(self)(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def twice(self) -> int:
        """What took effect twice."""
        return self.doubled + self.learned_twice + self.judged_wrong

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.twice or self.unlearned or self.misplaced or self.unequal)


async def patiently(work: Callable[[], Awaitable[T]]) -> T:
    """Do it again where this machine is so busy that the server does not answer in time."""
    for _ in range(TRIES):
        with contextlib.suppress(Unavailable):
            return await work()
    return await work()


async def audit(stages: Stages, ledger: Ledger) -> Audit:
    """Compare a store, whose writers have caught up, with the ledger and with itself."""
    return await patiently(lambda: _audit(stages, ledger))


async def _audit(stages: Stages, ledger: Ledger) -> Audit:
    registry = stages.registry
    found = Audit(acknowledged=len(ledger.receipts), doubled=ledger.renamed)
    signals = await _signals(registry, ledger, found)
    await _answers(registry, ledger, found)
    steps = [Step.model_validate_json(f[b"s"]) async for _, f in _all(registry, "steps")]
    _check_cover(signals, steps, found)
    await _check_quarantine(registry, steps, found)
    await _check_replay(stages, steps, ledger, found)
    await _check_gate(registry, found)
    found.restarts = int(await registry.store.call("GET", registry.keys.fence("learner")) or 0)
    return found


async def _all(registry: Registry, name: str) -> AsyncIterator[Entry]:
    stream, at = getattr(registry.keys, name), "-"
    while page := await registry.store.range(stream, at, count=PAGE):
        for entry in page:
            yield entry
        at = f"({page[-1][0]}"


async def _signals(registry: Registry, ledger: Ledger, found: Audit) -> list[tuple[str, bool]]:
    """Compare the feedback stream with the receipts; returns its entries, and which are signals."""
    places: dict[str, tuple[str, str]] = {}
    entries: list[tuple[str, bool]] = []
    copies: Counter[str] = Counter()
    async for entry, said in _all(registry, "feedback"):
        entries.append((entry, b"f" in said))
        if b"f" in said:
            mark = Feedback.model_validate_json(said[b"f"]).tags[MARK]
            places[mark] = entry, said[b"n"].decode()
            copies[mark] += 1
    found.doubled += sum(count - 1 for count in copies.values())
    for mark, feedback_id in ledger.receipts.items():
        _, address = registry.keyring.open("feedback", feedback_id)
        found.lost += places.get(mark) != (address.entry, address.nonce)
    return entries


async def _answers(registry: Registry, ledger: Ledger, found: Audit) -> None:
    kept = {entry: told[b"n"].decode() async for entry, told in _all(registry, "predictions")}
    for prediction_id in ledger.predictions:
        _, address = registry.keyring.open("prediction", prediction_id)
        found.lost += kept.get(address.entry) != address.nonce


def _check_cover(signals: list[tuple[str, bool]], steps: list[Step], found: Audit) -> None:
    """Check that the steps follow on each other, and cover each signal once."""
    ends = ["0-0", *(step.to for step in steps)]
    found.learned_twice += sum(
        entry_order(step.after) < entry_order(end) for end, step in zip(ends, steps, strict=False)
    )
    found.unlearned += sum(
        entry_order(step.after) > entry_order(end) for end, step in zip(ends, steps, strict=False)
    )
    found.learned_twice += sum(entry_order(a) >= entry_order(b) for a, b in pairwise(ends))
    at = 0
    for step in steps:
        covered = 0
        while at < len(signals) and entry_order(signals[at][0]) <= entry_order(step.to):
            covered += signals[at][1]
            at += 1
        found.unlearned += max(0, covered - step.signals)
        found.learned_twice += max(0, step.signals - covered)
    found.unlearned += sum(is_signal for _, is_signal in signals[at:])


async def _check_quarantine(registry: Registry, steps: list[Step], found: Audit) -> None:
    told = Counter(
        entry
        for step in steps
        for entry, reason in step.set_aside.items()
        if not reason.startswith(NOTHING)
    )
    kept = Counter([entry async for entry, _ in _all(registry, "quarantine")])
    found.misplaced += (told - kept).total() + (kept - told).total()


async def _check_replay(stages: Stages, steps: list[Step], ledger: Ledger, found: Audit) -> None:
    """Replay from the first version along the steps; compare each digest that was recorded."""
    replay, published = stages.trainer, ledger.published
    newest = await stages.registry.checkpoint()
    if newest is not None:
        published[newest[0].step].add(newest[0].state_digest)
    try:
        await replay.rewind()
        for step in steps:
            await replay.replay_step()
            told = published.get(step.step, set()) | ({step.state_digest} - {None})
            found.digests += len(told)
            found.unequal += len(told) and len(told - {replay.learner.digest()})
    except StateError:
        found.unequal += 1


async def _check_gate(registry: Registry, found: Audit) -> None:
    """Check that each settled audit is in the evidence, and that no epoch was decided twice.

    The gate may still be settling: both are read until it has not come further in between.
    """
    settled, evidence = None, list[str]()
    while settled is None or settled != await _settled(registry):
        settled = await _settled(registry)
        evidence = [entry async for entry, _ in _all(registry, "evidence")]
    audits = [entry async for entry, _ in _all(registry, "audits")]
    due = {entry for entry in audits if entry_order(entry) <= entry_order(settled)}
    found.settled = len(evidence)
    found.judged_wrong += len(due ^ set(evidence)) + len(evidence) - len(set(evidence))
    verdicts = [Verdict.model_validate_json(f[b"v"]) async for _, f in _all(registry, "verdicts")]
    epochs = Counter(verdict.epoch for verdict in verdicts)
    found.judged_wrong += sum(count - 1 for count in epochs.values())


async def _settled(registry: Registry) -> str:
    """Return the last audit that the gate has settled."""
    state = await registry.store.hash(registry.keys.checkpoint("gatekeeper"))
    return registry.unseal("gate", state, GateState)[0].settled if state else "0-0"


async def caught_up(store: Store, stages: Stages) -> bool:
    """Tell whether the last step covers the last signal, and its weights are published."""
    keys = stages.registry.keys
    [feedback, steps] = [await store.latest(stream) for stream in (keys.feedback, keys.steps)]
    if not feedback or not steps or feedback[0][0] != steps[0][0]:
        return False
    newest = await stages.registry.checkpoint()
    return newest is not None and newest[0].offset == steps[0][0]
