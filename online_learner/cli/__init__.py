"""The command line: `online-learner`.

Each command imports what it needs when it runs, so that `--help` and the reads stay quick.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from online_learner.cli import (
    asking,
    beginning,
    configuring,
    datasets,
    diagnosing,
    erasing,
    evaluating,
    explaining,
    forgetting,
    importing,
    keys,
    labelling,
    measuring,
    observing,
    operating,
    planting,
    reading,
    registering,
    replaying,
    retraining,
    starting,
    teaching,
    watching,
)

__all__ = ["app", "main"]

OK, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3

_EPILOG = (
    "Exit codes: 0 done; 1 a problem was found, or the service refused; 2 wrong usage; 3 the "
    "service is not reachable. It is found by OL_URL and OL_API_KEY, else by the note that a "
    "running `up` leaves in its data directory."
)


class _Group(TyperGroup):
    """Turns expected errors into one line that says what to do, and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            code = _exit_code(error)
            if code is None:
                raise
            typer.secho(f"online-learner: {error}", fg="red", err=True)
            raise typer.Exit(code) from None


def _exit_code(error: Exception) -> int | None:
    from online_learner.errors import OnlineLearnerError

    if not isinstance(error, OnlineLearnerError):
        return None
    from online_learner.client import NotReachable

    return UNREACHABLE if isinstance(error, NotReachable) else REFUSED


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"online-learner {version('online-learner')}")
        raise typer.Exit


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=_EPILOG,
    help="Serve models that learn at once from what people say about their answers.",
)


@app.callback()
def _root(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


for _part in (
    beginning,
    starting,
    configuring,
    asking,
    teaching,
    labelling,
    planting,
    reading,
    measuring,
    observing,
    watching,
    explaining,
    operating,
    forgetting,
    importing,
    registering,
    replaying,
    retraining,
    evaluating,
    datasets,
    erasing,
    keys,
    diagnosing,
):
    _part.register(app)


def main() -> None:
    """Run the command line."""
    app()
