"""What a team tunes, built from the import paths and arguments in a model's configuration."""

from __future__ import annotations

from typing import Any

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
    """Build the rules on inputs, outputs, comments and corrections.

    A model's `output_schema` is one of them: a correction that breaks it is refused.
    """
    rules = list(spec.rules)
    if spec.output_schema is not None:
        kept = {"name": "output_schema", "on": "feedback", "severity": "block"}
        rules.append({"rule": "json_schema", "schema": spec.output_schema, **kept})
    try:
        return resolve(RULES)(rules)
    except ValueError as error:
        raise ConfigError(str(error)) from error
