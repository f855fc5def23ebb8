"""Scores that mean something: scalings are found, applied where they win, and kept."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Mapping
from typing import Any

import pytest

from online_learner.schema import (
    Ask,
    Feedback,
    Output,
    Prediction,
    Said,
    Scaling,
    Shadow,
    Signal,
    label_key,
)
from policies.contest import Contest
from policies.fitting import Fit, Truth
from policies.scores import MOST_HEARD, MOST_VERSIONS, Scores

LABELS = ["ham", "spam"]
MANY = ["a", "b", "c", "d"]
AUDIT = Ask(reason="audit", probability=1.0)


def scores_of(rng: random.Random, labels: list[str]) -> dict[str, float]:
    """Return probabilities, some sure and some not."""
    weights = [math.exp(2.0 * rng.gauss(0, 1)) for _ in labels]
    return {label: weight / sum(weights) for label, weight in zip(labels, weights, strict=True)}


def drawn(rng: random.Random, scores: Mapping[str, float]) -> str:
    """Return the right label, drawn from scores that mean what they say."""
    return rng.choices(list(scores), list(scores.values()))[0]


def shadow(
    scores: Mapping[str, float], *, version: int = 1, lineage: int = 1, step: int = 1
) -> Shadow:
    """Return what some weights answered."""
    output = max(scores, key=scores.__getitem__)
    return Shadow(version=version, lineage=lineage, step=step, output=output, scores=dict(scores))


def signal(
    shadows: dict[str, Shadow],
    said: Said,
    *,
    answer: str,
    ask: Ask | None = AUDIT,
    generation: int = 1,
    auditor: bool = False,
    scaling: Scaling | None = None,
) -> Signal:
    """Return what was said of an answer of the champion."""
    own = shadows["champion"]
    prediction = Prediction(
        model="m",
        features={},
        output=own.output,
        scores=own.scores if scaling is None else scaling.apply(own.scores),
        scaling=scaling,
        version=own.version,
        lineage=own.lineage,
        step=own.step,
        generation=generation,
        ask=ask,
        shadows=shadows,
    )
    feedback = Feedback(
        kind="correction", value=said.right, source="human:ada", auditor=auditor, prediction_id=""
    )
    return Signal(feedback, prediction, said, answer, 0)


def live(
    lens: Scores,
    count: int,
    *,
    distort: float | Mapping[str, float],
    labels: list[str] = LABELS,
    seed: int = 0,
    thumbs: bool = False,
    versions: Mapping[str, int] | None = None,
    **fields: Any,
) -> None:
    """Let roles answer with scores that are off by a slope, and say what is right."""
    rng = random.Random(seed)
    slopes = distort if isinstance(distort, Mapping) else {"champion": distort}
    lineage = fields.pop("lineage", 1)
    for n in range(count):
        honest = scores_of(rng, labels)
        right: Output = drawn(rng, honest)
        shadows = {
            role: shadow(
                Scaling(slope=slope).apply(honest),
                version=(versions or {}).get(role, 1),
                lineage=lineage,
            )
            for role, slope in slopes.items()
        }
        said = Said(right=right)
        if thumbs and shadows["champion"].output != right:
            said = Said(wrong=shadows["champion"].output)
        lens.hear(signal(shadows, said, answer=f"{seed}-{n}", **fields))


def place(lens: Scores, name: str) -> dict[str, Any]:
    """Return what is reported of a place."""
    return dict(next(it for it in lens.report()["places"] if it["place"] == name))


# --- what is found ----------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [LABELS, MANY], ids=["two", "many"])
@pytest.mark.parametrize("distort", [3.0, 0.4], ids=["too sure", "not sure enough"])
def test_a_planted_distortion_is_undone(labels: list[str], distort: float) -> None:
    """Scores that are too sure, or not sure enough, come to mean what they say."""
    lens = Scores("classification")
    live(lens, 1500, distort=distort, labels=labels)
    slope = lens.scalings()["champion:1"].slope
    assert slope == pytest.approx(1 / distort, rel=0.2)
    found = place(lens, "champion:1")
    assert found["raw_error"] > 0.08
    assert found["error"] < 0.04
    assert found["log_loss"] < found["raw_log_loss"]


def test_a_shifted_threshold_is_undone() -> None:
    """Of two labels, one that is always said too often is shifted back."""
    lens, rng = Scores("classification"), random.Random(1)
    for n in range(1500):
        honest = scores_of(rng, LABELS)
        given = Scaling(shifts={"spam": 1.5}).apply(honest)
        said = Said(right=drawn(rng, honest))
        lens.hear(signal({"champion": shadow(given)}, said, answer=f"0-{n}"))
    assert lens.scalings()["champion:1"].shifts["spam"] == pytest.approx(-1.5, abs=0.4)


def test_thumbs_on_many_labels_do_not_make_it_too_sure() -> None:
    """Where all that is known of a wrong answer is that it is wrong, that counts as such."""
    lens = Scores("classification", apply="on")
    live(lens, 3000, distort=2.5, labels=MANY, thumbs=True)
    assert lens.scalings()["champion:1"].slope == pytest.approx(0.4, rel=0.25)


def test_few_labels_change_little() -> None:
    """Ten labels pass no slope on, and no single one that is sure and wrong moves it far."""
    fit = Fit(keep=0.997)
    for _ in range(10):
        fit.learn({"ham": 0.7, "spam": 0.3}, Truth(right="ham"))
    assert fit.slope > 1.1
    assert fit.offered == Scaling()
    fit = Fit(keep=0.997)
    fit.learn({"ham": 1.0, "spam": 1e-12}, Truth(right="spam"))
    assert 0.75 < fit.slope < 1.0


def test_what_is_known_fades() -> None:
    """Weights that come to mean what they say get back to the identity."""
    lens = Scores("classification", half_life=100)
    live(lens, 800, distort=3.0, seed=1)
    assert lens.scalings()["champion:1"].slope < 0.5
    live(lens, 2000, distort=1.0, seed=2)
    assert lens.scalings().get("champion:1", Scaling()).slope == pytest.approx(1.0, abs=0.25)


def test_a_label_that_the_model_does_not_know_teaches_no_scaling() -> None:
    """It counts as a wrong answer, and the scaling stays: no slope would have found it."""
    lens = Scores("classification")
    for n in range(200):
        said = Said(right="news")
        given = {"champion": shadow({"ham": 0.9, "spam": 0.1})}
        lens.hear(signal(given, said, answer=f"0-{n}"))
    assert lens.scalings() == {}
    assert place(lens, "champion:1")["raw_error"] == pytest.approx(0.9)


# --- when it is applied -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_scores_that_mean_what_they_say_are_left_alone(seed: int) -> None:
    """A calibrated model has no scaling, however long it is looked at."""
    lens = Scores("classification")
    live(lens, 1500, distort=1.0, seed=seed)
    assert lens.scalings() == {}
    assert not place(lens, "champion:1")["on"]
    assert not lens.report()["weighing"]["on"]


@pytest.mark.parametrize(("mode", "count"), [("on", 60), ("off", 1500)])
def test_an_operator_decides(mode: Any, count: int) -> None:
    """`on` applies what was fitted without proof, `off` nothing; both go on reporting."""
    lens = Scores("classification", apply=mode)
    live(lens, count, distort=4.0)
    assert ("champion:1" in lens.scalings()) == (mode == "on")
    assert lens.report()["weighing"]["mode"] == mode
    assert place(lens, "champion:1")["slope"] < 1.0


def test_a_correction_that_wins_is_applied_and_one_that_turns_bad_is_not() -> None:
    """A switch takes proof either way, and both tests begin anew with it."""
    contest = Contest()
    for _ in range(60):
        contest.compare(0.9, 0.5)
    assert contest.on
    won = contest.told("scaling")
    assert won["log10_e"] < won["needed_log10_e"]
    for _ in range(80):
        contest.compare(0.5, 0.9)
    assert not contest.on


def test_what_saves_much_now_and_then_is_found() -> None:
    """A correction that costs a little in most cases, and saves very much in a few, wins."""
    contest, rng = Contest(), random.Random(4)
    for _ in range(300):
        loss = (6.0, 1.0) if rng.random() < 0.05 else (0.05, 0.1)
        contest.compare(*loss)
    assert contest.on


@pytest.mark.parametrize(("mode", "on"), [("auto", True), ("on", True), ("off", False)])
def test_the_configuration_decides_after_a_restart(mode: Any, *, on: bool) -> None:
    """What had won goes on where that is left to the evidence; else an operator's word holds."""
    contest = Contest()
    for _ in range(60):
        contest.compare(0.9, 0.5)
    assert contest.on
    again = Contest.unpack(json.loads(json.dumps(contest.pack())), mode, 0.05)
    assert again.on == on
    assert again.told("scaling")["mode"] == mode


def test_a_correction_that_does_nothing_is_rarely_applied() -> None:
    """Of 200 corrections that change losses by chance alone, at most one in twenty wins, or so."""
    rng, won = random.Random(0), 0
    for _ in range(200):
        contest = Contest()
        for _ in range(300):
            contest.compare(rng.random(), rng.random())
            if contest.on:
                won += 1
                break
    assert won <= 200 * 0.05 + 3 * math.sqrt(200 * 0.05 * 0.95)


@pytest.mark.parametrize(
    "arguments", [{"apply": "always"}, {"half_life": 0.0}, {"alpha": 1.0}, {"half_life": math.nan}]
)
def test_bad_arguments_are_refused(arguments: dict[str, Any]) -> None:
    """What cannot be is refused, with what is taken."""
    with pytest.raises((TypeError, ValueError), match=r"not 'always'|has to be"):
        Scores("classification", **arguments)


def test_another_half_life_holds_after_a_restart() -> None:
    """It is of the configuration, not of what is remembered: a short one is quicker to follow."""
    first, slopes = Scores("classification"), {}
    live(first, 900, distort=3.0)
    for half_life in (1000.0, 20.0):
        again = Scores("classification", half_life=half_life)
        again.restore(json.loads(json.dumps(first.state())))
        live(again, 300, distort=1.0, seed=1)
        slopes[half_life] = place(again, "champion:1")["slope"]
    assert slopes[1000.0] < 0.6 < slopes[20.0]


# --- what counts ------------------------------------------------------------------------------


def test_only_audited_answers_count() -> None:
    """What no coin drew is left out: who asks of uncertain answers would find a wrong scaling."""
    lens = Scores("classification")
    for ask in (None, Ask(reason="uncertain", probability=0.5), Ask(reason="gold", probability=1)):
        live(lens, 20, distort=3.0, ask=ask)
    assert lens.report()["places"] == []
    assert lens.report()["served"]["n"] == 0


def test_the_first_word_counts_and_an_auditors_after_it() -> None:
    """Of several people on one answer the first is heard, and an auditor still is, once."""
    lens = Scores("classification")
    shadows = {"champion": shadow({"ham": 0.9, "spam": 0.1})}
    said = Said(right="ham")
    for auditor, n in ((False, 1), (False, 1), (True, 2), (True, 2), (False, 2)):
        lens.hear(signal(shadows, said, answer="7-0", auditor=auditor))
        assert place(lens, "champion:1")["n"] == n
    for n in range(MOST_HEARD + 50):
        lens.hear(signal(shadows, said, answer=f"8-{n}"))
    assert len(lens.state()["heard"]) == MOST_HEARD


def test_other_tasks_have_no_scalings() -> None:
    """A number or an order has no probabilities, and is passed over."""
    lens = Scores("regression")
    given = Shadow(version=1, lineage=1, step=1, output=3.0)
    lens.hear(signal({"champion": given}, Said(right=4.0), answer="1-0"))
    assert lens.report()["places"] == []


def test_a_shadow_that_failed_is_passed_over() -> None:
    """Where a role gave no answer there is nothing to scale, and the others count."""
    lens = Scores("classification")
    shadows = {
        "champion": shadow({"ham": 0.9, "spam": 0.1}),
        "challenger:2": Shadow(version=2, lineage=1, step=1, failed=True),
    }
    lens.hear(signal(shadows, Said(right="ham"), answer="1-0"))
    assert place(lens, "champion:1")["n"] == 1
    assert [it["n"] for it in lens.report()["places"]] == [1, 0]


def test_what_was_served_is_told_apart_from_what_was_raw() -> None:
    """Reliability of served scores rests on the scaled ones; those of the model are beside it."""
    lens, rng = Scores("classification"), random.Random(3)
    scaling = Scaling(slope=1 / 3)
    for n in range(2000):
        honest = scores_of(rng, LABELS)
        given = {"champion": shadow(Scaling(slope=3.0).apply(honest))}
        said = Said(right=drawn(rng, honest))
        lens.hear(signal(given, said, answer=f"0-{n}", scaling=scaling))
    found = lens.report()
    assert found["served"]["error"] < 0.04
    assert found["raw"]["error"] > 0.08
    assert found["served"]["n"] == found["raw"]["n"] == 2000
    assert sum(it["count"] for it in found["served"]["bins"]) > 1000


# --- whose scores they are --------------------------------------------------------------------


def test_a_challenger_keeps_its_scaling_when_it_is_promoted() -> None:
    """What is known of its weights stands under its new name at once, and goes on from there."""
    lens = Scores("classification")
    roles = {"champion": 1.0, "challenger:4": 3.0}
    live(lens, 900, distort=roles, versions={"challenger:4": 4})
    found = lens.scalings()
    assert found["champion:4"] == found["challenger:4"]
    assert "champion:1" not in found
    live(lens, 1, distort=3.0, versions={"champion": 4}, seed=1, generation=2)
    assert place(lens, "champion:4")["n"] == 901
    assert "champion:4" in lens.scalings()


def test_a_lineage_that_is_followed_takes_its_scaling_along() -> None:
    """Following begins under the champion's number, which is the anchor's that is left behind."""
    lens = Scores("classification")
    live(lens, 900, distort={"champion": 1.0, "latest": 3.0})
    assert set(lens.scalings()) == {"latest"}
    roles = {"champion": 3.0, "anchor": 1.0}
    live(lens, 300, distort=roles, generation=2, seed=2)
    assert lens.scalings()["latest"].slope < 0.5
    assert place(lens, "anchor:1")["n"] == 1200
    assert set(lens.scalings()) == {"latest"}


def test_the_anchor_answers_by_its_own_scaling_after_a_pull() -> None:
    """While the champion follows, its number stands for the version that would answer next."""
    lens = Scores("classification")
    roles = {"champion": 3.0, "anchor": 0.4, "challenger:5": 3.0}
    live(lens, 900, distort=roles, versions={"challenger:5": 5})
    found = lens.scalings()
    assert found["champion:1"] == found["anchor:1"]
    assert found["champion:1"].slope > 1.0 > found["latest"].slope
    assert found["champion:5"] == found["anchor:5"] == found["challenger:5"]


def test_a_snapshot_begins_as_the_lineage_was() -> None:
    """A new challenger takes over what is known of the newest step, without its newest label."""
    lens = Scores("classification")
    live(lens, 900, distort={"champion": 1.0, "latest": 3.0})
    roles = {"champion": 1.0, "latest": 3.0, "challenger:2": 3.0}
    live(lens, 1, distort=roles, versions={"challenger:2": 2}, seed=1)
    assert place(lens, "challenger:2")["n"] == 901
    assert lens.scalings()["challenger:2"].slope < 0.5


def test_after_a_pull_the_new_lineage_begins_as_its_version_was() -> None:
    """The steps of the old lineage are left out, and what they were is known no more."""
    lens = Scores("classification")
    live(lens, 900, distort={"champion": 3.0, "anchor": 1.0})
    roles = {"champion": 1.0, "latest": 1.0}
    live(lens, 50, distort=roles, generation=2, lineage=2, seed=1)
    assert "champion:1" not in lens.scalings()
    assert place(lens, "latest")["slope"] > 0.7
    counted = place(lens, "latest")["n"]
    live(lens, 5, distort=roles, generation=1, lineage=1, seed=2)
    assert place(lens, "latest")["n"] == counted


def test_versions_are_bounded() -> None:
    """Of many versions those are forgotten that were not heard of for longest."""
    lens = Scores("classification")
    for version in range(30):
        live(lens, 1, distort=1.0, versions={"champion": version}, seed=version)
    places = [it["place"] for it in lens.report()["places"]]
    assert places == [f"champion:{version}" for version in range(30 - MOST_VERSIONS, 30)]


# --- memory -----------------------------------------------------------------------------------


def test_it_goes_on_after_a_restart() -> None:
    """State and report are JSON, and a restored one goes on to the same numbers."""
    roles = {"champion": 3.0, "challenger:4": 1.0, "latest": 0.5}
    lens, again = Scores("classification"), Scores("classification")
    live(lens, 300, distort=roles, versions={"challenger:4": 4})
    again.restore(json.loads(json.dumps(lens.state(), allow_nan=False)))
    for it in (lens, again):
        live(it, 300, distort=roles, versions={"challenger:4": 4}, seed=1)
    assert again.state() == lens.state()
    assert json.loads(json.dumps(again.report(), allow_nan=False)) == lens.report()
    assert again.scalings() == lens.scalings()


def test_a_shift_of_two_labels_ends_where_a_third_is_learned() -> None:
    """It is of two labels; of more there is none, and what is passed on changes no more often."""
    fit, rng, offered = Fit(keep=0.997), random.Random(5), []
    for _ in range(300):
        fit.learn({"ham": 0.5, "spam": 0.5}, Truth(right="spam" if rng.random() < 0.9 else "ham"))
    assert set(fit.offered.shifts) == {"spam"}
    for _ in range(300):
        scores = scores_of(rng, ["eggs", "ham", "spam"])
        fit.learn(scores, Truth(right=drawn(rng, scores)))
        offered.append(fit.offered)
    assert not any(scaling.shifts for scaling in offered)
    assert sum(one != other for one, other in itertools.pairwise(offered)) < 10


def test_scalings_change_now_and_then_only() -> None:
    """Two thousand labels make some dozens of scalings, since each goes to all who answer."""
    lens, seen = Scores("classification", apply="on"), []
    for part in range(100):
        live(lens, 20, distort=3.0, seed=part)
        seen.append(lens.scalings().get("champion:1"))
    changes = sum(one != other for one, other in itertools.pairwise(seen))
    assert changes < 30


def test_scaled_scores_are_those_of_the_schema() -> None:
    """What is offered is undone exactly as predictions undo it, booleans by their JSON keys."""
    lens = Scores("classification", [False, True], apply="on")
    rng = random.Random(5)
    for n in range(200):
        honest = scores_of(rng, ["false", "true"])
        given = Scaling(slope=3.0).apply(honest)
        output = given["true"] > 0.5
        own = Shadow(version=1, lineage=1, step=1, output=output, scores=given)
        right = drawn(rng, honest) == "true"
        lens.hear(signal({"champion": own}, Said(right=right), answer=f"0-{n}"))
    scaling = lens.scalings()["champion:1"]
    assert set(scaling.shifts) <= {label_key(True)}
    raw = {"false": 0.2, "true": 0.8}
    assert scaling.undo(scaling.apply(raw)) == pytest.approx(raw)
