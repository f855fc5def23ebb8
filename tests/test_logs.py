"""What we log in a process of Serve's is not lost."""

from __future__ import annotations

import logging
from logging.handlers import MemoryHandler

import pytest

from serve_app.logs import OURS, join_serve


class Kept(logging.Handler):
    """Keeps what reaches it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(f"{record.name}: {record.getMessage()}")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """Return where Serve's log ends, set up as on the fast profile."""
    file, serve = Kept(), logging.getLogger("ray.serve")
    monkeypatch.setattr(serve, "handlers", [MemoryHandler(1000, target=file)])
    monkeypatch.setattr(serve, "level", logging.WARNING)
    for name in OURS:
        monkeypatch.setattr(logging.getLogger(name), "parent", logging.getLogger().root)
    return file


def test_our_warnings_reach_serves_log_at_once(kept: Kept) -> None:
    """Warnings of all our modules are written without delay; chatter stays out."""
    join_serve()
    logging.getLogger("online_learner.store.embedded").warning("it died")
    logging.getLogger("serve_app.service").warning("none")
    logging.getLogger("serve_app.service").info("all is well")
    assert kept.lines == ["online_learner.store.embedded: it died", "serve_app.service: none"]


def test_without_it_nothing_reaches_it(kept: Kept) -> None:
    """Without `join_serve`, our warnings do not reach Serve's log."""
    logging.getLogger("serve_app.service").warning("none")
    assert kept.lines == []
