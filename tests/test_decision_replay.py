"""Every verdict can be computed again: from the scalars of the evidence stream, or from the log.

A change of the code that changes a decision shows here first.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest

from online_learner.evidence import Case, Terms
from online_learner.judge import Judge
from online_learner.loop import Loop
from online_learner.promote import Policy
from online_learner.recheck import Recheck
from online_learner.registry import Registry
from online_learner.schema import Aliases, Settled, Verdict
from online_learner.settings import Settings
from online_learner.stages import Stages
from policies.promotion import Leash, Sequential

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]
Evidence = list[tuple[str, Settled]]

TERMS = Terms(gamma=1.5, rater_share=0.1)
MAJORITY = {"learner": "river.dummy:PriorClassifier", "publish_s": 0.0, "audit": 1.0}


async def lived(loop: Loop, truths: Sequence[bool]) -> tuple[Evidence, list[Verdict]]:
    """Go around the loop once a truth; returns what was recorded."""
    for n, value in enumerate(truths):
        answer = await loop.predict("web", {"a": 1.0})
        rater = f"rater-{n % 30}"
        await loop.feedback(answer["prediction_id"], "correction", value, user_id=rater)
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
    judge = Judge(terms=TERMS, deadline_s=1.0)
    for _, settled in evidence:
        judge.open(policy.duels(aliases), aliases)
        for trial in judge.trials.values():
            trial.fold(trial.name(aliases.generation), settled)
        move = policy.decide(Case(aliases, judge.trials, (), judge.promotions))
        if move is not None:
            assert move.verdict is not None
            judge.promotions += move.verdict.action != "pull"
            judge.restart(move.restart)
            aliases = move.aliases
            yield move.verdict


def check_same(found: Sequence[Verdict], expected: Sequence[Verdict]) -> None:
    """Check that verdicts say the same, to the last bit."""
    assert [verdict.action for verdict in found] == [verdict.action for verdict in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.sentence == other.sentence
        assert one.numbers == other.numbers


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
    elsewhere = {"offset": ""}  # read at once, the stream was read further
    assert [v.model_copy(update=elsewhere) for v in decided] == [
        v.model_copy(update=elsewhere) for v in verdicts
    ]
    assert await registry.aliases() == ended


def rechecked(evidence: Evidence, verdicts: Sequence[Verdict]) -> Recheck:
    """Return what comes of computing verdicts again."""
    report = Recheck(verdicts)
    for entry, settled in evidence:
        report.hear(entry, settled)
    report.end()
    return report


SNAPSHOTS = {"policy": "policies.promotion:Sequential", "snapshot_every": 10, "patience": 30}


@pytest.mark.parametrize("promotion", [{}, {"promotion": SNAPSHOTS}], ids=["leash", "sequential"])
async def test_every_verdict_is_found_again(
    open_loop: OpenLoop, make_settings: MakeSettings, promotion: dict[str, Any]
) -> None:
    """Folded over the evidence once more, every test comes to the numbers of its verdict."""
    loop = await open_loop(make_settings(web=MAJORITY | promotion))
    evidence, verdicts = await lived(loop, [True] * 60 + [False] * 140)
    report = rechecked(evidence, verdicts)
    assert report.checked == sum(verdict.test is not None for verdict in verdicts) >= 2
    assert (report.worst, report.wrong) == (0.0, [])


async def test_changed_evidence_is_found_out(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """One point that is missing, or one number that is prettier, and the verdict does not hold."""
    loop = await open_loop(make_settings(web=MAJORITY))
    evidence, verdicts = await lived(loop, [True] * 60)
    won = next(n for n, (_, settled) in enumerate(evidence) if any(settled.points.values()))
    wrong = rechecked(evidence[:won] + evidence[won + 1 :], verdicts).wrong
    assert {text.split(":")[0] for text in wrong} == {f"follow (epoch {verdicts[0].epoch})"}
    assert any("n is " in text for text in wrong)
    pretty = verdicts[0].model_copy(update={"numbers": {**verdicts[0].numbers, "wins": 99}})
    assert any("wins is" in text for text in rechecked(evidence, [pretty]).wrong)


def recording(key: str, seed: int, win: float, loss: float) -> Evidence:
    """Return 3000 points that are the same each time."""
    rng, found = random.Random(seed), []
    for n in range(3000):
        u = rng.random()
        d = 1.0 if u < win else -1.0 if u > 1.0 - loss else 0.0
        name = f"{key}#1"
        settled = Settled(answered=True, asked={name: d != 0.0}, points={name: d})
        found.append((f"{1000 + n}-0", settled))
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
        ("follow", 136, 4.749792280454862),
    ),
    "follow, late": (
        Leash(),
        COLD,
        recording(LINEAGE, 2, 0.12, 0.05),
        ("follow", 1855, 4.655377276475102),
    ),
    "pull": (
        Leash(),
        ON_LEASH,
        recording("anchor>champion@2", 4, 0.3, 0.1),
        ("pull", 525, 9.23920697779653),
    ),
    "promote": (
        Sequential(),
        TESTED,
        recording(RUNG, 5, 0.1, 0.02),
        ("promote", 437, 4.749792280454862),
    ),
    "reject": (
        Sequential(),
        TESTED,
        recording(RUNG, 6, 0.1, 0.08),
        ("reject", 1000, -2.304058070741356),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_decisions_are_what_they_were(name: str) -> None:
    """On recorded points, each decision comes on the label, and with the value, as it once did."""
    policy, aliases, evidence, (action, n, log_e) = GOLDEN[name]
    verdict = next(rejudged(policy, evidence, aliases))
    assert (verdict.action, verdict.numbers["n"]) == (action, n)
    assert verdict.numbers["log_e"] == pytest.approx(log_e, abs=1e-9)
