r"""Checks on what is asked, answered and said of it, that make the system's own flags.

    rules:
      - {rule: range, feature: age, low: 0, high: 130, severity: block}
      - {rule: vocabulary, values: [spam, ham]}
      - {rule: json_schema, schema: {type: object, required: [box]}, on: [output, feedback]}
      - {rule: personal_data, kinds: [email, card], severity: block}
      - {rule: blocklist, words: [damn], file: words.txt, name: profanity}
      - {rule: "my_team.rules:toxic", threshold: 0.8, on_error: block}

| key        | means                                                                             |
|------------|-----------------------------------------------------------------------------------|
| `rule`     | one of the kinds above, or the import path of a function (see `Hook`)             |
| `severity` | `note`, `warn` (the default) or `block`: `fallback` is served in the answer's place |
| `on`       | `input`, `output`, `feedback` (comments and corrections), or a list of them       |
| `name`     | what the flag is called; the kind, where it is left out                           |
| `on_error` | severity of the flag that is made where the rule itself fails: `note`             |

The other keys are the arguments of the kind. A flag says what was found and where, by JSON pointer
(`*` stands for a name that may be personal itself); it never holds what was found. The
configuration is trusted: the time that a pattern of a schema or a hook takes is its author's care.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from online_learner.schema import Flag, Option
from policies.rules.kinds import KINDS, Hook
from policies.rules.rule import Rule, Subject, Where, meant


class Rules:
    """The rules of one model, in the order of the configuration. Nothing in it ever changes.

    Each rule makes at most one flag a call.

    Parameters
    ----------
    documents
        The list `rules` of the model's configuration.

    Raises
    ------
    ValueError
        A rule is wrong: names its index, the key, and what may have been meant.

    Examples
    --------
    >>> rules = Rules([{"rule": "range", "feature": "age", "high": 130, "severity": "block"}])
    >>> [flag] = rules.of_input({"age": 1815})
    >>> flag.detail, flag.severity
    ('/features/age: is not at most 130', 'block')
    """

    def __init__(self, documents: Sequence[Mapping[str, Any]] = ()) -> None:
        rules = [_parse(f"rules[{i}]", document) for i, document in enumerate(documents)]
        self._rules: dict[Where, tuple[Rule, ...]] = {
            where: tuple(rule for rule in rules if rule.runs_on(where)) for where in get_args(Where)
        }

    def __bool__(self) -> bool:
        return any(self._rules.values())

    def of_input(self, features: Mapping[str, Any], options: Sequence[Option] = ()) -> list[Flag]:
        """Return what is wrong with the features, and with the options to choose from."""
        return self._flags("input", features, options)

    def of_output(self, output: Any) -> list[Flag]:
        """Return what is wrong with an answer: a label, a number, option ids, a text or any JSON.

        None is no answer, and nothing is wrong with it.
        """
        return self._flags("output", output)

    def of_comment(self, text: str | None) -> list[Flag]:
        """Return what is wrong with a comment."""
        return self._flags("comment", text)

    def of_correction(self, value: Any) -> list[Flag]:
        """Return what is wrong with a right answer that somebody gave."""
        return self._flags("correction", value)

    def _flags(self, where: Where, value: Any, options: Sequence[Option] = ()) -> list[Flag]:
        rules = self._rules[where]
        if not rules or value is None:
            return []
        subject = Subject(where, value, options)
        return [flag for rule in rules if (flag := rule.flag(subject)) is not None]


def _parse(place: str, document: Any) -> Rule:
    if not isinstance(document, Mapping):
        raise ValueError(f"{place}: must be a mapping such as {{rule: range, low: 0}}")  # noqa: TRY004
    # YAML 1.1 reads the key `on` as true.
    document = {"on" if key is True else str(key): value for key, value in document.items()}
    name = document.get("rule")
    if not isinstance(name, str):
        raise ValueError(f"{place}.rule: name a kind: {_choice()}")  # noqa: TRY004
    model = Hook if ":" in name else KINDS.get(name)
    if model is None:
        raise ValueError(f"{place}.rule: '{name}' is no kind.{meant(name, KINDS)} Use {_choice()}")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise ValueError(_explain(place, error, model)) from None


def _choice() -> str:
    return f"{', '.join(KINDS)}, or package.module:function"


def _explain(place: str, error: ValidationError, model: type[Rule]) -> str:
    known = [field.alias or name for name, field in model.model_fields.items()]
    lines = []
    for found in error.errors(include_url=False):
        key = ".".join((place, *map(str, found["loc"])))
        message = found["msg"].removeprefix("Value error, ")
        if found["type"] == "extra_forbidden":
            hint = meant(str(found["loc"][-1]), known)
            message = f"unknown key.{hint} Known: {', '.join(known)}"
        elif found["type"] == "literal_error":
            allowed = re.findall(r"'(\w+)'", found["ctx"]["expected"])
            message = f"{message}.{meant(str(found['input']), allowed)}"
        lines.append(f"{key}: {message}")
    return "; ".join(lines)
