"""Where what is not a person's speaks of them: tables, alarms, reasons, what observers know."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any

from online_learner.forget.person import Person, parsed
from online_learner.forget.streams import Change, Judge
from online_learner.schema import pack
from online_learner.store import Entry

NOBODY = "a rater"  # in sentences, in the place of one
GONE = "erased: nothing of it is kept"
UNREADABLE = "unreadable"  # how the reason begins that may repeat what was sent


def in_controls(person: Person) -> Judge:
    """Return what becomes of control entries: tables lose the rows of this person."""

    def judge(entry: Entry) -> Change | None:
        packed = entry[1].get(b"c")
        return None if packed is None else _cleaned("c", packed, person)

    return judge


def in_alarms(person: Person) -> Judge:
    """Return what becomes of alarms: those that name this person name a rater."""

    def judge(entry: Entry) -> Change | None:
        return _cleaned("a", entry[1].get(b"a", b""), person)

    return judge


def in_steps(signals: AbstractSet[str]) -> Judge:
    """Return what becomes of steps: why one of these signals was unreadable is told no more."""

    def judge(entry: Entry) -> Change | None:
        packed = entry[1].get(b"s", b"")
        if UNREADABLE.encode() not in packed:
            return None
        step = parsed(packed)
        aside: dict[str, str] = step.get("set_aside", {})
        told = {e for e, why in aside.items() if e in signals and _may_tell(why)}
        if not told:
            return None
        step["set_aside"] = {e: GONE if e in told else why for e, why in aside.items()}
        return Change("put", (("s", pack(step)),))

    return judge


def _may_tell(why: str) -> bool:
    return why.startswith(UNREADABLE)


def _cleaned(field: str, packed: bytes, person: Person) -> Change | None:
    if not person.may_be_in(packed):
        return None
    before = parsed(packed)
    if not person.names:  # they can be found, and not taken out
        return Change("put") if speaks_of(before, person) else None
    after = without(before, person)
    return None if after == before else Change("put", ((field, pack(after)),))


def speaks_of(value: Any, person: Person) -> bool:
    """Tell whether plain JSON has the source of a person, as a key or as a text of its own."""
    if isinstance(value, dict):
        return any(person.speaks(name) or speaks_of(item, person) for name, item in value.items())
    if isinstance(value, list):
        return any(speaks_of(item, person) for item in value)
    return isinstance(value, str) and person.speaks(value)


def without(value: Any, person: Person) -> Any:
    """Return plain JSON without a person: no key, no item and no word of a text is their source.

    Examples
    --------
    >>> from online_learner.ids import Keyring
    >>> ada = Person.named(Keyring({1: bytes(32)}), "m", "ada")
    >>> without({"weights": {"human:ada": 2.0, "human:eve": 1.0}, "inverted": ["human:ada"]}, ada)
    {'weights': {'human:eve': 1.0}, 'inverted': []}
    >>> without({"sentence": "human:ada says the opposite.", "by": "human:ada"}, ada)
    {'sentence': 'a rater says the opposite.', 'by': 'a rater'}
    """
    sources = person.sources
    pattern = re.compile("|".join(rf"{re.escape(s)}(?!\w)" for s in sorted(sources, key=len)[::-1]))

    def clean(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: clean(item) for name, item in part.items() if name not in sources}
        if isinstance(part, list):
            return [clean(item) for item in part if not (isinstance(item, str) and item in sources)]
        return pattern.sub(NOBODY, part) if isinstance(part, str) else part

    return clean(value)


def words_left(document: Any, words: Iterable[str]) -> bool:
    """Tell whether one of these words is in plain JSON: as a key, or as a text of its own."""
    wanted = set(words)
    text = json.dumps(document)
    likely = {word for word in wanted if json.dumps(word)[1:-1] in text}
    return bool(likely) and _has(document, likely)


def _has(part: Any, words: set[str]) -> bool:
    if isinstance(part, dict):
        return any(_named(name, words) or _has(item, words) for name, item in part.items())
    if isinstance(part, list):
        return any(_has(item, words) for item in part)
    return isinstance(part, str) and _named(part, words)


def _named(text: str, words: set[str]) -> bool:
    """Tell whether a text is a word, or ends with one: `feature <name>`, `output <label>`."""
    return text in words or any(text.endswith(f" {word}") for word in words)
