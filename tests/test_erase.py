"""A person is erased: nothing of what they sent is found anywhere, and all else goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from online_learner.errors import Conflict, Erased, NotFound, StateError, Unavailable
from online_learner.forget import erase as erase_module
from online_learner.forget import proof
from online_learner.forget.erase import Eraser, Wish
from online_learner.forget.looking import look
from online_learner.forget.person import Person
from online_learner.forget.streams import Change, Lock, Rebuilder, locked
from online_learner.ids import entry_order
from online_learner.learners.factory import make_learner
from online_learner.learners.state import unpack_memory
from online_learner.loop import Loop
from online_learner.requests import read_feedback
from online_learner.schema import Feedback, Prediction
from online_learner.settings import Settings
from online_learner.stages import Stages, make_signals
from online_learner.store import Store
from online_learner.store.probe import mapping

PLANTED = "Zanzibarquux"
ADA = "ada-Zanzibarquux"


def eraser(stages: Stages, user: str = ADA) -> Eraser:
    """Return what erases a user."""
    return Eraser.of(stages, user)


async def raw_keys(store: Store, planted: str) -> list[str]:
    """Return all keys of the server that have a text in them, whatever they are."""
    found = []
    for key in await store.call("KEYS", "*"):
        kind = await store.call("TYPE", key)
        match kind.decode() if isinstance(kind, bytes) else kind:
            case "string":
                value: Any = await store.call("GET", key)
            case "hash":
                value = await store.call("HGETALL", key)
            case "list":
                value = await store.call("LRANGE", key, 0, -1)
            case "stream":
                value = await store.range(key.decode())
            case other:
                pytest.fail(f"a key of type {other}")
        if planted.encode() in repr([key, value]).encode():
            found.append(key.decode())
    return found


async def facts_of(store: Store, stream: str) -> dict[str, Any]:
    """Return the length of a stream, its last id, and how many entries were ever added."""
    info = mapping(await store.call("XINFO", "STREAM", stream))
    names = ("length", "last-generated-id", "entries-added", "max-deleted-entry-id")
    return {name: info[name] for name in names}


async def say_much(loop: Loop, model: str = "web", *, n: int = 20) -> dict[str, list[str]]:
    """Have two people ask and speak, of their own answers and of each other's."""
    ids: dict[str, list[str]] = {"ada": [], "eve": []}
    for i in range(n):
        mine, other = i % 2 == 0, i % 2 == 1
        user = ADA if mine else "eve"
        words = {PLANTED: 1.0, "seen": 1.0} if mine else {"plain": 1.0, "seen": 2.0}
        tags = {"note": PLANTED} if mine else {}
        session = f"s-{PLANTED}" if mine else "s-eve"
        answer = await loop.predict(
            model,
            words,
            user_id=user,
            session_id=session,
            external_id=f"x{i}-{PLANTED if mine else 'eve'}",
            tags=tags,
        )
        ids["ada" if mine else "eve"].append(answer["prediction_id"])
        comment = {"comment": f"so says {PLANTED}"} if mine else {}
        who = {"user_id": user}
        await loop.feedback(answer["prediction_id"], "correction", other, **who, **comment)
        await loop.feedback(answer["prediction_id"], "thumbs", True, user_id="eve" if mine else ADA)
    anonymous = await loop.predict(model, {PLANTED: 3.0}, session_id=f"s-{PLANTED}")
    ids["ada"].append(anonymous["prediction_id"])
    await loop.feedback(anonymous["prediction_id"], "correction", True, user_id="eve")
    return ids


async def test_nothing_that_they_sent_is_found_in_the_store(loop: Loop, store: Store) -> None:
    """Features, comments, tags, names and sessions are in no key any more; others' stay."""
    await say_much(loop)
    await loop.turn("web")
    stages = loop.stages("web")
    assert await raw_keys(store, PLANTED)
    kept = await eraser(stages).erase(Wish())
    await loop.turn("web")
    await loop.turn("web")
    assert await raw_keys(store, PLANTED) == []
    assert kept.proof.erased["predictions"] == 11
    assert kept.proof.erased["feedback"] == 31
    feedback = [fields for _, fields in await store.range(stages.registry.keys.feedback)]
    assert sum(b"f" in fields for fields in feedback) == 10


async def test_what_was_erased_keeps_its_place(loop: Loop, store: Store) -> None:
    """Ids, order and the last id of each stream stay, and so does what others sent."""
    await say_much(loop)
    stages = loop.stages("web")
    keys = stages.registry.keys
    before = {s: await store.range(getattr(keys, s)) for s in ("predictions", "feedback")}
    facts = await facts_of(store, keys.predictions)
    await eraser(stages).erase(Wish())
    for stream, entries in before.items():
        after = await store.range(getattr(keys, stream))
        assert [e for e, _ in after[: len(entries)]] == [e for e, _ in entries]
        for (_, old), (_, new) in zip(entries, after, strict=False):
            assert new in (old, {b"x": b"1"})
    assert await facts_of(store, keys.predictions) == facts
    assert await store.call("KEYS", "*copy*") == []


async def test_an_unknown_user_is_told_and_nothing_is_touched(loop: Loop, store: Store) -> None:
    """The error says so, and no key has changed."""
    await say_much(loop, n=4)
    stages = loop.stages("web")
    before = {k: await store.call("DUMP", k) for k in sorted(await store.call("KEYS", "*"))}
    with pytest.raises(NotFound, match="Nothing was touched") as told:
        await eraser(stages, "nobody-7").erase(Wish())
    assert "nobody-7" not in str(told.value)
    assert {k: await store.call("DUMP", k) for k in sorted(await store.call("KEYS", "*"))} == before


# --- on file ----------------------------------------------------------------------------------


@pytest.fixture
async def archived(
    open_loop: Callable[..., Awaitable[Loop]],
    make_settings: Callable[..., Settings],
    tmp_path: Path,
) -> Loop:
    """Return a loop whose log goes to an archive."""
    return await open_loop(make_settings(web={"archive": str(tmp_path), "audit": 0.5}))


async def decoded(stages: Stages) -> bytes:
    """Return all that is in the files of the archive, listed or not, as text."""
    place = stages.log.place
    assert place is not None
    found = b""
    for name in place.files():
        with place.input(name) as file:
            table = parquet.read_table(file)
        found += repr(table.to_pylist()).encode() + repr(table.schema.metadata).encode()
    return found


async def test_nothing_is_left_in_the_archive(archived: Loop, store: Store) -> None:
    """Files are written anew without what they sent; the same entries are in both."""
    await say_much(archived)
    await archived.turn("web")
    stages = archived.stages("web")
    assert stages.archiver is not None
    await stages.archiver.flush()
    await say_much(archived, n=6)
    assert PLANTED.encode() in await decoded(stages)
    ids = [e async for page in stages.log.pages("predictions") for e, _ in page]
    kept = await eraser(stages).erase(Wish())
    assert kept.proof.segments >= 2
    assert PLANTED.encode() not in await decoded(stages)
    assert [e async for page in stages.log.pages("predictions") for e, _ in page] == ids
    await archived.turn("web")
    await stages.archiver.flush()
    assert PLANTED.encode() not in await decoded(stages)
    assert await raw_keys(store, PLANTED) == []


async def test_what_was_read_before_is_not_filed_after(archived: Loop) -> None:
    """An archiver that had read the stream before it was rebuilt lists nothing of it."""
    await say_much(archived)
    stages = archived.stages("web")
    assert stages.archiver is not None
    archiving = asyncio.create_task(stages.archiver.flush())
    await eraser(stages).erase(Wish())
    await archiving
    await eraser(stages).erase(Wish())
    await stages.archiver.flush()
    assert PLANTED.encode() not in await decoded(stages)


async def test_what_has_left_the_store_is_found_in_the_archive(
    archived: Loop, store: Store
) -> None:
    """A person of whom only files know is erased from these."""
    await say_much(archived)
    await archived.turn("web")
    stages = archived.stages("web")
    assert stages.archiver is not None
    await stages.archiver.flush()
    await store.call("XTRIM", stages.registry.keys.predictions, "MAXLEN", 0)
    kept = await eraser(stages).erase(Wish())
    assert kept.proof.erased["predictions"] == 11
    assert PLANTED.encode() not in await decoded(stages)


# --- meanwhile --------------------------------------------------------------------------------


async def test_no_append_is_lost_while_a_stream_is_rebuilt(loop: Loop, store: Store) -> None:
    """Writers go on all the while, and each of their entries is in the stream, once, in order."""
    await say_much(loop, n=40)
    stages = loop.stages("web")
    keys, going, given = stages.registry.keys, True, []

    async def write(name: str) -> None:
        while going:
            answer = await loop.predict("web", {"w": 1.0}, user_id=f"writer-{name}")
            given.append(answer["prediction_id"])
            await loop.feedback(answer["prediction_id"], "thumbs", True, user_id=f"writer-{name}")

    writers = [asyncio.create_task(write(str(n))) for n in range(4)]
    try:
        async with locked(stages.registry) as lock:
            for _ in range(5):
                lately = {e for e, _ in (await store.latest(keys.predictions, 3))}
                changed = await Rebuilder(stages.registry, lock).rebuild(
                    "predictions", lambda e, lately=lately: Change("x") if e[0] in lately else None
                )
                assert changed == len(lately)
    finally:
        going = False
        await asyncio.gather(*writers)
    there = [entry for entry, _ in await store.range(keys.predictions)]
    assert there == sorted(there, key=entry_order)
    wanted = {stages.keyring.open("prediction", one)[1].entry for one in given}
    assert wanted <= set(there)
    assert len(there) == 41 + len(given)
    assert await store.call("KEYS", "*copy*") == []


async def test_two_erasures_at_once_are_one(loop: Loop) -> None:
    """The second is told to wait, and touches nothing."""
    await say_much(loop, n=4)
    stages = loop.stages("web")
    async with locked(stages.registry):
        with pytest.raises(Conflict, match="another erasure"):
            await eraser(stages).erase(Wish())


async def test_who_lost_the_lock_changes_nothing(loop: Loop, store: Store) -> None:
    """One who was taken for dead cannot put its copy in the place of a stream."""
    await say_much(loop, n=4)
    registry = loop.stages("web").registry
    before = await store.range(registry.keys.predictions)
    lock = Lock(registry)
    await lock.take()
    await store.call("SET", lock.key, "another")
    with pytest.raises(Conflict, match="run it again"):
        await Rebuilder(registry, lock).rebuild("predictions", lambda _: Change("x"))
    assert await store.range(registry.keys.predictions) == before


@pytest.mark.parametrize("fails", ["feedback", "sweep", "retract", "rewrite"])
async def test_one_that_was_cut_short_goes_on(
    loop: Loop, store: Store, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Whatever it had done by then, the next run finds the rest, retractions included."""
    await say_much(loop)
    await loop.turn("web")
    stages = loop.stages("web")
    with monkeypatch.context() as patch:
        if fails == "feedback":
            real = Rebuilder.rebuild

            async def rebuild(self: Rebuilder, stream: str, *rest: Any, **more: Any) -> int:
                if stream == fails:
                    raise Unavailable("the store does not answer")
                return await real(self, stream, *rest, **more)

            patch.setattr(Rebuilder, "rebuild", rebuild)
        else:

            async def fail(*_: Any, **__: Any) -> None:
                raise Unavailable("the store does not answer")

            patch.setattr(erase_module, fails, fail)
        with pytest.raises(Unavailable):
            await eraser(stages).erase(Wish())
    kept = await eraser(stages).erase(Wish())
    await loop.turn("web")
    await loop.turn("web")
    assert await raw_keys(store, PLANTED) == []
    assert len(await store.hash(stages.registry.keys.retracted)) == 31
    assert await proof.unlearned_by_now(stages.log, kept.proof) == "done"


# --- what is told of it -----------------------------------------------------------------------


async def test_the_proof_is_sealed_and_names_nobody(loop: Loop) -> None:
    """It can be verified later, and one whose words were changed is refused."""
    await say_much(loop)
    stages = loop.stages("web")
    kept = await eraser(stages).erase(Wish(by="Grace"))
    document = json.loads(json.dumps(kept.render()))
    assert "ada" not in json.dumps(document)
    assert proof.handed_out(stages.registry, document).proof == kept.proof
    for name, value in {"segments": 9, "unlearned": "done", "at": 1.0}.items():
        with pytest.raises(StateError):
            proof.handed_out(stages.registry, {**document, name: value})
    with pytest.raises(StateError):
        proof.handed_out(
            stages.registry, {**document, "seal": {**document["seal"], "mac": "00" * 32}}
        )


async def test_looking_finds_them_before_and_nowhere_after(loop: Loop) -> None:
    """By name, and by the pseudonym of the proof; another is found all along."""
    await say_much(loop)
    await loop.turn("web")
    stages = loop.stages("web")

    async def alive(_: int) -> None:
        return

    ada = Person.named(stages.keyring, "web", ADA)
    unnamed = Person(stages.keyring, "web", ada.pseudonyms)
    assert {"predictions", "feedback"} <= (await look(stages.log, ada, alive)).keys()
    assert (await look(stages.log, unnamed, alive))["predictions"] == 11
    await eraser(stages).erase(Wish())
    await loop.turn("web")
    await loop.turn("web")
    assert await look(stages.log, ada, alive) == {}
    assert await look(stages.log, unnamed, alive) == {}
    assert await look(stages.log, Person.named(stages.keyring, "web", "eve"), alive)


async def test_whoever_asks_for_what_was_erased_is_told_so(loop: Loop) -> None:
    """The answer is gone, not unknown; feedback on it is refused in the same words."""
    ids = await say_much(loop)
    stages = loop.stages("web")
    await eraser(stages).erase(Wish())
    [mine, *_], [other, *_] = ids["ada"], ids["eve"]
    with pytest.raises(Erased):
        await stages.journal.read(stages.keyring.open("prediction", mine)[1])
    with pytest.raises(Erased):
        await loop.feedback(mine, "thumbs", True)
    receipt = await loop.feedback(other, "thumbs", False, user_id="zoe")
    assert receipt.status == "accepted"
    with pytest.raises(NotFound):
        await loop.ingest.accept(
            read_feedback(
                {"model": "web", "session_id": f"s-{PLANTED}", "kind": "thumbs", "value": True}
            )
        )


async def test_raters_are_forgotten_and_others_are_not(
    open_loop: Callable[..., Awaitable[Loop]], make_settings: Callable[..., Settings], store: Store
) -> None:
    """What observers know, and tell the learner, loses the person's row alone."""
    observe = {"raters": {"use": "policies.raters:Raters", "weigh": True}}
    loop = await open_loop(make_settings(web={"observe": observe}))
    for n in range(130):
        answer = await loop.predict("web", {"plain": float(n % 5)})
        for user, value in ((ADA, n % 7 == 0), ("eve", n % 2 == 0), ("bob", n % 2 == 0)):
            await loop.feedback(answer["prediction_id"], "correction", value, user_id=user)
        if n % 40 == 39:
            await loop.turn("web")
    await loop.turn("web")
    stages = loop.stages("web")
    kept = await stages.registry.observed()
    assert kept is not None
    assert f"human:{ADA}" in kept[1]["raters"]["known"]
    assert f"human:{ADA}" in kept[0].tables["raters"]["weights"]
    done = await eraser(stages).erase(Wish())
    assert done.proof.anew == []
    await loop.turn("web")
    await loop.turn("web")
    kept = await stages.registry.observed()
    assert kept is not None
    assert set(kept[1]["raters"]["known"]) == {"human:eve", "human:bob"}
    assert await raw_keys(store, PLANTED) == []
    memory = unpack_memory(
        await store.call("HGET", stages.registry.keys.checkpoint("learner"), "memory")
    )
    assert PLANTED not in json.dumps(memory)
    assert memory["told"]["raters"]["weights"]


async def test_a_log_of_hashes_is_searched_by_the_hash(
    open_loop: Callable[..., Awaitable[Loop]], make_settings: Callable[..., Settings], store: Store
) -> None:
    """A person is found by their own id where the log has only hashes of it."""
    loop = await open_loop(make_settings(web={"log_inputs": "hashed"}))
    await say_much(loop)
    stages = loop.stages("web")
    kept = await eraser(stages).erase(Wish())
    assert kept.proof.erased["predictions"] == 11
    hashed = stages.inputs.name(ADA)
    assert hashed is not None
    assert await raw_keys(store, hashed) == []


# --- the weights ------------------------------------------------------------------------------


async def test_the_weights_are_those_without_them(
    open_loop: Callable[..., Awaitable[Loop]], make_settings: Callable[..., Settings], store: Store
) -> None:
    """After it, the learner is what it would be had it only ever heard the others, to the bit."""
    loop = await open_loop(make_settings(web={"learner": "river:linear_model.LogisticRegression"}))
    await say_much(loop)
    await loop.turn("web")
    stages = loop.stages("web")
    before = stages.trainer.learner.digest()
    await eraser(stages).erase(Wish())
    await loop.turn("web")
    await loop.turn("web")
    assert stages.trainer.learner.digest() != before
    alone = make_learner(stages.spec)
    signals = make_signals(stages.spec)
    for _, fields in await store.range(stages.registry.keys.feedback):
        if b"f" in fields:
            said = Feedback.model_validate_json(fields[b"f"])
            lesson = signals.lesson(said, Prediction.model_validate_json(fields[b"r"]))
            if lesson is not None:
                alone.learn([lesson])
    assert stages.trainer.learner.digest() == alone.digest()


async def test_a_label_that_only_they_gave_is_renamed_in_what_others_were_answered(
    open_loop: Callable[..., Awaitable[Loop]], make_settings: Callable[..., Settings], store: Store
) -> None:
    """It is in no score, no weights and no audit; labels of others stay, and a replay agrees."""
    learner = {"learner": "river.naive_bayes:GaussianNB", "task": "classification", "audit": 1.0}
    loop = await open_loop(make_settings(open=learner))
    stages = loop.stages("open")
    for n in range(30):
        user = ADA if n % 3 == 0 else "eve"
        label = PLANTED if n % 3 == 0 else ("news", "sport")[n % 2]
        answer = await loop.predict("open", {"a": float(n % 3), "b": 1.0}, user_id=user)
        await loop.feedback(answer["prediction_id"], "correction", label, user_id=user)
        await loop.turn("open")
    others = [
        fields[b"r"]
        for _, fields in await store.range(stages.registry.keys.predictions)
        if ADA.encode() not in fields[b"r"] and PLANTED.encode() in fields[b"r"]
    ]
    assert others
    kept = await eraser(stages).erase(Wish())
    assert len(kept.proof.labels) == 1
    await loop.turn("open")
    await loop.turn("open")
    await eraser(stages).erase(Wish())
    assert await raw_keys(store, PLANTED) == []
    [answered] = stages.trainer.learner.predict([{"a": 1.0, "b": 1.0}])
    assert set(answered.scores) == {"news", "sport"}
    replay = stages.replay_afresh()
    await replay.rewind()
    await replay.follow()
    assert replay.differs is None
    assert replay.learner.digest() == stages.trainer.learner.digest()


async def test_a_label_that_others_know_stays(
    open_loop: Callable[..., Awaitable[Loop]], make_settings: Callable[..., Settings]
) -> None:
    """What somebody else said as well is nobody's own word."""
    loop = await open_loop(
        make_settings(open={"learner": "river.naive_bayes:GaussianNB", "task": "classification"})
    )
    stages = loop.stages("open")
    for n, (user, label) in enumerate([("eve", "news"), (ADA, "sport"), ("eve", "sport")]):
        answer = await loop.predict("open", {"a": float(n)}, user_id=user)
        await loop.feedback(answer["prediction_id"], "correction", label, user_id=user)
        await loop.turn("open")
    kept = await eraser(stages).erase(Wish())
    assert kept.proof.labels == []
    await loop.turn("open")
    await loop.turn("open")
    [answered] = stages.trainer.learner.predict([{"a": 1.0}])
    assert set(answered.scores) == {"news", "sport"}
