"""What runs on this machine beside `up`: Ray as `ray start` made it, and GPUs."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from online_learner.cli.finding import Finding
from online_learner.cli.network import asks_for_token, beyond, family, listeners
from online_learner.settings import Settings

_RAYLET = "/raylet/raylet"
_CONTROL = "/gcs/gcs_server"
_OF_UP = b"OL_RUN="


@dataclass(frozen=True, slots=True)
class RayProcess:
    """One of Ray's own programs, and the version of Ray that it is of; empty where nobody says."""

    pid: int
    program: str
    version: str


def ray_processes() -> list[RayProcess]:
    """Return raylets and control planes of this user that no `up` has started; Linux only."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid != os.getuid():
                continue
            program = (folder / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            if not program.endswith((_RAYLET, _CONTROL)):
                continue
            if _OF_UP not in (folder / "environ").read_bytes():
                found.append(RayProcess(int(folder.name), program, _version(program)))
    return sorted(found, key=lambda process: process.pid)


def _version(program: str) -> str:
    """Return the version of the Ray that a program is a part of."""
    packages = program.partition("/ray/core/")[0]
    names = [path.name for path in Path(packages).glob("ray-*.dist-info")]
    found = [match[1] for name in names if (match := re.fullmatch(r"ray-(\d.*)\.dist-info", name))]
    return found[0] if found else ""


def cluster(front: int) -> Iterator[Finding]:
    """Look at the Ray that `ray start` made here: its version, and what others can reach."""
    processes = ray_processes()
    if not processes:
        return
    with contextlib.suppress(metadata.PackageNotFoundError):
        yield from _versions(processes, metadata.version("ray"))
    pids = {pid for process in processes for pid in family(process.pid)}
    guarded = asks_for_token(process.pid for process in processes)
    found = [beyond(x, front, guarded=guarded) for x in listeners(pids) if x.open]
    worrying = [finding for finding in found if finding.level != "ok"]
    yield from worrying
    rest = len(found) - len(worrying)
    message = f"Ray, not of `up`, runs here: {rest} more of its ports are open, and ask for a token"
    yield Finding("network", "ok", message)


def _versions(processes: list[RayProcess], ours: str) -> Iterator[Finding]:
    for process in processes:
        if process.version not in ("", ours):
            message = f"a node here (pid {process.pid}) runs Ray {process.version}, this is {ours}"
            cure = f"pip install ray=={ours} on every node, and `ray stop` and `ray start` there"
            yield Finding("ray", "problem", message, cure)


def gpus(settings: Settings) -> Iterator[Finding]:
    """Look for the GPUs that models ask for; where none does, nothing is imported."""
    wanted = {name: spec for name, spec in settings.models.items() if spec.resources.num_gpus}
    if not wanted:
        return
    there = _there()
    asked = sum(spec.resources.num_gpus for spec in wanted.values())
    message = f"{', '.join(wanted)} ask for {asked:g}, and this machine has {there}"
    if asked <= there:
        yield Finding("gpu", "ok", message)
    elif all(spec.on_gpu_missing != "refuse" for spec in wanted.values()):
        yield Finding("gpu", "ok", f"{message}; they do without, or wait")
    else:
        cure = "run `up` where a GPU is, or set `on_gpu_missing: cpu`; a cluster has them elsewhere"
        yield Finding("gpu", "warning", message, cure)


def _there() -> int:
    try:
        import torch
    except ImportError:
        return 0
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0
