"""Learners and gatekeepers without Serve: each runs on a thread, as in a deployment."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias

from online_learner.stages import Stages
from serve_app.writer import Stage, Writer

Role: TypeAlias = Literal["learner", "gatekeeper"]
LOOK_S = 0.2
STAGES: dict[Role, Callable[[Stages], Stage]] = {
    "learner": lambda stages: stages.trainer,
    "gatekeeper": lambda stages: stages.gatekeeper,
}


def start(role: Role, model: str, store_url: str, data_dir: Path) -> Writer:
    """Start one on a thread of this process."""
    return Writer(role, model, store_url, str(data_dir), STAGES[role])


def run(role: Role, model: str, store_url: str, data_dir: Path) -> NoReturn:
    """Start one, and watch it until it fails; raises `RuntimeError` then."""
    writer = start(role, model, store_url, data_dir)
    while True:
        time.sleep(LOOK_S)
        writer.check()
