"""What can be asked of a model, and what can be said about an answer: the fields of the forms."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from online_learner.schema import Prediction, label_key
from online_learner.stages import Stages

EVENTS = ("click", "copy", "dwell", "purchase", "save", "share", "skip", "undo", "feedback_shown")
MOST_FIELDS = 60  # of the form; models with more are asked in JSON


def question(room: Stages, record: Prediction, prediction_id: str) -> dict[str, Any]:
    """Return what may be said about an answer.

    Returns
    -------
    `kinds`, those that mean something for the task; `labels`, as they are sent; `shown`, what could
    be chosen from: names, and values as they are sent; `categories` and `events`.
    """
    named = {label_key(label): label for label in labels(room, record)}
    shown = [] if record.withheld else record.shown()
    return {
        "prediction_id": prediction_id,
        "task": room.spec.task,
        "kinds": room.signals.kinds(),
        "labels": list(named.values()),
        "open": room.spec.labels is None,
        "shown": [{"name": name, "value": named.get(name, name)} for name in shown],
        "categories": list(room.spec.categories),
        "events": EVENTS,
    }


def labels(room: Stages, record: Prediction | None = None) -> list[Any]:
    """Return the labels of a model: those declared, or those that an answer has scores of."""
    if room.spec.task != "classification":
        return []
    if room.spec.labels is not None:
        return list(room.spec.labels)
    return [] if record is None else [_label(name) for name in record.scores]


def _label(name: str) -> Any:
    """Return the label of a name: numbers and booleans are written as JSON."""
    try:
        found = json.loads(name)
    except ValueError:
        return name
    return found if isinstance(found, bool | int) else name


def fields(asked: Sequence[Prediction]) -> list[dict[str, Any]]:
    """Return the fields of a form, from what was asked of late: name, type, and a value to begin.

    There are none where the log keeps none of it in full, or where there are too many, or lists.
    """
    kept = [record.features for record in asked if record.inputs == "full"]
    found = {name: value for features in reversed(kept) for name, value in features.items()}
    if len(found) > MOST_FIELDS or any(isinstance(v, list | dict) for v in found.values()):
        return []
    newest = kept[0] if kept else {}
    names = [*newest, *(name for name in sorted(found) if name not in newest)]
    return [{"name": name, "type": _type(found[name]), "value": newest.get(name)} for name in names]


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, int | float) else "text"


def example(room: Stages, asked: Iterable[Prediction]) -> str:
    """Return the body of a request, in JSON, to begin with: the newest one that the log has."""
    newest = next((record for record in asked if record.inputs == "full"), None)
    if room.spec.task == "generation":
        sent: dict[str, Any] = {
            "prompt": "2 + 2?",
            "outputs": [{"id": "0", "text": "4"}, {"id": "1", "text": "5"}],
        }
    elif newest is None:
        sent = {"features": {"length": 20, "text": "hello"}}
        if room.spec.task == "ranking":
            options = [{"id": name, "features": {"title": f"option {name}"}} for name in "abc"]
            sent = {"features": {"query": "hello"}, "options": options}
    else:
        sent = {"features": newest.features}
        if newest.options:
            sent["options"] = [o.model_dump(include={"id", "features"}) for o in newest.options]
    return json.dumps(sent, indent=2, ensure_ascii=False)
