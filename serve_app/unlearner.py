"""Unlearning beside the learner: a thread, a loop and a connection of its own.

The learner goes on meanwhile. What was rebuilt is handed over in memory, and told by an entry of
the feedback stream; where this process dies in between, its successor rebuilds it in place.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from typing import NamedTuple

from online_learner.errors import Unavailable, trace
from online_learner.forget.unlearn import Unlearning
from online_learner.ids import Keyring
from online_learner.learn import Trainer
from online_learner.settings import ModelSpec
from online_learner.stages import Stages
from online_learner.store import Store, open_store

log = logging.getLogger(__name__)

LOOK_S = 0.5
PATIENCE_S = 60.0


class _Beside(NamedTuple):
    """The learner, and how its model is configured."""

    trainer: Trainer
    spec: ModelSpec
    window_s: float


class Unlearner:
    """Rebuilds the weights of one model's learner when something was taken back."""

    def __init__(self, model: str, store_url: str, data_dir: Path) -> None:
        self.model = model
        self._store_url = store_url
        self._data_dir = data_dir
        self._beside: _Beside | None = None
        self._trouble = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._main, name="unlearner", daemon=True)

    def serve(self, trainer: Trainer, spec: ModelSpec, window_s: float) -> None:
        """Work for a learner from now on; its parts are made anew where it is another one."""
        known = self._beside
        if known is None or known.trainer is not trainer:
            self._beside = _Beside(trainer, spec, window_s)
        if not self._thread.is_alive() and not self._stopping.is_set():
            if self._thread.ident is not None:  # it has ended
                self._thread = threading.Thread(target=self._main, name="unlearner", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End soon; what is under way is lost, and begun anew by the next one."""
        self._stopping.set()

    def _main(self) -> None:
        try:
            asyncio.run(self._run())
        except Exception as error:
            self._say(error)

    async def _run(self) -> None:
        opening = open_store(self._store_url, data_dir=self._data_dir, patience_s=PATIENCE_S)
        async with await opening as store:
            known: _Beside | None = None
            unlearning: Unlearning | None = None
            while not self._stopping.is_set():
                beside = self._beside
                if beside is not None and beside is not known:
                    known, unlearning = beside, self._unlearning(store, beside)
                try:
                    if unlearning is not None:
                        await unlearning.turn()
                    self._trouble = ""
                except Exception as error:  # whatever it is, it is tried again
                    self._say(error)
                await asyncio.sleep(LOOK_S)

    def _unlearning(self, store: Store, beside: _Beside) -> Unlearning:
        stages = Stages(
            store,
            Keyring.load(self._data_dir),
            self.model,
            beside.spec,
            window_s=beside.window_s,
            data_dir=self._data_dir,
        )
        return Unlearning(stages.registry, beside.trainer, stages.replay_afresh, paces=True)

    def _say(self, error: Exception) -> None:
        """Log why nothing is unlearned, once until it is."""
        if self._trouble == str(error):
            return
        self._trouble = str(error)
        if isinstance(error, Unavailable):
            log.warning("nothing of '%s' is unlearned: %s", self.model, error)
        else:
            log.error("nothing of '%s' is unlearned\n%s", self.model, trace(error))
