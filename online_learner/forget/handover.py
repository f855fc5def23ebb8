"""What is rebuilt beside the learner, on its way to it; rebuilt in place where it got lost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from online_learner.errors import DataError, StateError
from online_learner.forget.rebuild import Pace, Rebuild, Rebuilt, drop, still_in, touched
from online_learner.registry import Registry
from online_learner.replay import Replay

log = logging.getLogger(__name__)


class Handover:
    """Between who rebuilds and the learner.

    Parameters
    ----------
    afresh
        Returns a replay of fresh parts: a learner as its factory makes it, and policies that
        remember nothing.

    Attributes
    ----------
    ready
        What has been rebuilt, and waits for the learner; it may be set from another thread.
    """

    def __init__(self, afresh: Callable[[], Replay]) -> None:
        self.afresh = afresh
        self.ready: Rebuilt | None = None

    async def take(
        self,
        registry: Registry,
        entries: Sequence[str],
        *,
        until: str,
        mark: str,
        pace: Pace | None,
    ) -> Rebuild | None:
        """Return the weights without some signals, as of the entry of a step; None: with them.

        Where it waits here, only the last recorded steps are left to learn. Else, after a crash, or
        under another configuration, all of it is done now.

        Parameters
        ----------
        entries
            Those of an `unlearn` entry.
        """
        ready, self.ready = self.ready, None
        try:
            left = frozenset(await still_in(registry, entries))
            if left and ready is not None and ready.without == left:
                rebuild = Rebuild(self.afresh(), mark)
                await rebuild.resume(ready)
                await rebuild.run(until, pace)
                if await _is_whole(rebuild):
                    return rebuild
                await rebuild.drop()
            elif ready is not None:
                await drop(registry, ready.waiting)
            if not left:
                return None
            rebuild = Rebuild(self.afresh(), mark)
            await rebuild.begin(left)
            await rebuild.run(until, pace)
        except (StateError, DataError) as error:
            log.error("signals that were taken back stay in the weights: %s", error)  # noqa: TRY400
            return None
        return rebuild


async def _is_whole(rebuild: Rebuild) -> bool:
    """Tell whether all that was cut on the way has been met; one may have been pinned meanwhile."""
    return (await touched(rebuild.registry, rebuild.first)).keys() <= rebuild.waiting.keys()
