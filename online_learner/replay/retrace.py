"""The weights rebuilt from the record, and what there is to say of it; nothing is written."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from online_learner.replay import Replay
from online_learner.replay.bases import on_record
from online_learner.stages import Stages

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Retraced:
    """What came of a replay.

    Parameters
    ----------
    begun
        The entry of the state that it began with.
    steps, signals
        Of the record, that it went along.
    compared
        States that had been recorded or are kept, and are the same bit for bit.
    differs
        The first step whose weights are others, or None.
    """

    replay: Replay
    begun: str
    steps: int
    signals: int
    compared: int
    differs: int | None
    took_s: float

    @property
    def a_second(self) -> float:
        """Signals a second."""
        return self.signals / self.took_s if self.took_s else 0.0


async def retrace(
    stages: Stages,
    *,
    from_version: int | None = None,
    until: str = "+",
    advance: Advance = lambda _signals: None,
) -> Retraced:
    """Rebuild a model's weights along the recorded steps.

    Parameters
    ----------
    from_version
        The version to begin with; None: the first from which the record is whole.
    until
        The entry of the feedback stream up to which it goes.
    advance
        Told how many signals were learned, as it goes on.

    Raises
    ------
    StateError
        There is nothing to begin with, or the record was changed.
    DataError
        The archive is damaged.
    """
    replay, start = stages.replay_afresh(), time.perf_counter()
    if from_version is None:
        await replay.rewind()
    else:
        await replay.load_version(from_version)
    begun, steps, signals, compared = replay.at.offset, 0, 0, 0
    differs: int | None = None
    kept = await _kept(stages, replay)
    with _undisturbed():
        while (step := await replay.replay_step(until)) is not None:
            steps += 1
            signals += step.signals
            found, wrong = kept.get(step.to), replay.differs
            if found is not None and replay.learner.digest() == found:
                compared += 1
            elif found is not None:
                wrong = step.step
            differs = wrong if differs is None else differs  # a reset makes them equal again
            advance(step.signals)
    took_s = time.perf_counter() - start
    return Retraced(replay, begun, steps, signals, compared + replay.compared, differs, took_s)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Collect garbage seldom, and look for none among all that was there before."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def _kept(stages: Stages, replay: Replay) -> dict[str, str]:
    """Return the digests of weights that are kept, by the entry as of which they are.

    What had learned something that was unlearned later is not what a replay leads to.
    """
    versions = [v for v in await stages.registry.versions() if on_record(v) and not v.tainted]
    states = [await stages.registry.published(), await stages.registry.before()]
    found = {v.offset: v.state_digest for v in versions}
    sound = [s for s in states if s is not None and not replay.unlearned.held(s.offset)]
    return found | {s.offset: s.state_digest for s in sound}
