"""Decisions through the real store: all of one takes place or nothing, and by one hand only."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from the_learner import Faulty, Killed

from online_learner import promote
from online_learner.errors import Conflict, Fenced, Invalid, NotFound, StateError, Unavailable
from online_learner.loop import Loop
from online_learner.operate import operate
from online_learner.promote import Gatekeeper, commit_move
from online_learner.registry import Registry
from online_learner.schema import (
    Aliases,
    Ask,
    Audit,
    Control,
    Feedback,
    GateState,
    Move,
    Prediction,
    Settled,
    Shadow,
    Verdict,
)
from online_learner.settings import PromotionSpec, Settings
from online_learner.stages import Stages
from online_learner.store import Store

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

MAJORITY = {"learner": "river.dummy:PriorClassifier", "publish_s": 0.0}
SEQUENTIAL = {"policy": "policies.promotion:Sequential", "snapshot_every": 10}


async def said(loop: Loop, value: bool) -> dict[str, Any]:
    """Predict, and have somebody new correct it; returns the answer."""
    answer = await loop.predict("web", {"a": 1.0})
    rater = answer["prediction_id"]
    await loop.feedback(answer["prediction_id"], "correction", value, user_id=rater[:24])
    return answer


async def answered(loop: Loop, value: bool) -> dict[str, Any]:
    """Predict, correct, learn and swap, without deciding; returns the answer."""
    stages = loop.models["web"]
    answer = await said(loop, value=value)
    while await stages.trainer.turn():
        pass
    await stages.trainer.publish()
    await stages.follower.refresh()
    return answer


async def rounds(loop: Loop, value: bool, count: int) -> list[dict[str, Any]]:
    """Go around the whole loop `count` times with one truth; returns the answers."""
    found = []
    for _ in range(count):
        found.append(await said(loop, value=value))
        await loop.turn("web")
    return found


async def aliases_of(loop: Loop) -> Aliases:
    """Return the aliases as they are."""
    found = await loop.models["web"].registry.aliases()
    assert found is not None
    return found


async def verdicts_of(registry: Registry) -> list[Verdict]:
    """Return every decision, oldest first."""
    found = await registry.store.range(registry.keys.verdicts)
    return [Verdict.model_validate_json(fields[b"v"]) for _, fields in found]


async def evidence_of(registry: Registry) -> list[tuple[str, Settled]]:
    """Return every settled audit, in order."""
    found = await registry.store.range(registry.keys.evidence)
    return [(entry, Settled.model_validate_json(fields[b"e"])) for entry, fields in found]


async def gate_of(registry: Registry) -> GateState:
    """Return the gatekeeper's committed state."""
    found = await registry.store.hash(registry.keys.checkpoint("gatekeeper"))
    return registry.unseal("gate", found, GateState)[0]


async def image_of(store: Store) -> dict[bytes, bytes]:
    """Return all there is in the store."""
    return {key: await store.call("DUMP", key) for key in await store.call("KEYS", "*")}


async def put_back(store: Store, image: dict[bytes, bytes]) -> None:
    """Make the store what it was."""
    pipe = store.redis.pipeline().flushall()
    for key, value in image.items():
        pipe.restore(key, 0, value)
    await pipe.execute()


def another(loop: Loop, *, store: Store | None = None) -> Stages:
    """Return the stages of another process of the same service."""
    spec, clock = loop.settings.models["web"], loop.ingest.clock
    return Stages(store or loop.store, loop.keyring, "web", spec, clock=clock)


async def do(loop: Loop, action: str, **options: Any) -> tuple[Aliases, Verdict]:
    """Do something by hand."""
    registry = loop.models["web"].registry
    return await operate(registry, action, by="ada", now=loop.ingest.clock(), **options)


# --- a decision is one ----------------------------------------------------------------------------


async def test_leash_follows_and_says_why(open_loop: OpenLoop, make_settings: MakeSettings) -> None:
    """A learner that beats the cold start is followed; verdict, aliases and evidence agree."""
    loop = await open_loop(make_settings(web=MAJORITY | {"audit": 1.0}))
    found = await rounds(loop, value=True, count=40)
    aliases, registry = await aliases_of(loop), loop.models["web"].registry
    assert (aliases.champion, aliases.anchor, aliases.following) == (0, 0, True)
    [verdict] = await verdicts_of(registry)
    assert (verdict.action, verdict.epoch) == ("follow", aliases.epoch)
    evidence, gate = await evidence_of(registry), await gate_of(registry)
    assert len(evidence) == 40 == gate.answered
    assert evidence[-1][0] == gate.settled
    won = [item for _, item in evidence if "latest>champion@1#1" in item.points]
    assert len(won) == verdict.numbers["n"]
    assert sum(item.points["latest>champion@1#1"] > 0 for item in won) == verdict.numbers["wins"]
    assert (found[0]["output"], found[-1]["output"]) == (False, True)
    assert gate.promotions == 1


async def run(gatekeeper: Gatekeeper) -> None:
    """Judge and decide all there is."""
    while await gatekeeper.turn():
        pass


async def facts(registry: Registry) -> dict[str, Any]:
    """Return all that must not depend on who died when."""
    return {
        "aliases": await registry.aliases(),
        "verdicts": await verdicts_of(registry),
        "evidence": await evidence_of(registry),
        "gate": await gate_of(registry),
        "versions": await registry.versions(),
        "control": await controls_of(registry),
    }


async def controls_of(registry: Registry) -> list[Control]:
    """Return the control entries of the feedback stream."""
    found = await registry.store.range(registry.keys.feedback)
    return [Control.model_validate_json(f[b"c"]) for _, f in found if b"c" in f]


@pytest.mark.parametrize("error", [None, Unavailable("a timeout")], ids=["killed", "a timeout"])
@pytest.mark.parametrize("policy", [{}, {"promotion": SEQUENTIAL}], ids=["leash", "sequential"])
async def test_a_gatekeeper_may_fail_at_any_command(
    open_loop: OpenLoop,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
    policy: dict[str, Any],
    error: Exception | None,
) -> None:
    """Failing before or after any command, it ends with the same evidence, verdicts and aliases."""
    monkeypatch.setattr(promote, "READ_MAX", 12)
    loop = await open_loop(make_settings(web=MAJORITY | policy))
    registry = loop.models["web"].registry
    for n in range(45):
        await answered(loop, value=True)
        if n == 11:  # one decision is taken on the way: a challenger is admitted
            await run(loop.models["web"].gatekeeper)
    image = await image_of(loop.store)
    counting = Faulty(loop.store.url, -1, done=False, error=Killed())
    await run(another(loop, store=counting).gatekeeper)
    await counting.close()
    expected = await facts(registry)
    actions = {verdict.action for verdict in expected["verdicts"]}
    assert actions & {"follow", "promote"}
    assert counting.commands > 10
    for at in range(counting.commands):
        for done in (False, True):
            await put_back(loop.store, image)
            faulty = Faulty(loop.store.url, at, done=done, error=error or Killed())
            gatekeeper = another(loop, store=faulty).gatekeeper
            with pytest.raises(Killed if error is None else Unavailable):
                await run(gatekeeper)
            await run(gatekeeper if error else another(loop).gatekeeper)
            await faulty.close()
            assert await facts(registry) == expected, (at, done)


async def test_conflict_writes_nothing(loop: Loop) -> None:
    """A move from aliases that have moved meanwhile is refused, and leaves no trace."""
    registry, before = loop.models["web"].registry, await aliases_of(loop)
    await do(loop, "freeze")
    image = await image_of(loop.store)
    verdict = Verdict(action="follow", by="x", sentence="x")
    settled = [("5-0", Settled(answered=True))]
    with pytest.raises(Conflict):
        await commit_move(
            registry,
            before,
            Move(before.followed(), verdict, reset_to=0, statuses={0: "blessed"}),
            now=0.0,
            evidence=settled,
            state=GateState(settled="5-0"),
        )
    assert await image_of(loop.store) == image


async def test_operator_and_gatekeeper_do_not_overwrite_each_other(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A gatekeeper whose aliases moved under it writes nothing, and decides anew on what is."""
    loop = await open_loop(make_settings(web=MAJORITY))
    stages = loop.models["web"]
    for _ in range(40):
        await answered(loop, value=True)
    before = await aliases_of(loop)
    await stages.gatekeeper._read(None)
    await do(loop, "freeze")
    image = await image_of(loop.store)
    with pytest.raises(Conflict):
        await stages.gatekeeper._settle(before, heard_until=loop.ingest.clock())
    assert await image_of(loop.store) == image
    stages.gatekeeper._fence = None  # as `turn` leaves it after a conflict
    await run(stages.gatekeeper)
    assert not (await aliases_of(loop)).following
    await do(loop, "thaw")
    await run(stages.gatekeeper)
    assert (await aliases_of(loop)).following
    assert len(await evidence_of(stages.registry)) == 40


async def test_a_second_gatekeeper_fences_the_first(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Once a second gatekeeper has started, the first commits neither evidence nor decisions."""
    loop = await open_loop(make_settings(web=MAJORITY))
    first, second = loop.models["web"].gatekeeper, another(loop).gatekeeper
    for _ in range(40):
        await answered(loop, value=True)
    await second.restore()
    image = await image_of(loop.store)
    with pytest.raises(Fenced):
        await run(first)
    assert await image_of(loop.store) == image
    await run(second)
    assert [v.action for v in await verdicts_of(second.registry)] == ["follow"]


async def test_changed_gate_state_is_refused(loop: Loop) -> None:
    """Evidence that was not sealed by us is not judged by: all tests begin anew, none too early."""
    registry = loop.models["web"].registry
    await rounds(loop, value=True, count=2)
    key, before = registry.keys.checkpoint("gatekeeper"), await registry.gate()
    meta = (await loop.store.hash(key))[b"meta"].replace(b'"answered":2', b'"answered":9')
    await loop.store.call("HSET", key, "meta", meta)
    with pytest.raises(StateError):
        await registry.gate()
    second = another(loop).gatekeeper
    await second.turn()
    found = await registry.gate()
    assert before is not None
    assert found is not None
    assert (found.settled, found.answered) == (before.settled, before.answered)
    assert found.candidates > before.candidates
    for _ in range(2):
        await said(loop, value=True)
    await run(second)
    assert len(await loop.store.range(registry.keys.evidence, "-")) == 4


@pytest.mark.parametrize("how", ["damaged", "gone"])
async def test_a_version_that_is_not_sound_is_passed_over(
    open_loop: OpenLoop, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """The gate goes on without it, and says so once; the list of versions leaves it out."""
    loop = await open_loop(make_settings(web=MAJORITY | {"audit": 1.0, "promotion": SEQUENTIAL}))
    stages = loop.models["web"]
    for _ in range(15):
        await answered(loop, value=True)
    assert await stages.registry.last_version() == 1
    key = stages.registry.keys.version(1)
    await (
        loop.store.call("HSET", key, "mac", "00")
        if how == "damaged"
        else loop.store.call("DEL", key)
    )
    await run(stages.gatekeeper)
    assert [v.version for v in await stages.registry.versions()] == [0]
    await rounds(loop, value=True, count=10)
    assert len(await evidence_of(stages.registry)) == 25
    assert caplog.text.count("version 1 of 'web' is passed over") == 1
    assert [v.action for v in await verdicts_of(stages.registry)] == ["admit"]
    assert (await aliases_of(loop)).challengers == (2,)


async def test_an_entry_that_is_none_of_ours_is_passed_over(
    open_loop: OpenLoop, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """Among audits and signals alike; nothing of it is repeated, and what came after it counts."""
    loop = await open_loop(make_settings(web=MAJORITY | {"audit": 1.0}))
    stages = loop.models["web"]
    await said(loop, value=True)
    for entry in (("a", "s3cret"), ("b", "{}")):
        await loop.store.call("XADD", stages.registry.keys.audits, "*", *entry)
    [(_, fields)] = await loop.store.range(stages.registry.keys.feedback)
    for place in (b"x", b"\xff"):
        bad = fields | {b"p": place}
        pairs = [part for pair in bad.items() for part in pair]
        await loop.store.call("XADD", stages.registry.keys.feedback, "*", *pairs)
    await said(loop, value=True)
    await run(stages.gatekeeper)
    assert len(await evidence_of(stages.registry)) == 2
    assert caplog.text.count("is passed over") == 2
    assert "s3cret" not in caplog.text


async def test_nothing_goes_back_to_what_cannot_be_loaded(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Neither by hand nor by the gate; nothing is written, and operators are told what to do."""
    loop = await open_loop(make_settings(web=MAJORITY))
    registry, before = loop.models["web"].registry, await aliases_of(loop)
    blob = await loop.store.call("HGET", registry.keys.version(0), "blob")
    await loop.store.call("HSET", registry.keys.version(0), "blob", b"harmed")
    image = await image_of(loop.store)
    pull = Move(before.pulled_to(0), Verdict(action="pull", by="x", sentence="x"), reset_to=0)
    with pytest.raises(StateError, match="choose another by hand"):
        await commit_move(registry, before, pull, now=0.0)
    with pytest.raises(StateError, match="version 7"):
        await commit_move(registry, before, replace(pull, reset_to=7), now=0.0)
    for dry_run in (False, True):
        with pytest.raises(Invalid, match="version 0 of 'web' cannot be loaded"):
            await do(loop, "rollback", version=0, dry_run=dry_run)
    assert await image_of(loop.store) == image
    await loop.store.call("HSET", registry.keys.version(0), "blob", blob)
    await do(loop, "rollback", version=0)


async def test_a_signal_of_the_same_millisecond_is_read_again(loop: Loop) -> None:
    """After a restart no signal is missed, though its place in its stream is a lower one."""
    registry, ms = loop.models["web"].registry, int(loop.ingest.clock() * 1000)
    roles = {
        role: Shadow(version=0, lineage=1, step=0, output=output)
        for role, output in (("champion", False), ("latest", True))
    }
    record = Prediction(
        model="web",
        features={},
        output=False,
        version=0,
        lineage=1,
        step=0,
        generation=1,
        ask=Ask(reason="audit", probability=1.0),
        shadows=roles,
    )
    signal = Feedback(kind="correction", value=True, source="human:ada", prediction_id="x")
    call, keys = loop.store.call, registry.keys
    for seq in (5, 6):
        audit = Audit(generation=1, roles=roles).pack()
        await call("XADD", keys.audits, f"{ms}-{seq}", "a", audit)
    for seq in (0, 1):
        said = signal.model_copy(update={"source": f"human:{seq}"})
        fields = ("f", said.pack(), "p", f"{ms}-{5 + seq}", "r", record.pack())
        await call("XADD", keys.feedback, f"{ms}-{seq}", *fields)
        await run(another(loop).gatekeeper)
    evidence = await evidence_of(registry)
    assert [entry for entry, _ in evidence] == [f"{ms}-5", f"{ms}-6"]
    assert all(item.points == {"latest>champion@1#1": 1.0} for _, item in evidence)


# --- snapshots ------------------------------------------------------------------------------------


async def test_a_snapshot_wins_its_place(open_loop: OpenLoop, make_settings: MakeSettings) -> None:
    """A snapshot is cut, tested as a challenger, promoted on evidence, and served."""
    loop = await open_loop(make_settings(web=MAJORITY | {"promotion": SEQUENTIAL}))
    found = await rounds(loop, value=True, count=60)
    registry, aliases = loop.models["web"].registry, await aliases_of(loop)
    promoted = [v for v in await verdicts_of(registry) if v.action == "promote"]
    assert promoted[0].version == 1
    assert aliases.champion == promoted[-1].version
    assert (await registry.version(1)).status == "blessed"
    assert found[-1]["version"] == aliases.champion
    assert found[-1]["output"] is True
    assert "answers from now on" in promoted[0].sentence


async def test_rejected_weights_are_dropped(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A snapshot that lost its patience is rejected; its record stays and its bytes go."""
    web = MAJORITY | {"promotion": SEQUENTIAL | {"patience": 5, "max_open": 1}}
    loop = await open_loop(make_settings(web=web))
    await rounds(loop, value=False, count=20)  # just what the cold start answers
    registry = loop.models["web"].registry
    assert [v.action for v in await verdicts_of(registry)][:2] == ["admit", "reject"]
    assert (await registry.version(1)).status == "rejected"
    assert b"blob" not in await loop.store.hash(registry.keys.version(1))
    for action in ("promote", "rollback"):
        with pytest.raises(Invalid, match="weights are gone"):
            await do(loop, action, version=1)


# --- the leash is pulled --------------------------------------------------------------------------


async def test_a_pull_takes_everything_back(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """When the anchor is better it answers, the learner starts anew from it, and trust is gone."""
    loop = await open_loop(make_settings(web=MAJORITY | {"audit": 0.9}))
    await rounds(loop, value=True, count=60)
    assert (await aliases_of(loop)).following
    stages, pulled = loop.models["web"], None
    for _ in range(100):
        await rounds(loop, value=False, count=1)
        pulled = await aliases_of(loop)
        if not pulled.following:
            break
    assert pulled is not None
    assert (pulled.champion, pulled.lineage, pulled.trusted) == (0, 2, False)
    assert (await verdicts_of(stages.registry))[-1].action == "pull"
    [control] = await controls_of(stages.registry)
    assert (control.to_version, control.lineage) == (0, 2)
    learned = stages.trainer.at.learned
    assert learned > 60
    assert stages.predictor.bundle is not None
    assert "latest" not in dict(stages.predictor.bundle.shadows)  # the old lineage is heard no more
    await loop.turn("web")
    assert (stages.trainer.at.lineage, stages.trainer.at.learned) == (2, 0)
    first, cold = await stages.registry.load_version(0, stages.trainer.learner)
    assert stages.trainer.learner.digest() == cold.digest() == first.state_digest
    [answer] = await rounds(loop, value=False, count=1)
    assert (answer["output"], answer["version"]) == (False, 0)
    assert answer["ask"] == {"reason": "audit", "probability": 1.0}
    assert stages.trainer.at.learned == 1


# --- by hand --------------------------------------------------------------------------------------


async def test_dry_run_writes_nothing(open_loop: OpenLoop, make_settings: MakeSettings) -> None:
    """A dry run tells what would be done, and does nothing."""
    web = MAJORITY | {"promotion": {"policy": "policies.promotion:Manual", "snapshot_every": 5}}
    loop = await open_loop(make_settings(web=web))
    await rounds(loop, value=True, count=10)
    image = await image_of(loop.store)
    for action, options in (
        ("promote", {"version": 1}),
        ("rollback", {"version": 0}),
        ("freeze", {}),
        ("thaw", {}),
    ):
        aliases, verdict = await do(loop, action, dry_run=True, **options)
        assert (verdict.action, verdict.by) == (action, "ada")
        assert verdict.sentence
        assert isinstance(aliases, Aliases)
    assert await image_of(loop.store) == image


async def test_promote_and_rollback(open_loop: OpenLoop, make_settings: MakeSettings) -> None:
    """An operator promotes a snapshot, and goes back: champion, learner and lineage, and frozen."""
    web = MAJORITY | {"promotion": {"policy": "policies.promotion:Manual", "snapshot_every": 5}}
    loop = await open_loop(make_settings(web=web))
    await rounds(loop, value=True, count=10)
    registry, stages = loop.models["web"].registry, loop.models["web"]
    aliases, _ = await do(loop, "promote", version=1)
    assert aliases == await aliases_of(loop)
    assert (aliases.champion, aliases.previous, aliases.generation) == (1, 0, 2)
    assert (await registry.version(1)).status == "blessed"
    *_, answer = await rounds(loop, value=True, count=2)
    assert (answer["version"], answer["output"]) == (1, True)
    with pytest.raises(Invalid, match="champion already"):
        await do(loop, "promote", version=1)
    await do(loop, "rollback")
    await loop.turn("web")
    back = await aliases_of(loop)
    assert (back.champion, back.lineage, back.frozen, back.trusted) == (0, 2, True, False)
    assert stages.trainer.at.lineage == 2
    assert stages.trainer.at.learned == 0
    found = await verdicts_of(registry)
    actions = [(v.action, v.by, v.version) for v in found if v.by != "ladder"]
    assert actions == [("promote", "ada", 1), ("rollback", "ada", 0)]
    with pytest.raises(Invalid, match="nothing to go back to"):
        await do(loop, "rollback")


async def test_what_cannot_be_done_is_refused(loop: Loop) -> None:
    """No version, an unknown one, or nothing to go back to: told so, and nothing is written."""
    image = await image_of(loop.store)
    with pytest.raises(Invalid, match="which version"):
        await do(loop, "promote")
    with pytest.raises(NotFound):
        await do(loop, "promote", version=7)
    with pytest.raises(NotFound):
        await do(loop, "rollback", version=7)
    with pytest.raises(Invalid, match="nothing was promoted yet"):
        await do(loop, "rollback")
    assert await image_of(loop.store) == image


async def test_freeze_keeps_the_step_that_answers(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Frozen on the leash, the step of that moment goes on answering, until the thaw."""
    loop = await open_loop(make_settings(web=MAJORITY))
    await rounds(loop, value=True, count=40)
    aliases, _ = await do(loop, "freeze")
    assert (aliases.frozen, aliases.pinned, aliases.following) == (True, True, True)
    await loop.turn("web")
    frozen = (await loop.predict("web", {"a": 1.0}))["step"]
    for value in (True, False):
        answers = await rounds(loop, value=value, count=25)
        assert {answer["step"] for answer in answers} == {frozen}
        assert {answer["output"] for answer in answers} == {True}
        await do(loop, "freeze")  # once more changes nothing
    assert (await aliases_of(loop)).following, "nothing is pulled while frozen"
    await do(loop, "thaw")
    await loop.turn("web")
    thawed = await aliases_of(loop)
    assert not thawed.frozen
    assert not thawed.pinned
    [answer] = await rounds(loop, value=True, count=1)
    assert answer["step"] > frozen or not thawed.following


async def test_always_is_trusted_at_once(open_loop: OpenLoop, make_settings: MakeSettings) -> None:
    """Under `Always` the first lesson is in the next answer, and audits are as configured."""
    web = MAJORITY | {"promotion": {"policy": "policies.promotion:Always"}, "audit": 0.0}
    loop = await open_loop(make_settings(web=web))
    first, second = await rounds(loop, value=True, count=2)
    assert (first["output"], second["output"]) == (False, True)
    assert (first["ask"], second["ask"]) == (None, None)
    [verdict] = await verdicts_of(loop.models["web"].registry)
    assert "asks for no evidence" in verdict.sentence


@pytest.mark.parametrize("seed", range(4))
async def test_equal_models_stay(
    open_loop: OpenLoop, make_settings: MakeSettings, seed: int
) -> None:
    """A learner that is right as often as the cold start is not followed."""
    rng = random.Random(seed)
    loop = await open_loop(make_settings(web=MAJORITY))
    for _ in range(60):
        answer = await loop.predict("web", {"a": 1.0})
        await loop.feedback(answer["prediction_id"], "correction", rng.random() < 0.5)
    await loop.turn("web")
    assert not (await aliases_of(loop)).following
    assert await verdicts_of(loop.models["web"].registry) == []


# --- after an outage ------------------------------------------------------------------------------


async def test_an_outage_loses_no_label(open_loop: OpenLoop, make_settings: MakeSettings) -> None:
    """Labels that came in time count, however long after the deadline the gate reads them."""
    loop = await open_loop(make_settings(web=MAJORITY | {"audit": 1.0, "audit_deadline_s": 60.0}))
    for _ in range(30):
        await answered(loop, value=True)
    stages = another(loop)
    stages.clock = lambda: loop.ingest.clock() + 3600.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(promote, "READ_MAX", 7)
        await run(stages.gatekeeper)
    assert all(item.answered for _, item in await evidence_of(stages.registry))
    assert (await gate_of(stages.registry)).unanswered == 0


async def test_another_policy_keeps_no_leash(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A model that follows, under a policy that does not: the anchor answers, and it is said."""
    loop = await open_loop(make_settings(web=MAJORITY | {"audit": 1.0}))
    await rounds(loop, value=True, count=40)
    assert (await aliases_of(loop)).following
    spec = loop.settings.models["web"].model_copy(update={"promotion": PromotionSpec(**SEQUENTIAL)})
    await run(Stages(loop.store, loop.keyring, "web", spec, clock=loop.ingest.clock).gatekeeper)
    aliases = await aliases_of(loop)
    assert (aliases.following, aliases.champion, aliases.lineage) == (False, 0, 2)
    said = (await verdicts_of(loop.models["web"].registry))[-1]
    assert (said.action, said.by) == ("pull", "Sequential")
    assert said.sentence.endswith("Sequential keeps no leash.")


async def test_what_an_old_lineage_published_is_not_pinned(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A freeze between a rollback and the learner's obeying it pins nothing of the old lineage."""
    always = {"promotion": {"policy": "policies.promotion:Always"}}
    loop = await open_loop(make_settings(web=MAJORITY | always))
    await rounds(loop, value=True, count=5)
    await do(loop, "rollback", version=0)
    await do(loop, "thaw")
    await run(loop.models["web"].gatekeeper)
    assert (await aliases_of(loop)).following
    with pytest.raises(Conflict):
        await do(loop, "freeze")
    await loop.turn("web")
    await do(loop, "freeze")
    assert (await aliases_of(loop)).pinned


async def test_promoting_the_anchor_by_hand_keeps_the_version_before(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Taken off the leash at the anchor, there is nothing to go back to but what was before it."""
    loop = await open_loop(make_settings(web=MAJORITY | {"audit": 1.0}))
    await rounds(loop, value=True, count=40)
    after, _ = await do(loop, "promote", version=0)
    assert (after.following, after.champion) == (False, 0)
    assert after.previous is None
