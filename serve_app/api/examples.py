"""What is sent and replied, for `/openapi.json`: recorded from a running service by `make docs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

Document: TypeAlias = dict[str, Any]

FILE = Path(__file__).with_name("examples.json")


def add_examples(paths: Document) -> None:
    """Add the examples that there are to the paths of a document."""
    found = json.loads(FILE.read_text())
    for path, item in paths.items():
        for method, operation in item.items():
            known = found["routes"].get(f"{method.upper()} {path}", {})
            _show(operation["parameters"], found["parameters"] | known.get("parameters", {}))
            if known:
                _add(operation, known)


def _show(parameters: list[Document], known: Document) -> None:
    for parameter in parameters:
        if parameter["name"] in known:
            parameter["example"] = known[parameter["name"]]


def _add(operation: Document, known: Document) -> None:
    for media in operation.get("requestBody", {}).get("content", {}).values():
        media["examples"] = {name: {"value": body} for name, body in known["bodies"].items()}
    done = next(reply for status, reply in operation["responses"].items() if status < "400")
    for media in done.get("content", {}).values():
        media["example"] = known["reply"]
