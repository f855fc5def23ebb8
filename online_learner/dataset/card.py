"""A version in words: its README, of what its manifest says and of nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from online_learner.dataset.manifest import Manifest

MOST = 20  # lines of a table
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
)
_ABOUT = {
    "supervised": "What was asked, and what people said is right: `features`, `target`, `weight`.",
    "tabular": "What was asked, a column a feature, and what people said is right: `target`.",
    "preference": "Pairs of answers of which people preferred one: `prompt`, `chosen`, `rejected`.",
    "unpaired": "Answers that people found good, or not: `prompt`, `completion`, `label`.",
    "reward": "Pairs of whole answers of which one is better: `chosen`, `rejected`, `margin`.",
    "sft": "Answers as people corrected them: `prompt`, `completion`, or `messages`.",
}
_FEATURES = {  # of `datasets`, as YAML, where they have another name there
    "double": ["    dtype: float64"],
    "list<item: string>": ["    list: string"],
    "list<item: struct<role: string, content: string>>": [
        "    list:",
        "    - name: role",
        "      dtype: string",
        "    - name: content",
        "      dtype: string",
    ],
}
_TRL = {
    "preference": "TRL's `DPOTrainer`",
    "unpaired": "TRL's `KTOTrainer`",
    "reward": "TRL's `RewardTrainer`",
    "sft": "TRL's `SFTTrainer`",
}


def render(manifest: Manifest) -> str:
    """Return the card of a named manifest, as Markdown with what `datasets` reads at its top."""
    parts = [
        _front(manifest),
        f"# {_text(manifest.query.model)}: {manifest.query.format}, version {manifest.id}",
        _what(manifest),
        _loads(manifest),
        _counts(manifest),
        _left_out(manifest),
        _shares("Balance", "label", manifest.balance),
        _response(manifest),
        _raters(manifest),
        _columns(manifest),
        _origin(manifest),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def loads(manifest: Manifest, path: str = "PATH") -> dict[str, str]:
    """Return one line of code by library, that reads the version at a path."""
    split = next(iter(_splits(manifest)), "train")
    parquet = manifest.query.file_format == "parquet"
    inside = f"{path}/{split}" if parquet else f"{path}/{split}/part-00000.jsonl"
    # Texts stay texts, and no digit is lost.
    more = "" if parquet else ", lines=True, dtype=False, precise_float=True"
    read, in_lines = ("read_parquet", "") if parquet else ("read_json", ", lines=True")
    return {
        "datasets": f"datasets.load_dataset({path!r})",
        "pandas": f"pandas.{read}({inside!r}{more})",
        "ray.data": f"ray.data.{read}({inside!r}{in_lines})",
    }


def _splits(manifest: Manifest) -> dict[str, int]:
    """Return the splits that have files, with their rows, in the order of the files."""
    found: dict[str, int] = {}
    for file in manifest.files:
        found[file.split] = found.get(file.split, 0) + file.rows
    return found


def _front(manifest: Manifest) -> str:
    ending = manifest.query.file_format
    lines = [
        "---",
        f"pretty_name: {json.dumps(f'{manifest.query.model} {manifest.query.format}')}",
        "tags: [feedback, online-learning]",
        f"size_categories: [{_size(sum(_splits(manifest).values()))}]",
        *_features(manifest),
        "configs:",
        "- config_name: default",
        "  data_files:",
    ]
    for split in _splits(manifest):
        lines += [f"  - split: {split}", f"    path: {split}/*.{ending}"]
    return "\n".join([*lines, "---"])


def _features(manifest: Manifest) -> list[str]:
    """Return the types of the columns, where the files themselves do not tell them."""
    if manifest.query.file_format == "parquet" or not manifest.columns:
        return []
    lines = ["dataset_info:", "  features:"]
    for name, kind in manifest.columns.items():
        lines += [f"  - name: {json.dumps(name)}", *_FEATURES.get(kind, [f"    dtype: {kind}"])]
    return lines


def _size(rows: int) -> str:
    return next((name for most, name in _SIZES if rows < most), "n>1B")


def _what(manifest: Manifest) -> str:
    query = manifest.query
    said = [_ABOUT[query.format]]
    if query.format in _TRL:
        said.append(f"Its columns are those that {_TRL[query.format]} expects.")
    said.append(
        "Compiled by `online_learner` from what was answered and what people said about it. "
        "`weight` is what the learner would weigh a row; `weight_raw` is the same before "
        "anything was corrected, and a column beside it tells each factor."
    )
    return " ".join(said)


def _loads(manifest: Manifest) -> str:
    lines = "\n".join(loads(manifest).values())
    return f"## Load it\n\n```python\n{lines}\n```"


def _counts(manifest: Manifest) -> str:
    parts = [f"## Rows\n\n{_table(('split', 'rows'), _splits(manifest).items())}"]
    if manifest.counts:
        parts.append(_table(("of the log", "count"), manifest.counts.items()))
    if manifest.by_kind:
        parts.append(_table(("rows by kind of signal", "rows"), _most(manifest.by_kind)))
    return "\n\n".join(parts)


def _left_out(manifest: Manifest) -> str:
    if not manifest.excluded:
        return "## Left out\n\nNothing."
    return f"## Left out\n\n{_table(('reason', 'signals'), _most(manifest.excluded))}"


def _shares(title: str, what: str, counts: Mapping[str, int]) -> str:
    if not counts:
        return ""
    total = sum(counts.values()) or 1
    rows = [(name, rows, f"{rows / total:.1%}") for name, rows in _most(counts)]
    return f"## {title}\n\n{_table((what, 'rows', 'share'), rows, of=len(counts))}"


def _response(manifest: Manifest) -> str:
    if not manifest.response:
        return ""
    found = sorted(manifest.response.items(), key=lambda item: (-_of(item[1]), item[0]))
    rows = [
        (output, _of(each), each.get("answered", 0), _share(each.get("answered", 0), _of(each)))
        for output, each in found[:MOST]
    ]
    columns = ("output", "answers", "spoken of", "share")
    return (
        "## Who speaks\n\nPeople do not speak of every answer alike: a share that differs by "
        f"output is a bias of these rows.\n\n{_table(columns, rows, of=len(found))}"
    )


def _of(response: Mapping[str, int]) -> int:
    return response.get("answers", 0)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _raters(manifest: Manifest) -> str:
    if not manifest.raters:
        return ""
    found = sorted(manifest.raters.items(), key=lambda item: (-item[1].get("rows", 0), item[0]))
    names = sorted({name for _, each in found for name in each} - {"rows"})
    rows = [
        (source, int(each.get("rows", 0)), *(f"{each.get(name, 0):.4g}" for name in names))
        for source, each in found[:MOST]
    ]
    columns = ("source", "rows", *(name.replace("_", " ") for name in names))
    return f"## Raters\n\n{_table(columns, rows, of=len(found))}"


def _columns(manifest: Manifest) -> str:
    if not manifest.columns:
        return ""
    most = 200
    rows = list(manifest.columns.items())
    return f"## Columns\n\n{_table(('column', 'type'), rows[:most], of=len(rows))}"


def _origin(manifest: Manifest) -> str:
    query = manifest.query.model_dump(mode="json", exclude_defaults=True)
    facts = [
        ("query", json.dumps(query, sort_keys=True, ensure_ascii=False)),
        *((f"{stream} up to", entry) for stream, entry in sorted(manifest.watermarks.items())),
        ("configuration", manifest.config_sha256 or "-"),
        ("code", manifest.code_sha256 or "-"),
        *((f"parent {n}", parent) for n, parent in enumerate(manifest.parents, 1)),
        *sorted(manifest.libraries.items()),
    ]
    return f"## Where it is from\n\n{_table(('what', 'which'), facts)}"


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST]


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, of: int | None = None
) -> str:
    cells = [[_text(cell) for cell in row] for row in rows]
    rule = ["---"] + ["---:" if _numeric(cells, n) else "---" for n in range(1, len(columns))]
    lines = [f"| {' | '.join(line)} |" for line in (list(columns), rule, *cells)]
    if of is not None and of > len(cells):
        lines.append(f"\n{of - len(cells):,} more are in the manifest.")
    return "\n".join(lines)


def _numeric(cells: Sequence[Sequence[str]], column: int) -> bool:
    return all(row[column].rstrip("%").replace(",", "").replace(".", "").isdigit() for row in cells)


def _text(cell: object) -> str:
    r"""Return a cell of a table: numbers as people read them, nothing that Markdown would take.

    >>> _text(12345), _text("a|b\nc"), _text("<b>")
    ('12,345', 'a\\|b c', '&lt;b>')
    """
    if isinstance(cell, int):
        return f"{cell:,}"
    line = " ".join(str(cell).split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\|`*_[]" else c for c in line)
