"""`docs/api.md`, played against a running service: every request, every reply."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from the_service import Service

from online_learner.errors import ServiceError
from online_learner.requests import KINDS
from serve_app.access import declared
from serve_app.gateway import create_app

PAGE = (Path(__file__).parent.parent / "docs" / "api.md").read_text()
ROUTE = re.compile(r"`(GET|POST) (/[^`\s]*)`")
BLOCK = re.compile(r"```json\n(.*?)```", flags=re.DOTALL)
MODELS: dict[str, dict[str, Any]] = {
    "triage": {
        "task": "classification",
        "labels": ["billing", "bug", "praise"],
        "learner": "torch:text",
        "categories": {"off_topic": "down"},
    },
    "assistant": {"task": "generation", "learner": "tiny_ranker:ranker"},
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request of the page, and the reply that it shows, if it shows one."""

    method: str
    path: str
    body: Any
    reply: Any


def exchanges() -> Iterator[Exchange]:
    """Yield what the page shows, in order: a block is sent to the route that was named last."""
    method, path, pending = "", "", None
    parts = re.split(r"(`(?:GET|POST) /[^`\s]*`|```json\n.*?```)", PAGE, flags=re.DOTALL)
    for part in parts:
        if named := ROUTE.fullmatch(part):
            if pending is not None:
                yield pending
            method, path = named.groups()
            read = method == "GET" and "FEEDBACK_ID" in path
            pending = Exchange(method, path, None, None) if read else None
        elif block := BLOCK.fullmatch(part):
            shown = json.loads(block[1])
            if pending is not None and _is_reply(shown):
                yield Exchange(pending.method, pending.path, pending.body, shown)
                pending = None
            else:
                if pending is not None:
                    yield pending
                pending = Exchange(method, path, shown, None)
    if pending is not None:
        yield pending


def _is_reply(shown: Any) -> bool:
    return "version" in shown or "durability" in shown or "type" in shown


@pytest.fixture(scope="module")
def service(start_service: Callable[..., Service]) -> Service:
    """Run the models of the page."""
    return start_service(**MODELS)


def test_the_page_is_true(http: httpx2.Client) -> None:
    """Each request is taken, and each reply has the fields that are shown, of the same types."""
    ids = {"PREDICTION_ID": "", "FEEDBACK_ID": ""}
    seen = []
    for exchange in exchanges():
        body, path = json.dumps(exchange.body), exchange.path
        for name, known in ids.items():
            body, path = body.replace(name, known), path.replace(name, known)
        sent = None if exchange.body is None else json.loads(body)
        reply = http.request(exchange.method, path, json=sent)
        shown = exchange.reply or {}
        assert reply.status_code == shown.get("status", 0) or reply.is_success, reply.text
        found = reply.json()
        if isinstance(shown.get("status"), int):
            assert found["code"] == shown["code"]
        for name, value in shown.items():
            assert name in found, f"{path}: no {name}"
            assert value is None or isinstance(found[name], type(value)), f"{path}: {name}"
        if path.endswith("/predict"):
            ids["PREDICTION_ID"] = found["prediction_id"]
        if path == "/v1/feedback" and reply.status_code == 202:
            ids["FEEDBACK_ID"] = found.get("feedback_id") or ids["FEEDBACK_ID"]
        seen.append((exchange.method, exchange.path))
    assert len(seen) == len(BLOCK.findall(PAGE)) - sum(e.reply is not None for e in exchanges()) + 1


def test_routes_and_kinds_of_the_page_exist() -> None:
    """Each route that it names is one, and its table of kinds is complete."""
    known = {(method, path) for method, path in declared(create_app("", "").routes)}
    shapes = [(method, re.sub(r"\{\w+\}", "[^/]+", path)) for method, path in known]
    for method, path in ROUTE.findall(PAGE):
        bare = path.partition("?")[0]
        assert any(m == method and re.fullmatch(shape, bare) for m, shape in shapes), path
    table = PAGE.partition("## Tell")[2].partition("## What became")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == set(KINDS)


def test_the_statuses_of_the_page_are_those_of_the_errors() -> None:
    """Its table of errors names every status that a client can meet and act on."""
    table = PAGE.partition("| status | code |")[2]
    told = {int(status) for status in re.findall(r"\b([45]\d\d)\b", table.partition("\n\n")[0])}
    kinds = [ServiceError, *ServiceError.__subclasses__()]
    assert told == {kind.status for kind in kinds} - {405, 500}
