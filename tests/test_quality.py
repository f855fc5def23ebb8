"""Quality as a stream: figures of each role and of baselines, in constant memory, as it goes on."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import pytest

from online_learner.evidence import confidence_sequence
from online_learner.observe.quality import MOST_NUMBERS, MOST_ROLES, MOST_VALUES, OTHERS, Quality
from online_learner.observe.tallies import (
    LARGEST_LOSS,
    MOST_LABELS,
    MOST_RATERS,
    Confusion,
    Opinions,
)
from online_learner.schema import Ask, Feedback, Prediction, Said, Settled, Signal

LABELS = ["ham", "spam"]


def audit(
    right: str | None, outputs: dict[str, str], *, sure: float | None = None, **fields: Any
) -> Settled:
    """Return an audit that has settled; a right label of None was told as "wrong" only."""
    scores = {role: float(label == right) for role, label in outputs.items()}
    known = {"right": right, "outputs": outputs} if right is not None else {}
    fields = {"generation": 1, "answered": True, **known, **fields}
    return Settled(scores=scores, confidence=sure, **fields)


def lived(it: Quality, count: int, *, accuracy: float = 0.8, seed: int = 0, **fields: Any) -> None:
    """Let audits settle: a champion that is right so often, a challenger that always says ham."""
    rng = random.Random(seed)
    for n in range(count):
        right = "spam" if rng.random() < 0.3 else "ham"
        wrong = "ham" if right == "spam" else "spam"
        said = right if rng.random() < accuracy else wrong
        losses = {"champion": -math.log(accuracy if said == right else 1 - accuracy)}
        outputs = {"champion": said, "challenger:2": "ham"}
        settled = audit(right, outputs, sure=accuracy, losses=losses, **fields)
        it.settle(f"{seed}-{n}", settled)


def said(it: Quality, kind: str, value: Any, source: str = "human:ada", **fields: Any) -> None:
    """Let somebody say something of an answer."""
    prediction = Prediction(
        model="m", features={}, output="ham", version=1, lineage=1, step=1, **fields
    )
    feedback = Feedback(kind=kind, value=value, source=source, prediction_id="")
    it.hear(Signal(feedback, prediction, Said(), "1-0", 0))


# --- roles ------------------------------------------------------------------------------------


def test_figures_of_roles_are_those_of_the_audits() -> None:
    """Accuracy with the bounds of the confidence sequence, log loss, calibration and macro-F1."""
    it = Quality("classification", LABELS)
    lived(it, 3000)
    found = it.report()
    champion, challenger = found["roles"]["champion"], found["roles"]["challenger:2"]
    assert found["metric"] == "accuracy"
    assert champion["accuracy"]["n"] == 3000
    assert champion["accuracy"]["score"] == pytest.approx(0.8, abs=0.03)
    assert champion["recent"]["n"] == 500
    assert champion["calibration_error"] < 0.06
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert champion["log_loss"] == pytest.approx(entropy, abs=0.06)
    assert challenger["macro_f1"] == pytest.approx(0.5 * 2 * 0.7 / 1.7, abs=0.04)
    assert (challenger["log_loss"], challenger["calibration_error"]) == (None, None)


def test_bounds_run_on_over_all_audits() -> None:
    """They are those of the sequence over all scores of the generation, however many."""
    it, rng = Quality("classification", LABELS), random.Random(1)
    scores = [float(rng.random() < 0.9) for _ in range(5000)]
    for n, score in enumerate(scores):
        it.settle(f"1-{n}", audit("ham", {"champion": "ham" if score else "spam"}))
    low, high = confidence_sequence(scores)
    accuracy = it.report()["roles"]["champion"]["accuracy"]
    assert (accuracy["low"], accuracy["high"]) == pytest.approx((low[-1], high[-1]))
    recent = it.report()["roles"]["champion"]["recent"]
    assert recent["score"] == pytest.approx(np.mean(scores[-500:]))


def test_what_is_of_late_follows_a_change() -> None:
    """After a drop the windowed and the decayed score show it, while the mean of all lags."""
    it = Quality("classification", LABELS)
    lived(it, 2000, accuracy=0.95)
    lived(it, 600, accuracy=0.5, seed=1)
    champion = it.report()["roles"]["champion"]
    assert champion["recent"]["score"] < 0.6
    assert champion["decayed"]["score"] < 0.75
    assert champion["accuracy"]["score"] > 0.8


def test_means_begin_anew_with_the_tests() -> None:
    """With another generation, roles that are gone are dropped, and late audits are left out."""
    it = Quality("classification", LABELS)
    lived(it, 100)
    lived(it, 10, generation=2, seed=1)
    lived(it, 50, generation=1, seed=2)
    found = it.report()
    assert found["generation"] == 2
    assert found["roles"]["champion"]["accuracy"]["n"] == 10
    assert found["roles"]["challenger:2"]["accuracy"]["n"] == 10
    assert found["baselines"]["majority"]["accuracy"]["n"] == 10
    assert found["roles"]["champion"]["recent"]["n"] == 110
    it.settle("9-0", audit("ham", {"champion": "ham"}, generation=3))
    assert set(it.report()["roles"]) == {"champion"}


def test_an_unanswered_audit_changes_nothing() -> None:
    """Where nobody said anything there is no score."""
    it = Quality("classification", LABELS)
    it.settle("1-0", Settled(answered=False, generation=1))
    assert it.report()["roles"] == {}


def test_numbers_have_closeness_and_no_baselines() -> None:
    """For regression there is the closeness of each role; what labels are for is null."""
    it = Quality("regression")
    for n in range(20):
        scores = {"champion": 0.75, "latest": 0.5}
        it.settle(f"1-{n}", Settled(answered=True, scores=scores, generation=1))
    found = it.report()
    assert found["metric"] == "closeness"
    assert found["roles"]["latest"]["accuracy"]["score"] == 0.5
    assert found["roles"]["champion"]["macro_f1"] is None
    assert found["baselines"]["majority"]["accuracy"] is None


# --- baselines --------------------------------------------------------------------------------


def test_baselines_guess_by_what_settled_before() -> None:
    """No change says the last right label, majority the most frequent; neither sees its own."""
    it = Quality("classification", LABELS)
    rights = ["ham", "ham", "spam", "spam", "ham", "ham"]
    for n, right in enumerate(rights):
        it.settle(f"1-{n}", audit(right, {"champion": "ham"}))
    found = it.report()["baselines"]
    assert found["no_change"]["accuracy"]["score"] == pytest.approx(3 / 6)
    assert found["majority"]["accuracy"]["score"] == pytest.approx(3 / 6)
    assert found["no_change"]["accuracy"]["n"] == 6


def test_baselines_are_scored_on_the_same_audits() -> None:
    """Where all that is told is that an answer was wrong, they count as wrong as the others do."""
    it = Quality("classification", LABELS)
    it.settle("1-0", audit("ham", {"champion": "ham"}))
    it.settle("1-1", audit(None, {"champion": "ham"}))
    found = it.report()
    assert found["baselines"]["majority"]["accuracy"]["n"] == 2
    assert found["roles"]["champion"]["accuracy"]["n"] == 2
    assert found["baselines"]["majority"]["accuracy"]["score"] == 0.0


# --- segments ---------------------------------------------------------------------------------


def test_segments_are_told_apart_and_bounded() -> None:
    """Each value of a declared segment has its mean; of very many, the rest are one."""
    it = Quality("classification", LABELS, segments=["country"])
    for n in range(200):
        country = f"c{n}" if n % 2 else "de"
        label = "ham" if n % 2 else "spam"
        it.settle(f"1-{n}", audit("ham", {"champion": label}, segments={"country": country}))
    found = it.report()["segments"]["country"]
    assert (found["de"]["n"], found["de"]["score"]) == (100, 0.0)
    assert found[OTHERS]["score"] == 1.0
    assert len(found) == MOST_VALUES + 1
    assert sum(value["n"] for value in found.values()) == 200


# --- what is said -----------------------------------------------------------------------------


def test_thumbs_and_ratings_are_shares_of_their_scale() -> None:
    """Thumbs up are a share, ratings their place on the scale, whatever the task."""
    it = Quality("ranking")
    for n in range(40):
        said(it, "thumbs", n % 4 != 0)
        said(it, "rating", {"value": 4.0, "scale": [1.0, 5.0]})
    found = it.report()["said"]
    assert found["thumbs_up"]["raw"]["score"] == pytest.approx(0.75, abs=0.01)
    assert found["mean_rating"]["raw"]["score"] == pytest.approx(0.75)
    assert found["thumbs_up"]["corrected"] is None  # one rater differs from nobody


def test_what_says_nothing_of_the_model_is_left_out() -> None:
    """Rules of the system, other kinds, and thumbs on a fallback do not count."""
    it = Quality("classification", LABELS)
    said(it, "thumbs", value=True, source="system:rule")
    said(it, "thumbs", value=True, blocked=True)
    said(it, "thumbs", value=True, ask=Ask(reason="gold", probability=1.0))
    said(it, "correction", "ham")
    assert it.report()["said"]["thumbs_up"]["raw"] is None


def test_who_speaks_often_does_not_speak_for_all() -> None:
    """Beside the raw share, the corrected one lets nobody count for more than one rater."""
    opinions = Opinions()
    for _ in range(500):
        opinions.add("human:bot", 0.0)
    for rater in range(30):
        for _ in range(10):
            opinions.add(f"human:{rater}", 1.0)
    found = opinions.report()
    raw, corrected = found["raw"], found["corrected"]
    assert raw is not None
    assert corrected is not None
    assert raw["score"] < 0.6
    assert corrected["score"] > 0.9
    assert corrected["n"] == 31
    assert corrected["low"] < corrected["score"] <= corrected["high"]


def test_raters_are_bounded() -> None:
    """Of many raters the least recent are forgotten."""
    opinions = Opinions()
    for rater in range(MOST_RATERS + 20):
        opinions.add(f"human:{rater}", 1.0)
    assert len(opinions.raters) == MOST_RATERS
    assert "human:0" not in opinions.raters


# --- confusion --------------------------------------------------------------------------------


def test_macro_f1_is_that_of_the_counts() -> None:
    """Without fading it is the mean of 2 both / (right + said) over all labels seen."""
    rng, it, pairs = random.Random(2), Confusion(keep=1.0), []
    for _ in range(500):
        right = rng.choice("abc")
        pairs.append((right, right if rng.random() < 0.6 else rng.choice("abc")))
        it.add(*pairs[-1])
    expected = []
    for label in "abc":
        both = sum(r == s == label for r, s in pairs)
        of = sum((r == label) + (s == label) for r, s in pairs)
        expected.append(2 * both / of)
    assert it.macro_f1 == pytest.approx(np.mean(expected))


def test_a_confusion_is_bounded_and_stays_finite() -> None:
    """Labels beyond the most count as one other, and sums stay finite in the long run."""
    it = Confusion(keep=0.9)
    for n in range(5000):
        it.add(f"label {n % 300}", f"label {n % 300}")
    names = set(it.right) | set(it.said)
    assert len(names) <= MOST_LABELS + 1
    assert math.isfinite(it.scale)
    assert it.macro_f1 is not None
    assert 0.0 <= it.macro_f1 <= 1.0


# --- reports and memory -----------------------------------------------------------------------


def test_the_point_is_flat_and_bounded() -> None:
    """A moment is at most 40 finite numbers, the champion's first."""
    it = Quality("classification", LABELS)
    lived(it, 50)
    point = it.report()["point"]
    assert point["champion.accuracy"] == it.report()["roles"]["champion"]["accuracy"]["score"]
    assert {"challenger.accuracy", "majority.decayed", "no_change.macro_f1"} <= set(point)
    assert len(point) <= MOST_NUMBERS
    assert all(isinstance(number, float) and math.isfinite(number) for number in point.values())


def test_roles_are_bounded() -> None:
    """Of very many roles the first are kept."""
    it = Quality("classification", LABELS)
    it.settle("1-0", audit("ham", {f"challenger:{n}": "ham" for n in range(50)}))
    assert len(it.report()["roles"]) == MOST_ROLES


def test_a_champion_outlives_many_challengers() -> None:
    """Who is tested now is counted, and stands in the point, however many were tested before."""
    it = Quality("classification", LABELS)
    for version in range(40):
        for n in range(100 if version < 39 else 60):
            outputs = {"champion": "ham", "anchor": "ham", f"challenger:{version}": "spam"}
            it.settle(f"{version}-{n}", audit("spam" if version == 39 else "ham", outputs))
    found = it.report()
    assert len(found["roles"]) == MOST_ROLES
    assert found["roles"]["challenger:39"]["accuracy"]["n"] == 60
    assert found["roles"]["anchor"]["accuracy"]["n"] == 39 * 100 + 60
    assert found["point"]["challenger.accuracy"] == 1.0
    for n in range(100):
        it.settle(f"40-{n}", audit("ham", {"champion": "ham", "anchor": "ham"}))
    assert "challenger.accuracy" not in it.report()["point"]


def test_it_goes_on_after_a_restart() -> None:
    """State and report are plain JSON, and a restored one goes on to the same figures."""
    it = Quality("classification", LABELS, segments=["country"])
    again = Quality("classification", LABELS, segments=["country"])
    lived(it, 700, segments={"country": "de"})
    for n in range(5):
        said(it, "thumbs", n % 2 == 0, source=f"human:{n}")
    again.restore(json.loads(json.dumps(it.state(), allow_nan=False)))
    for one in (it, again):
        lived(one, 100, segments={"country": "at"}, seed=1)
        said(one, "rating", {"value": 2.0, "scale": [1.0, 5.0]}, source="human:7")
    assert again.report() == it.report()
    assert again.state() == it.state()
    assert json.loads(json.dumps(it.report(), allow_nan=False)) == it.report()


def test_nothing_yet_is_nulls() -> None:
    """A model of which nothing has settled has a report without figures."""
    found = Quality("classification").report()
    assert (found["roles"], found["segments"], found["point"]) == ({}, {}, {})
    assert found["said"]["thumbs_up"] == {"raw": None, "corrected": None}


def test_the_largest_loss_is_the_judges() -> None:
    """A loss that the judge has cut is told as it is."""
    it = Quality("classification", LABELS)
    losses = {"champion": round(LARGEST_LOSS, 5)}
    it.settle("1-0", audit("ham", {"champion": "spam"}, losses=losses))
    assert it.report()["roles"]["champion"]["log_loss"] == pytest.approx(LARGEST_LOSS, abs=1e-4)
