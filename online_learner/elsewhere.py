"""Stage 1, for answers made elsewhere: what a client, or another system, answered in our place.

They are checked as our own would be: a label of the set, a finite number, ids among the options.
None of our weights had to do with them, so they bear the lineage 0, which is none of ours: feedback
on them is learned, and no version is judged by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from online_learner.errors import Invalid
from online_learner.ingest.admit import target_value
from online_learner.requests import LogRequest
from online_learner.schema import Option, Output, label_key
from online_learner.settings import ModelSpec

_GENERATED = ("prompt", "messages", "outputs", "request", "response")
_ANSWERED = ("features", "options", "output", "scores")


@dataclass(frozen=True, slots=True)
class Made:
    """What was asked and answered elsewhere, once it is checked."""

    features: dict[str, Any]
    options: list[Option]
    output: Output
    scores: dict[str, float]

    @property
    def uncertainty(self) -> float:
        """One minus the largest probability, where the scores are some."""
        if not self.scores or isinstance(self.output, list):
            return 0.0
        return 1.0 - max(self.scores.values())


def check_generated(request: LogRequest) -> None:
    """Raise `Invalid` where an answer of a generator has fields of other tasks."""
    _refuse(request, _ANSWERED, "is not for task: generation; send prompt or messages, and outputs")


def read_made(request: LogRequest, spec: ModelSpec) -> Made:
    """Return an answer to a task other than `generation`.

    Raises
    ------
    Invalid
        It is not complete, or is none that a model of this task can give.
    """
    _refuse(request, _GENERATED, f"is for task: generation, not {spec.task}; send features, output")
    if request.features is None:
        raise Invalid.at("/features", "this field is required")
    if request.output is None:
        raise Invalid.at("/output", "this field is required: what was answered")
    if spec.task == "ranking":
        options = _options(request)
        output = _order(request.output, options)
        return Made(request.features, options, output, _rewards(request, options))
    if request.options is not None:
        raise Invalid.at("/options", f"are for models that rank; the task is {spec.task}")
    if isinstance(request.output, list):
        raise Invalid.at("/output", "is a list, which only a model that ranks answers with")
    answer = target_value(request.output, spec, "/output")
    return Made(request.features, [], answer, _probabilities(request, spec))


def _refuse(request: LogRequest, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if getattr(request, name) not in (None, [], {}):
            raise Invalid.at(f"/{name}", why)


def _options(request: LogRequest) -> list[Option]:
    if request.options is None:
        raise Invalid.at("/options", "this model ranks: send the options that there were")
    return [Option(id=option.id, features=option.features) for option in request.options]


def _order(output: Any, options: list[Option]) -> list[str]:
    if not isinstance(output, list):
        raise Invalid.at("/output", "must be the ids of the options, in the order shown")
    known = {option.id for option in options}
    left = set(known)
    for index, name in enumerate(output):
        if name not in known:
            raise Invalid.at(f"/output/{index}", "is the id of none of the options")
        if name not in left:
            raise Invalid.at(f"/output/{index}", "stands there twice")
        left.remove(name)
    return output


def _rewards(request: LogRequest, options: list[Option]) -> dict[str, float]:
    if not request.scores.keys() <= {option.id for option in options}:
        raise Invalid.at("/scores", "has an id that is none of the options'")
    return request.scores


def _probabilities(request: LogRequest, spec: ModelSpec) -> dict[str, float]:
    scores = request.scores
    if spec.task == "regression":
        if scores:
            raise Invalid.at("/scores", "are for models that choose; this one answers with numbers")
        return {}
    if spec.labels is not None and not scores.keys() <= {label_key(it) for it in spec.labels}:
        raise Invalid.at("/scores", "has a name that is no label of this model")
    if not all(0.0 <= score <= 1.0 for score in scores.values()):
        raise Invalid.at("/scores", "are probabilities: each from 0 to 1")
    return scores
