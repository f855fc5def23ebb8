"""The examples of `/openapi.json`, sent to a running service; `make docs` records them so.

An example holds ids of answers that are long gone. Before it is sent, each is replaced by the id of
a fresh answer of the same model: which one that is stands in the id itself.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
from river.linear_model import LogisticRegression

from benchmarks.hostile import site
from benchmarks.hostile.site import Site
from online_learner.ids import model_hash
from online_learner.learners.river import RiverLearner
from online_learner.learners.state import pack_state
from serve_app.api.examples import FILE

ID = re.compile(r"[\w-]{50}")
ALWAYS = {"promotion": {"policy": "policies.promotion:Always"}}
MODELS: dict[str, dict[str, Any]] = {
    "spam": {
        "task": "classification",
        "labels": ["ham", "spam"],
        "learner": "river.linear_model:LogisticRegression",
        "categories": {"helpful": "up", "off_topic": "down"},
        "public_feedback": True,
        "promotion": {"policy": "policies.promotion:Manual", "snapshot_every": 20},
    },
    "price": {"task": "regression", "learner": "river.linear_model:LinearRegression", **ALWAYS},
    "search": {"task": "ranking", "learner": "tiny_ranker:ranker", **ALWAYS},
    "assistant": {"task": "generation", "learner": "tiny_ranker:ranker", **ALWAYS},
}
WRITTEN = {"GET /v1/models/{model}/alarms"}  # by hand: nothing is raised while these are sent
BY_TASK = {spec["task"]: model for model, spec in MODELS.items()}
MAIL = {"length": 142, "exclamations": 3, "capitals": 0.2}
OPTIONS = [
    {"id": name, "features": {"title": title}}
    for name, title in (("refund", "Refunds"), ("login", "Sign in"), ("invoice", "Invoices"))
]
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "spam": ("predict", {"features": MAIL, "external_id": "mail-1841", "session_id": "s-20"}),
    "price": ("predict", {"features": {"rooms": 3, "area": 71.5}}),
    "search": ("predict", {"features": {"query": "money back"}, "options": OPTIONS}),
    "assistant": (
        "log",
        {
            "prompt": "Write a title for this mail",
            "outputs": [{"id": "0", "text": "Your invoice"}, {"id": "1", "text": "About money"}],
        },
    ),
}


class Sender:
    """Sends examples to a service that serves `MODELS`, one after the other."""

    def __init__(self, running: Site, http: httpx2.Client) -> None:
        self._url, self._http = running.url, http
        self._users = itertools.count(100)

    def prepare(self) -> None:
        """Have enough learned for two versions to be cut, and observers report."""
        for version in (1, 2):
            asked = {"instances": [{"features": MAIL | {"length": n}} for n in range(20)]}
            answers = self._http.post("/v1/models/spam/predict_batch", json=asked).json()
            items = [
                {"prediction_id": answer["prediction_id"], "kind": "correction", "value": "spam"}
                for answer in answers["predictions"]
            ]
            self._http.post("/v1/feedback_batch", json={"items": items}).raise_for_status()
            _until(lambda version=version: len(self._versions()) > version)
        _until(lambda: self._http.get("/v1/models/spam/bias").json()["raters"] is not None)

    def _versions(self) -> list[Any]:
        return list(self._http.get("/v1/models/spam/versions").json()["versions"])

    def answer(self, model: str, **fields: Any) -> str:
        """Return the id of a fresh answer."""
        verb, body = ASKED[model]
        reply = self._http.post(f"/v1/models/{model}/{verb}", json=body | fields)
        return str(reply.raise_for_status().json()["prediction_id"])

    def signal(self) -> str:
        """Return the id of something that was said of the classifier, and learned."""
        return self._said("spam", f"u-{next(self._users)}")

    def refused(self) -> str:
        """Return the id of a signal that was set aside: somebody contradicts themselves."""
        user = f"u-{next(self._users)}"
        self._said("spam", user)
        return self._said("ham", user)

    def _said(self, value: str, user: str) -> str:
        answer = self.answer("spam", user_id=user)
        said = {"prediction_id": answer, "kind": "correction", "value": value}
        receipt = httpx2.post(f"{self._url}/v1/feedback", json=said).raise_for_status().json()
        place = f"/v1/feedback/{receipt['feedback_id']}"
        _until(lambda: self._http.get(place).json()["status"] != "accepted")
        return str(receipt["feedback_id"])

    def fresh(self, value: Any, key: str = "") -> Any:
        """Return an example with ids that lead somewhere."""
        if isinstance(value, dict):
            return {name: self.fresh(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [self.fresh(item, key) for item in value]
        if not isinstance(value, str) or not ID.fullmatch(value):
            return value
        return self.refused() if key == "feedback_ids" else self.answer(model_of(value))

    def send(
        self, route: str, parameters: dict[str, Any], name: str, body: Any
    ) -> tuple[Any, httpx2.Response]:
        """Send an example; returns its body with the ids that it was sent with, and the reply."""
        method, _, path = route.partition(" ")
        known = parameters | {"model": _model_for(path, name)}
        if "{prediction_id}" in path:
            known["prediction_id"] = self.answer("spam")
        if "{feedback_id}" in path:
            known["feedback_id"] = self.refused() if "quarantine" in path else self.signal()
        sent = self.fresh(body)
        query = {"lane": known["lane"]} if path.endswith("/queue") else {}
        options: dict[str, Any] = {"params": query} | ({} if sent is None else {"json": sent})
        if route.startswith("POST") and path.endswith("/versions"):
            options["content"] = trained_elsewhere()
            options["headers"] = {"content-type": "application/octet-stream"}
        return sent, self._http.request(method, path.format(**known), **options)


def trained_elsewhere() -> bytes:
    """Return the file of a classifier that has learned elsewhere."""
    model = LogisticRegression()
    model.learn_one(dict(MAIL), y=True)
    labels = MODELS["spam"]["labels"]
    return pack_state(RiverLearner(model, task="classification", labels=labels))


def model_of(text: str) -> str:
    """Return the model of an id."""
    digest = base64.urlsafe_b64decode(text + "==")[1:5]
    return next(model for model in MODELS if model_hash(model) == digest)


def examples(document: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield route, name and body of all examples, in the order in which they can be sent."""
    for route, found in document["routes"].items():
        if route == "GET /v1/stream":
            continue
        yield from ((route, name, body) for name, body in found["bodies"].items())
        if not found["bodies"]:
            yield route, "", None


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def _model_for(path: str, name: str) -> str:
    if path.endswith(("/log", "/score")) and name not in BY_TASK:
        return "assistant"
    return BY_TASK.get(name, "spam")


def record() -> None:
    """Send all examples, and write down the ids that they were sent with, and the first replies."""
    document = json.loads(FILE.read_text())
    seen: set[str] = set()
    with site.running(MODELS) as running, running.client() as http:
        sender = Sender(running, http)
        sender.prepare()
        for route, name, body in list(examples(document)):
            sent, reply = sender.send(route, document["parameters"], name, body)
            reply.raise_for_status()
            found = document["routes"][route]
            if name:
                found["bodies"][name] = sent
            if route not in seen and route not in WRITTEN:
                found["reply"] = _short(reply.json())
            seen.add(route)
    FILE.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _short(reply: Any) -> Any:
    """Return a reply with the first few of its entries."""
    if isinstance(reply, dict):
        return {name: _short(value) for name, value in reply.items()}
    return [_short(value) for value in reply[:3]] if isinstance(reply, list) else reply


if __name__ == "__main__":
    record()
