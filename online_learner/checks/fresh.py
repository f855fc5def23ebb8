"""The same lessons in a fresh process: what depends on the process that learns shows there."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence

from online_learner.checks.subject import Subject

_PROGRAM = "from online_learner.checks.fresh import main; main()"


def digests_elsewhere(subjects: Sequence[Subject]) -> list[str]:
    """Return the digest of each model after its lessons, learned in one fresh process.

    Strings hash otherwise there (PYTHONHASHSEED), and nothing has been imported or drawn before.

    Raises
    ------
    AssertionError
        A factory cannot be pickled, or the other process fails; says how.
    """
    try:
        given = pickle.dumps(list(subjects))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise AssertionError(
            f"the factory cannot be sent to another process ({error}): make it a function of a "
            "module, or functools.partial(make_learner, ModelSpec(...))"
        ) from error
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _PROGRAM],
        input=given,
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode().split()[-len(subjects) :]


def main() -> None:
    """Read subjects from stdin, and write the digest of each on a line of its own."""
    subjects: list[Subject] = pickle.load(sys.stdin.buffer)  # noqa: S301 (our own process wrote it)
    for subject in subjects:
        sys.stdout.write(f"{subject.learned().digest()}\n")
