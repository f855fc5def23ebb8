"""The examples of the OpenAPI document: one for everything, and each of them true."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator
from the_examples import MODELS, Sender

from benchmarks.hostile import site
from benchmarks.hostile.site import Site
from online_learner.requests import KINDS

JSON = "application/json"
FOLDER = Path(__file__).parent
OTHERS = {"/openapi.json"}  # is no example of itself


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    """Run the service in a process of its own, learners and all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{FOLDER}:{FOLDER.parent}")
        with site.running(MODELS) as found:
            yield found


@pytest.fixture(scope="module")
def http(running: Site) -> Iterator[httpx2.Client]:
    """Return a client with the key."""
    with running.client() as client:
        yield client


@pytest.fixture(scope="module")
def document(http: httpx2.Client) -> dict[str, Any]:
    """Return the document as it is served."""
    return dict(http.get("/openapi.json").json())


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield route and description of all operations that speak JSON."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if path not in OTHERS and JSON in _done(operation)[1].get("content", {}):
                yield f"{method.upper()} {path}", operation


def _done(operation: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return next(
        (int(status), reply) for status, reply in operation["responses"].items() if status < "400"
    )


def valid(document: dict[str, Any], operation: dict[str, Any], reply: Any) -> None:
    """Check a reply against what the document says of it."""
    schema = _done(operation)[1]["content"][JSON]["schema"]
    Draft202012Validator({**schema, "components": document["components"]}).validate(reply)


def test_everything_has_an_example(document: dict[str, Any]) -> None:
    """Every route that speaks JSON shows what is replied, and what is sent; so does every kind."""
    for route, operation in operations(document):
        assert "example" in _done(operation)[1]["content"][JSON], route
        for kind, media in operation.get("requestBody", {}).get("content", {}).items():
            assert media.get("examples") or kind != JSON, route
    shown = document["paths"]["/v1/feedback"]["post"]["requestBody"]["content"][JSON]["examples"]
    bodies = [example["value"] for example in shown.values()]
    assert {body.get("kind") for body in bodies} >= set(KINDS)
    assert any("signals" in body for body in bodies)


def test_what_is_shown_is_true(
    running: Site, http: httpx2.Client, document: dict[str, Any]
) -> None:
    """Each example, sent as it is, gets the status and the kind of reply that are documented."""
    sender = Sender(running, http)
    sender.prepare()
    tried = 0
    known = dict(operations(document))
    for route, name, body in _shown(document):
        operation = known[route]
        parameters = {p["name"]: p.get("example") for p in operation["parameters"]}
        _, reply = sender.send(route, parameters, name, body)
        status, told = _done(operation)
        assert reply.status_code == status, (route, name, reply.text)
        valid(document, operation, reply.json())
        valid(document, operation, told["content"][JSON]["example"])
        tried += 1
    assert tried > len(known)


def _shown(document: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield route, name and body of all examples: first what changes little."""
    found = sorted(operations(document), key=lambda pair: _rank(pair[0]))
    for route, operation in found:
        content = operation.get("requestBody", {}).get("content", {JSON: {}})
        examples = content.get(JSON, {}).get("examples")
        if examples:
            yield from ((route, name, example["value"]) for name, example in examples.items())
        else:
            yield route, "", None


def _rank(route: str) -> int:
    late = ("/promote", "/rollback", "/release")
    return next((n for n, end in enumerate(late, 2) if route.endswith(end)), 1)
