"""`teach`: play the rows of a file as a stream, each predicted first and then corrected."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from online_learner.cli.completing import ModelName
from online_learner.cli.output import AsJson, connect, connect_as_auditor, progress, show
from online_learner.cli.rows import Columns, Row, Rows
from online_learner.cli.score import Score, score_of
from online_learner.cli.truths import reader_of
from online_learner.errors import OnlineLearnerError

if TYPE_CHECKING:
    from online_learner.client import ApiError, Client, Receipt

T = TypeVar("T")

BATCHES_PER_S = 10.0
MAX_BATCH = 64
MOST_TOLD = 20  # rows that were refused
CAUGHT_UP_S = 10.0
AGAIN = "Run it again to go on: nothing is taught twice."


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(teach)


def teach(
    model: ModelName,
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="CSV with a header, or .jsonl.")
    ],
    *,
    label: Annotated[str, typer.Option(help="The column with the right answer.")],
    feature: Annotated[
        list[str] | None, typer.Option(help="A column to ask with; again for more. Default: all.")
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="A column that is text even where it looks otherwise.")
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0, help="Rows a second; 0: as fast as it goes.")
    ] = 100.0,
    rater: Annotated[str | None, typer.Option(help="Whose labels these are.")] = None,
    rater_column: Annotated[str | None, typer.Option(help="The column that says whose.")] = None,
    as_json: AsJson = False,
) -> None:
    """Teach a model from a file: ask it each row, then correct it, as a stream of people would.

    Run it again and it goes on where it was stopped: a row that was taught is known by the file's
    digest and its number for as long as feedback is taken, and is not taught twice. Weights that
    know a row from elsewhere, an earlier day or another file, are not tested fairly by it.

    Evidence for a promotion: of one rater, a tenth of it counts at most (`rater_share`). Labels
    that you vouch for, drawn without choosing, are an auditor's: `up` makes a key for that, and
    this uses it, or the one in OL_AUDIT_KEY, unless the labels are somebody's: --rater or
    --rater-column.

    Exit code 1: some rows could not be taught; each is named with its line.
    """
    columns = Columns(label, tuple(feature) if feature else None, tuple(text or ()), rater_column)
    auditor = None if rater or rater_column else connect_as_auditor()
    with connect() as client:
        about = client.model(model)
        if about["task"] not in ("classification", "regression"):
            raise typer.BadParameter(
                f"'{model}' does {about['task']}, which no column of a file is the right answer to"
            )
        rows = Rows(file, columns, reader_of(about["task"], about["labels"]))
        lesson = Lesson(client, auditor or client, model, rows, score_of(about["task"]), rater)
        try:
            lesson.give(rate)
        except KeyboardInterrupt:
            lesson.stopped = True
        except OnlineLearnerError:
            typer.echo(f"{lesson.taught} rows were taught. {AGAIN}", err=True)
            raise
        found = lesson.report(about)
        show(found, as_json=as_json, text=lambda: _tell(found, lesson, audited=auditor is not None))
    if auditor is not None:
        auditor.close()
    if lesson.refused or lesson.stopped:
        raise typer.Exit(1)


@dataclass
class Lesson:
    """The rows of a file on their way to a model."""

    client: Client
    speaker: Client
    model: str
    rows: Rows
    score: Score
    rater: str | None
    taught: int = 0
    known: int = 0
    asked: int = 0  # answers for the gate
    stopped: bool = False
    refused: list[tuple[int, str]] = field(default_factory=list)
    _resuming: bool = True  # as long as rows may have been taught before
    _stem: str = ""

    def give(self, rate: float) -> None:
        """Teach all rows, so many a second."""
        from online_learner.client.batch import batched

        self._stem = self.rows.digest()
        size = MAX_BATCH if not rate else max(1, min(MAX_BATCH, round(rate / BATCHES_PER_S)))
        due = time.monotonic()
        with progress(self.rows.count) as advance:
            for batch in batched(self.rows, size):
                sound = [row for row in batch if row.wrong is None]
                self.refused += [(row.line, row.wrong) for row in batch if row.wrong is not None]
                self._teach(sound)
                advance(len(batch), self.score.brief())
                due = max(due, time.monotonic() - 1.0) + (len(batch) / rate if rate else 0.0)
                time.sleep(max(0.0, due - time.monotonic()))

    def _teach(self, batch: list[Row]) -> None:
        new = self._known_before(batch) if self._resuming and batch else batch
        asked = self._ask(new)
        if asked:
            # A batch that can be asked, and that nobody asked: no run before came this far.
            self._resuming = self._resuming and len(new) < len(batch)
            self._note(asked, self._correct(asked))

    def _known_before(self, batch: list[Row]) -> list[Row]:
        """Correct the rows that were asked before, and return the others."""
        from online_learner.client import ApiError

        told = self._correct(batch)
        left = [
            row
            for row, result in zip(batch, told, strict=True)
            if isinstance(result, ApiError) and result.code == "unknown_prediction"
        ]
        done = [(row, result) for row, result in zip(batch, told, strict=True) if row not in left]
        self._note([row for row, _ in done], [result for _, result in done])
        return left

    def _ask(self, batch: list[Row]) -> list[Row]:
        """Predict, keep the score, and return the rows that have an answer to correct."""
        from online_learner.client import ApiError
        from online_learner.client.batch import in_parts

        if not batch:
            return []
        instances = [{"features": row.features, "external_id": self._name(row)} for row in batch]
        answers = in_parts(partial(self.client.predict_batch, self.model), instances)
        asked = []
        for row, answer in zip(batch, answers, strict=True):
            if isinstance(answer, ApiError):
                self.refused.append((row.line, str(answer)))
                continue
            self.score.add(answer.output, row.label)
            self.asked += answer.asked
            asked.append(row)
        return asked

    def _correct(self, batch: list[Row]) -> list[Receipt | ApiError]:
        from online_learner.client.batch import in_parts

        items = [self._correction(row) for row in batch]
        return in_parts(lambda part: self.speaker.feedback_batch(part).results, items)

    def _correction(self, row: Row) -> dict[str, Any]:
        rater = row.rater or self.rater
        name = self._name(row)
        said = {"model": self.model, "external_id": name, "kind": "correction", "value": row.label}
        return said | {"idempotency_key": name} | ({"user_id": rater} if rater else {})

    def _name(self, row: Row) -> str:
        return f"teach-{self._stem}-{row.number}"

    def _note(self, batch: list[Row], told: list[Receipt | ApiError]) -> None:
        from online_learner.client import ApiError

        for row, result in zip(batch, told, strict=True):
            if isinstance(result, ApiError):
                self.refused.append((row.line, str(result)))
            elif result.status == "duplicate":
                self.known += 1
            else:
                self.taught += 1

    def report(self, before: dict[str, Any]) -> dict[str, Any]:
        """Return what was done, once learner and gate have caught up, and what the gate says."""
        model, waiting = self._caught_up(before)
        seen = before["aliases"]["epoch"] if before.get("aliases") else 0
        news = [v for v in self.client.verdicts(self.model) if v["epoch"] > seen]
        return {
            "rows": self.rows.count,
            "taught": self.taught,
            "duplicates": self.known,
            "refused": [{"line": line, "reason": reason} for line, reason in self.refused],
            "stopped": self.stopped,
            "score": self.score.report(),
            "waiting": waiting,
            "verdicts": [verdict["sentence"] for verdict in reversed(news)],
            "tests": [
                f"Under test, {test['challenger']} against {test['reference']}: {test['sentence']}"
                for test in (model.get("gate") or {}).get("tests", ())
            ],
        }

    def _caught_up(self, before: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """Wait for learner and gate; returns the model, and how many answers hold up the gate."""
        deadline = time.monotonic() + CAUGHT_UP_S
        while True:
            model = self.client.model(self.model)
            judged = not model["lag_ms"] and _settled(model) - _settled(before) >= self.asked
            if judged:
                return model, 0
            waiting = 0 if model["lag_ms"] else self._waiting()
            if waiting or time.monotonic() > deadline:
                return model, waiting
            time.sleep(0.1)

    def _waiting(self) -> int:
        """Return how many answers of others wait for a label, as far as this key may know."""
        from online_learner.client import ApiError

        try:
            return len(self.speaker.audits(self.model, count=1000))
        except ApiError:
            return 0


def _settled(model: dict[str, Any]) -> int:
    gate = model.get("gate") or {"answered": 0, "unanswered": 0}
    return int(gate["answered"] + gate["unanswered"])


def _tell(found: dict[str, Any], lesson: Lesson, *, audited: bool) -> None:
    said = f"{found['rows']} rows: {found['taught']} taught"
    said += f", {found['duplicates']} taught before" if found["duplicates"] else ""
    said += f", {len(found['refused'])} refused" if found["refused"] else ""
    typer.echo(f"{said}.")
    for item in found["refused"][:MOST_TOLD]:
        typer.echo(f"  line {item['line']}: {item['reason']}", err=True)
    if len(found["refused"]) > MOST_TOLD:
        typer.echo(f"  and {len(found['refused']) - MOST_TOLD} more: --json has all", err=True)
    if found["stopped"]:
        typer.echo(f"Stopped. {AGAIN}")
    for line in lesson.score.told():
        typer.echo(line)
    for sentence in (*found["verdicts"], *found["tests"]):
        typer.echo(sentence)
    if found["waiting"]:
        typer.echo(
            f"The gate waits: {found['waiting']} answers given before have no label, and hold up "
            "those after them until `audit_deadline_s` is over. Label them, and it goes on: "
            f"`online-learner label {lesson.model}`."
        )
    if not audited and not lesson.rows.columns.rater:
        typer.echo(
            "All of this was one rater's word, of which the gate counts a tenth of its evidence at "
            "most: name raters by --rater-column, or vouch for the labels with OL_AUDIT_KEY."
        )
