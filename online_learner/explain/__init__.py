"""The whole story: what became of a signal, of an answer, of a model."""

from online_learner.explain.answers import answer, story
from online_learner.explain.listing import feedback, quarantine
from online_learner.explain.models import evidence, lag_s, status, verdicts
from online_learner.explain.observations import alarms, bias
from online_learner.explain.signals import receipt

__all__ = [
    "alarms",
    "answer",
    "bias",
    "evidence",
    "feedback",
    "lag_s",
    "quarantine",
    "receipt",
    "status",
    "story",
    "verdicts",
]
