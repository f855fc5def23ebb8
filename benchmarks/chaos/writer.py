"""A learner or a gatekeeper as a process of its own: what Serve runs, without Serve."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from benchmarks import writers
from benchmarks.chaos.clients import MODEL
from benchmarks.writers import Role
from online_learner.store import embedded
from serve_app.writer import Writer

SCRIPTS: dict[Role, str] = {"learner": "commit_step", "gatekeeper": "decide"}


def writer(role: Role, store_url: str, data_dir: Path) -> Writer:
    """Start one on a thread of this process."""
    return writers.start(role, MODEL, store_url, data_dir)


def spawn(role: Role, store_url: str, data_dir: Path) -> subprocess.Popen[bytes]:
    """Start one in a process of its own, which dies with this one."""
    command = [sys.executable, "-m", __name__, role, store_url, str(data_dir)]
    return subprocess.Popen(
        command,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
        preexec_fn=embedded.die_with_parent,  # noqa: PLW1509
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """End it at once, even where it is stopped."""
    process.send_signal(signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    writers.run(sys.argv[1], MODEL, sys.argv[2], Path(sys.argv[3]))  # type: ignore[arg-type]
