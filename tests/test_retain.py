"""Trimming: what nobody needs goes, what somebody reads stays, and what is told stays true."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import the_learner
from redis.exceptions import ResponseError
from the_learner import Every, Wary, entry_of, heir, run

from online_learner import explain, learn, retain
from online_learner.archive.archiver import Archiver
from online_learner.archive.place import Place
from online_learner.errors import NotFound, StateError
from online_learner.explain.fates import fates
from online_learner.explain.signals import find
from online_learner.ids import entry_order
from online_learner.learn import Trainer
from online_learner.loop import Loop
from online_learner.operate import operate
from online_learner.recheck import Recheck
from online_learner.release import release
from online_learner.replay import Replay
from online_learner.retain import MARGIN_S, Retention, trimmed_to
from online_learner.schema import Settled, Verdict
from online_learner.settings import Settings
from online_learner.store import Store
from policies.signals import Signals
from serve_app import writer as writer_module
from serve_app.writer import Writer

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]
WEB = {
    "learner": "the_learner:Wary",
    "batch_max": 4,
    "publish_s": 0.0,
    "audit": 0.0,
    "promotion": {"policy": "policies.promotion:Always"},
}
GATED = WEB | {"audit": 1.0, "promotion": {"policy": "policies.promotion:Leash"}}
WINDOW_S = 86_400.0


@pytest.fixture(autouse=True)
async def _exact(store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Let the server keep one entry a node, and the learner no older state: trimming is exact."""
    monkeypatch.setattr(learn, "KEPT_MS", 0)
    await store.call("CONFIG", "SET", "stream-node-max-entries", "1")
    yield
    await store.call("CONFIG", "SET", "stream-node-max-entries", "100")


@pytest.fixture
async def web(open_loop: OpenLoop, make_settings: MakeSettings) -> Loop:
    """Return a loop with a learner that chokes on words."""
    loop = await open_loop(make_settings(web=WEB))
    loop.stages("web").trainer._snapshots = Every(3)
    return loop


async def say(loop: Loop, count: int = 1, **options: Any) -> list[str]:
    """Have answers corrected; returns where the corrections are in the stream."""
    return [entry_of(loop, said) for said in await the_learner.say(loop, count, **options)]


async def trim(loop: Loop, before: str = "", *, windows: float = 1.0) -> int:
    """Trim as if an entry had just reached the end of the window; else as if all had."""
    ms = entry_order(before)[0] if before else loop.ingest.clock() * 1000 + 60_000
    age_s = windows * WINDOW_S + MARGIN_S
    clock = lambda: (ms + 0.5) / 1000 + age_s  # noqa: E731
    return await Retention(loop.store, "web", window_s=WINDOW_S, clock=clock).trim()


async def left(loop: Loop, stream: str) -> list[str]:
    """Return the entries of one of the model's streams."""
    keys = loop.stages("web").registry.keys
    return [entry for entry, _ in await loop.store.range(getattr(keys, stream))]


async def let_go(loop: Loop, *entries: str) -> None:
    """Release signals."""
    registry = loop.stages("web").registry
    found = [(await loop.store.range(registry.keys.feedback, e, e))[0] for e in entries]
    await release(registry, found, by="key:ops")


# --- what stays -----------------------------------------------------------------------------------


async def test_what_is_past_the_window_goes(web: Loop) -> None:
    """Of what was learned, answers and signals, steps and all, nothing is left that is older."""
    first, second = await say(web, 2, seed=1), await say(web, 2, seed=2)
    await web.turn("web")
    assert await trim(web, second[0]) > 0
    assert await left(web, "feedback") == second
    least = entry_order(second[0])[0]
    for stream in ("predictions", "steps", "served"):
        assert all(entry_order(entry)[0] >= least for entry in await left(web, stream)), stream
    assert first[0] not in await left(web, "feedback")
    assert await trim(web, second[0]) == 0


async def test_within_the_window_nothing_goes(web: Loop) -> None:
    """The clocks of who serves and of the store may differ by a minute, besides."""
    await say(web, 3)
    await web.turn("web")
    now = web.ingest.clock()
    for age_s in (0.0, WINDOW_S, WINDOW_S + MARGIN_S - 5.0):
        clock = lambda age_s=age_s: now + age_s  # noqa: E731
        retention = Retention(web.store, "web", window_s=WINDOW_S, clock=clock)
        assert await retention.trim() == 0
    assert len(await left(web, "predictions")) == len(await left(web, "feedback")) == 3


async def test_what_was_not_learned_stays_however_old_it_is(web: Loop) -> None:
    """A learner that was away for longer than the window finds all that was accepted."""
    said = await say(web, 5)
    await trim(web)
    assert await left(web, "predictions") == []
    assert await left(web, "feedback") == said
    await run(web.stages("web").trainer)
    assert web.stages("web").trainer.at.learned == 5


async def test_what_is_not_in_the_published_state_stays(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Steps since then are replayed after a crash, right after a trim: the same bits."""
    web = await open_loop(make_settings(web=WEB | {"publish_s": 3600.0}))
    trainer = web.stages("web").trainer
    await say(web, 6, seed=1)
    await run(trainer)
    later = await say(web, 6, seed=2)
    while await trainer.turn():
        pass
    await trim(web)
    assert set(later) <= set(await left(web, "feedback"))
    successor = heir(web)
    await successor.restore()
    assert successor.learner.digest() == trainer.learner.digest()
    assert successor.at.digest == trainer.at.digest
    assert successor.at.learned == 12


async def test_an_open_audit_keeps_what_was_said_since(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """The gatekeeper reads it again after a crash; once the audit has settled, it goes."""
    loop = await open_loop(make_settings(web=GATED))
    await say(loop, 3)
    await loop.turn("web")
    await loop.predict("web", {"a": 1.0})  # audited, and nobody answers
    said = await say(loop, 3)
    await loop.turn("web")
    await trim(loop)
    assert len(await left(loop, "audits")) == 4
    assert await left(loop, "feedback") == said
    spec = loop.settings.models["web"]
    loop.ingest.clock.advance(spec.audit_deadline_s + 1)  # type: ignore[attr-defined]
    await loop.turn("web")
    await trim(loop)
    assert len(await left(loop, "feedback")) == 1, "the published state is as of the last one"
    assert len(await left(loop, "audits")) <= 1, "of that same moment"


async def test_without_audits_nothing_waits_for_the_gatekeeper(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A model that audits nothing is trimmed all the same."""
    loop = await open_loop(make_settings(web=WEB))
    await say(loop, 4)
    await loop.turn("web")
    assert await left(loop, "audits") == []
    await trim(loop)
    assert len(await left(loop, "feedback")) == 1


async def test_a_release_that_is_not_published_keeps_its_signals(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """The learner reads them when it obeys, and again when it replays the step."""
    web = await open_loop(make_settings(web=WEB | {"publish_s": 3600.0}))
    trainer = web.stages("web").trainer
    [poison] = await say(web, word="x")
    await say(web, 8)
    await run(trainer)
    await let_go(web, poison)
    await trim(web)
    assert (await left(web, "feedback"))[0] == poison
    while await trainer.turn():
        pass
    await trim(web)
    assert (await left(web, "feedback"))[0] == poison
    successor = heir(web)
    await successor.restore()
    assert successor.learner.digest() == trainer.learner.digest()
    assert successor.at.learned == 9
    await trim(web)
    assert await left(web, "feedback") == [successor.at.offset]
    assert await web.store.hash(web.stages("web").registry.keys.released) == {}


async def test_verdicts_and_resets_stay(web: Loop) -> None:
    """Why a version is live, and what a reset undid, can be asked after any trim."""
    registry = web.stages("web").registry
    await say(web, 3)
    await web.turn("web")
    await operate(registry, "rollback", by="ops", now=1.0, version=0)
    await web.turn("web")
    await trim(web, windows=100.0)
    assert len(await left(web, "resets")) == 1
    assert len(await left(web, "verdicts")) >= 1


# --- on file first --------------------------------------------------------------------------------


async def filed(loop: Loop, *, horizon_s: float = 0.0, archived: bool = True) -> int:
    """Trim as if all entries had reached the end of the window, in a model with an archive."""
    at = loop.ingest.clock() + WINDOW_S + MARGIN_S + 60.0
    retention = Retention(
        loop.store,
        "web",
        window_s=WINDOW_S,
        archived=archived,
        horizon_s=horizon_s,
        clock=lambda: at,
    )
    return await retention.trim()


async def test_only_what_is_on_file_goes(web: Loop, tmp_path: Path) -> None:
    """Before anything is archived nothing goes; then what is, and what came since stays."""
    streams = ("predictions", "feedback", "steps")
    await say(web, 6, seed=1)
    await web.turn("web")
    registry = web.stages("web").registry
    await web.store.call("XADD", registry.keys.late, "5-0", "n", "00")
    before = {stream: await left(web, stream) for stream in streams}
    await filed(web)
    assert before == {stream: await left(web, stream) for stream in streams}
    assert await left(web, "late") == ["5-0"]
    archiver = Archiver(registry, Place.open(tmp_path), window_s=WINDOW_S, clock=web.ingest.clock)
    await archiver.flush()
    later = await say(web, 3, seed=2)
    await web.turn("web")
    before = {stream: await left(web, stream) for stream in streams}
    assert await filed(web) > 0
    assert await left(web, "late") == []
    assert await left(web, "feedback") == later
    for stream in streams:
        mark = (await web.store.call("HGET", registry.keys.archive, stream)).decode()
        waiting = [e for e in before[stream] if entry_order(e) > entry_order(mark)]
        assert len(waiting) > 0
        assert await left(web, stream) == waiting


@pytest.mark.parametrize("behind", ["feedback", "steps", "quarantine"])
async def test_signals_wait_for_all_that_is_told_of_them(
    web: Loop, behind: str, tmp_path: Path
) -> None:
    """A stream that is behind in the archive keeps the others from being trimmed past it."""
    await say(web, 4, seed=1)
    await say(web, 1, word="x")
    await say(web, 4, seed=3)
    await run(web.stages("web").trainer)
    registry = web.stages("web").registry
    archiver = Archiver(registry, Place.open(tmp_path), window_s=WINDOW_S, clock=web.ingest.clock)
    await archiver.flush()
    kept = {stream: await left(web, stream) for stream in ("feedback", "steps", "quarantine")}
    await web.store.call("HSET", registry.keys.archive, behind, "0-0")
    await filed(web)
    first = entry_order(kept[behind][0])
    assert await left(web, behind) == kept[behind]
    assert await left(web, "feedback") == [e for e in kept["feedback"] if entry_order(e) >= first]


async def test_signals_stay_until_the_horizon(web: Loop) -> None:
    """Answers go with the window; what they taught stays, so that it can be unlearned."""
    said = await say(web, 6)
    await web.turn("web")
    steps = await left(web, "steps")
    await filed(web, horizon_s=3 * WINDOW_S, archived=False)
    assert await left(web, "predictions") == []
    assert await left(web, "feedback") == said
    assert await left(web, "steps") == steps
    await filed(web, horizon_s=WINDOW_S / 2, archived=False)
    assert await left(web, "feedback") == said[-1:]


# --- what is told then ----------------------------------------------------------------------------


async def test_what_was_trimmed_is_told_from_what_was_lost(web: Loop) -> None:
    """By its age, an answer or a signal is gone; within the window that is an alarm."""
    answers = [await web.predict("web", {"a": 1.0}) for _ in range(2)]
    said = await say(web, 2)
    await web.turn("web")
    registry, journal = web.stages("web").registry, web.stages("web").journal
    places = [web.keyring.open("prediction", a["prediction_id"])[1] for a in answers]
    with_nonce = [await web.store.range(registry.keys.feedback, e, e) for e in said]
    signals = [explain.signals.feedback_id(registry, *found[0]) for found in with_nonce]
    addresses = [web.keyring.open("feedback", signal)[1] for signal in signals]
    await trim(web, said[1])
    with pytest.raises(NotFound, match="older than `window_s`, and was trimmed"):
        await journal.read(places[0])
    with pytest.raises(NotFound, match="older than `window_s`, and was trimmed"):
        await find(registry, addresses[0])
    assert (await explain.receipt(registry, addresses[1]))["status"] == "learned"
    await web.store.call("DEL", registry.keys.predictions, registry.keys.feedback)
    newer = await say(web, 1)
    assert newer
    with pytest.raises(NotFound, match="the store has lost data"):
        await find(registry, addresses[1])


async def test_the_status_tells_how_far_the_log_goes_back(web: Loop) -> None:
    """Before any trim the status names no beginning; then it says where each kind begins."""
    registry = web.stages("web").registry
    policy = web.stages("web").policy
    said = await say(web, 4)
    await web.turn("web")
    assert (await explain.status(registry, policy, now=0.0))["trimmed"] == {}
    await trim(web, said[2])
    found = (await explain.status(registry, policy, now=0.0))["trimmed"]
    assert found.keys() == {"predictions", "feedback"}
    assert entry_order(said[1]) < entry_order(found["feedback"]) <= entry_order(said[2])
    await trim(web, said[1])
    assert await trimmed_to(web.store, registry.keys, "feedback") == found["feedback"]


@pytest.mark.parametrize("a_node", ["1", "3"])
@pytest.mark.parametrize("seed", range(5))
async def test_every_fate_and_every_weight_is_the_same_after_a_trim(
    web: Loop, seed: int, a_node: str
) -> None:
    """Poison, pulls, releases, deaths and trims at any place change no fate and no weight."""
    await web.store.call("CONFIG", "SET", "stream-node-max-entries", a_node)
    rng, trainer, gone = random.Random(seed), web.stages("web").trainer, 0
    trainer._spec = trainer._spec.model_copy(update={"publish_s": 3600.0})
    for n in range(80):
        trainer = await happen(web, rng, trainer, 1000 * seed + n)
        stream = await left(web, "feedback")
        if stream and rng.random() < 0.3:
            before = await told(web)
            gone += await trim(web, rng.choice(stream))
            after = await told(web)
            assert after == {entry: before[entry] for entry in after}
            successor = heir(web)
            await successor.restore()
            assert successor.learner.digest() == trainer.learner.digest()
            assert (successor.at.digest, successor.at.step) == (trainer.at.digest, trainer.at.step)
            trainer = successor
    assert gone > 50
    await run(trainer)
    await check_rewound(web, trainer)


async def happen(web: Loop, rng: random.Random, trainer: Trainer, seed: int) -> Trainer:
    """Let one thing happen; returns the learner of then."""
    registry = web.stages("web").registry
    what = rng.choices(["say", "poison", "learn", "publish", "pull", "release", "die"], _ODDS)[0]
    if what == "say":
        await say(web, rng.randint(1, 4), seed=seed)
    elif what == "poison":
        await say(web, seed=seed, word="x")
    elif what == "learn":
        await trainer.turn()
    elif what == "publish":
        await run(trainer)
    elif what == "pull":
        versions = [v.version for v in await registry.versions() if v.status != "rejected"]
        version = rng.choice(versions)
        await operate(registry, "rollback", by="ops", now=1.0, version=version)
    elif what == "release":
        known = await told(web)
        aside = [e for e, (status, *_) in known.items() if status in {"quarantined", "rolled_back"}]
        free = [entry for entry in aside if not known[entry][-1]]
        if free:
            await let_go(web, *rng.sample(free, min(3, len(free))))
    else:
        trainer = heir(web)
        await trainer.restore()
    return trainer


_ODDS = [6, 1, 6, 2, 0.4, 1, 1]


async def told(web: Loop) -> dict[str, tuple[Any, ...]]:
    """Return the fate of every signal in the log."""
    registry = web.stages("web").registry
    stream = await web.store.range(registry.keys.feedback)
    known = await fates(registry, [entry for entry, fields in stream if b"f" in fields])
    return {
        entry: (fate.status, fate.place, fate.reason, fate.releases, fate.undone, fate.waiting)
        for entry, fate in known.items()
    }


async def check_rewound(web: Loop, trainer: Trainer) -> None:
    """Check that a replay from as far back as the record goes comes to the same weights."""
    replay = Replay(trainer.registry, Signals("classification", [False, True]), Wary())
    try:
        await replay.rewind()
    except StateError as error:
        assert "no version that is kept is as young" in str(error)  # noqa: PT017
        return
    while await replay.replay_step():
        pass
    assert replay.learner.digest() == trainer.learner.digest()
    assert (replay.at.digest, replay.at.learned) == (trainer.at.digest, trainer.at.learned)


async def test_a_rewind_begins_where_the_record_does(web: Loop) -> None:
    """A rewind begins at the oldest version after which nothing is missing; untrimmed, at 0."""
    trainer, registry = web.stages("web").trainer, web.stages("web").registry
    for n in range(5):
        await say(web, 2, seed=n)
        answer = await web.predict("web", {"a": 0.5})
        await web.feedback(answer["prediction_id"], "rating", 1 + n % 3, user_id="strict")
        await run(trainer)
    versions = await registry.versions()
    assert [v.version for v in versions] == [0, 1, 2, 3, 4, 5]
    replay = Replay(registry, Signals("classification", [False, True]), Wary())
    await replay.rewind()
    assert replay.at.offset == "0-0"
    await trim(web, versions[3].offset)
    await replay.rewind()
    assert replay.at.offset == versions[3].offset
    assert (replay.at.learned, replay.at.step) == (versions[3].learned, versions[3].step)
    await check_rewound(web, trainer)
    await trim(web)
    await replay.rewind()
    assert replay.at.offset == versions[5].offset


async def test_a_record_without_a_version_says_so(web: Loop) -> None:
    """Where none is young enough, there is nothing to rewind to, and the learner goes on."""
    trainer = web.stages("web").trainer
    trainer._snapshots = Every(10**6)
    await say(web, 6)
    await run(trainer)
    await trim(web)
    replay = Replay(trainer.registry, Signals("classification", [False, True]), Wary())
    with pytest.raises(StateError, match="no version that is kept is as young as that"):
        await replay.rewind()
    await replay.load_newest()
    assert replay.learner.digest() == trainer.learner.digest()


async def test_a_release_reaches_further_back_than_its_place(web: Loop) -> None:
    """A version from before a release of trimmed signals is no place to begin."""
    trainer = web.stages("web").trainer
    [poison] = await say(web, word="x")
    for n in range(4):
        await say(web, 3, seed=n)
        await run(trainer)
    versions = await trainer.registry.versions()
    await let_go(web, poison)
    await say(web, 3, seed=9)
    await run(trainer)
    await trim(web, versions[2].offset)
    replay = Replay(trainer.registry, Signals("classification", [False, True]), Wary())
    await replay.rewind()
    assert entry_order(replay.at.offset) > entry_order(versions[4].offset)
    await check_rewound(web, trainer)


# --- the gate -------------------------------------------------------------------------------------

MAJORITY = {"learner": "river.dummy:PriorClassifier", "publish_s": 0.0, "audit": 1.0}


def _late() -> float:
    return 2e9 + 1e6


class Sparing(Retention):
    """Takes all that no writer needs, but for the answers, which are yet to be spoken of."""

    def _script_keys(self) -> list[str]:
        kept = (self._keys.predictions, self._keys.evidence)
        return ["ol:{web}:nothing" if key in kept else key for key in super()._script_keys()]


async def lived(loop: Loop, *, trimming: bool) -> list[tuple[str, Any]]:
    """Go around the loop, answers being five predictions late and some lost; returns evidence."""
    stages, waiting = loop.stages("web"), []
    clock: Any = loop.ingest.clock
    clock.now = time.time()
    for n in range(90):
        answer = await loop.predict("web", {"a": 1.0})
        if n % 9:
            waiting.append((answer["prediction_id"], n))
        if len(waiting) > 5:
            prediction_id, m = waiting.pop(0)
            said = {"user_id": f"rater-{m % 30}"}
            await loop.feedback(prediction_id, "correction", m < 30 or m > 60, **said)
        await loop.turn("web")
        if n % 30 == 29:  # a moment so late that all that is open settles
            clock.advance(stages.spec.audit_deadline_s + 60)
            await loop.turn("web")
            clock.advance(-stages.spec.audit_deadline_s - 60)
        if trimming:
            await Sparing(loop.store, "web", window_s=1.0, clock=_late).trim()
            stages.gatekeeper._fence = stages.trainer._fence = None  # both are killed
            stages.journal._marked.clear()
    found = await loop.store.range(stages.registry.keys.evidence)
    verdicts = await loop.store.range(stages.registry.keys.verdicts)
    return [
        *(("evidence", Settled.model_validate_json(fields[b"e"])) for _, fields in found),
        *(("verdict", _bare(Verdict.model_validate_json(f[b"v"]))) for _, f in verdicts),
    ]


def _bare(verdict: Verdict) -> Verdict:
    """Return a verdict without its places, which differ between runs."""
    return verdict.model_copy(update={"settled": "", "offset": "", "at": 0.0})


async def test_the_gate_decides_the_same_whatever_was_trimmed(
    open_loop: OpenLoop, make_settings: MakeSettings, store: Store
) -> None:
    """A gatekeeper that is killed after each trim finds the same evidence, and decides the same."""
    found = {}
    for trimming in (False, True):
        await store.call("FLUSHALL")
        settings = make_settings(web=MAJORITY, window_s=1e6)
        found[trimming] = await lived(await open_loop(settings), trimming=trimming)
    assert len(found[True]) > 60
    assert found[True] == found[False]


async def test_a_verdict_whose_evidence_is_gone_is_not_called_wrong(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """It is counted apart; one whose test began later is checked as ever."""
    loop = await open_loop(make_settings(web=MAJORITY))
    registry = loop.stages("web").registry
    for n in range(150):
        answer = await loop.predict("web", {"a": 1.0})
        said = {"user_id": f"rater-{n % 30}"}
        truth = n < 40 or n >= 110
        await loop.feedback(answer["prediction_id"], "correction", truth, **said)
        await loop.turn("web")
    whole = await rechecked(loop)
    assert (whole.too_old, whole.wrong) == (0, [])
    assert whole.checked > 1
    evidence = await left(loop, "evidence")
    await trim(loop, evidence[5], windows=retain.EVIDENCE_WINDOWS)
    assert (await left(loop, "evidence"))[0] in evidence[4:7]
    part = await rechecked(loop)
    assert part.wrong == []
    assert part.too_old >= 1
    assert part.checked + part.too_old == whole.checked
    unmarked = await rechecked(loop, begins="0-0")
    assert unmarked.wrong
    assert (await explain.status(registry, loop.stages("web").policy, now=0.0))["trimmed"]


async def rechecked(loop: Loop, begins: str | None = None) -> Recheck:
    """Compute all verdicts again."""
    registry = loop.stages("web").registry
    if begins is None:
        begins = await trimmed_to(loop.store, registry.keys, "evidence")
    verdicts = await loop.store.range(registry.keys.verdicts)
    report = Recheck([Verdict.model_validate_json(f[b"v"]) for _, f in verdicts], begins=begins)
    for entry, fields in await loop.store.range(registry.keys.evidence):
        report.hear(entry, Settled.model_validate_json(fields[b"e"]))
    report.end()
    return report


# --- how it goes ----------------------------------------------------------------------------------


async def test_it_goes_in_portions(web: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call takes few; what is left after enough of them goes the next time."""
    await say(web, 30)
    await web.turn("web")
    monkeypatch.setattr(retain, "PORTION", 4)
    monkeypatch.setattr(retain, "PORTIONS", 3)
    await trim(web)
    assert len(await left(web, "predictions")) == 30 - 12
    for _ in range(5):
        await trim(web)
    assert await left(web, "predictions") == []
    assert len(await left(web, "feedback")) == 1


async def test_whole_nodes_go_and_what_shares_one_stays(web: Loop) -> None:
    """Trimming is by nodes: cheap, and what is told of a signal that stays, stays with it."""
    await web.store.call("CONFIG", "SET", "stream-node-max-entries", "5")
    said = await say(web, 25)
    await web.turn("web")
    await trim(web, said[17])
    signals = await left(web, "feedback")
    assert signals == said[15:]
    registry = web.stages("web").registry
    known = await fates(registry, signals)
    assert {fate.status for fate in known.values()} == {"learned"}
    assert await trimmed_to(web.store, registry.keys, "feedback") == said[15]


async def test_a_key_of_another_type_stops_it_before_it_trims(web: Loop) -> None:
    """Lua does not roll back."""
    await say(web, 4)
    await web.turn("web")
    await web.store.call("DEL", web.stages("web").registry.keys.evidence)
    await web.store.call("SET", web.stages("web").registry.keys.evidence, "mine")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await trim(web)
    assert len(await left(web, "predictions")) == 4


@pytest.mark.parametrize("role", ["learner", "gatekeeper"])
@pytest.mark.parametrize(
    "meta",
    [
        "garbage",
        "",
        "7",
        "[" * 2000,
        '{"offset":7,"settled":7}',
        '{"offset":null,"settled":null}',
        '{"offset":"x","settled":"x"}',
        '{"offset":"9-9-9","settled":"9-9-9"}',
        f'{{"offset":"{"9" * 30}-0","settled":"{"9" * 30}-0"}}',
    ],
    ids=lambda meta: meta[:20],
)
async def test_a_state_that_cannot_be_read_keeps_all_that_depends_on_it(
    open_loop: OpenLoop, make_settings: MakeSettings, role: str, meta: str
) -> None:
    """Nobody knows then what will be read again; answers and evidence go as ever."""
    loop = await open_loop(make_settings(web=GATED))
    said = await say(loop, 3)
    await loop.turn("web")
    await loop.store.call("HSET", loop.stages("web").registry.keys.checkpoint(role), "meta", meta)
    await trim(loop, windows=retain.EVIDENCE_WINDOWS)
    assert await left(loop, "feedback") == said
    assert len(await left(loop, "audits")) == 3
    assert len(await left(loop, "steps")) == len(await left(loop, "served")) == 1
    assert await left(loop, "predictions") == await left(loop, "evidence") == []


async def test_a_release_that_cannot_be_read_keeps_its_signals(web: Loop) -> None:
    """What nobody can read stands in nobody's way but its own."""
    said = await say(web, 3)
    await web.turn("web")
    keys = web.stages("web").registry.keys
    await web.store.call("HSET", keys.released, said[1], "", "x", "5-0")
    await web.store.call("HSET", keys.trimmed, "predictions", "x")
    await trim(web)
    assert await left(web, "feedback") == said[1:]
    assert await web.store.call("HKEYS", keys.released) == [said[1].encode()]
    assert entry_order(await trimmed_to(web.store, keys, "predictions")) > (0, 0)


async def test_it_is_due_now_and_then(web: Loop) -> None:
    """A turn of the loop trims, and not every one does."""
    await say(web, 3)
    await web.turn("web")
    clock: Any = web.ingest.clock
    clock.advance(WINDOW_S + 2 * MARGIN_S)
    assert await web.stages("web").retention.trim_when_due() > 0
    await web.predict("web", {"a": 1.0})
    assert await web.stages("web").retention.trim_when_due() == 0
    clock.advance(retain.EVERY_S)
    assert await web.stages("web").retention.trim_when_due() == 1


async def test_the_gatekeepers_process_trims(
    store: Store,
    make_settings: MakeSettings,
    open_loop: OpenLoop,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[..., Awaitable[None]],
) -> None:
    """The gatekeeper trims by itself, to the window of the configuration in the store."""
    from online_learner import config

    settings = make_settings(web=WEB, window_s=0.2)
    loop = await open_loop(settings)
    await config.publish(store, loop.keyring, settings)
    await loop.predict("web", {"a": 1.0})
    monkeypatch.setattr(retain, "MARGIN_S", 0.0)
    monkeypatch.setattr(retain, "EVERY_S", 0.1)
    assert len(await left(loop, "predictions")) == 1
    place = (store.url, str(settings.data_dir))
    writer = Writer("gatekeeper", "web", *place, lambda stages: stages.gatekeeper)
    try:
        await eventually(lambda: _empty(loop), within_s=10)
        writer.check()
    finally:
        await writer.stop()


@pytest.mark.parametrize("trouble", ["of the stage", "of the trimming"])
async def test_trouble_of_one_is_none_of_the_other(
    make_settings: MakeSettings,
    open_loop: OpenLoop,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[..., Awaitable[None]],
    *,
    caplog: pytest.LogCaptureFixture,
    trouble: str,
) -> None:
    """A gatekeeper that cannot judge trims, and one that cannot trim judges; neither dies."""
    from online_learner import config

    settings = make_settings(web=GATED, window_s=0.2)
    loop = await open_loop(settings)
    await config.publish(loop.store, loop.keyring, settings)
    keys = loop.stages("web").registry.keys
    await say(loop, 1)
    monkeypatch.setattr(retain, "MARGIN_S", 0.0)
    monkeypatch.setattr(retain, "EVERY_S", 0.01)
    monkeypatch.setattr(writer_module, "LEAST_WAIT_S", 0.05)
    if trouble == "of the stage":
        await loop.store.call("HSET", keys.aliases, "mac", "00")
    else:
        await loop.store.call("SET", keys.quarantine, "mine")
    place = (settings.store, str(settings.data_dir))
    writer = Writer("gatekeeper", "web", *place, lambda stages: stages.gatekeeper)
    try:
        if trouble == "of the stage":
            await eventually(lambda: _empty(loop), within_s=10)
            assert "no valid seal" in writer._trouble
        else:
            for count in (1, 2, 3):  # an attempt to trim after each

                async def settled(count: int = count) -> bool:
                    return len(await left(loop, "evidence")) == count

                await eventually(settled, within_s=10)
                await say(loop, 1)
            assert caplog.text.count("nothing of 'web' is trimmed") == 1
            assert writer._trouble == ""
        writer.check()
    finally:
        await writer.stop()


async def _empty(loop: Loop) -> bool:
    return await left(loop, "predictions") == []
