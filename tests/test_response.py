"""Who answers: planted silences are found, made up for, and told; where there are none, nothing."""

from __future__ import annotations

import json
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from online_learner.loop import Loop
from online_learner.schema import Ask, Feedback, Option, Prediction, Settled, Sighting, Signal, Task
from policies.response import Response
from policies.response.proof import Proof
from policies.response.rates import BLOCK, Rates, chance
from policies.signals import Signals

LABELS = [False, True]
Speaks = Callable[[bool, float], float]  # of whether it is right, and the confidence


def wrong_ones(right: bool, _sure: float) -> float:
    """Return the chance where wrong answers are spoken of five times as often."""
    return 0.08 if right else 0.4


def sure_ones(_right: bool, sure: float) -> float:
    """Return the chance where the surest answers are spoken of five times as often."""
    return 0.4 if sure > 0.9 else 0.08


def all_alike(_right: bool, _sure: float) -> float:
    """Return a chance that depends on nothing."""
    return 0.15


def always(_right: bool, _sure: float) -> float:
    """Return the chance where nobody is silent."""
    return 1.0


def half(_right: bool, _sure: float) -> float:
    """Return the chance where every second one is, whatever the answer."""
    return 0.5


def answer(task: Task = "classification", **changes: Any) -> Prediction:
    """Return an answer."""
    scores = {"false": 0.2, "true": 0.8} if task == "classification" else {}
    known: dict[str, Any] = {"features": {"a": 1.0}, "output": True, "scores": scores}
    return Prediction(model="m", version=1, lineage=1, step=1, **(known | changes))


def signal(
    prediction: Prediction,
    value: Any = LABELS[1],
    *,
    entry: str = "1-0",
    kind: str = "correction",
    task: Task = "classification",
    **changes: Any,
) -> Signal:
    """Return what somebody says of an answer."""
    known: dict[str, Any] = {"source": "human:ada", "prediction_id": "p"}
    feedback = Feedback(kind=kind, value=value, **(known | changes))
    labels: Any = LABELS if task == "classification" else None
    return Signal(feedback, prediction, Signals(task, labels).said(feedback, prediction), entry, 1)


def audited(prediction: Prediction) -> Prediction:
    """Return the answer as one that a coin drew."""
    return prediction.model_copy(update={"ask": Ask(reason="audit", probability=0.1)})


def show(
    lens: Response,
    speaks: Speaks,
    *,
    n: int = 4000,
    seed: int = 0,
    auditor: float = 1.0,
    at: int = 0,
) -> float:
    """Let a lens look on at `n` answers; returns the share of right ones.

    An answer is right with the probability that its score says. One in ten is audited, and an
    auditor answers the share `auditor` of those; where that is 0, people do as ever.
    """
    rng, rights = random.Random(seed), 0
    for number in range(at, at + n):
        sure, truth, entry = rng.uniform(0.5, 1.0), rng.random() < 0.4, f"{number}-0"
        right = rng.random() < sure
        rights += right
        output = truth if right else not truth
        scores = {"true": sure if output else 1 - sure, "false": 1 - sure if output else sure}
        prediction = answer(features={"a": rng.gauss(0, 1)}, output=output, scores=scores)
        if number % 10 == 0:
            prediction = audited(prediction)
        by_auditor = prediction.audited and rng.random() < auditor
        spoke = by_auditor or (
            rng.random() < speaks(right, sure) and not (prediction.audited and auditor)
        )
        source = "human:auditor" if by_auditor else f"human:{number % 50}"
        said = signal(prediction, truth, entry=entry, source=source, auditor=by_auditor)
        if spoke:
            lens.hear(said)
        if prediction.audited:
            lens.settle(entry, Settled(answered=spoke, auditor=by_auditor))
        lens.see(Sighting(entry, number, prediction, (said.feedback,) if spoke else ()))
        lens.table()
    return rights / n


def lens_of(**arguments: Any) -> Response:
    """Return a lens on answers with two labels."""
    return Response("classification", LABELS, **arguments)


def observed(
    speaks: Speaks, *, n: int = 4000, seed: int = 0, auditor: float = 1.0, **arguments: Any
) -> tuple[Response, float]:
    """Return a lens that has looked on at `show`, and the share of right answers."""
    state, truth = _shown(speaks, n, seed, auditor)
    lens = lens_of(**arguments)
    lens.restore(json.loads(state))
    return lens, truth


@cache
def _shown(speaks: Speaks, n: int, seed: int, auditor: float) -> tuple[str, float]:
    lens = lens_of()
    truth = show(lens, speaks, n=n, seed=seed, auditor=auditor)
    return json.dumps(lens.state()), truth


def learner_of(lens: Response) -> Response:
    """Return the learner's instance, told what the lens says, as text."""
    told = lens_of()
    told.adopt(json.loads(json.dumps(lens.table())))
    return told


# --- what is estimated ----------------------------------------------------------------------------


@pytest.mark.parametrize("speaks", [wrong_ones, sure_ones])
@pytest.mark.parametrize("seed", range(3))
def test_the_share_of_right_answers_is_corrected_for_who_speaks(speaks: Speaks, seed: int) -> None:
    """The corrected estimate is off by a third at most of what those who speak are off by."""
    lens, truth = observed(speaks, seed=seed)
    told = lens.report()["estimates"]
    off = {name: abs(told[name]["score"] - truth) for name in told}
    assert off["volunteered"] > 0.07
    assert off["corrected"] < off["volunteered"] / 3
    assert told["corrected"]["low"] < truth < told["corrected"]["high"]


def test_people_who_speak_of_wrong_answers_are_told_apart_from_those_who_speak_of_all() -> None:
    """The odds that were planted lie within the bounds; where none were, so does 1."""
    found = {}
    for speaks in (wrong_ones, all_alike):
        lens, _ = observed(speaks)
        found[speaks] = lens.report()["silence"]["odds"]
    planted = (0.4 / 0.08, 1.0)
    for odds, true in zip(found.values(), planted, strict=True):
        assert odds["low"] < true < odds["high"]
    assert found[wrong_ones]["low"] > found[all_alike]["high"]


def test_without_audits_only_what_is_known_beforehand_is_corrected() -> None:
    """It helps where the surest are spoken of, not where the wrong are, and the report says so."""
    off = {}
    for speaks in (sure_ones, wrong_ones):
        lens, truth = observed(speaks, auditor=0.0)
        report = lens.report()
        assert report["estimates"]["audited"] is None
        assert report["silence"]["odds"] is None
        assert "no audits without bias" in report["weighing"]["sentence"]
        off[speaks] = {
            name: abs(report["estimates"][name]["score"] - truth)
            for name in ("volunteered", "corrected")
        }
    assert off[sure_ones]["corrected"] < off[sure_ones]["volunteered"] / 3
    assert off[wrong_ones]["corrected"] > off[wrong_ones]["volunteered"] / 2


def test_audits_that_ordinary_people_answer_only_bound_the_share() -> None:
    """Who is silent there may be silent for a reason: the truth is within the worst cases."""
    lens, truth = observed(wrong_ones, auditor=0.0)
    silence = lens.report()["silence"]
    low, high = silence["bounds"]
    assert low < truth < high
    assert "answered, by ordinary people" in silence["sentence"]


def test_audits_that_nearly_everybody_answers_count_as_drawn() -> None:
    """Where silence can hide little, it takes no auditor."""
    lens = lens_of()
    for n in range(100):
        prediction, entry = audited(answer()), f"{n}-0"
        lens.hear(signal(prediction, n % 2 == 0, entry=entry))
        lens.settle(entry, Settled(answered=True))
    assert lens.report()["estimates"]["audited"]["score"] == pytest.approx(0.5, abs=0.02)


def test_an_audit_may_settle_before_what_was_said_of_it_is_seen() -> None:
    """Two streams are read side by side: either may be ahead, and each audit counts once."""
    early, late = lens_of(), lens_of()
    for n in range(50):
        prediction, entry = audited(answer()), f"{n}-0"
        said = signal(prediction, True, entry=entry, auditor=True)
        settled = Settled(answered=True, auditor=True)
        early.hear(said)
        early.settle(entry, settled)
        late.settle(entry, settled)
        late.hear(said)
    counted = [lens.report()["estimates"]["audited"]["n"] for lens in (early, late)]
    assert counted == [50, 50]


def test_the_first_word_on_an_answer_is_the_one_that_counts() -> None:
    """Five people who say the same of one answer are one answer spoken of."""
    lens = lens_of()
    for n in range(5):
        lens.hear(signal(answer(), True, source=f"human:{n}"))
    assert lens.report()["estimates"]["volunteered"]["n"] == 1


# --- what lessons weigh ---------------------------------------------------------------------------


def test_lessons_weigh_in_inverse_proportion_to_the_chance_that_they_were_given() -> None:
    """Right ones count more, by the chances of both lanes together, whichever way they came."""
    lens, _ = observed(wrong_ones, weigh="on")
    told = learner_of(lens)
    right, wrong = (told.factor(signal(answer(), value)) for value in (True, False))
    assert right / wrong == pytest.approx((0.1 + 0.9 * 0.4) / (0.1 + 0.9 * 0.08), rel=0.25)
    assert told.factor(signal(audited(answer()), True, auditor=True)) == right


def test_answers_that_are_seldom_spoken_of_weigh_more() -> None:
    """What shows beforehand is made up for as well."""
    lens, _ = observed(sure_ones, weigh="on")
    told = learner_of(lens)
    unsure, sure = (
        told.factor(signal(answer(scores={"true": p, "false": 1 - p}), True)) for p in (0.75, 0.97)
    )
    assert unsure > 1.5 * sure


def test_lessons_weigh_one_on_average() -> None:
    """Learning is no faster for it, and no slower; nothing is beyond what was set."""
    lens, _ = observed(wrong_ones, weigh="on", clip=3.0)
    told = lens_of(clip=3.0)
    told.adopt(lens.table())
    rng, factors = random.Random(1), []
    for _ in range(3000):
        sure = rng.uniform(0.5, 1.0)
        right, drawn = rng.random() < sure, rng.random() < 0.1
        if drawn or rng.random() < wrong_ones(right, sure):
            prediction = answer(scores={"true": sure, "false": 1 - sure})
            factors.append(told.factor(signal(prediction, right)))
    assert np.mean(factors) == pytest.approx(1.0, abs=0.1)
    assert min(factors) >= 1 / 3.0
    assert max(factors) <= 3.0


@pytest.mark.parametrize(
    ("changes", "ask"),
    [
        ({"kind": "implicit", "value": {"event": "click", "value": None}}, None),
        ({"source": "system:rule"}, None),
        ({}, Ask(reason="gold", probability=1.0)),
    ],
    ids=["implicit", "system", "gold"],
)
def test_what_nobody_chose_to_say_weighs_what_it_did(
    changes: dict[str, Any], ask: Ask | None
) -> None:
    """Clicks, rules, and questions that an operator planted say nothing of who speaks."""
    lens, _ = observed(wrong_ones, weigh="on")
    told, before = learner_of(lens), lens.state()
    said = signal(answer(ask=ask), **changes)
    assert told.factor(said) == 1.0
    lens.hear(said)
    assert lens.state() == before


def test_who_was_told_nothing_weighs_nothing_anew() -> None:
    """A correction that is taken back is gone."""
    lens, _ = observed(wrong_ones, weigh="on")
    told = learner_of(lens)
    assert told.factor(signal(answer(), False)) != 1.0
    told.adopt({})
    assert told.factor(signal(answer(), False)) == 1.0


# --- when lessons are weighed ---------------------------------------------------------------------


@pytest.mark.parametrize("speaks", [wrong_ones, sure_ones])
def test_weighing_begins_once_it_has_won_on_audits(speaks: Speaks) -> None:
    """Before there is evidence the learner is told nothing; then it is told."""
    lens, _ = observed(speaks, n=200)
    assert lens.table() == {}
    show(lens, speaks, n=4800, at=200, seed=1)
    told = lens.report()["weighing"]
    assert told["on"]
    assert told["corrected"] > told["raw"]
    assert lens.table()


@pytest.mark.parametrize("seed", range(4))
def test_where_all_answers_are_spoken_of_alike_nothing_is_weighed(seed: int) -> None:
    """There is nothing to win."""
    lens, _ = observed(all_alike, seed=seed)
    assert not lens.report()["weighing"]["on"]
    assert lens.table() == {}


def began(
    speaks: Speaks,
    *,
    n: int,
    audit: float,
    seed: int,
    rights: tuple[float, float] = (0.05, 0.95),
    words: int = 0,
    audits: int = 0,
) -> int | None:
    """Return after how many answers weighing begins in a world that changes now and then.

    Parameters
    ----------
    rights
        The share of right answers, in turn.
    words, audits
        After how many further answers people speak, and audits settle.
    """
    lens, rng = lens_of(), random.Random(f"{seed} {audit}")
    heard: deque[tuple[int, Signal]] = deque()
    settled: deque[tuple[int, str]] = deque()
    for at in range(n):
        truth = rng.random() < rights[at // 200 % 2]
        sure, entry = 0.5 + 0.45 * (at % 200) / 200, f"{at}-0"
        prediction = answer(scores={"true": sure, "false": 1.0 - sure})
        drawn = rng.random() < audit
        prediction = audited(prediction) if drawn else prediction
        said = signal(prediction, truth, entry=entry, auditor=drawn)
        spoke = drawn or rng.random() < speaks(truth, sure)
        if drawn:
            lens.hear(said)
            settled.append((at + audits, entry))
        elif spoke:
            heard.append((at + words, said))
        while heard and heard[0][0] <= at:
            lens.hear(heard.popleft()[1])
        while settled and settled[0][0] <= at:
            lens.settle(settled.popleft()[1], Settled(answered=True, auditor=True))
        lens.see(Sighting(entry, at, prediction, (said.feedback,) if spoke else ()))
        if lens.table():
            return at
    return None


@pytest.mark.parametrize("late", [{}, {"words": 60}, {"audits": 60}], ids=str)
@pytest.mark.parametrize("speaks", [always, half])
@pytest.mark.parametrize("audit", [0.1, 0.9])
def test_a_world_that_changes_proves_nothing_of_who_speaks(
    audit: float, speaks: Speaks, late: dict[str, int]
) -> None:
    """Whoever learns of it sooner: where silence is unrelated, neither side wins but by chance."""
    runs = [began(speaks, n=800, audit=audit, seed=seed, **late) for seed in range(4)]
    assert runs == [None] * 4


@pytest.mark.parametrize("late", [{}, {"words": 60}, {"audits": 60}], ids=str)
def test_it_is_found_who_speaks_while_the_world_changes(late: dict[str, int]) -> None:
    """Whether people speak before auditors do, or after: wrong answers five times as often."""
    found = began(wrong_ones, n=4000, audit=0.3, seed=0, rights=(0.8, 0.5), **late)
    assert found is not None


@pytest.mark.parametrize(("weigh", "empty"), [("on", False), ("off", True), (False, True)])
def test_whether_to_weigh_may_be_set(weigh: Any, *, empty: bool) -> None:
    """Whatever the evidence; it is told beside that."""
    lens, _ = observed(wrong_ones, weigh=weigh)
    assert (lens.table() == {}) is empty
    told = lens.report()["weighing"]
    assert (told["mode"], told["on"]) == (weigh or "off", not empty)
    assert told["sentence"].endswith("so it is configured.")


def test_a_correction_that_loses_is_taken_back() -> None:
    """However long it was good before: the test turns round with each switch, and begins anew."""
    proof = Proof()
    good, bad = np.array([[0.1, 0.9]]), np.array([[0.9, 0.1]])
    switches = []
    for n in range(1000):
        before = proof.on
        raw, corrected = (bad, good) if n < 900 else (good, bad)
        proof.compare(raw, corrected, (0, 1), [(0, 0)])
        if proof.on != before:
            switches.append((n, proof.on))
    assert [on for _, on in switches] == [True, False]
    assert switches[0][0] < 15
    assert 900 <= switches[1][0] < 930


def test_a_correction_that_is_no_better_is_seldom_switched_on() -> None:
    """In alpha of the runs at most, however long one looks: here audits are like all others."""
    rng = np.random.default_rng(0)
    ever = 0
    for _ in range(60):
        proof = Proof(alpha=0.05)
        low, high = np.array([[0.7, 0.3]]), np.array([[0.3, 0.7]])
        for outcome in rng.integers(2, size=400):
            proof.compare(low, high, (0, int(outcome)), [(0, int(rng.integers(2)))])
            if proof.on:
                ever += 1
                break
    assert ever <= 0.05 * 60


# --- what is told ---------------------------------------------------------------------------------


def test_rates_are_told_by_what_answers_are() -> None:
    """By score, output, why a label was asked, and segment; each with bounds around its share."""
    lens = lens_of(segments=["country"])
    rng = random.Random(0)
    for n in range(2000):
        country, sure = rng.choice(["at", "de"]), rng.choice([0.65, 0.97])
        prediction = answer(features={"country": country}, scores={"true": sure, "false": 1 - sure})
        spoke = rng.random() < (0.5 if country == "at" else 0.1) * (1.5 if sure > 0.9 else 0.5)
        said = signal(prediction).feedback
        lens.see(Sighting(f"{n}-0", n, prediction, (said,) if spoke else ()))
    by = lens.report()["by"]
    assert [(row["score_low"], row["score_high"]) for row in by["score"]] == [
        (0.6, 0.7),
        (0.95, 0.99),
    ]
    assert by["score"][0]["high"] < by["score"][1]["low"]
    shares = {row["value"]: row for row in by["segment"]["country"]}
    assert shares["at"]["low"] < 0.5 < shares["at"]["high"]
    assert shares["de"]["low"] < 0.1 < shares["de"]["high"]
    assert [(row["value"], row["n"]) for row in by["output"]] == [("true", 2000)]
    assert [(row["value"], row["n"]) for row in by["asked"]] == [("no", 2000)]
    assert lens.report()["rate"]["n"] == 2000


def test_interfaces_are_counted_out_of_answers_shown() -> None:
    """Who was not shown it is not silent there; an interface that never tells so has no rate."""
    lens = lens_of()
    box = {"id": "box", "variant": "b", "position": 1}
    event = {"event": "feedback_shown", "value": None}
    for n in range(100):
        prediction = answer()
        shown = signal(prediction, event, kind="implicit", interface=box).feedback
        spoke = signal(prediction, interface=box).feedback
        other = signal(prediction, interface={"id": "mail"}).feedback
        signals = [[], [shown], [shown, spoke], [other]][n % 4]
        lens.see(Sighting(f"{n}-0", n, prediction, tuple(signals)))
    by = lens.report()["by"]
    assert [(row["value"], row["n"], row["k"]) for row in by["interface"]] == [("box/b", 50, 25)]
    assert [(row["value"], row["n"], row["k"]) for row in by["position"]] == [("1", 50, 25)]


def test_an_alarm_is_raised_where_people_fall_silent() -> None:
    """Once for all answers and once for the output; while nothing changes, none."""
    lens, rng = lens_of(), random.Random(0)
    raised = []
    for n in range(8000):
        spoke = rng.random() < (0.3 if n < 5000 else 0.1)
        said = (signal(answer()).feedback,) if spoke else ()
        lens.see(Sighting(f"{n}-0", n, answer(), said))
        raised += [(n, alarm) for alarm in lens.alarms()]
    assert [alarm.about for _, alarm in raised] == ["response", "response output true"]
    for n, alarm in raised:
        assert 5000 <= n < 5000 + 2 * BLOCK
        assert alarm.sentence.startswith("People speak less than before")
        assert alarm.numbers["before"] == pytest.approx(0.3, abs=0.03)
    assert lens.alarms() == []


def test_the_test_of_a_change_is_exact() -> None:
    """Doubled hypergeometric tails: by hand for four answers."""
    assert chance(2, 2, 2, 0) == pytest.approx(2 / 6)
    assert chance(2, 1, 2, 1) == 1.0
    assert chance(500, 60, 5000, 500) > 0.1
    assert chance(500, 150, 5000, 500) < 1e-12


def test_of_very_many_values_the_late_ones_are_one() -> None:
    """Memory and report stay as small whatever is asked."""
    lens = Response("classification", segments=["user"])
    for n in range(3000):
        prediction = answer(
            features={"user": f"u{n}", f"f{n}": 1.0}, output=f"label {n}", scores={}
        )
        lens.hear(signal(prediction, f"label {n % 7}", entry=f"{n}-0"))
        lens.see(Sighting(f"{n}-0", n, prediction))
    by = lens.report()["by"]
    assert len(by["output"]) == len(by["segment"]["user"]) == 51
    assert sum(row["n"] for row in by["output"]) == 3000
    assert len(json.dumps(lens.state())) < 300_000


# --- other tasks, and what is strange -------------------------------------------------------------


def test_numbers_are_judged_by_how_far_they_are_off() -> None:
    """People speak of large errors: the corrected mean closeness is nearer to that of audits."""
    lens, rng = Response("regression"), random.Random(0)
    for n in range(6000):
        error, entry = rng.gauss(0, 1), f"{n}-0"
        prediction = answer("regression", output=rng.uniform(10, 20))
        prediction = audited(prediction) if n % 5 == 0 else prediction
        spoke = prediction.audited or rng.random() < (0.5 if abs(error) > 1 else 0.1)
        said = signal(
            prediction,
            prediction.output + error,
            entry=entry,
            task="regression",
            auditor=prediction.audited,
        )
        if spoke:
            lens.hear(said)
        if prediction.audited:
            lens.settle(entry, Settled(answered=True, auditor=True))
        lens.see(Sighting(entry, n, prediction, (said.feedback,) if spoke else ()))
    report = lens.report()
    told = {name: estimate["score"] for name, estimate in report["estimates"].items()}
    assert told["audited"] - told["volunteered"] > 0.1
    assert abs(told["corrected"] - told["audited"]) < (told["audited"] - told["volunteered"]) / 3
    assert report["silence"]["odds"]["low"] > 2.0
    assert [row["score_low"] for row in report["by"]["score"]][:1] == [None]


def test_thumbs_on_a_ranking_are_good_or_bad() -> None:
    """A reward is as good as a right answer: down is 0, up is 1."""
    lens = Response("ranking")
    options = [Option(id="a"), Option(id="b")]
    for n in range(40):
        prediction = answer(
            "ranking", output=["a", "b"], options=options, scores={"a": 2.0, "b": 1.0}
        )
        lens.hear(signal(prediction, n % 4 > 0, entry=f"{n}-0", kind="thumbs", task="ranking"))
        lens.see(Sighting(f"{n}-0", n, prediction))
    assert lens.report()["estimates"]["volunteered"]["score"] == pytest.approx(0.75)


@pytest.mark.parametrize("task", ["classification", "regression", "ranking", "generation"])
def test_whatever_is_logged_is_taken(task: Task) -> None:
    """No output, score or input, huge numbers, long texts, nested values: all is still told."""
    lens = Response(task, LABELS if task == "classification" else None, weigh="on")
    features: list[dict[str, Any]] = [
        {},
        {"t": "w " * 5000},
        {"x": 1e300, "y": -1e300, "z": None},
        {"n": {"deep": [1]}, "b": True},
    ]
    for n in range(400):
        prediction = answer(task, features=features[n % 4], output=None, scores={})
        lens.hear(signal(prediction, n % 3 == 0, entry=f"{n}-0", kind="thumbs", task=task))
        lens.see(Sighting(f"{n}-0", n, prediction))
    report = lens.report()
    assert report["rate"]["n"] == 400
    told = Response(task, LABELS if task == "classification" else None)
    told.adopt(lens.table())
    assert 0.1 <= told.factor(signal(prediction, True, kind="thumbs", task=task)) <= 10.0
    json.dumps([report, lens.state(), lens.table()], allow_nan=False)


def test_what_was_withheld_says_nothing_of_the_answer() -> None:
    """People saw the fallback: how good the answer was is not what they speak of."""
    lens = lens_of()
    lens.hear(signal(answer(blocked=True), False, kind="thumbs"))
    assert lens.report()["estimates"]["volunteered"] is None


@pytest.mark.parametrize(
    "arguments",
    [{"weigh": "maybe"}, {"clip": 1.0}, {"clip": math.nan}, {"clip": "10"}, {"alpha": 0.0}],
    ids=str,
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    """With what is taken, by name."""
    with pytest.raises(ValueError, match=next(iter(arguments))):
        lens_of(**arguments)


# --- memory ---------------------------------------------------------------------------------------


def test_a_restart_changes_nothing() -> None:
    """State goes through text; what follows is the same to the last bit."""
    whole, first = lens_of(weigh="on"), lens_of(weigh="on")
    for lens in (whole, first):
        show(lens, wrong_ones, n=1500)
    second = lens_of(weigh="on")
    second.restore(json.loads(json.dumps(first.state())))
    for lens in (whole, second):
        show(lens, wrong_ones, n=500, seed=1, at=1500)
    assert second.report() == whole.report()
    assert second.table() == whole.table()
    assert second.state() == whole.state()


def test_a_fresh_start_is_empty() -> None:
    """Nothing was observed: no rate, no estimate, no alarm, and nothing for the learner."""
    lens = lens_of(weigh="on")
    lens.restore({})
    report = lens.report()
    assert report["rate"]["share"] is None
    assert set(report["estimates"].values()) == {None}
    assert (lens.table(), lens.alarms()) == ({}, [])


def test_what_others_observed_is_refused() -> None:
    """A state of another shape is an error, not a guess."""
    state = lens_of().state()
    with pytest.raises(ValueError, match="shape"):
        Response("regression").restore(state)
    rates = Rates()
    rates.count("all", "", spoke=True)
    assert Rates.unpack(json.loads(json.dumps(rates.pack()))).rate("all", "")["k"] == 1


# --- through the loop -----------------------------------------------------------------------------


async def test_the_loop_weighs_lessons_by_who_speaks(
    open_loop: Callable[..., Awaitable[Loop]], make_settings: Callable[..., Any], clock: Any
) -> None:
    """What was observed reaches the learner through the stream, and the step says what it did."""
    off = dict.fromkeys(("raters", "drift", "implicit", "scores"))
    use = {"use": "policies.response:Response", "weigh": "on"}
    settings = make_settings(
        web={
            "observe": {**off, "response": use, "window_s": 60.0},
            "audit": 0.3,
            "promotion": {"policy": "policies.promotion:Always"},  # trusted at once
        }
    )
    loop, rng = await open_loop(settings), random.Random(0)
    for _ in range(3):
        for _ in range(150):
            x = rng.gauss(0, 1)
            told = await loop.predict("web", {"x": x})
            truth = (x > 0) != (rng.random() < 0.2)
            name = str(told["prediction_id"])
            asked = await _asked(loop, name)
            right = told["output"] == truth
            if asked or rng.random() < (0.1 if right else 0.8):
                source = "auditor" if asked else "ada"
                await loop.feedback(name, "correction", truth, auditor=asked, user_id=source)
        clock.advance(120)
        await loop.turn("web")
    seen, reports = await loop.stages("web").registry.observations()
    report = reports["response"]
    assert seen.seen == report["rate"]["n"] == 450
    assert report["silence"]["odds"]["value"] > 1.5
    found = await loop.store.range(loop.stages("web").registry.keys.steps, "-", "+")
    factors = [
        weighed["factors"]["response"]
        for _, fields in found
        for weighed in json.loads(fields[b"s"]).get("weighed", {}).values()
        if "response" in weighed.get("factors", {})
    ]
    assert min(factors) < 1.0 < max(factors)


async def _asked(loop: Loop, name: str) -> bool:
    """Tell whether an answer is audited: only its record says so."""
    entry = loop.keyring.open("prediction", name)[1].entry
    keys = loop.stages("web").registry.keys
    [[_, fields]] = await loop.store.range(keys.predictions, entry, entry)
    return Prediction.model_validate_json(fields[b"r"]).audited
