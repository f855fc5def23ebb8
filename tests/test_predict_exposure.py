"""Who answers: the champion, by chance a role under test, the anchor where the champion fails."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

import pytest

from online_learner.bundle import Bundle, Weights
from online_learner.errors import Invalid, Unfit
from online_learner.learners import Answer
from online_learner.loop import Loop
from online_learner.predict import Predictor
from online_learner.requests import LogRequest, PredictRequest, ScoreRequest
from online_learner.schema import Aliases, Audit, Prediction, Shadow
from online_learner.settings import ModelSpec, Settings

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

ASKED = PredictRequest(features={"x": 1.0})
OPTIONS = [{"id": name, "features": {"title": name}} for name in "abc"]
STATIC = Aliases(champion=0, trusted=True, challengers=(1, 2))
LEASHED = Aliases(champion=0, trusted=True, following=True, anchor=3, challengers=(1, 2))
ROLES = {"challenger:1": 1, "challenger:2": 2, "anchor": 3}


class Fixed:
    """A learner that always says the same, or always raises the same."""

    family = "fixed"
    fitted = True

    def __init__(self, says: Any) -> None:
        self.says = says

    def predict(self, batch: Sequence[Any]) -> list[Answer]:
        """Answer, or raise."""
        if isinstance(self.says, Exception):
            raise self.says
        return [Answer(self.says, {self.says: 1.0}) for _ in batch]

    def score(self, features: Any, options: Sequence[Any]) -> list[float]:
        """Score the options in ascending order, or in descending order, or raise."""
        if isinstance(self.says, Exception):
            raise self.says
        return [float(n * self.says) for n in range(len(options))]


def ticks() -> Iterator[float]:
    """Yield a time that is 2 ms later each time."""
    now = 0.0
    while True:
        now += 0.002
        yield now


def predictor(
    aliases: Aliases = STATIC,
    *,
    task: str = "classification",
    untrained: bool = False,
    says: dict[str, Any] | None = None,
    **spec: Any,
) -> Predictor:
    """Return one whose roles say their own names, but where `says` has something else."""
    known: dict[str, Any] = {"task": task, "learner": {"use": "fixed"}}
    named = {"champion": "champion", **{role: role for role in ROLES}} | (says or {})
    roles = [role for role in ROLES if role != "anchor" or aliases.following]
    shadows = tuple(
        (role, Weights(ROLES[role], 1, 1, Fixed(named[role]), untrained and role == "anchor"))
        for role in roles
    )
    found = Predictor("m", ModelSpec.model_validate(known | spec), None, random.Random(7))
    found.clock = ticks().__next__
    found.bundle = Bundle(aliases, Weights(0, 1, 9, Fixed(named["champion"])), shadows)
    return found


def asked(who: Predictor, count: int) -> list[Prediction]:
    """Return the answers to the same question, asked again and again."""
    return [who.answer(ASKED) for _ in range(count)]


def near(count: int, total: int, p: float) -> bool:
    """Tell whether a count is within 4.5 standard errors of what the probability says."""
    return bool(abs(count - p * total) <= 4.5 * (total * p * (1.0 - p)) ** 0.5 + 1e-9)


# --- what is audited --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "share"),
    [({}, 0.1), ({"trusted": False}, 1.0), ({"doubt": 40}, 1.0), ({"doubt": 0}, 1.0)],
)
def test_all_is_audited_until_trust_and_while_in_doubt(
    change: dict[str, Any], share: float
) -> None:
    """The configured share counts only where trust is earned, and nothing has put it in doubt."""
    records = asked(predictor(STATIC.model_copy(update=change), audit=0.1), 2000)
    audited = [record for record in records if record.ask is not None]
    assert near(len(audited), 2000, share)
    for record in audited:
        assert record.ask is not None
        assert record.ask.probability == share
        assert list(record.shadows) == ["champion", "challenger:1", "challenger:2"]


FAILURES = [
    ValueError("no"),
    KeyError("x"),
    FloatingPointError("nan"),
    RuntimeError("a defect"),
    float("nan"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_a_shadow_that_fails_is_recorded_and_hurts_nobody(failure: Any) -> None:
    """It stands in the record as failed, without an output; the user gets the champion's answer."""
    record = predictor(says={"challenger:1": failure}, audit=1.0).answer(ASKED)
    assert (record.output, record.role) == ("champion", "champion")
    failed = record.shadows["challenger:1"]
    assert failed == Shadow(version=1, lineage=1, step=1, failed=True, took_ms=failed.took_ms)
    assert [shadow.failed for shadow in record.shadows.values()] == [False, True, False]


def test_every_role_is_timed() -> None:
    """How long each role took is in the record, in milliseconds, whether it failed or not."""
    record = predictor(says={"challenger:1": ValueError()}, audit=1.0).answer(ASKED)
    assert [shadow.took_ms for shadow in record.shadows.values()] == [2.0, 2.0, 2.0]


# --- exposure ---------------------------------------------------------------------------------


def test_a_small_share_is_answered_by_those_under_test() -> None:
    """Each role answers as often as the record says, under its own version, and is audited."""
    records = asked(predictor(audit=0.1, exposure=0.2), 8_000)
    by_role = Counter(record.role for record in records)
    assert set(by_role) == {"champion", "challenger:1", "challenger:2"}
    for record in records:
        assert record.output == record.role
        assert record.exposure == (0.8 if record.role == "champion" else 0.1)
        assert record.version == ROLES.get(record.role, 0)
        if record.role != "champion":
            assert record.ask is not None
            assert (record.ask.reason, record.ask.probability) == ("audit", 1.0)
            assert record.shadows["champion"].output == "champion"
    for role, count in by_role.items():
        assert near(count, 8_000, 0.8 if role == "champion" else 0.1)
    audited = [r for r in records if r.role == "champion" and r.ask is not None]
    assert near(len(audited), 8_000, 0.8 * 0.1)
    assert {record.ask.probability for record in audited if record.ask} == {0.1}


@pytest.mark.parametrize(
    ("aliases", "exposure"),
    [(STATIC, 0.0), (STATIC.model_copy(update={"frozen": True}), 0.5)],
    ids=["off", "frozen"],
)
def test_nothing_is_exposed_where_it_may_not_be(aliases: Aliases, exposure: float) -> None:
    """Without exposure, and while frozen, the champion answers for sure, by the same coins."""
    plain = asked(predictor(aliases, audit=0.3), 500)
    assert plain == asked(predictor(aliases, audit=0.3, exposure=exposure), 500)
    assert {(record.role, record.exposure) for record in plain} == {("champion", 1.0)}


def test_nothing_is_exposed_where_nothing_is_tested() -> None:
    """Without a shadow the champion answers for sure."""
    who = predictor(exposure=0.5)
    assert who.bundle is not None
    who.bundle = Bundle(STATIC, who.bundle.champion)
    assert {(record.role, record.exposure) for record in asked(who, 200)} == {("champion", 1.0)}


def failing_sets() -> Iterator[tuple[Aliases, tuple[str, ...]]]:
    """Yield who fails: every set of roles, with and without a leash."""
    for aliases in (STATIC, LEASHED):
        roles = [*(role for role in ROLES if role != "anchor" or aliases.following), "champion"]
        for count in range(len(roles)):
            for failing in combinations(roles, count):
                yield aliases, failing


@pytest.mark.parametrize(("aliases", "failing"), list(failing_sets()))
def test_what_is_shown_and_audited_is_so_as_often_as_is_logged(
    aliases: Aliases, failing: tuple[str, ...]
) -> None:
    """Whoever fails, a role is shown and audited with the one probability that its records have."""
    says = dict.fromkeys(failing, ValueError("no"))
    who, count = predictor(aliases, says=says, audit=0.2, exposure=0.3), 1500
    shown: Counter[str] = Counter()
    logged: dict[str, set[float]] = {}
    for _ in range(count):
        try:
            record = who.answer(ASKED)
        except Invalid:  # the champion was to answer, and nobody stands in for it
            assert "champion" in failing
            continue
        assert record.role not in failing
        if record.ask is not None:
            shown[record.role] += 1
            logged.setdefault(record.role, set()).add(record.exposure * record.ask.probability)
    for role, found in logged.items():
        [p] = found
        assert near(shown[role], count, p)


def test_what_stays_champion_is_logged_as_such() -> None:
    """Where exposed weights fail the champion answers, always audited, in its own name."""
    says = {"challenger:1": ValueError(), "challenger:2": ValueError()}
    records = asked(predictor(says=says, audit=0.0, exposure=0.5), 400)
    audited = [record for record in records if record.ask is not None]
    assert near(len(audited), 400, 0.5)
    assert {(record.role, record.version, record.output) for record in records} == {
        ("champion", 0, "champion")
    }
    assert {record.exposure for record in audited} == {1.0}
    assert {record.ask.probability for record in audited if record.ask} == {0.5}


# --- the fail-safe ----------------------------------------------------------------------------


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
@pytest.mark.parametrize("audit", [0.0, 0.2, 1.0])
def test_the_anchor_answers_where_a_followed_champion_fails(failure: Any, audit: float) -> None:
    """It answers under its own version, for sure audited, and the failure is on record."""
    for record in asked(predictor(LEASHED, says={"champion": failure}, audit=audit), 20):
        assert (record.role, record.output, record.version, record.step) == (
            "anchor",
            "anchor",
            3,
            1,
        )
        assert record.exposure == 1.0
        assert record.ask is not None
        assert (record.ask.reason, record.ask.probability) == ("audit", 1.0)
        assert record.shadows["champion"].failed
        assert not record.shadows["anchor"].failed


@pytest.mark.parametrize("aliases", [STATIC, LEASHED], ids=["static", "leashed"])
@pytest.mark.parametrize("audit", [0.0, 1.0])
def test_what_nobody_can_take_is_the_questions_fault(aliases: Aliases, audit: float) -> None:
    """A static champion, or champion and anchor, that fail make the request invalid, as ever."""
    says = {"champion": ValueError("no strings"), "anchor": KeyError("other words")}
    with pytest.raises(Invalid, match="'m' cannot take these features: ValueError"):
        predictor(aliases, says=says, audit=audit).answer(ASKED)


@pytest.mark.parametrize("audit", [0.0, 1.0])
def test_an_untrained_anchor_stands_in_for_ruined_weights_only(audit: float) -> None:
    """It takes any question, so it cannot tell that features which a champion refuses are fine."""
    ruined = predictor(LEASHED, says={"champion": float("nan")}, untrained=True, audit=audit)
    assert ruined.answer(ASKED).role == "anchor"
    refused = predictor(LEASHED, says={"champion": Unfit("text")}, untrained=True, audit=audit)
    with pytest.raises(Invalid, match="text"):
        refused.answer(ASKED)


def test_a_defect_of_the_champion_is_not_the_clients() -> None:
    """An error that no learner raises on purpose goes through, where nobody stands in."""
    with pytest.raises(RuntimeError, match="a defect"):
        predictor(says={"champion": RuntimeError("a defect")}).answer(ASKED)


# --- rankings, and what is answered elsewhere -------------------------------------------------

SCORED = {"champion": 1, "challenger:1": -1, "challenger:2": 1, "anchor": -1}


def test_an_exposed_ranking_is_explored_and_what_is_compared_is_not() -> None:
    """The order shown is varied from the exposed weights' own; the record has everyone's best."""
    spec = {"exploration": {"kind": "epsilon", "epsilon": 1.0}, "exposure": 0.5, "audit": 1.0}
    who = predictor(task="ranking", says=SCORED, **spec)
    asked = PredictRequest.model_validate({"features": {}, "options": OPTIONS})
    records = [who.answer(asked) for _ in range(200)]
    assert {record.role for record in records} == {"champion", "challenger:1", "challenger:2"}
    for record in records:
        assert record.shadows["champion"].output == ["c", "b", "a"]
        assert record.shadows["challenger:1"].output == ["a", "b", "c"]
        assert record.scores["a"] == (0.0 if SCORED[record.role] > 0 else -0.0)
        assert record.propensity == pytest.approx(1 / 3)
    assert len({tuple(record.output) for record in records if record.role == "champion"}) == 6


CHAT = {"prompt": "?", "outputs": [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]}


def test_what_was_answered_elsewhere_is_not_exposed() -> None:
    """Its users saw the outputs as they were: the roles are compared, and nobody is drawn."""
    who = predictor(task="generation", says=SCORED, exposure=0.5, audit=0.5)
    records = [who.record(LogRequest.model_validate(CHAT)) for _ in range(400)]
    assert {(record.role, record.exposure) for record in records} == {("external", 1.0)}
    audited = [record for record in records if record.ask is not None]
    assert near(len(audited), 400, 0.5)
    assert {tuple(record.shadows["champion"].output) for record in audited} == {("b", "a")}  # type: ignore[arg-type]


def test_the_anchor_scores_where_a_followed_champion_fails() -> None:
    """Rewards of what was answered elsewhere come from the anchor then, and say so."""
    says = SCORED | {"champion": float("nan")}
    who = predictor(LEASHED, task="generation", says=says, audit=0.0)
    found = who.score(ScoreRequest.model_validate(CHAT))
    assert (found["version"], found["rewards"]) == (3, [0.0, -1.0])
    record = who.record(LogRequest.model_validate(CHAT))
    assert (record.role, record.version, record.scores) == ("external", 3, {"a": 0.0, "b": -1.0})
    assert record.ask is not None
    assert record.shadows["champion"].failed


def test_what_nobody_can_score_is_logged_all_the_same() -> None:
    """An answer made elsewhere is kept without rewards and without an audit; a score is refused."""
    says = {"champion": ValueError("no"), "anchor": ValueError("no")}
    who = predictor(LEASHED, task="generation", says=SCORED | says)
    record = who.record(LogRequest.model_validate(CHAT))
    assert (record.scores, record.ask, record.shadows) == ({}, None, {})
    with pytest.raises(Invalid, match="no"):
        who.score(ScoreRequest.model_validate(CHAT))


# --- through the loop -------------------------------------------------------------------------

MANUAL = {"promotion": {"policy": "policies.promotion:Manual"}, "publish_s": 0.0}


async def test_the_gate_is_told_who_was_shown_and_by_what_chance(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Client, record and audit agree: exposure times the place's own propensity, and who it was."""
    explored = {"exploration": {"kind": "epsilon", "epsilon": 1.0}, "exposure": 0.5}
    loop = await open_loop(make_settings(pages=MANUAL | explored))
    answer = await loop.predict("pages", {}, options=OPTIONS)
    await loop.feedback(answer["prediction_id"], "selection", "c")
    await loop.turn("pages")
    stages, roles = loop.stages("pages"), Counter[str]()
    for _ in range(40):
        answer = await loop.predict("pages", {}, options=OPTIONS)
        _, address = loop.keyring.open("prediction", answer["prediction_id"])
        record = await stages.journal.read(address)
        key = stages.registry.keys.audits
        [(_, fields)] = await loop.store.range(key, address.entry, address.entry)
        audit = Audit.model_validate_json(fields[b"a"])
        assert (audit.shown, audit.chances) == (answer["role"], {"champion": 0.5, "latest": 0.5})
        assert answer["propensity"] == record.exposure * record.propensity
        assert answer["propensity"] == pytest.approx(0.5 / 3)
        roles[answer["role"]] += 1
    assert set(roles) == {"champion", "latest"}
