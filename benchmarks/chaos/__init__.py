"""Crashes, cuts and stalls under load: is what was acknowledged ever lost, or learned twice."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import sections
from benchmarks.chaos import cut, doubt, kills, paused
from benchmarks.sections import Section

SECTIONS: dict[str, Section] = {
    cut.TITLE: cut.section,
    kills.TITLE: kills.section,
    doubt.TITLE: doubt.section,
    paused.TITLE: paused.section,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all sections, one after the other, and print."""
    sections.run("chaos", "Chaos", SECTIONS, arguments, at_once=1)
