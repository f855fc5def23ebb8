"""The gate's promise, simulated: false promotions, power, exposure, and the leash.

Large runs use the gate's arithmetic on whole arrays (`kernel`); the tests show that it computes the
numbers of `online_learner.evidence`. Each section gives its tables, and what was aimed at.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import sections
from benchmarks.gate import detecting, exposed, many, mutations, nulls, power, production, traps
from benchmarks.sections import Section

SECTIONS: dict[str, Section] = {
    "False promotions of one candidate": nulls.section,
    "Many candidates": many.section,
    "Labels to a promotion": power.section,
    "Exposure": exposed.section,
    "The leash": detecting.section,
    "Traps": traps.section,
    "Rules left out": mutations.section,
    "The whole loop": production.section,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all sections, two at a time, and print."""
    sections.run("gate", "The gate", SECTIONS, arguments)
