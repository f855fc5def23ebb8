"""A rule that checks structured answers against a JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, Self

from jsonschema import Draft202012Validator, SchemaError, validators
from jsonschema.exceptions import ValidationError as Breach
from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator
from pydantic import Field, PrivateAttr, model_validator
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import UnknownDialect, specification_with

from policies.rules.rule import Rule, Subject, at, several

_DIALECT = "https://json-schema.org/draft/2020-12/schema"  # where a schema names none
_MAX_BREACHES = 16  # of which the most telling one is told
_MAX_SHOWN = 80  # characters of a schema


def compiled(schema: dict[str, Any]) -> Validator:
    """Return a validator that fetches nothing, and takes linear time where jsonschema does not.

    Raises
    ------
    ValueError
        It is no JSON Schema, or a reference leads out of it; begins with the place in the schema.
    """
    kind = validators.validator_for(schema, default=Draft202012Validator)
    dialect = schema.get("$schema", _DIALECT)
    try:
        kind.check_schema(schema)
        resource = specification_with(dialect).create_resource(schema)
        _follow(resource, Registry().resolver_with_root(resource))
    except SchemaError as error:
        raise ValueError(f"{error.json_path[1:]}: {error.message}") from None
    except UnknownDialect:
        raise ValueError(f".$schema: '{dialect}' is not known here") from None
    except Unresolvable as error:
        raise ValueError(f": the reference '{error.ref}' leads nowhere in it") from None
    linear = validators.extend(kind, {"uniqueItems": _unique})  # type: ignore[no-untyped-call]
    # A `$schema` would bring the kind itself back wherever a reference leads to the root.
    rest = {key: part for key, part in schema.items() if key != "$schema"}
    validator: Validator = linear(rest, registry=Registry())
    return validator


def _follow(resource: Any, resolver: Any) -> None:
    """Look up every reference of a schema; `Unresolvable` where one leads nowhere."""
    if isinstance(resource.contents, dict) and "$ref" in resource.contents:
        resolver.lookup(resource.contents["$ref"])
    for part in resource.subresources():
        _follow(part, resolver.in_subresource(part))


def _unique(_: Validator, wanted: bool, items: Any, __: Any) -> Iterator[Breach]:
    # jsonschema compares objects in pairs: 2,000 take two seconds. (Here, 1 and 1.0 differ.)
    if wanted and isinstance(items, list):
        known = {json.dumps(item, sort_keys=True) for item in items}
        if len(known) < len(items):
            yield Breach("items are equal")


class JsonSchema(Rule):
    """A JSON Schema of a structured answer, or of the features.

    A text is checked as the JSON in it, unless the schema's `type` names `string`; `parse` says
    otherwise. References lead into the schema itself: nothing is fetched. `format` is not checked.
    """

    document: Annotated[dict[str, Any], Field(alias="schema")]
    parse: bool | None = None
    _validator: Validator = PrivateAttr()

    @model_validator(mode="after")
    def _build(self) -> Self:
        try:
            self._validator = compiled(self.document)
        except ValueError as error:
            raise ValueError(f"schema{error}") from None
        return self

    def details(self, subject: Subject) -> Iterator[str]:
        """Yield the most telling breach: its place, and what the schema says there."""
        value = subject.value
        if isinstance(value, str) and self._parses:
            try:
                value = json.loads(value, parse_constant=_refuse)
            except (ValueError, RecursionError):
                yield "is not JSON"
                return
        breach = best_match(islice(self._validator.iter_errors(value), _MAX_BREACHES))
        if breach is not None:
            place = subject.root
            for part in breach.absolute_path:
                place = (place, part)
            yield at(place, _told(breach))

    @property
    def _parses(self) -> bool:
        if self.parse is not None:
            return self.parse
        return "string" not in several(self.document.get("type"))


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _told(breach: Breach) -> str:
    """Return what the schema says, and nothing of the data; jsonschema's messages quote it."""
    if not breach.validator:
        return "is not allowed by the schema"
    wanted = json.dumps(breach.validator_value, default=str)
    if len(wanted) > _MAX_SHOWN:
        wanted = wanted[:_MAX_SHOWN] + "..."
    return f"breaks {breach.validator}: {wanted}"
