"""`up` and `demo`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from online_learner.cli.configuring import find_config
from online_learner.cli.output import CONFIG_FILES

if TYPE_CHECKING:
    from online_learner.settings import Settings
    from serve_app.local import Endpoint


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(demo)


def up(
    *,
    config: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help=f"Default: {' or '.join(CONFIG_FILES)}."),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
) -> None:
    """Run all of it on this machine: store, Ray, gateway, learners. Ctrl-C stops all of it."""
    from online_learner.settings import Settings

    settings = Settings.load(find_config(config))
    from serve_app.local import running

    with _until_stopped():
        typer.echo("Starting the store, Ray and the models ...")
        with running(settings, host=host, port=port) as endpoint:
            _catch_signals()  # Ray has set its own meanwhile
            _announce(endpoint, settings, host)
            _wait()
    typer.echo("Stopped.")


def demo(
    *,
    seed: Annotated[int, typer.Option(help="Of the streams and the raters.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Go on serving in the end.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    data_dir: Annotated[
        Path | None, typer.Option(file_okay=False, help="Keep the data there.")
    ] = None,
    out: Annotated[Path, typer.Option(file_okay=False, help="Where the curves go.")] = Path("out"),
) -> None:
    """Play real streams with late and noisy raters, kill the learner, and add up: two minutes."""
    from examples.demo import run

    raise typer.Exit(run(seed=seed, keep=keep, port=port, data_dir=data_dir, out=out))


class _Stopped(BaseException):
    """A signal asked for the end."""


@contextlib.contextmanager
def _until_stopped() -> Iterator[None]:
    """Run until SIGINT or SIGTERM, which unwind what is open; afterwards they are ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    _catch_signals()
    try:
        yield
    except (_Stopped, KeyboardInterrupt, SystemExit):  # the latter from Ray's own handler
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait() -> None:
    while True:
        signal.pause()


def _catch_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    raise _Stopped


def _announce(endpoint: Endpoint, settings: Settings, host: str) -> None:
    typer.echo(f"Serving {', '.join(settings.models) or 'no models'} on {endpoint.url}")
    if os.environ.get("OL_API_KEY") or os.environ.get("OL_API_KEY_FILE"):
        typer.echo("The key is the one in OL_API_KEY.")
    elif sys.stdout.isatty():
        typer.echo(f"The key is {endpoint.key}")
    else:
        typer.echo(f"The key is in {settings.data_dir / 'api_key'}")
    if host not in ("127.0.0.1", "::1", "localhost"):
        typer.echo(
            "Other machines can reach it. It asks each of them for a key, which nothing switches "
            "off; but keys travel in clear, so put TLS in front."
        )
    silent = [name for name, spec in settings.models.items() if spec.log_inputs == "none"]
    if silent:
        typer.echo(f"Not learning, by log_inputs: none: {', '.join(silent)}.")
    if endpoint.warning:
        typer.secho(f"WARNING: {endpoint.warning}", fg="red", bold=True)
    typer.echo("`online-learner status` tells how it is. Ctrl-C stops all of it.")
    sys.stdout.flush()
