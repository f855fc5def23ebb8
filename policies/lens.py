"""What an observer of the loop has to do: a base class that sees everything, and does nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from online_learner.schema import Label, Raised, Scaling, Settled, Sighting, Signal, Task


class Lens:
    """Looks on as answers are given, judged and settled; a policy overrides what it needs.

    One instance observes: it is told of answers (`see`), signals (`hear`) and audits (`settle`),
    each in the order of its own stream, and says what follows: a `report` for people, `alarms`, a
    `table` for the learner, `scalings` and `ask` for those who answer. Another instance, in the
    learner, knows of all this only the tables, in their order (`adopt`), and weighs by them
    (`factor`): so that a replay of the stream gives the same weights.

    Parameters
    ----------
    task
        `classification`, `regression`, `ranking` or `generation`.
    labels
        The closed set of labels, or None where labels are learned.
    segments
        Features or tags by whose values answers are told apart.
    """

    def __init__(
        self, task: Task, labels: Sequence[Label] | None = None, *, segments: Sequence[str] = ()
    ) -> None:
        self.task = task
        self.labels = labels
        self.segments = tuple(segments)

    # --- what is observed -------------------------------------------------------------------------

    def see(self, sighting: Sighting) -> None:
        """Take in an answer after its window; where there are very many, a sample of them."""

    def hear(self, signal: Signal) -> None:
        """Take in a signal of any kind, joined to its answer."""

    def settle(self, entry: str, settled: Settled) -> None:
        """Take in an audited answer that has settled: a draw without bias, where it is answered.

        Parameters
        ----------
        entry
            Its place in the log: `<milliseconds>-<number>`.
        """

    # --- what follows from it ---------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Return what operators are told, as plain JSON."""
        return {}

    def alarms(self) -> list[Raised]:
        """Return what has been raised since this was last asked."""
        return []

    def table(self) -> dict[str, Any]:
        """Return what the learner's instance is to `adopt`, as plain JSON; empty is nothing.

        It is passed on when it differs from the last one: so it should change now and then, not
        with every signal. Its numbers are finite, and it is 1 MiB at most: it goes into the stream
        of feedback, and into each checkpoint.
        """
        return {}

    def scalings(self) -> dict[str, Scaling]:
        """Return by which scalings served scores should be corrected; see `schema.place_of`."""
        return {}

    def ask(self) -> float:
        """Return by how much the budget of active learning should be multiplied now."""
        return 1.0

    # --- in the learner ---------------------------------------------------------------------------

    def adopt(self, table: Mapping[str, Any]) -> None:
        """Weigh by this table from here on."""

    def factor(self, signal: Signal) -> float:
        """Return by how much the weight of a signal's lesson should be multiplied.

        It depends on the signal and on what was adopted, and on nothing else.
        """
        return 1.0

    # --- memory -----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return all that has to survive a restart, as plain JSON.

        Where somebody is erased, it is rewritten: their source goes where it is a key, or an item
        of a list. An observer that cannot restore what is left begins anew.
        """
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` returned; an empty one has observed nothing."""
