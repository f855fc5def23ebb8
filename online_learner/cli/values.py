"""What is typed on the command line, as it is meant."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import typer

T = TypeVar("T")

KINDS = (
    "thumbs up|down; correction VALUE; rating 4, 4/5 or 8/10; selection VALUE (null: none of "
    "them); preference CHOSEN REJECTED or 'a>b'; ranking 'a>b>c' or a JSON list; category NAME; "
    "flag RULE; implicit EVENT or EVENT=NUMBER"
)
STARS = 5.0  # 4/5 are stars, from 1; 8/10 is on a scale from 0


def read_signal(kind: str, words: list[str]) -> dict[str, Any]:
    """Return the fields of a signal.

    >>> read_signal("thumbs", ["down"]), read_signal("rating", ["8/10"])
    ({'value': False}, {'value': 8.0, 'scale': [0.0, 10.0]})
    >>> read_signal("preference", ["a>b"]), read_signal("ranking", ["a", "c", "b"])
    ({'chosen': 'a', 'rejected': 'b'}, {'value': ['a', 'c', 'b']})
    >>> read_signal("flag", ["toxicity"]), read_signal("implicit", ["dwell=31"])
    ({'rule': 'toxicity'}, {'event': 'dwell', 'value': 31.0})
    """
    if kind == "preference":
        return _preference(_in_order(words))
    if kind == "ranking":
        return {"value": _in_order(words)}
    if len(words) != 1:
        raise typer.BadParameter(f"a {kind} takes one value: put quotes around it")
    return _READERS.get(kind, _value)(words[0])


def _in_order(words: list[str]) -> list[str]:
    """Return names, best first: each a word, or all in one as `a>b>c` or a JSON list.

    >>> _in_order(["a > b"]), _in_order(['["a>1", "b"]'])
    (['a', 'b'], ['a>1', 'b'])
    """
    if len(words) > 1:
        return words
    found = read_value(words[0])
    return found if isinstance(found, list) else [name.strip() for name in words[0].split(">")]


def _preference(names: list[str]) -> dict[str, Any]:
    if len(names) != 2:
        raise typer.BadParameter("a preference is between two: CHOSEN REJECTED, or 'a>b'")
    return {"chosen": names[0], "rejected": names[1]}


def _thumbs(text: str) -> dict[str, Any]:
    return {"value": text == "up" if text in {"up", "down"} else read_value(text)}


def _rating(text: str) -> dict[str, Any]:
    value, slash, most = text.partition("/")
    try:
        if not slash:
            return {"value": float(value)}
        high = float(most)
        return {"value": float(value), "scale": [1.0 if high == STARS else 0.0, high]}
    except ValueError:
        raise typer.BadParameter(f"'{text}' is no rating: write 4, 4/5 or 8/10") from None


def _implicit(text: str) -> dict[str, Any]:
    event, equals, value = text.partition("=")
    try:
        return {"event": event, "value": float(value)} if equals else {"event": event}
    except ValueError:
        raise typer.BadParameter(f"'{value}' is no number: write EVENT=NUMBER") from None


def _value(text: str) -> dict[str, Any]:
    return {"value": read_value(text)}


_READERS: dict[str, Callable[[str], dict[str, Any]]] = {
    "thumbs": _thumbs,
    "rating": _rating,
    "category": lambda text: {"value": text},
    "flag": lambda text: {"rule": text},
    "implicit": _implicit,
}


def read_value(text: str) -> Any:
    """Return a value: JSON where it is that, else the text itself.

    >>> read_value("true"), read_value("3.5"), read_value("spam"), read_value('"3"')
    (True, 3.5, 'spam', '3')
    """
    try:
        return json.loads(text, parse_constant=_not_a_number)
    except ValueError:
        return text


def read_json(text: str, kind: type[T], form: str) -> T:
    """Return the JSON in an argument, a file (`@file`) or standard input (`-`).

    >>> read_json('{"links": 3}', dict, '{"name": 1}')
    {'links': 3}
    """
    try:
        found = json.loads(_source(text), parse_constant=_not_a_number)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{error}. Write '{form}', @FILE or -") from None
    if not isinstance(found, kind):
        raise typer.BadParameter(f"write it as '{form}'")
    return found


def _source(text: str) -> str:
    if text == "-":
        return sys.stdin.read()
    return Path(text[1:]).read_text() if text.startswith("@") else text


def _not_a_number(name: str) -> Any:
    raise ValueError(f"{name} is not a number that can be sent")
