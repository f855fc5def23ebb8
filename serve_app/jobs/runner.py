"""The parts of a job as tasks of Ray Data: in the cluster that there is, or in one of our own.

Results come in the order of the parts. Few are under way at a time: Ray holds tasks back while what
they have made is not fetched.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pickle
import secrets
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pyarrow as pa

from online_learner.errors import OnlineLearnerError
from serve_app.local import scratch

T = TypeVar("T")

STORE_BYTES = 256 << 20  # of the object store of a Ray of our own
_ITEM = "item"
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too: its servers listen on loopback only
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
}


class RayRunner:
    """Does the work in `workers` processes of Ray. Enter it to start and stop what it needs.

    Where `RAY_ADDRESS` names a cluster, or this process is in one, that does the work; else a Ray
    is started for it, in a private folder, without a dashboard.
    """

    def __init__(self, workers: int) -> None:
        self.workers = max(1, workers)
        self._ours = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ours.close()

    def run(self, work: Callable[[T], pa.Table], parts: Sequence[T]) -> Iterator[pa.Table]:
        """Yield what the work makes of each part, in the order of the parts.

        Raises
        ------
        OnlineLearnerError
            What the work raises.
        """
        if not parts:
            return
        self.start()
        import ray.data as ray_data

        logging.getLogger("ray.data").setLevel(logging.ERROR)  # its import has set another
        context = ray_data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.enable_auto_log_stats = False
        context.enable_operator_progress_bars = False
        items = [{_ITEM: pickle.dumps(part)} for part in parts]
        found = ray_data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Task(work),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1,
            compute=ray_data.TaskPoolStrategy(size=min(self.workers, len(parts))),
            zero_copy_batch=True,
        )
        with _own_errors():
            yield from found.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=self.workers
            )

    def start(self) -> None:
        """Start what it needs, where that has not been done."""
        import ray

        if ray.is_initialized():
            return
        logging.getLogger("ray").setLevel(logging.ERROR)
        address = os.environ.get("RAY_ADDRESS")
        if address:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            self._ours.callback(ray.shutdown)
            return
        folder = scratch() / f"ol-{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        self._ours.callback(shutil.rmtree, folder, ignore_errors=True)
        self._ours.enter_context(_environment(folder))
        with _own_signals():
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                num_cpus=self.workers,
                object_store_memory=STORE_BYTES,
                _temp_dir=str(folder / "r"),
            )
        self._ours.callback(ray.shutdown)


class _Task:
    """The work on one part, as a batch of one row."""

    def __init__(self, work: Callable[[Any], pa.Table]) -> None:
        self._work = work

    def __call__(self, batch: pa.Table) -> pa.Table:
        (part,) = batch[_ITEM].to_pylist()
        return self._work(pickle.loads(part))  # noqa: S301  # we made it, a moment ago


@contextlib.contextmanager
def _environment(folder: Path) -> Iterator[None]:
    """Set what a Ray of our own reads from the environment, with a token for nobody else."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    ours = {**_QUIET, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    before = {name: os.environ.get(name) for name in (*ours, "RAY_AUTH_TOKEN")}
    os.environ.pop("RAY_AUTH_TOKEN", None)  # would win over the file
    os.environ.update(ours)
    _read_again()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        _read_again()


def _read_again() -> None:
    """Let Ray read the environment again: it has, if it was imported before."""
    core: Any = importlib.import_module("ray._raylet")
    core.Config.initialize("")
    core.AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what is done on SIGTERM: Ray sets its own, where it may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    """Raise what the work raised, not what Ray makes of it."""
    try:
        yield
    except OnlineLearnerError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OnlineLearnerError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        if cause is not None:
            raise cause from None
        raise
