"""`retract`: take back what was said."""

from __future__ import annotations

from typing import Annotated

import typer

from online_learner.cli.output import AsJson, connect, show

_UNLEARNED = {
    "pending": "It is still in the weights: it is unlearned in the background.",
    "done": "It is in no weights any more.",
    "nothing": "It had not been learned.",
    "impossible": "It stays in the weights:",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(retract)


def retract(
    feedback_ids: Annotated[
        list[str], typer.Argument(help="As `feedback` and receipts name them.")
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Take back what was said: it is in no dataset from now on, and soon in no weights."""
    with connect() as client:
        done = [client.retract(feedback_id) for feedback_id in feedback_ids]

    def tell() -> None:
        for one in done:
            told = f"{_UNLEARNED[one['unlearned']]} {one.get('unlearned_why', '')}".rstrip()
            typer.echo(f"{one['feedback_id']} was taken back. {told}")

    show({"retracted": done}, as_json=as_json, text=tell)
