"""How good was what was shown, by what somebody said of it? One number for all kinds and tasks."""

from __future__ import annotations

from online_learner.evidence import same
from online_learner.schema import Output, Signal

NO_OPINION = frozenset({"flag", "implicit"})  # what the system notes and what users do is none


def goodness(signal: Signal) -> float | None:
    """Return how good what was shown is by an explicit signal, from 0 to 1; None where not told.

    A right answer that was named makes what was shown right (1) or wrong (0); of a ranking, its
    first place. Of a number it tells nothing: how far off is still good is not known here. Ratings
    are their place on their scale.
    """
    said, prediction = signal.said, signal.prediction
    planted = prediction.ask is not None and prediction.ask.reason == "gold"
    by_system = signal.feedback.source.startswith("system:")
    if signal.feedback.kind in NO_OPINION or by_system or planted or prediction.withheld:
        return None
    if signal.feedback.kind in {"correction", "selection", "ranking"} and said.right is not None:
        return _named(said.right, prediction.output)
    if said.reward is not None:
        return said.reward
    return 0.0 if said.wrong is not None else None


def _named(right: Output, shown: Output) -> float | None:
    if isinstance(right, float) or isinstance(shown, float) or shown is None:
        return None
    if isinstance(right, list):
        return float(right[:1] == shown[:1]) if isinstance(shown, list) and shown else None
    return float(same(right, shown))
