"""Each signal is learned once or set aside with a reason, whatever dies in between."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError
from river import linear_model, naive_bayes, preprocessing
from the_learner import Faulty, Killed, process, quarantine_of, run, steps_of

from online_learner.errors import Fenced, StateError, Unavailable
from online_learner.ids import Keyring
from online_learner.interpret import NOTHING
from online_learner.learn import Trainer
from online_learner.learners import Answer, Learner
from online_learner.learners.factory import make_learner
from online_learner.loop import Loop
from online_learner.registry import Registry
from online_learner.replay import Replay
from online_learner.replay.position import Position
from online_learner.schema import (
    Checkpoint,
    Control,
    Example,
    Feedback,
    Prediction,
    Record,
    Version,
)
from online_learner.settings import Settings
from online_learner.store import Entry, Store
from policies.signals import Signals

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

SEQUENTIAL = {"policy": "policies.promotion:Sequential", "snapshot_every": 4}
NEVER_S = 3600.0


def scaled() -> Any:
    """Return a model that strings throw off halfway through an update."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


class Averaging:
    """A learner to which it matters which examples came in one batch, as to a torch head."""

    family = "averaging"

    def __init__(self, total: float = 0.0) -> None:
        self.total = total

    @property
    def fitted(self) -> bool:
        """Whether it has learned anything."""
        return self.total != 0.0

    def predict(self, batch: Sequence[dict[str, Any]]) -> list[Answer]:
        """Answer the same to everything."""
        return [Answer(output=self.total > 0.0, scores={"true": 0.5, "false": 0.5}) for _ in batch]

    def learn(self, examples: Sequence[Example]) -> None:
        """Learn the mean of the batch; a string stops it halfway."""
        share = 1.0 / max(1, len(examples))
        self.total *= 0.9
        for example in examples:
            self.total += share * sum(value + 0.1 for value in example.features.values())  # type: ignore[operator]

    def to_bytes(self) -> bytes:
        """Return the one number."""
        return self.total.hex().encode()

    def from_bytes(self, blob: bytes) -> Averaging:
        """Return a learner with that number."""
        return Averaging(float.fromhex(blob.decode()))

    def digest(self) -> str:
        """Return the number's bits."""
        return self.total.hex()


WEB = {"learner": f"{__name__}:scaled", "batch_max": 2, "publish_s": 0.0}


async def say(loop: Loop, count: int, *, seed: int = 0, **features: Any) -> None:
    """Have `count` answers corrected: true where a + b > 0."""
    rng = random.Random(seed)
    for _ in range(count):
        a, b = rng.gauss(0, 1), rng.gauss(0, 1)
        answer = await loop.predict("web", {"a": a, "b": b, **features})
        await loop.feedback(answer["prediction_id"], "correction", a + b > 0)


async def replayed_by_hand(registry: Registry, fresh: Learner) -> Learner:
    """Learn the feedback stream along the recorded steps, in the plainest way there is."""
    signals = Signals("classification", [False, True])
    learner = fresh
    for _, step in await steps_of(registry):
        if step.reset_to is not None:
            _, learner = await registry.load_version(step.reset_to, fresh)
            continue
        places = [(entry, entry) for entry in step.released] or [(f"({step.after}", step.to)]
        parts = [await registry.store.range(registry.keys.feedback, *place) for place in places]
        entries = [entry for part in parts for entry in part]
        batch = Replay(registry, signals, learner).interpret(entries)
        learner.learn([lesson for entry, lesson in batch.lessons if entry not in step.set_aside])
    return learner


async def check_accounts(registry: Registry) -> None:
    """Check that each entry of the feedback stream is covered by exactly one step."""
    entries = [entry for entry, _ in await registry.store.range(registry.keys.feedback)]
    at, covered = "0-0", []
    for entry, step in await steps_of(registry):
        assert step.after == at, "a gap, or an overlap"
        assert step.to == entry
        inside = await registry.store.range(registry.keys.feedback, f"({step.after}", step.to)
        alone = step.reset_to is not None or bool(step.released)
        assert len(inside) == (1 if alone else step.signals)
        assert set(step.set_aside) <= {found for found, _ in inside} | set(step.released)
        covered += [found for found, _ in inside]
        at = step.to
    assert covered == entries
    aside = {
        entry
        for _, step in await steps_of(registry)
        for entry, reason in step.set_aside.items()
        if not reason.startswith(NOTHING)
    }
    assert aside == set(await quarantine_of(registry))


async def check_replay(registry: Registry, trainer: Trainer) -> None:
    """Check that the record alone leads to the trainer's weights and position, bit for bit."""
    await check_accounts(registry)
    fresh = (await registry.load_version(0, trainer.learner))[1]
    assert (await replayed_by_hand(registry, fresh)).digest() == trainer.learner.digest()
    replay = Replay(registry, Signals("classification", [False, True]), trainer.learner)
    await replay.rewind()
    while await replay.replay_step():
        pass
    assert replay.learner.digest() == trainer.learner.digest()
    # Cutting a version is no step, so only who cuts knows how long ago it was.
    assert replace(replay.at, since_cut=0) == replace(trainer.at, since_cut=0)


# --- crashes at every point -----------------------------------------------------------------------


async def image_of(store: Store) -> dict[bytes, bytes]:
    """Return all there is in the store."""
    return {key: await store.call("DUMP", key) for key in await store.call("KEYS", "*")}


async def put_back(store: Store, image: dict[bytes, bytes]) -> None:
    """Make the store what it was."""
    pipe = store.redis.pipeline().flushall()
    for key, value in image.items():
        pipe.restore(key, 0, value)
    await pipe.execute()


async def facts(registry: Registry, trainer: Trainer) -> dict[str, Any]:
    """Return all that must not depend on who died when.

    Where one step ends and the next begins may: a new process reads on from the last commit.
    """
    state = await registry.checkpoint()
    assert state is not None
    return {
        "offset": trainer.at.offset,
        "lineage": trainer.at.lineage,
        "learned": trainer.at.learned,
        "weights": trainer.learner.digest(),
        "published": state[0].state_digest,
        "quarantine": await quarantine_of(registry),
    }


async def eventful(loop: Loop) -> None:
    """Fill the feedback stream: signals, a poisonous one, a reset, a release of some, signals."""
    stream = loop.models["web"].registry.keys.feedback
    await say(loop, 3, seed=1)
    await say(loop, 1, seed=2, word="poison for a scaler")
    await say(loop, 1, seed=3)
    entries = [entry for entry, _ in await loop.store.range(stream)]
    reset = Control(action="reset", to_version=0, lineage=1)
    release = Control(action="release", entries=entries[1:4])
    await loop.store.call("XADD", stream, "*", "c", reset.pack())
    await say(loop, 2, seed=4)
    await loop.store.call("XADD", stream, "*", "c", release.pack())
    await say(loop, 1, seed=5)


CADENCES = [
    pytest.param(
        {"publish_s": 0.0, "promotion": SEQUENTIAL | {"snapshot_every": 3}},
        id="published at each step",
    ),
    pytest.param({"publish_s": NEVER_S}, id="published in the end"),
]


async def survived(loop: Loop, error: Exception | None) -> int:
    """Run into a failure at every command; check that nothing can be seen of it later.

    Without an error, processes die. With one, the same process goes on after it. Returns how many
    commands there were to fail at.
    """
    registry = loop.models["web"].registry
    await eventful(loop)
    image = await image_of(loop.store)
    counting = Faulty(loop.store.url, -1, done=False, error=Killed())
    whole = process(loop, store=counting)
    await run(whole)
    expected = await facts(registry, whole)
    await counting.close()
    for at in range(counting.commands):
        for done in (False, True):
            await put_back(loop.store, image)
            faulty = Faulty(loop.store.url, at, done=done, error=error or Killed())
            trainer = process(loop, store=faulty)
            with pytest.raises(Killed if error is None else type(error)):
                await run(trainer)
            if error is None:
                trainer = process(loop)
            await run(trainer)
            await faulty.close()
            assert await facts(registry, trainer) == expected, (at, done)
            await check_replay(registry, trainer)
    return counting.commands


@pytest.mark.parametrize("web", CADENCES)
async def test_a_process_may_die_at_any_command(
    open_loop: OpenLoop, make_settings: MakeSettings, web: dict[str, Any]
) -> None:
    """Killed before or after any command it sends, the next one ends with the same weights."""
    loop = await open_loop(make_settings(web=WEB | web))
    assert await survived(loop, None) > 20


@pytest.mark.parametrize(
    ("web", "error"),
    [
        (
            {"publish_s": 0.0, "promotion": SEQUENTIAL | {"snapshot_every": 3}},
            Unavailable("a timeout"),
        ),
        ({"publish_s": NEVER_S}, ResponseError("a refusal")),
    ],
    ids=["a timeout", "a refusal"],
)
async def test_a_process_survives_any_failure(
    open_loop: OpenLoop, make_settings: MakeSettings, web: dict[str, Any], error: Exception
) -> None:
    """After a failure at any command, a process goes on from the last commit."""
    loop = await open_loop(make_settings(web=WEB | web))
    await survived(loop, error)


async def test_poison_after_a_failed_start_leaves_no_trace(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A start that failed at any command leaves no old state to rebuild the weights from."""
    loop = await open_loop(make_settings(web=WEB | {"publish_s": NEVER_S}))
    registry, healthy = loop.models["web"].registry, loop.store
    for at in range(7):
        trainer = process(loop)
        await run(trainer)
        await say(loop, 3, seed=at)
        await trainer.turn()
        await process(loop).restore()  # somebody else takes over: the next turn has to restore
        with pytest.raises(Fenced):
            await trainer.turn()
        trainer.store = trainer.registry.store = Faulty(
            healthy.url, at, done=False, error=Unavailable("a timeout")
        )
        with contextlib.suppress(Unavailable):
            await trainer.restore()
        await trainer.store.close()
        trainer.store = trainer.registry.store = healthy
        await say(loop, 1, seed=at, word="poison")
        await run(trainer)
        await check_replay(registry, trainer)


@pytest.mark.parametrize("seed", range(6))
async def test_accounts_balance_under_any_schedule(
    open_loop: OpenLoop, make_settings: MakeSettings, clock: Any, seed: int
) -> None:
    """Batches, publishing and restarts as they come: each entry is covered by exactly one step."""
    rng = random.Random(seed)
    web = WEB | {"batch_max": rng.choice([1, 3, 50]), "publish_s": 0.5, "promotion": SEQUENTIAL}
    loop = await open_loop(make_settings(web=web))
    trainer, registry = loop.models["web"].trainer, loop.models["web"].registry
    for turn in range(12):
        clock.advance(rng.choice([0.0, 0.3]))
        await say(loop, rng.randrange(4), seed=100 * seed + turn)
        if rng.random() < 0.2:
            await say(loop, 1, seed=turn, word="poison")
        if rng.random() < 0.3:
            trainer = process(loop)
        for _ in range(rng.randrange(3)):
            await trainer.turn()
    await run(trainer)
    await check_replay(registry, trainer)


# --- fences ---------------------------------------------------------------------------------------


async def test_a_second_trainer_fences_the_first(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Once a second trainer has started, the first commits nothing more."""
    loop = await open_loop(make_settings(web=WEB))
    first, registry = loop.models["web"].trainer, loop.models["web"].registry
    await say(loop, 4)
    await first.turn()
    second = process(loop)
    await second.restore()
    before = await image_of(loop.store)
    with pytest.raises(Fenced):
        await first.turn()
    with pytest.raises(Fenced):
        await first._commit(publish=True)
    assert await image_of(loop.store) == before
    await run(second)
    await check_accounts(registry)
    assert second.at.learned == 4


async def test_a_fenced_trainer_cannot_publish(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A step that waits to be published is not published by one who was fenced meanwhile."""
    loop = await open_loop(make_settings(web=WEB | {"publish_s": NEVER_S}))
    first = loop.models["web"].trainer
    await say(loop, 2)
    await first.turn()
    await process(loop).restore()
    before = await image_of(loop.store)
    with pytest.raises(Fenced):
        await first.publish()
    assert await image_of(loop.store) == before


# --- set aside ------------------------------------------------------------------------------------


@pytest.mark.parametrize("publish_s", [0.0, NEVER_S])
@pytest.mark.parametrize("batch_max", [1, 4, 100])
async def test_poison_leaves_no_trace(
    open_loop: OpenLoop, make_settings: MakeSettings, publish_s: float, batch_max: int
) -> None:
    """What a model cannot learn is set aside; the weights are those of a life without it."""
    web = WEB | {"publish_s": publish_s, "batch_max": batch_max}
    loop = await open_loop(make_settings(web=web))
    trainer, registry = loop.models["web"].trainer, loop.models["web"].registry
    await say(loop, 7, seed=1)
    await say(loop, 2, seed=2, word="poison")
    await say(loop, 3, seed=3)
    await say(loop, 1, seed=4, word="more of it")
    await run(trainer)
    healthy = make_learner(loop.settings.models["web"])
    signals = Signals("classification", [False, True])
    entries = await registry.store.range(registry.keys.feedback)
    examples = Replay(registry, signals, healthy).interpret(entries).keep()
    healthy.learn([example for example in examples if "word" not in example.features])
    assert trainer.learner.digest() == healthy.digest()
    assert trainer.at.learned == 10
    reasons = (await quarantine_of(registry)).values()
    assert len(reasons) == 3
    assert all(reason.startswith("poison: TypeError") for reason in reasons)
    await check_accounts(registry)


@pytest.mark.parametrize("publish_s", [0.0, NEVER_S])
async def test_batches_are_replayed_as_they_were_learned(
    open_loop: OpenLoop, make_settings: MakeSettings, publish_s: float
) -> None:
    """A learner to which batches matter has the same bits after poison, restart and replay."""
    web = {"learner": f"{__name__}:Averaging", "publish_s": publish_s, "batch_max": 5}
    loop = await open_loop(make_settings(web=web))
    registry = loop.models["web"].registry
    for seed in range(3):
        await say(loop, 7, seed=seed)
        await say(loop, 1, seed=seed, word="poison")
        await say(loop, 3, seed=10 + seed)
        trainer = process(loop)
        while await trainer.turn():
            pass
        await check_replay(registry, trainer)
        heir = process(loop)
        await heir.restore()
        assert heir.learner.digest() == trainer.learner.digest()
    assert len(await quarantine_of(registry)) == 3


class Crowded(Averaging):
    """A learner that takes three examples at once and no more."""

    def learn(self, examples: Sequence[Example]) -> None:
        """Learn the mean of the batch, but stop halfway through a large one."""
        super().learn(examples[:3])
        if len(examples) > 3:
            raise MemoryError("too many at once")

    def from_bytes(self, blob: bytes) -> Crowded:
        """Return a learner with that number."""
        return Crowded(float.fromhex(blob.decode()))


@pytest.mark.parametrize("publish_s", [0.0, NEVER_S])
async def test_a_batch_that_only_together_is_poison_stops_nobody(
    open_loop: OpenLoop, make_settings: MakeSettings, publish_s: float
) -> None:
    """Where each lesson alone is learned and all at once are not, the whole batch is set aside."""
    web = {"learner": f"{__name__}:Crowded", "publish_s": publish_s, "batch_max": 4}
    loop = await open_loop(make_settings(web=web))
    trainer, registry = loop.models["web"].trainer, loop.models["web"].registry
    await say(loop, 3)
    await trainer.turn()
    before = trainer.learner.total  # type: ignore[union-attr]
    await say(loop, 4)
    await trainer.turn()
    assert trainer.learner.total == pytest.approx(0.9 * before)  # type: ignore[union-attr]
    reasons = (await quarantine_of(registry)).values()
    assert len(reasons) == 4
    assert all("poison: with others of its batch: MemoryError" in reason for reason in reasons)
    await say(loop, 2)
    await run(trainer)
    assert trainer.at.learned == 5
    await check_replay(registry, trainer)


async def test_numbers_that_blow_up_a_regressor_are_poison(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """An accepted number that ruins an unscaled regressor is set aside; the answers stay sane."""
    loop = await open_loop(make_settings(rent={"publish_s": 0.0}))
    for size in (1.0, 2.0, 1e15, 3.0):
        answer = await loop.predict("rent", {"size": size})
        await loop.feedback(answer["prediction_id"], "correction", 2.0 * min(size, 5.0))
    await loop.turn("rent")
    registry = loop.models["rent"].registry
    [reason] = (await quarantine_of(registry)).values()
    assert reason.startswith("poison: FloatingPointError")
    answer = loop.models["rent"].trainer.learner.predict([{"size": 1.0}])[0]
    assert isinstance(answer.output, float)
    assert abs(answer.output) < 100


async def test_what_teaches_nothing_is_kept(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A thumbs-down that does not say which of three labels is right is no fault of anybody's."""
    loop = await open_loop(make_settings(topic={}))
    for kind, value in (("thumbs", False), ("thumbs", True), ("correction", "sport")):
        answer = await loop.predict("topic", {"a": 1.0})
        await loop.feedback(answer["prediction_id"], kind, value)
    await loop.turn("topic")
    registry = loop.models["topic"].registry
    assert await quarantine_of(registry) == {}
    [reason] = [r for _, step in await steps_of(registry) for r in step.set_aside.values()]
    assert reason.startswith(f"{NOTHING}: this learner cannot learn which label is wrong")
    assert loop.models["topic"].trainer.at.learned == 2
    await check_accounts(registry)


async def test_what_cannot_be_read_is_set_aside(loop: Loop) -> None:
    """An entry that is no signal of ours is set aside, and those around it are learned."""
    registry = loop.models["web"].registry
    await say(loop, 1)
    await loop.store.call("XADD", registry.keys.feedback, "*", "f", "{", "r", "{}")
    await loop.store.call("XADD", registry.keys.feedback, "*", "z", "y")
    await loop.store.call("XADD", registry.keys.feedback, "*", "c", '{"action": "sing"}')
    await say(loop, 1)
    await loop.turn("web")
    reasons = (await quarantine_of(registry)).values()
    assert [reason.split(":")[0] for reason in reasons] == ["unreadable"] * 3
    assert loop.models["web"].trainer.at.learned == 2
    again = process(loop)
    await run(again)
    assert again.learner.digest() == loop.models["web"].trainer.learner.digest()
    await check_accounts(registry)


@pytest.mark.parametrize("publish_s", [0.0, NEVER_S])
async def test_raters_are_known_again_after_a_restart(
    open_loop: OpenLoop, make_settings: MakeSettings, publish_s: float
) -> None:
    """What a rating teaches depends on its rater's earlier ones, learned before a crash or not."""
    loop = await open_loop(make_settings(web=WEB | {"publish_s": publish_s}))
    trainer, rng = loop.models["web"].trainer, random.Random(1)
    for n in range(30):
        answer = await loop.predict("web", {"a": rng.gauss(0, 1)})
        stars, rater = rng.choice([1, 2, 3, 4, 5]), f"rater {n % 3}"
        await loop.feedback(answer["prediction_id"], "rating", stars, user_id=rater)
        await trainer.turn()
    known = trainer.interpreter.signals.state()["raters"]
    assert known.keys() == {f"human:rater {n}" for n in range(3)}
    other = process(loop)
    await run(other)
    assert other.interpreter.signals.state() == trainer.interpreter.signals.state()
    assert other.learner.digest() == trainer.learner.digest()
    assert other.at == trainer.at


class Hasty(Signals):
    """A team's own table, with a mistake in it that only some signals meet."""

    def lesson(self, feedback: Feedback, *rest: Any) -> Any:
        """Stumble over a comment."""
        if feedback.comment is not None:
            raise AttributeError(feedback.comment)
        return super().lesson(feedback, *rest)

    def said(self, feedback: Feedback, prediction: Prediction) -> Any:
        """Stumble over the same."""
        if feedback.comment is not None:
            raise AttributeError(feedback.comment)
        return super().said(feedback, prediction)


async def test_a_table_that_fails_stops_nobody(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Whatever a table raises sets that one signal aside; a restarted learner does the same."""
    settings = make_settings(web=WEB | {"signals": f"{__name__}:Hasty"})
    loop = await open_loop(settings)
    registry = loop.models["web"].registry
    await say(loop, 1)
    answer = await loop.predict("web", {"a": 1.0})
    await loop.feedback(answer["prediction_id"], "thumbs", value=True, comment="no such attribute")
    await say(loop, 1)
    await loop.turn("web")
    [reason] = (await quarantine_of(registry)).values()
    assert reason == "unreadable: no such attribute"
    assert loop.models["web"].trainer.at.learned == 2
    again = process(loop)
    await run(again)
    assert again.learner.digest() == loop.models["web"].trainer.learner.digest()
    await check_accounts(registry)


# --- what was changed is refused ------------------------------------------------------------------


class Bomb:
    """A pickle that leaves a mark where it is read."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._mark),)


KINDS: dict[str, tuple[str, type[Record]]] = {
    "checkpoint": ("checkpoint", Checkpoint),
    "version": ("version 0", Version),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["blob", "blob and sha", "meta", "mac", "no mac", "another key"])
async def test_changed_state_is_refused_before_it_is_read(
    loop: Loop, tmp_path: Path, kind: str, how: str
) -> None:
    """Bytes or metadata without a seal of ours over both are an error, and are never unpickled."""
    await say(loop, 3)
    await loop.turn("web")
    registry, (purpose, record) = loop.models["web"].registry, KINDS[kind]
    keys = registry.keys
    key = keys.checkpoint("learner") if kind == "checkpoint" else keys.version(0)
    found = await loop.store.hash(key)
    bomb = pickle.dumps(Bomb(tmp_path / "mark"))
    stranger = Registry(loop.store, Keyring({1: bytes(32)}), "web")
    forged = stranger.seal(purpose, registry.unseal(purpose, found, record)[0], blob=bomb)
    changes: dict[str, dict[str, Any]] = {
        "blob": {"blob": bomb},
        "blob and sha": {"blob": bomb, "sha": forged.sha},
        "meta": {"meta": found[b"meta"].replace(b'"step":', b'"step":1')},
        "mac": {"mac": "00" * 32},
        "no mac": {},
        "another key": {"blob": bomb, **forged.fields()},
    }
    if how == "no mac":
        await loop.store.call("HDEL", key, "mac")
    for field, value in changes[how].items():
        await loop.store.call("HSET", key, field, value)
    if kind == "checkpoint":
        with pytest.raises(StateError):
            await registry.checkpoint()
        other = process(loop)
        await other.turn()  # by the version before it, and the steps since
        assert other.learner.digest() == loop.models["web"].trainer.learner.digest()
        assert await registry.checkpoint() is not None
    else:
        with pytest.raises(StateError):
            await registry.load_version(0, loop.models["web"].trainer.learner)
    assert not (tmp_path / "mark").exists()


async def test_a_version_does_not_pass_for_another(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A genuine version under another number, or in another model, is refused."""
    web = WEB | {"promotion": SEQUENTIAL}
    loop = await open_loop(
        make_settings(web=web, copy=make_settings(web=web).models["web"].model_dump())
    )
    await say(loop, 4)
    await loop.turn("web")
    registry, learner = loop.models["web"].registry, loop.models["web"].trainer.learner
    await registry.load_version(1, learner)
    genuine = await loop.store.hash(registry.keys.version(1))
    fields = [part for pair in genuine.items() for part in pair]
    await loop.store.call("HSET", registry.keys.version(0), *fields)
    with pytest.raises(StateError):
        await registry.load_version(0, learner)
    other = loop.models["copy"].registry
    await loop.store.call("HSET", other.keys.version(1), *fields)
    with pytest.raises(StateError):
        await other.load_version(1, learner)


async def test_changed_aliases_are_refused(loop: Loop) -> None:
    """Aliases that name another champion than was sealed are an error, everywhere."""
    registry = loop.models["web"].registry
    found = await loop.store.hash(registry.keys.aliases)
    await loop.store.call("HSET", registry.keys.aliases, "doc", found[b"doc"].replace(b"0", b"7"))
    with pytest.raises(StateError):
        await registry.aliases()
    with pytest.raises(StateError):
        await loop.turn("web")
    assert await loop.models["web"].follower.refresh() is False
    assert "aliases" in str(loop.models["web"].follower.refused)


async def _rewrite(store: Store, stream: str, entries: list[Entry]) -> None:
    await store.call("DEL", stream)
    for entry, fields in entries:
        await store.call("XADD", stream, entry, *[part for item in fields.items() for part in item])


def _inverted(entry: Entry) -> Entry:
    body = json.loads(entry[1][b"f"])
    return entry[0], entry[1] | {b"f": json.dumps(body | {"value": not body["value"]}).encode()}


def _poisoned(entry: Entry) -> Entry:
    body = json.loads(entry[1][b"r"])
    return entry[0], entry[1] | {b"r": json.dumps(body | {"features": {"a": "x"}}).encode()}


TAMPERINGS: dict[str, Callable[[list[Entry]], list[Entry]]] = {
    "another value": lambda found: [_inverted(found[0]), *found[1:]],
    "poison": lambda found: [found[0], _poisoned(found[1]), *found[2:]],
    "one is gone": lambda found: [found[0], *found[2:]],
    "a whole step is gone": lambda found: found[2:],
    "the last is gone": lambda found: found[:-1],
    "one too many": lambda found: [("1-1", found[0][1]), *found],
    "exchanged": lambda found: [
        (found[0][0], found[1][1]),
        (found[1][0], found[0][1]),
        *found[2:],
    ],
}


@pytest.mark.parametrize("how", TAMPERINGS)
async def test_a_changed_stream_is_noticed_in_replay(
    open_loop: OpenLoop, make_settings: MakeSettings, how: str
) -> None:
    """Replay that finds other feedback than a step had learned is an error, and commits nothing."""
    loop = await open_loop(make_settings(web=WEB | {"publish_s": NEVER_S}))
    trainer, registry = loop.models["web"].trainer, loop.models["web"].registry
    await say(loop, 6)
    while await trainer.turn():
        pass
    entries = await loop.store.range(registry.keys.feedback)
    await _rewrite(loop.store, registry.keys.feedback, TAMPERINGS[how](entries))
    steps, published = await steps_of(registry), await registry.checkpoint()
    with pytest.raises(StateError, match="was changed"):
        await process(loop).turn()
    assert await steps_of(registry) == steps
    assert await registry.checkpoint() == published
    await _rewrite(loop.store, registry.keys.feedback, entries)
    heir = process(loop)
    await heir.restore()
    assert heir.learner.digest() == trainer.learner.digest()


# --- control and publishing -----------------------------------------------------------------------


async def test_a_reset_takes_the_weights_back(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A control entry takes weights and count back to a version; learning goes on from there."""
    loop = await open_loop(make_settings(web=WEB | {"promotion": SEQUENTIAL}))
    trainer, registry = loop.models["web"].trainer, loop.models["web"].registry
    await say(loop, 4, seed=1)
    await run(trainer)
    version, then = await registry.load_version(1, trainer.learner)
    assert (version.learned, version.state_digest) == (4, trainer.learner.digest())
    await say(loop, 4, seed=2)
    reset = Control(action="reset", to_version=1, lineage=2)
    await loop.store.call("XADD", registry.keys.feedback, "*", "c", reset.model_dump_json())
    await run(trainer)
    assert trainer.learner.digest() == then.digest()
    at = trainer.at
    assert (at.lineage, at.learned, at.since_cut, at.step) == (2, 4, 0, 5)
    await say(loop, 1, seed=3)
    await run(trainer)
    assert trainer.at.learned == 5
    assert trainer.learner.digest() != then.digest()
    heir = process(loop)
    await heir.restore()
    assert (heir.at, heir.learner.digest()) == (trainer.at, trainer.learner.digest())


async def test_an_old_lineage_cuts_no_version(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A learner that has not heard of a reset yet keeps no snapshot."""
    loop = await open_loop(make_settings(web=WEB | {"promotion": SEQUENTIAL}))
    registry = loop.models["web"].registry
    aliases = await registry.aliases()
    assert aliases is not None
    moved = registry.seal_aliases(aliases.model_copy(update={"lineage": 2}))
    await loop.store.call("HSET", registry.keys.aliases, "doc", moved["doc"], "mac", moved["mac"])
    await say(loop, 8)
    await run(loop.models["web"].trainer)
    assert await registry.last_version() == 0
    assert loop.models["web"].trainer.at.since_cut == 8


async def test_versions_are_cut_as_the_policy_asks(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Every four learned signals a version is kept that holds the weights of its step."""
    web = WEB | {"promotion": SEQUENTIAL | {"max_open": 10}}
    loop = await open_loop(make_settings(web=web))
    registry = loop.models["web"].registry
    await say(loop, 9)
    await run(loop.models["web"].trainer)
    versions = await registry.versions()
    assert [version.version for version in versions] == [0, 1, 2]
    assert [version.learned for version in versions] == [0, 4, 8]
    steps = {step.step: step.state_digest for _, step in await steps_of(registry)}
    for version in versions[1:]:
        _, learner = await registry.load_version(
            version.version, loop.models["web"].trainer.learner
        )
        assert learner.digest() == version.state_digest == steps[version.step]


async def test_publishing_keeps_its_interval(
    open_loop: OpenLoop, make_settings: MakeSettings, clock: Any
) -> None:
    """Steps are committed at once, and the state is published no more often than it may be."""
    loop = await open_loop(make_settings(web=WEB | {"publish_s": 10.0, "batch_max": 1}))
    trainer, registry = loop.models["web"].trainer, loop.models["web"].registry

    async def published() -> int:
        state = await registry.checkpoint()
        assert state is not None
        return state[0].step

    await say(loop, 3)
    for expected in (1, 2):
        await trainer.turn()
        assert (len(await steps_of(registry)), await published()) == (expected, 0)
    clock.advance(10.0)
    await trainer.turn()
    assert await published() == 3
    await say(loop, 1)
    await trainer.turn()
    assert await trainer.turn() == 0
    assert await published() == 3
    clock.advance(10.0)
    assert await trainer.turn() == 0
    assert await published() == 4, "the last step is published when its time has come"


def fitted() -> Any:
    """Return a model that has learned something before it came here."""
    model = naive_bayes.GaussianNB()
    for i in range(10):
        model.learn_one({"a": float(i)}, i > 5)
    return model


async def test_a_start_founds_the_model_once(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """The first version is what the factory made; a second start leaves it alone."""
    settings = make_settings(web={"learner": f"{__name__}:fitted"})
    loop = await open_loop(settings)
    registry = loop.models["web"].registry
    before = await registry.version(1)
    await open_loop(settings)
    assert await registry.version(1) == before
    assert before.state_digest == make_learner(settings.models["web"]).digest()
    assert (await registry.aliases()).champion == 1  # type: ignore[union-attr]
    assert loop.models["web"].trainer.at == Position()
