"""One OpenAPI document of the whole service: every route, whom it lets in, every status.

Paths, parameters and summaries are the application's own, and who is let in is what `access`
enforces. What is taken and replied stands in one table, since handlers read bodies by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fastapi import FastAPI
from pydantic import TypeAdapter
from starlette.routing import BaseRoute

from online_learner.auth import SCOPES
from online_learner.requests import (
    ONE,
    FeedbackBatchRequest,
    LogBatchRequest,
    LogRequest,
    PredictBatchRequest,
    PredictRequest,
    ScoreRequest,
    SeveralSignals,
)
from serve_app.access import Need, declared
from serve_app.api import queue, replies
from serve_app.api.bias import Alarms, Bias
from serve_app.api.examples import add_examples
from serve_app.api.forgetting import Retracted
from serve_app.api.metrics import ModelMetrics
from serve_app.api.problems import RATE, problems
from serve_app.api.sessions import SessionInfo
from serve_app.api.versions import BINARY, RegisterResponse
from serve_app.console.replies import VersionDiff
from serve_app.session import COOKIE, TOKEN_HEADER

Document: TypeAlias = dict[str, Any]
Schemas: TypeAlias = dict[tuple[str, str, str], Document]  # by method, path, and `body` or `reply`

_REF = "#/components/schemas/{model}"
_MODE: Literal["validation"] = "validation"
_SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Operation:
    """What a route takes and replies, beside what it says itself.

    Parameters
    ----------
    reply
        Of a success; None where there is no body.
    errors
        Statuses beyond those that its body, its parameters and its keys bring about.
    body
        None where it takes none.
    required
        Whether there has to be a body.
    media, takes
        The type of what is replied, and of what is taken.
    """

    reply: Any
    errors: tuple[int, ...] = (503,)
    body: Any = None
    status: int = 200
    title: str = ""
    required: bool = False
    media: str = "application/json"
    takes: str = "application/json"


def operations(bodies: Mapping[str, Any]) -> dict[tuple[str, str], Operation]:
    """Return all operations by method and path.

    Parameters
    ----------
    bodies
        What the routes of operators take, by path.
    """

    def operate(path: str) -> Operation:
        return Operation(replies.AliasesResponse, (409, 503), bodies[path])

    def release(path: str) -> Operation:
        return Operation(replies.ReleaseResponse, (409, 503), bodies[path], 202)

    model = "/v1/models/{model}"
    return {
        ("POST", f"{model}/predict"): Operation(
            replies.PredictResponse,
            body=PredictRequest,
            title="Predict",
            required=True,
        ),
        ("POST", f"{model}/predict_batch"): Operation(
            replies.PredictBatchResponse,
            body=PredictBatchRequest,
            title="Predict several",
            required=True,
        ),
        ("POST", f"{model}/log"): Operation(
            replies.PredictResponse,
            body=LogRequest,
            title="Log an answer that was made elsewhere",
            required=True,
        ),
        ("POST", f"{model}/log_batch"): Operation(
            replies.LogBatchResponse,
            body=LogBatchRequest,
            title="Log several answers that were made elsewhere",
            required=True,
        ),
        ("POST", f"{model}/score"): Operation(
            replies.ScoreResponse,
            body=ScoreRequest,
            title="Score outputs by the reward model",
            required=True,
        ),
        ("POST", "/v1/feedback"): Operation(
            replies.FeedbackReceipt,
            (404, 410, 429, 503),
            ONE | SeveralSignals,
            202,
            title="Give feedback on one answer",
            required=True,
        ),
        ("POST", "/v1/feedback_batch"): Operation(
            replies.FeedbackBatchResponse,
            (429, 503),
            FeedbackBatchRequest,
            202,
            title="Give feedback in a batch",
            required=True,
        ),
        ("GET", "/v1/feedback/{feedback_id}"): Operation(replies.FeedbackStatus, (410, 503)),
        ("DELETE", "/v1/feedback/{feedback_id}"): Operation(Retracted, (410, 503), status=202),
        ("GET", "/v1/predictions/{prediction_id}"): Operation(replies.PredictionDetail, (410, 503)),
        ("GET", "/v1/models"): Operation(replies.Models),
        ("GET", model): Operation(replies.ModelStatus),
        ("GET", f"{model}/versions"): Operation(replies.Versions),
        ("POST", f"{model}/versions"): Operation(
            RegisterResponse, (400, 408, 409, 413, 415, 422, 503), bytes, takes=BINARY
        ),
        ("GET", f"{model}/verdicts"): Operation(replies.Verdicts),
        ("GET", f"{model}/evidence"): Operation(replies.Evidence),
        ("GET", f"{model}/metrics"): Operation(ModelMetrics),
        ("GET", f"{model}/bias"): Operation(Bias),
        ("GET", f"{model}/alarms"): Operation(Alarms),
        ("GET", f"{model}/queue"): Operation(queue.Waiting),
        ("POST", f"{model}/queue/lease"): Operation(queue.Leased, body=queue.LeaseRequest),
        ("POST", f"{model}/queue/skip"): Operation(
            queue.GivenBack, body=queue.SkipRequest, required=True
        ),
        ("POST", f"{model}/gold"): Operation(
            queue.Gold, (409, 503), queue.GoldRequest, 201, required=True
        ),
        ("GET", f"{model}/feedback"): Operation(replies.FeedbackPage),
        ("GET", f"{model}/quarantine"): Operation(replies.QuarantinePage),
        ("POST", f"{model}/promote"): operate(f"{model}/promote"),
        ("POST", f"{model}/rollback"): operate(f"{model}/rollback"),
        ("POST", f"{model}/freeze"): operate(f"{model}/freeze"),
        ("POST", f"{model}/thaw"): operate(f"{model}/thaw"),
        ("POST", f"{model}/quarantine/release"): release(f"{model}/quarantine/release"),
        ("POST", f"{model}/quarantine/{{feedback_id}}/release"): release(
            f"{model}/quarantine/{{feedback_id}}/release"
        ),
        ("GET", "/v1/stream"): Operation(str, (404, 503), media="text/event-stream"),
        ("POST", "/v1/session"): Operation(SessionInfo, ()),
        ("GET", "/v1/session"): Operation(SessionInfo, ()),
        ("DELETE", "/v1/session"): Operation(None, (), status=204),
        ("GET", "/livez"): Operation(replies.Liveness, (), title="The process serves"),
        ("GET", "/readyz"): Operation(
            replies.Readiness, (), title="Store, weights, learners and gatekeepers are there"
        ),
        ("GET", "/openapi.json"): Operation(dict[str, Any], (), title="This document"),
        ("GET", f"{model}/versions/{{first}}/diff/{{second}}"): Operation(VersionDiff, (422, 503)),
        ("GET", "/"): Operation(str, (503,), media="text/html"),
        ("POST", "/login"): Operation(None, (), status=303),
        ("POST", "/logout"): Operation(None, (), status=303),
        ("GET", "/static/{name}"): Operation(None, ()),
        ("GET", "/console/{model}/{panels}"): Operation(str, media="text/html"),
        ("GET", "/console/{model}/answers/{prediction_id}"): Operation(str, media="text/html"),
        ("GET", "/console/{model}/diff/{first}/{second}"): Operation(
            str, (422, 503), media="text/html"
        ),
        ("GET", "/docs"): Operation(str, (), media="text/html"),
        ("GET", "/docs/{part}"): Operation(str, (), media="text/javascript"),
        ("GET", "/widget.js"): Operation(str, (), media="text/javascript"),
    }


def document(app: FastAPI, routes: Iterable[BaseRoute], bodies: Mapping[str, Any]) -> Document:
    """Return the document.

    Parameters
    ----------
    app
        The application with the routes of operators: their parameters and summaries are in it.
    routes
        All of the service, that one's too.
    bodies
        See `operations`.

    Raises
    ------
    LookupError
        A route is not in the table.
    """
    app.openapi_schema = None
    found: Document = app.openapi()
    table = operations(bodies)
    schemas, components = _schemas(table)
    components["PredictBatchRequest"]["properties"]["instances"]["items"] = _ref("PredictRequest")
    components["LogBatchRequest"]["properties"]["answers"]["items"] = _ref("LogRequest")
    paths: Document = {}
    for (method, path), need in declared(routes).items():
        if (method, path) not in table:
            raise LookupError(f"{method} {path} is not in the table of operations")
        told = found["paths"].get(path, {}).get(method.lower(), {})
        entry = _Entry(method, path, need, table[method, path], told, schemas)
        paths.setdefault(path, {})[method.lower()] = entry.render()
    add_examples(paths)
    return {
        **found,
        "tags": [{"name": name} for name in _TAGS],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": dict(problems(_ref("Problem"))),
            "securitySchemes": _SCHEMES,
        },
    }


@dataclass(frozen=True, slots=True)
class _Entry:
    """One operation in the document; `told` is what FastAPI says of it."""

    method: str
    path: str
    need: Need
    op: Operation
    told: Document
    schemas: Schemas

    def render(self) -> Document:
        found = {
            "operationId": _id(self.method, self.path),
            "tags": [self._tag()],
            "summary": self.told.get("description") or self.op.title,
            "parameters": self._parameters(),
            "security": self._security(),
            "responses": self._responses(),
        }
        return found if self.op.body is None else found | {"requestBody": self._body()}

    def _tag(self) -> str:
        """Return whom it is for, in a word."""
        if self.need in {"nothing", "any", "key"} or not self.path.startswith("/v1/"):
            return "session" if self.path.startswith("/v1/") else "pages"
        return self.need

    def _parameters(self) -> list[Document]:
        """Return the application's own, or those of the path."""
        if self.path == "/v1/feedback":
            return [_IDEMPOTENCY_KEY]
        return self.told.get("parameters") or [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"{(\w+)}", self.path)
        ]

    def _body(self) -> Document:
        media: Document = {"schema": self.schemas[self.method, self.path, "body"]}
        required = self.op.required or self.op.takes != _JSON
        return {"required": required, "content": {self.op.takes: media}}

    def _responses(self) -> Document:
        done: Document = {"description": "Done"}
        if self.op.reply is not None:
            schema = self.schemas[self.method, self.path, "reply"]
            done["content"] = {self.op.media: {"schema": schema}}
        if 429 in self.op.errors:
            done["headers"] = RATE
        if links := _LINKS.get((self.method, self.path)):
            done["links"] = links
        found = {str(self.op.status): done}
        if self.path == "/readyz":
            found["503"] = {**done, "description": "Something is missing"}
        wrong = sorted({*self.op.errors, *self._statuses()})
        return found | {str(status): _ref(str(status), "responses") for status in wrong}

    def _statuses(self) -> Iterator[int]:
        """Yield the statuses that keys, path, parameters and body bring about."""
        if self.need != "nothing":
            yield from (401, 500)
            if self.need in SCOPES or (self.need == "any" and self.method not in _SAFE):
                yield 403
        if "{" in self.path:
            yield 404
        if any(parameter["in"] == "query" for parameter in self._parameters()):
            yield 422
        if self.op.body is not None:
            yield from (400, 408, 413, 415, 422)

    def _security(self) -> list[Document]:
        if self.need == "nothing":
            return []
        scopes = [self.need] if self.need in SCOPES else []
        found: list[Document] = [{"key": scopes}]
        if self.need != "key":
            token: Document = {} if self.method in _SAFE else {"csrf": []}
            found.append({"session": scopes, **token})
        taken_back = self.method == "DELETE" and self.need == "feedback"
        if self.path == "/v1/feedback" or taken_back:
            found.append({})  # the signed id alone, where the model has `public_feedback`
        return found


def _id(method: str, path: str) -> str:
    return re.sub(r"\W+", "_", f"{method.lower()}{path.removeprefix('/v1')}").strip("_")


# --- what they share --------------------------------------------------------------------------

_JSON = "application/json"
_TAGS = ("predict", "feedback", "label", "read", "audit", "operate", "session", "pages")
_SCHEMES: Document = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": f"`ol_...`, with a scope of {', '.join(SCOPES)}.",
    },
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
    "csrf": {"type": "apiKey", "in": "header", "name": TOKEN_HEADER},
}
_IDEMPOTENCY_KEY: Document = {
    "name": "idempotency-key",
    "in": "header",
    "required": False,
    "description": "Sent again, it gets the first receipt; used again with another body, 422.",
    "schema": {"type": "string", "maxLength": 256, "pattern": "^[ -~]*$"},
}
_GIVEN = "$response.body#/prediction_id"
_ABOUT: Document = {
    "story": {
        "operationId": "get_predictions_prediction_id",
        "parameters": {"prediction_id": _GIVEN},
    },
    "feedback": {
        "operationId": "post_feedback",
        "requestBody": {"prediction_id": _GIVEN, "kind": "thumbs", "value": True},
    },
}
_LINKS: dict[tuple[str, str], Document] = {
    ("POST", "/v1/models/{model}/predict"): _ABOUT,
    ("POST", "/v1/models/{model}/log"): _ABOUT,
    ("POST", "/v1/feedback"): {
        "fate": {
            "operationId": "get_feedback_feedback_id",
            "parameters": {"feedback_id": "$response.body#/feedback_id"},
        }
    },
}


def _schemas(table: Mapping[tuple[str, str], Operation]) -> tuple[Schemas, Document]:
    """Return the schema of each body and reply, and all that they refer to, by name."""
    wanted: dict[tuple[str, str, str], Any] = {("", "", "problem"): replies.Problem}
    for (method, path), op in table.items():
        wanted |= {(method, path, "reply"): op.reply, (method, path, "body"): op.body}
    given = [
        (key, _MODE, TypeAdapter[Any](kind)) for key, kind in wanted.items() if kind is not None
    ]
    found, shared = TypeAdapter.json_schemas(given, ref_template=_REF)
    return {key: schema for (key, _), schema in found.items()}, shared["$defs"]


def _ref(name: str, kind: str = "schemas") -> Document:
    return {"$ref": f"#/components/{kind}/{name}"}
