"""Keys as they are pressed on a terminal; lines where there is none."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import tty
from collections.abc import Iterator
from typing import Self, TextIO

import typer

CTRL_D, ESCAPE = "\x04", "\x1b"
_LINE = 1 << 12


class Ended(Exception):
    """There is no more to read, or the reader wants no more."""


class Keyboard:
    """What is typed.

    On a terminal a key needs no Enter, and one that is pressed ahead is not lost: the terminal is
    set once, on entering, and set back on leaving. From a pipe each line is a key or a text.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.fileno() if stream.isatty() else None

    def __enter__(self) -> Self:
        if self._terminal is not None:
            self._before = termios.tcgetattr(self._terminal)
            tty.setcbreak(self._terminal, termios.TCSADRAIN)
        return self

    def __exit__(self, *error: object) -> None:
        if self._terminal is not None:
            termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._before)

    def key(self) -> str:
        """Return one key, "" for one that has no letter; raises `Ended` where there is none."""
        if self._terminal is None:
            return self.line("> ")
        key = os.read(self._terminal, 1).decode("latin-1")
        if key in ("", CTRL_D):
            raise Ended
        if key == ESCAPE or not key.isascii():  # the rest of an arrow, or of a letter
            while select.select([self._terminal], [], [], 0)[0]:
                os.read(self._terminal, 1)
            return ""
        return key.lower()

    def line(self, prompt: str) -> str:
        """Return a line, without its end; raises `Ended` where there is none."""
        if self._terminal is None:
            found = self._stream.readline()
            if not found:
                raise Ended
            return found.strip()
        typer.echo(f"  {prompt}", nl=False)
        with self._lines(self._terminal):
            typed = b""
            while not typed.endswith(b"\n"):
                piece = os.read(self._terminal, _LINE)
                if not piece:
                    raise Ended
                typed += piece
        return typed.decode(errors="replace").strip()

    @contextlib.contextmanager
    def _lines(self, terminal: int) -> Iterator[None]:
        """Let the terminal edit and show lines for a while."""
        termios.tcsetattr(terminal, termios.TCSADRAIN, self._before)
        try:
            yield
        finally:
            tty.setcbreak(terminal, termios.TCSADRAIN)
