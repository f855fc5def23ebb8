"""Training anew: what may be tried, what rows teach, and what becomes of a job."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from the_rows import signs, write_version

from online_learner import explain
from online_learner.archive.place import Place
from online_learner.dataset.lessons import Reader, check_format
from online_learner.dataset.manifest import Manifest
from online_learner.dataset.query import Query
from online_learner.errors import ConfigError, Conflict, DataError
from online_learner.evaluate.asking import ask
from online_learner.forget.retract import retract
from online_learner.ingest import Receipt
from online_learner.learners.factory import make_learner
from online_learner.learners.river import RiverLearner
from online_learner.learners.state import unpack_state
from online_learner.loop import Loop
from online_learner.operate import operate
from online_learner.retrain.fitting import Here, Work, fit
from online_learner.retrain.job import Request, retrain
from online_learner.retrain.records import Job, Lock, jobs
from online_learner.retrain.search import Configuration, configurations, make, searchable, state_for
from online_learner.schema import Aliases, Example, Move, Prediction, Ranked
from online_learner.settings import ModelSpec, Settings

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]
Rows = list[dict[str, Any]]

PIPELINE = "river:preprocessing.StandardScaler | linear_model.LogisticRegression"
SEQUENTIAL = {"policy": "policies.promotion:Sequential", "snapshot_every": 10**9}


def spec_of(**changes: Any) -> ModelSpec:
    """Return the configuration of a classifier."""
    known = {"task": "classification", "labels": [False, True], "learner": PIPELINE}
    return Settings.parse({"models": {"web": known | {"archive": None} | changes}}).model("web")


@pytest.fixture
async def trained(open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path) -> Loop:
    """Return a loop whose model has a place for datasets, and is never trained on its own."""
    changes = {"archive": str(tmp_path), "learner": PIPELINE, "promotion": SEQUENTIAL}
    return await open_loop(make_settings(web=changes))


def place_of(loop: Loop, model: str = "web") -> Place:
    """Return where the datasets of a model are."""
    where = loop.settings.model(model).archive
    assert where is not None
    return Place.open(where).at("datasets", model)


def dataset(loop: Loop, train: Rows, held: Rows, **changes: Any) -> Manifest:
    """Write a version of rows with labels."""
    query = Query(model="web", format="supervised", **changes)
    splits = {"train": train, "validation": held}
    return write_version(place_of(loop), query, splits, pa.bool_())


async def teach(loop: Loop, rows: Rows) -> list[Receipt]:
    """Answer rows, and have each answer corrected; returns the receipts."""
    found = []
    for row in rows:
        answer = await loop.predict("web", row["features"])
        found.append(await loop.feedback(answer["prediction_id"], "correction", row["target"]))
    await loop.turn("web")
    return found


# --- what may be tried ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("learner", "known"),
    [
        (PIPELINE, {"l2", "optimizer__lr", "intercept_lr", "epochs"}),
        ({"use": "torch:text", "lr": 2.0}, {"lr", "buckets", "epochs"}),
        ("river:tree.HoeffdingTreeClassifier", {"grace_period", "max_depth", "delta"}),
    ],
)
def test_arguments_of_a_learner_can_be_searched(learner: Any, known: set[str]) -> None:
    """Those of the factory are known by name, and of a River pipeline those of its last step."""
    assert known <= set(searchable(spec_of(learner=learner)))


def test_the_configured_one_comes_first_and_each_once() -> None:
    """What is as configured anyway is not tried again under another name."""
    spec = spec_of(learner={"use": "torch:text", "lr": 2.0})
    found = configurations(spec, {"lr": [2.0, 0.5], "epochs": [1, 2]})
    assert [one.told() for one in found] == [
        {"epochs": 1},
        {"epochs": 2},
        {"lr": 0.5, "epochs": 1},
        {"lr": 0.5, "epochs": 2},
    ]


def test_the_configuration_names_a_search_of_its_own() -> None:
    """Where a job names none, it is `retrain.search`, with as many epochs as configured."""
    spec = spec_of(retrain={"search": {"l2": [0.5]}, "epochs": 3})
    assert [one.told() for one in configurations(spec)] == [
        {"epochs": 3},
        {"l2": 0.5, "epochs": 3},
    ]


def test_a_parameter_of_a_parameter_is_set() -> None:
    """The learner is another one, and the configured one stays as it is."""
    spec = spec_of()
    made = make(spec, Configuration({"optimizer__lr": 0.5, "l2": 0.25}))
    assert isinstance(made, RiverLearner)
    last = made.model["LogisticRegression"]
    assert (last.optimizer.lr.learning_rate, last.l2) == (0.5, 0.25)
    assert not made.fitted
    fresh = make_learner(spec)
    assert isinstance(fresh, RiverLearner)
    assert fresh.model["LogisticRegression"].l2 == 0.0


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"ll2": [0.1]}, "Did you mean 'l2'"),
        ({"l2": []}, "names no value"),
        ({"epochs": [0]}, "from 1 to 100"),
        ({"epochs": [True]}, "from 1 to 100"),
        ({"optimizer": ["fast"]}, "Did you mean 'optimizer__lr'"),
        ({"l1": [0.1], "l2": [0.1]}, "no learner can be made with l1=0.1, l2=0.1"),
        ({"l2": [n / 100 for n in range(100)]}, "tries 64 at most"),
        ({"l2": [0.5] * 10**5, "l1": [0.5] * 10**5}, "has 10000000000 configurations"),
        ({"l2": [math.nan]}, "finite numbers"),
        ({"l2": [dt.date(2026, 1, 1)]}, "finite numbers"),
    ],
)
def test_what_cannot_be_tried_is_refused(search: dict[str, Any], words: str) -> None:
    """It says what there is instead."""
    with pytest.raises(ConfigError, match=words):
        configurations(spec_of(), search)


def test_weights_of_another_form_are_refused_before_training() -> None:
    """Those who answer could not take them: the words say so, and which argument it is."""
    with pytest.raises(ConfigError, match="buckets was 64 and is"):
        configurations(spec_of(learner="torch:text"), {"buckets": [64]})


@pytest.mark.parametrize(
    ("learner", "argument", "lesson"),
    [
        ("torch:text", "lr", Example({"text": "blue sky"}, True)),
        ("torch:mixed", "lr", Example({"a": 1.0}, False)),
        ("torch:ranking", "step", Ranked({}, ({"text": "yes"}, {"text": "no"}))),
    ],
)
def test_how_fast_it_learned_is_no_part_of_a_head(learner: str, argument: str, lesson: Any) -> None:
    """Weights learned at another rate are taken by the configured learner, and answer the same."""
    changes = {"task": "ranking", "labels": None} if argument == "step" else {}
    spec = spec_of(learner=learner, **changes)
    made, like = make(spec, Configuration({argument: 0.125})), make_learner(spec)
    made.learn([lesson])
    taken = unpack_state(state_for(made, like), like)
    assert taken.fitted
    assert ask(taken, [lesson]) == ask(made, [lesson]) != ask(like, [lesson])


def test_a_model_without_a_learner_is_refused() -> None:
    """There is nothing to train."""
    spec = Settings.parse({"models": {"llm": {"task": "generation"}}}).model("llm")
    with pytest.raises(ConfigError, match="no learner"):
        configurations(spec)


# --- what rows teach --------------------------------------------------------------------------


def test_rows_become_lessons_with_their_weights() -> None:
    """Labels are those of the configuration by name; what teaches nothing is counted by reason."""
    rows = [
        {"features": {"a": 1.0}, "target": True, "weight": 0.5},
        {"features": '{"a": 2.0}', "target": "false", "weight": 1.0},
        {"features": {"a": 3.0}, "target": "maybe", "weight": 1.0},
        {"features": {"a": 4.0}, "target": True, "weight": 0.0},
        {"features": None, "target": True, "weight": 1.0},
    ]
    reader = Reader.of(spec_of())
    assert [lesson for _, lesson in reader.lessons(rows)] == [
        Example({"a": 1.0}, True, 0.5),
        Example({"a": 2.0}, False, 1.0),
    ]
    assert dict(reader.left_out) == {
        "a label that the configuration does not have": 1,
        "no weight": 1,
        "no features": 1,
    }


def test_numbers_and_pairs() -> None:
    """A regression learns finite numbers; a ranking learns which of two was preferred."""
    spec = spec_of(task="regression", labels=None, learner="river:linear_model.LinearRegression")
    rows = [{"features": {}, "target": value, "weight": 1.0} for value in (3, 0.5, float("inf"))]
    reader = Reader.of(spec)
    found = [lesson for _, lesson in reader.lessons(rows)]
    assert found == [Example({}, 3.0), Example({}, 0.5)]
    assert dict(reader.left_out) == {"no number": 1}
    ranking = spec_of(task="ranking", labels=None, learner="torch:ranking")
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    row = {"features": chat, "chosen_features": {"text": "a"}, "rejected_features": {"text": "b"}}
    [(_, pair)] = Reader.of(ranking).lessons([row | {"weight": 2.0}])
    assert pair == Ranked({"prompt": "user: Hi"}, ({"text": "a"}, {"text": "b"}), weight=2.0)


# --- one configuration ------------------------------------------------------------------------


def test_a_row_that_a_learner_fails_on_is_left_out(trained: Loop) -> None:
    """What it learns is what it had learned without that row; and the failure is counted."""
    rows = signs(900)
    poisoned = [*rows[:700], {"features": {"a": "text"}, "target": True}, *rows[700:]]
    spec, place = trained.stages("web").spec, place_of(trained)
    clean, other = dataset(trained, rows, rows[:10]), dataset(trained, poisoned, rows[:10])

    def work(found: Manifest) -> Work:
        return Work(spec, Configuration(), place.url, found.id)

    expected, found = fit(work(clean)), fit(work(other))
    assert found.left_out == {"the learner failed (TypeError)": 1}
    assert found.learned == 900
    assert found.scores == expected.scores
    like = make_learner(spec)
    states = [unpack_state(one.state, like).digest() for one in (found, expected)]
    assert states[0] == states[1] != like.digest()


def test_a_learner_that_fails_on_everything_is_given_up(trained: Loop) -> None:
    """It says so, and raises nothing: other configurations may do better."""
    rows = [{"features": {"a": "text"}, "target": True}] * 200
    found = dataset(trained, rows, rows[:10])
    work = Work(trained.stages("web").spec, Configuration(), place_of(trained).url, found.id)
    fitted = fit(work)
    assert "fails on more than 100 rows (TypeError)" in fitted.failed
    assert not fitted.state


# --- jobs -------------------------------------------------------------------------------------


async def test_the_best_becomes_a_candidate_that_says_where_it_is_from(trained: Loop) -> None:
    """The version tells dataset, job and parent; the gate admits it; its answers tell it too."""
    stages, rows = trained.stages("web"), signs(1000)
    found = dataset(trained, rows[:800], rows[800:])
    job = await retrain(stages, Request(dataset=found.id, search={"optimizer__lr": [0.1, 1e-9]}))
    assert job.state == "done"
    assert [one.configuration for one in job.tried] == [
        {"epochs": 1},
        {"optimizer__lr": 0.1, "epochs": 1},
        {"optimizer__lr": 1e-9, "epochs": 1},
    ]
    scores = [one.scores["weighted_accuracy"] for one in job.tried]
    assert scores[job.chosen or 0] == max(scores) > job.constant["weighted_accuracy"] + 0.2
    assert job.champion["accuracy"] < scores[job.chosen or 0]
    version = await stages.registry.version(1)
    assert (job.version, version.status, version.brought) == (1, "candidate", True)
    assert version.trained is not None
    assert (version.trained.dataset, version.trained.job) == (found.id, job.id)
    assert (version.trained.parent, version.trained.because) == (0, "by hand")
    assert version.trained.configuration == job.tried[job.chosen or 0].configuration
    await trained.turn("web")
    aliases = await stages.registry.aliases()
    assert aliases is not None
    assert aliases.challengers == (1,)
    await operate(stages.registry, "promote", by="key:ada", now=stages.clock(), version=1)
    await trained.turn("web")
    answer = await trained.predict("web", {"a": 2.0, "b": 0.0})
    address = trained.keyring.open("prediction", answer["prediction_id"])[1]
    [(_, fields)] = await trained.store.range(stages.registry.keys.predictions)
    record = Prediction.model_validate_json(fields[b"r"])
    story = await explain.story(stages.registry, address, record)
    assert (answer["version"], answer["output"]) == (1, True)
    assert story["trained"]["job"] == job.id


async def test_what_was_held_out_is_learned_in_the_end(trained: Loop) -> None:
    """The version has learned all rows in their order, as one learner would that held out none."""
    stages, rows = trained.stages("web"), signs(500)
    job = await retrain(stages, Request(dataset=dataset(trained, rows[:300], rows[300:]).id))
    expected = make_learner(stages.spec)
    expected.learn([Example(row["features"], row["target"]) for row in rows])
    version = await stages.registry.version(job.version or 0)
    assert version.state_digest == expected.digest()


async def test_the_configured_one_wins_a_tie(trained: Loop) -> None:
    """Where another one is as good, it is not chosen."""
    rows = signs(400)
    search = {"clip_gradient": [1e11, 1e10]}
    request = Request(dataset=dataset(trained, rows[:300], rows[300:]).id, search=search)
    job = await retrain(trained.stages("web"), request)
    accuracies = {one.scores["weighted_accuracy"] for one in job.tried}
    assert (len(job.tried), len(accuracies), job.chosen) == (3, 1, 0)


async def test_weights_of_rows_count(trained: Loop) -> None:
    """Rows that weigh next to nothing teach next to nothing, though they are the most."""
    rows = signs(300, noise=0.0)
    lies = [{**row, "target": not row["target"], "weight": 0.001} for row in signs(900, seed=1)]
    mixed = [row for pair in zip(lies[:300], lies[300:600], rows, strict=True) for row in pair]
    job = await retrain(trained.stages("web"), Request(dataset=dataset(trained, mixed, rows).id))
    assert job.tried[0].scores["accuracy"] > 0.9


async def test_the_same_again_is_the_same_version(trained: Loop) -> None:
    """Equal rows give equal weights, and these are under test already."""
    rows = signs(400)
    request = Request(dataset=dataset(trained, rows[:300], rows[300:]).id)
    first = await retrain(trained.stages("web"), request)
    again = await retrain(trained.stages("web"), request)
    assert (first.version, again.version) == (1, 1)
    assert again.sentence == "This is version 1 already."
    assert [job.id for job in await jobs(trained.stages("web").registry)] == [again.id, first.id]


async def test_a_dry_run_leaves_nothing_behind(trained: Loop) -> None:
    """It trains, and tells what it would do."""
    rows, registry = signs(400), trained.stages("web").registry
    found = dataset(trained, rows[:300], rows[300:])
    job = await retrain(trained.stages("web"), Request(dataset=found.id, dry_run=True))
    assert (job.state, job.version) == ("done", 1)
    assert await registry.last_version() == 0
    assert await jobs(registry) == []


async def test_without_a_dataset_the_log_is_compiled(trained: Loop) -> None:
    """Held out by time: the last rows; the job tells how many there were."""
    await teach(trained, signs(200))
    job = await retrain(trained.stages("web"), Request(because="an alarm: it has moved"))
    assert job.state == "done"
    assert job.rows["validation"] in (40, 41)  # what was said in the millisecond of the cut
    assert 199 <= sum(job.rows.values()) <= 200  # an answer before it, and its signal after
    assert (job.learned, job.because) == (200, "an alarm: it has moved")


async def test_a_champion_that_has_learned_the_rows_says_so(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """What is compared with is what answers: the newest step, or the one that a freeze keeps."""
    changes = {"archive": str(tmp_path), "learner": PIPELINE}
    promotion = {"policy": "policies.promotion:Always"}
    loop = await open_loop(make_settings(web=changes | {"promotion": promotion}))
    stages = loop.stages("web")
    await teach(loop, signs(200))
    first = await retrain(stages, Request(dry_run=True))
    assert first.champion_learned == first.rows["validation"]
    assert first.champion["accuracy"] > 0.8
    await operate(stages.registry, "freeze", by="key:ada", now=stages.clock())
    await teach(loop, [{**row, "target": not row["target"]} for row in signs(600, seed=1)])
    frozen = await retrain(stages, Request(dry_run=True))
    assert frozen.champion_learned == 0
    assert frozen.champion["accuracy"] < 0.2  # of the lies, which the learner has learned since


async def test_what_was_taken_back_is_not_learned_from_an_old_dataset(trained: Loop) -> None:
    """Not of a dataset that was compiled before, nor where it is taken back while a job trains."""
    stages, slow = trained.stages("web"), Slow()
    receipts = await teach(trained, signs(200))
    entries = [trained.keyring.open("feedback", one.feedback_id or "")[1].entry for one in receipts]
    training = asyncio.create_task(retrain(stages, Request(), fits=slow))
    await slow.begun.wait()
    await retract(stages.registry, [entries[7]], by="key:ada")
    slow.go.set()
    found = [await training]
    found.append(await retrain(stages, Request(dataset=found[0].dataset)))
    for job in found:
        assert (job.state, job.version) == ("refused", None)
        assert "taken back" in job.why
    assert await stages.registry.last_version() == 0
    assert (await retrain(stages, Request())).state == "done"


@pytest.mark.parametrize(
    ("train", "held", "words"),
    [(99, 10, "has 99 rows to train on"), (200, 0, "holds out no rows")],
)
async def test_too_few_rows_are_refused(trained: Loop, train: int, held: int, words: str) -> None:
    """The record of the job says why."""
    found = dataset(trained, signs(train), signs(held))
    job = await retrain(trained.stages("web"), Request(dataset=found.id))
    assert job.state == "refused"
    assert words in job.why
    assert job.dataset == found.id
    [kept] = await jobs(trained.stages("web").registry)
    assert kept == job


async def test_a_dataset_of_another_format_is_refused(trained: Loop) -> None:
    """It says which one is needed."""
    row = {"features": {}, "chosen_features": {}, "rejected_features": {}}
    query = Query(model="web", format="preference")
    found = write_version(place_of(trained), query, {"train": [row] * 200})
    job = await retrain(trained.stages("web"), Request(dataset=found.id))
    assert job.state == "refused"
    assert "--format supervised" in job.why


async def test_a_damaged_dataset_is_refused(trained: Loop, tmp_path: Path) -> None:
    """One byte of it is enough; nothing is handed over."""
    rows = signs(400)
    found = dataset(trained, rows[:300], rows[300:])
    path = tmp_path / "datasets" / "web" / found.id / found.files[0].path
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(bytes(blob))
    job = await retrain(trained.stages("web"), Request(dataset=found.id))
    assert job.state == "refused"
    assert "is not as it was written" in job.why
    assert await trained.stages("web").registry.last_version() == 0


async def test_one_that_is_not_there_is_refused(trained: Loop) -> None:
    """So is a model that nobody has spoken to."""
    job = await retrain(trained.stages("web"), Request(dataset="0123456789abcdef"))
    assert (job.state, "no such version" in job.why) == ("refused", True)
    job = await retrain(trained.stages("web"), Request())
    assert (job.state, bool(job.why)) == ("refused", True)


async def test_what_cannot_answer_is_not_handed_over(trained: Loop) -> None:
    """People ask with features that the trained weights cannot take."""
    await trained.predict("web", {"a": "a text"})
    rows = signs(400)
    job = await retrain(
        trained.stages("web"), Request(dataset=dataset(trained, rows[:300], rows[300:]).id)
    )
    assert job.state == "refused"
    assert "cannot answer what this model was asked of late" in job.why


# --- one at a time ----------------------------------------------------------------------------


class Slow(Here):
    """Trains when it is told to."""

    def __init__(self) -> None:
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def all(self, works: Sequence[Work], done: Any = lambda _: None) -> list[Any]:
        """Wait, then train."""
        self.begun.set()
        await self.go.wait()
        return await super().all(works, done)


async def test_a_model_has_one_job_at_a_time(trained: Loop) -> None:
    """The second one is told which to wait for; the first goes on."""
    rows, stages, slow = signs(400), trained.stages("web"), Slow()
    request = Request(dataset=dataset(trained, rows[:300], rows[300:]).id)
    first = asyncio.create_task(retrain(stages, request, fits=slow))
    await slow.begun.wait()
    [running] = await jobs(stages.registry)
    assert running.state == "running"
    with pytest.raises(Conflict, match="under way already"):
        await retrain(stages, request)
    slow.go.set()
    done = await first
    assert [job.state for job in await jobs(stages.registry)] == ["done"]
    assert done.id == running.id
    again = await retrain(stages, request)
    assert again.state == "done"


async def test_a_job_that_was_stopped_says_so(trained: Loop) -> None:
    """Its record ends, and another may begin at once."""
    rows, stages, slow = signs(400), trained.stages("web"), Slow()
    request = Request(dataset=dataset(trained, rows[:300], rows[300:]).id)
    task = asyncio.create_task(retrain(stages, request, fits=slow))
    await slow.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [job] = await jobs(stages.registry)
    assert (job.state, job.why) == ("refused", "CancelledError")
    assert (await retrain(stages, request)).state == "done"


async def test_a_job_that_died_is_told_as_such(trained: Loop) -> None:
    """Where nobody holds the lock any more, a job that never ended has died."""
    registry = trained.stages("web").registry
    lock = Lock(registry, "j1")
    assert await lock.write("begin", Job(id="j1", started_at=1.0))
    assert not await Lock(registry, "j2").write("begin", Job(id="j2"))
    assert [job.state for job in await jobs(registry)] == ["running"]
    await registry.store.call("DEL", registry.keys.heartbeat("retrain"))  # as when it expires
    [job] = await jobs(registry)
    assert (job.id, job.state) == ("j1", "died")
    assert not await lock.write("hold")
    assert await Lock(registry, "j3").write("begin", Job(id="j3"))
    assert not await lock.write("end", Job(id="j1", state="refused"))
    assert [(job.id, job.state) for job in await jobs(registry)] == [
        ("j1", "refused"),
        ("j3", "running"),
    ]


async def test_a_candidate_waits_for_room(trained: Loop) -> None:
    """Where as many are under test as may be, it is not dropped, but tested when one ends."""
    stages, policy = trained.stages("web"), trained.stages("web").policy
    for seed in range(policy.max_open + 1):
        rows = signs(400, seed=seed)
        found = dataset(trained, rows[:300], rows[300:])
        assert (await retrain(stages, Request(dataset=found.id))).version == seed + 1
        await trained.turn("web")
    aliases = await stages.registry.aliases()
    assert aliases is not None
    assert aliases.challengers == (1, 2, 3)
    assert (await stages.registry.version(4)).status == "candidate"
    await operate(stages.registry, "promote", by="key:ada", now=stages.clock(), version=1)
    await trained.turn("web")
    aliases = await stages.registry.aliases()
    assert aliases is not None
    assert 4 in aliases.challengers


async def test_those_that_come_together_wait_for_room_too(trained: Loop) -> None:
    """As many are tested as may be, and no other is rejected without a test."""
    stages, policy = trained.stages("web"), trained.stages("web").policy
    for seed in range(policy.max_open + 2):
        rows = signs(400, seed=seed)
        await retrain(stages, Request(dataset=dataset(trained, rows[:300], rows[300:]).id))
    await trained.turn("web")
    aliases = await stages.registry.aliases()
    assert aliases is not None
    assert aliases.challengers == (1, 2, 3)
    assert [(await stages.registry.version(n)).status for n in (4, 5)] == ["candidate"] * 2


async def test_a_move_about_something_else_forgets_no_candidate(trained: Loop) -> None:
    """A guard that acts first takes nobody's turn: the candidate is tested after that."""
    stages = trained.stages("web")
    rows, move = signs(400), Move((await stages.registry.aliases()) or Aliases(champion=0))
    await retrain(stages, Request(dataset=dataset(trained, rows[:300], rows[300:]).id))
    decide, moves = stages.policy.decide, [move]
    with pytest.MonkeyPatch.context() as patch:
        decides = lambda _, case: moves.pop() if moves else decide(case)  # noqa: E731
        patch.setattr(type(stages.policy), "decide", decides)
        await trained.turn("web")
    aliases = await stages.registry.aliases()
    assert aliases is not None
    assert (aliases.challengers, moves) == ((1,), [])


# --- other tasks ------------------------------------------------------------------------------


async def test_a_ranker_is_trained_on_preferences(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """Held out pairs are in the right order; there is no constant answer to compare with."""
    changes = {"archive": str(tmp_path), "learner": "torch:ranking"}
    loop = await open_loop(make_settings(pages=changes))
    rng, rows = random.Random(0), []
    for _ in range(400):
        good, bad = {"text": f"good {rng.random()}"}, {"text": f"bad {rng.random()}"}
        rows.append({"features": {"q": "x"}, "chosen_features": good, "rejected_features": bad})
    query = Query(model="pages", format="preference")
    splits = {"train": rows[:300], "validation": rows[300:]}
    found = write_version(place_of(loop, "pages"), query, splits)
    job = await retrain(loop.stages("pages"), Request(dataset=found.id, search={"step": [0.1]}))
    assert job.state == "done", job.why
    assert [one.scores["pair_accuracy"] for one in job.tried] == [1.0, 1.0]
    assert (job.constant, job.chosen) == ({}, 0)


async def test_a_regression_is_chosen_by_its_error(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """Less is better; the mean of all numbers is what it is compared with."""
    learner = "river:preprocessing.StandardScaler | linear_model.LinearRegression"
    loop = await open_loop(make_settings(rent={"archive": str(tmp_path), "learner": learner}))
    rng = random.Random(0)
    rows = [
        {"features": {"a": a}, "target": 3 * a + 10} for a in (rng.random() for _ in range(500))
    ]
    query = Query(model="rent", format="supervised", file_format="jsonl")
    splits = {"train": rows[:400], "validation": rows[400:]}
    found = write_version(place_of(loop, "rent"), query, splits, pa.float64())
    search = {"intercept_lr": [0.5, 1e-6]}
    job = await retrain(loop.stages("rent"), Request(dataset=found.id, search=search))
    errors = [one.scores["mae"] for one in job.tried]
    assert job.chosen == 1
    assert errors[1] == min(errors) < job.constant["mae"]


def test_a_record_is_plain_json() -> None:
    """What is kept of a job can be read by anything."""
    job = Job(id="a", tried=[], started_at=2.0)
    assert json.loads(job.pack()) == {"id": "a", "started_at": 2.0}
    assert Job.model_validate_json(job.pack()) == job


def test_the_format_that_a_dataset_has_to_have() -> None:
    """It is told by the task."""
    check_format(spec_of(), "supervised")
    with pytest.raises(DataError, match="trained on supervised"):
        check_format(spec_of(), "sft")
