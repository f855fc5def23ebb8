"""The table of kinds and tasks as a page: `python -m policies.table > docs/kinds.md`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import get_args

from online_learner.schema import Task
from policies.signals import TABLE, Meaning

REFUSED = "refused: 422 `kind_not_applicable`"
_INTRO = """# What each kind of feedback does

Made by `make docs` from the default table, `policies/signals.py`. `tests/test_stack_kinds.py` posts
every cell to a running system and checks that the weights move so, or stay as they are.
`generation` stands for answers made elsewhere, which teach a reward model.

What teaches nothing is kept in the log all the same, and its receipt says `kept`.
"""


def page(table: Mapping[str, Mapping[Task, Meaning | None]] = TABLE) -> str:
    """Return the page: a table of what each kind teaches on each task."""
    tasks = get_args(Task)
    rows = [["kind", *tasks], ["---"] * (len(tasks) + 1)]
    rows += [[f"`{kind}`", *(_cell(row[task]) for task in tasks)] for kind, row in table.items()]
    return "\n".join([_INTRO, *map(_line, rows), ""])


def _cell(meaning: Meaning | None) -> str:
    if meaning is None:
        return REFUSED
    sentence = inspect.getdoc(meaning) or meaning.__name__
    return sentence.splitlines()[0].rstrip(".")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201
