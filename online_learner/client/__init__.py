"""The client library: ask, say what was wrong, read what became of it.

    from online_learner.client import Client

    with Client() as client:
        answer = client.predict("phishing", {"https": 0.0, "ip_in_url": 1})
        receipt = answer.correct(True)
        client.receipt(receipt.feedback_id).status  # "accepted", and soon "learned"

`AsyncClient` has the same methods, to be awaited. Feedback carries an idempotency key, so that it
is repeated safely where an answer did not come; a prediction is repeated only where the service
refused it, or was not reached.
"""

from online_learner.client import signals
from online_learner.client.answers import Answer, NamedAnswer, RankedOption, Subject
from online_learner.client.awaited import AsyncClient
from online_learner.client.errors import ApiError, NotReachable, PredictionGone
from online_learner.client.receipts import (
    BatchReceipt,
    Fate,
    Receipt,
    ReleasedBy,
    ServedBy,
    SignalReceipt,
    Weighed,
)
from online_learner.client.sending import Retry
from online_learner.client.stream import Event
from online_learner.client.sync import Client

__all__ = [
    "Answer",
    "ApiError",
    "AsyncClient",
    "BatchReceipt",
    "Client",
    "Event",
    "Fate",
    "NamedAnswer",
    "NotReachable",
    "PredictionGone",
    "RankedOption",
    "Receipt",
    "ReleasedBy",
    "Retry",
    "ServedBy",
    "SignalReceipt",
    "Subject",
    "Weighed",
    "signals",
]
