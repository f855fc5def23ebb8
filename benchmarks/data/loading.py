"""Each format, read by the libraries that it is for; and whether any flipped byte is found."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.data.consumers import CASES, compile_one, misfits, offline, settings, talk
from benchmarks.report import Bar, table
from benchmarks.sections import Found
from online_learner.archive.place import Place
from online_learner.dataset.card import loads
from online_learner.dataset.manifest import Manifest
from online_learner.dataset.versions import Versions
from online_learner.loop import Loop
from online_learner.store.embedded import EmbeddedServer

FLIPS, FLIPS_FULL = 2_000, 20_000


def section(full: bool) -> Found:
    """Compile every format, load it with every library, and flip bytes of all files."""
    with tempfile.TemporaryDirectory(prefix="ol-bench-") as folder:
        found = asyncio.run(_compiled(Path(folder)))
        with offline(Path(folder, "cache")), _libraries() as libraries:
            rows = [_loaded(manifest, versions, libraries) for manifest, versions in found]
        flips = _flipped(found, FLIPS_FULL if full else FLIPS)
    read = sum(cell == "yes" for row in rows for cell in row[4:])
    missed = sum(tried - noticed for _, tried, noticed in flips)
    bars = [
        Bar("Formats read by their libraries, of all", read, 4 * len(rows)),
        Bar("Flipped bytes that were not noticed", missed, 0, at_most=True),
    ]
    head = ("model", "format", "files", "rows", "trl", "datasets", "pandas", "ray.data")
    flipped = [(name, f"{tried:,}", f"{noticed:,}") for name, tried, noticed in flips]
    text = f"{table(head, rows)}\n\n{table(('flipped in', 'bytes', 'noticed'), flipped)}"
    return text, bars


async def _compiled(folder: Path) -> list[tuple[Manifest, Versions]]:
    server = EmbeddedServer.ensure(folder)
    try:
        async with await Loop.open(settings(server.url, folder)) as loop:
            await talk(loop, 300)
            return [
                await compile_one(loop, model, form, file_format, folder / "datasets")
                for model, form in CASES
                for file_format in ("parquet", "jsonl")
            ]
    finally:
        server.stop()


@contextmanager
def _libraries() -> Iterator[dict[str, Any]]:
    """Return the modules that a version's lines of code name; Ray runs meanwhile."""
    import datasets
    import pandas as pd
    import ray

    from serve_app.jobs.runner import RayRunner

    with RayRunner(1):
        yield {"datasets": datasets, "pandas": pd, "ray": ray}


def _loaded(
    manifest: Manifest, versions: Versions, libraries: dict[str, Any]
) -> tuple[str, str, str, str, str, str, str, str]:
    """Load a version by the very lines that its card gives, and count what they find."""
    lines = loads(manifest, str(versions.place(manifest.id).local))
    train, query = manifest.splits["train"], manifest.query
    found = eval(lines["datasets"], libraries)
    misfit = misfits(found["train"].features, query.format)
    counts = {split: len(part) for split, part in found.items()}
    frame = eval(lines["pandas"], libraries)
    block = eval(lines["ray.data"], libraries).to_pandas()
    return (
        query.model,
        query.format,
        query.file_format,
        f"{sum(manifest.splits.values()):,}",
        ", ".join(misfit) or "yes",
        _yes(counts == manifest.splits),
        _yes(len(frame) == train and list(frame.columns) == list(manifest.columns)),
        _yes(len(block) == train and list(block.columns) == list(manifest.columns)),
    )


def _yes(right: bool) -> str:
    return "yes" if right else "no"


def _flipped(found: list[tuple[Manifest, Versions]], flips: int) -> list[tuple[str, int, int]]:
    """Flip a bit here and there, and count how often it was noticed, by kind of file."""
    draw, counts = random.Random(0), dict[str, list[int]]()
    for _ in range(flips):
        manifest, versions = draw.choice(found)
        place = versions.place(manifest.id)
        path = _some_file(place, draw)
        data = path.read_bytes()
        at = draw.randrange(len(data))
        path.chmod(0o600)
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :])
        noticed = bool(versions.verify(manifest.id))
        path.write_bytes(data)
        tried = counts.setdefault(path.name if path.suffix in {".md", ".json"} else path.suffix, [])
        tried.append(noticed)
    return [(name, len(tried), sum(tried)) for name, tried in sorted(counts.items())]


def _some_file(place: Place, draw: random.Random) -> Path:
    assert place.local is not None
    return place.local / draw.choice(place.files())
