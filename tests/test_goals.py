"""Slopes and steps of the torch heads are those that automatic differentiation finds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from online_learner.learners.torch.goals import MAX_LABELS, Classes, Goal, Numbers
from online_learner.learners.torch.layers import Bag, DenseLayer, Layer, SparseLayer
from online_learner.schema import Example

SUMS = st.lists(st.floats(-5, 5, width=32), min_size=6, max_size=6)


def example(target: Any, *, complementary: bool = False) -> Example:
    """Return an example without features."""
    return Example({}, target, complementary=complementary)


def differentiated(loss: Any, sums: torch.Tensor) -> torch.Tensor:
    """Return the derivative of a loss by the sums, as torch finds it."""
    sums = sums.clone().requires_grad_()
    torch.autograd.backward(loss(sums))
    assert sums.grad is not None
    return sums.grad


def slope(goal: Goal, sums: torch.Tensor, *examples: Example) -> torch.Tensor:
    """Return the slope of examples as the goal has it."""
    return goal.slope(sums, goal.take(examples))


@given(SUMS)
def test_cross_entropy(numbers: list[float]) -> None:
    """The slope of a right label is that of the cross-entropy."""
    sums = torch.tensor(numbers).reshape(2, 3)
    found = slope(Classes(["a", "b", "c"]), sums, example("b"), example("c"))
    right = torch.tensor([1, 2])
    wanted = differentiated(lambda z: functional.cross_entropy(z, right, reduction="sum"), sums)
    torch.testing.assert_close(found, wanted)


@given(SUMS)
def test_complementary_loss(numbers: list[float]) -> None:
    """The slope of a wrong label is that of -log(1 - p), also beside a right one."""
    sums = torch.tensor(numbers).reshape(2, 3)
    wrong = example("b", complementary=True)
    found = slope(Classes(["a", "b", "c"]), sums, wrong, example("a"))
    wanted = differentiated(
        lambda z: -torch.log1p(-z.softmax(1)[0, 1]) - torch.log_softmax(z, 1)[1, 0], sums
    )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_label_that_is_sure_and_wrong() -> None:
    """Where the wrong label has all the probability, the slope is finite and pulls it down."""
    sums = torch.tensor([[200.0, 0.0, -200.0]])
    found = slope(Classes(["a", "b", "c"]), sums, example("a", complementary=True))
    assert found.tolist() == [[1.0, -1.0, 0.0]]


@given(st.floats(-5, 5, width=32))
def test_one_sum_for_two_labels(number: float) -> None:
    """With two labels, the sum is that of the second, and "not the first" is the second."""
    sums, goal = torch.tensor([[number]] * 4), Classes(["a", "b"])
    nots = (example("b", complementary=True), example("a", complementary=True))
    found = slope(goal, sums, example("a"), example("b"), *nots)
    wanted = torch.sigmoid(sums) - torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    torch.testing.assert_close(found, wanted)


def test_not_the_only_label_teaches_nothing() -> None:
    """As long as one label is known, that it is wrong has no slope."""
    goal = Classes()
    assert slope(goal, torch.zeros(1, 1), example("a", complementary=True)).tolist() == [[0.0]]


@given(st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=3))
def test_regression_losses(numbers: list[float]) -> None:
    """Slopes of the Huber and of the squared loss are those of torch's."""
    sums, targets = torch.tensor(numbers)[:, None], torch.tensor([[0.5], [-3.0], [4.0]])
    examples = [example(target) for target in targets[:, 0].tolist()]
    huber = slope(Numbers("huber", scaled=False), sums, *examples)
    torch.testing.assert_close(
        huber, differentiated(lambda z: functional.huber_loss(z, targets, reduction="sum"), sums)
    )
    squared = slope(Numbers("squared", scaled=False), sums, *examples)
    torch.testing.assert_close(
        squared,
        differentiated(lambda z: functional.mse_loss(z, targets, reduction="sum") / 2, sums),
    )


def test_answers_of_two_labels_are_a_softmax() -> None:
    """One sum gives two scores that sum to one, and the label of the larger."""
    [answer] = Classes(["a", "b"]).answers(torch.tensor([[1.0]]))
    assert answer.output == "b"
    assert answer.scores["b"] == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item())
    assert sum(answer.scores.values()) == pytest.approx(1.0)


def test_labels_keep_their_types() -> None:
    """True, 1 and "one" are three labels, and come back as what they were."""
    goal = Classes()
    goal.take([example(label) for label in (True, 1, "one")])
    sums = torch.eye(3)
    assert [answer.output for answer in goal.answers(sums)] == [True, 1, "one"]
    twin = Classes()
    twin.restore(*goal.state())
    assert [type(answer.output) for answer in twin.answers(sums)] == [bool, int, str]


@pytest.mark.parametrize(
    ("goal", "target"),
    [
        (Classes(["a", "b"]), "c"),
        (Classes([0, 1]), True),
        (Classes(), 1.5),
        (Classes(), None),
        (Classes(), ["a"]),
        (Numbers(), "a"),
        (Numbers(), True),
        (Numbers(), float("nan")),
        (Numbers(), 1e300),
    ],
)
def test_targets_of_another_kind_are_refused(goal: Goal, target: Any) -> None:
    """What a task cannot learn is an error."""
    with pytest.raises((TypeError, ValueError)):
        goal.take([example(target)])


def test_that_a_number_is_wrong_is_refused() -> None:
    """Regression has no complementary examples."""
    with pytest.raises(ValueError, match="wrong"):
        Numbers().take([example(1.0, complementary=True)])


def test_labels_are_not_learned_without_end() -> None:
    """An open set of labels is full at some point, and says so."""
    goal = Classes()
    goal.take([example(number) for number in range(MAX_LABELS)])
    with pytest.raises(ValueError, match="one too many"):
        goal.take([example("more")])


# --- layers -------------------------------------------------------------------------------------

INDICES = [[0, 2], [1], [], [2, 2, 0]]
VALUES = [[0.5, -1.0], [2.0], [], [1.0, 0.5, 3.0]]


def both() -> tuple[SparseLayer, Bag, DenseLayer, torch.Tensor]:
    """Return a sparse and a dense layer of equal weights, and one batch for each."""
    weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    matrix = torch.zeros(len(INDICES), len(weight))
    for row, (indices, values) in enumerate(zip(INDICES, VALUES, strict=True)):
        for index, value in zip(indices, values, strict=True):
            matrix[row, index] += value
    counts = torch.tensor([len(indices) for indices in INDICES])
    bag = Bag(
        torch.tensor([index for indices in INDICES for index in indices]),
        torch.tensor([value for values in VALUES for value in values]),
        torch.repeat_interleave(torch.arange(len(counts)), counts),
        counts.cumsum(0) - counts,
    )
    return SparseLayer(weight.clone()), bag, DenseLayer(weight.clone()), matrix


def test_sparse_and_dense_layers_say_the_same() -> None:
    """Entries of a bag add up to what a matrix of them gives, also where there are none."""
    sparse, bag, dense, matrix = both()
    torch.testing.assert_close(sparse.forward(bag), dense.forward(matrix))


def test_sparse_and_dense_layers_step_alike() -> None:
    """Where no input is twice in an example, both layers take the same step."""
    sparse, bag, dense, matrix = both()
    bag, matrix = Bag(bag.indices[:3], bag.values[:3], bag.rows[:3], bag.offsets[:2]), matrix[:2]
    towards, weights = torch.randn(2, 3), torch.tensor([1.0, 0.5])
    sparse.step(bag, towards, weights, 0.1)
    dense.step(matrix, towards, weights, 0.1)
    for name, tensor in sparse.state().items():
        torch.testing.assert_close(tensor, dense.state()[name])


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_a_step_goes_down_the_gradient(kind: str) -> None:
    """Each weight moves against its derivative, by the rate over the root of what came before."""
    sparse, bag, dense, matrix = both()
    layer: Layer = sparse if kind == "sparse" else dense
    before, start = layer.weight.clone(), layer.squares.clone()
    towards, weights = torch.randn(4, 3), torch.tensor([1.0, 2.0, 1.0, 0.0])
    gradient = matrix.T @ (towards * weights[:, None])
    layer.step(bag if kind == "sparse" else matrix, towards, weights, 0.1)
    moved = -0.1 * gradient / layer.squares.sqrt()[:, None]
    torch.testing.assert_close(layer.weight - before, moved)
    assert (layer.squares >= start).all()
    assert layer.squares[3] == start[3]  # an input that is nowhere in the batch


def test_slopes_pass_back_through_a_layer() -> None:
    """The slope by the inputs is the derivative of the loss by them."""
    _, _, dense, matrix = both()
    towards = torch.randn(4, 3)
    wanted = differentiated(lambda x: (dense.forward(x) * towards).sum(), matrix)
    torch.testing.assert_close(dense.backward(towards), wanted)


def test_layers_grow_without_changing_what_they_say() -> None:
    """New inputs and sums leave the old sums as they were, and the new sums at zero."""
    _, _, dense, matrix = both()
    before = dense.forward(matrix)
    dense.widen(5)
    dense.lengthen(torch.zeros(2, 5))
    after = dense.forward(functional.pad(matrix, (0, 2)))
    torch.testing.assert_close(after, functional.pad(before, (0, 2)))
    dense.step(functional.pad(matrix, (0, 2)), torch.ones(4, 5), torch.ones(4), 0.1)
    assert (dense.bias[3:] < 0).all()
