"""Stage 8: trim what nobody needs any more, so that memory is planned and nothing is evicted.

Each stream is trimmed from its beginning, by id, up to the oldest entry that somebody still reads:

- predictions, and the questions asked about them, until the feedback window has passed;
- feedback, and steps, quarantine, served and audits with it, until the window has passed, the
  learner's published state covers it, and the second one that it keeps, and no audit is open that
  began before it;
- evidence for `EVIDENCE_WINDOWS` windows: it rechecks verdicts, and no writer needs it;
- verdicts and resets for good: they grow with decisions, not with requests, and whoever asks why a
  version is live, or what was rolled back, needs them from the beginning.

Where the log goes on file, nothing goes that is not there yet, and what came late stays as long as
answers do. Signals and steps stay for `unlearn_horizon` seconds at least.

Kept versions need no log. All of it is decided in one script, from what the writers have committed:
a writer that dies right after it finds everything that it has to read again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from online_learner.ids import entry_order
from online_learner.store import Store
from online_learner.store.keys import Keys

MARGIN_S = 60.0  # the clocks of who serves and of the store may differ by so much
EVIDENCE_WINDOWS = 7
EVERY_S = 30.0
PORTION = 10_000  # entries of each stream: the server does nothing else for a few milliseconds
PORTIONS = 200  # in one go; what is left then goes the next time

# By stream, under which name it is noted how far it was trimmed; the others never are.
TOLD_BY = {
    "predictions": "predictions",
    "feedback": "feedback",
    "steps": "feedback",
    "quarantine": "feedback",
    "evidence": "evidence",
    "late": "late",
}


class Retention:
    """Trims the streams of one model.

    Parameters
    ----------
    window_s
        For how many seconds an answer takes feedback.
    archived
        Whether the log goes on file: then only what is there is trimmed.
    horizon_s
        For how many seconds signals and steps stay at least, so that they can be unlearned.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        model: str,
        *,
        window_s: float,
        archived: bool = False,
        horizon_s: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._keys = Keys(model)
        self._window_s = window_s
        self._archived = archived
        self._horizon_s = horizon_s
        self._clock = clock
        self._trimmed_at = 0.0

    async def trim(self) -> int:
        """Trim all that is no longer needed; returns how many entries went."""
        self._trimmed_at, total = self._clock(), 0
        for _ in range(PORTIONS):
            gone = await self._store.run("trim", self._script_keys(), self._floors())
            total += gone
            if not gone:
                break
        return total

    async def trim_when_due(self) -> int:
        """Trim, unless that was done a moment ago."""
        return await self.trim() if self._clock() - self._trimmed_at >= EVERY_S else 0

    def _floors(self) -> list[str | int]:
        """Return the oldest entries that have to stay, the size of a portion, and the rest."""
        log_s, evidence_s = self._window_s, EVIDENCE_WINDOWS * self._window_s
        ages_s = (log_s, evidence_s, max(log_s, self._horizon_s))
        now_s = self._clock() - MARGIN_S
        log, evidence, signals = (f"{max(0, int((now_s - s) * 1000))}-0" for s in ages_s)
        return [log, evidence, PORTION, signals, int(self._archived)]

    def _script_keys(self) -> list[str]:
        keys = self._keys
        return [
            keys.checkpoint("learner"),
            keys.checkpoint("gatekeeper"),
            keys.released,
            keys.trimmed,
            keys.predictions,
            keys.audits,
            keys.feedback,
            keys.steps,
            keys.quarantine,
            keys.served,
            keys.evidence,
            keys.before,
            keys.asked,
            keys.late,
            keys.archive,
        ]


async def trimmed_to(store: Store, keys: Keys, what: str) -> str:
    """Return the entry before which everything of a kind has been trimmed, `0-0` where nothing was.

    Parameters
    ----------
    what
        `predictions`, `feedback` (with all that is told of signals), `late`, or `evidence`.
    """
    found: bytes | None = await store.call("HGET", keys.trimmed, what)
    return "0-0" if found is None else found.decode()


async def why_gone(store: Store, keys: Keys, what: str, entry: str) -> str:
    """Return why an entry that was there is gone: by its age, or it has been lost."""
    if entry_order(entry) < entry_order(await trimmed_to(store, keys, what)):
        return "it is older than `window_s`, and was trimmed"
    return "the store has lost data. See the durability in /readyz"
