"""Layers that learn online, with their gradients written out: no graph is built for a few sums.

Steps are those of AdaGrad (Duchi, Hazan and Singer, JMLR 12, 2011) with one accumulator for each
input, that is for each row of weights: a rare word takes long steps, a frequent one short ones, and
the state is half of what an accumulator for each weight would take.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import torch
from torch.nn import functional

Tensors: TypeAlias = dict[str, torch.Tensor]

_START = 0.03  # of the accumulators: with none, no first step would depend on its slope
_BIAS_RATE = 0.3  # a bias is in every example, and would do the work of the rare words


class Bag(NamedTuple):
    """A sparse batch of inputs on the device: see `encode.Bags`."""

    indices: torch.Tensor  # (n_entries,)
    values: torch.Tensor  # (n_entries,)
    rows: torch.Tensor  # (n_entries,) the example of each entry
    offsets: torch.Tensor  # (n_examples,) the first entry of each example


class Layer:
    """Weighted sums of inputs, with a bias.

    Parameters
    ----------
    weight
        The weights to begin with, of shape (n_inputs, width).
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight
        self.squares = weight.new_full((len(weight),), _START)
        self.bias = weight.new_zeros(weight.shape[1])
        self.bias_squares = torch.full_like(self.bias, _START)

    @property
    def width(self) -> int:
        """The number of sums."""
        return len(self.bias)

    def forward(self, x: Any) -> torch.Tensor:
        """Return the sums, of shape (n_examples, width)."""
        raise NotImplementedError

    def step(self, x: Any, slope: torch.Tensor, weights: torch.Tensor, rate: float) -> None:
        """Take one step down.

        Parameters
        ----------
        x
            The inputs that `forward` was given.
        slope
            The derivative of each example's loss by its sums, of shape (n_examples, width).
        weights
            How much each example counts, of shape (n_examples,).
        rate
            The learning rate.
        """
        weighted = slope * weights[:, None]
        sizes = weighted * slope
        self._step_weight(x, weighted, sizes.sum(1), rate)
        self.bias_squares += sizes.sum(0)
        self.bias.addcdiv_(weighted.sum(0), self.bias_squares.sqrt(), value=-rate * _BIAS_RATE)

    def _step_weight(
        self, x: Any, weighted: torch.Tensor, sizes: torch.Tensor, rate: float
    ) -> None:
        """Take the step of the weights alone.

        Parameters
        ----------
        x
            The inputs that `forward` was given.
        weighted
            The slope times the weight of each example, of shape (n_examples, width).
        sizes
            The squared length of each example's slope, times its weight, of shape (n_examples,).
        rate
            The learning rate.
        """
        raise NotImplementedError

    def widen(self, width: int) -> None:
        """Have more sums, with weights of zero."""
        new = self.weight.new_zeros(len(self.weight), width - self.width)
        self.weight = torch.cat([self.weight, new], dim=1)
        self.bias = torch.cat([self.bias, new.new_zeros(new.shape[1])])
        self.bias_squares = torch.cat([self.bias_squares, new.new_full((new.shape[1],), _START)])

    def lengthen(self, weight: torch.Tensor) -> None:
        """Have more inputs, with these weights."""
        self.weight = torch.cat([self.weight, weight])
        self.squares = torch.cat([self.squares, weight.new_full((len(weight),), _START)])

    def state(self) -> Tensors:
        """Return what `restore` needs."""
        return {
            "weight": self.weight,
            "squares": self.squares,
            "bias": self.bias,
            "bias_squares": self.bias_squares,
        }

    def restore(self, state: Tensors, inputs: int, width: int) -> None:
        """Take over a state, from whatever device, of so many inputs and sums.

        Raises
        ------
        ValueError
            It is of other shapes, or of numbers that no step leads to.
        """
        shapes = {
            "weight": (inputs, width),
            "squares": (inputs,),
            "bias": (width,),
            "bias_squares": (width,),
        }
        for name, shape in shapes.items():
            found = state[name]
            if (found.shape, found.dtype) != (shape, self.bias.dtype):
                raise ValueError(f"{name} is {found.dtype} of shape {tuple(found.shape)}")
            if name.endswith("squares") and not bool((found > 0).all()):
                raise ValueError(f"{name} is not above 0")
            setattr(self, name, found.to(self.bias.device))


class DenseLayer(Layer):
    """A layer over all of its inputs, of shape (n_examples, n_inputs)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sums, of shape (n_examples, width)."""
        return torch.addmm(self.bias, x, self.weight)

    def _step_weight(
        self, x: torch.Tensor, weighted: torch.Tensor, sizes: torch.Tensor, rate: float
    ) -> None:
        self.squares += sizes @ x.square()
        self.weight.addcdiv_(x.T @ weighted, self.squares.sqrt()[:, None], value=-rate)

    def backward(self, slope: torch.Tensor) -> torch.Tensor:
        """Return the derivative of the loss by the inputs, of shape (n_examples, n_inputs)."""
        return slope @ self.weight.T


class SparseLayer(Layer):
    """A layer over the entries of a `Bag`: it reads and writes the rows of these only."""

    def forward(self, x: Bag) -> torch.Tensor:
        """Return the sums, of shape (n_examples, width)."""
        sums = functional.embedding_bag(
            x.indices, self.weight, x.offsets, mode="sum", per_sample_weights=x.values
        )
        return sums + self.bias

    def _step_weight(
        self, x: Bag, weighted: torch.Tensor, sizes: torch.Tensor, rate: float
    ) -> None:
        at = (x.indices,)
        # On a GPU, `index_put_` adds in a fixed order where `index_add_` does not.
        self.squares.index_put_(at, x.values.square() * sizes[x.rows], accumulate=True)
        rates = -rate * x.values / self.squares[x.indices].sqrt()
        self.weight.index_put_(at, weighted[x.rows] * rates[:, None], accumulate=True)
