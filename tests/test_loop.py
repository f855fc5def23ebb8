"""The whole loop on real data: predict, journal, ingest, learn, judge, promote, predict."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from river import datasets, linear_model, naive_bayes, preprocessing

from online_learner.errors import ConfigError, Invalid, NotFound
from online_learner.explain import status, verdicts
from online_learner.loop import Loop
from online_learner.operate import operate
from online_learner.schema import Aliases, Version
from online_learner.settings import Settings

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]


def classifier() -> Any:
    """Return an untrained classifier."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


def regressor() -> Any:
    """Return an untrained regressor."""
    return preprocessing.StandardScaler() | linear_model.LinearRegression(intercept_lr=0.3)


def fitted() -> Any:
    """Return a classifier that has seen 100 pages."""
    model = naive_bayes.GaussianNB()
    for features, target in datasets.Phishing().take(100):
        model.learn_one(features, target)
    return model


async def stream(
    loop: Loop, model: str, rows: Iterable[tuple[dict[str, Any], Any]], *, every: int = 10
) -> list[tuple[Any, Any]]:
    """Predict each row, then correct it, with a turn every few rows; returns (answer, truth)."""
    found = []
    for n, (features, target) in enumerate(rows, start=1):
        answer = await loop.predict(model, features)
        rater = f"rater-{n % 40}"
        await loop.feedback(answer["prediction_id"], "correction", target, user_id=rater)
        found.append((answer["output"], target))
        if n % every == 0:
            await loop.turn(model)
    await loop.turn(model)
    return found


def accuracy(found: list[tuple[Any, Any]]) -> float:
    """Return the share of right answers."""
    return sum(answer is truth for answer, truth in found) / len(found)


def mean_error(found: list[tuple[Any, Any]]) -> float:
    """Return the mean absolute error."""
    return sum(abs(answer - truth) for answer, truth in found) / len(found)


async def aliases_of(loop: Loop, model: str) -> Aliases:
    """Return the aliases as they are."""
    found = await loop.models[model].registry.aliases()
    assert found is not None
    return found


async def versions_of(loop: Loop, model: str) -> list[Version]:
    """Return every version of a model."""
    return await loop.models[model].registry.versions()


# --- two data sets --------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "margin"), [("Leash", 0.15), ("Sequential", 0.05)])
async def test_phishing_is_learned_and_promoted(
    open_loop: OpenLoop, make_settings: MakeSettings, policy: str, margin: float
) -> None:
    """On 400 web pages, what was learned is promoted on evidence, and beats the frozen start."""
    promotion: dict[str, Any] = {"policy": f"policies.promotion:{policy}"}
    if policy == "Sequential":
        promotion["snapshot_every"] = 50
    web = {"learner": f"{__name__}:classifier", "promotion": promotion}
    loop = await open_loop(make_settings(web=web))
    rows = list(datasets.Phishing().take(400))
    found = await stream(loop, "web", rows)
    frozen = [(False, truth) for _, truth in rows]
    assert accuracy(found) > accuracy(frozen) + margin
    assert accuracy(found[300:]) > 0.75
    said = await verdicts(loop.models["web"].registry)
    wanted = "follow" if policy == "Leash" else "promote"
    decided = next(verdict for verdict in said if verdict["action"] == wanted)
    assert decided["numbers"]["log_e"] >= decided["numbers"]["log_e_needed"]
    assert loop.models["web"].trainer.at.learned == 400


async def test_trump_approval_is_learned_and_followed(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Numbers work the same way: followed on evidence, and far better than the cold start."""
    loop = await open_loop(make_settings(rent={"learner": f"{__name__}:regressor"}))
    rows = list(datasets.TrumpApproval().take(300))
    found = await stream(loop, "rent", rows)
    cold = [(0.0, truth) for _, truth in rows]
    assert (await aliases_of(loop, "rent")).following
    assert mean_error(found) < 0.5 * mean_error(cold)
    assert mean_error(found[150:]) < 5.0
    assert all(isinstance(answer, float) for answer, _ in found)


async def test_the_same_loop_gives_the_same_weights_and_verdicts(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Run twice with the same seed, the loop ends with the same weights and the same decisions."""
    ends = []
    for _ in range(2):
        loop = await open_loop(make_settings(web={"learner": f"{__name__}:classifier"}), seed=3)
        await loop.store.call("FLUSHALL")
        loop = await open_loop(make_settings(web={"learner": f"{__name__}:classifier"}), seed=3)
        answers = await stream(loop, "web", datasets.Phishing().take(120))
        said = await verdicts(loop.models["web"].registry)
        sentences = [verdict["sentence"] for verdict in said]
        ends.append((answers, loop.models["web"].trainer.learner.digest(), sentences))
    assert ends[0] == ends[1]


# --- how it begins --------------------------------------------------------------------------------


async def test_a_cold_start_is_version_0_and_says_so(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A model that has learned nothing answers with the prior, as version 0, marked untrained."""
    loop = await open_loop(make_settings(web={"learner": f"{__name__}:classifier"}))
    answer = await loop.predict("web", {"https": 1.0})
    assert (answer["version"], answer["step"]) == (0, 0)
    assert answer["scores"] == {"false": 0.5, "true": 0.5}
    assert answer["uncertainty"] == 0.5
    assert answer["ask"] == {"reason": "audit", "probability": 1.0}
    [version] = await versions_of(loop, "web")
    assert (version.version, version.untrained, version.status) == (0, True, "blessed")
    bundle = loop.models["web"].predictor.bundle
    assert bundle is not None
    assert bundle.untrained
    stages = loop.models["web"]
    told = await status(stages.registry, stages.policy, now=loop.ingest.clock())
    assert told["untrained"] is True
    assert told["version"] == 0


async def test_a_fitted_factory_starts_as_version_1(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A factory that returns trained weights starts as version 1, and they answer at once."""
    loop = await open_loop(make_settings(web={"learner": f"{__name__}:fitted"}))
    [version] = await versions_of(loop, "web")
    assert (version.version, version.untrained) == (1, False)
    assert (await aliases_of(loop, "web")).champion == 1
    right = 0
    for features, target in list(datasets.Phishing().take(200))[100:]:
        answer = await loop.predict("web", features)
        assert answer["version"] == 1
        right += answer["output"] is target
    assert right > 75
    bundle = loop.models["web"].predictor.bundle
    assert bundle is not None
    assert not bundle.untrained


async def test_a_restarted_loop_goes_on(open_loop: OpenLoop, make_settings: MakeSettings) -> None:
    """A second process of the same service answers with the same weights, and learns on."""
    settings = make_settings(web={"learner": f"{__name__}:classifier"})
    first = await open_loop(settings)
    rows = list(datasets.Phishing().take(150))
    await stream(first, "web", rows[:100])
    second = await open_loop(settings)
    for features, _ in rows[100:110]:
        one, other = [await loop.predict("web", features) for loop in (first, second)]
        assert (one["output"], one["scores"]) == (other["output"], other["scores"])
        assert (one["version"], one["step"]) == (other["version"], other["step"])
    await stream(second, "web", rows[100:])
    assert second.models["web"].trainer.at.learned == 150


async def test_a_live_loop_answers_with_the_weights_that_learn(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Each answer rests on all that was said before it, published or not; a freeze still holds."""
    policy = {"policy": "policies.promotion:Always"}
    web = {"learner": f"{__name__}:classifier", "publish_s": 3600.0, "promotion": policy}
    loop = await open_loop(make_settings(web=web), live=True)
    registry, steps = loop.models["web"].registry, []
    for n, (features, target) in enumerate(datasets.Phishing().take(12)):
        answer = await loop.predict("web", features)
        steps.append(answer["step"])
        await loop.feedback(answer["prediction_id"], "correction", target)
        await loop.learn("web")
        if n == 9:
            published = await registry.checkpoint()
            assert published is not None
            assert published[0].step == 0
            await operate(registry, "freeze", by="x", now=loop.ingest.clock())
            await loop.turn("web")
    assert steps[:10] == list(range(10))
    assert steps[10] == steps[11]


# --- what it keeps to -----------------------------------------------------------------------------


async def test_a_turn_without_news_writes_nothing(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """After a turn there is nothing left to do: the next one leaves the store as it is."""
    web = {"learner": f"{__name__}:classifier", "publish_s": 0.0}
    loop = await open_loop(make_settings(web=web))
    await stream(loop, "web", datasets.Phishing().take(40))
    keys = await loop.store.call("KEYS", "*")
    before = {key: await loop.store.call("DUMP", key) for key in keys}
    await loop.turn("web")
    keys = await loop.store.call("KEYS", "*")
    assert {key: await loop.store.call("DUMP", key) for key in keys} == before


async def test_models_do_not_touch_each_other(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Feedback on one model teaches that model only."""
    loop = await open_loop(make_settings(web={"learner": f"{__name__}:classifier"}, rent={}))
    before = loop.models["rent"].trainer.learner.digest()
    await stream(loop, "web", datasets.Phishing().take(20))
    await loop.turn("rent")
    assert loop.models["rent"].trainer.learner.digest() == before
    assert loop.models["rent"].trainer.at.learned == 0
    assert loop.models["web"].trainer.at.learned == 20


async def test_shadows_answer_unseen(open_loop: OpenLoop, make_settings: MakeSettings) -> None:
    """Each audited record holds what the lineage answered; the client sees the champion's only."""
    web = {"learner": f"{__name__}:classifier", "publish_s": 0.0}
    loop = await open_loop(make_settings(web=web))
    await stream(loop, "web", list(datasets.Phishing().take(5)), every=1)
    answer = await loop.predict("web", next(iter(datasets.Phishing()))[0])
    assert "shadows" not in answer
    _, address = loop.ingest.resolve(answer["prediction_id"])
    record = await loop.models["web"].journal.read(address)
    assert set(record.shadows) == {"champion", "latest"}
    assert record.shadows["champion"].output == answer["output"]
    assert (record.shadows["latest"].step, record.version) == (5, 0)


async def test_unknown_model_is_named(loop: Loop) -> None:
    """Asking a model that is not there is an error that names the nearest one."""
    with pytest.raises(NotFound, match="Did you mean 'web'"):
        await loop.predict("wep", {})


async def test_features_that_cannot_be_taken_are_invalid(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A string where the model has learned numbers is refused at the door, before it is logged."""
    web = {
        "learner": f"{__name__}:classifier",
        "promotion": {"policy": "policies.promotion:Always"},
    }
    loop = await open_loop(make_settings(web=web))
    await stream(loop, "web", datasets.Phishing().take(10))
    keys = loop.models["web"].registry.keys
    logged = await loop.store.call("XLEN", keys.predictions)
    name = next(iter(datasets.Phishing()))[0].popitem()[0]
    with pytest.raises(Invalid, match="cannot take these features"):
        await loop.predict("web", {name: "a string"})
    assert await loop.store.call("XLEN", keys.predictions) == logged


async def test_wrong_policy_arguments_are_named(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """An argument that a policy does not take is an error of the configuration."""
    with pytest.raises(ConfigError, match="alhpa"):
        await open_loop(make_settings(web={"promotion": {"alhpa": 0.1}}))
