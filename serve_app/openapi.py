"""One OpenAPI document of the whole service, the hot routes included."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from online_learner.requests import (
    ONE,
    FeedbackBatchRequest,
    LogRequest,
    PredictBatchRequest,
    PredictRequest,
    ScoreRequest,
    SeveralSignals,
)


def document(app: FastAPI, bodies: dict[str, Any]) -> dict[str, Any]:
    """Return the document of an application, and of the hot routes beside it.

    Parameters
    ----------
    bodies
        What the application's own routes take, by path: they read their bodies by themselves.
    """
    found = app.openapi()
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for path, title in _HOT.items():
        method = "get" if path in ("/livez", "/readyz") else "post"
        found["paths"][path] = {method: _operation(path, title)}
    for path, body in (_BODIES | bodies).items():
        schema = TypeAdapter[Any](body).json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        content = {"application/json": {"schema": schema}}
        found["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}
    return found


_HOT = {
    "/v1/models/{model}/predict": "Predict",
    "/v1/models/{model}/predict_batch": "Predict several",
    "/v1/models/{model}/log": "Log an answer that was made elsewhere",
    "/v1/models/{model}/score": "Score outputs by the reward model",
    "/v1/feedback": "Feedback",
    "/v1/feedback_batch": "Feedback, several",
    "/livez": "The process serves",
    "/readyz": "Store, weights, learners and gatekeepers are there",
}
_BODIES: dict[str, Any] = {
    "/v1/models/{model}/predict": PredictRequest,
    "/v1/models/{model}/predict_batch": PredictBatchRequest,
    "/v1/models/{model}/log": LogRequest,
    "/v1/models/{model}/score": ScoreRequest,
    "/v1/feedback": ONE | SeveralSignals,
    "/v1/feedback_batch": FeedbackBatchRequest,
}


def _operation(path: str, title: str) -> dict[str, Any]:
    status = "202" if "feedback" in path else "200"
    found: dict[str, Any] = {"summary": title, "responses": {status: {"description": "Done"}}}
    if "{model}" in path:
        model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
        found["parameters"] = [model]
    return found
