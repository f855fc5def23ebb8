"""What counts in a dataset, and what it weighs: each reason to leave a signal out."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from the_datasets import compiled
from the_learner import process, run

from online_learner.archive.archiver import Archiver
from online_learner.dataset.replaced import Entries, between
from online_learner.errors import DataError
from online_learner.forget.retract import retract
from online_learner.learn import Trainer
from online_learner.loop import Loop
from online_learner.release import release
from online_learner.requests import PredictRequest
from online_learner.schema import Ask, Control, Lesson
from online_learner.settings import Settings

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]
WINDOW_S = 60


async def ask(loop: Loop, model: str = "web", n: int = 0, **fields: Any) -> str:
    """Return the id of an answer."""
    return str((await loop.predict(model, {"n": float(n)}, **fields))["prediction_id"])


async def say(loop: Loop, about: str, value: Any, user: str = "ada", **fields: Any) -> str:
    """Let somebody correct an answer; returns the signal's entry."""
    kind = fields.pop("kind", "correction")
    receipt = await loop.feedback(about, kind, value, user_id=user, **fields)
    return loop.keyring.open("feedback", str(receipt.feedback_id))[1].entry


# --- reasons --------------------------------------------------------------------------------------


async def test_what_was_said_is_joined_to_what_was_asked(loop: Loop, tmp_path: Path) -> None:
    """A row has both entries, the time, who said it, and what was right and what was answered."""
    one = await ask(loop, n=3)
    entry = await say(loop, one, True)
    manifest, [row] = await compiled(loop, "web", tmp_path)
    assert row["id"] == loop.keyring.open("prediction", one)[1].entry
    assert row["signal"] == entry
    assert row["at"].timestamp() == int(entry.split("-")[0]) / 1000
    told = (row["kind"], row["source"], row["features"], row["target"], row["output"])
    assert told == ("correction", "human:ada", {"n": 3.0}, True, False)
    assert (row["weight"], row["weight_raw"], row["weight_validation"]) == (1.0, 1.0, 1.0)
    counts = {"predictions": 1, "answered": 1, "signals": 1, "rows": 1}
    assert (manifest.counts, manifest.by_kind) == (counts, {"correction": 1})
    assert (manifest.excluded, manifest.balance) == ({}, {"true": 1})
    assert manifest.raters == {"human:ada": {"rows": 1.0, "mean_weight": 1.0}}


async def test_the_last_word_counts(loop: Loop, tmp_path: Path) -> None:
    """Whoever says something else of the same answer replaces what they said."""
    one = await ask(loop)
    for value in (True, False, True):
        await say(loop, one, value)
    last = await say(loop, one, False)
    await say(loop, one, True, user="bob")
    manifest, rows = await compiled(loop, "web", tmp_path)
    assert [row["signal"] for row in rows if row["source"] == "human:ada"] == [last]
    assert len(rows) == 2
    assert manifest.excluded == {"superseded": 3}


async def test_a_doubted_word_replaces_nothing(loop: Loop, tmp_path: Path) -> None:
    """Said again under another key it is a duplicate: what was said first stays, until replaced."""
    one = await ask(loop)
    first = await say(loop, one, True, idempotency_key="a")
    await say(loop, one, True, idempotency_key="b")
    manifest, rows = await compiled(loop, "web", tmp_path)
    assert [row["signal"] for row in rows] == [first]
    assert manifest.excluded == {"duplicate": 1}
    await say(loop, one, False, idempotency_key="c")
    manifest, rows = await compiled(loop, "web", tmp_path)
    assert [row["target"] for row in rows] == [False]
    assert manifest.excluded == {"duplicate": 1, "superseded": 1}


async def test_what_was_released_counts_although_it_is_doubted(loop: Loop, tmp_path: Path) -> None:
    """As the learner learns it: with the weight that the table of signals gives."""
    one = await ask(loop)
    await say(loop, one, True, idempotency_key="a")
    doubted = await say(loop, one, True, idempotency_key="b")
    await run(process(loop))
    registry = loop.stages("web").registry
    [found] = await loop.store.range(registry.keys.feedback, doubted, doubted)
    await release(registry, [found], by="ops")
    manifest, rows = await compiled(loop, "web", tmp_path)
    assert [row["signal"] for row in rows] == [doubted]
    assert manifest.excluded == {"superseded": 1}


async def test_what_was_taken_back_is_in_no_dataset(loop: Loop, tmp_path: Path) -> None:
    """Whenever that was: also after the time that a dataset is of."""
    kept, gone = [await say(loop, await ask(loop, n=n), True) for n in range(2)]
    until = time.time() + 1
    await retract(loop.stages("web").registry, [gone], by="ada")
    manifest, rows = await compiled(loop, "web", tmp_path, until=until)
    assert [row["signal"] for row in rows] == [kept]
    assert manifest.excluded == {"retracted": 1}


async def test_what_was_erased_is_counted_and_not_read(loop: Loop, tmp_path: Path) -> None:
    """An entry with nothing but its mark is no row, be it an answer or a signal."""
    await say(loop, await ask(loop), True)
    keys = loop.stages("web").registry.keys
    for stream in (keys.feedback, keys.predictions):
        await loop.store.call("XADD", stream, "*", "x", "1")
    manifest, rows = await compiled(loop, "web", tmp_path)
    assert len(rows) == 1
    assert manifest.excluded == {"erased": 1}
    assert manifest.counts["predictions"] == 2
    assert manifest.response == {"false": {"answers": 1, "answered": 1}}


async def test_a_planted_question_makes_no_row_but_by_an_auditor(
    open_loop: OpenLoop, tmp_path: Path
) -> None:
    """It was asked to learn about raters."""
    loop = await open_loop()
    stages = loop.stages("web")
    record = stages.predictor.answer(PredictRequest(features={"n": 1.0}))
    planted = record.model_copy(update={"ask": Ask(reason="gold", probability=1.0)})
    [address] = await stages.journal.append([planted])
    one = loop.keyring.seal("prediction", "web", address)
    await say(loop, one, True)
    await say(loop, one, False, user="eve", auditor=True)
    manifest, rows = await compiled(loop, "web", tmp_path)
    assert [row["source"] for row in rows] == ["human:eve"]
    assert manifest.excluded == {"gold": 1}


async def test_without_inputs_there_are_no_rows(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """`log_inputs: none` keeps nothing to train on, and the error says so."""
    loop = await open_loop(make_settings(web={"log_inputs": "none"}))
    await say(loop, await ask(loop), True)
    with pytest.raises(DataError, match="inputs_not_kept 1") as caught:
        await compiled(loop, "web", tmp_path)
    assert caught.value.code == "empty"


async def test_what_users_do_is_apart(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """An implicit signal makes no row, even where the learner learns from it."""
    loop = await open_loop(make_settings(web={"implicit_weight": 0.1}))
    one = await ask(loop)
    await loop.feedback(one, "implicit", event="click")
    await say(loop, one, True)
    manifest, rows = await compiled(loop, "web", tmp_path)
    assert [row["kind"] for row in rows] == ["correction"]
    assert manifest.excluded == {"implicit": 1}


async def test_time_bounds_the_signals(loop: Loop, tmp_path: Path) -> None:
    """The first moment is included and the last is not; what comes later does not count at all."""
    entries = []
    for n in range(3):
        entries.append(await say(loop, await ask(loop, n=n), True))
        await asyncio.sleep(0.002)
    one, two, three = (int(entry.split("-")[0]) / 1000 for entry in entries)
    manifest, rows = await compiled(loop, "web", tmp_path, since=two, until=three)
    assert [row["signal"] for row in rows] == [entries[1]]
    assert manifest.excluded == {"outside_of_time": 1}
    assert manifest.counts["signals"] == 2
    manifest, rows = await compiled(loop, "web", tmp_path, until=two)
    assert [row["signal"] for row in rows] == [entries[0]]
    with pytest.raises(DataError, match="nothing was said") as caught:
        await compiled(loop, "web", tmp_path, until=one)
    assert caught.value.code == "empty"


async def test_a_word_after_the_time_replaces_nothing_in_it(loop: Loop, tmp_path: Path) -> None:
    """A dataset of the past is what it would have been then."""
    one = await ask(loop)
    first = await say(loop, one, True)
    await asyncio.sleep(0.002)
    later = int((await say(loop, one, False)).split("-")[0]) / 1000
    _, rows = await compiled(loop, "web", tmp_path, until=later)
    assert [row["signal"] for row in rows] == [first]


async def test_a_filter_takes_rows(loop: Loop, tmp_path: Path) -> None:
    """By what was asked, answered and said; the others are counted."""
    for n in range(4):
        one = await ask(loop, n=n, tags={"campaign": "ab"[n % 2]}, user_id=f"u{n}")
        await say(loop, one, n > 1)
    wish = "tags.campaign = 'a' and user != 'u0' and features.n >= 1 and output = false"
    manifest, rows = await compiled(loop, "web", tmp_path, where=wish)
    assert [row["features"]["n"] for row in rows] == [2.0]
    assert manifest.excluded == {"where": 3}


async def test_an_unreadable_signal_is_counted_and_passed_over(loop: Loop, tmp_path: Path) -> None:
    """What this release cannot read, and control entries that are none, stop nobody."""
    await say(loop, await ask(loop), True)
    key = loop.stages("web").registry.keys.feedback
    for fields in (("n", "00", "f", "{", "p", "1-0", "r", "{}"), ("c", "{}"), ("n", "00")):
        await loop.store.call("XADD", key, "*", *fields)
    manifest, rows = await compiled(loop, "web", tmp_path)
    assert len(rows) == 1
    assert manifest.excluded == {"unreadable": 2}


async def test_each_signal_is_a_row_or_has_a_reason(loop: Loop, tmp_path: Path) -> None:
    """Nothing is lost on the way: rows and reasons add up, also where rows are parted by time."""
    rng = random.Random(0)
    for n in range(60):
        one = await ask(loop, n=n, user_id=f"u{n % 7}")
        for _ in range(rng.randrange(3)):
            kind = rng.choice(["correction", "thumbs"])
            await say(loop, one, rng.random() < 0.5, f"u{rng.randrange(4)}", kind=kind)
    for by in ("hash", "time", "user"):
        wishes = {"split_by": by, "validation": 0.3, "where": "features.n != 5"}
        manifest, rows = await compiled(loop, "web", tmp_path, **wishes)
        assert manifest.counts["rows"] == len(rows) == sum(manifest.splits.values())
        assert manifest.counts["signals"] == len(rows) + sum(manifest.excluded.values())
        assert min(manifest.splits.values()) > 0


# --- late -----------------------------------------------------------------------------------------


async def test_what_came_late_joins_what_is_on_file(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path, clock: Any
) -> None:
    """It comes last, under a name of its own, and takes the place of what was said in time."""
    settings = make_settings(web={"archive": str(tmp_path)}, window_s=WINDOW_S)
    loop = await open_loop(settings)
    one, two, three = [await ask(loop, n=n) for n in range(3)]
    await say(loop, one, True)
    kept = await say(loop, two, True)
    clock.advance(WINDOW_S + 100)
    late = await say(loop, one, False)
    await say(loop, two, True)  # the same again
    first = await say(loop, three, True)
    latest = await say(loop, three, False)
    assert first != latest
    manifest, rows = await compiled(loop, "web", tmp_path / "out")
    assert [row["signal"] for row in rows] == [kept, f"L{late}", f"L{latest}"]
    assert [row["features"]["n"] for row in rows] == [1.0, 0.0, 2.0]
    assert [row["target"] for row in rows] == [True, False, False]
    assert manifest.excluded == {"duplicate": 1, "superseded": 2}
    assert manifest.counts["answered"] == 3
    await retract(loop.stages("web").registry, [f"L{late}"], by="ada", log=loop.stages("web").log)
    manifest, rows = await compiled(loop, "web", tmp_path / "out")
    assert [row["signal"] for row in rows] == [kept, f"L{latest}"]
    assert manifest.excluded == {"duplicate": 1, "retracted": 1, "superseded": 2}


async def test_late_words_about_what_is_gone_or_was_not_shown_make_no_row(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """Another nonce is another answer; what nobody was shown, nobody can have chosen."""
    settings = make_settings(web={"archive": str(tmp_path)}, window_s=WINDOW_S)
    loop = await open_loop(settings)
    one = await ask(loop)
    await say(loop, one, True)
    address = loop.keyring.open("prediction", one)[1]
    keys = loop.stages("web").registry.keys
    said = '{"kind":"%s","value":%s,"source":"human:bob","prediction_id":"p"}'
    for kind, value, entry, nonce in (
        ("correction", "true", address.entry, "ffffffff"),
        ("correction", "true", "1-0", address.nonce),
        ("selection", '"maybe"', address.entry, address.nonce),
        ("selection", "true", address.entry, address.nonce),
    ):
        late = ("n", "00", "f", said % (kind, value), "p", entry, "m", nonce)
        await loop.store.call("XADD", keys.late, "*", *late)
    manifest, rows = await compiled(loop, "web", tmp_path / "out")
    assert [row["source"] for row in rows] == ["human:ada", "human:bob"]
    assert manifest.excluded == {"answer_gone": 2, "not_served": 1}


# --- weights --------------------------------------------------------------------------------------


class Heard(Trainer):
    """A learner that notes what each signal weighed."""

    weights: dict[str, float]

    def interpret(self, entries: Any, *, released: bool = False) -> Any:
        """Note the weights of the lessons."""
        batch = super().interpret(entries, released=released)
        noted: dict[str, Lesson] = dict(batch.lessons)
        self.weights = getattr(self, "weights", {}) | {e: one.weight for e, one in noted.items()}
        return batch


async def test_weights_are_those_of_the_learner(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """To six digits, with shares, reputations, ratings, and tables that observers told."""
    loop = await open_loop(make_settings(web={"observe": {"raters": {"weigh": "on"}}}))
    rng = random.Random(1)
    key = loop.stages("web").registry.keys.feedback
    for n in range(150):
        one = await ask(loop, n=n % 11, user_id=f"u{n % 9}")
        for user in rng.sample(["ada", "bob", "eve", "liar"], rng.randrange(1, 4)):
            right = n % 3 == 0
            value = (not right) if user == "liar" else right
            if rng.random() < 0.3:
                stars = 5.0 if value is False else 2.0
                await say(loop, one, stars, user, kind="rating", scale=[1, 5])
            else:
                await say(loop, one, value, user)
        if n == 75:
            table = {"weights": {"human:bob": 0.5}}
            told = Control(action="tables", tables={"raters": table})
            await loop.store.call("XADD", key, "*", "c", told.pack())
    trainer = process(loop)
    trainer.__class__ = Heard
    await run(trainer)
    manifest, rows = await compiled(loop, "web", tmp_path)
    assert len(rows) + sum(manifest.excluded.values()) == manifest.counts["signals"]
    weights = trainer.weights
    assert {row["signal"] for row in rows} <= weights.keys()
    for row in rows:
        assert row["weight"] == pytest.approx(weights[row["signal"]], abs=2e-6)
        factors = [value for name, value in row.items() if name.startswith("weight_")]
        product = 1.0
        for factor in factors:
            product *= factor
        assert row["weight"] == pytest.approx(product, rel=1e-4, abs=2e-6)
    assert len({round(row["weight"], 3) for row in rows}) > 10


async def test_a_rating_in_the_middle_is_neither_good_nor_bad(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """It is read by what the rater usually gives: of a strict one, three stars are praise."""
    loop = await open_loop(make_settings(llm={}))
    for n in range(40):
        outputs = [{"id": "0", "text": f"t{n}"}]
        one = await loop.log("llm", prompt=f"q{n}", outputs=outputs)
        for user, stars in (("strict", 1 + n % 2), ("kind", 5 - n % 2), ("even", 3)):
            value = 3.0 if n == 39 else float(stars)
            await say(loop, one["prediction_id"], value, user, kind="rating", scale=[1, 5])
    manifest, rows = await compiled(loop, "llm", tmp_path, "unpaired")
    last = {row["source"]: row["label"] for row in rows if row["prompt"] == "q39"}
    assert last == {"human:strict": True, "human:kind": False}
    assert manifest.raters.keys() == {"human:strict", "human:kind"}
    assert manifest.excluded["nothing_to_learn"] >= 40


# --- memory ---------------------------------------------------------------------------------------


def test_entries_are_found_between_two() -> None:
    """Also where many are of one millisecond, and where numbers are as large as they get."""
    found, rng = Entries(), random.Random(0)
    largest = (1 << 64) - 1
    all_of = [f"{rng.randrange(5)}-{rng.randrange(5)}" for _ in range(40)] + [f"7-{largest}"]
    for entry in all_of:
        found.add(entry)
    place = {entry: tuple(map(int, entry.split("-"))) for entry in all_of}
    for after, until in (("0-0", "4-4"), ("1-2", "3-1"), ("2-0", "2-3"), ("4-4", f"9-{largest}")):
        low, high = (tuple(map(int, one.split("-"))) for one in (after, until))
        wanted = {entry for entry in all_of if low < place[entry] <= high}
        assert between(found.sorted(), after, until) == wanted
    assert between(Entries().sorted(), "0-0", "9-9") == frozenset()


async def test_an_archive_and_a_store_give_the_same(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """What was replaced stands in a file then, and what replaced it in the store."""
    loop = await open_loop(make_settings(web={"archive": str(tmp_path)}))
    one = await ask(loop)
    await say(loop, one, True)
    stages = loop.stages("web")
    assert stages.log.place is not None
    archiver = Archiver(stages.registry, stages.log.place, window_s=WINDOW_S)
    assert await archiver.flush()
    await say(loop, one, False)
    manifest, rows = await compiled(loop, "web", tmp_path / "out")
    assert [row["target"] for row in rows] == [False]
    assert manifest.excluded == {"superseded": 1}
