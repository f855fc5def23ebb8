"""What a rule is, and what it looks at: an input, an output, a comment or a correction."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from online_learner.schema import Flag, Option, Severity
from policies.rules.personal_data import kinds_in

Where: TypeAlias = Literal["input", "output", "comment", "correction"]
Target: TypeAlias = Literal["input", "output", "feedback"]
Place: TypeAlias = "tuple[Place, str | int] | None"  # linked: a path costs nothing until it is told

_MAX_DETAILS = 5
_MAX_DETAIL = 300  # characters
_MAX_DEPTH = 8  # parts of a pointer that are told
_MAX_NAME = 64
_NESTED = (str, list, dict)


@dataclass(frozen=True, slots=True)
class Subject:
    """An input, an output, a comment or a correction, as the rules see it.

    `value` is any JSON; for an input, the features, with the options beside them.
    """

    where: Where
    value: Any
    options: Sequence[Option] = ()

    @property
    def root(self) -> Place:
        """Where `value` lies."""
        return (None, "features") if self.where == "input" else None

    def values(self, feature: str | None) -> Iterator[tuple[Place, Any]]:
        """Yield the value of a feature, wherever it is given; without one, the whole value."""
        if feature is None:
            yield self.root, self.value
            return
        options: Place = (None, "options")
        holders = [(self.root, self.value)]
        holders += [
            (((options, i), "features"), option.features) for i, option in enumerate(self.options)
        ]
        for place, holder in holders:
            if isinstance(holder, dict) and feature in holder:
                yield (place, feature), holder[feature]

    def texts(self, *, names: bool = True) -> Iterator[tuple[Place, str]]:
        """Yield every text, however deep it lies, in order; with `names`, those of objects too."""
        options = [{"id": option.id, "features": option.features} for option in self.options]
        stack: list[tuple[Place, Any]] = [((None, "options"), options), (self.root, self.value)]
        while stack:
            place, value = stack.pop()
            if isinstance(value, str):
                yield place, value
                continue
            items: Iterable[tuple[Any, Any]] = ()
            if isinstance(value, list):
                items = enumerate(value)
            elif isinstance(value, dict):
                items = value.items()
                if names:
                    yield from (((place, "*"), str(name)) for name in value)
            inner = [((place, key), item) for key, item in items if isinstance(item, _NESTED)]
            stack += reversed(inner)


def pointer(place: Place) -> str:
    """Return a place as a JSON pointer (RFC 6901), without names that may be personal data.

    >>> pointer((((None, "features"), "ada@example.org"), 2))
    '/features/*/2'
    """
    parts = []
    while place is not None:
        place, part = place
        parts.append(part)
    shown = [_shown(part) for part in reversed(parts[-_MAX_DEPTH:])]
    return "".join(f"/{part}" for part in shown) + ("/..." if len(parts) > _MAX_DEPTH else "")


def _shown(part: str | int) -> str:
    name = str(part)
    if len(name) > _MAX_NAME or not name.isprintable() or (part != "*" and kinds_in(name)):
        return "*"
    return name.replace("~", "~0").replace("/", "~1")


def at(place: Place, what: str) -> str:
    """Return what was found, with its place before it where there is one."""
    return ": ".join(filter(None, (pointer(place), what)))


def meant(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest known word, or an empty string.

    >>> meant("rnage", ["range", "vocabulary"])
    " Did you mean 'range'?"
    """
    close = get_close_matches(word, list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def several(value: Any) -> Any:
    """Return a list as a tuple, and anything else as a tuple of one."""
    return tuple(value) if isinstance(value, list) else (value,)


Targets: TypeAlias = Annotated[tuple[Target, ...], BeforeValidator(several), Field(min_length=1)]


class Rule(BaseModel):
    """What all kinds have. A kind adds its arguments as fields, and `details`.

    `usual` is what it runs on where the configuration does not say, and `reads_prose` whether it
    has anything to say on a comment, which is written for people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    usual: ClassVar[tuple[Target, ...]] = ("output",)
    reads_prose: ClassVar[bool] = False

    rule: str
    severity: Severity = "warn"
    on: Targets | None = None
    name: Annotated[str, Field(min_length=1, max_length=_MAX_NAME)] | None = None
    on_error: Severity = "note"

    @property
    def targets(self) -> tuple[Target, ...]:
        """What it runs on."""
        return self.on or self.usual

    def details(self, subject: Subject) -> Iterator[str]:
        """Yield what is wrong and where, never the data itself."""
        raise NotImplementedError

    def runs_on(self, where: Where) -> bool:
        """Tell whether it has anything to say on an input, an output, a comment, a correction."""
        if where == "comment":
            return self.reads_prose and "feedback" in self.targets
        return ("feedback" if where == "correction" else where) in self.targets

    def flag(self, subject: Subject) -> Flag | None:
        """Return what was found, if anything was. A rule that fails is a finding by itself."""
        severity = self.severity
        try:
            details = list(islice(self.details(subject), _MAX_DETAILS))
        except Exception as error:
            severity, details = self.on_error, [_failure(error)]
        if not details:
            return None
        detail = "; ".join(filter(None, details))[:_MAX_DETAIL]
        return Flag(
            rule=self.name or self.rule,
            severity=severity,
            where=subject.where,
            detail=detail.encode(errors="replace").decode(),  # half a surrogate pair has no JSON
        )


def _failure(error: Exception) -> str:
    # The message of the error may hold what the rule was given.
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"rule failed: {type(error).__name__} at {Path(last.filename).name}:{last.lineno}"


class FeatureRule(Rule):
    """A rule that may name a feature, which is then looked for in the input."""

    feature: str | None = None

    @property
    def targets(self) -> tuple[Target, ...]:
        """What it runs on."""
        return self.on or (self.usual if self.feature is None else ("input",))
