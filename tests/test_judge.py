"""Audited predictions settle in their order, each once, and count only where they may."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from online_learner.evidence import BettingTest, Duel, Terms
from online_learner.ids import entry_order
from online_learner.judge import Judge
from online_learner.schema import Aliases, Audit, GateState, Output, Said, Settled, Shadow

ALIASES = Aliases(champion=1, challengers=(2,), generation=5)
DUEL = Duel("challenger:2", "champion", version=2)
KEY = "challenger:2>champion@5"
NAME = f"{KEY}#1"
DEADLINE_S = 60.0
START_MS = 1_700_000_000_000


def entry(n: int) -> str:
    """Return the id of the n-th prediction; two share a millisecond."""
    return f"{START_MS + n // 2}-{n % 2}"


def audit(generation: int = 5, **outputs: Output) -> Audit:
    """Return what each role answered; `challenger_2` stands for `challenger:2`."""
    roles = {
        role.replace("_", ":"): Shadow(version=1, lineage=1, step=1, output=output)
        for role, output in outputs.items()
    }
    return Audit(generation=generation, roles=roles)


WIN = audit(champion="b", challenger_2="a")  # where the truth is a
LOSS = audit(champion="a", challenger_2="b")
TIE = audit(champion="a", challenger_2="a")


def judge(state: GateState | None = None, duels: Iterable[Duel] = (DUEL,), **terms: Any) -> Judge:
    """Return a judge with its duels begun."""
    made = Judge(terms=Terms(**terms), deadline_s=DEADLINE_S, state=state)
    made.open(duels, ALIASES)
    return made


def tell(
    it: Judge, where: str, right: Output | Said, source: str = "human:ada", **options: Any
) -> None:
    """Have a judge see a signal: what is right, or all that is said."""
    said = right if isinstance(right, Said) else Said(right=right)
    it.see_signal(where, said, rater=source, **options)


def outcome(found: list[tuple[str, Settled]]) -> list[tuple[bool, dict[str, float]]]:
    """Return whether each was answered, and its points."""
    return [(item.answered, item.points) for _, item in found]


def settled(judge: Judge, *, after_s: float = 1.0) -> list[tuple[str, Settled]]:
    """Settle what can settle, some seconds after the first prediction."""
    return list(judge.settle(now=START_MS / 1000 + after_s))


def entries(found: list[tuple[str, Settled]]) -> list[str]:
    """Return the ids of what has settled."""
    return [where for where, _ in found]


# --- order ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_settled_in_the_order_of_predictions(seed: int) -> None:
    """Whatever the order in which labels arrive, predictions settle in their own."""
    it, order, found = judge(), list(range(20)), []
    for n in order:
        it.see_audit(entry(n), WIN)
    random.Random(seed).shuffle(order)
    for n in order:
        tell(it, entry(n), "a")
        found += settled(it)
    assert entries(found) == [entry(n) for n in range(20)]


def test_the_first_unlabelled_one_holds_up_the_others() -> None:
    """Nothing settles past a prediction that still may get its label."""
    it = judge()
    for n in range(3):
        it.see_audit(entry(n), WIN)
    tell(it, entry(1), "a")
    tell(it, entry(2), "a")
    assert settled(it) == []
    assert (it.waiting, it.trials[KEY].n) == (3, 0)
    tell(it, entry(0), "a")
    assert entries(settled(it)) == [entry(0), entry(1), entry(2)]
    assert (it.waiting, it.trials[KEY].n) == (0, 3)


def test_the_deadline_settles_what_nobody_answered() -> None:
    """At the deadline, and not before, an unlabelled prediction settles without a point."""
    it = judge()
    it.see_audit(entry(0), WIN)
    it.see_audit(entry(1), WIN)
    tell(it, entry(1), "a")
    assert settled(it, after_s=DEADLINE_S) == []
    found = settled(it, after_s=DEADLINE_S + 0.002)
    assert outcome(found) == [(False, {}), (True, {NAME: 1.0})]
    assert (it.answered, it.unanswered) == (1, 1)


def test_an_answer_that_tells_no_truth_waits_for_one() -> None:
    """A signal that does not say what is right leaves the audit open until the deadline."""
    it = judge()
    it.see_audit(entry(0), WIN)
    tell(it, entry(0), None)
    assert settled(it) == []
    assert outcome(settled(it, after_s=DEADLINE_S + 1)) == [(True, {})]
    assert (it.answered, it.unanswered) == (1, 0)


def test_a_label_after_the_deadline_is_too_late() -> None:
    """A prediction that has settled as unanswered stays so."""
    it = judge()
    it.see_audit(entry(0), WIN)
    settled(it, after_s=DEADLINE_S + 1)
    tell(it, entry(0), "a")
    assert settled(it, after_s=DEADLINE_S + 2) == []
    assert it.trials[KEY].n == 0


def test_entries_sort_as_the_stream_does() -> None:
    """Ids compare as numbers, milliseconds first."""
    found = ["9-0", "10-2", "10-10", "1700000000000-0"]
    assert sorted(found, key=entry_order) == found
    assert entry_order("5") == (5, 0)


# --- points ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "d", "scores"),
    [(WIN, 1.0, (0.0, 1.0)), (LOSS, -1.0, (1.0, 0.0)), (TIE, 0.0, (1.0, 1.0))],
)
def test_points(record: Audit, d: float, scores: tuple[float, float]) -> None:
    """A point says who alone was right, and the scores say of each whether it was."""
    it = judge()
    it.see_audit(entry(0), record)
    tell(it, entry(0), "a")
    assert settled(it) == [
        (
            entry(0),
            Settled(
                answered=True,
                rater="human:ada",
                asked={NAME: d != 0.0},
                points={NAME: d},
                generation=5,
                scores=dict(zip(("champion", "challenger:2"), scores, strict=True)),
            ),
        )
    ]


def test_one_point_a_prediction() -> None:
    """Five raters on one answer make one point, and the last of them stands."""
    it = judge()
    it.see_audit(entry(0), WIN)
    for said in ("a", "a", "a", "a", "b"):
        tell(it, entry(0), said)
    [(_, item)] = settled(it)
    assert item.points == {NAME: -1.0}
    tell(it, entry(0), "a")
    assert settled(it) == []
    assert (it.trials[KEY].n, it.answered) == (1, 1)


def test_a_signal_without_truth_does_not_take_one_back() -> None:
    """What was said about the truth stands when a later signal says nothing about it."""
    it = judge()
    it.see_audit(entry(0), WIN)
    tell(it, entry(0), "a")
    tell(it, entry(0), None)
    assert settled(it)[0][1].points == {NAME: 1.0}


def test_no_evidence_from_unaudited_predictions() -> None:
    """A signal on a prediction that no coin drew counts for nothing."""
    it = judge()
    tell(it, entry(0), "a")
    assert settled(it, after_s=DEADLINE_S + 1) == []
    assert (it.answered, it.trials[KEY].n) == (0, 0)


@pytest.mark.parametrize(
    "record",
    [
        audit(champion="b"),
        audit(challenger_2="a"),
        audit(champion="b", challenger_3="a"),
        audit(generation=4, champion="b", challenger_2="a"),
        audit(generation=6, champion="b", challenger_2="a"),
    ],
    ids=["no challenger", "no reference", "another", "before", "after"],
)
def test_a_record_counts_only_under_its_key(record: Audit) -> None:
    """Both roles must have answered, at prediction time, under the generation of the duel."""
    it = judge()
    it.see_audit(entry(0), record)
    tell(it, entry(0), "a")
    [(_, item)] = settled(it)
    assert (item.answered, item.asked, item.points) == (True, {}, {})
    assert (it.trials[KEY].n, it.trials[KEY].audited) == (0, 0)


def test_number_scores() -> None:
    """Numbers are scored by their distance, over the reference's error so far."""
    it = judge()
    for n, (champion, challenger) in enumerate([(6.0, 10.0), (8.0, 10.0), (10.0, 12.0)]):
        it.see_audit(entry(n), audit(champion=champion, challenger_2=challenger))
        tell(it, entry(n), 10.0)
    points = [item.points[NAME] for _, item in settled(it)]
    assert points == [0.0, pytest.approx(2 / 8), pytest.approx(-2 / 6)]


# --- who says it ----------------------------------------------------------------------------------


def test_an_auditor_stands_over_everybody_else() -> None:
    """What an auditor said stands, whatever others say later; it needs no raise of the null."""
    it = judge(gamma=1.5)
    it.see_audit(entry(0), WIN)
    tell(it, entry(0), "a", "human:eve", auditor=True)
    tell(it, entry(0), "b")
    [(_, item)] = settled(it)
    assert (item.points, item.auditor) == ({NAME: 1.0}, True)
    assert it.trials[KEY].log_e > judged([1.0], gamma=1.5).log_e


def test_one_rater_alone_decides_nothing() -> None:
    """With a share of a tenth, one rater's hundredth answer counts no more than the first."""
    it = judge(rater_share=0.1)
    for n in range(100):
        it.see_audit(entry(n), WIN)
        tell(it, entry(n), "a", "human:ada")
    found = settled(it)
    assert sum(NAME in item.points for _, item in found) == 1
    assert sum(item.capped == [NAME] for _, item in found) == 99
    assert (it.trials[KEY].n, it.trials[KEY].capped) == (1, 99)


def test_answers_on_which_both_agree_use_up_no_share() -> None:
    """Only evidence that decides something is capped."""
    it = judge(rater_share=0.1)
    for n in range(50):
        it.see_audit(entry(n), TIE)
        tell(it, entry(n), "a")
    settled(it)
    assert (it.trials[KEY].n, it.trials[KEY].capped) == (50, 0)


def test_many_raters_share_the_evidence() -> None:
    """Twenty raters of equal zeal are all heard; one of ten times their zeal gets a tenth."""
    it, rng = judge(rater_share=0.1), random.Random(1)
    names = [f"human:{n}" for n in range(20)] + ["human:zealot"] * 10
    for n in range(600):
        it.see_audit(entry(n), WIN)
        tell(it, entry(n), "a", rng.choice(names))
    found = [item.rater for _, item in settled(it) if item.points]
    share = found.count("human:zealot") / len(found)
    assert 0.08 < share < 0.12
    assert len(found) > 390


def test_responses_are_counted_where_roles_agree_and_where_not() -> None:
    """Unanswered audits are known apart where the models disagreed."""
    it = judge()
    for n, record in enumerate([WIN, WIN, TIE, TIE, TIE]):
        it.see_audit(entry(n), record)
    for n in (0, 2, 3):
        tell(it, entry(n), "a")
    settled(it, after_s=DEADLINE_S + 1)
    assert it.trials[KEY].responses.numbers() == {
        "response_where_agreed": pytest.approx(2 / 3),
        "response_where_differed": 0.5,
        "unanswered_where_differed": 1,
    }


# --- thumbs, and exposure -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "champion", "challenger", "d"),
    [
        (Said(right="a"), "a", "b", -1.0),
        (Said(wrong="a"), "a", "b", 0.0),
        (Said(wrong="a"), "a", "a", 0.0),
        (Said(wrong="a"), "b", "a", -1.0),
        (Said(wrong="a"), "b", "c", -1.0),
        (Said(liked=True), 2.0, 2.0, 0.0),
        (Said(liked=True), ["a", "b"], ["b", "a"], -1.0),
        (Said(liked=True), ["a", "b", "c"], ["a", "c", "b"], 0.0),
    ],
)
def test_what_is_left_open_counts_as_the_least(
    said: Said, champion: Output, challenger: Output, d: float
) -> None:
    """Where a judgement leaves open what another answer is worth, it never helps a challenger."""
    it = judge()
    it.see_audit(entry(0), audit(champion=champion, challenger_2=challenger))
    tell(it, entry(0), said)
    [(_, item)] = settled(it, after_s=DEADLINE_S + 1)
    assert item.points == {NAME: d}


def test_a_failed_shadow_has_lost() -> None:
    """A role that failed on a question was wrong there, and does not drop out."""
    roles = {"champion": "a", "challenger:2": None}
    shadows = {
        role: Shadow(version=1, lineage=1, step=1, output=output, failed=output is None)
        for role, output in roles.items()
    }
    it = judge()
    it.see_audit(entry(0), Audit(generation=5, roles=shadows))
    tell(it, entry(0), "a")
    assert settled(it)[0][1].points == {NAME: -1.0}


def test_who_says_wrong_may_still_correct_it() -> None:
    """A thumbs-down among many labels waits for the right one; a correction settles it."""
    it = judge()
    it.see_audit(entry(0), WIN)
    tell(it, entry(0), Said(wrong="b"))
    assert settled(it) == []
    tell(it, entry(0), "a")
    assert settled(it)[0][1].points == {NAME: 1.0}


def test_exposed_answers_speak_by_their_reward() -> None:
    """What a coin let the challenger answer makes no paired point, and a rewarded one."""
    it = judge(least_propensity=0.05)
    chances = {"champion": 0.95, "challenger:2": 0.05}
    it.see_audit(entry(0), WIN.model_copy(update={"shown": "challenger:2", "chances": chances}))
    tell(it, entry(0), Said(right="a", reward=1.0))
    it.see_audit(entry(1), WIN.model_copy(update={"chances": chances}))
    tell(it, entry(1), Said(right="a", reward=0.0))
    first, second = (item for _, item in settled(it))
    assert (first.points, first.rewards) == ({}, {NAME: 1.0})
    assert (second.points, second.rewards) == ({NAME: 1.0}, {NAME: 0.0})
    exposed = it.trials[KEY].exposed
    assert exposed is not None
    assert exposed.estimate == pytest.approx((0.5 / 0.05 + 0.75 / 0.95) / 2)


def test_rewards_compare_only_what_could_have_been_shown() -> None:
    """Where the challenger could not be drawn, or failed, a reward says nothing about the pair."""
    it = judge(least_propensity=0.05)
    for n, chances in enumerate([{}, {"champion": 1.0}, {"champion": 0.9, "challenger:3": 0.1}]):
        it.see_audit(entry(n), WIN.model_copy(update={"chances": chances}))
        tell(it, entry(n), Said(right="a", reward=0.0))
    assert [item.rewards for _, item in settled(it)] == [{}, {}, {}]


def test_a_signal_after_the_deadline_is_too_late_whenever_it_is_read() -> None:
    """Read from a backlog, what came in time counts and what came later does not."""
    it = judge()
    for n in (0, 1):
        it.see_audit(entry(n), WIN)
        tell(it, entry(n), "a", at_ms=START_MS + 1000 * (DEADLINE_S - 0.5 + n))
    assert outcome(settled(it, after_s=10 * DEADLINE_S)) == [(True, {NAME: 1.0}), (False, {})]


def test_an_auditor_who_tells_nothing_displaces_nobody() -> None:
    """What a user corrected stands when an auditor's signal says nothing."""
    it = judge()
    it.see_audit(entry(0), WIN)
    tell(it, entry(0), "a")
    tell(it, entry(0), Said(), "human:eve", auditor=True)
    [(_, item)] = settled(it)
    assert (item.points, item.auditor) == ({NAME: 1.0}, False)


def test_with_a_margin_ties_are_capped_as_well() -> None:
    """Where ties are evidence too, one rater's ties count no more often than one's losses."""
    it = judge(duels=[Duel("challenger:2", "champion", version=2, margin=0.05)], rater_share=0.1)
    for n in range(50):
        it.see_audit(entry(n), LOSS if n % 5 == 0 else TIE)
        tell(it, entry(n), "a", "human:ada")
    settled(it)
    assert (it.trials[KEY].n, it.trials[KEY].capped) == (1, 49)


def test_one_outlier_does_not_blind_the_test_of_numbers() -> None:
    """After a correction of a thousand million, harm of a few errors is still seen."""
    it = judge()
    answers = [(9.0, 9.0, 10.0)] * 20 + [(9.0, 9.0, 1e9)] + [(9.0, 5.0, 10.0)] * 5
    for n, (champion, challenger, right) in enumerate(answers):
        it.see_audit(entry(n), audit(champion=champion, challenger_2=challenger))
        tell(it, entry(n), right, f"human:{n}")
    points = [item.points[NAME] for _, item in settled(it)]
    assert points[-1] < -0.9


# --- duels ----------------------------------------------------------------------------------------


def test_a_new_generation_begins_anew() -> None:
    """Where the reference moves, old evidence is dropped and survivors are new candidates."""
    it = judge()
    it.see_audit(entry(0), WIN)
    tell(it, entry(0), "a")
    settled(it)
    assert (it.trials[KEY].n, it.candidates) == (1, 1)
    it.open([DUEL], ALIASES.model_copy(update={"generation": 6}))
    [(key, trial)] = it.trials.items()
    assert key == "challenger:2>champion@6"
    assert (trial.n, trial.k, it.candidates) == (0, 2, 2)


def test_an_open_duel_goes_on() -> None:
    """Asking for the same duel again changes nothing; one no longer asked for is dropped."""
    it = judge()
    it.see_audit(entry(0), WIN)
    tell(it, entry(0), "a")
    settled(it)
    third = Duel("challenger:3", "champion", version=3)
    it.open([DUEL, third], ALIASES)
    assert [(trial.n, trial.k) for trial in it.trials.values()] == [(1, 1), (0, 2)]
    it.open([third], ALIASES)
    assert list(it.trials) == ["challenger:3>champion@5"]


def test_a_detector_is_no_candidate() -> None:
    """Watching what is served uses up none of the level for promotions."""
    it = judge(duels=[Duel("anchor", "champion", detector=True)])
    assert it.candidates == 0


def test_a_duel_restarts_as_another_candidate() -> None:
    """A test that begins anew has no memory, another name, and counts as a candidate."""
    it, names = judge(), []
    for n in range(6):
        it.see_audit(entry(n), LOSS)
        tell(it, entry(n), "a")
    for n, (_, item) in enumerate(it.settle(now=START_MS / 1000)):
        names += item.points
        if n == 3:
            it.restart([KEY])
    assert names == [NAME] * 4 + [f"{KEY}#2"] * 2
    trial = it.trials[KEY]
    assert (trial.n, trial.k, it.candidates) == (2, 2, 2)
    assert trial.log_e == pytest.approx(_log_e([-1.0, -1.0]))


def judged(points: list[float], **terms: Any) -> Any:
    """Return a trial after these points, each from another rater."""
    it = judge(**terms)
    for n, d in enumerate(points):
        it.see_audit(entry(n), WIN if d > 0 else LOSS)
        tell(it, entry(n), "a", f"human:{n}")
    settled(it)
    return it.trials[KEY]


def _log_e(d: list[float]) -> float:
    test = BettingTest.fresh(0.0)
    for value in d:
        test.update(value)
    return test.log_e


def test_the_caller_may_stop_between_two() -> None:
    """Nothing after the one that is yielded has been counted yet."""
    it = judge()
    for n in range(3):
        it.see_audit(entry(n), WIN)
        tell(it, entry(n), "a")
    steps = it.settle(now=START_MS / 1000)
    next(steps)
    assert (it.trials[KEY].n, it.waiting, it.settled) == (1, 2, entry(0))
    assert entries(settled(it)) == [entry(1), entry(2)]


def test_the_null_is_raised() -> None:
    """Each duel is judged against the raised null."""
    it = judge(gamma=1.5)
    it.see_audit(entry(0), WIN)
    tell(it, entry(0), "a")
    settled(it)
    assert 0 < it.trials[KEY].log_e < _log_e([1.0])


# --- restarts -------------------------------------------------------------------------------------

Event = tuple[Callable[..., None], str, Any]


def events(seed: int) -> list[tuple[str, str, Any]]:
    """Return audits and the signals on them, delayed at random, as they would be read."""
    rng, found = random.Random(seed), []
    for n in range(60):
        record = audit(champion=rng.choice("ab"), challenger_2=rng.choice("aab"))
        found.append((float(n), "audit", entry(n), record))
        for _ in range(rng.choice([0, 1, 1, 2])):
            said = rng.choice(["a", "a", "b", None])
            found.append((n + rng.expovariate(0.1), "signal", entry(n), said))
    found.sort(key=lambda item: item[0])
    return [item[1:] for item in found]


def feed(it: Judge, what: str, where: str, value: Any) -> None:
    """Have the judge see one event."""
    if what == "audit":
        it.see_audit(where, value)
    else:
        tell(it, where, value)


@pytest.mark.parametrize("seed", range(8))
def test_a_restart_changes_nothing(seed: int) -> None:
    """Restarted at any event, a judge that reads again what is pending finds the same bits."""
    stream = events(seed)
    whole, expected = judge(gamma=1.5), []
    for event in stream:
        feed(whole, *event)
        expected += settled(whole)
    expected += settled(whole, after_s=DEADLINE_S + 1)
    for cut in range(0, len(stream), 7):
        it, found = judge(gamma=1.5), []
        for event in stream[:cut]:
            feed(it, *event)
            found += settled(it)
        kept = it.state(now=0.0).pack()
        it = judge(GateState.model_validate_json(kept), gamma=1.5)
        for event in stream[:cut]:  # what is still pending is read again
            feed(it, *event)
        for event in stream[cut:]:
            found += settled(it)
            feed(it, *event)
        found += settled(it)
        found += settled(it, after_s=DEADLINE_S + 1)
        assert [where for where, _ in found] == [where for where, _ in expected]
        assert found == expected
        assert it.state(now=0.0) == whole.state(now=0.0)


def test_state_is_plain_json() -> None:
    """The state of a judge, detectors that have seen nothing included, is valid JSON."""
    it = judge(duels=[DUEL, Duel("anchor", "champion", detector=True)])
    state = json.loads(it.state(now=1.0).pack())
    assert set(state["trials"]) == {KEY, "anchor>champion@5"}
    twin = judge(
        GateState.model_validate(state), duels=[DUEL, Duel("anchor", "champion", detector=True)]
    )
    assert twin.trials["anchor>champion@5"].log_e == -math.inf
    assert twin.state(now=1.0) == it.state(now=1.0)
