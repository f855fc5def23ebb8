"""What was set aside or rolled back is learned after all, once, whatever happens in between."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from the_learner import (
    WARY_OF,
    Every,
    Faulty,
    Killed,
    Wary,
    entry_of,
    heir,
    quarantine_of,
    run,
    say,
    steps_of,
)

from online_learner import explain
from online_learner.errors import Conflict, Invalid, NotFound
from online_learner.explain.fates import Fate, course_of, fates
from online_learner.explain.signals import find
from online_learner.learn import Trainer
from online_learner.loop import Loop
from online_learner.operate import operate
from online_learner.registry import Registry
from online_learner.release import MOST, release, release_rolled_back
from online_learner.replay import Replay
from online_learner.settings import Settings
from policies.signals import Signals

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

WEB = {
    "learner": "the_learner:Wary",
    "batch_max": 4,
    "publish_s": 0.0,
    "validation": "policies.validation:Accept",  # they say opposite things of one input
}


@pytest.fixture
async def web(open_loop: OpenLoop, make_settings: MakeSettings) -> Loop:
    """Return a loop with a learner that chokes on words."""
    loop = await open_loop(make_settings(web=WEB))
    loop.stages("web").trainer._snapshots = Every(3)
    return loop


async def rate(loop: Loop, stars: int, rater: str, a: float) -> str:
    """Have an answer rated."""
    answer = await loop.predict("web", {"a": a})
    receipt = await loop.feedback(answer["prediction_id"], "rating", stars, user_id=rater)
    return str(receipt.feedback_id)


async def let_go(loop: Loop, *feedback_ids: str, **options: Any) -> list[str]:
    """Release signals by their ids."""
    registry = loop.stages("web").registry
    opened = [loop.keyring.open("feedback", feedback_id)[1] for feedback_id in feedback_ids]
    signals = [await find(registry, address) for address in opened]
    return await release(registry, signals, by="key:ops", **options)


async def go_back(loop: Loop, version: int = 0) -> None:
    """Roll back by hand."""
    now = loop.ingest.clock()
    await operate(loop.stages("web").registry, "rollback", by="ops", now=now, version=version)


async def told(loop: Loop, feedback_id: str) -> dict[str, Any]:
    """Return the receipt of a signal."""
    address = loop.keyring.open("feedback", feedback_id)[1]
    return await explain.receipt(loop.stages("web").registry, address)


async def statuses(loop: Loop, feedback_ids: Sequence[str]) -> list[str]:
    """Return what became of signals, in a word each."""
    return [(await told(loop, feedback_id))["status"] for feedback_id in feedback_ids]


# --- one at a time --------------------------------------------------------------------------------


async def test_a_signal_that_was_set_aside_is_learned_after_its_release(web: Loop) -> None:
    """Poison that is none any more: the receipt has the step of the release, and who ordered it."""
    trainer = web.stages("web").trainer
    [poison] = await say(web, word="w")
    await say(web, WARY_OF, seed=1)
    await run(trainer)
    assert (await told(web, poison))["status"] == "quarantined"
    assert await let_go(web, poison, reason="it learns words now") == [poison]
    before = await told(web, poison)
    assert (before["status"], before["released"]["waiting"]) == ("quarantined", True)
    learned = trainer.at.learned
    await run(trainer)
    found = await told(web, poison)
    assert (found["status"], found["step"]) == ("learned", trainer.at.step)
    assert (trainer.at.learned, trainer.learner.digest().split()[0]) == (learned + 1, str(7))
    assert found["released"] | {"at": 0} == {
        "by": "key:ops", "reason": "it learns words now", "at": 0, "waiting": False,
    }  # fmt: skip
    assert found["version"] is None
    await say(web, 2, seed=2)
    await run(trainer)
    assert (await told(web, poison))["version"] == await trainer.registry.last_version()


async def test_what_still_cannot_be_learned_is_set_aside_again(web: Loop) -> None:
    """A release in vain leaves no trace in the weights, and may be tried again."""
    trainer = web.stages("web").trainer
    clean, [poison] = await say(web, 2), await say(web, word="w")
    await run(trainer)
    weights = trainer.learner.digest()
    for _ in range(2):
        await let_go(web, poison)
        await run(trainer)
        found = await told(web, poison)
        assert (found["status"], found["step"]) == ("quarantined", trainer.at.step)
        assert "a word, so early" in found["reason"]
        assert trainer.learner.digest() == weights
    assert trainer.at.learned == len(clean)
    assert len(await quarantine_of(web.stages("web").registry)) == 1


async def test_what_was_rolled_back_can_be_released_again_and_again(web: Loop) -> None:
    """Each pull undoes the release as well; the next one brings the signals back."""
    trainer = web.stages("web").trainer
    said = await say(web, 2)
    for _ in range(3):
        await run(trainer)
        assert await statuses(web, said) == ["learned"] * 2
        digest = trainer.learner.digest()
        await go_back(web)
        assert await statuses(web, said) == ["rolled_back"] * 2
        await run(trainer)
        assert await statuses(web, said) == ["rolled_back"] * 2
        assert trainer.learner.digest() == Wary().digest()
        assert await let_go(web, *reversed(said)) == said
    await run(trainer)
    assert trainer.learner.digest() == digest, "they are learned in the order in which they came"


async def test_what_cannot_be_released(web: Loop) -> None:
    """What was not read, was learned, teaches nothing or was released is refused, with all else."""
    trainer = web.stages("web").trainer
    [unread] = await say(web)
    with pytest.raises(Invalid, match="has not been read by the learner yet"):
        await let_go(web, unread)
    [poison], kept = await say(web, word="w"), await rate(web, 3, "ada", 1.0)
    await run(trainer)
    length = await web.store.call("XLEN", trainer.keys.feedback)
    for refused, why in {unread: "was learned, at step 1", kept: "teaches nothing here"}.items():
        with pytest.raises(Invalid, match=why) as caught:
            await let_go(web, poison, refused)
        assert caught.value.code == "not_set_aside"
        assert refused in str(caught.value)
        assert poison not in str(caught.value)
    assert await let_go(web, poison, dry_run=True) == [poison]
    assert await web.store.call("XLEN", trainer.keys.feedback) == length
    await let_go(web, poison)
    with pytest.raises(Invalid, match="was released already"):
        await let_go(web, poison)
    with pytest.raises(NotFound):
        await find(trainer.registry, web.keyring.open("feedback", poison)[1].__class__(1, 0, "ff"))
    entry = await web.store.range(trainer.keys.feedback, count=1)
    with pytest.raises(Invalid, match=f"at most {MOST}"):
        await release(trainer.registry, [(f"{n}-1", entry[0][1]) for n in range(MOST + 1)], by="x")


class Meanwhile:
    """Lets something happen between a look at the store and the script that was to follow."""

    def __init__(self, loop: Loop, script: str, event: Callable[[], Awaitable[object]]) -> None:
        self._store, self._script, self._event = loop.store, script, event
        self._plain = loop.store.run

    async def run(self, script: str, *args: Any) -> Any:
        """Run a script, after the event where it is the one."""
        if script == self._script:
            self._store.run = self._plain  # type: ignore[method-assign]
            await self._event()
        return await self._plain(script, *args)


def meanwhile(loop: Loop, script: str, event: Callable[[], Awaitable[object]]) -> None:
    """Have an event happen just before the next run of a script."""
    loop.store.run = Meanwhile(loop, script, event).run  # type: ignore[method-assign]


async def test_two_operators_release_one_signal_once(web: Loop) -> None:
    """Of two who looked at the same time one is refused, by name, and nothing of theirs is done."""
    trainer = web.stages("web").trainer
    one, two = await say(web, 2, word="w")
    await run(trainer)
    meanwhile(web, "release", lambda: let_go(web, one))
    with pytest.raises(Invalid, match=f"somebody else has just released {one}$"):
        await let_go(web, one, two)
    assert (await told(web, two)).get("released") is None
    assert (await told(web, one))["released"]["waiting"]


async def test_a_pull_between_look_and_release_is_a_conflict(web: Loop) -> None:
    """What was looked at under another lineage is not released."""
    trainer = web.stages("web").trainer
    [poison] = await say(web, word="w")
    await run(trainer)
    meanwhile(web, "release", lambda: go_back(web))
    with pytest.raises(Conflict, match="went back meanwhile"):
        await let_go(web, poison)
    assert (await told(web, poison)).get("released") is None


async def test_a_release_that_is_gone_from_the_log_is_set_aside(web: Loop) -> None:
    """A signal that was trimmed away meanwhile is set aside with that reason; replay agrees."""
    trainer, registry = web.stages("web").trainer, web.stages("web").registry
    [poison] = await say(web, word="w")
    await run(trainer)
    entry = entry_of(web, poison)
    await let_go(web, poison)
    await web.store.call("XDEL", registry.keys.feedback, entry)
    await trainer.turn()
    [*_, (_, step)] = await steps_of(registry)
    assert step.set_aside == {entry: "gone: it is no longer in the log"}
    again = heir(web)
    await again.restore()
    assert again.at == trainer.at


# --- all that the last pull undid -----------------------------------------------------------------


async def test_all_that_was_rolled_back_is_released_at_once(web: Loop) -> None:
    """What the last pull undid comes back, and no more: not what an earlier one undid."""
    trainer, registry = web.stages("web").trainer, web.stages("web").registry
    assert await release_rolled_back(registry, by="ops") == []
    first = await say(web, 2)
    await run(trainer)
    await go_back(web)
    second, [poison] = await say(web, 2, seed=1), await say(web, word="w")
    await run(trainer)
    await go_back(web)
    with pytest.raises(Conflict, match="has not gone back yet"):
        await release_rolled_back(registry, by="ops")
    await run(trainer)
    assert await release_rolled_back(registry, by="ops", dry_run=True) == second
    assert await release_rolled_back(registry, by="ops") == second
    assert await release_rolled_back(registry, by="ops") == []
    await run(trainer)
    assert await statuses(web, [*first, *second]) == ["rolled_back"] * 2 + ["learned"] * 2
    assert await statuses(web, [poison]) == ["quarantined"]
    await go_back(web)
    await run(trainer)
    assert await release_rolled_back(registry, by="ops") == second, "released before, and again"


async def test_many_are_released_in_portions(web: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """One control entry holds a bounded number of signals."""
    monkeypatch.setattr("online_learner.release.MOST", 3)
    trainer, registry = web.stages("web").trainer, web.stages("web").registry
    said = await say(web, 8)
    await run(trainer)
    await go_back(web)
    await run(trainer)
    assert await release_rolled_back(registry, by="ops") == said
    await run(trainer)
    sizes = [len(step.released) for _, step in await steps_of(registry) if step.released]
    assert sizes == [3, 3, 2]
    assert await statuses(web, said) == ["learned"] * 8


async def test_going_forward_again_learns_nothing_twice(web: Loop) -> None:
    """A version that had learned a signal undoes its release: it is learned there, and once."""
    trainer = web.stages("web").trainer
    said = await say(web, 3)
    await run(trainer)
    whole = trainer.learner.digest()
    assert (await trainer.registry.version(1)).learned == 3
    await go_back(web)
    await run(trainer)
    await let_go(web, *said)
    await run(trainer)
    assert [(await told(web, one))["lineage"] for one in said] == [2] * 3
    await go_back(web, 1)
    await run(trainer)
    assert trainer.learner.digest() == whole
    assert [(await told(web, one))["lineage"] for one in said] == [1] * 3
    with pytest.raises(Invalid, match="was learned, at step 1"):
        await let_go(web, said[0])


async def test_what_was_known_of_raters_goes_back_too(web: Loop) -> None:
    """After a pull, ratings are read as if those undone had not been given; a release counts."""
    trainer = web.stages("web").trainer
    rng = random.Random(0)
    said = [await rate(web, rng.choice([1, 2, 4, 5]), f"r{n % 2}", 1.0) for n in range(9)]
    await run(trainer)
    memory, weights = trainer.interpreter.signals.state(), trainer.learner.digest()
    await go_back(web)
    await run(trainer)
    assert trainer.interpreter.signals.state() == {}
    await let_go(web, *said)
    await run(trainer)
    assert (trainer.interpreter.signals.state(), trainer.learner.digest()) == (memory, weights)
    other = heir(web)
    await other.restore()
    assert (other.interpreter.signals.state(), other.learner.digest()) == (memory, weights)


# --- the list -------------------------------------------------------------------------------------


async def everything(registry: Registry, count: int) -> list[dict[str, Any]]:
    """Return the whole quarantine, by pages."""
    found: list[dict[str, Any]] = []
    after: str | None = "0-0"
    while after is not None:
        page = await explain.quarantine(registry, after=after, count=count)
        found, after = found + page["quarantine"], page["next"]
        assert len(page["quarantine"]) <= count
    return found


@pytest.mark.parametrize("count", [1, 2, 100])
async def test_the_quarantine_lists_what_can_be_released(web: Loop, count: int) -> None:
    """Set aside and rolled back, with reason and time, in the order in which it was said."""
    trainer, registry = web.stages("web").trainer, web.stages("web").registry
    assert await everything(registry, count) == []
    early, [poison] = await say(web, 2), await say(web, word="w")
    await rate(web, 3, "ada", 1.0)
    await run(trainer)
    assert [row["feedback_id"] for row in await everything(registry, count)] == [poison]
    await go_back(web)
    waiting = await everything(registry, count)
    assert [row["decided_at"] is None for row in waiting] == [True, True, False]
    later = await say(web, 1)
    await run(trainer)
    rows = await everything(registry, count)
    assert [row["feedback_id"] for row in rows] == [*early, poison]
    assert [row["status"] for row in rows] == ["rolled_back"] * 2 + ["quarantined"]
    assert [row["reason"][:6] for row in rows] == ["Rolled", "Rolled", "poison"]
    assert {row["released"] for row in rows} == {False}
    assert {row["kind"] for row in rows} == {"correction"}
    assert all(row["decided_at"] and row["at"] for row in rows)
    await let_go(web, early[0])
    assert [row["released"] for row in await everything(registry, count)] == [True, False, False]
    await run(trainer)
    assert [row["feedback_id"] for row in await everything(registry, count)] == [early[1], poison]
    assert await statuses(web, later) == ["learned"]


async def test_what_was_said_is_listed_with_its_fate(web: Loop) -> None:
    """By kind and by status, by pages; control entries are none of it."""
    trainer, registry = web.stages("web").trainer, web.stages("web").registry
    said = [*await say(web, 2), await rate(web, 5, "ada", 1.0)]
    await run(trainer)
    await go_back(web)
    await run(trainer)
    said += await say(web, 1)
    await run(trainer)
    said += await say(web, 1)

    async def listed(**options: Any) -> list[str]:
        return [
            row["feedback_id"] for row in (await explain.feedback(registry, **options))["feedback"]
        ]

    assert await listed() == said
    assert await listed(kind="rating") == said[2:3]
    assert await listed(status="rolled_back") == said[:3]
    assert await listed(status="rolled_back", kind="correction") == said[:2]
    assert await listed(status="learned") == said[3:4]
    assert await listed(status="accepted") == said[4:]
    first = await explain.feedback(registry, count=2)
    assert [row["feedback_id"] for row in first["feedback"]] == said[:2]
    assert await listed(after=first["next"]) == said[2:]
    assert (await explain.feedback(registry, after=first["next"]))["next"] is None


# --- whatever happens -----------------------------------------------------------------------------


async def happen(loop: Loop, rng: random.Random, trainer: Trainer, n: int) -> Trainer:
    """Let one thing happen; returns the learner that is alive after it."""
    registry = loop.stages("web").registry
    match rng.choice(["say"] * 5 + ["rate", "poison", "turn", "turn", "kill", "die", "back", "go"]):
        case "say":
            await say(loop, rng.randrange(1, 4), seed=n)
        case "rate":
            await rate(loop, rng.choice([1, 2, 4, 5]), f"r{rng.randrange(3)}", rng.gauss(0, 1))
        case "poison":
            await say(loop, 1, seed=n, word="w")
        case "turn":
            await trainer.turn()
        case "kill":
            return heir(loop)
        case "die":
            await die(loop, rng)
            return heir(loop)
        case "back":
            known = await registry.versions()
            await go_back(loop, rng.choice(known).version)
        case "go":
            await let_some_go(loop, rng)
    return trainer


async def die(loop: Loop, rng: random.Random) -> None:
    """Let a learner die at some command, before the store has seen it or after."""
    done, at = rng.random() < 0.5, rng.randrange(12)
    store = Faulty(loop.store.url, at, done=done, error=Killed())
    with contextlib.suppress(Killed):
        await run(heir(loop, store=store))
    await store.close()


async def let_some_go(loop: Loop, rng: random.Random) -> None:
    """Release some of what can be, and try what cannot."""
    registry = loop.stages("web").registry
    rows = await everything(registry, 7)
    free = [row["feedback_id"] for row in rows if not row["released"]]
    if rng.random() < 0.3:
        with contextlib.suppress(Conflict):
            await release_rolled_back(registry, by="ops")
    elif free:
        await let_go(loop, *rng.sample(free, rng.randrange(1, len(free) + 1)))
    for row in (await explain.feedback(registry))["feedback"]:
        if row["status"] in {"learned", "kept", "accepted"} and rng.random() < 0.2:
            with pytest.raises(Invalid):
                await let_go(loop, row["feedback_id"])


async def lessons_by_steps(registry: Registry) -> list[str]:
    """Return what the weights of now have learned, in order, by walking the steps alone."""
    way: dict[str, list[str]] = {"0-0": []}  # offset -> what had been learned by then
    learned: list[str] = []
    for entry, step in await steps_of(registry):
        if step.reset_to is not None:
            learned = way[(await registry.version(step.reset_to)).offset]
        else:
            inside = await registry.store.range(registry.keys.feedback, f"({step.after}", entry)
            covered = step.released or [found for found, _ in inside]
            learned = learned + [found for found in covered if found not in step.set_aside]
        way[entry] = learned
    return learned


async def learned_alone(registry: Registry, known: dict[str, Fate]) -> Wary:
    """Return a fresh learner after the signals whose fate it is to be learned, and none else.

    Ratings that were kept are read in their place: they tell of their rater.
    """
    course = await course_of(registry)
    order: list[tuple[tuple[int, int], int, str]] = []
    for n, (entry, fate) in enumerate(known.items()):
        assert fate.step is not None
        on_course = course.undone_by(fate.place, fate.step.lineage) is None
        if fate.status == "learned" or (fate.status == "kept" and on_course):
            ms, seq = map(int, fate.place.split("-"))
            order.append(((ms, seq), n, entry))
    places = [(registry.keys.feedback, entry) for _, _, entry in sorted(order)]
    fields = await registry.store.entries(places)
    fresh = Wary()
    reader = Replay(registry, Signals("classification", [False, True]), fresh)
    for (_, entry), said in zip(places, fields, strict=True):
        fresh.learn(reader.interpret([(entry, said or {})]).keep())
    return fresh


@pytest.mark.parametrize("seed", range(10))
async def test_each_signal_has_one_fate_whatever_happens(web: Loop, seed: int) -> None:
    """Signals, poison, pulls to and fro, releases, deaths: the books balance, bit by bit."""
    rng, registry = random.Random(seed), web.stages("web").registry
    trainer = web.stages("web").trainer
    for n in range(60):
        trainer = await happen(web, rng, trainer, 1000 * seed + n)
    await run(trainer)
    stream = await web.store.range(registry.keys.feedback)
    signals = [entry for entry, fields in stream if b"f" in fields]
    known = await fates(registry, signals)
    assert list(known) == signals
    assert {fate.status for fate in known.values()} <= {
        "learned", "kept", "quarantined", "rolled_back",
    }  # fmt: skip
    assert not any(fate.waiting for fate in known.values())
    learned = await lessons_by_steps(registry)
    assert len(set(learned)) == len(learned), "learned twice"
    assert set(learned) == {entry for entry, fate in known.items() if fate.status == "learned"}
    assert trainer.at.learned == len(learned)
    assert (await learned_alone(registry, known)).digest() == trainer.learner.digest()
    listed = {entry_of(web, row["feedback_id"]) for row in await everything(registry, 5)}
    assert listed == {
        entry for entry, fate in known.items() if fate.status in {"quarantined", "rolled_back"}
    }
    replay = Replay(registry, Signals("classification", [False, True]), Wary())
    await replay.rewind()
    while await replay.replay_step():
        pass
    assert replay.learner.digest() == trainer.learner.digest()
    assert replace(replay.at, since_cut=0) == replace(trainer.at, since_cut=0)


# --- an old lineage publishes nothing -------------------------------------------------------------


async def test_a_rollback_between_read_and_commit_keeps_a_version_back(web: Loop) -> None:
    """A learner that is overtaken commits its step; it cuts no version, and tells nobody."""
    trainer, registry = web.stages("web").trainer, web.stages("web").registry
    async with contextlib.AsyncExitStack() as opened:
        pubsub = await opened.enter_async_context(web.store.redis.pubsub())
        await pubsub.subscribe(registry.keys.swap)
        said = await say(web, 3)
        meanwhile(web, "commit_step", lambda: go_back(web))
        await trainer.turn()
        heard = []
        while (message := await pubsub.get_message(timeout=0.05)) is not None:
            heard.append(message["data"])
    assert heard == [1, b"aliases"]
    assert await registry.last_version() == 0, "the policy had asked for one"
    assert [step.step for _, step in await steps_of(registry)] == [1]
    assert await statuses(web, said) == ["rolled_back"] * 3
    await run(trainer)
    assert (trainer.at.lineage, trainer.at.learned) == (2, 0)
    await say(web, 3)
    await run(trainer)
    assert (await registry.version(1)).lineage == 2
    await web.stages("web").follower.refresh()
    bundle = web.stages("web").predictor.bundle
    assert bundle is not None
    assert {weights.lineage for _, weights in bundle.shadows} <= {2}
