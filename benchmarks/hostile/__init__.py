"""Hostile input and hostile people, against the real service: who gets in, and what gets out."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import sections
from benchmarks.hostile import (
    access,
    checkpoints,
    json_bodies,
    numbers,
    openapi,
    poisoning,
    secrecy,
)
from benchmarks.sections import Section

SECTIONS: dict[str, Section] = {
    "Who gets in": access.section,
    "Poisoning": poisoning.section,
    "Mutated checkpoints": checkpoints.section,
    "Hostile numbers": numbers.section,
    "Hostile JSON": json_bodies.section,
    "Schemathesis": openapi.section,
    "Secrets": secrecy.section,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all sections, two at a time, and print."""
    sections.run("hostile", "Hostile input, and hostile people", SECTIONS, arguments)
