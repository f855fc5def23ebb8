"""Weights that were trained elsewhere: what is taken, what is refused, and that the laws hold."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from river import compose, feature_extraction, linear_model, naive_bayes, preprocessing
from the_learner import Wary, entry_of, heir, process, run, say
from the_service import problem

from online_learner import explain, release
from online_learner.bring import Brought, bring, read_model, save
from online_learner.client import Client
from online_learner.errors import Conflict, Invalid, NotFound, StateError
from online_learner.learners.factory import make_learner
from online_learner.learners.torch import tensors
from online_learner.loop import Loop
from online_learner.operate import operate
from online_learner.schema import Example, Version
from online_learner.settings import Settings
from online_learner.store import Store

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

WORDS = {"task": "classification", "labels": ["a", "b", "c"], "learner": "torch:text"}
TEXTS = {"a": "apple pie", "b": "blue sky", "c": "cold tea"}


def fitted(count: int = 200) -> Any:
    """Return a model of the kind of `web` that knows the sign of `a`."""
    model = linear_model.LogisticRegression()
    rng = random.Random(3)
    for _ in range(count):
        a = rng.gauss(0, 1)
        model.learn_one({"a": a}, a > 0)
    return model


def words() -> Any:
    """Return a model that cannot be asked without a text."""
    return feature_extraction.BagOfWords(on="text") | naive_bayes.MultinomialNB()


def head(**changes: Any) -> Any:
    """Return a text head that has learned which words go with which label."""
    spec = Settings.parse({"models": {"words": WORDS | changes}}).model("words")
    learner = make_learner(spec)
    labels = spec.labels or []
    learner.learn([Example({"text": TEXTS[str(label)]}, label) for label in labels] * 30)
    return learner


async def brought(loop: Loop, blob: bytes, model: str = "web", **options: Any) -> Brought:
    """Register a file."""
    stages = loop.models[model]
    now = loop.ingest.clock()
    return await bring(stages.registry, stages.learner, blob, by="key:ada", now=now, **options)


# --- what becomes of it -----------------------------------------------------------------------


async def test_an_untrained_model_takes_it_as_version_1(loop: Loop) -> None:
    """It answers at once, its record says where it is from, and the learner learns on from it."""
    assert (await loop.predict("web", {"a": 3.0}))["version"] == 0
    taken = await brought(loop, pickle.dumps(fitted()), note="of the archive")
    assert (taken.version.version, taken.becomes, taken.duplicate) == (1, "champion", False)
    await loop.turn("web")
    answer = await loop.predict("web", {"a": 3.0})
    assert (answer["version"], answer["output"]) == (1, True)
    kept = await loop.models["web"].registry.version(1)
    assert kept.registered is not None
    assert (kept.registered.by, kept.registered.note) == ("key:ada", "of the archive")
    before = loop.models["web"].trainer.learner.digest()
    assert before == kept.state_digest
    await say(loop, 3)
    await loop.turn("web")
    trainer = loop.models["web"].trainer
    assert (trainer.at.learned, trainer.at.lineage) == (3, 2)
    assert trainer.learner.digest() != before


async def test_it_is_in_the_verdicts_and_in_the_story_of_an_answer(loop: Loop) -> None:
    """Whoever asks why a version is live reads that it was registered, and by whom."""
    await brought(loop, pickle.dumps(fitted()))
    await loop.turn("web")
    registry = loop.models["web"].registry
    [verdict] = await explain.verdicts(registry)
    assert (verdict["action"], verdict["by"], verdict["version"]) == ("register", "key:ada", 1)
    answer = await loop.predict("web", {"a": 1.0})
    address = loop.keyring.open("prediction", answer["prediction_id"])[1]
    record = await loop.models["web"].journal.read(address)
    story = await explain.story(registry, address, record)
    assert story["live_because"]["sentence"] == verdict["sentence"]


@pytest.mark.parametrize("order", ["the register first", "the signals first"])
async def test_what_was_said_before_it_is_set_aside_or_learned_on(loop: Loop, order: str) -> None:
    """Signals that the learner had not come to are rolled back, releasable; later ones are kept."""
    registry = loop.models["web"].registry
    if order == "the signals first":
        [early] = await say(loop, 1)
        await brought(loop, pickle.dumps(fitted()))
        [fate] = (await explain.fates.fates(registry, [entry_of(loop, early)])).values()
        assert fate.status == "accepted"
    else:
        await brought(loop, pickle.dumps(fitted()))
        [early] = await say(loop, 1)
    await loop.turn("web")
    [fate] = (await explain.fates.fates(registry, [entry_of(loop, early)])).values()
    assert fate.status == ("rolled_back" if order == "the signals first" else "learned")
    if fate.status == "rolled_back":
        assert await release.release_rolled_back(registry, by="key:ada", reason="")
        await loop.turn("web")
        assert loop.models["web"].trainer.at.learned == 1


@pytest.mark.parametrize("policy", ["Leash", "Sequential"])
async def test_a_trained_model_tests_it_and_promotes_it(
    open_loop: OpenLoop, make_settings: MakeSettings, policy: str
) -> None:
    """It becomes a candidate, is compared on audited answers, and wins where it is better."""
    web = {
        "learner": {"use": "river:linear_model.LogisticRegression", "l2": 100.0},
        "promotion": {"policy": f"policies.promotion:{policy}"},
        "audit": 1.0,
    }
    loop = await open_loop(make_settings(web=web))
    await say(loop, 1)
    await loop.turn("web")
    model = linear_model.LogisticRegression(l2=100.0)
    model._weights = fitted()._weights
    model.intercept = fitted().intercept
    taken = await brought(loop, pickle.dumps(model))
    assert (taken.version.version, taken.becomes) == (1, "candidate")
    await loop.turn("web")
    aliases = await loop.models["web"].registry.aliases()
    assert aliases is not None
    assert aliases.challengers == (1,)
    rng = random.Random(1)
    for n in range(120):
        a = rng.gauss(0, 1)
        answer = await loop.predict("web", {"a": a})
        await loop.feedback(answer["prediction_id"], "correction", a > 0, user_id=f"r-{n % 30}")
        if n % 10 == 9:
            await loop.turn("web")
    aliases = await loop.models["web"].registry.aliases()
    assert aliases is not None
    assert aliases.champion == 1
    [verdict] = [v for v in await verdicts(loop) if v["action"] == "promote"]
    assert verdict["version"] == 1


async def verdicts(loop: Loop) -> list[dict[str, Any]]:
    """Return the verdicts on `web`."""
    return await explain.verdicts(loop.models["web"].registry)


async def test_one_that_is_not_better_is_not_promoted(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """One that answers the opposite is tested, and stays where it is until patience ends."""
    loop = await open_loop(make_settings(web={"audit": 1.0, "promotion": {"patience": 40}}))
    await brought(loop, pickle.dumps(fitted()))
    await loop.turn("web")
    worse = linear_model.LogisticRegression()
    for n in range(100):
        worse.learn_one({"a": float(n % 7 - 3)}, n % 7 < 3)
    assert (await brought(loop, pickle.dumps(worse))).becomes == "candidate"
    for n in range(60):
        a = 1.0 if n % 2 else -1.0
        answer = await loop.predict("web", {"a": a})
        await loop.feedback(answer["prediction_id"], "correction", a > 0, user_id=f"r-{n % 30}")
        if n % 10 == 9:
            await loop.turn("web")
    aliases = await loop.models["web"].registry.aliases()
    assert aliases is not None
    assert (aliases.champion, aliases.challengers) == (1, ())
    assert (await loop.models["web"].registry.version(2)).status == "rejected"


async def test_the_same_file_is_one_version(loop: Loop) -> None:
    """Sent again, it is a duplicate; a rejected one may try again."""
    blob = pickle.dumps(fitted())
    first = await brought(loop, blob)
    again = await brought(loop, blob)
    assert (again.duplicate, again.version, again.becomes) == (True, first.version, "champion")
    assert await loop.models["web"].registry.last_version() == 1


async def test_a_file_that_is_tested_no_longer_may_try_again(loop: Loop) -> None:
    """A candidate of a lineage that has ended is never tested: sent again, it is a new one."""
    registry, now = loop.models["web"].registry, loop.ingest.clock()
    blob = pickle.dumps(fitted(50))
    await operate(registry, "freeze", by="key:ada", now=now)
    assert (await brought(loop, blob)).becomes == "candidate"
    await operate(registry, "thaw", by="key:ada", now=now)
    assert (await brought(loop, pickle.dumps(fitted(60)))).becomes == "champion"
    await loop.turn("web")
    again = await brought(loop, blob)
    assert (again.duplicate, again.version.version, again.version.lineage) == (False, 3, 2)
    assert (await brought(loop, blob)).duplicate


async def test_a_dry_run_writes_nothing(loop: Loop) -> None:
    """All is checked, and told, and the store is as it was."""
    before = await dump(loop.store)
    taken = await brought(loop, pickle.dumps(fitted()), dry_run=True)
    assert (taken.version.version, taken.becomes) == (1, "champion")
    assert await dump(loop.store) == before


async def dump(store: Store) -> dict[bytes, bytes]:
    """Return all that the store holds."""
    return {key: await store.call("DUMP", key) for key in await store.call("KEYS", "*")}


async def test_while_frozen_it_waits(loop: Loop) -> None:
    """A freeze keeps what answers: even of an untrained model it becomes a candidate."""
    registry = loop.models["web"].registry
    await operate(registry, "freeze", by="key:ada", now=loop.ingest.clock())
    taken = await brought(loop, pickle.dumps(fitted()))
    assert taken.becomes == "candidate"
    assert "thaw" in taken.sentence


# --- the laws ---------------------------------------------------------------------------------


async def test_a_replay_finds_the_same_weights(loop: Loop) -> None:
    """From the first version along the steps, through the register, to the same bits."""
    await brought(loop, pickle.dumps(fitted()))
    await say(loop, 5)
    await loop.turn("web")
    await brought(loop, pickle.dumps(fitted(100)))
    await say(loop, 5, seed=1)
    await loop.turn("web")
    trainer = loop.models["web"].trainer
    for begin in ("load_newest", "rewind"):
        again = process(loop)
        await getattr(again, begin)()
        while await again.replay_step():
            pass
        assert again.learner.digest() == trainer.learner.digest()
        assert (again.at, again.differs) == (trainer.at, None)


@pytest.mark.parametrize("seed", range(3))
async def test_a_replay_finds_the_same_weights_whatever_happens(loop: Loop, seed: int) -> None:
    """Files among signals, crashes, promotions, rollbacks and releases lead to the same bits."""
    rng, stages = random.Random(seed), loop.models["web"]
    registry, trainer = stages.registry, heir(loop)
    by: dict[str, Any] = {"by": "key:ada", "now": loop.ingest.clock()}
    deeds: list[Callable[[int], Awaitable[Any]]] = [
        lambda n: say(loop, 3, seed=n),
        lambda n: brought(loop, pickle.dumps(fitted(20 + n))),
        lambda n: operate(registry, "promote", version=n % 4, **by),
        lambda _: operate(registry, "rollback", **by),
        lambda _: operate(registry, "thaw", **by),
        lambda _: release.release_rolled_back(registry, by="key:ada", reason=""),
    ]
    for n in range(25):
        if rng.random() < 0.1:
            trainer = heir(loop)  # the one before was killed
        await rng.choice([trainer.turn, stages.gatekeeper.turn])()
        with contextlib.suppress(Conflict, Invalid, NotFound, StateError):
            await rng.choice(deeds)(n)
    await run(trainer)
    for begin in ("load_newest", "rewind"):
        again = process(loop)
        await getattr(again, begin)()
        while await again.replay_step():
            pass
        assert again.learner.digest() == trainer.learner.digest()
        assert (again.at.digest, again.differs) == (trainer.at.digest, None)
    found = await loop.store.range(registry.keys.feedback)
    said = [entry for entry, fields in found if b"f" in fields]
    fates = (await explain.fates.fates(registry, said)).values()
    assert sum(fate.status == "learned" for fate in fates) == trainer.at.learned


async def test_a_registered_version_is_no_point_of_the_record(loop: Loop) -> None:
    """Where all states of the learner are lost, no replay begins at what came from outside."""
    await brought(loop, pickle.dumps(fitted()))
    await say(loop, 5)
    await loop.turn("web")
    await brought(loop, pickle.dumps(fitted(100)))
    keys = loop.models["web"].registry.keys
    await loop.store.call("DEL", keys.checkpoint("learner"), keys.before)
    again = process(loop)
    await run(again)
    assert again.learner.digest() == loop.models["web"].trainer.learner.digest()


async def test_a_cut_in_between_is_not_overwritten(loop: Loop) -> None:
    """Where the learner cuts a version while a file is checked, both get a number of their own."""
    await say(loop, 3)
    trainer = heir(loop)
    registry, run_script = loop.models["web"].registry, loop.store.run

    async def cut_first(script: str, *rest: Any) -> Any:
        if script == "register":
            loop.store.run = run_script  # type: ignore[method-assign]
            await run(trainer)
        return await run_script(script, *rest)

    loop.store.run = cut_first  # type: ignore[method-assign]
    taken = await brought(loop, pickle.dumps(fitted()))
    found = await registry.versions()
    assert [(v.version, v.registered is not None) for v in found][-2:] == [(1, False), (2, True)]
    assert taken.version == found[-1]
    assert isinstance(found[-1], Version)


async def test_it_gives_up_where_versions_are_cut_all_the_while(loop: Loop) -> None:
    """After some tries it says so, and has written nothing."""

    async def conflict(*_: Any) -> bytes:
        return b"conflict"

    loop.store.run = conflict  # type: ignore[method-assign]
    with pytest.raises(Conflict):
        await brought(loop, pickle.dumps(fitted()))


# --- what is refused --------------------------------------------------------------------------


class Bomb:
    """Runs something where it is read without care."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("taken-by-surprise",)


def scaled() -> Any:
    """Return a pipeline, where a plain regression is configured."""
    model = compose.Pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression())
    model.learn_one({"a": 1.0}, True)
    return model


@pytest.mark.parametrize(
    ("blob", "why"),
    [
        (b"", "no model of the family 'river'"),
        (b"PK\x03\x04", "no model of the family 'river'"),
        (b"\x80\x05garbage", "cannot be read"),
        (b"OLS1\x00", "cannot be read"),
        (pickle.dumps(Bomb()), "Nothing of it was run"),
        (pickle.dumps(linear_model.LogisticRegression()), "has learned nothing yet"),
        (pickle.dumps(scaled()), "StandardScaler | LogisticRegression"),
        (pickle.dumps({"a": 1}), "not of this model"),
        (head().to_bytes(), "no model of the family 'river'"),
    ],
    ids=["empty", "zip", "garbage", "cut", "bomb", "blank", "pipeline", "dict", "torch"],
)
async def test_what_is_not_this_model_is_refused(
    loop: Loop, blob: bytes, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says why and what would be taken; nothing of the file is run, nothing is kept."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Invalid, match=why.replace("|", r"\|")) as refused:
        await brought(loop, blob)
    assert refused.value.code == "not_this_model"
    assert list(tmp_path.iterdir()) == []
    assert await loop.models["web"].registry.last_version() == 0


def test_labels_are_those_of_the_configuration(make_settings: MakeSettings) -> None:
    """A model that knows other labels is refused: it would never be right."""
    like = make_learner(make_settings(topic={}).model("topic"))
    model = naive_bayes.GaussianNB()
    for label in ("news", "weather"):
        model.learn_one({"a": 1.0}, label)
    with pytest.raises(Invalid, match="1 labels that the configuration does not have"):
        read_model(pickle.dumps(model), like)


async def test_a_model_of_texts_answers_nothing_without_one(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """It is taken; its labels are looked at where people have asked with a text."""
    topic = {"labels": ["news", "sport"], "learner": f"{__name__}:words"}
    loop = await open_loop(make_settings(topic=topic))
    good, other = words(), words()
    for model, label in ((good, "news"), (other, "weather")):
        model.learn_one({"text": "a match"}, "sport")
        model.learn_one({"text": "a storm"}, label)
    assert read_model(pickle.dumps(good), loop.models["topic"].learner).fitted
    await loop.predict("topic", {"text": "a match"})
    with pytest.raises(Invalid, match="1 labels that the configuration does not have"):
        await brought(loop, pickle.dumps(other), "topic")
    assert (await brought(loop, pickle.dumps(good), "topic")).becomes == "champion"


def test_a_model_that_lacks_a_part_is_refused(make_settings: MakeSettings) -> None:
    """What such a model raises when it is looked at is told as any other fault of a file."""
    model = fitted()
    del model.l2
    with pytest.raises(Invalid, match=r"damaged \(AttributeError\)"):
        read_model(pickle.dumps(model), make_learner(make_settings(web={}).model("web")))


def test_two_labels_are_false_and_true_to_river(make_settings: MakeSettings) -> None:
    """A binary model of River is fitted on False and True, the first label and the second."""
    like = make_learner(make_settings(web={"labels": ["ham", "spam"]}).model("web"))
    found: Any = read_model(pickle.dumps(fitted()), like)
    assert [a.output for a in found.predict([{"a": -3.0}, {"a": 3.0}])] == ["ham", "spam"]


def test_weights_that_are_not_finite_are_refused() -> None:
    """One ruined number in a torch head is found when it is read."""
    state, about = tensors.unpack(head().to_bytes())
    name = next(n for n, tensor in state.items() if tensor.is_floating_point() and tensor.numel())
    state[name].view(-1)[0] = math.inf
    with pytest.raises(Invalid, match="not finite"):
        read_model(tensors.pack(state, about), head())


async def test_it_has_to_answer_what_people_ask(loop: Loop) -> None:
    """A model whose answers to the latest questions are not finite is refused."""
    await loop.predict("web", {"a": 1.0, "b": 2.0})
    model = fitted()
    model._weights["b"] = float("nan")
    with pytest.raises(Invalid, match="FloatingPointError"):
        await brought(loop, pickle.dumps(model))


def test_a_learner_of_ones_own_is_not_read(make_settings: MakeSettings) -> None:
    """Whether a learner reads its own bytes safely is not known, so nothing is given to it."""
    with pytest.raises(Invalid, match="Wary"):
        read_model(b"OLS1", Wary())


# --- torch, and files -------------------------------------------------------------------------


def test_a_head_comes_as_safetensors_or_as_saved(tmp_path: Path) -> None:
    """Both are read to the same weights."""
    learner = head()
    save(learner, tmp_path / "head.bin")
    for blob in (learner.to_bytes(), (tmp_path / "head.bin").read_bytes()):
        assert read_model(blob, head()).digest() == learner.digest()
    with pytest.raises(Invalid, match="under another configuration"):
        read_model(learner.to_bytes(), head(labels=["a", "b"]))


# --- over HTTP --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any]) -> Any:
    """Return a running service with a model of each kind, and a small limit."""
    return start_service(web={}, words=WORDS, max_body_bytes=1024, max_version_bytes=200_000)


async def test_over_http(
    service: Any, tmp_path: Path, eventually: Callable[..., Awaitable[None]]
) -> None:
    """The client sends a file larger than any other body may be, and the model answers by it."""
    file = tmp_path / "head.safetensors"
    file.write_bytes(head().to_bytes())
    assert file.stat().st_size > 1024
    with Client(service.url, service.key) as client:
        tried = client.register("words", file, dry_run=True)
        assert (tried["dry_run"], tried["becomes"]) == (True, "champion")
        assert len(client.versions("words")) == 1
        done = client.register("words", file, note="a note")
        assert (done["becomes"], done["duplicate"]) == ("champion", False)
        assert client.register("words", file.read_bytes())["duplicate"]
        kept = client.versions("words")[-1]
        assert kept["registered"]["note"] == "a note"
        assert kept["registered"]["by"] == "key:tester"
        await service.turn()
        await eventually(lambda: client.predict("words", {"text": "tea"}).version == 1)
        assert client.predict("words", {"text": "blue sky"}).output == "b"


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{}", "application/json", 415, "unsupported_media_type"),
        (b"\x80" * 200_001, "application/octet-stream", 413, "too_large"),
        (b"nothing", "application/octet-stream", 422, "not_this_model"),
    ],
)
def test_what_is_refused_at_the_door(
    http: Any, content: bytes, kind: str, status: int, code: str
) -> None:
    """Not a file, too large a file, and a file of something else, each is told apart."""
    headers = {"content-type": kind}
    reply = http.post("/v1/models/web/versions", content=content, headers=headers)
    problem(reply, status, code)


def test_a_file_in_pieces_ends_at_the_limit(http: Any) -> None:
    """The pieces are counted as they come: nobody declares a length, and none is believed."""
    headers = {"content-type": "application/octet-stream"}
    pieces = (b"\x80" * 50_000 for _ in range(100))
    reply = http.post("/v1/models/web/versions", content=pieces, headers=headers)
    problem(reply, 413, "too_large")


def test_it_takes_the_scope_of_operators(service: Any, http: Any, bare: Any) -> None:
    """Nobody without a key is let in."""
    headers = {"content-type": "application/octet-stream"}
    problem(
        bare.post("/v1/models/web/versions", content=b"x", headers=headers), 401, "unauthorized"
    )
    reply = http.get("/openapi.json").json()["paths"]["/v1/models/{model}/versions"]["post"]
    assert reply["security"][0] == {"key": ["operate"]}
    assert list(reply["requestBody"]["content"]) == ["application/octet-stream"]
    assert json.dumps(reply["parameters"]).count('"in": "query"') == 3


async def test_it_can_be_tested_first(loop: Loop) -> None:
    """Where that is wanted, a file is a candidate even of a model that has learned nothing."""
    taken = await brought(loop, pickle.dumps(fitted()), candidate=True)
    assert (taken.version.version, taken.becomes, taken.version.status) == (
        1,
        "candidate",
        "candidate",
    )
    await loop.turn("web")
    assert (await loop.predict("web", {"a": 3.0}))["version"] == 0
    aliases = await loop.models["web"].registry.aliases()
    assert aliases is not None
    assert aliases.challengers == (1,)
