"""Several payloads of feedback in one call; what is refused temporarily is sent again alone."""

from __future__ import annotations

from dataclasses import dataclass

from online_learner.client.errors import ApiError, NotReachable
from online_learner.client.receipts import BatchReceipt, Receipt
from online_learner.client.sending import BUSY, Call, Course, Json, Patience


@dataclass(frozen=True, slots=True)
class FeedbackBatch:
    """Payloads, each under an idempotency key of its own, so that each may be sent again."""

    items: list[Json]

    def course(self, patience: Patience) -> Course[BatchReceipt]:
        """Yield all of them, and then those that were refused temporarily, until none is left."""
        receipt = yield from _call(self.items).course(patience)
        results = list(receipt.results)
        while left := [place for place, result in enumerate(results) if _is_busy(result)]:
            wait_s = patience.wait_s(max(_retry_after_s(results[place]) for place in left))
            if wait_s is None:
                break
            try:
                rest = yield from _call([self.items[p] for p in left]).course(patience, wait_s)
            except (ApiError, NotReachable):  # what was said of each before stands
                break
            for place, result in zip(left, rest.results, strict=True):
                results[place] = result
        return BatchReceipt.of(results)


def _call(items: list[Json]) -> Call[BatchReceipt]:
    return Call("POST", "/v1/feedback_batch", BatchReceipt.read, {"items": items})


def _retry_after_s(result: Receipt | ApiError) -> float:
    return (isinstance(result, ApiError) and result.retry_after_s) or 0.0


def _is_busy(result: Receipt | ApiError) -> bool:
    return isinstance(result, ApiError) and result.status in BUSY
