"""A learner or a gatekeeper as a process of its own: what Serve runs, without Serve."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal, TypeAlias

from benchmarks.chaos.clients import MODEL
from online_learner.stages import Stages
from online_learner.store import embedded
from serve_app.writer import Writer

Role: TypeAlias = Literal["learner", "gatekeeper"]
SCRIPTS: dict[Role, str] = {"learner": "commit_step", "gatekeeper": "decide"}
LOOK_S = 0.2


def writer(role: Role, store_url: str, data_dir: Path) -> Writer:
    """Start one on a thread of this process."""

    def pick(stages: Stages) -> Any:
        return stages.trainer if role == "learner" else stages.gatekeeper

    return Writer(role, MODEL, store_url, str(data_dir), pick)


def spawn(role: Role, store_url: str, data_dir: Path) -> subprocess.Popen[bytes]:
    """Start one in a process of its own, which dies with this one."""
    command = [sys.executable, "-m", __name__, role, store_url, str(data_dir)]
    return subprocess.Popen(
        command,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
        preexec_fn=embedded._die_with_parent,  # noqa: PLW1509
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """End it at once, even where it is stopped."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def main(role: Role, store_url: str, data_dir: str) -> None:
    """Run until killed, or until the writer has failed."""
    running = writer(role, store_url, Path(data_dir))
    while True:
        running.check()
        time.sleep(LOOK_S)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3])  # type: ignore[arg-type]
