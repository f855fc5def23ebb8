"""Predictions made elsewhere, and what was said of them, from a file into a model's log.

It goes through the service, as anything else does that is asked and told: checked by the same
rules, durable when it is acknowledged. A row is known by the digest of its file and its number, so
that a file can be imported again, as long as feedback is taken, and only what is missing is added.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from online_learner.client import ApiError, Client, Receipt
from online_learner.client.batch import batched, in_parts
from online_learner.client.calls import generated
from online_learner.errors import ServiceError
from online_learner.importing.rows import (
    BATCH,
    Unreadable,
    count_rows,
    digest_of,
    read_rows,
)
from online_learner.requests import read_feedback

__all__ = ["Import", "Refused", "count_rows"]

T = TypeVar("T")
Body: TypeAlias = dict[str, Any]
Asked: TypeAlias = tuple[int, Body, list[Body]]
"""The number of a row, what is logged of it, and what was said of that."""

UNKNOWN = "unknown_prediction"
ABOUT = ("prediction_id", "external_id", "session_id", "chosen", "rejected", "user_id", "source")


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that was not taken, or something said in it that was not."""

    file: str
    row: int
    reason: str


@dataclass(slots=True)
class Import:
    """The rows of files on their way into the log of one model.

    Parameters
    ----------
    task
        The model's.
    dry_run
        Check all that can be checked, and add nothing.
    advance
        Is told how many rows are done.

    Attributes
    ----------
    counts
        `rows`; of predictions those that were `logged`, or `known` before; of signals those that
        were `accepted`, `archived_only` (their window had passed), or `duplicate`.
    """

    client: Client
    model: str
    task: str
    dry_run: bool = False
    advance: Callable[[int], object] = lambda _: None
    counts: Counter[str] = field(default_factory=Counter)
    refused: list[Refused] = field(default_factory=list)
    _tried: set[str] = field(default_factory=set)  # external ids of a dry run, logged by nobody

    def add(self, file: Path) -> None:
        """Import a file: predictions, what was said of them, or both, a row each.

        Raises
        ------
        DataError
            It cannot be read as JSON Lines, nor as Parquet.
        ApiError, NotReachable
            The service refuses everything, or is away. What was acknowledged stays.
        """
        name = f"import-{digest_of(file)}"
        for batch in batched(read_rows(file), BATCH):
            asked: list[Asked] = []
            told: list[tuple[int, Body]] = []
            for number, row in batch:
                if isinstance(row, str):
                    self.refused.append(Refused(file.name, number, row))
                elif "kind" in row or "signals" in row:
                    told.append((number, self._signal(row, f"{name}-{number}")))
                else:
                    try:
                        asked.append((number, *self._answer(row, f"{name}-{number}")))
                    except Unreadable as error:
                        self.refused.append(Refused(file.name, number, str(error)))
            self._tell(file.name, self._log(file.name, asked) + told)
            self.counts["rows"] += len(batch)
            self.advance(len(batch))

    # --- rows ---------------------------------------------------------------------------------

    def _answer(self, row: Body, name: str) -> tuple[Body, list[Body]]:
        """Return what is logged of a row, and what was said of it."""
        body = dict(row)
        said = body.pop("feedback", None) or []
        said = [said] if isinstance(said, dict) else said
        if not (isinstance(said, list) and all(isinstance(one, dict) for one in said)):
            raise Unreadable("`feedback` is an object, or a list of objects")
        if "version" in body:
            body.setdefault("model_version", body.pop("version"))
        if "model_version" in body:
            body["model_version"] = str(body["model_version"])
        if self.task == "generation" and "response" not in body:
            outputs = body.pop("outputs", None) or [body.pop("output", None)]
            body |= generated(None, None, _texts(outputs))
        body = {"external_id": name, **body, "once": True}
        body |= {"dry_run": True} if self.dry_run else {}
        told = [{"idempotency_key": f"{name}-{n}", **one} for n, one in enumerate(said)]
        return body, told

    def _signal(self, row: Body, name: str) -> Body:
        body = {"idempotency_key": name, **row}
        if "prediction_id" not in body and ("external_id" in body or "session_id" in body):
            body.setdefault("model", self.model)
        return body | ({"dry_run": True} if self.dry_run else {})

    # --- sending ------------------------------------------------------------------------------

    def _log(self, file: str, asked: Sequence[Asked]) -> list[tuple[int, Body]]:
        """Log answers; returns what was said of those that are logged, with their ids."""
        if not asked:
            return []
        bodies = [body for _, body, _ in asked]
        answers = in_parts(lambda part: self.client.log_batch(self.model, part), bodies)
        told: list[tuple[int, Body]] = []
        for (number, body, said), answer in zip(asked, answers, strict=True):
            if isinstance(answer, ApiError):
                self.refused.append(Refused(file, number, str(answer)))
                continue
            self.counts["known" if answer.known else "logged"] += 1
            if answer.prediction_id is None:
                self._tried.add(body["external_id"])
                self._try(file, number, said)
            else:
                told += [(number, {**one, "prediction_id": answer.prediction_id}) for one in said]
        return told

    def _try(self, file: str, number: int, said: Iterable[Body]) -> None:
        """Check what was said of an answer that nobody logs: its form alone."""
        for one in said:
            try:
                read_feedback({**one, "prediction_id": "-"})
            except ServiceError as error:
                self.refused.append(Refused(file, number, f"feedback: {error.detail}"))
            else:
                self.counts["accepted"] += 1

    def _tell(self, file: str, told: Sequence[tuple[int, Body]]) -> None:
        for wave in _waves(told):
            items = [body for _, body in wave]
            results = in_parts(lambda part: self.client.feedback_batch(part).results, items)
            for (number, body), result in zip(wave, results, strict=True):
                self._count(file, number, body, result)

    def _count(self, file: str, number: int, body: Body, result: Receipt | ApiError) -> None:
        if not isinstance(result, ApiError):
            self.counts[result.status] += 1
        elif result.code == UNKNOWN and body.get("external_id") in self._tried:
            self._try(file, number, [body])
        else:
            self.refused.append(Refused(file, number, f"feedback: {result}"))


def _waves(told: Iterable[tuple[int, Body]]) -> list[list[tuple[int, Body]]]:
    """Return signals in parts that are sent one after the other.

    What is said in one batch has no order, and of what a source says twice of an answer the latter
    counts: so a part has one signal of each source on each answer.
    """
    waves: list[list[tuple[int, Body]]] = []
    seen: Counter[str] = Counter()
    for number, body in told:
        about = str([body.get(name) for name in ABOUT])
        if seen[about] == len(waves):
            waves.append([])
        waves[seen[about]].append((number, body))
        seen[about] += 1
    return waves


def _texts(outputs: Any) -> list[Any]:
    if not isinstance(outputs, list) or not all(isinstance(one, str | dict) for one in outputs):
        raise Unreadable("`outputs` is a list of texts, or of objects with `text` or `json`")
    return outputs
