"""A running `online-learner up`: what the tests over HTTP share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from the_service import bearer, unused_port

from online_learner.note import Note

MODELS: dict[str, dict[str, Any]] = {
    "eager": {
        "task": "classification",
        "labels": [False, True],
        "learner": "examples.phishing:learner",
        "promotion": {"policy": "policies.promotion:Always"},
    },
    "careful": {
        "task": "classification",
        "labels": [False, True],
        "learner": "examples.phishing:learner",
        "audit_deadline_s": 2.0,
    },
    "watched": {
        "task": "classification",
        "labels": [False, True],
        "learner": "river:preprocessing.StandardScaler | linear_model.LogisticRegression",
        "audit": 1.0,
        "public_feedback": True,
    },
    "triage": {
        "task": "classification",
        "labels": ["billing", "bug", "praise"],
        "learner": "torch:text",
        "promotion": {"policy": "policies.promotion:Always"},
        "categories": {"helpful": "up", "off_topic": "down", "spam": "ignore"},
        "implicit_weight": 0.1,
        "rules": [{"rule": "personal_data", "kinds": ["email"], "severity": "block"}],
        "fallback": "billing",
    },
    "price": {
        "task": "regression",
        "learner": "river:preprocessing.StandardScaler | linear_model.LinearRegression",
        "promotion": {"policy": "policies.promotion:Always"},
        "categories": {"fair": "up", "absurd": "down"},
    },
    "search": {
        "task": "ranking",
        "learner": "torch:ranking",
        "promotion": {"policy": "policies.promotion:Always"},
        "categories": {"helpful": "up", "off_topic": "down"},
        "implicit_weight": 0.1,
    },
    "assistant": {
        "task": "generation",
        "learner": "torch:ranking",
        "promotion": {"policy": "policies.promotion:Always"},
        "categories": {"helpful": "up", "off_topic": "down"},
        "implicit_weight": 0.1,
    },
}


class Stack:
    """A running `online-learner up`, and how to talk to it."""

    def __init__(self, data_dir: Path, process: subprocess.Popen[bytes], log: Path) -> None:
        self.data_dir = data_dir
        self.process = process
        self.log = log
        note = Note.read(data_dir)
        assert note is not None
        self.url, self.key, self.store_url = note.url, note.key, note.store

    def client(self) -> httpx2.AsyncClient:
        """Return a client with the key."""
        return httpx2.AsyncClient(base_url=self.url, headers=bearer(self.key), timeout=15.0)


def start(
    place: Path, profile: str, models: dict[str, dict[str, Any]] = MODELS, **settings: Any
) -> Stack:
    """Start `up` on a private directory and wait until it says where it is.

    No model has an archive unless it asks for one.
    """
    config = place / "loop.yaml"
    data_dir = place / "data"
    known = {"data_dir": str(data_dir), "profile": profile, "cors": {"origins": ["*"]}}
    models = {name: {"archive": None} | model for name, model in models.items()}
    config.write_text(yaml.safe_dump(known | settings | {"models": models}))
    log = place / "up.log"
    command = [str(Path(sys.executable).with_name("online-learner")), "up", "--config", str(config)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(unused_port())],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "RAY_metrics_report_interval_ms": "2000"},  # of 10 s, for tests
        )
    deadline = time.monotonic() + 120
    while Note.read(data_dir) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"up did not start: {log.read_text()}")
        time.sleep(0.1)
    return Stack(data_dir, process, log)


def stop(stack: Stack) -> None:
    """Stop it as Ctrl-C does."""
    stack.process.send_signal(signal.SIGINT)
    try:
        stack.process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        stack.process.kill()
        raise
