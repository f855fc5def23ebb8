"""From feedback to datasets and back: what is kept, compiled, trained anew, replayed and forgotten.

On real servers that are killed meanwhile, on logs of a million answers, and with counts that have
to be equal at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import sections
from benchmarks.data import archiving, compiling, erasing, loading, replaying, retraining
from benchmarks.sections import Section

SECTIONS: dict[str, Section] = {
    "Archiving under load": archiving.section,
    "Compiling": compiling.section,
    "Formats, and flipped bytes": loading.section,
    "Trained anew": retraining.section,
    "Replay": replaying.section,
    "Erased": erasing.section,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all sections, one after the other, and print."""
    sections.run("data", "From feedback to datasets, and back", SECTIONS, arguments, at_once=1)
