"""What `docs/security.md` says is so."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from online_learner.auth import SCOPES
from serve_app.access import declared
from serve_app.gateway import create_app

PAGE = (Path(__file__).parent.parent / "docs" / "security.md").read_text()


def test_the_table_of_scopes_is_what_the_routes_declare() -> None:
    """Each scope and each route stands in it, and the route in the row of what it needs."""
    part = PAGE.partition("## Who may do what")[2].partition("\n## ")[0]
    table = dict(re.findall(r"^\| `?([\w ]+?)`? \| (.*) \|$", part, flags=re.MULTILINE))
    assert set(SCOPES) <= set(table)
    rows = {"nothing": "none", "any": "any of them", "key": "any of them"}
    wanted = defaultdict(set)
    for (method, path), need in declared(create_app("", "").routes).items():
        wanted[rows.get(need, need)].add(f"{method} {path}")
    assert set(wanted) <= set(table)
    for scope in (*SCOPES, *rows.values()):
        assert set(re.findall(r"`([A-Z]+ /[^`]*)`", table[scope])) == wanted[scope], scope
