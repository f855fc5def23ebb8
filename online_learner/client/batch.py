"""Several items in one call; what is refused temporarily is sent again alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from online_learner.client.errors import ApiError, NotReachable
from online_learner.client.receipts import BatchReceipt, Receipt
from online_learner.client.sending import BUSY, Call, Course, Json, Patience

T = TypeVar("T")

BODY_REFUSED = (400, 413, 422)


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Items, each of which may be sent again where it was refused.

    Parameters
    ----------
    call
        Returns the call that sends some of them; its result has one entry for each, in order.
    """

    items: list[Json]
    call: Callable[[list[Json]], Call[list[T | ApiError]]]

    def course(self, patience: Patience) -> Course[list[T | ApiError]]:
        """Yield all of them, and then those that were refused temporarily, until none is left."""
        results = yield from self.call(self.items).course(patience)
        while left := [place for place, result in enumerate(results) if _is_busy(result)]:
            wait_s = patience.wait_s(max(_retry_after_s(results[place]) for place in left))
            if wait_s is None:
                break
            again = self.call([self.items[place] for place in left])
            try:
                rest = yield from again.course(patience, wait_s)
            except (ApiError, NotReachable):  # what was said of each before stands
                break
            for place, result in zip(left, rest, strict=True):
                results[place] = result
        return results


@dataclass(frozen=True, slots=True)
class FeedbackBatch:
    """Payloads, each under an idempotency key of its own, so that each may be sent again."""

    items: list[Json]

    def course(self, patience: Patience) -> Course[BatchReceipt]:
        """Yield all of them, and then those that were refused temporarily, until none is left."""
        results = yield from Batch(self.items, _feedback).course(patience)
        return BatchReceipt.of(results)


def in_parts(send: Callable[[list[Any]], Iterable[T | ApiError]], items: list[Any]) -> list[Any]:
    """Send items, in halves where all together are refused: one alone is at fault, or too many.

    Returns
    -------
    What became of each, in order.
    """
    try:
        return list(send(items))
    except ApiError as error:
        if error.status not in BODY_REFUSED:
            raise
        if len(items) == 1:
            return [error]
    middle = len(items) // 2
    return in_parts(send, items[:middle]) + in_parts(send, items[middle:])


def batched(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield rows in lists of one size, the last one excepted."""
    batch: list[T] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _feedback(items: list[Json]) -> Call[list[Receipt | ApiError]]:
    def read(reply: Json) -> list[Receipt | ApiError]:
        return list(BatchReceipt.read(reply).results)

    return Call("POST", "/v1/feedback_batch", read, {"items": items})


def _retry_after_s(result: object) -> float:
    return (isinstance(result, ApiError) and result.retry_after_s) or 0.0


def _is_busy(result: object) -> bool:
    return isinstance(result, ApiError) and result.status in BUSY
