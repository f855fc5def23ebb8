"""How good weights are on rows: the numbers against their definitions, segments, comparisons."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from the_rows import signs

from online_learner.errors import ConfigError
from online_learner.evaluate.asking import ask
from online_learner.evaluate.baselines import Constant
from online_learner.evaluate.measures import (
    BINS,
    Labels,
    Numbers,
    Pairs,
    better,
    calibration_error,
    flat,
    reliability,
)
from online_learner.evaluate.report import MOST_SEGMENTS, default_fields, evaluate, lessons_of
from online_learner.learners import Answer
from online_learner.learners.factory import make_learner
from online_learner.schema import Example, Ranked
from online_learner.settings import ModelSpec, Settings

LR = "river:preprocessing.StandardScaler | linear_model.LogisticRegression"


def spec_of(**changes: Any) -> ModelSpec:
    """Return the configuration of a classifier."""
    known = {"task": "classification", "labels": [False, True], "learner": LR, "archive": None}
    return Settings.parse({"models": {"web": known | changes}}).model("web")


def rows_of(count: int, **options: Any) -> list[dict[str, Any]]:
    """Return rows with all columns."""
    common = {"weight": 1.0, "kind": "correction", "source": "human:ada", "output": False}
    return [common | row for row in signs(count, **options)]


def taught(spec: ModelSpec, rows: list[dict[str, Any]]) -> Any:
    """Return a learner that has learned rows."""
    learner = make_learner(spec)
    learner.learn(list(lessons_of(spec, rows)))
    return learner


# --- numbers ----------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.lists(st.integers(1, 9), min_size=3, max_size=3)),
        min_size=1,
        max_size=40,
    )
)
def test_scores_of_labels_are_what_they_are_by_definition(
    answers: list[tuple[str, list[int]]],
) -> None:
    """Accuracy, log loss and Brier score of three labels, each computed again from its formula."""
    found, right, losses, squares = Labels(), [], [], []
    for target, parts in answers:
        shares = {name: part / sum(parts) for name, part in zip("abc", parts, strict=True)}
        best = max(shares, key=shares.__getitem__)
        found.add(target, Answer(best, shares), 2.0)
        right.append(best == target)
        losses.append(-math.log(shares[target]))
        squares.append(sum((p - (name == target)) ** 2 for name, p in shares.items()))
    report = found.report()
    assert report["accuracy"] == report["weighted_accuracy"] == pytest.approx(np.mean(right))
    assert report["log_loss"] == pytest.approx(np.mean(losses))
    assert report["brier"] == pytest.approx(np.mean(squares))
    counted = sum(n for answers_to in report["confusion"].values() for n in answers_to.values())
    assert counted == len(answers)


def test_weighted_numbers_are_weighted() -> None:
    """A row of weight 3 counts as three rows."""
    one, other = Labels(), Labels()
    yes, no = Answer(True, {"true": 0.7, "false": 0.3}), Answer(False, {"true": 0.4, "false": 0.6})
    one.add(True, yes, 3.0)
    one.add(True, no, 1.0)
    for answer in (yes, yes, yes, no):
        other.add(True, answer)
    assert one.report()["weighted_accuracy"] == other.report()["accuracy"] == 0.75
    assert one.report()["weighted_log_loss"] == pytest.approx(other.report()["log_loss"])


def test_what_failed_is_wrong() -> None:
    """It is counted, and loses as much as can be lost."""
    found = Labels()
    found.add("a", None)
    report = found.report()
    assert (report["failed"], report["accuracy"]) == (1, 0.0)
    assert report["log_loss"] == pytest.approx(-math.log(1e-6))
    pairs = Pairs()
    assert pairs.add(None, None) == 0.0
    assert pairs.report()["pair_accuracy"] == 0.0
    numbers = Numbers()
    numbers.add(1.0, None)
    assert numbers.report() == {"rows": 1, "failed": 1}


def test_calibration_in_bins_of_equal_mass() -> None:
    """Answers that are right as often as they are sure have no error but chance; others do."""
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1.0, 20_000)
    right = (rng.random(20_000) < sure).astype(float)
    bins = reliability(sure, right)
    assert [one["rows"] for one in bins] == [2000] * BINS
    assert calibration_error(bins) < 0.015
    boastful = reliability(np.full(1000, 0.9), (rng.random(1000) < 0.6).astype(float))
    assert calibration_error(boastful) == pytest.approx(0.3, abs=0.05)
    assert sum(one["rows"] for one in reliability(np.array([0.5]), np.array([1.0]))) == 1


def test_numbers_of_a_regression() -> None:
    """Errors and the share of variance explained, as by their formulas."""
    truth, answers = np.array([1.0, 2.0, 4.0, 8.0]), np.array([1.5, 2.0, 3.0, 9.0])
    found = Numbers()
    for target, answer in zip(truth, answers, strict=True):
        found.add(float(target), Answer(float(answer)))
    report = found.report()
    assert report["mae"] == pytest.approx(np.abs(truth - answers).mean())
    assert report["rmse"] == pytest.approx(np.sqrt(((truth - answers) ** 2).mean()))
    explained = 1 - ((truth - answers) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    assert report["r2"] == pytest.approx(explained)


def test_errors_beyond_all_bounds_are_told_as_numbers() -> None:
    """A learner that diverges has an error, whose square is none; what is not finite has failed."""
    found = Numbers()
    for output in (1e200, -1e200, math.nan, math.inf):
        found.add(1.0, Answer(output))
    found.add(2.0, Answer(1e200))
    report = found.report()
    assert (report["rows"], report["failed"]) == (5, 2)
    assert report["rmse"] == report["mae"] == pytest.approx(1e200)
    assert "r2" not in report
    assert all(map(math.isfinite, flat(report).values()))
    assert flat({"mae": math.inf, "rows": 1}) == {"rows": 1}


def test_whoever_fails_less_often_is_better() -> None:
    """One that answers the easy rows alone is not chosen for its small error on these."""
    some = {"weighted_mae": 0.1, "failed": 90}
    assert better("regression", {"weighted_mae": 1.0, "failed": 0}, some)
    assert not better("regression", some, {"weighted_mae": 1.0, "failed": 0})


def test_pairs_and_ties() -> None:
    """Half of a tie is right; the loss is that of Bradley-Terry."""
    found = Pairs()
    for chosen, rejected in ((2.0, 1.0), (0.0, 0.0), (-1.0, 3.0)):
        found.add(chosen, rejected)
    report = found.report()
    assert report["pair_accuracy"] == pytest.approx(0.5)
    losses = [math.log1p(math.exp(-ahead)) for ahead in (1.0, 0.0, -4.0)]
    assert report["log_loss"] == pytest.approx(np.mean(losses))


def test_of_no_rows_nothing_is_told() -> None:
    """Neither a number, nor an error."""
    for measure in (Labels(), Numbers(), Pairs()):
        assert measure.report() == {"rows": 0}


def test_better_is_not_as_good() -> None:
    """More accuracy, or less of an error; equal is not better, and anything is than nothing."""
    assert better("classification", {"weighted_accuracy": 0.9}, {"weighted_accuracy": 0.8})
    assert not better("classification", {"weighted_accuracy": 0.8}, {"weighted_accuracy": 0.8})
    assert better("classification", {"weighted_accuracy": 0.8}, {})
    assert not better("regression", {}, {"weighted_mae": 1.0})


def test_one_that_fails_does_not_spoil_its_batch() -> None:
    """The others of the batch are answered."""
    learner = taught(spec_of(), rows_of(50))
    truths = [Example({"a": 1.0}, True), Example({"a": "text"}, True), Example({"a": -1.0}, False)]
    found = ask(learner, truths)
    assert [answer is None for answer in found] == [False, True, False]


# --- the table --------------------------------------------------------------------------------


def test_a_learner_is_better_than_what_takes_no_learning() -> None:
    """The commonest label, and the last one again, are measured on the same rows."""
    spec, rows = spec_of(), rows_of(2000)
    constant = Constant.of("classification", lessons_of(spec, rows[:1000]))
    found = evaluate(spec, taught(spec, rows[:1000]), rows[1000:], constant=constant)
    assert found["all"]["rows"] == found["baselines"]["constant"]["rows"] == 1000
    assert found["baselines"]["no_change"]["rows"] == 999
    assert found["all"]["accuracy"] > 0.9
    for name in ("constant", "no_change"):
        assert 0.4 < found["baselines"][name]["accuracy"] < 0.6
    assert found["left_out"] == {}


def test_segments_add_up() -> None:
    """Each row is in one segment of a field; declared segments are features."""
    spec = spec_of(guard_segments=["country"])
    rows = rows_of(600)
    for number, row in enumerate(rows):
        if number % 3:
            row["features"]["country"] = 49 if number % 3 == 1 else 33
    found = evaluate(spec, taught(spec, rows), rows, by=[*default_fields(spec), "target"])
    counts = {v: r["rows"] for v, r in found["segments"]["features.country"].items()}
    assert counts == {"49": 200, "33": 200, "(none)": 200}
    assert sum(r["rows"] for r in found["segments"]["target"].values()) == 600


def test_a_field_of_many_values_stays_small() -> None:
    """What comes after the first ones is counted together."""
    rows = rows_of(500)
    for number, row in enumerate(rows):
        row["source"] = f"human:{number}"
    found = evaluate(spec_of(), make_learner(spec_of()), rows, by=["source"])["segments"]["source"]
    assert len(found) == MOST_SEGMENTS + 1
    assert found["(others)"]["rows"] == 500 - MOST_SEGMENTS


def test_a_field_that_rows_do_not_have_is_refused() -> None:
    """It says which there are."""
    with pytest.raises(ConfigError, match="Did you mean 'source'"):
        evaluate(spec_of(), make_learner(spec_of()), [], by=["sourc"])


def test_against_another_version_the_bounds_hold_the_truth() -> None:
    """Of two learners of which one is 20 points worse, the difference is told with its bounds."""
    spec, rows = spec_of(), rows_of(4000, noise=0.0)
    lies = [{**row, "target": row["target"] != (i % 5 == 0)} for i, row in enumerate(rows)]
    good = taught(spec, rows[:1000])
    found = evaluate(spec, good, lies[1000:], against=_Upside(good))["against"]
    own = found["difference"]
    truth = 2 * 0.8 - 1  # right in 4 of 5 rows, and the other one in the fifth
    assert own["rows"] == 3000
    assert own["low"] < truth < own["high"]
    assert own["low"] > 0.4
    same = evaluate(spec, good, rows[1000:], against=good)["against"]["difference"]
    assert (same["difference"], same["low"] < 0 < same["high"]) == (0.0, True)


class _Upside:
    """A learner that answers the opposite."""

    def __init__(self, learner: Any) -> None:
        self._learner = learner
        self.family, self.fitted = learner.family, True
        self.learn, self.to_bytes = learner.learn, learner.to_bytes
        self.from_bytes, self.digest = learner.from_bytes, learner.digest

    def predict(self, batch: Any) -> list[Answer]:
        """Answer the opposite."""
        return [Answer(not answer.output) for answer in self._learner.predict(batch)]


def test_regressions_are_compared_by_who_is_closer() -> None:
    """So that one row far off decides no more than any other."""
    spec = spec_of(task="regression", labels=None, learner="river:linear_model.LinearRegression")
    rng, learner = random.Random(0), make_learner(spec)
    common = {"weight": 1.0, "kind": "correction"}
    rows = [
        {**common, "features": {"a": a}, "target": 2 * a}
        for a in (rng.random() for _ in range(800))
    ]
    learner.learn([Example(row["features"], row["target"]) for row in rows])
    found = evaluate(spec, learner, rows, against=make_learner(spec))
    assert found["all"]["mae"] < found["against"]["all"]["mae"]
    assert found["against"]["difference"]["difference"] > 0.5


def test_a_ranker_is_measured_by_pairs() -> None:
    """There are no baselines: whoever heeds nothing is right in half of them."""
    spec = spec_of(task="ranking", labels=None, learner="torch:ranking")
    learner = make_learner(spec)
    good, bad = {"text": "good"}, {"text": "bad"}
    learner.learn([Ranked({}, (good, bad))])
    row = {"features": {}, "chosen_features": good, "rejected_features": bad, "weight": 1.0}
    found = evaluate(spec, learner, [row] * 3)
    assert (found["all"]["pair_accuracy"], found["baselines"]) == (1.0, {})
