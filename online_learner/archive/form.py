"""The columns of the archive's files: every field of an entry as it was, byte for byte.

An entry is a row: its `id`, the time that is in it, a column for each field, and `more` for what
is none of them. Beside them stand columns that are read off the records, so that a file can be
searched without reading these.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import pyarrow as pa
from pydantic_core import from_json, to_json

from online_learner.ids import entry_order
from online_learner.store import Entry, Fields

VERSION = 1
ERASED = (b"x", "erased")
_TIME = pa.timestamp("ms", tz="UTC")
_MORE = pa.map_(pa.binary(), pa.binary())
_LARGEST = (1 << 63) - 1

Derived = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Form:
    """The columns of one stream.

    Parameters
    ----------
    fields
        The column of each field of the store.
    derived
        The types of what is read off the records.
    derive
        Returns these, of entries.
    """

    fields: dict[bytes, str]
    derived: dict[str, pa.DataType]
    derive: Callable[[Sequence[Fields]], Derived]

    @property
    def schema(self) -> pa.Schema:
        """The columns of a file, in order."""
        return pa.schema(
            [
                pa.field("id", pa.string(), nullable=False),
                pa.field("at", _TIME, nullable=False),
                *(pa.field(column, pa.string()) for column in self.fields.values()),
                *(pa.field(column, kind) for column, kind in self.derived.items()),
                pa.field("more", _MORE),
            ]
        )


def encode(stream: str, entries: Sequence[Entry]) -> pa.Table:
    """Return entries as rows.

    A value that is no text, which none of ours is, goes to `more` under the name of its field.
    """
    form = FORMS[stream]
    ids = [entry for entry, _ in entries]
    found = [fields for _, fields in entries]
    more = _more(form, found)
    arrays: list[pa.Array] = [
        pa.array(ids, pa.string()),
        pa.array([min(int(i.partition("-")[0]), _LARGEST) for i in ids], pa.int64()).cast(_TIME),
    ]
    for field in form.fields:
        values = pa.array([fields.get(field) for fields in found], pa.binary())
        try:
            arrays.append(values.cast(pa.string()))
        except pa.ArrowInvalid:
            arrays.append(pa.array(_texts(field, found, more), pa.string()))
    derived = form.derive(found)
    arrays += [pa.array(derived[column], kind) for column, kind in form.derived.items()]
    given = [list(more[n].items()) if n in more else None for n in range(len(found))]
    arrays.append(pa.array(given, _MORE) if more else pa.nulls(len(found), _MORE))
    return pa.table(arrays, schema=form.schema)


def decode(stream: str, table: pa.Table) -> list[Entry]:
    """Return the entries of rows, as they were in the store."""
    form = FORMS[stream]
    found: list[Fields] = [{} for _ in range(table.num_rows)]
    for field, column in form.fields.items():
        values = table.column(column)
        if values.null_count < len(found):
            for fields, value in zip(found, values.cast(pa.binary()).to_pylist(), strict=True):
                if value is not None:
                    fields[field] = value
    if table.column("more").null_count < len(found):
        for fields, pairs in zip(found, table.column("more").to_pylist(), strict=True):
            fields.update(pairs or ())
    return list(zip(table.column("id").to_pylist(), found, strict=True))


def sliced(table: pa.Table, after: str, until: str) -> pa.Table:
    """Return the rows after one entry, up to and with another."""
    ids = table.column("id").to_pylist()
    begin = bisect_right(ids, entry_order(after), key=entry_order)
    end = bisect_right(ids, entry_order(until), key=entry_order)
    return table.slice(begin, max(0, end - begin))


def _more(form: Form, found: Sequence[Fields]) -> dict[int, Fields]:
    """Return what has no column of its own, by row."""
    known = form.fields.keys()
    return {
        row: {name: value for name, value in fields.items() if name not in known}
        for row, fields in enumerate(found)
        if not fields.keys() <= known
    }


def _texts(field: bytes, found: Sequence[Fields], more: dict[int, Fields]) -> list[str | None]:
    """Return a column's texts; what is none goes to `more`."""
    texts: list[str | None] = []
    for row, fields in enumerate(found):
        value = fields.get(field)
        try:
            texts.append(None if value is None else value.decode())
        except UnicodeDecodeError:
            more.setdefault(row, {})[field] = value or b""
            texts.append(None)
    return texts


# --- what is read off the records -------------------------------------------------------------


def _object(text: bytes | None) -> dict[str, Any]:
    """Return a record, or nothing where it is none."""
    if text is None:
        return {}
    try:
        found = from_json(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _str(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _int(value: Any) -> int | None:
    return value if type(value) is int and -_LARGEST <= value <= _LARGEST else None


def _of_predictions(found: Sequence[Fields]) -> Derived:
    records = [_object(fields.get(b"r")) for fields in found]
    return {
        "user": [_str(record.get("user_id")) for record in records],
        "session": [_str(record.get("session_id")) for record in records],
        "external": [_str(record.get("external_id")) for record in records],
        "version": [_int(record.get("version")) for record in records],
        "role": [_str(record.get("role", "champion")) if record else None for record in records],
        "output": [_json(record["output"]) if "output" in record else None for record in records],
        "audited": [_is_audited(record) if record else None for record in records],
    }


def _json(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool | str) else to_json(value).decode()


def _is_audited(record: dict[str, Any]) -> bool:
    ask = record.get("ask")
    return isinstance(ask, dict) and ask.get("reason") == "audit"


def _of_feedback(found: Sequence[Fields]) -> Derived:
    records = [_object(fields.get(b"r")) for fields in found]
    return {
        **_of_late(found),
        "action": [_str(_object(fields.get(b"c")).get("action")) for fields in found],
        "user": [_str(record.get("user_id")) for record in records],
        "session": [_str(record.get("session_id")) for record in records],
    }


def _of_late(found: Sequence[Fields]) -> Derived:
    signals = [_object(fields.get(b"f")) for fields in found]
    return {
        "kind": [_str(signal.get("kind")) for signal in signals],
        "source": [_str(signal.get("source")) for signal in signals],
    }


def _of_verdicts(found: Sequence[Fields]) -> Derived:
    verdicts = [_object(fields.get(b"v")) for fields in found]
    return {
        "action": [_str(verdict.get("action")) for verdict in verdicts],
        "version": [_int(verdict.get("version")) for verdict in verdicts],
    }


def _nothing(_: Sequence[Fields]) -> Derived:
    return {}


_SAID = dict(zip(("kind", "source"), repeat(pa.string())))
_BY = dict(zip(("user", "session"), repeat(pa.string())))

FORMS: dict[str, Form] = {
    "predictions": Form(
        dict([(b"n", "nonce"), (b"r", "record"), ERASED]),
        {
            **_BY,
            "external": pa.string(),
            "version": pa.int64(),
            "role": pa.string(),
            "output": pa.string(),  # JSON
            "audited": pa.bool_(),
        },
        _of_predictions,
    ),
    "feedback": Form(
        dict(
            [
                (b"n", "nonce"),
                (b"f", "signal"),
                (b"p", "prediction"),
                (b"r", "record"),
                (b"o", "other"),
                (b"s", "replaces"),
                (b"c", "control"),
                ERASED,
            ]
        ),
        {**_SAID, "action": pa.string(), **_BY},
        _of_feedback,
    ),
    "late": Form(
        dict(
            [
                (b"n", "nonce"),
                (b"f", "signal"),
                (b"p", "prediction"),
                (b"m", "prediction_nonce"),
                (b"q", "other"),
                (b"t", "other_nonce"),
                (b"s", "replaces"),
                ERASED,
            ]
        ),
        dict(_SAID),
        _of_late,
    ),
    "steps": Form({b"s": "step"}, {}, _nothing),
    "quarantine": Form({b"e": "entry", b"q": "record"}, {}, _nothing),
    "verdicts": Form(
        {b"v": "verdict"}, {"action": pa.string(), "version": pa.int64()}, _of_verdicts
    ),
    "resets": Form({b"r": "reset"}, {}, _nothing),
    "evidence": Form({b"e": "evidence"}, {}, _nothing),
}
STREAMS = tuple(FORMS)
