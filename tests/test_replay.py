"""The record leads to the learner's weights, bit for bit: archived, trimmed, from anywhere."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from the_forgotten import take_back
from the_learner import entry_of, process, run, say, steps_of

from online_learner import learn
from online_learner.archive.log import Log
from online_learner.errors import DataError, NotFound, StateError
from online_learner.ids import entry_order
from online_learner.interpret import ERASED
from online_learner.learners import state as state_module
from online_learner.learners.factory import make_learner
from online_learner.learners.river import RiverLearner
from online_learner.learners.state import unpack_state
from online_learner.learners.undo import Undo
from online_learner.loop import Loop
from online_learner.registry import Registry
from online_learner.replay import Replay
from online_learner.replay import ahead as ahead_module
from online_learner.replay.ahead import Ahead
from online_learner.replay.forgotten import Gaps, Unlearned
from online_learner.replay.retrace import retrace
from online_learner.retain import Retention
from online_learner.schema import Control, Example, Lesson, Step
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store import Entry, Store
from policies.signals import Signals

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

SCALED = "river:preprocessing.StandardScaler | linear_model.LogisticRegression"
SEQUENTIAL = {"policy": "policies.promotion:Sequential", "snapshot_every": 4}
WEB = {"learner": SCALED, "batch_max": 2, "publish_s": 0.0, "promotion": SEQUENTIAL}


class Halved(Signals):
    """A table by which each lesson weighs half as much."""

    def lesson(self, *args: Any, **options: Any) -> Lesson | None:
        """Return the default table's lesson, halved."""
        found = super().lesson(*args, **options)
        return None if found is None else replace(found, weight=0.5)


@pytest.fixture
async def exact(store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Let the server keep one entry a node, and the learner no older state: trimming is exact."""
    monkeypatch.setattr(learn, "KEPT_MS", 0)
    await store.call("CONFIG", "SET", "stream-node-max-entries", "1")
    yield
    await store.call("CONFIG", "SET", "stream-node-max-entries", "100")


@pytest.fixture
async def web(open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path) -> Loop:
    """Return a loop with an archive, that cuts a version every four signals."""
    return await open_loop(make_settings(web=WEB | {"archive": str(tmp_path)}))


async def tell(loop: Loop, control: Control) -> None:
    """Append a control entry, as a writer does, and let the learner come to it."""
    stream = loop.models["web"].registry.keys.feedback
    await loop.store.call("XADD", stream, "*", "c", control.pack())
    await loop.learn("web")


async def eventful(loop: Loop) -> list[str]:
    """Go through signals, poison, tables, a reset, a release; returns the signals' ids."""
    said = await say(loop, 9, seed=1)
    said += await say(loop, 1, seed=2, word="poison for a scaler")
    await loop.turn("web")
    said += await say(loop, 4, seed=3)
    await tell(loop, Control(action="tables", tables={"drift": {"haste": 2.0}}))
    versions = await loop.models["web"].registry.versions()
    await tell(loop, Control(action="reset", to_version=versions[1].version, lineage=2))
    said += await say(loop, 5, seed=4)
    released = [entry_of(loop, one) for one in (said[9], said[11])]
    await tell(loop, Control(action="release", entries=released))
    said += await say(loop, 3, seed=5)
    await run(loop.models["web"].trainer)
    return said


async def archive(loop: Loop) -> None:
    """Move all of it to the archive, and take out of the store what is there."""
    stages = loop.models["web"]
    assert stages.archiver is not None
    await stages.archiver.flush()
    keys = stages.registry.keys
    for stream in (keys.feedback, keys.steps, keys.quarantine):
        await loop.store.call("XTRIM", stream, "MAXLEN", 0)


def another(loop: Loop, **changes: Any) -> Stages:
    """Return the stages of another process, or of one that is configured otherwise."""
    stages = loop.models["web"]
    spec = loop.settings.models["web"].model_copy(update=changes)
    return Stages(loop.store, loop.keyring, "web", spec, data_dir=stages.data_dir)


async def recorded(loop: Loop) -> dict[str, Step]:
    """Return the steps whose weights are known, by their entries."""
    log = loop.models["web"].log
    found = [item async for page in log.pages("steps") for item in page]
    steps = {entry: Step.model_validate_json(fields[b"s"]) for entry, fields in found}
    return {entry: step for entry, step in steps.items() if step.state_digest is not None}


# --- the same weights -----------------------------------------------------------------------------


@pytest.mark.parametrize("archived", [False, True])
async def test_the_record_leads_to_the_same_weights(web: Loop, archived: bool) -> None:
    """Signals, poison, tables, a reset, a release: all states are those recorded, bit for bit."""
    await eventful(web)
    if archived:
        await archive(web)
    found, trainer = await retrace(another(web)), web.models["web"].trainer
    steps = await recorded(web)
    assert found.differs is None
    kept = {v.offset for v in await web.models["web"].registry.versions() if v.step}
    assert found.compared > len(steps) + len(kept) > 12
    assert found.replay.learner.digest() == trainer.learner.digest()
    assert replace(found.replay.at, since_cut=0) == replace(trainer.at, since_cut=0)
    assert found.replay.memory() == trainer.memory()


async def test_it_begins_with_any_version(web: Loop) -> None:
    """From each kept version the steps after it lead to the same weights."""
    await eventful(web)
    await archive(web)
    wanted, begun = web.models["web"].trainer.learner.digest(), set()
    for version in await web.models["web"].registry.versions():
        found = await retrace(another(web), from_version=version.version)
        assert (found.differs, found.replay.learner.digest()) == (None, wanted)
        begun.add(found.begun)
    assert len(begun) > 3


async def test_it_goes_up_to_an_entry(web: Loop) -> None:
    """It stands where the last step ends that covers nothing beyond the entry."""
    await eventful(web)
    await archive(web)
    for entry, step in (await recorded(web)).items():
        found = await retrace(another(web), until=entry)
        assert found.replay.learner.digest() == step.state_digest
        assert found.replay.at.offset == entry
    first = next(iter(await recorded(web)))
    before = f"{entry_order(first)[0]}-0" if entry_order(first)[1] else "1-0"
    found = await retrace(another(web), until=before)
    assert (found.steps, found.replay.at.offset) == (0, "0-0")


async def test_no_such_version(web: Loop) -> None:
    """A version that is not there, or was trained elsewhere, is no place to begin."""
    await say(web, 3)
    await run(web.models["web"].trainer)
    with pytest.raises(NotFound, match="no version 77"):
        await retrace(another(web), from_version=77)


async def test_another_configuration_leads_elsewhere_and_says_so(web: Loop) -> None:
    """Under another table of signals the first step that differs is told."""
    await eventful(web)
    steps = await recorded(web)
    found = await retrace(another(web, signals=f"{__name__}:Halved"))
    assert found.differs == min(step.step for step in steps.values())
    assert found.replay.learner.digest() != web.models["web"].trainer.learner.digest()


async def test_what_is_appended_meanwhile_is_met(
    web: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay that has read ahead goes on into what the learner has learned since."""
    monkeypatch.setattr(ahead_module, "STEPS", 3)
    monkeypatch.setattr(ahead_module, "ENTRIES", 2)
    trainer, replay = web.models["web"].trainer, another(web).replay_afresh()
    await say(web, 5)
    await run(trainer)
    await replay.rewind()
    for seed in range(6):
        for _ in range(seed % 3 + 1):
            await replay.replay_step()
        await say(web, 3, seed=seed)
        await run(trainer)
        if seed == 2:
            await archive(web)
    await replay.follow()
    assert replay.learner.digest() == trainer.learner.digest()
    assert (replay.differs, replay.at.digest) == (None, trainer.at.digest)


async def test_a_learner_recovers_from_what_has_been_trimmed(web: Loop) -> None:
    """With both its states lost, it learns again from the archive, and goes on."""
    await eventful(web)
    await archive(web)
    registry, digest = web.models["web"].registry, web.models["web"].trainer.learner.digest()
    await web.store.call("DEL", registry.keys.checkpoint("learner"), registry.keys.before)
    heir = another(web).trainer
    await heir.restore()
    assert heir.learner.digest() == digest
    await say(web, 3, seed=9)
    await run(heir)
    found = await retrace(another(web))
    assert (found.differs, found.replay.learner.digest()) == (None, heir.learner.digest())


async def test_without_an_archive_a_trimmed_record_says_where_it_begins(
    exact: None, open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Where nothing was archived, what is too old is refused, with the entry that is left."""
    web = await open_loop(make_settings(web=WEB))
    await eventful(web)
    await Retention(web.store, "web", window_s=1.0, clock=lambda: 3e9).trim()
    with pytest.raises(StateError, match="after version 0: begin with a younger one"):
        await retrace(another(web), from_version=0)


# --- damage ---------------------------------------------------------------------------------------


async def _files(web: Loop, stream: str) -> list[Path]:
    place = web.models["web"].log.place
    assert place is not None
    assert place.local is not None
    return sorted(place.local.rglob(f"*/{stream}/*/*.parquet"))


@pytest.mark.parametrize("how", ["changed", "cut short", "gone"])
@pytest.mark.parametrize("stream", ["feedback", "steps"])
async def test_a_damaged_archive_is_an_error_with_a_name(web: Loop, stream: str, how: str) -> None:
    """A changed byte, a file cut short, one that is gone: each is told, and nothing is rebuilt."""
    await eventful(web)
    await archive(web)
    [file, *_] = await _files(web, stream)
    data = file.read_bytes()
    file.chmod(0o644)
    if how == "gone":
        file.unlink()
    else:
        middle = len(data) // 2
        changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        file.write_bytes(changed if how == "changed" else data[:middle])
    with pytest.raises(DataError, match=file.name) as told:
        await retrace(another(web))
    assert told.value.code == ("missing" if how == "gone" else "damaged")


# --- another release of a library -----------------------------------------------------------------


async def test_another_release_learns_the_record_again(
    web: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States that it cannot read are passed over: an untrained first version is made afresh."""
    await eventful(web)
    await archive(web)
    digest = web.models["web"].trainer.learner.digest()
    monkeypatch.setattr(state_module, "_library", lambda _family: "77.0")
    found = await retrace(another(web))
    assert (found.begun, found.differs, found.replay.learner.digest()) == ("0-0", None, digest)
    heir = another(web).trainer
    await heir.restore()
    assert heir.learner.digest() == digest


async def test_a_fitted_first_version_of_another_release_says_what_to_do(
    web: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the first version is another one than the factory makes, the way out is told."""
    await eventful(web)
    monkeypatch.setattr(state_module, "_library", lambda _family: "77.0")
    replay = another(web).replay_afresh()
    replay.learner.learn([Example({"a": 1.0}, True)])  # type: ignore[list-item]
    with pytest.raises(StateError, match="has the configured learner learn it from nothing"):
        await replay.rewind()


async def test_another_release_without_the_record_says_what_to_do(
    exact: None, open_loop: OpenLoop, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the record does not reach back, nothing can be rebuilt, and that is told."""
    web = await open_loop(make_settings(web=WEB))
    await eventful(web)
    await Retention(web.store, "web", window_s=1.0, clock=lambda: 3e9).trim()
    monkeypatch.setattr(state_module, "_library", lambda _family: "77.0")
    with pytest.raises(StateError, match="no version that is kept is as young as that"):
        await retrace(another(web))


# --- what was unlearned ---------------------------------------------------------------------------


async def unlearn(loop: Loop, *feedback_ids: str) -> list[str]:
    """Take signals back, and wait until no weights have them; returns their entries."""
    await take_back(loop, *feedback_ids)
    loop.models["web"].unlearning._rests_until = 0.0
    await loop.turn("web")
    await loop.turn("web")
    entries = [entry_of(loop, one) for one in feedback_ids]
    done = await Unlearned.read(loop.models["web"].log)
    assert set(entries) <= set(done.at)
    return entries


async def test_a_replay_goes_by_what_was_unlearned(web: Loop) -> None:
    """From the first version on it leads to the weights that the learner has without them."""
    said = await eventful(web)
    await unlearn(web, said[2], said[5])
    await say(web, 3, seed=8)
    await unlearn(web, said[16])
    await say(web, 3, seed=9)
    trainer = web.models["web"].trainer
    await run(trainer)
    await archive(web)
    found = await retrace(another(web))
    assert found.differs is None
    assert found.replay.learner.digest() == trainer.learner.digest()
    assert replace(found.replay.at, since_cut=0) == replace(trainer.at, since_cut=0)
    gaps = Gaps(found.replay.forgotten, found.replay.unlearned)
    comparable = [entry for entry in await recorded(web) if gaps.comparable(entry)]
    assert found.replay.compared == len(comparable) > 3
    assert found.compared > found.replay.compared


async def test_a_state_that_has_learned_it_is_rebuilt_at_the_step(web: Loop) -> None:
    """A learner that goes on from a state of before the step comes to the same weights."""
    said = await say(web, 9, seed=1)
    registry, trainer = web.models["web"].registry, web.models["web"].trainer
    await run(trainer)
    held = await web.store.hash(registry.keys.checkpoint("learner"))
    await say(web, 3, seed=2)
    [entry] = await unlearn(web, said[3])
    await say(web, 2, seed=3)
    await run(trainer)
    replay = another(web).replay_afresh()
    await web.store.call(
        "HSET", registry.keys.before, *(part for pair in held.items() for part in pair)
    )
    await replay._remember_forgotten()
    before = await registry.load_before(replay.learner)
    assert before is not None
    replay._take(*before)
    assert entry_order(replay.at.offset) > entry_order(entry)
    assert replay._held == {entry}
    await replay.follow()
    assert replay.learner.digest() == trainer.learner.digest()
    assert (replay.differs, replay.at.digest) == (None, trainer.at.digest)
    assert replay.at.learned == trainer.at.learned


async def test_a_clean_state_comes_before_one_that_had_learned_it(web: Loop) -> None:
    """With the newest state lost, a learner takes one that has not learned what was unlearned."""
    said = await say(web, 9, seed=1)
    registry, trainer = web.models["web"].registry, web.models["web"].trainer
    await run(trainer)
    held = await web.store.hash(registry.keys.checkpoint("learner"))
    await unlearn(web, said[3])
    await say(web, 2, seed=3)
    await run(trainer)
    parts = [part for pair in held.items() for part in pair]
    await web.store.call("HSET", registry.keys.before, *parts)
    await web.store.call("DEL", registry.keys.checkpoint("learner"))
    heir = another(web).trainer
    await heir.load_newest()
    assert heir._held == frozenset()
    await heir.restore()
    assert heir.learner.digest() == trainer.learner.digest()


async def test_what_was_erased_is_gone_by(web: Loop) -> None:
    """Once its bytes are gone, steps that cover it are taken by the chain that they recorded."""
    said = await eventful(web)
    [entry] = await unlearn(web, said[6])
    trainer, registry = web.models["web"].trainer, web.models["web"].registry
    await say(web, 3, seed=9)
    await run(trainer)
    stream = await web.store.range(registry.keys.feedback)
    erased = [(e, {ERASED: b"1"} if e == entry else fields) for e, fields in stream]
    await rewrite(web.store, registry.keys.feedback, erased)
    found = await retrace(another(web))
    assert found.differs is None
    assert found.replay.learner.digest() == trainer.learner.digest()
    assert found.replay.at.learned == trainer.at.learned
    gone = [item for item in stream if item[0] != entry]
    await rewrite(web.store, registry.keys.feedback, gone)
    with pytest.raises(StateError, match="was changed"):
        await retrace(another(web))


async def test_a_clean_base_is_refused_where_the_record_is_too_short(
    exact: None, open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """What was said before the record begins cannot be left out of the weights any more."""
    web = await open_loop(make_settings(web=WEB))
    said = await say(web, 9, seed=1)
    await web.turn("web")
    await Retention(web.store, "web", window_s=1.0, clock=lambda: 3e9).trim()
    replay = another(web).replay_afresh()
    with pytest.raises(StateError, match="and of before"):
        await replay.clean_before(entry_of(web, said[0]))


async def rewrite(store: Store, stream: str, entries: Sequence[Entry]) -> None:
    """Put other entries in a stream's place, under the same ids."""
    await store.call("DEL", stream)
    for entry, fields in entries:
        await store.call("XADD", stream, entry, *(part for pair in fields.items() for part in pair))


def test_gaps_are_where_something_is_still_in_the_weights() -> None:
    """From the signal on, up to the step that unlearned it; for good where none has yet."""
    unlearned = Unlearned({"10-0": "20-0", "15-0": "18-0", "19-0": "30-0", "40-0": "50-0"})
    gaps = Gaps({*unlearned.at, "60-1"}, unlearned)
    told = [n for n in range(1, 70) if gaps.comparable(f"{n}-0")]
    assert told == [*range(1, 10), *range(30, 40), *range(50, 61)]
    assert unlearned.held("17-0") == {"10-0", "15-0"}
    assert unlearned.held("18-0") == {"10-0"}
    assert unlearned.held("9-5") == frozenset()


# --- parts ----------------------------------------------------------------------------------------


def _examples(rng: random.Random, count: int) -> list[Example]:
    found = []
    for _ in range(count):
        features: dict[str, Any] = {"a": rng.gauss(0, 1), "b": rng.gauss(0, 1)}
        if rng.random() < 0.1:
            features["a"] = "a word"
        found.append(Example(features, rng.random() < 0.5))
    return found


@pytest.mark.parametrize("every", [1, 7, 10**6])
def test_what_cannot_be_learned_leaves_no_trace(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Whenever the state is packed, the weights are those of a life without poison."""
    monkeypatch.setattr("online_learner.learners.undo.EVERY", every)
    spec = make_settings(web={"learner": SCALED}).models["web"]
    rng, undo, healthy = random.Random(1), Undo(make_learner(spec)), make_learner(spec)
    refused = 0
    for _ in range(40):
        batch = _examples(rng, rng.randrange(5))
        refused += undo.learn(batch)
        healthy.learn([one for one in batch if one.features["a"] != "a word"])
    assert refused > 3
    assert isinstance(undo.learner, RiverLearner)
    assert undo.learner.digest() == healthy.digest()
    assert unpack_state(undo._base, healthy).family == "river"


class _Record:
    """A log in memory, that counts how often it is read."""

    def __init__(self, steps: list[Entry], feedback: list[Entry]) -> None:
        self.streams = {"steps": steps, "feedback": feedback}
        self.reads = 0

    async def range(self, stream: str, start: str, end: str = "+", *, count: int) -> list[Entry]:
        """Return a stretch, as a log does."""
        self.reads += 1
        after = entry_order(start.removeprefix("("))
        last = (1 << 62, 0) if end == "+" else entry_order(end)
        found = [e for e in self.streams[stream] if after < entry_order(e[0]) <= last]
        return found[:count]


@given(
    st.lists(st.integers(1, 6), max_size=30),
    st.integers(1, 4),
    st.integers(1, 5),
    st.sets(st.integers(0, 29)),
)
async def test_reading_ahead_finds_what_is_covered(
    sizes: list[int], steps: int, entries: int, passed: set[int]
) -> None:
    """Whatever the pages, each step has its own entries, those of passed ones left out."""
    feedback: list[Entry] = [(f"{n}-0", {b"f": b"x"}) for n in range(1, sum(sizes) + 1)]
    at, made = 0, []
    for number, size in enumerate(sizes):
        step = Step(
            lineage=1,
            step=number,
            after=f"{at}-0",
            to=f"{at + size}-0",
            signals=size,
            digest="",
        )
        made.append((f"{at + size}-0", {b"s": step.pack()}))
        at += size
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ahead_module, "STEPS", steps)
        patched.setattr(ahead_module, "ENTRIES", entries)
        record: Any = _Record(made, feedback)
        ahead, after, number = Ahead(record), "0-0", 0
        while (found := await ahead.next(after)) is not None:
            entry, step = found
            if number not in passed:
                names = [name for name, _ in await ahead.covered(step)]
                first, last = entry_order(step.after)[0] + 1, entry_order(step.to)[0]
                assert names == [f"{n}-0" for n in range(first, last + 1)]
            after, number = entry, number + 1
        assert number == len(sizes)


async def test_a_replay_takes_few_round_trips(web: Loop) -> None:
    """Steps and signals come by the page, and not one by one."""
    await say(web, 12)
    trainer = web.models["web"].trainer
    await run(trainer)
    steps = len(await steps_of(trainer.registry))
    replay = another(web).replay_afresh()
    await replay.rewind()
    counted = Counting(replay.registry)
    replay._ahead.log = counted
    await replay.follow()
    assert replay.learner.digest() == trainer.learner.digest()
    assert steps >= 6
    assert counted.reads <= 3


class Counting(Log):
    """Counts how often it is read."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self.reads = 0

    async def range(self, *args: Any, **options: Any) -> list[Entry]:
        """Return a stretch."""
        self.reads += 1
        return await super().range(*args, **options)


async def test_another_process_comes_to_the_same(web: Loop) -> None:
    """The learner of another process, without an archive, recovers as ever."""
    await eventful(web)
    heir = process(web)
    await heir.restore()
    assert heir.learner.digest() == web.models["web"].trainer.learner.digest()
    assert isinstance(heir, Replay)
