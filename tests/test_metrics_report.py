"""The report: what it says of a model of each task, of an empty one, and of one that moved on."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from online_learner.evidence import RunningMean, confidence_sequence, score
from online_learner.loop import Loop
from online_learner.metrics import Tally, outputs, prequential
from online_learner.metrics.meter import Meter
from online_learner.metrics.report import funnel, report
from online_learner.observe.observer import Observer
from online_learner.observe.quality import Quality, estimates
from online_learner.operate import operate
from online_learner.schema import Aliases, Observed, Output, Said, Settled
from online_learner.settings import Settings
from serve_app.api.metrics import ModelMetrics

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

AUDITED: dict[str, Any] = {"audit": 1.0, "publish_s": 0.0}
MANUAL = AUDITED | {"promotion": {"policy": "policies.promotion:Manual", "snapshot_every": 5}}
OPTIONS = [{"id": name, "features": {"title": name}} for name in "abc"]


async def told(loop: Loop, model: str, window_s: float = 900.0) -> dict[str, Any]:
    """Return the report, once it is found to be JSON of the promised form."""
    stages = loop.stages(model)
    now = loop.ingest.clock()
    found = await report(stages.registry, stages.spec, window_s=window_s, now=now)
    ModelMetrics.model_validate(found, strict=True)
    assert set(found) == set(ModelMetrics.model_fields)
    return dict(json.loads(json.dumps(found, allow_nan=False)))


async def live(loop: Loop, model: str, n: int, say: Callable[[int], dict[str, Any]]) -> None:
    """Go around the loop, and count."""
    for i in range(n):
        fields = say(i)
        options = {"options": OPTIONS} if model == "pages" else {}
        answer = await loop.predict(model, {"a": float(i % 2)}, **options)
        await loop.feedback(answer["prediction_id"], **fields, user_id=f"rater-{i % 30}")
        await loop.turn(model)
    await Meter(loop.stages(model).registry, clock=loop.ingest.clock).turn()


# --- empty ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["web", "topic", "rent", "pages", "llm"])
async def test_nothing_yet_is_zeros_and_nulls(
    open_loop: OpenLoop, make_settings: MakeSettings, model: str
) -> None:
    """A model of any task that nobody has asked has a report, and it is empty."""
    loop = await open_loop(make_settings(**{model: {}}))
    found = await told(loop, model)
    assert found["rates"] == {"predictions_per_s": 0.0, "feedback_per_min": 0.0}
    assert set(found["latency_ms"].values()) == {None}
    assert [(stage["count"], stage["lost"]) for stage in found["funnel"]] == [(0, {})] * 5
    assert (found["score"]["roles"], found["score"]["points"]) == ({}, [])
    assert (found["calibration"], found["scores"], found["drift"]) == (None, None, None)
    assert found["quality"] is None
    assert found["series"]["at"] == []


# --- each task --------------------------------------------------------------------------------


async def test_a_classifier(open_loop: OpenLoop, make_settings: MakeSettings) -> None:
    """Accuracy, calibration, scores, labels and the counts are those of what was said."""
    loop = await open_loop(make_settings(web=MANUAL))
    await live(loop, "web", 12, lambda i: {"kind": "correction", "value": i % 2 == 0})
    found = await told(loop, "web")
    evidence = await loop.store.range(loop.stages("web").registry.keys.evidence)
    right = [Settled.model_validate_json(f[b"e"]).scores["champion"] for _, f in evidence]
    champion = found["score"]["roles"]["champion"]
    assert found["score"]["metric"] == "accuracy"
    assert (champion["n"], champion["score"]) == (12, np.mean(right))
    assert champion["low"] <= champion["score"] <= champion["high"]
    assert champion["version"] == 0
    assert sum(b["count"] for b in found["calibration"]["bins"]) == found["calibration"]["n"] == 12
    assert sum(b["count"] for b in found["scores"]) == 12
    assert found["drift"]["long_run"]["n"] == 12
    shares = [share["long_run"] for share in found["drift"]["outputs"].values()]
    assert sum(shares) == pytest.approx(1.0)
    assert found["kinds"] == {"correction": 12}
    counts = {stage["stage"]: stage["count"] for stage in found["funnel"]}
    assert counts == {"received": 12, "joined": 12, "accepted": 12, "learned": 12, "served": 0}
    assert sum(found["series"]["feedback"]) == sum(found["series"]["learned"]) == 12
    assert found["latency_ms"]["join"]["count"] == 12


async def test_a_number(open_loop: OpenLoop, make_settings: MakeSettings) -> None:
    """The score of a number is one less its error, over twice the mean error of before."""
    loop = await open_loop(make_settings(rent=MANUAL))
    await live(loop, "rent", 3, lambda i: {"kind": "correction", "value": [4.0, 4.0, 100.0][i]})
    found = await told(loop, "rent")
    assert found["score"]["metric"] == "closeness"
    points = [p for p in found["score"]["points"] if p["role"] == "champion"]
    assert [point["n"] for point in points] == [1, 2]  # the first error sets the scale
    assert [point["score"] for point in points] == [0.5, 0.25]  # off by the mean, then by far more
    assert (found["calibration"], found["scores"]) == (None, None)


async def test_a_ranking(open_loop: OpenLoop, make_settings: MakeSettings) -> None:
    """The score of a ranking is how well its order agrees with what was taken."""
    loop = await open_loop(make_settings(pages=MANUAL))
    await live(loop, "pages", 4, lambda _: {"kind": "selection", "value": "c"})
    found = await told(loop, "pages")
    assert found["score"]["metric"] == "agreement"
    assert found["score"]["roles"]["champion"]["n"] == 4
    assert found["score"]["roles"]["latest"]["score"] >= 0.5  # it has learned what is taken


async def test_quality_is_told_as_the_observer_found_it(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Roles, baselines, segments and what was said are of all that settled, and agree."""
    spec = MANUAL | {"guard_segments": ["a"]}
    loop = await open_loop(make_settings(web=spec))
    await live(loop, "web", 12, lambda i: {"kind": "correction", "value": i % 2 == 0})
    await live(loop, "web", 4, lambda i: {"kind": "thumbs", "value": i > 0})
    stages = loop.stages("web")
    observer = Observer(
        stages.registry,
        stages.spec.observe,
        lambda: {"quality": Quality("classification", [False, True], segments=["a"])},
        stages.signals,
        clock=loop.ingest.clock,
    )
    await loop.store.call("DEL", stages.registry.keys.observer)  # it looks on by itself here
    await observer.turn()
    found = await told(loop, "web")
    quality, champion = found["quality"], found["score"]["roles"]["champion"]
    assert {"champion", "latest"} <= set(quality["roles"])
    accuracy = quality["roles"]["champion"]["accuracy"]
    assert {name: champion[name] for name in accuracy} == pytest.approx(accuracy)
    assert accuracy["n"] == quality["baselines"]["majority"]["accuracy"]["n"] == 16
    assert set(quality["segments"]["a"]) == {"0.0", "1.0"}
    assert quality["said"]["thumbs_up"]["raw"]["n"] == 4
    assert quality["roles"]["latest"]["log_loss"] > 0.0


async def test_quality_is_told_raw_and_corrected(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Who speaks flatters or slanders: what they tell, corrected and audited, stands beside it."""
    loop = await open_loop(make_settings(web=MANUAL))
    await live(loop, "web", 12, lambda i: {"kind": "correction", "value": i % 2 == 0})
    await loop.turn("web")
    told_by = (await told(loop, "web"))["quality"]["estimates"]
    assert set(told_by) == {"volunteered", "corrected", "audited"}
    registry = loop.stages("web").registry
    points = await registry.store.range(registry.keys.quality)
    figures = json.loads(points[-1][1][b"q"])
    known = {name: value["score"] for name, value in told_by.items() if value}
    assert known
    assert {name: figures[f"champion.{name}"] for name in known} == pytest.approx(known)


@pytest.mark.parametrize(
    "response", [None, [], {"estimates": 3}, {"estimates": {"audited": {"n": 1, "score": None}}}]
)
def test_estimates_of_a_teams_own_observer_may_be_anything(response: Any) -> None:
    """What is no score with bounds is as if nothing was told."""
    assert set(estimates({"response": response}).values()) == {None}


# --- moving on --------------------------------------------------------------------------------


async def test_curves_begin_anew_when_the_reference_changes(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A promotion is marked, and what counts for the new champion is what came after it."""
    loop = await open_loop(make_settings(web=MANUAL))
    label = {"kind": "correction", "value": True}
    await live(loop, "web", 6, lambda _: label)
    registry = loop.stages("web").registry
    await operate(registry, "promote", by="x", now=loop.ingest.clock(), version=1)
    await loop.turn("web")
    await live(loop, "web", 3, lambda _: label)
    found = await told(loop, "web")
    assert found["score"]["roles"]["champion"]["n"] == 3
    assert found["score"]["roles"]["champion"]["version"] == 1
    numbers = [p["n"] for p in found["score"]["points"] if p["role"] == "champion"]
    assert numbers == [1, 2, 3, 4, 5, 6, 1, 2, 3]
    assert [mark["action"] for mark in found["score"]["marks"]] == ["promote"]
    assert found["drift"]["long_run"]["n"] == 9


async def test_the_detector_is_told_on_the_leash(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """While the learner is followed, the report says how far the detector is, and its limit."""
    loop = await open_loop(make_settings(web=AUDITED | {"learner": "river.dummy:PriorClassifier"}))
    await live(loop, "web", 40, lambda _: {"kind": "correction", "value": True})
    found = await told(loop, "web")
    assert found["score"]["marks"][-1]["action"] == "follow"
    assert found["drift"]["detector"]["limit_log10"] == pytest.approx(4.0)
    assert found["drift"]["detector"]["log10"] is not None
    assert {"champion", "anchor"} <= set(found["score"]["roles"])


ALIASES = Aliases(champion=1, generation=2, challengers=(3, 4))


def scored(n: int, generation: int = 2, **scores: float) -> prequential.Scored:
    """Return one settled audit."""
    named = {name.replace("_", ":"): score for name, score in scores.items()}
    return prequential.Scored(f"{n}-0", float(n), generation, named, None)


def test_challengers_have_names_that_stay() -> None:
    """The one that is tested for longest is the challenger; those that are retired are not told."""
    found = [scored(n, champion=1.0, challenger_2=0.0, challenger_4=1.0) for n in range(3)]
    found += [scored(3, champion=1.0, challenger_3=0.0, challenger_4=1.0)]
    roles = prequential.curves(found, ALIASES, "classification")["roles"]
    assert {name: (role["version"], role["n"]) for name, role in roles.items()} == {
        "champion": (1, 4),
        "challenger": (4, 4),
        "challenger:3": (3, 1),
    }


def test_curves_have_few_points() -> None:
    """A long curve is thinned; its first and its last point stay."""
    found = [scored(n, champion=n % 2, challenger_3=1.0) for n in range(2000)]
    points = prequential.curves(found, ALIASES, "classification")["points"]
    champion = [point for point in points if point["role"] == "champion"]
    assert len(champion) <= prequential.POINTS
    assert (champion[0]["n"], champion[-1]["n"]) == (1, 2000)


def test_an_answer_of_a_gateway_that_swapped_late_breaks_no_curve() -> None:
    """What is of the generation before, among the answers of the new one, is left out."""
    generations = [1] * 5 + [2] * 3 + [1] + [2] * 4
    found = [scored(n, generation, champion=1.0) for n, generation in enumerate(generations)]
    curve = prequential.curves(found, ALIASES, "classification")
    assert curve["roles"]["champion"]["n"] == 7
    assert [point["n"] for point in curve["points"]] == [*range(1, 6), *range(1, 8)]


def test_curves_go_on_from_what_is_out_of_sight() -> None:
    """With the sums of all audits, a curve of the newest ones is the end of the whole one."""
    rng = random.Random(1)
    everything = [scored(n, champion=float(rng.random() < 0.8)) for n in range(900)]
    whole = RunningMean()
    for one in everything[:800]:  # the observer is behind by some
        whole.add(one.scores["champion"])
    report = {"generation": 2, "sums": {"champion": whole.pack()}}
    before = prequential.Before.of(Observed(places={"evidence": "799-0"}), report)
    found = prequential.curves(everything[700:], ALIASES, "classification", before)
    low, high = confidence_sequence([one.scores["champion"] for one in everything])
    assert found["points"][0]["n"] == 701
    assert [point["low"] for point in found["points"]] == pytest.approx(low[700:])
    assert [point["high"] for point in found["points"]] == pytest.approx(high[700:])
    assert found["roles"]["champion"]["n"] == 900


@pytest.mark.parametrize("generation", [1, 2])
def test_sums_that_are_not_of_these_audits_are_left_out(generation: int) -> None:
    """Of another generation, or of fewer audits than are in sight, they are no beginning."""
    found = [scored(n, champion=1.0) for n in range(50)]
    few = RunningMean()
    few.add(0.0)
    report = {"generation": generation, "sums": {"champion": few.pack()}}
    before = prequential.Before.of(Observed(places={"evidence": "40-0"}), report)
    points = prequential.curves(found, ALIASES, "classification", before)["points"]
    assert (points[0]["n"], points[-1]["n"], points[-1]["score"]) == (1, 50, 1.0)


def test_calibration_is_the_gap_between_sure_and_right() -> None:
    """Nine in ten sure and half of them right makes an error of 0.4; other generations are out."""
    found = [prequential.Scored("0-0", 0.0, 2, {"champion": n % 2}, 0.9) for n in range(10)]
    found += [prequential.Scored("0-0", 0.0, 1, {"champion": 0.0}, 0.1)]
    known = prequential.calibration(found, ALIASES)
    assert known is not None
    assert (known["n"], known["error"]) == (10, pytest.approx(0.4))
    assert [(b["low"], b["count"]) for b in known["bins"]] == [(0.9, 10)]


def test_many_labels_are_told_as_a_few() -> None:
    """Of a great many labels the commonest are told, and the rest as one; shares sum to 1."""
    answers = [outputs.Given(f"label-{n % 50}", 0.5) for n in range(500)]
    found = outputs.shares(answers)
    assert len(found) == outputs.LABELS + 1
    assert sum(share["long_run"] for share in found.values()) == pytest.approx(1.0)
    assert sum(share["recent"] for share in found.values()) == pytest.approx(1.0)


# --- scores, and the funnel -------------------------------------------------------------------

RIGHT, WRONG, LIKED = Said(right="a"), Said(wrong="a"), Said(liked=True)


@pytest.mark.parametrize(
    ("said", "output", "shown", "expected"),
    [
        (RIGHT, "a", "b", 1.0),
        (RIGHT, "b", "b", 0.0),
        (RIGHT, None, "b", 0.0),
        (Said(right=True), 1, 1, 0.0),
        (WRONG, "a", "a", 0.0),
        (WRONG, "b", "a", 0.0),
        (LIKED, "a", "a", 1.0),
        (LIKED, "b", "a", 0.0),
        (LIKED, "a", None, None),
        (Said(), "a", "a", None),
        (Said(right=["b", "a"]), ["b", "c", "a"], ["a"], 1.0),
        (LIKED, ["a", "b"], ["a", "c"], 1.0),
        (Said(right=4.0), 5.0, 5.0, 0.75),
        (Said(right=4.0), 40.0, 5.0, 0.0),
        (Said(right=4.0), None, 5.0, 0.0),
        (LIKED, 5.0, 5.0, 1.0),
    ],
)
def test_a_score_is_the_least_that_it_can_be(
    said: Said, output: Output, shown: Output, expected: float | None
) -> None:
    """What is not known to be right scores nothing, and where nothing is told there is no score."""
    assert score(said, output, shown, scale=4.0) == expected


def test_a_number_without_a_scale_has_no_score() -> None:
    """Before the first error there is nothing to measure another one by."""
    assert score(Said(right=4.0), 5.0, 5.0) is None


def test_the_funnel_tells_where_signals_went() -> None:
    """Each outcome is lost before one stage, and the stages add up."""
    tally = Tally()
    outcomes = {"accepted": 8, "duplicate": 4, "unknown_prediction": 2, "not_served": 1}
    for outcome, n in outcomes.items():
        tally.count("feedback_total", n, kind="thumbs", outcome=outcome)
    tally.count("learned_total", 6)
    tally.count("set_aside_total", 2, reason="poison")
    tally.count("set_aside_total", 1, reason="rolled_back")
    found = {stage["stage"]: (stage["count"], stage["lost"]) for stage in funnel(tally)}
    assert found == {
        "received": (15, {}),
        "joined": (13, {"unknown_prediction": 2}),
        "accepted": (8, {"duplicate": 4, "not_served": 1}),
        "learned": (6, {"poison": 2}),
        "served": (0, {"rolled_back": 1}),
    }
