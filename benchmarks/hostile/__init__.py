"""Hostile input and hostile people, against the real service: who gets in, and what gets out."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import sections
from benchmarks.hostile import access, poisoning
from benchmarks.sections import Section

SECTIONS: dict[str, Section] = {
    "Who gets in": access.section,
    "Poisoning": poisoning.section,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all sections, two at a time, and print."""
    sections.run("hostile", "Hostile input, and hostile people", SECTIONS, arguments)
