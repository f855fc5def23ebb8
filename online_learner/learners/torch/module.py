"""A `torch.nn.Module` of your own as a learner (`learner: my_team.models:learner`).

    def learner():
        return nn.Sequential(nn.Linear(384, 64), nn.ReLU(), nn.Linear(64, 7))

Its first weights are drawn from the model's `seed`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from online_learner.errors import ConfigError, Unfit
from online_learner.learners.torch.goals import Classes, Goal, Loss, Numbers
from online_learner.learners.torch.head import Head, part_of, prefixed
from online_learner.learners.torch.layers import Tensors
from online_learner.learners.torch.scaling import checked
from online_learner.learners.torch.tensors import device_of
from online_learner.requests import Features
from online_learner.settings import ModelSpec

_NOTES: tuple[set[str], ...] = (set(), {"step", "exp_avg", "exp_avg_sq"})  # of Adam, a parameter


def module(
    made: torch.nn.Module,
    *,
    spec: ModelSpec,
    dim: int | None = None,
    lr: float = 1e-3,
    loss: Loss = "huber",
    fitted: bool = False,
) -> ModuleHead:
    """Wrap a module that takes vectors, of shape (n_examples, dim).

    For classification it says a logit for each label of the configuration, in its order, or one
    logit, that of the second label, where there are two; for regression, a number in the units of
    the target.

    Parameters
    ----------
    made
        The module. It is owned by the learner from here on.
    dim
        The length of its vectors; left out, the inputs of its first linear layer.
    lr
        The learning rate of Adam (Kingma and Ba, ICLR 2015).
    loss
        Of a regression: `huber`, or `squared`.
    fitted
        Whether it has been trained already: it then starts as version 1.

    Raises
    ------
    ConfigError
        The module does not take such vectors, or says something of another shape.
    """
    if spec.task not in ("classification", "regression"):
        raise ConfigError(f"a module does classification or regression, the task is {spec.task}")
    if spec.task == "classification" and spec.labels is None:
        raise ConfigError("a torch module needs `labels`: it has an output for each")
    dim = dim or _inputs(made)
    if dim is None:
        raise ConfigError("the module has no linear layer: say `dim=`, the length of its vectors")
    network = made.to(device_of(spec)).eval()
    goal = _goal(network, dim, spec, loss)
    settings = {"task": spec.task, "labels": spec.labels, "dim": dim, "lr": lr, "loss": loss}
    return ModuleHead(network, goal, settings, device_of(spec), fitted=fitted)


def _inputs(made: torch.nn.Module) -> int | None:
    linear = (part for part in made.modules() if isinstance(part, torch.nn.Linear))
    return next((part.in_features for part in linear), None)


def _goal(network: torch.nn.Module, dim: int, spec: ModelSpec, loss: Loss) -> Goal:
    try:
        with torch.inference_mode():
            width = network(torch.zeros(1, dim, device=device_of(spec))).numel()
    except Exception as error:
        raise ConfigError(f"the module cannot take a vector of {dim} numbers: {error}") from error
    goal: Goal = Numbers(loss, scaled=False)
    if spec.task == "classification":
        goal = Classes(spec.labels, single=width == 1)
    if width != goal.width:
        raise ConfigError(f"the module says {width} numbers of a vector, and not {goal.width}")
    return goal


class ModuleHead(Head):
    """A module in evaluation mode, also when it learns.

    Dropout would need many passes, and a batch norm large batches: neither is there online.

    Parameters
    ----------
    network
        The module, on the device.
    goal
        What it learns towards.
    settings
        `dim`, `lr`, and what else the state depends on.
    device
        Where it computes.
    fitted
        Whether it has been trained already.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        goal: Goal,
        settings: dict[str, Any],
        device: torch.device,
        *,
        fitted: bool = False,
    ) -> None:
        tensors = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
        super().__init__(goal, settings | {"module": tensors}, device, fitted=fitted)
        self._network = network
        self._settings = settings
        self._learning = [p for p in network.parameters() if p.requires_grad]
        self._adam = torch.optim.Adam(self._learning, lr=settings["lr"])

    def _fresh(self) -> ModuleHead:
        network = copy.deepcopy(self._network)
        return ModuleHead(network, copy.deepcopy(self._goal), self._settings, self._device)

    def _vectors(self, batch: Sequence[Features]) -> torch.Tensor:
        vectors = [_vector(features, self._settings["dim"]) for features in batch]
        matrix = checked(np.array(vectors, np.float64)).astype(np.float32)
        return torch.from_numpy(matrix).to(self._device)

    def _sums(self, batch: Sequence[Features]) -> torch.Tensor:
        with torch.inference_mode():
            return self._say(self._vectors(batch))

    def _say(self, x: torch.Tensor) -> torch.Tensor:
        sums: torch.Tensor = self._network(x)
        return sums.reshape(len(x), self._goal.width)

    def _step(
        self, batch: Sequence[Features], wanted: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        self._adam.zero_grad()
        sums = self._say(self._vectors(batch))
        slope = self._goal.slope(sums.detach(), wanted)
        torch.autograd.backward(sums, slope * weights[:, None] / len(batch))
        self._adam.step()
        return torch.stack([p.detach().sum() for p in self._learning])

    def _state(self) -> tuple[Tensors, dict[str, Any]]:
        found = prefixed("module", dict(self._network.state_dict()))
        for i, state in self._adam.state_dict()["state"].items():
            found |= prefixed(f"adam.{i}", state)
        return {name: tensor.detach().clone() for name, tensor in found.items()}, {}

    def _restore(self, found: Tensors, about: dict[str, Any]) -> None:
        self._network.load_state_dict(part_of(found, "module"))
        states = [(i, part_of(found, f"adam.{i}")) for i in range(len(self._learning))]
        for i, state in states:
            shapes = {len(t.shape) and t.shape for t in state.values()}
            if state.keys() not in _NOTES or not shapes <= {0, self._learning[i].shape}:
                raise ValueError(f"what Adam noted of parameter {i} is not whole")
        adam = self._adam.state_dict()
        self._adam.load_state_dict(adam | {"state": {i: state for i, state in states if state}})


def _vector(features: Features, dim: int) -> list[float]:
    """Return the one list among the features; the module's other inputs are not named anywhere."""
    lists = [value for value in features.values() if isinstance(value, list)]
    if not lists:
        return [0.0] * dim
    if len(lists) > 1:
        raise Unfit(f"this model takes one list of numbers, and here are {len(lists)}")
    if len(lists[0]) != dim:
        raise Unfit(f"the list has {len(lists[0])} numbers, and this model takes {dim}")
    return lists[0]
