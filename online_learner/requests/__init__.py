"""What clients send. An unknown key is refused, numbers are finite and bounded, text is bounded."""

from online_learner.requests.asking import (
    LogBatchRequest,
    LogRequest,
    OptionSent,
    PredictBatchRequest,
    PredictRequest,
    ScoreRequest,
)
from online_learner.requests.document import check, read_json
from online_learner.requests.openai import read_chat
from online_learner.requests.telling import (
    KINDS,
    ONE,
    Correction,
    FeedbackBatchRequest,
    FeedbackRequest,
    SeveralSignals,
    Signal,
    parse_feedback,
    read_feedback,
)
from online_learner.requests.values import MAX_MAGNITUDE, MAX_NAME, Features, Request

__all__ = [
    "KINDS",
    "MAX_MAGNITUDE",
    "MAX_NAME",
    "ONE",
    "Correction",
    "Features",
    "FeedbackBatchRequest",
    "FeedbackRequest",
    "LogBatchRequest",
    "LogRequest",
    "OptionSent",
    "PredictBatchRequest",
    "PredictRequest",
    "Request",
    "ScoreRequest",
    "SeveralSignals",
    "Signal",
    "check",
    "parse_feedback",
    "read_chat",
    "read_feedback",
    "read_json",
]
