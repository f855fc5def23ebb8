"""`label`: walk the queue in the terminal, a key a label."""

from __future__ import annotations

import contextlib
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from online_learner.cli.choices import Choices, choices_for
from online_learner.cli.completing import ModelName
from online_learner.cli.keyboard import Ended, Keyboard
from online_learner.cli.output import cell, connect, connect_as_auditor, said, show, visible, when

if TYPE_CHECKING:
    from online_learner.client import Client

PAGE = 10  # that are leased at a time
LEASE_S = 900.0  # for as long as a page may take
MOST = 1000  # that the service lists at once
INDENT = 12


class Lane(StrEnum):
    """Which answers: audits, what active learning asks about, or both."""

    audit = "audit"
    ask = "ask"
    any = "any"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(label)


def label(
    model: ModelName,
    *,
    count: Annotated[int, typer.Option(min=1, help="How many at most.")] = 1000,
    lane: Annotated[
        Lane, typer.Option(help="audit: what the gate waits for. ask: what the model is unsure of.")
    ] = Lane.any,
    rater: Annotated[str | None, typer.Option(help="Who labels, for the record.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the queue, by an auditor's key; label none.")
    ] = False,
) -> None:
    """Label the answers that wait for it: one key each.

    1 to 9 choose, c types the right answer, s skips for good, u takes the last one back, q ends. A
    label is sent when the next one is given, or in the end, so that the last can be taken back.
    Leave none out for what it is: what is chosen by its looks is no sample. What is shown to you is
    shown to nobody else meanwhile.

    Audits take the key of an auditor: the one in OL_AUDIT_KEY, or the one that `up` made here.
    For the lane `ask` alone, your own key will do, with the scopes `feedback` and `label`; with
    --rater, planted questions are among them.
    """
    auditor = connect_as_auditor() if as_json or lane is not Lane.ask else None
    with auditor or connect() as client:
        if as_json:
            about = client.model(model)
            queue = client.queue(model, lane.value, count=min(count, MOST))
            found = {"task": about["task"], "labels": about["labels"], "queue": queue}
            show(found, as_json=True, text=lambda: None)
            return
        with Keyboard(sys.stdin) as keyboard:
            walk = Walk(client, model, keyboard, rater, lane.value)
            try:
                walk.go(count)
            finally:
                typer.echo(walk.summary())
                walk.give_back()


@dataclass
class Walk:
    """One walk along the queue.

    The last label is held back until there is another, so that it can be taken back.
    """

    client: Client
    model: str
    keyboard: Keyboard
    rater: str | None = None
    lane: Any = "any"
    sent: int = 0
    skipped: int = 0
    _about: dict[str, Any] = field(default_factory=dict)  # the model's name, its task and labels
    _leased: set[str] = field(default_factory=set)  # of which nothing has been said yet
    _held: tuple[dict[str, Any], dict[str, Any]] | None = None  # the answer, and what is said of it

    def go(self, count: int) -> None:
        """Show one after the other, until none is left or it is ended."""
        try:
            for item in self._queue(count):
                self._one(item)
            self._send()
        except Ended:
            self._send()

    def summary(self) -> str:
        """Return what was done."""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        held = " The last label was not sent." if self._held is not None else ""
        return f"{self.sent} labelled{skipped}.{held}"

    def give_back(self) -> None:
        """Give back what was leased and not labelled, so that it waits for nobody."""
        from online_learner.client import ApiError, NotReachable

        if self._leased:
            with contextlib.suppress(ApiError, NotReachable):  # else the leases run out
                self._skip(sorted(self._leased), again=True)

    def _queue(self, count: int) -> Iterator[dict[str, Any]]:
        left = count
        while left and (page := self._page(min(PAGE, left))):
            self._leased.update(item["prediction_id"] for item in page)
            yield from page
            left -= len(page)
        if left:
            typer.echo("No answer waits for a label.")

    def _page(self, count: int) -> list[dict[str, Any]]:
        how: Any = {"lane": self.lane, "seconds": LEASE_S, "rater": self.rater}
        found = self.client.lease(self.model, count=count, **how)
        self._about = {"model": self.model, "task": found["task"], "labels": found["labels"]}
        return list(found["queue"])

    def _skip(self, ids: list[str], *, again: bool = False) -> None:
        self.client.skip(self.model, ids, rater=self.rater, again=again)
        self._leased.difference_update(ids)

    def _one(self, item: dict[str, Any]) -> None:
        """Show one, and take what is said of it; `u` shows the one before again, first."""
        while True:
            _show(item, self._about)
            choices = choices_for(self._about, item)
            typer.echo(f"  {choices.told()}   s skip   u undo   q quit")
            found = self._ask(choices)
            if found == "u":
                self._undo()
                continue
            if found == "s":
                self.skipped += 1
                self._skip([item["prediction_id"]])
            else:
                self._send()
                self._held = (item, found)
            return

    def _undo(self) -> None:
        if self._held is None:
            typer.echo("  There is nothing to take back: what was sent is in the log.")
            return
        before, self._held = self._held[0], None
        typer.echo("  Taken back. Once more:")
        self._one(before)

    def _ask(self, choices: Choices) -> Any:
        while True:
            key = self.keyboard.key() if choices.single else self.keyboard.line("> ")
            if key in ("s", "u"):
                return key
            if key == "q":
                raise Ended
            found = choices.read(key, self.keyboard)
            if isinstance(found, dict):
                typer.echo(f"  -> {choices.named(found)}")
                return found
            typer.echo(f"  {found}")

    def _send(self) -> None:
        """Send the label that is held; one that is refused is told, and left unlabelled."""
        from online_learner.client import ApiError

        if self._held is None:
            return
        item, signal = self._held
        more: Any = {"user_id": self.rater} if self.rater else {}
        try:
            self.client.feedback(item["prediction_id"], **signal, **more)
        except ApiError as error:
            typer.echo(f"  The last label was refused: {error}", err=True)
            self.skipped += 1
        else:
            self.sent += 1
            self._leased.discard(item["prediction_id"])
        self._held = None  # not before: where nobody answers, the summary tells of it


def _show(item: dict[str, Any], about: dict[str, Any]) -> None:
    from online_learner.chat import shared_context

    typer.echo(f"\n{about['model']}, until {when(item['expires_at'])}")
    for name, value in shared_context(item["features"]).items():
        _field(name, cell(value))
    options = [] if about["task"] == "classification" else item["options"]
    for place, option in enumerate(options, start=1):
        features = option["features"]
        text = features.get("text") or ", ".join(f"{k}={cell(v)}" for k, v in features.items())
        _field(f"{place} {option['id']}", str(text))
    _field("shown", said(item["output"]))


def _field(name: str, text: str) -> None:
    """Print a name and a text beside it, as wide as the terminal is."""
    width = max(40, shutil.get_terminal_size((80, 20)).columns - INDENT - 4)
    lines = [part for line in visible(text).splitlines() for part in textwrap.wrap(line, width)]
    for place, line in enumerate(lines or [""]):
        shown = "" if place else f"{visible(name)} "
        typer.echo(f"  {shown:<{INDENT}}{line}")
