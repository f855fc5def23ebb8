"""Run one, as in `python -m benchmarks gate [--quick]`, or all of them."""

from __future__ import annotations

import sys

from benchmarks import (
    chaos,
    console,
    data,
    drift,
    gate,
    hostile,
    latency,
    learners,
    learning,
    policies,
    scaling,
    serving,
)

ALL = {
    "serving": serving.main,
    "learning": learning.main,
    "learners": learners.main,
    "latency": latency.main,
    "scaling": scaling.main,
    "drift": drift.main,
    "gate": gate.main,
    "policies": policies.main,
    "data": data.main,
    "hostile": hostile.main,
    "chaos": chaos.main,
    "console": console.main,
}


def main(arguments: list[str]) -> None:
    """Run the one that is named, or all of them."""
    if arguments and arguments[0] in ALL:
        ALL[arguments[0]](arguments[1:])
        return
    if set(arguments) - {"--quick"}:
        sys.exit(__doc__)
    for benchmark in ALL.values():
        benchmark(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
