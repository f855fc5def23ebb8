"""What a signal says of how good an answer was: a score, and one of a few classes of it."""

from __future__ import annotations

import bisect

from online_learner.evidence import score
from online_learner.schema import Feedback, Signal, Task

EDGES = {"classification": (0.5,)}  # of goodness, between classes
CLOSE = (0.25, 0.5, 0.75, 0.95)  # where an answer can be better or worse by degrees
KEEP = 1.0 - 1.0 / 500  # of the mean error, with each


def edges(task: Task) -> tuple[float, ...]:
    """Return the bounds between classes of goodness: wrong and right, or five by degrees."""
    return EDGES.get(task, CLOSE)


def explicit(feedback: Feedback) -> bool:
    """Tell whether somebody has spoken: not by what they did, and not a rule."""
    return feedback.kind not in {"implicit", "flag"} and not feedback.source.startswith("system")


class Outcomes:
    """Reads how good an answer was, from 0 to 1; the error of a number against what is usual.

    Parameters
    ----------
    mean_error
        Of late, of answers that are numbers; twice as much is as bad as can be.
    """

    def __init__(self, task: Task, mean_error: float = 0.0) -> None:
        self.task = task
        self.mean_error = mean_error
        self._edges = edges(task)

    def goodness(self, signal: Signal) -> float | None:
        """Return how good the answer was, as far as the signal tells; None where it does not."""
        if signal.prediction.withheld:
            return None
        output, said = signal.prediction.output, signal.said
        found = score(said, output, output, scale=2.0 * self.mean_error)
        return said.reward if found is None else found

    def see(self, signal: Signal) -> None:
        """Take in what errors are usual."""
        right, output = signal.said.right, signal.prediction.output
        if isinstance(right, float) and isinstance(output, float):
            error = abs(right - output)
            if not self.mean_error:
                self.mean_error = error
            cut = min(error, 10.0 * self.mean_error)
            self.mean_error += (1.0 - KEEP) * (cut - self.mean_error)

    def number(self, goodness: float) -> int:
        """Return the class of a goodness: 0 is the worst."""
        return bisect.bisect_right(self._edges, goodness)
