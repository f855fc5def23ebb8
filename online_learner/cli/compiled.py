"""How a version of a dataset is told on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from online_learner.cli.output import pairs, table, when

if TYPE_CHECKING:
    from online_learner.dataset.manifest import Manifest
    from online_learner.dataset.versions import Versions


def described(versions: Versions, manifest: Manifest) -> dict[str, Any]:
    """Return a manifest with where the version is, and how it is loaded."""
    from online_learner.dataset.card import loads

    place = versions.place(manifest.id)
    path = place.url if place.local is None else str(place.local)
    found = manifest.model_dump(mode="json")
    return {"id": found.pop("id"), "path": path, "load": loads(manifest, path), **found}


def tell(found: Mapping[str, Any]) -> None:
    """Print what a version is made of, and how it is loaded."""
    query = {
        name: when(value) if name in ("since", "until") else value
        for name, value in found["query"].items()
        if value is not None
    }
    splits = ", ".join(f"{name} {rows:,}" for name, rows in found["splits"].items())
    pairs(
        {
            "version": found["id"],
            "path": found["path"],
            "query": ", ".join(f"{name} {value}" for name, value in query.items()),
            "rows": splits,
            **{name: f"{count:,}" for name, count in found["counts"].items() if name != "rows"},
            "compiled": when(found["created_at"]),
            **({"took": f"{found['took_s']:.1f} s"} if found["took_s"] else {}),
        }
    )
    _counts(("kind", "rows"), found["by_kind"])
    _counts(("left out", "signals"), found["excluded"])
    _counts(("label", "rows"), found["balance"])
    typer.echo("\nLoad it:")
    for line in found["load"].values():
        typer.echo(f"  {line}")


def line(found: Mapping[str, Any]) -> tuple[object, ...]:
    """Return a version as a row of a table: see `COLUMNS`."""
    splits, query = found["splits"], found["query"]
    rows = (splits.get(name, 0) for name in ("train", "validation"))
    compiled, left_out = when(found["created_at"]), sum(found["excluded"].values())
    return (found["id"], compiled, query["format"], query["file_format"], *rows, left_out)


COLUMNS = ("version", "compiled", "format", "files", "train", "validation", "left out")


def _counts(columns: tuple[str, str], counts: Mapping[str, int], most: int = 20) -> None:
    if not counts:
        return
    typer.echo("")
    table(columns, sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most])
