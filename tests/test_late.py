"""Feedback after the window: with an archive it goes on file, and alters no weights."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from the_service import problem

from online_learner import explain, learn
from online_learner.client import Client
from online_learner.errors import (
    Erased,
    Invalid,
    NotFound,
    RateLimited,
    ServiceError,
    WindowClosed,
)
from online_learner.ids import LATE, Address
from online_learner.ingest import OWN, Receipt, Speaker
from online_learner.loop import Loop
from online_learner.requests import read_feedback
from online_learner.schema import Feedback
from online_learner.settings import Settings
from online_learner.store import Fields, Store

WINDOW_S = 60
ASKED = {"a": 1.0}
PLAIN = {"publish_s": 0.0, "audit": 0.0, "promotion": {"policy": "policies.promotion:Always"}}

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]


@pytest.fixture(autouse=True)
async def _exact(store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Let the server keep one entry a node, and the learner no older state: trimming is exact."""
    monkeypatch.setattr(learn, "KEPT_MS", 0)
    await store.call("CONFIG", "SET", "stream-node-max-entries", "1")
    yield
    await store.call("CONFIG", "SET", "stream-node-max-entries", "100")


@pytest.fixture
def archived(tmp_path: Path, make_settings: MakeSettings) -> Callable[..., Settings]:
    """Return a factory of settings with an archive: `archived(web={...})`."""

    def make(**models: Any) -> Settings:
        known = {
            name: PLAIN | {"archive": str(tmp_path)} | change
            for name, change in (models or {"web": {}}).items()
        }
        return make_settings(window_s=WINDOW_S, **known)

    return make


@pytest.fixture
async def loop(open_loop: OpenLoop, archived: Callable[..., Settings]) -> Loop:
    """Return a loop whose model `web` has an archive."""
    return await open_loop(archived())


async def say(loop: Loop, prediction_id: str, **body: Any) -> Receipt:
    """Say something of an answer, as `ada` where nobody else is named; None leaves a field out."""
    told = {"kind": "correction", "value": True, "user_id": "ada", **body}
    sent = {name: value for name, value in told.items() if value is not None}
    said = read_feedback({"prediction_id": prediction_id, **sent})
    return await loop.ingest.accept(said, Speaker("key"))


async def on_file(loop: Loop, model: str = "web") -> list[tuple[str, Fields]]:
    """Return what was said late."""
    return await loop.store.range(loop.stages(model).registry.keys.late)


async def asked(loop: Loop, model: str = "web", **more: Any) -> str:
    """Return the id of a new answer."""
    return str((await loop.predict(model, ASKED, **more))["prediction_id"])


async def pass_on(loop: Loop) -> None:
    """Let the learner go on, so that nobody needs what it learned before."""
    for _ in range(3):
        await say(loop, await asked(loop), user_id="pat")
        await loop.turn("web")


async def trim(loop: Loop, model: str = "web") -> None:
    """Archive all there is, and let what is over leave the store."""
    stages = loop.stages(model)
    assert stages.archiver is not None
    await stages.archiver.flush()
    await stages.retention.trim()


async def test_late_feedback_goes_on_file_and_alters_no_weights(loop: Loop, clock: Any) -> None:
    """It is acknowledged as what it is, durable, and the learner never hears of it."""
    one = await asked(loop)
    await say(loop, one)
    await loop.turn("web")
    before = await loop.stages("web").registry.published()
    clock.advance(WINDOW_S + 100)
    receipt = await say(loop, one, value=False, comment="after all")
    assert (receipt.status, receipt.prediction_id) == ("archived_only", one)
    await loop.turn("web")
    after = await loop.stages("web").registry.published()
    assert before is not None
    assert after is not None
    assert (after.state_digest, after.learned) == (before.state_digest, 1)
    [(entry, fields)] = await on_file(loop)
    said = Feedback.model_validate_json(fields[b"f"])
    assert (said.value, said.comment, said.source) == (False, "after all", "human:ada")
    _, address = loop.keyring.open("prediction", one)
    assert (fields[b"p"].decode(), fields[b"m"].decode()) == (address.entry, address.nonce)
    assert b"r" not in fields
    _, found = loop.keyring.open("feedback", receipt.feedback_id or "")
    assert (found.entry, found.nonce, found.shard) == (entry, fields[b"n"].decode(), LATE)


async def test_without_an_archive_the_window_closes(
    open_loop: OpenLoop, make_settings: MakeSettings, clock: Any
) -> None:
    """There is nowhere for it to go: 410, as ever."""
    loop = await open_loop(make_settings(web={}, window_s=WINDOW_S))
    one = await asked(loop)
    clock.advance(WINDOW_S + 100)
    with pytest.raises(WindowClosed):
        await say(loop, one)
    with pytest.raises(WindowClosed):
        await loop.feedback(one, "correction", True)
    assert await on_file(loop) == []


async def test_a_loop_of_ones_own_does_the_same(loop: Loop, clock: Any) -> None:
    """Without HTTP, `Loop.feedback` takes it too."""
    one = await asked(loop)
    clock.advance(WINDOW_S + 100)
    assert (await loop.feedback(one, "correction", value=True)).status == "archived_only"


async def test_a_dry_run_writes_nothing(loop: Loop, clock: Any) -> None:
    """It says what would become of it."""
    one = await asked(loop)
    clock.advance(WINDOW_S + 100)
    receipt = await say(loop, one, dry_run=True)
    assert (receipt.status, receipt.feedback_id) == ("archived_only", None)
    assert await on_file(loop) == []


async def test_said_twice_it_is_on_file_once(loop: Loop, clock: Any) -> None:
    """By its idempotency key, and where it is the same to the letter."""
    one = await asked(loop)
    clock.advance(WINDOW_S + 100)
    first = await say(loop, one, idempotency_key="k")
    again = await say(loop, one, idempotency_key="k")
    plain = await say(loop, one)
    assert [r.status for r in (first, again, plain)] == ["archived_only", "duplicate", "duplicate"]
    assert first.feedback_id == again.feedback_id == plain.feedback_id
    with pytest.raises(Invalid) as caught:
        await say(loop, one, value=False, idempotency_key="k")
    assert caught.value.code == "idempotency_key_reused"
    other = await say(loop, one, value=False)
    assert other.status == "archived_only"
    [(entry, _), (_, newer)] = await on_file(loop)
    assert newer[b"s"].decode() == entry


async def test_what_was_said_in_time_is_another_matter(loop: Loop, clock: Any) -> None:
    """The marks of the window's own signals are not those of late ones."""
    one = await asked(loop)
    early = await say(loop, one)
    clock.advance(WINDOW_S + 100)
    late = await say(loop, one, value=False)
    assert early.feedback_id != late.feedback_id
    registry = loop.stages("web").registry
    _, address = loop.keyring.open("feedback", early.feedback_id or "")
    assert (await explain.receipt(registry, address))["superseded_by"] is None


async def test_several_at_once_are_each_told(loop: Loop, clock: Any) -> None:
    """All of them are on file, or none."""
    one = await asked(loop)
    clock.advance(WINDOW_S + 100)
    signals = [{"kind": "thumbs", "value": False}, {"kind": "correction", "value": True}]
    body = read_feedback({"prediction_id": one, "user_id": "ada", "signals": signals})
    receipt = await loop.ingest.accept(body, Speaker("key"))
    assert [signal["status"] for signal in receipt.signals] == ["archived_only"] * 2
    assert len(await on_file(loop)) == 2
    signals[1]["value"] = "maybe"
    with pytest.raises(Invalid):
        await loop.ingest.accept(
            read_feedback({"prediction_id": one, "user_id": "bob", "signals": signals})
        )
    assert len(await on_file(loop)) == 2


async def test_limits_hold(open_loop: OpenLoop, archived: Any, clock: Any) -> None:
    """Late or not, a source may send so much."""
    loop = await open_loop(archived(web={"limits": {"per_source": {"rate": 0.001, "burst": 1}}}))
    one = await asked(loop)
    clock.advance(WINDOW_S + 100)
    await say(loop, one)
    with pytest.raises(RateLimited):
        await say(loop, one, value=False)
    assert len(await on_file(loop)) == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"kind": "correction", "value": "maybe"}, "invalid_value"),
        ({"kind": "ranking", "value": ["a", "b"]}, "kind_not_applicable"),
        ({"kind": "selection", "value": "maybe"}, "not_served"),
        ({"model_version": 7}, "version_mismatch"),
    ],
)
@pytest.mark.parametrize("trimmed", [False, True])
async def test_it_is_checked_as_ever(
    loop: Loop, clock: Any, *, body: dict[str, Any], code: str, trimmed: bool
) -> None:
    """Against the record in the store, or in the archive."""
    one = await asked(loop)
    clock.advance(WINDOW_S + 100)
    if trimmed:
        await trim(loop)
    with pytest.raises(ServiceError) as caught:
        await say(loop, one, **body)
    assert caught.value.code == code
    assert await on_file(loop) == []
    assert (await say(loop, one, kind="selection", value=True)).status == "archived_only"


async def test_what_was_shown_is_read_from_the_archive(
    open_loop: OpenLoop, archived: Any, clock: Any
) -> None:
    """A preference between options that nobody saw is refused long after the record has left."""
    loop = await open_loop(archived(pages={}))
    options = [{"id": name, "features": {"x": x}} for x, name in enumerate("abc")]
    found = await loop.predict("pages", {"q": 1.0}, options=options, top_k=2)
    shown, one = found["output"], found["prediction_id"]
    hidden = ({"a", "b", "c"} - set(shown)).pop()
    clock.advance(WINDOW_S + 100)
    await trim(loop, "pages")
    keys = loop.stages("pages").registry.keys
    assert await loop.store.range(keys.predictions) == []
    pair = {"kind": "preference", "chosen": shown[0]}
    with pytest.raises(Invalid) as caught:
        await say(loop, one, **pair | {"rejected": hidden, "value": None})
    assert caught.value.code == "not_served"
    second = pair | {"rejected": shown[1], "value": None}
    assert (await say(loop, one, **second)).status == "archived_only"


async def test_a_preference_between_two_answers_has_both(
    open_loop: OpenLoop, archived: Any, clock: Any
) -> None:
    """It is late once one of them is; the second one's address goes along."""
    loop = await open_loop(archived(llm={}))
    made = [await loop.log("llm", prompt="2 + 2?", outputs=[{"id": "0", "text": t}]) for t in "45"]
    chosen, rejected = (str(one["prediction_id"]) for one in made)
    clock.advance(WINDOW_S + 100)
    pair = {"kind": "preference", "chosen": chosen, "rejected": rejected, "user_id": "ada"}
    receipt = await loop.ingest.accept(read_feedback(pair), Speaker("key"))
    assert (receipt.status, receipt.prediction_id) == ("archived_only", chosen)
    [(_, fields)] = await on_file(loop, "llm")
    addresses = [loop.keyring.open("prediction", one)[1] for one in (chosen, rejected)]
    found = [fields[name].decode() for name in (b"p", b"m", b"q", b"t")]
    assert found == [part for it in addresses for part in (it.entry, it.nonce)]
    again = await loop.ingest.accept(read_feedback(pair), Speaker("key"))
    assert again.status == "duplicate"


async def test_where_the_archive_cannot_be_read_it_is_taken_as_it_is(
    open_loop: OpenLoop, archived: Any, clock: Any, tmp_path: Path
) -> None:
    """On another node, say: a dataset looks again. What needs no record is checked as ever."""
    loop = await open_loop(archived(web={"public_feedback": True}))
    one = await asked(loop)
    clock.advance(WINDOW_S + 100)
    await trim(loop)
    files = [*tmp_path.rglob("*.parquet")]
    assert files
    for file in files:
        file.unlink()
    assert (await say(loop, one, kind="selection", value=True)).status == "archived_only"
    with pytest.raises(Invalid):
        await say(loop, one, value="maybe")
    with pytest.raises(WindowClosed, match="key with scope"):
        await own(loop, one)


async def test_of_an_answer_that_is_nowhere_nothing_is_taken(loop: Loop, clock: Any) -> None:
    """An id of ours whose record neither store nor archive has: the window has closed."""
    one = await asked(loop)
    keys = loop.stages("web").registry.keys
    await loop.store.call("DEL", keys.predictions)
    clock.advance(WINDOW_S + 100)
    with pytest.raises(WindowClosed, match="not in the archive"):
        await say(loop, one)


async def own(loop: Loop, prediction_id: str) -> Receipt:
    """Say something with the id alone."""
    body = {"prediction_id": prediction_id, "kind": "correction", "value": True}
    return await loop.ingest.accept(read_feedback(body), OWN)


async def test_without_a_key_the_record_says_who_speaks(
    open_loop: OpenLoop, archived: Any, clock: Any
) -> None:
    """The user whom it was given to, from the archive."""
    loop = await open_loop(archived(web={"public_feedback": True}))
    one = await asked(loop, user_id="ada")
    clock.advance(WINDOW_S + 100)
    await trim(loop)
    assert (await own(loop, one)).status == "archived_only"
    [(_, fields)] = await on_file(loop)
    assert Feedback.model_validate_json(fields[b"f"]).source == "human:ada"


# --- told from the archive --------------------------------------------------------------------


async def test_a_story_is_told_from_the_archive(loop: Loop, clock: Any) -> None:
    """The answer, what was said of it in time and late, and what became of that."""
    stages = loop.stages("web")
    one = await asked(loop, user_id="ada")
    early = await say(loop, one)
    await loop.turn("web")
    _, address = loop.keyring.open("prediction", one)
    told = {"window_s": float(WINDOW_S)}
    fresh = await explain.answer(stages.log, address, **told)
    assert "archived" not in fresh
    await pass_on(loop)
    clock.advance(WINDOW_S + 100)
    late = [await say(loop, one, value=False, user_id=name) for name in ("bob", "eve")]
    await trim(loop)
    assert await loop.store.range(stages.registry.keys.predictions) == []
    assert len(await loop.store.range(stages.registry.keys.feedback)) < 4
    later = await say(loop, one, value=False, user_id="joe")  # in the store still
    story = await explain.answer(stages.log, address, **told)
    assert story["archived"] is True
    assert story["prediction"] == fresh["prediction"]
    found = {signal["feedback_id"]: signal for signal in story["feedback"]}
    assert list(found) == [early.feedback_id, *(r.feedback_id for r in (*late, later))]
    assert found[early.feedback_id]["status"] == "learned"
    assert found[early.feedback_id]["step"] == fresh["feedback"][0]["step"]
    assert {found[r.feedback_id]["status"] for r in (*late, later)} == {"archived_only"}
    assert story["live_because"] == fresh["live_because"]


async def test_a_story_has_what_is_not_on_file_yet(loop: Loop, clock: Any) -> None:
    """The answer has left the store, and what was said of it last waits to be archived."""
    stages = loop.stages("web")
    one = await asked(loop)
    assert stages.archiver is not None
    await stages.archiver.flush()
    said = await say(loop, one)
    await loop.learn("web")
    await stages.trainer.publish()
    clock.advance(WINDOW_S + 100)
    await stages.retention.trim()
    assert await loop.store.range(stages.registry.keys.predictions) == []
    _, address = loop.keyring.open("prediction", one)
    story = await explain.answer(stages.log, address, window_s=WINDOW_S)
    assert [s["feedback_id"] for s in story["feedback"]] == [said.feedback_id]
    assert story["feedback"][0]["status"] == "learned"


async def test_a_story_lists_the_files_once(
    loop: Loop, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of all files is read once in a process, and not for each answer."""
    stages = loop.stages("web")
    one = await asked(loop)
    await say(loop, one)
    await loop.turn("web")
    await pass_on(loop)
    clock.advance(WINDOW_S + 100)
    await trim(loop)
    _, address = loop.keyring.open("prediction", one)
    told = [await explain.answer(stages.log, address, window_s=WINDOW_S)]
    read = loop.store.hash

    async def hash_of(key: str) -> Fields:
        assert key != stages.registry.keys.segments
        return await read(key)

    monkeypatch.setattr(loop.store, "hash", hash_of)
    told.append(await explain.answer(stages.log, address, window_s=WINDOW_S))
    assert told[0] == told[1]
    assert len(told[0]["feedback"]) == 1


async def test_a_receipt_is_told_from_the_archive(loop: Loop, clock: Any) -> None:
    """With its fate, and what took its place."""
    stages = loop.stages("web")
    one = await asked(loop)
    first, second = await say(loop, one), await say(loop, one, value=False)
    await loop.turn("web")
    addresses = [loop.keyring.open("feedback", r.feedback_id or "")[1] for r in (first, second)]
    before = [await explain.receipt(stages.registry, a, log=stages.log) for a in addresses]
    await pass_on(loop)
    clock.advance(WINDOW_S + 100)
    late = await say(loop, one)
    await trim(loop)
    with pytest.raises(NotFound, match="trimmed"):
        await explain.receipt(stages.registry, addresses[0])
    after = [await explain.receipt(stages.registry, a, log=stages.log) for a in addresses]
    for was, now in zip(before, after, strict=True):
        was.pop("served")
        assert now == was | {"archived": True, "superseded_by": now["superseded_by"]}
    assert after[1]["supersedes"] == first.feedback_id
    _, address = loop.keyring.open("feedback", late.feedback_id or "")
    told = await explain.receipt(stages.registry, address, log=stages.log)
    assert (told["status"], told["archived"]) == ("archived_only", True)
    assert told["feedback"]["value"] is True


async def test_a_receipt_says_that_the_archive_cannot_be_read(
    loop: Loop, clock: Any, tmp_path: Path
) -> None:
    """404 with the reason, and no name of a file."""
    stages = loop.stages("web")
    one = await asked(loop)
    receipt = await say(loop, one)
    await loop.turn("web")
    await pass_on(loop)
    clock.advance(WINDOW_S + 100)
    await trim(loop)
    found = [*tmp_path.rglob("*.parquet")]
    assert found
    for file in found:
        file.write_bytes(file.read_bytes()[:-100])
    _, address = loop.keyring.open("feedback", receipt.feedback_id or "")
    with pytest.raises(NotFound, match="a file is damaged") as caught:
        await explain.receipt(stages.registry, address, log=stages.log)
    assert str(tmp_path) not in str(caught.value)
    _, address = loop.keyring.open("prediction", one)
    with pytest.raises(NotFound, match="a file is damaged"):
        await explain.answer(stages.log, address, window_s=WINDOW_S)


@pytest.mark.parametrize("stream", ["feedback", "steps"])
async def test_a_story_says_what_of_it_cannot_be_told(
    loop: Loop, clock: Any, tmp_path: Path, stream: str
) -> None:
    """Where the answer can be read, and what was said of it cannot."""
    stages = loop.stages("web")
    one = await asked(loop)
    await say(loop, one)
    await loop.turn("web")
    await pass_on(loop)
    clock.advance(WINDOW_S + 100)
    await trim(loop)
    [file] = tmp_path.rglob(f"{stream}/*/*.parquet")
    file.unlink()
    _, address = loop.keyring.open("prediction", one)
    story = await explain.answer(stages.log, address, window_s=WINDOW_S)
    assert (story["archived"], story["feedback"]) == (True, [])
    assert "cannot be read here" in story["incomplete"]
    assert story["prediction"]["features"] == ASKED


async def test_a_signal_of_another_stream_is_not_taken_for_one(loop: Loop, clock: Any) -> None:
    """The id says in which stream a signal is: the other one is not asked."""
    stages = loop.stages("web")
    one = await asked(loop)
    clock.advance(WINDOW_S + 100)
    late = await say(loop, one)
    _, address = loop.keyring.open("feedback", late.feedback_id or "")
    other = Address(address.ms, address.seq, address.nonce)
    with pytest.raises(NotFound):
        await explain.receipt(stages.registry, other, log=stages.log)


# --- erased -----------------------------------------------------------------------------------


async def erase(loop: Loop, stream: str, entry: str) -> None:
    """Put a tombstone in the place of an entry, which is the stream's last."""
    key = getattr(loop.stages("web").registry.keys, stream)
    await loop.store.call("DEL", key)
    await loop.store.call("XADD", key, entry, "x", "1")


async def test_of_what_was_erased_only_that_is_told(loop: Loop, clock: Any) -> None:
    """410 on reads and on feedback, in time or late."""
    stages = loop.stages("web")
    one = await asked(loop)
    receipt = await say(loop, one)
    _, address = loop.keyring.open("prediction", one)
    await erase(loop, "predictions", address.entry)
    for more in ({}, {"dry_run": True}, {"kind": "selection"}, {"idempotency_key": "k"}):
        with pytest.raises(Erased):
            await say(loop, one, **more)
    with pytest.raises(Erased):
        await explain.answer(stages.log, address, window_s=WINDOW_S)
    with pytest.raises(Erased):
        await stages.journal.read(address)
    _, said = loop.keyring.open("feedback", receipt.feedback_id or "")
    await erase(loop, "feedback", said.entry)
    with pytest.raises(Erased):
        await explain.receipt(stages.registry, said, log=stages.log)
    clock.advance(WINDOW_S + 100)
    with pytest.raises(Erased):
        await say(loop, one)
    await trim(loop)
    with pytest.raises(Erased):
        await say(loop, one)
    assert await on_file(loop) == []


# --- by HTTP ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a running service whose windows close at once."""
    place = str(tmp_path_factory.mktemp("archive"))
    return start_service(web=PLAIN | {"archive": place}, window_s=0.05)


async def test_it_is_told_over_http(
    service: Any, http: httpx2.Client, eventually: Callable[..., Awaitable[None]]
) -> None:
    """In the receipt, alone and in a batch; later on, and in the story of the answer."""
    answer = http.post("/v1/models/web/predict", json={"features": ASKED}).json()
    one, users = answer["prediction_id"], itertools.count()
    said: dict[str, Any] = {}

    def tell(**more: Any) -> dict[str, Any]:
        body = {"prediction_id": one, "kind": "correction", "value": True}
        return body | {"user_id": f"u{next(users)}"} | more

    def is_late() -> bool:
        reply = http.post("/v1/feedback", json=tell())
        assert reply.status_code == 202
        said.update(reply.json())
        return bool(said["status"] == "archived_only")

    await eventually(is_late)
    assert said["durability"]
    items = [tell(), tell(kind="ranking", value=["a", "b"])]
    batch = http.post("/v1/feedback_batch", json={"items": items}).json()
    assert (batch["accepted"], batch["rejected"]) == (1, 1)
    assert batch["results"][0]["status"] == "archived_only"
    receipt = http.get(f"/v1/feedback/{said['feedback_id']}").json()
    assert receipt["status"] == "archived_only"
    assert "alters no weights" in receipt["reason"]
    story = http.get(f"/v1/predictions/{one}").json()
    assert said["feedback_id"] in {signal["feedback_id"] for signal in story["feedback"]}
    with Client(service.url, service.key) as client:
        again = client.feedback(one, "correction", value=False, user_id="eve")
        assert again.status == "archived_only"
        assert client.receipt(again.feedback_id or "").status == "archived_only"
        assert client.feedback_batch([tell()]).accepted == 1
    release = f"/v1/models/web/quarantine/{said['feedback_id']}/release"
    problem(http.post(release, json={}), 404, "unknown_feedback")
