"""Rows of each format, of every kind of feedback that fills it, and what cannot be filled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from the_datasets import bytes_of, compiled, left

from online_learner.dataset.rows import FORMATS, Shape
from online_learner.dataset.rows.common import prompt_of, text_of
from online_learner.dataset.rows.targets import settle, typed
from online_learner.dataset.settling import MOST_FEATURES
from online_learner.errors import DataError
from online_learner.loop import Loop
from online_learner.requests import read_feedback
from online_learner.settings import Settings

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url"}]},
]


@pytest.fixture
async def llm(open_loop: OpenLoop, make_settings: MakeSettings) -> Loop:
    """Return a loop with the model `llm`, some of whose categories mean something."""
    return await open_loop(make_settings(llm={"categories": {"good": "up", "bad": "down"}}))


@pytest.fixture
async def pages(open_loop: OpenLoop, make_settings: MakeSettings) -> Loop:
    """Return a loop with the model `pages`."""
    return await open_loop(make_settings(pages={}))


async def made(loop: Loop, *texts: str, prompt: str = "q", **fields: Any) -> str:
    """Return the id of an answer made elsewhere."""
    outputs = [{"id": str(n), "text": text} for n, text in enumerate(texts)]
    asked = {} if "messages" in fields else {"prompt": prompt}
    return str((await loop.log("llm", outputs=outputs, **asked, **fields))["prediction_id"])


async def ranked(loop: Loop, *names: str) -> tuple[str, list[str]]:
    """Return the id of a ranking, and its options as they were shown."""
    options = [{"id": name, "features": {"title": f"page {name}"}} for name in names]
    found = await loop.predict("pages", {"query": "cats"}, options=options)
    return str(found["prediction_id"]), list(found["output"])


def only(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    """Return some columns of the rows."""
    return [tuple(row[name] for name in names) for row in rows]


# --- supervised and tabular -----------------------------------------------------------------------


async def test_judgements_of_two_labels_name_the_right_one(loop: Loop, tmp_path: Path) -> None:
    """Up: what was served; down: the other. A wrong one of three is no right answer."""
    for value in (True, False):
        one = await loop.predict("web", {"n": float(value)})
        await loop.feedback(one["prediction_id"], "thumbs", value, user_id="ada")
    manifest, rows = await compiled(loop, "web", tmp_path)
    assert only(rows, "target", "output") == [(False, False), (True, False)]
    assert manifest.columns["target"] == "bool"


async def test_what_is_only_known_to_be_wrong_is_no_target(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """Of three labels; `unpaired` holds it, and the error says so."""
    loop = await open_loop(make_settings(topic={}))
    one = await loop.predict("topic", {"n": 1.0})
    await loop.feedback(one["prediction_id"], "thumbs", False)
    with pytest.raises(DataError, match="What does: unpaired") as caught:
        await compiled(loop, "topic", tmp_path)
    assert caught.value.code == "not_fillable"
    assert left(tmp_path) == []
    await loop.feedback(one["prediction_id"], "correction", "sport")
    manifest, rows = await compiled(loop, "topic", tmp_path)
    assert only(rows, "target", "output") == [("sport", one["output"])]
    assert (manifest.columns["target"], manifest.balance) == ("string", {"sport": 1})
    _, rows = await compiled(loop, "topic", tmp_path, "unpaired")
    shown = one["output"]
    wanted = [(shown, False), (shown, False), ("sport", True)]
    assert only(rows, "completion", "label") == wanted
    assert rows[0]["prompt"] == '{"n": 1.0}'


async def test_numbers_are_targets(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """As floats, whole ones too; there is no balance of numbers."""
    loop = await open_loop(make_settings(rent={}))
    for value in (30, 12.5):
        one = await loop.predict("rent", {"n": float(value)})
        await loop.feedback(one["prediction_id"], "correction", value)
    manifest, rows = await compiled(loop, "rent", tmp_path)
    assert [row["target"] for row in rows] == [30.0, 12.5]
    assert (manifest.columns["target"], manifest.balance) == ("double", {})
    manifest, rows = await compiled(loop, "rent", tmp_path, "unpaired")
    assert {row["completion"] for row in rows if row["label"]} == {"30.0", "12.5"}
    assert manifest.balance == {"false": 2, "true": 2}
    assert manifest.response == {"any": {"answers": 2, "answered": 2}}


async def test_labels_that_are_learned_share_a_type(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """Those of one type keep it; mixed ones are their names, as text."""
    known = {"task": "classification", "learner": "river.naive_bayes:GaussianNB"}
    loop = await open_loop(make_settings(free=known))
    for value in (3, 4):
        one = await loop.predict("free", {"n": 1.0})
        await loop.feedback(one["prediction_id"], "correction", value)
    manifest, rows = await compiled(loop, "free", tmp_path)
    assert manifest.columns["target"] == "int64"
    assert only(rows, "target", "output")[0] == (3, None)
    await loop.feedback(one["prediction_id"], "correction", "many", user_id="bob")
    manifest, rows = await compiled(loop, "free", tmp_path)
    assert [row["target"] for row in rows] == ["3", "4", "many"]


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
async def test_features_have_columns_of_their_own(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path, file_format: str
) -> None:
    """In their own types; mixed ones are text, lists are JSON, and missing ones null."""
    loop = await open_loop(make_settings(topic={"learner": "river:dummy.PriorClassifier"}))
    asked: list[dict[str, Any]] = [
        {"a": 1, "b": 1.5, "c": True, "d": "x", "e": [1.0, 2.0], "m": 1},
        {"a": 2.5, "b": 2.0, "d": "y", "m": "one"},
    ]
    for features in asked:
        one = await loop.predict("topic", features)
        await loop.feedback(one["prediction_id"], "correction", "news")
    manifest, rows = await compiled(loop, "topic", tmp_path, "tabular", file_format=file_format)
    types = {n: t for n, t in manifest.columns.items() if n.startswith("f_")}
    assert types == {
        "f_a": "double",
        "f_b": "double",
        "f_c": "bool",
        "f_d": "string",
        "f_e": "json",
        "f_m": "string",
    }
    assert only(rows, "f_a", "f_b", "f_c", "f_d", "f_e", "f_m", "target") == [
        (1.0, 1.5, True, "x", [1.0, 2.0], "1", "news"),
        (2.5, 2.0, None, "y", None, "one", "news"),
    ]


async def test_too_many_features_are_refused(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """Of thousands no table is made; JSON holds them."""
    loop = await open_loop(make_settings(topic={}))
    one = await loop.predict("topic", {f"n{n}": 1.0 for n in range(MOST_FEATURES + 1)})
    await loop.feedback(one["prediction_id"], "correction", "news")
    with pytest.raises(DataError, match="take `supervised`") as caught:
        await compiled(loop, "topic", tmp_path, "tabular")
    assert caught.value.code == "not_fillable"
    _, [row] = await compiled(loop, "topic", tmp_path)
    assert len(row["features"]) == MOST_FEATURES + 1


@pytest.mark.parametrize(
    ("kinds", "settled"),
    [
        ({"int"}, "int"),
        ({"int", "float"}, "float"),
        ({"int", "bool"}, "text"),
        ({"json", "text"}, "text"),
        ({"json"}, "json"),
    ],
)
def test_columns_hold_what_their_values_have_in_common(kinds: set[str], settled: str) -> None:
    """Text holds all."""
    assert settle(kinds) == settled


def test_values_are_as_their_columns_want_them() -> None:
    """Text of a value that is none is its JSON."""
    assert typed(True, "text") == "true"
    assert typed([1, 2], "text") == typed([1, 2], "json") == "[1, 2]"
    assert typed("a", "json") == '"a"'
    assert typed(3, "float") == 3.0
    assert typed(None, "text") is None


# --- preference and reward ------------------------------------------------------------------------


async def test_comparisons_make_pairs(llm: Loop, tmp_path: Path) -> None:
    """A preference, an order, one that was taken, and an edit; a thumb compares nothing."""
    ids = [await made(llm, "a", "b", "c", prompt=f"q{n}") for n in range(5)]
    await llm.feedback(ids[0], "preference", chosen="2", rejected="0")
    await llm.feedback(ids[1], "ranking", ["1", "0", "2"])
    await llm.feedback(ids[2], "selection", "1")
    await llm.feedback(ids[3], "correction", "edit")
    await llm.feedback(ids[4], "thumbs", True)
    manifest, rows = await compiled(llm, "llm", tmp_path, "preference")
    pairs = only(rows, "prompt", "chosen", "rejected")
    assert pairs[:1] == [("q0", "c", "a")]
    assert pairs[1:4] == [("q1", "b", "a"), ("q1", "b", "c"), ("q1", "a", "c")]
    assert sorted(pairs[4:6]) == [("q2", "b", "a"), ("q2", "b", "c")]
    assert [pair[:2] for pair in pairs[6:]] == [("q3", "edit")]
    assert manifest.excluded == {"nothing_to_learn": 1}
    assert rows[0]["features"] == {"prompt": "q0"}
    assert (rows[0]["chosen_features"], rows[0]["rejected_features"]) == (
        {"text": "c"},
        {"text": "a"},
    )
    assert manifest.by_kind == {"correction": 1, "preference": 1, "ranking": 3, "selection": 2}


async def test_a_preference_between_two_answers_is_a_pair(llm: Loop, tmp_path: Path) -> None:
    """It takes one question; of a split by user both answers are on one side, or in none."""
    for n in range(40):
        prompt = f"q{n}"
        one, two = [await made(llm, x, prompt=prompt, user_id=f"{x}{n}") for x in "ab"]
        other = await made(llm, "c", prompt=f"r{n}", user_id=f"c{n}")
        for chosen, rejected in ((two, one), (one, other)):
            body = {"kind": "preference", "chosen": chosen, "rejected": rejected}
            await llm.ingest.accept(read_feedback(body))
    manifest, rows = await compiled(llm, "llm", tmp_path, "preference")
    assert only(rows[:2], "prompt", "chosen", "rejected") == [("q0", "b", "a"), ("q1", "b", "a")]
    assert manifest.excluded == {"nothing_to_learn": 40}
    wishes = {"split_by": "user", "validation": 0.5}
    manifest, rows = await compiled(llm, "llm", tmp_path, "preference", **wishes)
    dropped = manifest.excluded["on_both_sides"]
    assert 5 < dropped < 35
    assert len(rows) == 40 - dropped


async def test_one_chat_makes_all_rows_chats(llm: Loop, tmp_path: Path) -> None:
    """TRL wants one form in a dataset; parts of a message that are no text are left out."""
    for one in (await made(llm, "a", "b"), await made(llm, "c", "d", messages=CHAT)):
        await llm.feedback(one, "preference", chosen="1", rejected="0")
    manifest, rows = await compiled(llm, "llm", tmp_path, "preference")
    assert rows[0]["prompt"] == [{"role": "user", "content": "q"}]
    assert rows[0]["chosen"] == [{"role": "assistant", "content": "b"}]
    assert rows[1]["prompt"] == [CHAT[0], {"role": "user", "content": "Hi "}]
    assert manifest.columns["prompt"].startswith("list<")
    assert rows[1]["features"] == {"prompt": "system: Be brief.\nuser: Hi "}
    _, rows = await compiled(llm, "llm", tmp_path, "reward")
    assert [m["content"] for m in rows[1]["rejected"]] == ["Be brief.", "Hi ", "c"]
    assert only(rows, "margin") == [(1.0,), (1.0,)]


async def test_rewards_have_whole_texts_and_margins(llm: Loop, tmp_path: Path) -> None:
    """The prompt goes before both; in an order, the margin is how many places they are apart."""
    one = await made(llm, "a", "b", "c")
    await llm.feedback(one, "ranking", ["0", "1", "2"])
    _, rows = await compiled(llm, "llm", tmp_path, "reward")
    assert only(rows, "chosen", "rejected", "margin") == [
        ("q\n\na", "q\n\nb", 1.0),
        ("q\n\na", "q\n\nc", 2.0),
        ("q\n\nb", "q\n\nc", 1.0),
    ]


async def test_rankings_train_rankers_again(pages: Loop, tmp_path: Path) -> None:
    """What the ranker sees of options is in the rows; a new option is above those shown."""
    one, shown = await ranked(pages, "a", "b")
    await pages.feedback(one, "selection", shown[1])
    new = {"id": "new", "features": {"title": "page new"}}
    await pages.feedback(one, "correction", new, user_id="bob")
    _, rows = await compiled(pages, "pages", tmp_path, "preference")
    assert only(rows, "chosen", "rejected")[0] == (f"page {shown[1]}", f"page {shown[0]}")
    assert rows[0]["chosen_features"] == {"title": f"page {shown[1]}"}
    assert (rows[0]["prompt"], rows[0]["features"]) == ("cats", {"query": "cats"})
    assert {row["chosen"] for row in rows[1:]} == {"page new"}
    assert len(rows) == 3


# --- unpaired and sft -----------------------------------------------------------------------------


async def test_judgements_flags_and_corrections_are_unpaired(llm: Loop, tmp_path: Path) -> None:
    """Of the first that was shown, or of the one that a flag names."""
    said: list[tuple[str, Any, dict[str, Any]]] = [
        ("thumbs", True, {}),
        ("thumbs", False, {}),
        ("rating", 5, {"scale": [1, 5]}),
        ("category", "bad", {}),
        ("correction", "edit", {}),
        ("flag", None, {"rule": "toxic", "severity": "warn"}),
    ]
    for n, (kind, value, fields) in enumerate(said):
        await llm.feedback(await made(llm, "a", "b", prompt=f"q{n}"), kind, value, **fields)
    manifest, rows = await compiled(llm, "llm", tmp_path, "unpaired")
    labels = only(rows, "prompt", "kind", "label")
    assert labels == [
        ("q0", "thumbs", True),
        ("q1", "thumbs", False),
        ("q2", "rating", True),
        ("q3", "category", False),
        ("q4", "correction", False),
        ("q4", "correction", True),
        ("q5", "flag", False),
    ]
    assert rows[5]["completion"] == "edit"
    assert {row["completion"] for row in rows} <= {"a", "b", "edit"}
    assert manifest.balance == {"false": 4, "true": 3}
    assert manifest.columns["label"] == "bool"


async def test_flags_of_rules_fill_unpaired(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """What a rule finds in one of several outputs speaks of that one; nobody has spoken yet."""
    rule = {
        "name": "rude",
        "rule": "blocklist",
        "on": "output",
        "words": ["damn"],
        "severity": "warn",
    }
    loop = await open_loop(make_settings(llm={"rules": [rule]}))
    await made(loop, "fine", "damn it")
    manifest, rows = await compiled(loop, "llm", tmp_path, "unpaired")
    assert only(rows, "source", "completion", "label") == [("system:rude", "damn it", False)]
    assert manifest.counts["answered"] == 0


async def test_of_an_answer_that_nobody_saw_nothing_is_known(
    open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """Where a fallback was shown in its place, a correction says what is right, and no more."""
    rule = {"rule": "vocabulary", "values": ["nothing"], "on": "output", "severity": "block"}
    loop = await open_loop(make_settings(topic={"rules": [rule], "fallback": "sorry"}))
    one = await loop.predict("topic", {"n": 1.0})
    assert one["blocked"]
    await loop.feedback(one["prediction_id"], "correction", "sport")
    _, rows = await compiled(loop, "topic", tmp_path, "unpaired")
    said = [row for row in rows if row["kind"] == "correction"]
    assert only(said, "completion", "label") == [("sport", True)]


async def test_corrections_are_what_should_have_been_said(llm: Loop, tmp_path: Path) -> None:
    """As text; JSON is written out. With `sft` nothing else counts."""
    await llm.feedback(await made(llm, "a"), "correction", "edit")
    await llm.feedback(await made(llm, "b"), "correction", {"k": [1]})
    await llm.feedback(await made(llm, "c"), "thumbs", True)
    _, rows = await compiled(llm, "llm", tmp_path, "sft")
    assert only(rows, "prompt", "completion") == [("q", "edit"), ("q", '{"k": [1]}')]


async def test_a_ranking_is_judged_by_what_was_shown_first(pages: Loop, tmp_path: Path) -> None:
    """A thumb is about the first place."""
    one, shown = await ranked(pages, "a", "b")
    await pages.feedback(one, "thumbs", False)
    _, rows = await compiled(pages, "pages", tmp_path, "unpaired")
    assert only(rows, "prompt", "completion", "label") == [("cats", f"page {shown[0]}", False)]


def test_texts_of_what_is_no_text() -> None:
    """A text alone is itself; anything else is all of it, as JSON, in the order of its names."""
    assert text_of({"title": "x"}) == "x"
    assert text_of({"json": "[1]"}) == "[1]"
    assert text_of({"b": 1, "a": "x"}) == '{"a": "x", "b": 1}'
    assert text_of({}) == "{}"
    calls = {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}], "content": None}]}
    shape = Shape("generation", chat=True)
    assert prompt_of(calls, shape)[0]["content"] == '{"tool_calls": [{"id": "1"}]}'
    assert prompt_of(calls, Shape("generation")) == "assistant: "


# --- what cannot be filled ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format_", "fits"),
    [("preference", "supervised, tabular, unpaired, sft"), ("reward", "supervised")],
)
async def test_a_format_that_is_not_for_the_task_is_refused(
    loop: Loop, tmp_path: Path, format_: str, fits: str
) -> None:
    """Before anything is read; the error names those that are."""
    with pytest.raises(DataError, match=fits) as caught:
        await compiled(loop, "web", tmp_path, format_)
    assert caught.value.code == "not_fillable"
    assert left(tmp_path) == []


def test_every_task_has_formats() -> None:
    """What is said on any of them can be compiled."""
    for task in ("classification", "regression", "ranking", "generation"):
        assert sum(task in found.tasks for found in FORMATS.values()) >= 4


async def test_kinds_that_do_not_fill_a_format_are_told(llm: Loop, tmp_path: Path) -> None:
    """The error names the formats that what was said does fill."""
    await llm.feedback(await made(llm, "a", "b"), "thumbs", True)
    for format_ in ("preference", "sft"):
        with pytest.raises(DataError, match="What does: unpaired") as caught:
            await compiled(llm, "llm", tmp_path, format_)
        assert caught.value.code == "not_fillable"
    assert left(tmp_path) == []


@pytest.mark.parametrize("format_", ["preference", "reward", "unpaired", "sft"])
async def test_lines_and_columns_hold_the_same(llm: Loop, tmp_path: Path, format_: str) -> None:
    """JSONL and Parquet of one query have equal rows, and other names."""
    for n in range(5):
        await llm.feedback(await made(llm, "a", "b", prompt=f"q{n}"), "correction", f"edit {n}")
    (one, lines), (two, columns) = [
        await compiled(llm, "llm", tmp_path, format_, file_format=kind, validation=0.4)
        for kind in ("jsonl", "parquet")
    ]
    as_text = [{**row, "at": row["at"].isoformat()} for row in columns]
    assert [{**row, "at": row["at"].isoformat()} for row in lines] == as_text
    assert one.id != two.id
    assert len(bytes_of(tmp_path, one)) == len(one.files) > 0
