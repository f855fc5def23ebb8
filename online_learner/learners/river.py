"""Any River estimator or pipeline as a learner."""

from __future__ import annotations

import inspect
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

from river import base, compose

from online_learner.errors import StateError
from online_learner.learners import Answer
from online_learner.learners.digest import state_digest
from online_learner.learners.unpickle import Allowed, NotAllowed, dumps, loads
from online_learner.requests import MAX_MAGNITUDE, Features
from online_learner.schema import Example, Label, Lesson, finite, label_key

_CODES = (False, True)
LEAST_WEIGHT = 0.5


class RiverLearner:
    """A River classifier or regressor behind the `Learner` protocol.

    Parameters
    ----------
    model
        The estimator or pipeline. It is owned by the learner from here on.
    task
        `classification` or `regression`.
    labels
        The closed set of labels; left out, labels are learned as they come.
    """

    family = "river"

    def __init__(
        self,
        model: Any,
        *,
        task: Literal["classification", "regression"],
        labels: Sequence[Label] | None = None,
    ) -> None:
        self.model = model
        self.task = task
        self.labels = None if labels is None else tuple(labels)
        self._prior = {label_key(y): 1.0 / len(labels) for y in labels} if labels else {}
        self._by_key = {label_key(y): y for y in labels or ()}
        # Binary models of River know False and True only: two other labels travel as those.
        binary = labels is not None and len(labels) == len(_CODES) and set(labels) != set(_CODES)
        binary = binary and not getattr(model, "_multiclass", True)
        self._codes: dict[Any, bool] = (
            dict(zip(self.labels or (), _CODES, strict=True)) if binary else {}
        )
        last = getattr(model, "steps", None)
        final = list(last.values())[-1] if last else model
        self._weighted = "w" in inspect.signature(final.learn_one).parameters
        self._notes = list(_notes(model))
        self._asking = threading.Lock()
        self._fitted = False
        self._allowed: Allowed | None = None  # in its pickles

    @property
    def fitted(self) -> bool:
        """Whether the model differs from a fresh clone of itself."""
        if not self._fitted:  # what has been learned is never unlearned
            self._fitted = state_digest(self.model) != state_digest(self.model.clone())
        return self._fitted

    def predict(self, batch: Sequence[Features]) -> list[Answer]:
        """Answer each of the feature dicts.

        Raises
        ------
        FloatingPointError
            The model makes no number of these features.
        Exception
            Whatever the model raises where it cannot take them.
        """
        answer = self._classify if self.task == "classification" else self._regress
        return [answer(features) for features in batch]

    def _classify(self, features: Features) -> Answer:
        found = self._ask(self.model.predict_proba_one, features)
        if not found or self._unprepared(found.values()):  # it has seen no label yet
            first = next(iter(self._by_key.values()), None)
            return Answer(first, dict(self._prior))
        if self._by_key:
            # By value, not by name: 0 is False, and 1 is True.
            codes = self._codes
            scores = {
                key: float(found.get(codes.get(y, y), 0.0)) for key, y in self._by_key.items()
            }
            best = max(scores, key=scores.__getitem__)
            return Answer(self._by_key[best], scores)
        scores = {label_key(y): float(p) for y, p in found.items()}
        return Answer(max(found, key=found.__getitem__), scores)

    def _regress(self, features: Features) -> Answer:
        value = self._ask(self.model.predict_one, features)
        if value is None or self._unprepared([value]):
            return Answer(0.0)
        return Answer(float(value))

    def _ask(self, method: Callable[[Features], Any], features: Features) -> Any:
        """Call the model, and have it forget the features that it has met in the question only.

        Otherwise whoever asks could fill the memory with names.
        """
        if not self._notes:
            return method(features)
        with self._asking:  # two threads would forget what the other one knows
            sizes = [len(notes) for notes in self._notes]
            try:
                return method(features)
            finally:
                for notes, size in zip(self._notes, sizes, strict=True):
                    while len(notes) > size:
                        notes.popitem()

    def _unprepared(self, numbers: Iterable[float]) -> bool:
        """Tell whether an answer is not finite for want of any lesson, as of some fresh scalers."""
        if finite(numbers):
            return False
        with self._asking:
            if self.fitted:
                raise FloatingPointError("the model's answer to these features is not finite")
        return True

    def learn(self, lessons: Sequence[Lesson]) -> None:
        """Learn one example after the other.

        What weighs nothing is left out. A model that takes no weights learns what weighs half an
        example or more as a whole one, and leaves the rest.

        Raises
        ------
        FloatingPointError
            The model's answer to an example is no longer finite, or beyond any number that is
            accepted, after learning it: its state is ruined, and has to be restored.
        TypeError
            A lesson is no example with a target.
        """
        learn_one, weighted = self.model.learn_one, self._weighted
        for example in lessons:
            if not isinstance(example, Example) or example.complementary:
                raise TypeError("a River model learns from targets only")
            if not example.weight or (not weighted and example.weight < LEAST_WEIGHT):
                continue
            target = self._codes.get(example.target, example.target)
            if weighted and example.weight != 1.0:
                learn_one(example.features, target, w=example.weight)
            else:
                learn_one(example.features, target)
            if not self._is_finite(example.features):
                raise FloatingPointError("the model's answer is not finite after this example")

    def _is_finite(self, features: Features) -> bool:
        if self.task == "regression":
            value = self.model.predict_one(features)
            return value is None or abs(value) <= MAX_MAGNITUDE  # no number beyond is ever right
        return all(map(math.isfinite, self.model.predict_proba_one(features).values()))

    def strangers(self, features: Features) -> list[Any]:
        """Return labels that it answers these features with, and the configuration does not have.

        A model that cannot answer them, as one of texts without a text, shows none.
        """
        if self.labels is None or self.task != "classification":
            return []
        expected: set[Label] = set(self._codes.values()) or set(self.labels)
        try:
            found = self._ask(self.model.predict_proba_one, features)
        except Exception:  # whatever the model raises
            return []
        return [label for label in found if label not in expected]

    def to_bytes(self) -> bytes:
        """Return the model's pickle. Only `registry` may hand such bytes back, after their seal."""
        return dumps((self._codes, self.model))

    def from_bytes(self, blob: bytes) -> RiverLearner:
        """Return a learner with the state of `blob`, whose seal has been verified.

        Raises
        ------
        StateError
            It cannot be read, is of other estimators, of labels that stood for other numbers, or
            names what this model has no use for; see `unpickle`.
        """
        return self._opened(blob, _read)

    def from_pickle(self, blob: bytes) -> RiverLearner:
        """Return a learner with the model of a bare pickle, such as `pickle.dump` writes.

        It is read as narrowly as a state is. Raises `StateError` as `from_bytes` does.
        """
        return self._opened(blob, lambda model: (self._codes, model, _kinds(model)))

    def _opened(
        self, blob: bytes, read: Callable[[Any], tuple[dict[Any, bool], Any, list[type]]]
    ) -> RiverLearner:
        if self._allowed is None:
            self._allowed = Allowed.of(self.model)
        try:
            was = read(loads(blob, self._allowed))
        except NotAllowed as error:
            raise StateError(
                f"the model's state is not as this model writes it: {error}. Nothing of it was "
                "run. Where it is yours after all, let the model hold such an object from the "
                "beginning, or define its class beside the model's other ones"
            ) from error
        except Exception as error:
            raise StateError(
                f"the model's state cannot be read ({error}): was it written by another version of "
                "River? Rebuild it by replaying the log."
            ) from error
        codes, model, kinds = was
        kinds_now = _kinds(self.model)
        if (codes, kinds) != (self._codes, kinds_now):
            raise StateError(
                "the state was written under another configuration (labels and estimators were "
                f"{_told(codes, kinds)}, and are {_told(self._codes, kinds_now)}): put it back, or "
                "give the changed model another name"
            )
        return self._with(model)

    def _with(self, model: Any) -> RiverLearner:
        try:
            made = type(self)(model, task=self.task, labels=self.labels)
        except Exception as error:
            raise StateError(f"the model's state is damaged: {error!r}") from error
        made._allowed = self._allowed  # noqa: SLF001
        return made

    def digest(self) -> str:
        """Return the digest of the model's state."""
        return state_digest(self.model)


def _read(state: Any) -> tuple[dict[Any, bool], Any, list[type]]:
    """Return codes, model and classes of a state, asking no object of it for anything.

    Raises
    ------
    TypeError
        It is none.
    """
    if type(state) is not tuple or len(state) != 2 or type(state[0]) is not dict:
        raise TypeError("it holds no model")
    return (*state, _kinds(state[1]))


def _kinds(model: Any) -> list[type]:
    """Return the class of a model and of each step: the parameters of some change as they learn."""
    kind = type(model)
    if not issubclass(kind, compose.Pipeline):
        return [kind]
    steps = vars(model)["steps"]
    if not issubclass(type(steps), dict):
        raise TypeError("it is a pipeline without steps")
    return [kind, *map(type, dict.values(steps))]


def _told(codes: dict[Any, bool], kinds: list[type]) -> str:
    shown = kinds[1:] or kinds
    return " | ".join([*([str(list(codes))] if codes else []), *(kind.__name__ for kind in shown)])


def _notes(model: Any) -> Iterator[defaultdict[Any, Any]]:
    """Yield the dicts in which transformers note each feature that they meet, even when asked."""
    if isinstance(model, compose.Pipeline):
        for step in model.steps.values():
            yield from _notes(step)
    elif isinstance(model, compose.TransformerUnion):
        for part in model.transformers.values():
            yield from _notes(part)
    elif isinstance(model, base.Transformer):
        yield from (value for value in vars(model).values() if isinstance(value, defaultdict))
