"""Which configurations are tried: the configured one first, then every combination of a search.

A search names values by argument of the learner:

lr: [0.5, 1.0]             an argument of the factory: `torch:text`, or a function of yours
l2: [0.0, 0.01]            a parameter of a River estimator, in a pipeline of its last step
optimizer__lr: [0.01]      a parameter of a parameter
epochs: [1, 3]             how often all rows are learned
"""

from __future__ import annotations

import inspect
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from river.base import Base
from river.optim.schedulers import Constant

from online_learner.errors import ConfigError, StateError, did_you_mean
from online_learner.learners import Learner, Model, Ranker
from online_learner.learners.factory import SHORT, make_learner, resolve
from online_learner.learners.state import pack_state, unpack_state
from online_learner.schema import canonical
from online_learner.settings import ModelSpec
from online_learner.settings.parts import FactorySpec

EPOCHS = "epochs"
MOST = 64  # configurations of one job
MOST_EPOCHS = 100
INTO = "__"  # between a parameter and one of its own


@dataclass(frozen=True, slots=True)
class Configuration:
    """What one learner is made of, where that differs from the configuration, and how it learns."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 1

    def told(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {**self.arguments, EPOCHS: self.epochs}

    @property
    def name(self) -> str:
        """It in a few words.

        >>> Configuration({"lr": 0.1}, 3).name, Configuration().name
        ('lr=0.1, epochs=3', 'as configured, epochs=1')
        """
        changed = [f"{name}={value}" for name, value in self.arguments.items()]
        return ", ".join([*(changed or ["as configured"]), f"{EPOCHS}={self.epochs}"])


def configurations(
    spec: ModelSpec, search: Mapping[str, Sequence[Any]] | None = None
) -> list[Configuration]:
    """Return the configured one, and behind it every combination of a search, each once.

    Parameters
    ----------
    search
        Values by argument; None: as `retrain.search` says.

    Raises
    ------
    ConfigError
        The model has no learner, the learner has no such argument, a value is none that it takes,
        or its weights could not be taken by those who answer.
    """
    if spec.learner is None:
        raise ConfigError("this model has no learner, so there is nothing to train: name one")
    wanted = spec.retrain.search if search is None else search
    _check_names(spec, wanted)
    _check_count(math.prod(map(len, wanted.values())))
    found = {_key(one): one for one in _grid(spec, wanted)}
    _check_count(len(found))
    like = make_learner(spec)
    for one in found.values():
        _check_takeable(spec, one, like)
    return list(found.values())


def _check_count(count: int) -> None:
    if count > MOST:
        raise ConfigError(
            f"the search has {count} configurations, and a job tries {MOST} at most: leave out "
            "some values"
        )


def check_search(spec: ModelSpec) -> None:
    """Raise `ConfigError` where a configuration names a search that no job could do."""
    if spec.learner is not None and spec.retrain.search:
        configurations(spec)


def _grid(spec: ModelSpec, search: Mapping[str, Sequence[Any]]) -> list[Configuration]:
    first = Configuration(epochs=spec.retrain.epochs)
    others = []
    for values in itertools.product(*search.values()):
        chosen = dict(zip(search, values, strict=True))
        epochs = chosen.pop(EPOCHS, spec.retrain.epochs)
        others.append(Configuration(_changed(spec, chosen), epochs))
    return [first, *others]


def _changed(spec: ModelSpec, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return those arguments that are not as configured anyway."""
    as_it_is, absent = _as_it_is(spec), object()
    return {name: v for name, v in chosen.items() if as_it_is.get(name, absent) != v}


def _key(one: Configuration) -> str:
    return canonical(one.told())


def make(spec: ModelSpec, one: Configuration) -> Learner | Ranker:
    """Return a fresh learner of a configuration.

    Raises
    ------
    ConfigError
        It cannot be made so.
    """
    assert spec.learner is not None
    own = _factory_arguments(spec)
    given = {name: value for name, value in one.arguments.items() if name in own}
    rest = {name: value for name, value in one.arguments.items() if name not in own}
    factory = FactorySpec(use=spec.learner.use, **{**spec.learner.arguments, **given})
    try:
        made = make_learner(spec.model_copy(update={"learner": factory}))
        return _with(made, spec, rest) if rest else made
    except ConfigError:
        raise
    except Exception as error:  # whatever a factory finds wrong with a value
        raise ConfigError(
            f"no learner can be made with {one.name} ({type(error).__name__}): take other values"
        ) from error


def _with(made: Learner | Ranker, spec: ModelSpec, parameters: Mapping[str, Any]) -> Learner:
    from online_learner.learners.river import RiverLearner

    assert isinstance(made, RiverLearner)
    model = made.model
    for name, value in parameters.items():
        model = _set(model, name.split(INTO), value)
    return RiverLearner(model, task=made.task, labels=spec.labels)


def _set(model: Any, path: Sequence[str], value: Any) -> Any:
    """Return a fresh clone of a River model, with one parameter changed: of its last step."""
    steps = getattr(model, "steps", None)
    if steps:
        name, last = list(steps.items())[-1]
        return model.clone({name: _set(last, path, value)})
    first, *rest = path
    return model.clone({first: _set(_parameters(model)[first], rest, value) if rest else value})


# --- what can be searched ---------------------------------------------------------------------


def searchable(spec: ModelSpec) -> list[str]:
    """Return the arguments of a model's learner that a search may name, in order."""
    return sorted({*_as_it_is(spec), EPOCHS})


def _as_it_is(spec: ModelSpec) -> dict[str, Any]:
    """Return the arguments that a search may name, and their values now."""
    assert spec.learner is not None
    model = getattr(make_learner(spec), "model", None)
    given = {**_factory_arguments(spec), **spec.learner.arguments}
    if not isinstance(model, Base):
        return given
    found = _values(model)
    objects = {name.partition(INTO)[0] for name in found if INTO in name}  # no plain value is one
    return {**found, **{name: value for name, value in given.items() if name not in objects}}


def _factory_arguments(spec: ModelSpec) -> dict[str, Any]:
    """Return the arguments that the configuration's own factory takes, and their defaults."""
    assert spec.learner is not None
    first, *rest = (part.strip() for part in spec.learner.use.split("|"))
    path = SHORT.get(first, first)
    if rest:  # arguments go to the last one
        path = rest[-1] if ":" in rest[-1] else f"{first.partition(':')[0]}:{rest[-1]}"
    try:
        known = inspect.signature(resolve(path)).parameters.values()
    except (TypeError, ValueError):  # a class written in C
        return {}
    named = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    return {one.name: one.default for one in known if one.kind in named and one.name != "spec"}


def _values(model: Any, before: str = "", depth: int = 2) -> dict[str, Any]:
    """Return the parameters of a River model, and those of what these hold; of its last step."""
    steps = getattr(model, "steps", None)
    if steps:
        return _values(list(steps.values())[-1], before, depth)
    found: dict[str, Any] = {}
    for name, value in _parameters(model).items():
        if isinstance(value, Constant):  # it stands for its number
            found[before + name] = value.learning_rate
        elif not isinstance(value, Base):
            found[before + name] = value
        elif depth > 1:
            found |= _values(value, f"{before}{name}{INTO}", depth - 1)
    return found


def _parameters(model: Any) -> dict[str, Any]:
    """Return the parameters of a River model, by name."""
    return {name: getattr(model, name, None) for name in model._get_params()}  # noqa: SLF001


def _check_names(spec: ModelSpec, search: Mapping[str, Sequence[Any]]) -> None:
    known = searchable(spec)
    for name, values in search.items():
        if name not in known:
            raise ConfigError(
                f"search: the learner has no argument of that name.{did_you_mean(name, known)} "
                f"It has these: {', '.join(known)}"
            )
        if not values:
            raise ConfigError(f"search: `{name}` names no value to try")
        if not _plain(values):
            raise ConfigError(
                f"search: values of `{name}` are finite numbers, words, true or false, or lists "
                "and objects of these"
            )
    for value in search.get(EPOCHS, ()):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_EPOCHS:
            raise ConfigError(f"search: `{EPOCHS}` are whole numbers from 1 to {MOST_EPOCHS}")


def _plain(values: Sequence[Any]) -> bool:
    """Tell whether values can be written down as JSON."""
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _check_takeable(spec: ModelSpec, one: Configuration, like: Learner | Ranker) -> None:
    try:
        state_for(make(spec, one), like)
    except StateError as error:
        raise ConfigError(
            f"weights trained with {one.name} could not be taken by those who answer, whose "
            f"learner is as configured: {error}. Search what leaves the form of the weights as it "
            "is, or change the configuration itself"
        ) from error


def state_for(model: Model, like: Model) -> bytes:
    """Return a learner's state, packed, as a learner of the configuration can read it.

    How fast a torch head learned is no part of that.

    Raises
    ------
    StateError
        The weights are of another form.
    """
    blob = pack_state(model)
    try:
        unpack_state(blob, like)
    except StateError:
        wearing = getattr(like, "wearing", None)
        if wearing is None or type(model) is not type(like):
            raise
        return pack_state(wearing(model))
    return blob
