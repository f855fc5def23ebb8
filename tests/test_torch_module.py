"""A module of the user's own learns, answers and travels like any other head."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from online_learner.errors import ConfigError, StateError
from online_learner.learners.factory import make_learner
from online_learner.learners.torch import tensors
from online_learner.learners.torch.module import ModuleHead, module
from online_learner.schema import Example
from online_learner.settings import ModelSpec

ABC = ["a", "b", "c"]


def spec(task: str = "classification", **more: Any) -> ModelSpec:
    """Return a configuration."""
    return ModelSpec.model_validate({"task": task, "learner": "my:model", **more})


def network(outputs: int = 3) -> nn.Module:
    """Return a small network of fixed weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, outputs))


def head(outputs: int = 3, labels: list[str] | None = None, **more: Any) -> ModuleHead:
    """Return a classifier."""
    return module(network(outputs), spec=spec(labels=labels or ABC), lr=0.01, **more)


def examples(count: int, seed: int = 0) -> list[Example]:
    """Return vectors, and which of their first three places is the largest."""
    matrix = np.random.default_rng(seed).normal(size=(count, 4))
    return [Example({"e": x.tolist()}, ABC[int(x[:3].argmax())]) for x in matrix]


def taught(learner: ModuleHead, lessons: list[Example]) -> ModuleHead:
    """Return the head after the lessons."""
    for start in range(0, len(lessons), 32):
        learner.learn(lessons[start : start + 32])
    return learner


def accuracy(learner: ModuleHead, lessons: list[Example]) -> float:
    """Return the share of right answers."""
    answers = learner.predict([lesson.features for lesson in lessons])
    return sum(a.output == e.target for a, e in zip(answers, lessons, strict=True)) / len(lessons)


def test_a_module_learns() -> None:
    """A network is trained by its lessons."""
    assert accuracy(taught(head(), examples(3000)), examples(300, seed=1)) > 0.85


@pytest.mark.parametrize("outputs", [1, 2])
def test_two_labels_take_one_logit_or_two(outputs: int) -> None:
    """A module with one logit says that of the second label."""
    lessons = [Example(e.features, "b" if e.target == "b" else "a") for e in examples(2000)]
    learner = taught(head(outputs, ["a", "b"]), lessons)
    assert accuracy(learner, lessons[:300]) > 0.85


def test_numbers_are_in_the_units_of_the_target() -> None:
    """A fresh module answers with its own number, and moves towards the targets."""
    made = network(1)
    learner = module(made, spec=spec("regression"), lr=0.01, loss="squared")
    raw = made(torch.zeros(1, 4)).item()
    assert learner.predict([{}])[0].output == pytest.approx(raw)
    lessons = [Example(e.features, 3.0 * e.features["e"][0] + 5.0) for e in examples(2000)]
    taught(learner, lessons)
    answers = [float(a.output) for a in learner.predict([e.features for e in lessons])]  # type: ignore[arg-type]
    assert np.mean([abs(a - e.target) for a, e in zip(answers, lessons, strict=True)]) < 0.5  # type: ignore[operator]


def test_complementary_examples_lower_their_label() -> None:
    """That a label is wrong lowers its score."""
    learner, features = head(), {"e": [1.0, 0.0, 0.0, 0.0]}
    before = learner.predict([features])[0].scores["a"]
    learner.learn([Example(features, "a", complementary=True)] * 5)
    assert learner.predict([features])[0].scores["a"] < before


def test_a_round_trip_in_the_middle_changes_nothing() -> None:
    """The state holds the optimizer too: learning goes on as if nothing had happened."""
    straight = taught(taught(head(), examples(64)), examples(64, seed=1))
    bent = taught(head().from_bytes(taught(head(), examples(64)).to_bytes()), examples(64, seed=1))
    assert bent.digest() == straight.digest()
    assert bent.fitted


def test_reading_a_state_leaves_the_reader() -> None:
    """`from_bytes` returns another head that shares nothing with this one."""
    reader = head()
    before = reader.digest()
    taught(reader.from_bytes(taught(head(), examples(32)).to_bytes()), examples(32))
    assert reader.digest() == before


def test_a_module_may_come_fitted() -> None:
    """Trained elsewhere, it says so, and answers as it did."""
    made = network().eval()
    learner = module(copy.deepcopy(made), spec=spec(labels=ABC), fitted=True)
    assert learner.fitted
    wanted = made(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).softmax(1)[0].tolist()
    [answer] = learner.predict([{"e": [1.0, 2.0, 3.0, 4.0]}])
    assert [*answer.scores.values()] == pytest.approx(wanted)
    assert not module(made, spec=spec(labels=ABC)).fitted


def test_frozen_parameters_stay() -> None:
    """What does not require a gradient is not learned."""
    made = network()
    made[0].requires_grad_(requires_grad=False)  # type: ignore[index]
    learner = module(made, spec=spec(labels=ABC))
    before = copy.deepcopy(made.state_dict())
    taught(learner, examples(32))
    after = made.state_dict()
    assert torch.equal(before["0.weight"], after["0.weight"])
    assert not torch.equal(before["3.weight"], after["3.weight"])


def test_another_module_does_not_read_the_state() -> None:
    """The state of a network of another shape is refused; so are bytes without all of it."""
    learner = taught(head(), examples(32))
    other = module(nn.Linear(4, 3), spec=spec(labels=ABC), lr=0.01)
    with pytest.raises(StateError, match="another configuration"):
        other.from_bytes(learner.to_bytes())
    found, about = tensors.unpack(learner.to_bytes())
    with pytest.raises(StateError, match="damaged"):
        learner.from_bytes(tensors.pack({"module.0.bias": found["module.0.bias"]}, about))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"e": [1.0]}, "1 numbers, and this model takes 4"),
        ({"e": [1.0] * 4, "f": [1.0] * 4}, "one list"),
        ({"e": [float("nan")] * 4}, "finite"),
    ],
)
def test_vectors_of_another_kind_are_refused(features: dict[str, Any], message: str) -> None:
    """A vector of another length, two of them, or one without numbers is an error."""
    with pytest.raises(ValueError, match=message):
        head().predict([features])
    with pytest.raises(ValueError, match=message):
        head().learn([Example(features, "a")])


def test_weights_that_are_ruined_are_found() -> None:
    """A module whose answer is not finite neither learns nor answers."""
    learner = head()
    with torch.no_grad():
        learner._network[3].bias[:] = torch.nan  # type: ignore[index]
    with pytest.raises(FloatingPointError):
        learner.predict([{}])
    with pytest.raises(FloatingPointError):
        learner.learn(examples(1))


@pytest.mark.parametrize(
    ("made", "given", "message"),
    [
        (network(), spec("regression"), "3 numbers of a vector, and not 1"),
        (network(), spec(labels=["a", "b", "c", "d"]), "3 numbers of a vector, and not 4"),
        (network(), spec(), "labels"),
        (network(), spec("ranking"), "ranking"),
        (nn.ReLU(), spec(labels=ABC), "dim="),
    ],
)
def test_modules_that_do_not_fit_are_refused(
    made: nn.Module, given: ModelSpec, message: str
) -> None:
    """A module with another number of outputs, or without a length, is an error at once."""
    with pytest.raises(ConfigError, match=message):
        module(made, spec=given)


def test_a_module_that_takes_other_vectors_is_refused() -> None:
    """A length that the module cannot take is an error before anything is served."""
    with pytest.raises(ConfigError, match="cannot take a vector of 5"):
        module(network(), spec=spec(labels=ABC), dim=5)


def test_a_factory_may_return_a_module() -> None:
    """A configuration that names a module is served by this learner."""
    use = {"use": "torch:nn.Linear", "in_features": 4, "out_features": 3}
    learner = make_learner(spec(labels=ABC, learner=use))
    assert isinstance(learner, ModuleHead)
    learner.learn(examples(8))
    assert learner.fitted
