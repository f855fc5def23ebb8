"""`up` and `demo`."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from online_learner.cli.here import find_config
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
    from serve_app.local.ending import ended, leave

    what = ""
    with _until_stopped() as stop:
        typer.echo("Starting the store, Ray and the models ...")
        with running(settings, host=host, port=port, tell=Progress()) as endpoint:
            stop.heed()
            _announce(endpoint, settings, host)
            what = ended()
            typer.secho(f"Ray's {what} has ended, so all of it is stopped.", fg="red", err=True)
    typer.echo("Stopped. Start it again: what was acknowledged is on disk." if what else "Stopped.")
    code = 1 if what else 0
    leave(code)
    raise typer.Exit(code)


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


class Progress:
    """Shows what starts, and how long it took: a line for each part, rewritten on a terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stdout  # it is redirected while Ray starts
        self._started: dict[str, float] = {}

    def __call__(self, part: str, *, ready: bool) -> None:
        """Take note that a part begins to start, or is ready."""
        if not ready:
            self._started[part] = time.monotonic()
        else:
            took_s = time.monotonic() - self._started.pop(part)
            self._write(f"{self._erase}  {part:<24} {took_s:5.1f} s\n")
        if self._started and self._erase:
            self._write(f"{self._erase}  {', '.join(self._started)} ..."[:80])

    @property
    def _erase(self) -> str:
        return "\r\x1b[K" if self._terminal.isatty() else ""

    def _write(self, text: str) -> None:
        self._terminal.write(text)
        self._terminal.flush()


class _Stopped(KeyboardInterrupt):
    """A signal asked for the end. Of this family, since Ray swallows any other within a wait."""


class _Stop:
    """Raises in the main thread when a signal asks for the end, once: stopping is not disturbed."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.asked = False
        self._before = {number: signal.getsignal(number) for number in self.SIGNALS}

    def catch(self) -> None:
        """Catch the signals, but for a hang-up that `nohup` ignores."""
        for number, before in self._before.items():
            if (number, before) != (signal.SIGHUP, signal.SIG_IGN):
                signal.signal(number, self._stop)

    def release(self) -> None:
        """Do with the signals as before."""
        for number, before in self._before.items():
            signal.signal(number, before)

    def heed(self) -> None:
        """Raise where a signal came while code that is not ours held the exception back."""
        if self.asked:
            raise _Stopped

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _hang_up()
        if self.asked:
            return
        self.asked = True
        if number == signal.SIGINT and os.isatty(2):
            os.write(2, b"\nStopping ...\n")
        raise _Stopped


def _hang_up() -> None:
    """Write nothing more to a terminal that is gone."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode):
            os.dup2(null, descriptor)


@contextlib.contextmanager
def _until_stopped() -> Iterator[_Stop]:
    """Run until SIGINT, SIGTERM or a hang-up, which unwind what is open."""
    stop = _Stop()
    stop.catch()
    try:
        yield stop
    except (_Stopped, KeyboardInterrupt, SystemExit):  # the latter from Ray's own handler
        pass
    finally:
        stop.release()


def _announce(endpoint: Endpoint, settings: Settings, host: str) -> None:
    typer.echo(f"Serving {', '.join(settings.models) or 'no models'} on {endpoint.url}")
    typer.echo(f"The console is at {endpoint.url}/")
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
