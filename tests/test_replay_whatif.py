"""What would have happened: another learner, at each answer as far as it had come by then."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from the_forgotten import take_back
from the_learner import entry_of

from online_learner.errors import StateError
from online_learner.learners.factory import make_learner
from online_learner.learners.state import pack_state
from online_learner.loop import Loop
from online_learner.schema import Control, Example, Prediction, Said
from online_learner.settings import ModelSpec, Settings
from online_learner.whatif import what_if
from online_learner.whatif.score import Scored, compared
from online_learner.whatif.truth import Told, told_answers

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

ALWAYS = {"policy": "policies.promotion:Always"}
PLAIN = {"validation": "policies.validation:Accept", "publish_s": 0.0, "promotion": ALWAYS}
LR = "river.linear_model:LogisticRegression"
BACKWARDS = {"use": "river.linear_model:LogisticRegression", "intercept_lr": 0.5}


def spec_of(loop: Loop, model: str = "web", **changes: Any) -> ModelSpec:
    """Return a model's configuration, with changes."""
    known = loop.settings.models[model].model_dump(mode="json")
    return ModelSpec.model_validate(known | changes)


def wait_a_millisecond() -> None:
    """Wait until the store's clock has gone on by one, so that what follows comes later."""
    now = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 <= now + 1:
        pass


async def live(loop: Loop, count: int, *, seed: int = 0, turn: bool = True) -> list[str]:
    """Answer and correct, and learn each correction at once; returns the corrections' ids."""
    rng, found = random.Random(seed), []
    for _ in range(count):
        a, b = rng.gauss(0, 1), rng.gauss(0, 1)
        answer = await loop.predict("web", {"a": a, "b": b})
        said = await loop.feedback(answer["prediction_id"], "correction", a + b > 0)
        found.append(str(said.feedback_id))
        if turn:
            await loop.turn("web")
        wait_a_millisecond()
    return found


@pytest.fixture
async def web(open_loop: OpenLoop, make_settings: MakeSettings) -> Loop:
    """Return a loop whose champion follows its learner, step by step."""
    return await open_loop(make_settings(web=PLAIN))


async def records(loop: Loop) -> list[Prediction]:
    """Return all answers, oldest first."""
    found = await loop.store.range(loop.models["web"].registry.keys.predictions)
    return [Prediction.model_validate_json(fields[b"r"]) for _, fields in found]


# --- the other learner ----------------------------------------------------------------------------


async def test_the_same_learner_would_have_answered_the_same(web: Loop) -> None:
    """Where the champion follows the learner, the same configuration gives what was served."""
    await live(web, 40)
    found, learner = await what_if(web.models["web"].log, spec_of(web))
    [everything, *_] = found.comparison.rows
    assert everything.n == 40
    assert everything.served == everything.other
    assert everything.difference == 0.0
    assert 0.5 < everything.served < 1.0
    assert learner.digest() == web.models["web"].trainer.learner.digest()
    assert (found.passed.lessons, found.passed.aside, found.failed) == (40, 0, 0)


async def test_it_has_learned_what_was_committed_and_no_more(web: Loop) -> None:
    """Each answer is that of a learner of the steps before it: never of its own label."""
    await live(web, 12, turn=False)  # nothing is learned meanwhile
    await web.turn("web")
    wait_a_millisecond()
    await live(web, 6, seed=2)
    found, _ = await what_if(web.models["web"].log, spec_of(web, learner=BACKWARDS), windows=18)
    by_hand = []
    learner: Any = make_learner(spec_of(web, learner=BACKWARDS))
    lessons: list[Example] = []
    for number, record in enumerate(await records(web)):
        if number == 12:
            learner.learn(lessons)
        right = sum(float(v) for v in record.features.values()) > 0
        [answer] = learner.predict([record.features])
        by_hand.append(float(answer.output is right))
        lessons.append(Example(record.features, right))
        if number >= 12:
            learner.learn(lessons[-1:])
    assert [row.other for row in found.comparison.windows] == by_hand


async def test_a_better_learner_is_found_to_be_better(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Against one that always says the same, the difference is sure, in sum and by version."""
    majority = PLAIN | {"learner": "river.dummy:PriorClassifier"}
    loop = await open_loop(make_settings(web=majority))
    await live(loop, 300)
    found, learner = await what_if(loop.models["web"].log, spec_of(loop, learner=LR), windows=3)
    everything = found.comparison.rows[0]
    assert everything.other > 0.9
    assert everything.low is not None
    assert everything.low > 0.0
    assert everything.majority is not None
    assert abs(everything.served - everything.majority) < 0.1
    assert sum(row.n for row in found.comparison.windows) == 300
    assert sum(row.n for row in found.comparison.versions) == 300
    assert learner.fitted


async def test_what_was_taken_back_and_gone_back_from_is_passed(web: Loop) -> None:
    """Retracted signals are never seen; a reset of the served weights is not the other's."""
    said = await live(web, 10)
    await take_back(web, said[1], said[4])
    await web.turn("web")
    reset = Control(action="reset", to_version=0, lineage=2)
    stream = web.models["web"].registry.keys.feedback
    await web.store.call("XADD", stream, "*", "c", reset.pack())
    await web.turn("web")
    await live(web, 5, seed=3)
    found, learner = await what_if(web.models["web"].log, spec_of(web))
    assert (found.passed.resets, found.passed.retracted, found.passed.lessons) == (1, 2, 13)
    assert found.comparison.rows[0].n == 13
    healthy: Any = make_learner(spec_of(web))
    gone = {entry_of(web, said[1]), entry_of(web, said[4])}
    entries = await web.store.range(stream)
    for entry, fields in entries:
        if b"f" in fields and entry not in gone:
            record = Prediction.model_validate_json(fields[b"r"])
            right = sum(float(v) for v in record.features.values()) > 0
            healthy.learn([Example(record.features, right)])
    assert learner.digest() == healthy.digest()


async def test_nothing_is_written_by_it(web: Loop) -> None:
    """Neither a replay nor a comparison changes anything in the store."""
    await live(web, 5)
    keys = sorted(await web.store.call("KEYS", "*"))
    before = [await web.store.call("DUMP", key) for key in keys]
    await what_if(web.models["web"].log, spec_of(web, learner=BACKWARDS))
    replay = web.models["web"].replay_afresh()
    await replay.rewind()
    await replay.follow()
    assert sorted(await web.store.call("KEYS", "*")) == keys
    assert [await web.store.call("DUMP", key) for key in keys] == before


async def test_poison_for_the_other_one_is_left_out(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """What the other learner cannot learn, or answer, is counted, and stops nothing."""
    loop = await open_loop(make_settings(web=PLAIN | {"learner": "river.dummy:PriorClassifier"}))
    for n in range(8):
        answer = await loop.predict("web", {"a": "a word" if n % 4 == 3 else float(n)})
        await loop.feedback(answer["prediction_id"], "correction", n % 2 == 0)
        await loop.turn("web")
        wait_a_millisecond()
    scaled = "river:preprocessing.StandardScaler | linear_model.LogisticRegression"
    found, learner = await what_if(loop.models["web"].log, spec_of(loop, learner=scaled))
    assert (found.passed.lessons, found.passed.aside, found.failed) == (6, 2, 2)
    assert learner.fitted


async def test_a_record_that_was_cut_is_refused(web: Loop) -> None:
    """Another learner begins with nothing, and so with the beginning of the record."""
    await live(web, 3)
    await web.store.call("HSET", web.models["web"].registry.keys.trimmed, "feedback", "5-0")
    with pytest.raises(StateError, match="takes the whole record"):
        await what_if(web.models["web"].log, spec_of(web))


async def test_numbers_are_compared_by_their_error(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A regression has mean absolute errors, and an interval of their difference."""
    rent = {**PLAIN, "task": "regression", "learner": "river.dummy:StatisticRegressor"}
    rent["learner"] = {"use": f"{__name__}:mean"}
    loop = await open_loop(make_settings(rent=rent))
    rng = random.Random(0)
    for _ in range(60):
        a = rng.gauss(0, 1)
        answer = await loop.predict("rent", {"a": a})
        await loop.feedback(answer["prediction_id"], "correction", 3.0 * a + 10.0)
        await loop.turn("rent")
        wait_a_millisecond()
    linear = {"use": "river.linear_model:LinearRegression", "intercept_lr": 0.3}
    found, _ = await what_if(loop.models["rent"].log, spec_of(loop, "rent", learner=linear))
    row = found.comparison.rows[0]
    assert found.comparison.measure == "error"
    assert row.difference == pytest.approx(row.other - row.served)
    assert row.low is not None
    assert row.high is not None
    assert row.low < row.difference < row.high
    assert row.majority == pytest.approx(row.served, rel=0.5)


def mean() -> Any:
    """Return a model that answers the mean so far."""
    from river import dummy, stats

    return dummy.StatisticRegressor(stats.Mean())


# --- what is right --------------------------------------------------------------------------------


async def test_the_strongest_and_then_the_latest_signal_stands(web: Loop) -> None:
    """A correction stands against later thumbs; an auditor's word against everybody's."""
    one = await web.predict("web", {"a": 1.0})
    two = await web.predict("web", {"a": 2.0})
    three = await web.predict("web", {"a": 3.0})
    await web.feedback(one["prediction_id"], "correction", True, user_id="u1")
    await web.feedback(one["prediction_id"], "correction", False, user_id="u2")
    await web.feedback(two["prediction_id"], "correction", True, auditor=True, user_id="u3")
    await web.feedback(two["prediction_id"], "correction", False, user_id="u4")
    await web.feedback(three["prediction_id"], "thumbs", True, user_id="u5")
    await web.turn("web")
    found = await told_answers(web.models["web"].log, spec_of(web))
    assert [told.said.right for told in found] == [False, True, three["output"]]
    assert [told.entry for told in found] == sorted(told.entry for told in found)


async def test_what_validation_doubts_tells_nothing(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A duplicate that was set aside, or what was taken back, is no truth."""
    loop = await open_loop(make_settings(web={"publish_s": 0.0}))
    first = await loop.predict("web", {"a": 1.0})
    second = await loop.predict("web", {"a": 1.0})
    await loop.feedback(first["prediction_id"], "correction", True, user_id="u1")
    wait_a_millisecond()
    await loop.feedback(second["prediction_id"], "correction", False, user_id="u1")
    await loop.turn("web")
    found = await told_answers(loop.models["web"].log, spec_of(loop))
    assert [told.said.right for told in found] == [True]


# --- numbers --------------------------------------------------------------------------------------


def told(n: int, right: Any, served: Any, **more: Any) -> Told:
    """Return the n-th answer, of which was told 5 ms later."""
    known = {"version": 1, "lineage": 1, "audited": False, "said": Said(right=right)} | more
    return Told(
        entry=f"{10 * n}-0",
        at_ms=10 * n,
        signal=f"{10 * n + 5}-0",
        told_ms=10 * n + 5,
        served=served,
        **known,
    )


def test_baselines_know_what_was_told_by_then() -> None:
    """No-change repeats the last label that had arrived, majority the one that came most."""
    rights = ["a", "a", "b", "b", "a", "b"]
    answers = [Scored(told(n, right, "a"), "b") for n, right in enumerate(rights)]
    row = compared(answers, "classification").rows[0]
    assert (row.served, row.other) == (0.5, 0.5)
    assert row.no_change == pytest.approx(2 / 6)  # none, a, a, b, b, a
    assert row.majority == pytest.approx(2 / 6)  # none, a, a, a, a (a tie: the first), a


def test_a_guess_of_which_nobody_knows_is_left_out_of_its_mean() -> None:
    """An answer that was only told to be wrong says nothing of another label, not even a number."""
    wrong = Scored(told(2, None, "b", said=Said(wrong="b")), "b")
    row = compared([Scored(told(0, "a", "a"), "a"), wrong], "classification").rows[0]
    assert (row.n, row.served, row.no_change, row.majority) == (2, 0.5, 0.0, 0.0)


def test_audited_answers_are_told_apart_and_versions_too() -> None:
    """Each table has its own means; what is only known to be wrong may count nowhere."""
    answers = [
        Scored(told(0, "a", "a", audited=True), "b"),
        Scored(told(1, "a", "b", version=2), "a"),
        Scored(told(2, None, "b", said=Said(wrong="b"), version=2), "b"),
        Scored(told(3, None, "b", said=Said(wrong="b")), "a"),
        Scored(told(4, True, 1), True),
    ]
    found = compared(answers, "classification", windows=2)
    assert found.undecided == 1
    assert [(row.name, row.n, row.served, row.other) for row in found.rows] == [
        ("all answers", 4, 0.25, 0.5),
        ("audited", 1, 1.0, 0.0),
    ]
    assert [(row.n, row.since_ms) for row in found.windows] == [(2, 0), (2, 20)]
    assert [(row.name, row.n) for row in found.versions] == [("version 1", 2), ("version 2", 2)]


def test_an_order_is_compared_by_its_pairs() -> None:
    """One that was taken counts as first or not; an order by its pairs."""
    answers = [
        Scored(told(0, ["b"], ["a", "b"]), ["b", "a"]),
        Scored(told(1, ["c", "b", "a"], ["a", "b", "c"]), ["c", "a", "b"]),
    ]
    found = compared(answers, "ranking")
    assert found.measure == "agreement"
    assert found.rows[0].served == 0.0
    assert found.rows[0].other == pytest.approx((1 + 2 / 3) / 2)
    assert found.rows[0].no_change is None


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_the_interval_of_errors_covers(shift: float) -> None:
    """Over many worlds the interval holds the true difference about as often as it says."""
    covered = 0
    for seed in range(200):
        rng = random.Random(seed)
        answers = []
        for n in range(400):
            right, error = rng.gauss(0, 1), rng.expovariate(1.0)
            other = rng.expovariate(1.0 / (1.0 + shift))
            answers.append(Scored(told(n, right, right + error), right - other))
        row = compared(answers, "regression").rows[0]
        assert row.low is not None
        assert row.high is not None
        covered += row.low <= shift <= row.high
    assert 180 <= covered < 200


def test_no_answer_leaves_an_empty_table() -> None:
    """Where nothing was told there is nothing to compare."""
    found = compared([], "classification")
    assert (found.rows, found.windows, found.versions) == ([], [], [])


async def test_with_an_archive_it_is_the_same(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """What has left the store is compared all the same."""
    loop = await open_loop(make_settings(web=PLAIN | {"archive": str(tmp_path)}))
    await live(loop, 20)
    stages = loop.models["web"]
    before, one = await what_if(stages.log, spec_of(loop, learner=BACKWARDS))
    assert stages.archiver is not None
    await stages.archiver.flush()
    for stream in (stages.registry.keys.feedback, stages.registry.keys.steps):
        await loop.store.call("XTRIM", stream, "MAXLEN", 0)
    after, two = await what_if(stages.log, spec_of(loop, learner=BACKWARDS))
    assert after == before
    assert pack_state(one) == pack_state(two)
