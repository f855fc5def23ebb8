"""How it goes: what was asked, said, learned, decided and served, how often and how fast."""

from online_learner.metrics.names import METRICS, Metric
from online_learner.metrics.tally import Series, Tally, Times

__all__ = ["METRICS", "Metric", "Series", "Tally", "Times"]
