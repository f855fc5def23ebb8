"""The OpenAPI document: complete, valid, and true of the running service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.hostile import openapi as hostile
from benchmarks.hostile import site
from benchmarks.hostile.site import Site
from online_learner.auth import SCOPES
from online_learner.errors import ServiceError
from serve_app.access import declared, needs
from serve_app.api import replies
from serve_app.api.operators import describe
from serve_app.gateway import create_app


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return all routes of the application."""
    return create_app("redis://nowhere", str(tmp_path_factory.mktemp("none"))).routes


@pytest.fixture(scope="module")
def document(routes: Any) -> dict[str, Any]:
    """Return the document, made without anything that runs."""
    return dict(routes[-1].app.state.document)


@pytest.fixture(scope="module")
def running() -> Iterator[Site]:
    """Run the service in a process of its own, learners and all."""
    with site.running({name: site.MODELS[name] for name in ("web", "rent")}) as found:
        yield found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path and description of all operations."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


# --- complete ---------------------------------------------------------------------------------


def test_it_is_valid(document: dict[str, Any]) -> None:
    """It keeps to OpenAPI 3.1, and each schema to JSON Schema 2020-12."""
    assert document["openapi"].startswith("3.1.")
    assert list(OPENAPI_31_VALIDATOR.iter_errors(document)) == []
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_route_is_in_it(document: dict[str, Any], routes: Any) -> None:
    """All routes of the application, each under an id of its own."""
    found = [(method, path) for method, path, _ in operations(document)]
    assert set(found) == set(declared(routes))
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    assert all(operation["summary"] for _, _, operation in operations(document))


def test_a_route_that_is_not_described_stops_the_service(routes: Any) -> None:
    """A route without an entry is a mistake that no start survives."""

    @needs("nothing")
    async def handler(request: Request) -> Response:
        return Response()

    with pytest.raises(LookupError, match="GET /new is not in the table"):
        describe(routes[-1].app, [*routes, Route("/new", handler)])


def test_who_is_let_in_is_told(document: dict[str, Any], routes: Any) -> None:
    """The scope that the application asks for is that of the document; changes need the token."""
    needs = declared(routes)
    for method, path, operation in operations(document):
        need, told = needs[method, path], operation["security"]
        if need == "nothing":
            assert told == []
            continue
        assert told[0] == {"key": [need] if need in SCOPES else []}
        session = [option for option in told if "session" in option]
        assert len(session) == (need != "key")
        assert all(("csrf" in option) == (method != "GET") for option in session)
        by_id = {("post", "/v1/feedback"), ("delete", "/v1/feedback/{feedback_id}")}
        assert ({} in told) == ((method.lower(), path) in by_id)
        assert "401" in operation["responses"]
        assert ("403" in operation["responses"]) == (need in SCOPES or (method == "DELETE"))


def test_every_error_is_a_problem(document: dict[str, Any]) -> None:
    """Each status of the tree of errors is told once, as a problem; no operation has others."""
    shared = document["components"]["responses"]
    statuses = {f"{kind.status}" for kind in [ServiceError, *ServiceError.__subclasses__()]}
    assert set(shared) == statuses
    for response in shared.values():
        assert list(response["content"]) == ["application/problem+json"]
        assert "x-request-id" in response["headers"]
    for _, path, operation in operations(document):
        wrong = {status for status in operation["responses"] if status >= "400"}
        assert wrong <= statuses
        if "requestBody" in operation:
            assert {"400", "408", "413", "415", "422"} <= wrong, path


def test_limits_are_told(document: dict[str, Any]) -> None:
    """Depth and size of what is taken stand in the schemas."""
    schemas = document["components"]["schemas"]
    features = schemas["PredictRequest"]["properties"]["features"]
    assert features["maxProperties"] == 10_000
    number, _, text, vector = features["additionalProperties"]["anyOf"]
    assert (number["maximum"], text["maxLength"], vector["maxItems"]) == (1e15, 65_536, 8192)
    assert schemas["PredictRequest"]["properties"]["tags"]["maxProperties"] == 64
    batch = schemas["PredictBatchRequest"]["properties"]["instances"]
    assert (batch["maxItems"], batch["items"]["$ref"].rpartition("/")[2]) == (
        1024,
        "PredictRequest",
    )
    always = set(replies.Problem.model_fields) - {"retry_after_s"}
    assert always == set(schemas["Problem"]["required"])


# --- true -------------------------------------------------------------------------------------


def test_replies_have_what_is_told_and_no_more(running: Site, document: dict[str, Any]) -> None:
    """Every key of a reply is described, on all reads, and on answers and receipts."""
    with running.client() as http:
        answer = _post(http, "/v1/models/web/predict", {"features": {"x": 1.0}})
        said = {"prediction_id": answer["prediction_id"], "kind": "thumbs", "value": True}
        taken = _post(http, "/v1/feedback", said)
        told = {"PredictResponse": answer, "FeedbackReceipt": taken}
        for name, path in {
            "Models": "/v1/models",
            "ModelStatus": "/v1/models/web",
            "Versions": "/v1/models/web/versions",
            "Verdicts": "/v1/models/web/verdicts",
            "Evidence": "/v1/models/web/evidence",
            "FeedbackPage": "/v1/models/web/feedback",
            "QuarantinePage": "/v1/models/web/quarantine",
            "Waiting": "/v1/models/web/queue?lane=audit",
            "FeedbackStatus": f"/v1/feedback/{taken['feedback_id']}",
            "PredictionDetail": f"/v1/predictions/{answer['prediction_id']}",
            "SessionInfo": "/v1/session",
            "Readiness": "/readyz",
            "Liveness": "/livez",
        }.items():
            told[name] = http.get(path).raise_for_status().json()
    schemas = document["components"]["schemas"]
    for name, body in told.items():
        assert set(body) <= set(schemas[name]["properties"]), name
        whole = {**schemas[name], "components": document["components"]}
        Draft202012Validator(whole).validate(body)


def _post(http: httpx2.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    return dict(http.post(path, json=body).raise_for_status().json())


def test_schemathesis_finds_nothing(running: Site) -> None:
    """A few hundred cases, right and wrong, hold against the document."""
    found = hostile.examine(running, 4, phases=("examples", "fuzzing", "stateful"))
    assert found.failures == []
    assert found.server_errors == 0
    assert sum(found.cases.values()) > 100
    assert {200, 202, 404, 422} <= set(found.statuses)


def test_what_is_not_true_is_found(running: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the document promises another reply, the same run fails."""
    seeded = hostile._seeded

    def crooked(site: Site) -> dict[str, Any]:
        document = seeded(site)
        document["components"]["schemas"]["Liveness"]["properties"]["live"] = {"type": "string"}
        return document

    monkeypatch.setattr(hostile, "_seeded", crooked)
    found = hostile.examine(running, 1, phases=("fuzzing",), only="/livez")
    [failure] = found.failures
    assert "GET /livez" in failure
