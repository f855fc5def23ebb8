"""From the configuration to a learner: import paths, short names, and what they may return.

    learner: river:preprocessing.StandardScaler | linear_model.LogisticRegression
    learner: {use: "torch:text", buckets: 65536}
    learner: my_team.models:learner

A factory that takes a parameter `spec` is given the model's configuration (task, labels, seed).
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Iterator
from typing import Any

from online_learner.errors import ConfigError, did_you_mean
from online_learner.learners import Learner, Model, Ranker
from online_learner.settings import ModelSpec

SHORT = {
    "torch:text": "online_learner.learners.torch.layered:text",
    "torch:dense": "online_learner.learners.torch.layered:dense",
    "torch:mixed": "online_learner.learners.torch.layered:mixed",
    "torch:ranking": "online_learner.learners.torch.ranking:ranker",
}
_TORCH = ("torch", "safetensors")


def resolve(path: str) -> Any:
    """Import `package.module:name`, or `package:module.name`.

    >>> resolve("river:linear_model.LogisticRegression").__name__
    'LogisticRegression'

    Raises
    ------
    ConfigError
        The path is not of that form, or leads nowhere; says what the module has instead.
    """
    module_name, _, names = path.partition(":")
    if not names:
        raise ConfigError(f"'{path}' is not an import path: write package.module:name")
    try:
        found = importlib.import_module(module_name)
    except ImportError as error:
        cure = ": pip install 'online-learner[torch]'" if error.name in _TORCH else ""
        raise ConfigError(f"cannot import '{module_name}' of '{path}': {error}{cure}") from error
    for name in names.split("."):
        found = _member(found, name, path)
    return found


def _member(holder: Any, name: str, path: str) -> Any:
    if hasattr(holder, name):
        return getattr(holder, name)
    if inspect.ismodule(holder) and hasattr(holder, "__path__"):
        try:
            return importlib.import_module(f"{holder.__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{holder.__name__}.{name}":
                raise ConfigError(f"cannot import '{path}': {error}") from error
    hint = did_you_mean(name, vars(holder))
    raise ConfigError(f"'{path}': '{holder.__name__}' has no '{name}'.{hint}")


def make_learner(spec: ModelSpec) -> Learner | Ranker:
    """Make the learner that a spec names.

    Raises
    ------
    ConfigError
        The factory cannot be found or called, or returns what cannot do the model's task.
    """
    made = _make(spec)
    ranks = spec.task in ("ranking", "generation")
    if ranks and isinstance(made, Ranker):
        return made
    if not ranks and isinstance(made, Learner):
        return made
    wanted, method = ("Ranker", "score") if ranks else ("Learner", "predict")
    raise ConfigError(
        f"learner: '{_name(spec)}' made a {type(made).__name__}, which cannot do the task "
        f"{spec.task}: return a River estimator, a torch.nn.Module, or an object with the "
        f"methods of online_learner.learners.{wanted} ({method}, learn, ...)"
    )


def _name(spec: ModelSpec) -> str:
    return "none" if spec.learner is None else spec.learner.use


def _make(spec: ModelSpec) -> Any:
    if spec.learner is None:
        from online_learner.learners.recorder import Recorder

        return Recorder()
    made = _call(spec, spec.learner.use, spec.learner.arguments)
    if isinstance(made, Model):
        return made
    from river.base import Estimator

    if isinstance(made, Estimator):
        return _river(made, spec)
    if type(made).__module__.startswith("torch.") or hasattr(made, "state_dict"):
        from online_learner.learners.torch.module import module

        return module(made, spec=spec)
    return made


def _call(spec: ModelSpec, path: str, arguments: dict[str, Any]) -> Any:
    first, *rest = (part.strip() for part in path.split("|"))
    made = _call_one(spec, SHORT.get(first, first), arguments if not rest else {})
    package = first.partition(":")[0]
    for i, name in enumerate(rest, start=1):
        step = name if ":" in name else f"{package}:{name}"
        made |= _call_one(spec, step, arguments if i == len(rest) else {})
    return made


def _call_one(spec: ModelSpec, path: str, arguments: dict[str, Any]) -> Any:
    factory = resolve(path)
    try:
        takes_spec = "spec" in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # a class written in C
        takes_spec = False
    given = {"spec": spec} if takes_spec else {}
    try:
        with _seeded(spec.seed):
            return factory(**arguments, **given)
    except TypeError as error:
        raise ConfigError(f"learner: '{path}' cannot be called so: {error}") from error


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let torch draw the same first weights each time, where a factory uses it."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _river(made: Any, spec: ModelSpec) -> Learner:
    from online_learner.learners.river import RiverLearner

    if spec.task not in ("classification", "regression"):
        raise ConfigError(
            f"learner: '{_name(spec)}' is a River estimator, and the task is {spec.task}: "
            "use torch:ranking, or an object with the methods of online_learner.learners.Ranker"
        )
    labels = len(spec.labels or ())
    if labels > 2 and not getattr(made, "_multiclass", True):
        raise ConfigError(
            f"'{_name(spec)}' returned a model of two labels, and {labels} are configured: "
            "wrap it in river.multiclass.OneVsRestClassifier"
        )
    return RiverLearner(made, task=spec.task, labels=spec.labels)
