"""What asking, weighing and doubting are worth: each policy against going without it.

On real sets where there are some, else on planted worlds; with several seeds, and what fell short.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import sections
from benchmarks.policies import asking, drifting, hot_path, implicit, raters, response, scores
from benchmarks.sections import Section

SECTIONS: dict[str, Section] = {
    "Asking": asking.section,
    "Who answers": response.section,
    "Raters": raters.section,
    "Drift": drifting.section,
    "Implicit signals": implicit.section,
    "Scores that mean something": scores.section,
    "The hot path": hot_path.section,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all sections, two at a time, and print."""
    sections.run("policies", "Asking, weighing, doubting", SECTIONS, arguments)
