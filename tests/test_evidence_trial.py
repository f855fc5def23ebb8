"""Trials: what one settled audit says in a duel, and what is counted of it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_learner.evidence import (
    Case,
    Duel,
    Segments,
    Standing,
    Terms,
    Trial,
    Unpaired,
    account,
    caveat,
    difference,
    log_threshold_spent,
    missed,
    numbers,
    outlook,
    paired_loss,
    paired_score,
)
from online_learner.evidence.unpaired import BASE
from online_learner.schema import Aliases, Audit, Output, Said, Settled, Shadow

DUEL = Duel("challenger:2", "champion", version=2)
ANCHOR = Duel("anchor", "champion", detector=True)
NAME = "challenger:2>champion@1#1"
LABELS = ("a", "b", "c")


def settled(d: float | None, rater: str = "r", **fields: Any) -> Settled:
    """Return one settled audit with this point."""
    points = {} if d is None else {NAME: d}
    given_: dict[str, Any] = {"answered": d is not None, "asked": {NAME: bool(d)}}
    return Settled(**{**given_, "rater": rater, "points": points, **fields})


def fought(points: list[float | None], terms: Terms | None = None, duel: Duel = DUEL) -> Trial:
    """Return a trial after these points; None is an audit that nobody answered."""
    trial = Trial.fresh(duel, k=1, terms=terms or Terms())
    for n, d in enumerate(points):
        trial.fold(NAME, settled(d, f"rater {n}"))
    return trial


# --- differences ----------------------------------------------------------------------------------


def worth(output: Output, right: str) -> float:
    """Return what an answer is worth where the right one is known."""
    return float(output == right)


@given(st.sampled_from(LABELS), st.sampled_from(LABELS), st.sampled_from(LABELS))
def test_wrong_is_the_least_that_it_can_mean(wrong: str, one: str, other: str) -> None:
    """Whatever is right, a challenger gains no more by a thumbs-down than it would by the truth."""
    d = difference(Said(wrong=wrong), one, other)
    assert d is not None
    truths = [label for label in LABELS if label != wrong]
    least = min(worth(one, right) - worth(other, right) for right in truths)
    assert d <= least


@given(st.sampled_from(LABELS), st.sampled_from(LABELS), st.sampled_from(LABELS))
def test_right_tells_everything(right: str, one: str, other: str) -> None:
    """Where the right label is known, the difference is that of both scores."""
    assert difference(Said(right=right), one, other) == worth(one, right) - worth(other, right)


def test_what_was_liked_speaks_of_what_was_shown() -> None:
    """A liked number beats one that is far from it, only where the reference's own was shown."""
    liked = Said(liked=True)
    assert difference(liked, 3.0, 2.0, scale=4.0) == -0.25
    assert difference(liked, 3.0, 2.0, scale=4.0, shown=False) is None
    assert difference(Said(reward=1.0), 3.0, 2.0, scale=4.0) is None
    assert difference(Said(), "a", "b") is None


def test_a_role_without_a_number_has_lost() -> None:
    """A failure on a number is the largest loss, whichever role it is."""
    assert paired_loss(1.0, None, 5.0, 2.0) == -1.0
    assert paired_loss(1.0, 5.0, None, 2.0) == 1.0
    assert paired_loss(1.0, None, None, 2.0) == 0.0


@pytest.mark.parametrize(
    ("truth", "challenger", "reference", "d"),
    [
        ("a", "a", "b", 1.0),
        ("a", "b", "a", -1.0),
        ("a", "a", "a", 0.0),
        ("a", "b", "c", 0.0),
        (True, 1, True, -1.0),
        (1, True, "1", 0.0),
    ],
)
def test_paired_score(truth: object, challenger: object, reference: object, d: float) -> None:
    """A label counts for whoever alone was right, and `True` is neither `1` nor `"1"`."""
    assert paired_score(truth, challenger, reference) == d


@given(*[st.floats(-1e15, 1e15)] * 3, st.floats(0, 1e15))
def test_paired_loss_is_bounded_and_fair(
    truth: float, left: float, right: float, scale: float
) -> None:
    """A number's difference is in [-1, 1], and turns its sign when the roles are exchanged."""
    d = paired_loss(truth, left, right, scale)
    assert -1.0 <= d <= 1.0
    assert d == -paired_loss(truth, right, left, scale)


def test_number_is_scaled_by_the_past_alone() -> None:
    """The first number has no past and counts for nothing; the next by twice the mean error."""
    trial = Trial.fresh(Duel("a", "champion"), k=1, terms=Terms())
    found = []
    for truth, challenger, reference in [(10.0, 10.0, 6.0), (10.0, 10.0, 8.0), (10.0, 13.0, 10.0)]:
        roles = {
            "a": Shadow(version=2, lineage=1, step=0, output=challenger),
            "champion": Shadow(version=1, lineage=1, step=0, output=reference),
        }
        reading = trial.read(Audit(generation=1, roles=roles), Standing(Said(right=truth), "ada"))
        assert reading is not None
        found.append(reading.d)
    assert found == [0.0, pytest.approx(2.0 / (2 * 4.0)), pytest.approx(-3.0 / (2 * 3.0))]


# --- counting -------------------------------------------------------------------------------------


def test_what_is_counted() -> None:
    """Points, wins and losses, audits and responses each have their count."""
    trial = fought([1.0, -0.5, 0.0, None])
    assert (trial.n, trial.wins, trial.losses, trial.total) == (3, 1, 1, 0.5)
    assert trial.audited == 4
    found = numbers(trial, math.log(100))
    assert found["mean"] == pytest.approx(0.5 / 3)
    assert found["response_where_agreed"] == 0.5
    assert found["response_where_differed"] == 1.0


def test_an_audit_of_another_test_changes_nothing() -> None:
    """Only what was asked under the name of the test counts."""
    trial = fought([1.0])
    before = trial.pack()
    trial.fold("challenger:2>champion@1#2", settled(1.0))
    assert trial.pack() == before


@given(
    st.lists(st.one_of(st.none(), st.floats(-1, 1)), max_size=30),
    st.booleans(),
    st.sampled_from([0.0, 0.02]),
)
def test_pack_and_unpack(points: list[float | None], detector: bool, least: float) -> None:
    """A trial read back from JSON is the same trial, and stays it."""
    duel = Duel("anchor", "champion", detector=detector)
    terms = Terms(gamma=1.5, malice=0.1, rater_share=0.1, least_propensity=least)
    trial = fought(points, terms, duel)
    twin = Trial.unpack(json.loads(json.dumps(trial.pack())))
    assert twin.pack() == trial.pack()
    for one in (trial, twin):
        chances = {"champion": 0.9, "challenger:2": 0.1, "anchor": 0.1}
        seen = {"rewards": {NAME: 1.0}, "chances": chances}
        one.fold(NAME, settled(1.0, segments={"country": "de"}, **seen))
    assert twin.pack() == trial.pack()
    assert twin.log_e == trial.log_e


def test_both_tests_share_the_level_of_a_candidate() -> None:
    """Where roles are exposed as well, the e-value is the mean of both."""
    terms = Terms(least_propensity=0.05)
    trial = fought([1.0] * 20, terms)
    alone = fought([1.0] * 20)
    assert trial.exposed is not None
    assert trial.exposed.n == 0
    assert trial.log_e == pytest.approx(math.log((math.exp(alone.log_e) + 1) / 2))


def test_a_margin_lets_an_equal_one_win() -> None:
    """With a margin, ties are evidence that the challenger is not worse by more than that."""
    equal = [0.0] * 300
    assert fought(equal).log_e == 0.0
    assert fought(equal, duel=Duel("challenger:2", "champion", margin=0.05)).reached(math.log(100))


def test_a_detector_alarms_on_evidence_alone() -> None:
    """A detector that has only seen agreement does not reach its goal, and wins bring it there."""
    trial = fought([0.0] * 200, duel=ANCHOR)
    assert not trial.reached(math.log(100))
    for _ in range(10):
        trial.fold(NAME, settled(1.0))
    assert trial.reached(math.log(100))


# --- in words -------------------------------------------------------------------------------------


def test_why_not_yet() -> None:
    """A challenger that is ahead is told how far it is, in labels and in requests."""
    trial = fought([1.0, 0.0] * 6, Terms(gamma=1.5, audit=0.1))
    goal = math.log(100)
    assert trial.log_e < goal
    labels = numbers(trial, goal)["labels_to_go"]
    assert isinstance(labels, int)
    assert numbers(trial, goal)["requests_to_go"] == pytest.approx(labels / 0.1, abs=1)
    assert f"About {labels:,} more labels, or {10 * labels:,} requests." in outlook(trial, goal)
    assert missed(trial, goal) == f" About {labels:,} more labels would have decided it."


def test_not_ahead_has_no_date() -> None:
    """A challenger that loses is not told when it will win."""
    trial = fought([-1.0, 1.0, -1.0])
    assert numbers(trial, 4.6)["labels_to_go"] is None
    assert "not ahead by enough to say when" in outlook(trial, 4.6)
    assert missed(trial, 4.6) == ""


def test_who_says_too_much_is_told_what_to_do() -> None:
    """Where most evidence is capped, the sentence says what to send."""
    trial = Trial.fresh(DUEL, k=1, terms=Terms(rater_share=0.1))
    for _ in range(20):
        trial.fold(NAME, settled(None, answered=True, capped=[NAME]))
    assert "each rater may give 10% of the evidence. Send `user_id`" in outlook(trial, 4.6)


def test_few_raters_are_waited_for() -> None:
    """Evidence enough from too few raters waits, and says for how many."""
    trial = fought([1.0] * 30, Terms(min_raters=31))
    assert not trial.reached(4.6)
    assert outlook(trial, 4.6).endswith("It waits for 31 raters.")


def test_a_caveat_says_on_whom_it_depends() -> None:
    """A decision states the null that it rests on, its break-even, and who answered."""
    trial = fought([1.0] * 30 + [None] * 10, Terms(gamma=1.5))
    said = caveat(trial, math.log(100))
    assert said.startswith("It holds if no outcome was over 1.5 times as likely to be answered")
    assert "answered were 0% where they agreed and 100% where not." in said
    assert "30 wins to 0 losses in 30 audited answers (+100.0 points" in account(trial, 4.6)


# --- segments -------------------------------------------------------------------------------------


def test_a_segment_needs_its_level() -> None:
    """The j-th segment is found worse at the j-th level of alpha spending, and not before."""
    segments = Segments.fresh(0.0, reverse=True)
    segments.fold(1.0, 0.0, {"country": "fr"})
    while segments.tests.get("country = de") is None or (
        segments.tests["country = de"].log_e < log_threshold_spent(0.01, k=2)
    ):
        assert segments.worst() is None
        segments.fold(-1.0, 0.0, {"country": "de"})
    found = segments.worst()
    assert found is not None
    assert found[0] == "country = de"


def test_the_alarm_names_who_is_worse() -> None:
    """The challenger of a test, and what is served where the anchor watches it."""
    for duel, d, role in ((DUEL, -1.0, "challenger:2"), (ANCHOR, 1.0, "champion")):
        trial = Trial.fresh(duel, k=1, terms=Terms())
        for _ in range(40):
            trial.fold(NAME, settled(d, segments={"country": "de"}))
        alarm = trial.alarm()
        assert alarm is not None
        assert (alarm.role, alarm.guard) == (role, "segment")
        assert Case(Aliases(champion=1), {"x": trial}, (), 0).segment_alarms() == [alarm]


# --- unpaired -------------------------------------------------------------------------------------


def judged(*parts: tuple[int, float, bool]) -> Unpaired:
    """Return the alarm after so many answers with this share of wrong ones, put right or not."""
    alarm = Unpaired()
    for count, share, put_right in parts:
        for n in range(count):
            bad = int((n + 1) * share) > int(n * share)
            wrong = Said(right="b") if put_right else Said(wrong="a")
            alarm.see(wrong if bad else Said(right="a"), "a")
    return alarm


def test_more_wrong_answers_than_usual() -> None:
    """Half of the answers wrong, where a tenth was usual, is an alarm within a hundred."""
    assert judged((BASE + 2000, 0.1, False)).alarm() is None
    alarm = judged((BASE, 0.1, False), (100, 0.5, False)).alarm()
    assert alarm is not None
    assert (alarm.role, alarm.guard) == ("champion", "unpaired")


def test_where_answers_are_put_right_pairs_tell_more() -> None:
    """With corrections the anchor can be compared, and the alarm is silent."""
    assert judged((BASE, 0.1, False), (300, 0.5, True)).alarm() is None


def test_the_alarm_survives_a_restart() -> None:
    """Read back from JSON it is the same."""
    alarm = judged((BASE, 0.1, False), (30, 0.5, False))
    assert Unpaired.unpack(json.loads(json.dumps(alarm.pack()))).pack() == alarm.pack()


def test_where_nearly_all_is_wrong_there_is_nothing_to_watch() -> None:
    """Where complaints are all that anybody sends, no number of them is an alarm."""
    assert judged((BASE + 5000, 1.0, False)).alarm() is None
    assert judged((BASE + 5000, 0.97, False)).alarm() is None
