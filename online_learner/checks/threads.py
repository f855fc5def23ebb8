"""A law about threads: many ask a copy of a model while one teaches the original."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from online_learner.checks.subject import Subject, answered, rewritten
from online_learner.learners import Model
from online_learner.requests import Features
from online_learner.schema import Lesson

ASKERS = 3
ROUNDS = 3


def check_concurrent_asking(subject: Subject) -> None:
    """Check that threads that ask a copy, beside one that teaches, are answered as if alone."""
    original = subject.learned()
    copy = subject.make().from_bytes(original.to_bytes())
    questions = [*subject.lessons, *(rewritten(x, _with_new_name) for x in subject.lessons)]
    alone, before = answered(copy, questions), copy.digest()
    ready, done = threading.Barrier(ASKERS + 1), threading.Event()

    def ask() -> None:
        ready.wait()
        rounds = 0
        while rounds < ROUNDS or not done.is_set():
            assert answered(copy, questions) == alone, "an answer that is not given alone"
            rounds += 1

    with _quick_switches(), ThreadPoolExecutor(ASKERS) as pool:
        askers = [pool.submit(ask) for _ in range(ASKERS)]
        ready.wait()
        try:
            _teach(original, list(subject.batches()) * ROUNDS)
        finally:
            done.set()
    for asker in askers:
        asker.result()
    assert copy.digest() == before


def _teach(model: Model, batches: Sequence[Sequence[Lesson]]) -> None:
    for batch in batches:
        model.learn(batch)


def _with_new_name(features: Features) -> Features:
    return features | {f"new beside {len(features)}": 1.0}


@contextlib.contextmanager
def _quick_switches() -> Iterator[None]:
    """Let Python change between threads at almost every step, so that a race shows."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval_s)
