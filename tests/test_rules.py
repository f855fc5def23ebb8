"""What each kind of rule finds, what a flag says, and how a wrong configuration is refused."""

from __future__ import annotations

import copy
import json
import socket
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from online_learner.schema import Flag, Option
from policies.rules import Rules
from policies.rules.rule import pointer

BOX = {
    "type": "object",
    "required": ["label"],
    "additionalProperties": False,
    "properties": {
        "label": {"enum": ["cat", "dog"]},
        "box": {"type": "array", "items": {"type": "number", "minimum": 0}, "maxItems": 4},
        "parts": {"type": "array", "uniqueItems": True, "items": {"$ref": "#"}},
    },
}
EMAIL = "ada@example.org"
SECRETS = [
    EMAIL,
    "+44 20 7946 0958",
    "4111 1111 1111 1111",
    "DE89370400440532013000",
    "203.0.113.7",
]
HOOKS = '''
import numpy as np

def shouts(text, where, share=0.5):
    """Say how loud a text is."""
    upper = sum(map(str.isupper, text))
    return f"{upper} capitals in the {where}" if upper > share * len(text) else None

def always(value, where): return True
def never(value, where): return False
def silent(value, where): return ""
def numpy_true(value, where): return np.float64(2.0) > 1
def score(value, where): return 0.9
def fails(value, where): raise ValueError(f"cannot read {value}")
def surrogate(value, where): return "half \\ud800"
def echo(value, where): return repr(value)
async def late(value, where): return None
nothing = 3
class Deep:
    @staticmethod
    def always(value, where): return "deep"
'''


def blocks(flags: Iterable[Flag]) -> bool:
    """Tell whether one of the flags keeps an answer from being served."""
    return any(flag.severity == "block" for flag in flags)


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module with hooks that can be imported."""
    (tmp_path / "team_hooks.py").write_text(HOOKS)
    (tmp_path / "broken_hooks.py").write_text("import team_hooks\nteam_hooks.missing")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("team_hooks", "broken_hooks"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "team_hooks"


def one(kind: str, **arguments: Any) -> Rules:
    """Return the rules that consist of this one."""
    return Rules([{"rule": kind, **arguments}])


def told(flags: list[Flag]) -> list[str]:
    """Return what the flags say."""
    return [flag.detail for flag in flags]


# --- all of them ------------------------------------------------------------------------------


def test_no_rules_are_false() -> None:
    """Without rules there is nothing to call, and nothing is found."""
    assert not Rules()
    assert not Rules([])
    assert one("personal_data")
    assert Rules().of_input({"text": EMAIL}) == Rules().of_output(EMAIL) == []
    assert Rules().of_comment(EMAIL) == Rules().of_correction(EMAIL) == []


def test_a_flag_says_what_and_where() -> None:
    """A flag has the rule's name, its severity, where it looked, and a detail."""
    rules = one("range", feature="age", low=0, severity="block", name="sane age")
    expected = Flag(
        rule="sane age", severity="block", where="input", detail="/features/age: is not at least 0"
    )
    assert rules.of_input({"age": -1}) == [expected]
    [flag] = one("vocabulary", values=["ham"]).of_output("eggs")
    assert (flag.rule, flag.severity, flag.where) == ("vocabulary", "warn", "output")


def test_flags_come_in_the_order_of_the_rules() -> None:
    """Each rule makes at most one flag, in the order of the configuration."""
    rules = Rules(
        [
            {"rule": "blocklist", "words": ["damn"], "name": "second thoughts"},
            {"rule": "range", "feature": "n", "high": 1},
            {"rule": "personal_data"},
        ]
    )
    found = rules.of_input({"n": [5, 6], "a": f"damn, damn {EMAIL} {EMAIL}", "b": "damn"})
    assert [flag.rule for flag in found] == ["second thoughts", "range", "personal_data"]


@pytest.mark.parametrize(
    ("on", "found"),
    [
        ("input", ["input"]),
        ("output", ["output"]),
        ("feedback", ["comment", "correction"]),
        (["output", "feedback"], ["output", "comment", "correction"]),
        (None, ["input", "output", "comment", "correction"]),
    ],
)
def test_rules_run_where_they_are_asked_to(on: Any, found: list[str]) -> None:
    """`on` names one or several of input, output and feedback; texts are read everywhere."""
    rules = one("personal_data", **({} if on is None else {"on": on}))
    flags = [
        *rules.of_input({"text": EMAIL}),
        *rules.of_output(EMAIL),
        *rules.of_comment(EMAIL),
        *rules.of_correction(EMAIL),
    ]
    assert [flag.where for flag in flags] == found


def test_values_are_not_looked_for_in_comments() -> None:
    """A comment is no label, no number and no JSON: only the correction beside it is checked."""
    for rules in (
        one("range", low=0, on="feedback"),
        one("vocabulary", values=["ham"], on="feedback"),
        one("json_schema", schema=BOX, on="feedback"),
    ):
        assert rules.of_comment("fine") == []
        assert len(rules.of_correction("eggs")) == 1


def test_no_answer_is_no_breach() -> None:
    """Before anything is learned there is no answer, and no rule complains of it."""
    rules = Rules([{"rule": "range", "low": 0}, {"rule": "json_schema", "schema": BOX}])
    assert rules.of_output(None) == rules.of_correction(None) == rules.of_comment(None) == []


def test_input_is_not_altered() -> None:
    """Rules read and leave everything as it was."""
    rules = Rules(
        [
            {"rule": "personal_data"},
            {"rule": "blocklist", "words": ["x"]},
            {"rule": "json_schema", "schema": BOX, "on": ["input", "output"]},
        ]
    )
    features = {"text": EMAIL, "deep": [{"a": [EMAIL]}]}
    options = [Option(id=EMAIL, features={"text": EMAIL})]
    before = copy.deepcopy((features, options))
    assert rules.of_input(features, options)
    assert rules.of_output(features)
    assert (features, options) == before


def test_threads_find_the_same() -> None:
    """Many threads on one set of rules find what one finds."""
    rules = Rules(
        [
            {"rule": "personal_data"},
            {"rule": "blocklist", "words": ["damn"]},
            {"rule": "json_schema", "schema": BOX},
        ]
    )
    outputs = [{"label": "cat", "parts": [{"label": w}]} for w in ("dog", "damn", EMAIL, "cow")]
    expected = [rules.of_output(output) for output in outputs]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(rules.of_output, outputs * 100)) == expected * 100


# --- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "breach"),
    [
        (0, None),
        (1.5, None),
        (2, None),
        (-1e-9, "is not at least 0"),
        (2.1, "is not at most 2"),
        (10**400, "is not at most 2"),
        (float("nan"), "is not at least 0"),
        (True, "is not a number"),
        ("1", "is not a number"),
        ({}, "is not a number"),
    ],
)
def test_range(value: Any, breach: str | None) -> None:
    """A number is within its range or at its ends; anything else is a breach."""
    expected = [] if breach is None else [breach]
    assert told(one("range", low=0, high=2).of_output(value)) == expected
    rules = one("range", feature="n", low=0, high=2)
    assert told(rules.of_input({"n": value})) == [f"/features/n: {it}" for it in expected]


def test_range_may_be_open() -> None:
    """With one end only, the other side is free."""
    assert one("range", low=0).of_output(1e300) == []
    assert one("range", high=0).of_output(-1e300) == []


def test_a_feature_is_looked_for_wherever_it_is() -> None:
    """The features and those of each option are checked; a feature that is absent is no breach."""
    rules = one("range", feature="price", low=0)
    options = [
        Option(id="a", features={"price": -1}),
        Option(id="b"),
        Option(id="c", features={"price": 1}),
        Option(id="d", features={"price": [1, -2]}),
    ]
    [detail] = told(rules.of_input({"price": 3}, options))
    assert detail.split("; ") == [
        "/options/0/features/price: is not at least 0",
        "/options/3/features/price/1: is not at least 0",
    ]
    assert rules.of_input({}) == rules.of_output(-1) == []
    on_output = one("range", feature="price", low=0, on="output")
    assert told(on_output.of_output({"price": -1})) == ["/price: is not at least 0"]
    assert on_output.of_input({"price": -1}) == on_output.of_output("price") == []


def test_vocabulary_tells_values_apart() -> None:
    """`true` is not 1, and `"1"` is neither; 1 and 1.0 are the same number."""
    assert one("vocabulary", values=[1, "ham"]).of_output(1.0) == []
    assert one("vocabulary", values=[True]).of_output(True) == []
    others: list[Any] = [True, "1", "Ham", 2, [{}], {"ham": 1}]
    for value in others:
        assert told(one("vocabulary", values=[1, "ham"]).of_output(value))
    assert told(one("vocabulary", values=[True]).of_output(1))


def test_vocabulary_of_a_ranking() -> None:
    """Each of several ids is checked, and the ids themselves are not told."""
    rules = one("vocabulary", values=["a", "b"])
    assert rules.of_output(["b", "a"]) == []
    assert told(rules.of_output(["a", EMAIL])) == ["/1: is not one of the 2 values"]


# --- JSON Schema ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "detail"),
    [
        ({"label": "cat"}, None),
        ({"label": "dog", "box": [0, 1, 2, 3]}, None),
        ('{"label": "cat"}', None),
        ({}, 'breaks required: ["label"]'),
        ({"label": EMAIL}, '/label: breaks enum: ["cat", "dog"]'),
        ({"label": "cat", "box": [0, -1]}, "/box/1: breaks minimum: 0"),
        ({"label": "cat", EMAIL: 1}, "breaks additionalProperties: false"),
        (
            {"label": "cat", "parts": [{"label": "cow"}]},
            '/parts/0/label: breaks enum: ["cat", "dog"]',
        ),
        ({"label": "cat", "parts": [{"label": "cat"}] * 2}, "/parts: breaks uniqueItems: true"),
        ('{"label": "cow"}', '/label: breaks enum: ["cat", "dog"]'),
        ("[]", 'breaks type: "object"'),
        (3, 'breaks type: "object"'),
        ("a cat", "is not JSON"),
        ("NaN", "is not JSON"),
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("1" * 5000, "is not JSON"),
    ],
)
def test_json_schema(output: Any, detail: str | None) -> None:
    """A structured answer, or the JSON in a text, keeps the schema; one breach is told if not."""
    found = one("json_schema", schema=BOX).of_output(output)
    assert told(found) == ([] if detail is None else [detail])


def test_json_schema_of_a_text() -> None:
    """A text is a text where the schema's type says so, or where `parse` does."""
    short = {"type": ["string", "null"], "maxLength": 3}
    assert one("json_schema", schema=short).of_output("yes") == []
    assert told(one("json_schema", schema=short).of_output("maybe")) == ["breaks maxLength: 3"]
    anything = {"maxLength": 3}
    assert told(one("json_schema", schema=anything).of_output("yes")) == ["is not JSON"]
    assert one("json_schema", schema=anything, parse=False).of_output("yes") == []
    assert told(one("json_schema", schema=short, parse=True).of_output("yes")) == ["is not JSON"]


def test_json_schema_of_the_features() -> None:
    """On the input the features are what has to keep the schema."""
    rules = one("json_schema", schema={"properties": {"n": {"type": "integer"}}}, on="input")
    assert rules.of_input({"n": 1}, [Option(id="a")]) == []
    assert told(rules.of_input({"n": "x"})) == ['/features/n: breaks type: "integer"']


@pytest.mark.parametrize("draft", ["draft-04", "draft-07", "draft/2019-09", "draft/2020-12"])
def test_json_schema_of_other_drafts(draft: str) -> None:
    """The version that `$schema` names is the one that counts, also through references."""
    scheme = "https" if "/" in draft else "http"
    schema = BOX | {"$schema": f"{scheme}://json-schema.org/{draft}/schema#"}
    found = one("json_schema", schema=schema).of_output(
        {"label": "cat", "parts": [{"label": "dog", "parts": [{"label": "cow"}]}]}
    )
    assert told(found) == ['/parts/0/parts/0/label: breaks enum: ["cat", "dog"]']


def test_a_refusing_schema_says_so() -> None:
    """A part that the schema refuses whole has no keyword to name."""
    rules = one("json_schema", schema={"properties": {"secret": False}})
    assert told(rules.of_output({"secret": 1})) == ["is not allowed by the schema"]


def test_long_schemas_are_cut() -> None:
    """What the schema wants is told in short."""
    rules = one("json_schema", schema={"enum": [f"value {i}" for i in range(1000)]})
    [detail] = told(rules.of_output(3))
    assert len(detail) < 120
    assert detail.endswith("...")


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference to elsewhere is refused at once, and no connection is opened."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ValueError, match="leads nowhere"):
        one("json_schema", schema={"$ref": "http://127.0.0.1:9/schema.json"})


def test_deep_answers_do_not_raise() -> None:
    """An answer that is nested too deep for a recursive schema makes a flag, never an exception."""
    output: dict[str, Any] = {"label": "cat"}
    for _ in range(5000):
        output = {"label": "cat", "parts": [output]}
    found = one("json_schema", schema=BOX).of_output(output)
    assert [(flag.severity, flag.detail.split(" at ")[0]) for flag in found] == [
        ("note", "rule failed: RecursionError")
    ]
    assert blocks(one("json_schema", schema=BOX, on_error="block").of_output(output))


# --- texts ------------------------------------------------------------------------------------


def test_personal_data_is_found_in_any_text() -> None:
    """Nested texts, names, options and their ids are read; each kind is told once."""
    rules = one("personal_data")
    cases: list[tuple[dict[str, Any], list[Option], str]] = [
        ({"text": f"call {EMAIL}"}, [], "/features/text: email"),
        (
            {"messages": [{"role": "user", "content": EMAIL}]},
            [],
            "/features/messages/0/content: email",
        ),
        ({EMAIL: 1}, [], "/features/*: email"),
        ({EMAIL: [EMAIL]}, [], "/features/*: email"),
        ({"a": {EMAIL: {"b": "203.0.113.7"}}}, [], "/features/a/*: email; /features/a/*/b: ip"),
        ({}, [Option(id="x"), Option(id=EMAIL)], "/options/1/id: email"),
        ({}, [Option(id="x", features={"t": EMAIL})], "/options/0/features/t: email"),
        ({"a/b~c": EMAIL}, [], "/features/a~1b~0c: email"),
        ({"x" * 65: EMAIL}, [], "/features/*: email"),
        ({"line\nbreak": EMAIL}, [], "/features/*: email"),
    ]
    for features, options, detail in cases:
        assert told(rules.of_input(features, options)) == [detail]
    assert rules.of_input({"n": 4111111111111111, "b": True, "v": [1.0]}) == []


def test_personal_data_in_answers_and_feedback() -> None:
    """Answers, comments and corrections are read as well, whatever their form."""
    rules = one("personal_data")
    for found in (
        rules.of_output(EMAIL),
        rules.of_comment(f"I am {EMAIL}"),
        rules.of_correction(EMAIL),
    ):
        assert told(found) == ["email"]
    assert told(rules.of_output({"to": [EMAIL]})) == ["/to/0: email"]
    assert told(rules.of_output(["a", EMAIL])) == ["/1: email"]
    assert told(rules.of_output(json.dumps({"to": EMAIL}))) == ["email"]
    assert rules.of_output(4111111111111111) == rules.of_output(True) == []


def test_all_kinds_are_told() -> None:
    """All kinds of one input stand in one flag; those that were not asked for do not."""
    features = {str(i): secret for i, secret in enumerate(SECRETS)}
    [flag] = one("personal_data").of_input(features)
    assert flag.detail == (
        "/features/0: email; /features/1: phone; /features/2: card; /features/3: iban; "
        "/features/4: ip"
    )
    assert told(one("personal_data", kinds=["iban"]).of_input(features)) == ["/features/3: iban"]
    assert told(one("personal_data", kinds="card").of_input(features)) == ["/features/2: card"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(SECRETS),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.sampled_from(SECRETS), inner, max_size=4)
    ),
    max_leaves=12,
)
EVERYTHING = Rules(
    [
        {"rule": "personal_data"},
        {"rule": "blocklist", "words": [*SECRETS, "ada"]},
        {"rule": "vocabulary", "values": ["x"], "on": ["output", "feedback"]},
        {"rule": "range", "low": 0, "high": 3, "on": ["output", "feedback"]},
        {"rule": "json_schema", "schema": BOX, "on": ["input", "output", "feedback"]},
    ]
)


@given(JSON)
def test_no_flag_holds_what_was_found(value: Any) -> None:
    """Whatever the JSON, no flag repeats personal data, and all of it is found and can be sent."""
    flags = [
        *EVERYTHING.of_output(value),
        *EVERYTHING.of_correction(value),
        *EVERYTHING.of_input({"x": value}, [Option(id="o", features={"y": value})]),
        *EVERYTHING.of_comment(json.dumps(value)),
    ]
    sent = b"".join(flag.pack() for flag in flags).decode()
    assert not [secret for secret in SECRETS if secret in sent]
    holds = any(secret in json.dumps(value) for secret in SECRETS)
    assert not holds or any(flag.rule == "personal_data" for flag in flags)
    assert all(flag.severity == "warn" for flag in flags)


def test_pointers_are_short() -> None:
    """A place a thousand levels deep is told by its first parts."""
    value: Any = EMAIL
    for _ in range(100_000):
        value = [value]
    assert told(one("personal_data").of_output(value)) == ["/0/0/0/0/0/0/0/0/...: email"]
    assert pointer(None) == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Damn it", True),
        ("DAMN!", True),
        ("(damn)", True),
        ("ｄａｍｎ", True),  # noqa: RUF001
        ("da\u00admn and da\u200bmn", True),
        ("goddamn", False),
        ("damned", False),
        ("damn_it", False),
        ("go to hell now", True),
        ("go  to\nHELL", True),
        ("go to hello", False),
        ("to hell", False),
        ("c++ is fine", True),
        ("c is fine", False),
        ("STRASSE", True),
        ("Cafe\u0301", True),
        ("这是坏话吗", True),
        ("", False),
    ],
)
def test_blocklist(text: str, found: bool) -> None:
    """Whole words and phrases are found, whatever their case, width and invisible characters."""
    words = ["damn", "go to hell", "c++", "Straße", "café", "坏话"]
    rules = one("blocklist", words=words)
    assert bool(rules.of_comment(text)) == found
    assert bool(rules.of_input({"a": [text]})) == found


def test_blocklist_tells_the_place_in_the_list(tmp_path: Path) -> None:
    """A finding names the entry by its place, the list's and the text's, and not by the word."""
    file = tmp_path / "words.txt"
    file.write_text("\ufeffheck\r\n\r\nBad Word\n", encoding="utf-8")
    rules = one("blocklist", words=["damn", "hell"], file=str(file))
    assert told(rules.of_output("what the hell")) == ["words[1] of the list"]
    assert told(rules.of_output("a bad  word")) == ["line 3 of the file of the list"]
    assert told(rules.of_input({"a": "ok", "b": "Heck"})) == [
        "/features/b: line 1 of the file of the list"
    ]


# --- hooks ------------------------------------------------------------------------------------


def test_hook(hooks: str) -> None:
    """A function by import path is given what there is, where, and its own arguments."""
    rules = one(f"{hooks}:shouts", severity="block", on=["output", "feedback"])
    [flag] = rules.of_output("HELLO")
    assert flag == Flag(
        rule="team_hooks:shouts",
        severity="block",
        where="output",
        detail="5 capitals in the output",
    )
    assert told(rules.of_comment("HEY you")) == []
    assert told(rules.of_comment("HEY")) == ["3 capitals in the comment"]
    assert told(rules.of_correction("HEY")) == ["3 capitals in the correction"]
    assert one(f"{hooks}:shouts", share=1.0).of_output("HELLO") == []
    assert told(one(f"{hooks}:Deep.always").of_output(1)) == ["deep"]


def test_hook_on_an_input(hooks: str) -> None:
    """On an input a hook reads each text, but no names; or the one feature that is named."""
    features = {"QUIET": "hush", "n": 3, "deep": [{"LOUD": "HEY"}, "HO"]}
    rules = one(f"{hooks}:shouts", on="input")
    assert told(rules.of_input(features)) == ["/features/deep/0/LOUD: 3 capitals in the input"]
    rules = one(f"{hooks}:echo", feature="n")
    assert told(rules.of_input(features)) == ["/features/n: 3"]
    assert rules.of_output(3) == []


@pytest.mark.parametrize(
    ("name", "details"),
    [
        ("always", [""]),
        ("numpy_true", [""]),
        ("never", []),
        ("silent", []),
        ("surrogate", ["half ?"]),
    ],
)
def test_what_a_hook_may_return(hooks: str, name: str, details: list[str]) -> None:
    """True is a flag without a detail; False, None and an empty text are none."""
    found = one(f"{hooks}:{name}", severity="block").of_output("text")
    assert told(found) == details
    assert blocks(found) == bool(details)
    assert all(flag.pack() for flag in found)


def test_a_hook_that_fails_is_a_note(hooks: str) -> None:
    """An exception is told by its type and line, without its message, and never raised."""
    rules = one(f"{hooks}:fails", severity="block", name="toxicity")
    [flag] = rules.of_output(EMAIL)
    assert (flag.rule, flag.severity) == ("toxicity", "note")
    assert flag.detail == "rule failed: ValueError at team_hooks.py:14"
    assert blocks(one(f"{hooks}:fails", on_error="block").of_output(EMAIL))
    assert "rule failed: TypeError" in told(one(f"{hooks}:score").of_output(EMAIL))[0]


def test_long_details_are_cut(hooks: str) -> None:
    """What a hook says at length is cut."""
    assert len(told(one(f"{hooks}:echo").of_output("x" * 10_000))[0]) == 300


# --- the configuration ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("range", r"rules\[1\]: must be a mapping"),
        ({}, r"rules\[1\]\.rule: name a kind: range, vocabulary"),
        ({"rule": 3}, r"rules\[1\]\.rule: name a kind"),
        ({"rule": "rnage"}, r"rules\[1\]\.rule: 'rnage' is no kind\. Did you mean 'range'\?"),
        ({"rule": "range", "lwo": 0}, r"rules\[1\]\.lwo: unknown key\. Did you mean 'low'\?"),
        ({"rule": "range", 3: 0}, r"rules\[1\]\.3: unknown key"),
        ({"rule": "range"}, r"rules\[1\]: give `low`, `high`, or both"),
        ({"rule": "range", "low": 2, "high": 1}, r"`low` \(2\) is above `high` \(1\)"),
        ({"rule": "range", "low": True}, r"rules\[1\]\.low: .*valid number"),
        ({"rule": "range", "low": "0"}, r"rules\[1\]\.low: .*valid number"),
        ({"rule": "range", "low": float("nan")}, r"rules\[1\]\.low: .*finite"),
        ({"rule": "range", "low": 0, "on": "input"}, r"rules\[1\]: `on: input` needs a `feature`"),
        ({"rule": "range", "low": 0, "severity": "blok"}, r"\.severity: .*Did you mean 'block'\?"),
        ({"rule": "range", "low": 0, "on_error": "x"}, r"rules\[1\]\.on_error: "),
        ({"rule": "range", "low": 0, "on": ["ouput"]}, r"\.on\.0: .*Did you mean 'output'\?"),
        ({"rule": "range", "low": 0, "on": []}, r"rules\[1\]\.on: "),
        ({"rule": "range", "low": 0, "name": ""}, r"rules\[1\]\.name: "),
        ({"rule": "range", "low": 0, "words": [], "x": 1}, r"\.words: unknown.*\.x: unknown"),
        ({"rule": "vocabulary"}, r"rules\[1\]\.values: Field required"),
        ({"rule": "vocabulary", "values": []}, r"rules\[1\]\.values: "),
        ({"rule": "vocabulary", "values": [None]}, r"rules\[1\]\.values\.0"),
        ({"rule": "personal_data", "kinds": ["emial"]}, r"\.kinds\.0: .*Did you mean 'email'\?"),
        ({"rule": "personal_data", "kinds": []}, r"rules\[1\]\.kinds: "),
        ({"rule": "blocklist"}, r"rules\[1\]: give `words`, a `file`, or both"),
        ({"rule": "blocklist", "words": ["a", " "]}, r"rules\[1\]: words\[1\] is empty"),
        ({"rule": "blocklist", "words": [3]}, r"rules\[1\]\.words\.0: "),
        ({"rule": "blocklist", "file": "no.txt"}, r"rules\[1\]: file: cannot read 'no\.txt'"),
        ({"rule": "json_schema"}, r"rules\[1\]\.schema: Field required"),
        ({"rule": "json_schema", "shcema": {}}, r"\.shcema: unknown key\. Did you mean 'schema'"),
        ({"rule": "json_schema", "schema": {"type": "strng"}}, r"rules\[1\]: schema\.type: "),
        ({"rule": "json_schema", "schema": {"pattern": "("}}, r"rules\[1\]: schema\.pattern: "),
        (
            {"rule": "json_schema", "schema": {"items": {"$ref": "#/definitions/x"}}},
            r"rules\[1\]: schema: the reference '/definitions/x' leads nowhere",
        ),
        (
            {"rule": "json_schema", "schema": {"$schema": "http://example.org/x"}},
            r"rules\[1\]: schema\.\$schema: 'http://example.org/x' is not known",
        ),
        ({"rule": "no_such_module:f"}, r"rules\[1\]: cannot import 'no_such_module'"),
        ({"rule": "broken_hooks:f"}, r"rules\[1\]: cannot import 'broken_hooks': .*'missing'"),
        ({"rule": "team_hooks:shout"}, r"no 'shout' there\. Did you mean 'shouts'\?"),
        ({"rule": "team_hooks:"}, r"rules\[1\]: 'team_hooks:': no '' there"),
        ({"rule": "team_hooks:late"}, r"must be a function, and not an async one"),
        ({"rule": "team_hooks:nothing"}, r"must be a function"),
        (
            {"rule": "team_hooks:shouts", "shrae": 1},
            r"cannot be called so: .*'shrae'\. Did you mean 'share'\?",
        ),
        (
            {"rule": "team_hooks:shouts", "serverity": "block"},
            r"cannot be called so: .*Did you mean 'severity'\?",
        ),
    ],
)
def test_wrong_configurations_are_refused(hooks: str, document: Any, message: str) -> None:
    """A wrong rule is refused with its index, the key, and what may have been meant."""
    with pytest.raises(ValueError, match=message):
        Rules([{"rule": "personal_data"}, document])


def test_rules_from_yaml() -> None:
    """`on` may stand unquoted in a YAML file, where YAML 1.1 reads it as true."""
    documents = yaml.safe_load("[{rule: personal_data, on: [output], kinds: [email], name: mail}]")
    rules = Rules(documents)
    assert [flag.rule for flag in rules.of_output(EMAIL)] == ["mail"]
    assert rules.of_input({"text": EMAIL}) == []


# --- how long it takes ------------------------------------------------------------------------


def cpu_s(work: Callable[[], object]) -> float:
    """Return the processor time of the quickest of three runs, in seconds."""
    taken = []
    for _ in range(3):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


@pytest.mark.parametrize("part", ["damn", "damn ", "go to ", "a", "! ", "\u0315\u0300", "坏"])
def test_blocklists_take_linear_time(part: str) -> None:
    """64 kB of near misses against a thousand words take less than a second."""
    words = [*(f"word {i}" for i in range(1000)), "go to hell", "damn you", "坏话"]
    rules = one("blocklist", words=words)
    assert cpu_s(lambda: rules.of_comment(part * (65_536 // len(part)))) < 1.0


def test_unique_items_take_linear_time() -> None:
    """20,000 objects that should differ are compared in less than a second."""
    rules = one("json_schema", schema={"type": "array", "uniqueItems": True})
    items: list[Any] = [{"a": i} for i in range(20_000)]
    assert cpu_s(lambda: rules.of_output(items)) < 1.0
    assert rules.of_output(items) == []
    assert told(rules.of_output([*items, {"a": 7}])) == ["breaks uniqueItems: true"]


def test_many_features_take_milliseconds() -> None:
    """10,000 numbers and their names are looked through in less than 100 ms."""
    features = {f"f{i}": float(i) for i in range(10_000)}
    assert cpu_s(lambda: one("personal_data").of_input(features)) < 0.1
