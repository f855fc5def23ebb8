"""What a team tunes, built from the import paths and arguments in a model's configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from online_learner.admit import Admission
from online_learner.errors import ConfigError
from online_learner.learners.factory import resolve
from online_learner.settings import ModelSpec

RULES = "policies.rules:Rules"


def make_policy(spec: ModelSpec) -> Any:
    """Build the promotion policy that a spec names."""
    kind = resolve(spec.promotion.policy)
    try:
        return kind(**spec.promotion.arguments)
    except TypeError as error:
        raise ConfigError(
            f"promotion: {spec.promotion.policy} does not take that: {error}"
        ) from error


def make_signals(spec: ModelSpec) -> Any:
    """Build the table of what signals mean."""
    return resolve(spec.signals)(
        spec.task,
        spec.labels,
        categories=spec.categories,
        implicit_weight=spec.implicit_weight,
    )


def make_rules(spec: ModelSpec) -> Any:
    """Build the rules on inputs, outputs, comments and corrections."""
    try:
        return resolve(RULES)(spec.rules)
    except ValueError as error:
        raise ConfigError(f"rules: {error}") from error


def make_admission(spec: ModelSpec, signals: Any, rules: Any) -> Admission:
    """Build the check of what may be said about an answer."""
    return Admission(spec, signals, rules, _conforms(spec.output_schema))


def _conforms(schema: dict[str, Any] | None) -> Callable[[Any], str | None]:
    """Return what tells why a value does not keep a JSON Schema."""
    if schema is None:
        return lambda _: None
    from jsonschema.exceptions import SchemaError, best_match
    from jsonschema.validators import validator_for

    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ConfigError(f"output_schema is no JSON Schema: {error.message}") from error
    validator = kind(schema)

    def why(value: Any) -> str | None:
        error = best_match(validator.iter_errors(value))
        return None if error is None else f"{error.json_path}: {error.message[:200]}"

    return why
