"""Types of columns: how they are named in a manifest, and how they are written as JSON."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa
from pydantic_core import from_json, to_json

from online_learner.errors import DataError

_JSON = {b"json": b"1"}
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
_KNOWN = (
    *(pa.string(), pa.bool_(), pa.int64(), pa.float64(), pa.timestamp("ms", "UTC")),
    *(pa.list_(pa.string()), pa.list_(_MESSAGE)),
)
TYPES = {str(kind): kind for kind in _KNOWN}


def json_field(name: str) -> pa.Field:
    """Return a column of JSON as text: it is an object in JSONL, and when rows are read."""
    return pa.field(name, pa.string(), metadata=_JSON)


def is_json(field: pa.Field) -> bool:
    """Tell whether a column holds JSON as text."""
    return (field.metadata or {}).get(b"json") == b"1"


def columns_of(schema: pa.Schema) -> dict[str, str]:
    """Return the names of the columns with their types, as a manifest has them.

    >>> columns_of(pa.schema([pa.field("at", pa.timestamp("ms", "UTC")), json_field("features")]))
    {'at': 'timestamp[ms, tz=UTC]', 'features': 'json'}

    Raises
    ------
    ValueError
        There is a type that no dataset has.
    """
    for field in schema:
        if str(field.type) not in TYPES:
            raise ValueError(f"columns of {field.type} are not written to datasets: {field.name}")
    return {field.name: "json" if is_json(field) else str(field.type) for field in schema}


def schema_of(columns: Mapping[str, str]) -> pa.Schema:
    """Return the schema that a manifest's columns tell; raises `DataError`: `other_form`."""
    if unknown := set(columns.values()) - {*TYPES, "json"}:
        raise DataError(
            f"there are columns of types that this release does not know: {sorted(unknown)}",
            code="other_form",
        )
    return pa.schema(
        [
            json_field(name) if kind == "json" else pa.field(name, TYPES[kind])
            for name, kind in columns.items()
        ]
    )


def lines(table: pa.Table) -> bytes:
    r"""Return rows as JSONL, times as RFC 3339.

    >>> schema = pa.schema([json_field("features"), pa.field("target", pa.bool_())])
    >>> lines(pa.table({"features": ['{"a": 1}'], "target": [True]}, schema=schema))
    b'{"features":{"a":1},"target":true}\n'
    """
    if not table.num_rows:
        return b""
    names = [to_json(name).decode() for name in table.schema.names]
    written = [
        list(map(_writer(field), column.to_pylist()))
        for field, column in zip(table.schema, table.columns, strict=True)
    ]
    rows = (
        "{" + ",".join(f"{name}:{cell}" for name, cell in zip(names, row, strict=True)) + "}\n"
        for row in zip(*written, strict=True)
    )
    return "".join(rows).encode()


def parse_lines(found: Iterable[bytes], schema: pa.Schema) -> pa.Table:
    """Return the rows that lines of JSON hold, as `lines` wrote them."""
    rows = [from_json(line) for line in found]
    arrays = []
    for field in schema:
        cells = [row[field.name] for row in rows]
        if is_json(field):
            cells = [None if cell is None else to_json(cell).decode() for cell in cells]
        elif pa.types.is_timestamp(field.type):
            cells = [None if cell is None else dt.datetime.fromisoformat(cell) for cell in cells]
        arrays.append(pa.array(cells, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def records(table: pa.Table) -> list[dict[str, Any]]:
    """Return rows as dictionaries, JSON as the objects that it stands for."""
    cells = {
        field.name: [
            from_json(cell) if is_json(field) and cell is not None else cell
            for cell in column.to_pylist()
        ]
        for field, column in zip(table.schema, table.columns, strict=True)
    }
    return [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]


def _writer(field: pa.Field) -> Callable[[Any], str]:
    if is_json(field):
        return _object
    if pa.types.is_timestamp(field.type):
        return _time
    return lambda cell: to_json(cell).decode()


def _object(cell: str | None) -> str:
    return "null" if cell is None else to_json(from_json(cell)).decode()  # in one line, compact


def _time(cell: dt.datetime | None) -> str:
    if cell is None:
        return "null"
    return f'"{cell.astimezone(dt.UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")}Z"'
