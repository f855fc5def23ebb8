"""Every kind of feedback on every task, through the whole stack: what it does, or why it does not.

Each case is posted over HTTP about a fresh answer. Where something is to be learned, the receipt is
followed until an answer rests on it, and the weights must have moved as `docs/kinds.md` says; where
nothing is, their digest must be what it was; what means nothing is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args
from uuid import uuid4

import httpx2
import pytest

from online_learner.requests import KINDS
from online_learner.schema import Task
from policies.signals import TABLE
from policies.table import page

Poll = Callable[..., Awaitable[None]]

QUESTION = {"text": "the invoice for march is wrong"}
HOUSE = {"rooms": 3.0, "area": 70.0}
PAGES = [
    {"id": "a", "features": {"title": "how to pay an invoice"}},
    {"id": "b", "features": {"title": "our history"}},
    {"id": "c", "features": {"title": "opening hours"}},
]
PROMPT = "explain what an invoice is"
REPLIES = [
    {"id": "0", "text": "an invoice asks for payment"},
    {"id": "1", "text": "no idea, sorry"},
    {"id": "2", "text": "it is a kind of bird"},
]


@dataclass(frozen=True)
class Answer:
    """One answer, and the numbers by which the weights can be seen to move."""

    id: str
    shown: list[str]
    raw: dict[str, Any]
    numbers: dict[str, float] = field(default_factory=dict)

    def best_gap(self, name: str) -> float:
        """Return how far an option is above the mean of the others."""
        others = [value for other, value in self.numbers.items() if other != name]
        return self.numbers[name] - sum(others) / len(others)


class Asker:
    """Asks one model the same question again and again."""

    def __init__(self, http: httpx2.AsyncClient, model: str) -> None:
        self.http = http
        self.model = model

    async def ask(self) -> Answer:
        """Return the answer to the model's question, or log one."""
        path = "log" if self.model == "assistant" else "predict"
        body: dict[str, Any] = {
            "triage": {"features": QUESTION},
            "price": {"features": HOUSE},
            "search": {"features": {"query": "invoice"}, "options": PAGES},
            "assistant": {"prompt": PROMPT, "outputs": REPLIES, "model_version": "llm-7"},
        }[self.model]
        reply = await self.http.post(f"/v1/models/{self.model}/{path}", json=body)
        assert reply.status_code == 200, reply.text
        found = reply.json()
        output = found["output"]
        numbers = found["scores"] or {"price": output}
        shown = output if isinstance(output, list) else [output]
        return Answer(found["prediction_id"], shown, found, numbers)

    async def digest(self) -> str:
        """Return the digest of the learner's newest published state."""
        status = (await self.http.get(f"/v1/models/{self.model}")).json()
        return str(status["state_digest"])

    async def fate(self, feedback_id: str) -> dict[str, Any]:
        """Return the receipt of a signal."""
        return dict((await self.http.get(f"/v1/feedback/{feedback_id}")).json())


Moved = Callable[[Answer, Answer], bool]


@dataclass(frozen=True)
class Case:
    """One kind on one task: what is said, and what comes of it.

    `moved` compares the answers before and after; None: nothing is learned.
    """

    model: str
    says: Callable[[Answer], dict[str, Any]]
    moved: Moved | None


def served_up(before: Answer, after: Answer) -> bool:
    """Tell whether what was served has gained against the rest."""
    name = before.shown[0]
    return after.best_gap(name) > before.best_gap(name)


def served_down(before: Answer, after: Answer) -> bool:
    """Tell whether what was served has lost against the rest."""
    name = before.shown[0]
    return after.best_gap(name) < before.best_gap(name)


def shown_down(before: Answer, after: Answer) -> bool:
    """Tell whether all that was shown has lost, against what was not."""
    return sum(after.numbers.values()) < sum(before.numbers.values())


def stays(before: Answer, after: Answer) -> bool:
    """Tell whether the number is what it was: it was right."""
    return abs(after.numbers["price"] - before.numbers["price"]) < 1e-6


def up(name: str) -> Moved:
    """Return the check that one option or label has gained."""
    return lambda before, after: after.best_gap(name) > before.best_gap(name)


def closer(to: float) -> Moved:
    """Return the check that the number has come closer to another."""
    return lambda before, after: (
        abs(after.numbers["price"] - to) < abs(before.numbers["price"] - to)
    )


def above(first: str, second: str) -> Moved:
    """Return the check that one option has gained on another."""

    def check(before: Answer, after: Answer) -> bool:
        gaps = [a.numbers[first] - a.numbers[second] for a in (before, after)]
        return gaps[1] > gaps[0]

    return check


def said(kind: str, **fields: Any) -> Callable[[Answer], dict[str, Any]]:
    """Return a signal that does not depend on the answer."""
    return lambda _: {"kind": kind, **fields}


NEW = {"id": "d", "features": {"title": "invoices, step by step"}}
CASES = {
    # classification, three labels
    "triage correction": Case("triage", said("correction", value="bug"), up("bug")),
    "triage selection": Case("triage", said("selection", value="praise"), up("praise")),
    "triage none of these": Case("triage", said("selection", value=None), None),
    "triage thumbs up": Case("triage", said("thumbs", value=True), served_up),
    "triage thumbs down": Case("triage", said("thumbs", value=False), served_down),
    "triage rating high": Case("triage", said("rating", value=5), served_up),
    "triage rating low": Case("triage", said("rating", value=1), served_down),
    "triage category up": Case("triage", said("category", value="helpful"), served_up),
    "triage category down": Case("triage", said("category", value="off_topic"), served_down),
    "triage category ignored": Case("triage", said("category", value="spam"), None),
    "triage flag": Case("triage", said("flag", rule="toxic"), served_down),
    "triage note": Case("triage", said("flag", rule="toxic", severity="note"), None),
    "triage click": Case("triage", said("implicit", event="click"), served_up),
    "triage shown": Case("triage", said("implicit", event="feedback_shown"), None),
    # regression
    "price correction": Case("price", said("correction", value=250.0), closer(250.0)),
    "price thumbs up": Case("price", said("thumbs", value=True), stays),
    "price thumbs down": Case("price", said("thumbs", value=False), None),
    "price rating low": Case("price", said("rating", value=1), None),
    "price category down": Case("price", said("category", value="absurd"), None),
    "price flag": Case("price", said("flag", rule="too_high"), None),
    "price click": Case("price", said("implicit", event="click"), None),
    # ranking
    "search correction": Case("search", said("correction", value=NEW), shown_down),
    "search correction, one shown": Case("search", said("correction", value="b"), up("b")),
    "search selection": Case("search", said("selection", value="c"), up("c")),
    "search thumbs up": Case("search", said("thumbs", value=True), served_up),
    "search thumbs down": Case("search", said("thumbs", value=False), served_down),
    "search rating high": Case("search", said("rating", value=10, scale=[0, 10]), served_up),
    "search rating low": Case("search", said("rating", value=0, scale=[0, 10]), served_down),
    "search preference": Case(
        "search", said("preference", chosen="b", rejected="a"), above("b", "a")
    ),
    "search ranking": Case("search", said("ranking", value=["c", "a", "b"]), above("c", "b")),
    "search category down": Case("search", said("category", value="off_topic"), served_down),
    "search flag": Case("search", said("flag", rule="stale"), served_down),
    "search purchase": Case("search", said("implicit", event="purchase"), served_up),
    # generation
    "assistant correction": Case(
        "assistant", said("correction", value="a bill that asks for payment"), served_down
    ),
    "assistant selection": Case("assistant", said("selection", value="1"), up("1")),
    "assistant thumbs up": Case("assistant", said("thumbs", value=True), served_up),
    "assistant thumbs down": Case("assistant", said("thumbs", value=False), served_down),
    "assistant rating high": Case("assistant", said("rating", value=5), served_up),
    "assistant preference": Case(
        "assistant", said("preference", chosen="0", rejected="2"), above("0", "2")
    ),
    "assistant ranking": Case("assistant", said("ranking", value=["0", "1", "2"]), above("0", "2")),
    "assistant category up": Case("assistant", said("category", value="helpful"), served_up),
    "assistant flag": Case("assistant", said("flag", rule="made_up"), served_down),
    "assistant regenerate": Case("assistant", said("implicit", event="regenerate"), served_down),
}
TASKS: dict[str, Task] = {
    "triage": "classification",
    "price": "regression",
    "search": "ranking",
    "assistant": "generation",
}
REFUSED = [
    pytest.param(model, kind, id=f"{model} {kind}")
    for model, task in TASKS.items()
    for kind, row in TABLE.items()
    if row[task] is None
]
FIELDS: dict[str, dict[str, Any]] = {
    "selection": {"value": "a"},
    "preference": {"chosen": "a", "rejected": "b"},
    "ranking": {"value": ["a", "b"]},
}


def test_every_kind_on_every_task_has_a_case() -> None:
    """Each cell of the table is either posted below, or refused below."""
    posted = {
        (TASKS[case.model], case.says(Answer("", ["0"], {}))["kind"]) for case in CASES.values()
    }
    refused = {(TASKS[str(p.values[0])], str(p.values[1])) for p in REFUSED}
    assert posted | refused == {(task, kind) for task in get_args(Task) for kind in KINDS}
    assert not posted & refused


def test_the_page_is_the_table() -> None:
    """`docs/kinds.md` is what the table says now."""
    written = (Path(__file__).parent.parent / "docs" / "kinds.md").read_text()
    assert written == page(), "make docs"


@pytest.mark.ray
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_what_feedback_does(
    stack_http: httpx2.AsyncClient, eventually: Poll, case: Case
) -> None:
    """It is accepted, followed to the answer that rests on it, and moves the weights as stated."""
    asker = Asker(stack_http, case.model)
    before, digest = await asker.ask(), await asker.digest()
    user = uuid4().hex  # the cases speak of equal inputs: one person would contradict themselves
    body = {"prediction_id": before.id, "user_id": user, **case.says(before)}
    receipt = await stack_http.post("/v1/feedback", json=body)
    assert receipt.status_code == 202, receipt.text
    feedback_id = receipt.json()["feedback_id"]
    wanted = "kept" if case.moved is None else "learned"

    async def settled() -> bool:
        await asker.ask()
        fate = await asker.fate(feedback_id)
        assert fate["status"] in {"accepted", wanted}, fate
        if fate["status"] == "kept":
            step = (await stack_http.get(f"/v1/models/{case.model}")).json()["step"]
            return bool(step >= fate["step"])
        return fate.get("served") is not None

    await eventually(settled, within_s=30)
    fate, after = await asker.fate(feedback_id), await asker.ask()
    assert fate["feedback"]["source"] == f"human:{user}"
    if case.moved is None:
        assert fate["reason"].startswith("nothing_to_learn: ")
        assert await asker.digest() == digest
    else:
        assert fate["served"]["step"] >= fate["step"]
        assert fate["learned_at"] <= fate["served"]["at"] + 1.0
        assert case.moved(before, after), (before.numbers, after.numbers)
        assert await asker.digest() != digest


@pytest.mark.ray
@pytest.mark.parametrize(("model", "kind"), REFUSED)
async def test_what_means_nothing_is_refused(
    stack_http: httpx2.AsyncClient, model: str, kind: str
) -> None:
    """A kind that means nothing for a task is 422, and the answer names those that do."""
    answer = await Asker(stack_http, model).ask()
    body = {"prediction_id": answer.id, "kind": kind, **FIELDS[kind]}
    reply = await stack_http.post("/v1/feedback", json=body)
    assert (reply.status_code, reply.json()["code"]) == (422, "kind_not_applicable")
    assert all(
        (other in reply.json()["detail"]) == (row[TASKS[model]] is not None or other == kind)
        for other, row in TABLE.items()
    )


@pytest.mark.ray
async def test_a_blocked_answer_is_the_fallback(stack_http: httpx2.AsyncClient) -> None:
    """A rule that blocks puts the fallback in the answer's place; the log holds both."""
    body = {"features": {"text": "write to ada@example.org at once"}}
    answer = (await stack_http.post("/v1/models/triage/predict", json=body)).json()
    assert (answer["blocked"], answer["output"], answer["scores"]) == (True, "billing", {})
    assert [flag["rule"] for flag in answer["flags"]] == ["personal_data"]
    assert "ada@" not in str(answer["flags"])
    told = (await stack_http.get(f"/v1/predictions/{answer['prediction_id']}")).json()["prediction"]
    assert (told["blocked"], told["fallback"]) == (True, "billing")
    assert told["output"] in {"billing", "bug", "praise"}


@pytest.mark.ray
async def test_a_chat_is_logged_compared_and_scored(stack_http: httpx2.AsyncClient) -> None:
    """OpenAI request and response go in unchanged; feedback finds them by the completion id."""
    request = {
        "model": "llm",
        "messages": [{"role": "user", "content": PROMPT}],
        "temperature": 0.2,
        "n": 2,
    }
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for i, text in enumerate(["a bird", "a bill"])
    ]
    response = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "llm-7",
        "choices": choices,
    }
    url = "/v1/models/assistant"
    logged = await stack_http.post(f"{url}/log", json={"request": request, "response": response})
    assert logged.status_code == 200, logged.text
    assert logged.json()["model_version"] == "llm-7"
    said = {"model": "assistant", "external_id": "chatcmpl-1", "kind": "preference"}
    said |= {"chosen": "1", "rejected": "0", "model_version": "llm-7"}
    receipt = await stack_http.post("/v1/feedback", json=said)
    assert receipt.status_code == 202, receipt.text
    assert receipt.json()["prediction_id"] == logged.json()["prediction_id"]
    scored = await stack_http.post(
        f"{url}/score", json={"prompt": PROMPT, "outputs": ["a bill", "a bird"]}
    )
    assert len(scored.json()["rewards"]) == 2
