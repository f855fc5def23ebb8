"""Every verdict can be computed again: from the scalars of the evidence stream, or from the log.

A change of the code that changes a decision shows here first.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence

import pytest

from online_learner.evidence import Case, Duel, Trial, log_threshold, raised_null
from online_learner.judge import Judge
from online_learner.loop import Loop
from online_learner.promote import Policy
from online_learner.registry import Registry
from online_learner.schema import Aliases, Settled, Verdict
from online_learner.settings import Settings
from online_learner.stages import Stages
from policies.promotion import Leash, Sequential

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]
Evidence = list[tuple[str, Settled]]

MAJORITY = {"learner": "river.dummy:PriorClassifier", "publish_s": 0.0, "audit": 1.0}


async def lived(loop: Loop, truths: Sequence[bool]) -> tuple[Evidence, list[Verdict]]:
    """Go around the loop once a truth; returns what was recorded."""
    for value in truths:
        answer = await loop.predict("web", {"a": 1.0})
        await loop.feedback(answer["prediction_id"], "correction", value)
        await loop.turn("web")
    return await recorded(loop.models["web"].registry)


async def recorded(registry: Registry) -> tuple[Evidence, list[Verdict]]:
    """Return evidence and verdicts, oldest first."""
    evidence = await registry.store.range(registry.keys.evidence)
    verdicts = await registry.store.range(registry.keys.verdicts)
    return (
        [(entry, Settled.model_validate_json(fields[b"e"])) for entry, fields in evidence],
        [Verdict.model_validate_json(fields[b"v"]) for _, fields in verdicts],
    )


def rejudged(policy: Policy, evidence: Evidence, aliases: Aliases) -> Iterator[Verdict]:
    """Yield what a fresh judge and policy decide on recorded evidence, no snapshot being cut."""
    judge = Judge(m=raised_null(policy.gamma), deadline_s=1.0)
    for _, settled in evidence:
        judge.open(policy.duels(aliases), aliases)
        for key, d in settled.points.items():
            judge._count(key, judge.trials[key], d)
        move = policy.decide(Case(aliases, judge.trials, (), judge.promotions))
        if move is not None:
            assert move.verdict is not None
            judge.promotions += move.verdict.action != "pull"
            aliases = move.aliases
            yield move.verdict


def check_same(found: Sequence[Verdict], expected: Sequence[Verdict]) -> None:
    """Check that verdicts say the same, their numbers within 1e-9."""
    assert [verdict.action for verdict in found] == [verdict.action for verdict in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.sentence == other.sentence
        assert one.numbers == pytest.approx(other.numbers, rel=1e-9, abs=1e-9)


FLIP = [True] * 40 + [False] * 70 + [True] * 40


async def test_verdicts_follow_from_the_evidence_stream(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A fresh judge and policy, fed the scalars alone, follow and pull with the same words."""
    loop = await open_loop(make_settings(web=MAJORITY))
    evidence, verdicts = await lived(loop, FLIP)
    assert [verdict.action for verdict in verdicts][:2] == ["follow", "pull"]
    check_same(list(rejudged(Leash(), evidence, COLD)), verdicts)


async def test_verdicts_follow_from_the_log(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A gatekeeper that reads the whole log at once finds the evidence that the live one found."""
    loop = await open_loop(make_settings(web=MAJORITY))
    registry = loop.models["web"].registry
    beginning = await loop.store.call("DUMP", registry.keys.aliases)
    evidence, verdicts = await lived(loop, FLIP)
    ended = await registry.aliases()
    keys = registry.keys
    await loop.store.call("DEL", keys.evidence, keys.verdicts, keys.checkpoint("gatekeeper"))
    await loop.store.call("RESTORE", keys.aliases, 0, beginning, "REPLACE")
    spec = loop.settings.models["web"]
    again = Stages(loop.store, loop.keyring, "web", spec, clock=loop.ingest.clock).gatekeeper
    while await again.turn():
        pass
    found, decided = await recorded(registry)
    assert found == evidence
    assert decided == verdicts
    assert await registry.aliases() == ended


async def test_each_promotion_follows_from_its_points(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """The numbers of a promotion are those of the points under its key, at the first crossing."""
    policy = Sequential(snapshot_every=10, patience=30)
    spec = {
        "policy": "policies.promotion:Sequential",
        "snapshot_every": 10,
        "patience": 30,
    }
    loop = await open_loop(make_settings(web=MAJORITY | {"promotion": spec}))
    evidence, verdicts = await lived(loop, [True] * 40 + [False] * 120)
    promotions = [verdict for verdict in verdicts if verdict.action == "promote"]
    assert len(promotions) == 2
    for generation, verdict in enumerate(promotions, start=1):
        duel = Duel(f"challenger:{verdict.version}", "champion", version=verdict.version)
        points = [
            settled.points[duel.key(generation)]
            for _, settled in evidence
            if duel.key(generation) in settled.points
        ]
        k = int(verdict.numbers["candidate"] or 0)
        goal = log_threshold(policy.alpha, k=k, promotions=generation - 1)
        trial = Trial.fresh(duel, k=k, m=raised_null(policy.gamma))
        for d in points:
            assert trial.log_e < goal
            trial.count(d)
        expected = {"n": trial.n, "wins": trial.wins, "losses": trial.losses}
        assert trial.log_e >= goal
        assert expected.items() <= verdict.numbers.items()
        assert verdict.numbers["log_e"] == pytest.approx(trial.log_e, abs=1e-9)
        assert verdict.numbers["log_e_needed"] == pytest.approx(goal, abs=1e-9)


def recording(key: str, seed: int, win: float, loss: float) -> Evidence:
    """Return 3000 points that are the same each time."""
    rng, found = random.Random(seed), []
    for n in range(3000):
        u = rng.random()
        d = 1.0 if u < win else -1.0 if u > 1.0 - loss else 0.0
        found.append((f"{1000 + n}-0", Settled(answered=True, points={key: d})))
    return found


LINEAGE, RUNG = "latest>champion@1", "challenger:2>champion@4"
COLD = Aliases(champion=0)
ON_LEASH = Aliases(champion=0, following=True, anchor=0, generation=2, trusted=True)
TESTED = Aliases(champion=1, challengers=(2,), generation=4)
GOLDEN: dict[str, tuple[Policy, Aliases, Evidence, tuple[str, int, float]]] = {
    "follow": (
        Leash(),
        COLD,
        recording(LINEAGE, 1, 0.3, 0.1),
        ("follow", 145, 4.8726909932033315),
    ),
    "follow, late": (
        Leash(),
        COLD,
        recording(LINEAGE, 2, 0.12, 0.05),
        ("follow", 1923, 4.721487524574268),
    ),
    "pull": (
        Leash(),
        ON_LEASH,
        recording("anchor>champion@2", 4, 0.3, 0.1),
        ("pull", 606, 9.310735682051572),
    ),
    "promote": (
        Sequential(),
        TESTED,
        recording(RUNG, 5, 0.1, 0.02),
        ("promote", 444, 4.8726909932033315),
    ),
    "reject": (
        Sequential(),
        TESTED,
        recording(RUNG, 6, 0.1, 0.08),
        ("reject", 1000, -0.835359833623196),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_decisions_are_what_they_were(name: str) -> None:
    """On recorded points, each decision comes on the label, and with the value, as it once did."""
    policy, aliases, evidence, (action, n, log_e) = GOLDEN[name]
    verdict = next(rejudged(policy, evidence, aliases))
    assert (verdict.action, verdict.numbers["n"]) == (action, n)
    assert verdict.numbers["log_e"] == pytest.approx(log_e, abs=1e-9)
