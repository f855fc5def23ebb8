"""Schemathesis, in all of its phases, against the running service and by its own document.

It asks every operation what the document allows, and what it forbids, and holds every reply against
the document: status, content type, headers, schema. The document that it reads has two things more
than the one that is served: the names of the models, and ids of answers that were given, so that it
comes further than to 404. Refusals of what the schema allows are no failures: whether a label was
shown, or a version is there, no schema says.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from benchmarks import report
from benchmarks.hostile import site
from benchmarks.hostile.problems import NOTES
from benchmarks.hostile.site import Site
from benchmarks.report import Bar
from benchmarks.sections import Found

ROOT = Path(__file__).parents[2]
PHASES = ("examples", "coverage", "fuzzing", "stateful")
EXAMPLES, EXAMPLES_FULL = 10, 300
LEAST_FULL = 20_000
PRINTED = 5_000  # characters of its own report, where something failed
SEED = 5

# A batch is accepted in part; a body may be over the limit before it is over any other.
_CONFIG = """
[checks]
positive_data_acceptance.enabled = false
negative_data_rejection.expected-statuses = [
  "400", "401", "403", "404", "405", "409", "410", "413", "415", "422", "429"
]

[[operations]]
include-path = ["/v1/models/{model}/predict_batch", "/v1/feedback_batch"]
checks.negative_data_rejection.enabled = false

# A link writes a whole body over the wrong one that was made, and the case still counts as wrong.
[phases.stateful]
checks.negative_data_rejection.enabled = false
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Parameters
    ----------
    cases
        Replies that were checked, by phase.
    statuses
        How often each status came.
    failures
        What failed, in a line each.
    details
        How to bring that about again.
    """

    cases: Counter[str]
    statuses: Counter[int]
    failures: list[str]
    details: str = ""

    @property
    def server_errors(self) -> int:
        """Replies with a status of 500 or more."""
        return sum(count for status, count in self.statuses.items() if status >= 500)


def section(full: bool) -> Found:
    """Return the table of phases, and what failed."""
    with site.running() as running:
        found = _until_enough(running) if full else examine(running, EXAMPLES)
        alive = running.process.poll() is None
    total = found.cases.total()
    rows = [[phase, f"{found.cases[phase]}"] for phase in PHASES]
    text = report.table(["phase", "cases"], [*rows, ["all", f"{total}"]])
    statuses = ", ".join(f"{status} {count}x" for status, count in sorted(found.statuses.items()))
    text += f"\n\nStatuses: {statuses}. The service {'lives' if alive else 'is dead'}."
    if found.failures:
        text += "\n\nFailures:\n\n" + "\n".join(f"- {failure}" for failure in found.failures)
        text += f"\n\n```\n{found.details}\n```"
    bars = [
        Bar("Schemathesis: server errors", found.server_errors, 0, at_most=True),
        Bar("Schemathesis: failures", len(found.failures), 0, at_most=True),
    ]
    return text, bars + ([Bar("Schemathesis: cases", total, LEAST_FULL)] if full else [])


def _until_enough(running: Site) -> Outcome:
    """Run it under one seed after the other, until there are as many cases as the bar asks for."""
    found = Outcome(Counter(), Counter(), [])
    for seed in itertools.count(SEED):
        more = examine(running, EXAMPLES_FULL, seed=seed)
        found = Outcome(
            found.cases + more.cases,
            found.statuses + more.statuses,
            [*found.failures, *more.failures],
            found.details + more.details,
        )
        if found.cases.total() >= LEAST_FULL or more.failures:
            break
    return found


def examine(
    running: Site,
    examples: int,
    *,
    phases: tuple[str, ...] = PHASES,
    seed: int = SEED,
    only: str = "",
) -> Outcome:
    """Run Schemathesis against a service.

    Parameters
    ----------
    examples
        At most so many cases for each operation while fuzzing.
    only
        The one path to ask; all, where it is empty.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = Path(folder)
        notes, found = place / "notes", place / "found.json"
        (place / "schemathesis.toml").write_text(_CONFIG)
        (place / "openapi.json").write_text(json.dumps(_seeded(running)))
        command = [
            *(str(Path(sys.executable).with_name("schemathesis")), "--config-file"),
            *(str(place / "schemathesis.toml"), "run", str(place / "openapi.json")),
            *("--url", running.url, "-H", f"Authorization: Bearer {running.key}"),
            *("-n", str(examples), "--phases", ",".join(phases), "--seed", str(seed)),
            *("--report", "json", "--report-json-path", str(found)),
            *("--continue-on-failure", "--no-shrink", "--warnings", "off"),
            *(("--include-path", only) if only else ()),
        ]
        environment = os.environ | {
            "SCHEMATHESIS_HOOKS": "benchmarks.hostile.problems",
            "PYTHONPATH": str(ROOT),
            NOTES: str(notes),
        }
        done = subprocess.run(
            command, cwd=place, env=environment, check=False, capture_output=True, text=True
        )
        if not found.exists() or not notes.exists():
            raise RuntimeError(f"Schemathesis did not run: {done.stdout[-2000:]}{done.stderr}")
        return _outcome(json.loads(found.read_text()), notes.read_text(), done.stdout)


def _outcome(found: dict[str, Any], notes: str, printed: str) -> Outcome:
    lines = [line.split(" ", 2) for line in notes.splitlines()]
    failures = [
        f"{failure['title']} ({failure['count']}x): {', '.join(failure['operations'])}"
        for failure in found["failures"]
    ]
    failures += [f"error: {json.dumps(error)[:500]}" for error in found["errors"]]
    if not found["complete"]:
        failures.append(f"it stopped: {found['stop_reason']}")
    return Outcome(
        Counter(phase for phase, _, _ in lines),
        Counter(int(status) for _, status, _ in lines),
        failures,
        printed.partition(" FAILURES ")[2][:PRINTED],
    )


# --- what is there to be found ----------------------------------------------------------------


def _seeded(running: Site) -> dict[str, Any]:
    """Return the document, with names and ids that lead somewhere."""
    with running.client() as http:
        models = [told["model"] for told in http.get("/v1/models").json()["models"]]
        answers, signals = _given(http, models)
        document: dict[str, Any] = http.get("/openapi.json").json()
    known = {
        "model": [*models, "nobody"],
        "prediction_id": [*answers, "forged"],
        "feedback_id": [*signals, "forged"],
    }
    for item in document["paths"].values():
        for operation in item.values():
            for parameter in operation["parameters"]:
                if parameter["in"] == "path" and parameter["name"] in known:
                    parameter["schema"]["enum"] = known[parameter["name"]]
                if (parameter["in"], parameter["name"]) == ("query", "model"):
                    parameter["schema"]["enum"] = ["nobody"]  # a stream has no end
    for name, schema in document["components"]["schemas"].items():
        if name.endswith("Feedback") or name == "SeveralSignals":
            schema["properties"]["prediction_id"]["anyOf"][0]["enum"] = known["prediction_id"]
    return document


def _given(http: httpx2.Client, models: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return ids of answers, and of what was said of them."""
    options = [{"id": "a", "features": {"x": 1.0}}, {"id": "b", "features": {"x": 2.0}}]
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        "web": ("predict", {"features": {"x": 1.0}}),
        "rent": ("predict", {"features": {"x": 1.0}}),
        "pages": ("predict", {"features": {}, "options": options}),
        "llm": ("log", {"prompt": "p", "outputs": [{"id": "0", "text": "t"}]}),
    }
    answers, signals = [], []
    for model, value in itertools.product(models, (True, False)):
        if model in asked:
            verb, body = asked[model]
            reply = http.post(f"/v1/models/{model}/{verb}", json=body).raise_for_status()
            answers.append(reply.json()["prediction_id"])
            said = {"prediction_id": answers[-1], "kind": "thumbs", "value": value}
            taken = http.post("/v1/feedback", json=said).raise_for_status()
            signals.append(taken.json()["feedback_id"])
    return answers, signals
