"""What the log keeps of what is asked: all of it, keyed hashes of its words, or nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from online_learner.errors import ConfigError, NotFound
from online_learner.ids import Keyring
from online_learner.ingest.speaker import OWN
from online_learner.inputs import Inputs
from online_learner.loop import Loop
from online_learner.schema import Feedback, Prediction
from online_learner.settings import Settings
from online_learner.store import Store, open_store
from online_learner.store.embedded import EmbeddedServer

CANARY = "Zanzibarquux"
WORDS = f"{CANARY} lives at 12 {CANARY}-Street, {CANARY}@example.org"
NAMES = {name: f"{name}-{CANARY}" for name in ("session_id", "user_id", "external_id")}
TAGS = {"tags": {"who": CANARY}}
MAIL = {"task": "classification", "labels": ["ham", "spam"], "learner": "torch:text", "seed": 1}
ALWAYS = {"promotion": {"policy": "policies.promotion:Always"}}

Open = Callable[..., Awaitable[Loop]]
Make = Callable[..., Settings]


async def records(loop: Loop, model: str) -> list[Prediction]:
    """Return the answers of a model as they are in the log."""
    found = await loop.store.range(loop.stages(model).registry.keys.predictions)
    return [Prediction.model_validate_json(fields[b"r"]) for _, fields in found]


async def everything(store: Store) -> bytes:
    """Return all keys of the store and their values, as the server dumps them."""
    keys = await store.call("KEYS", "*")
    return b"".join([*keys, *[await store.call("DUMP", key) for key in keys]])


async def ask_all(loop: Loop) -> None:
    """Ask every kind of model with a canary in every place, and speak of the answers."""
    name = dict(NAMES)
    answer = await loop.predict("mail", {"text": WORDS, "length": 7.0}, **name, **TAGS)
    await loop.feedback(answer["prediction_id"], "correction", "spam", user_id=NAMES["user_id"])
    options = [{"id": str(n), "features": {"title": WORDS, "n": n}} for n in range(2)]
    await loop.predict("pages", {"query": WORDS}, options=options, **name, **TAGS)
    outputs = [{"id": "a", "text": WORDS}, {"id": "b", "json": {"name": CANARY}}]
    chat = [{"role": "user", "content": [{"type": "text", "text": WORDS}]}]
    parameters = {"stop": [CANARY]}
    await loop.log("llm", messages=chat, outputs=outputs, parameters=parameters, **name, **TAGS)
    for model in loop.models:
        await loop.turn(model)


@pytest.mark.parametrize("mode", ["full", "hashed", "none"])
async def test_no_canary_is_in_the_store_or_on_its_disk(
    tmp_path: Any, make_settings: Make, mode: str
) -> None:
    """Words, names and tags are in streams, keys and the server's log where `full` says so only."""
    server = EmbeddedServer.ensure(tmp_path)
    try:
        changes = {"log_inputs": mode}
        made = make_settings(mail=MAIL | changes, pages=changes, llm=changes)
        settings = made.model_copy(update={"store": server.url, "data_dir": tmp_path})
        async with await Loop.open(settings) as loop:
            await ask_all(loop)
        async with await open_store(server.url) as store:
            kept = (await everything(store)).lower()
    finally:
        server.stop()
    written = b"".join(f.read_bytes() for f in (tmp_path / "store").rglob("*.aof")).lower()
    assert written
    for place in (kept, written):
        assert (CANARY.lower().encode() in place) == (mode == "full")


@pytest.mark.parametrize("mode", ["full", "hashed", "none"])
async def test_what_is_learned(open_loop: Open, make_settings: Make, mode: str) -> None:
    """A text model learns from hashed words as from words; from nothing it learns nothing."""
    mail = MAIL | ALWAYS | {"log_inputs": mode}
    loop = await open_loop(make_settings(mail=mail))
    for n in range(60):
        text = ("cheap watches", "see you at noon")[n % 2]
        answer = await loop.predict("mail", {"text": text})
        await loop.feedback(answer["prediction_id"], "correction", ("spam", "ham")[n % 2])
    await loop.turn("mail")
    texts = ("CHEAP watches!", "at noon")
    said = [(await loop.predict("mail", {"text": text}))["output"] for text in texts]
    trainer = loop.stages("mail").trainer
    assert trainer.at.learned == (0 if mode == "none" else 60)
    if mode != "none":
        assert said == ["spam", "ham"]
    assert await loop.store.call("XLEN", trainer.keys.quarantine) == 0
    assert {record.inputs for record in await records(loop, "mail")} == {mode}


async def test_what_was_not_logged_is_never_learned(open_loop: Open, make_settings: Make) -> None:
    """A record of `none` teaches nothing after the configuration has changed either."""
    secret = make_settings(web={"log_inputs": "none"})
    loop = await open_loop(secret)
    answer = await loop.predict("web", {"x": 1.0})
    await loop.feedback(answer["prediction_id"], "correction", True)
    later = await open_loop(make_settings(web={}))
    await later.turn("web")
    assert later.stages("web").trainer.at.learned == 0
    assert (await records(later, "web"))[0].features == {}


@pytest.mark.parametrize("mode", ["hashed", "none"])
async def test_answers_are_found_by_their_names(
    open_loop: Open, make_settings: Make, mode: str
) -> None:
    """Session and external id lead to the answer, and one user is one source, hashed."""
    loop = await open_loop(make_settings(web={"log_inputs": mode, "public_feedback": True}))
    answer = await loop.predict("web", {"x": 1.0}, **NAMES)
    for name in ("session_id", "external_id"):
        said = {"model": "web", name: NAMES[name], "user_id": NAMES["user_id"]}
        found = await loop.ingest.accept(_correction(said))
        assert found.prediction_id == answer["prediction_id"]
    public = {"prediction_id": answer["prediction_id"], "value": False}
    await loop.ingest.accept(_correction(public), OWN)
    with pytest.raises(NotFound):
        await loop.ingest.accept(_correction({"model": "web", "session_id": "another"}))
    entries = await loop.store.range(loop.stages("web").registry.keys.feedback)
    [source] = {Feedback.model_validate_json(fields[b"f"]).source for _, fields in entries}
    [record] = await records(loop, "web")
    assert source == f"human:{record.user_id}"
    assert CANARY not in source


def _correction(said: dict[str, Any]) -> Any:
    from online_learner.requests import read_feedback

    return read_feedback({"kind": "correction", "value": True, **said})


def test_words_are_hashed_and_nothing_else() -> None:
    """Equal words, in any case, have equal hashes of letters; numbers and feature names stay."""
    ring = Keyring({1: bytes(range(32)), 2: bytes(32)})
    inputs = Inputs("hashed", ring.pseudonym)
    sent = {"text": "Ada, ada! 12", "n": 1.5, "yes": True, "none": None, "list": ["ada", 2]}
    seen = inputs.seen(sent)
    one, two, number = seen["text"].replace(",", "").replace("!", "").split()
    assert one == two != number
    assert all(word.isascii() and word.isalpha() and word.islower() for word in (one, number))
    assert (seen["n"], seen["yes"], seen["none"], seen["list"]) == (1.5, True, None, [one, 2])
    assert list(seen) == list(sent)
    assert sent["text"] == "Ada, ada! 12"


@pytest.mark.parametrize(
    "word", ["नमस्ते", "สวัสดี", "שָׁלוֹם", "cafe\u0301", "\U0001f468\u200d\U0001f469", "ﷺ", "snake_case"]
)
def test_words_of_every_script_are_hashed_whole(word: str) -> None:
    """Marks, joiners and symbols are parts of words; both forms of an accent are the same word."""
    inputs = Inputs("hashed", Keyring({1: bytes(32)}).pseudonym)
    seen = inputs.seen(f"“{word}”…")
    letters = seen.replace("_", "").strip("“”…")
    assert letters.isascii()
    assert letters.isalpha()
    assert word not in seen
    assert inputs.seen("caf\u00e9") == inputs.seen("CAFE\u0301")


def test_long_words_are_not_kept_in_memory() -> None:
    """Whoever sends them fills no cache; they are hashed all the same."""
    inputs = Inputs("hashed", Keyring({1: bytes(32)}).pseudonym)
    one, two = (inputs.seen("x" * 10_000) for _ in range(2))
    assert one == two
    assert inputs._word.cache_info().currsize == 0


def test_hashes_are_of_the_oldest_key_and_of_the_model() -> None:
    """A new signing key leaves the words what they are; another key or model has other words."""
    one, two = bytes(range(32)), bytes(32)
    before, during, after = Keyring({1: one}), Keyring({1: one, 2: two}), Keyring({2: two})
    assert before.pseudonym(b"m", b"x") == during.pseudonym(b"m", b"x")
    assert during.pseudonym(b"m", b"x") != after.pseudonym(b"m", b"x")
    assert before.pseudonym(b"m", b"x") != before.pseudonym(b"n", b"x")


def test_segments_need_inputs(make_settings: Make) -> None:
    """A guard on segments of what is asked, of which nothing is kept, is refused."""
    with pytest.raises(ConfigError, match=r"models\.web.*log_inputs: hashed"):
        make_settings(web={"log_inputs": "none", "guard_segments": ["country"]})
