"""Where tensors live, how they travel as bytes (safetensors), and their digest."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from online_learner.errors import ConfigError, StateError
from online_learner.settings import ModelSpec

RATES = ("lr", "step")  # how fast a model learns, by what that is called
_HEADER = 8  # a safetensors file begins with the length of its JSON header


def device_of(spec: ModelSpec) -> torch.device:
    """Return where the model computes: on a GPU where the configuration asks for one.

    Raises
    ------
    ConfigError
        There is no GPU in this process, and `on_gpu_missing` does not say `cpu`.
    """
    wanted = spec.resources.num_gpus
    if not wanted:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if spec.on_gpu_missing == "cpu":
        return torch.device("cpu")
    raise ConfigError(
        f"resources.num_gpus is {wanted:g}, and this process sees no GPU: start it where one is "
        "free (a CUDA build of torch is needed too), set num_gpus to 0, or set "
        "`on_gpu_missing: cpu` to compute on the CPU until there is one"
    )


def one_thread() -> None:
    """Let torch compute on one thread from now on, in this process.

    Sums that are split among threads depend on how many there are; and at these sizes, handing work
    to another thread costs more than doing it.
    """
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


def pack(tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> bytes:
    """Return tensors and a small JSON document as safetensors bytes, equal for equal input."""
    document = json.dumps(about, sort_keys=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(plain, metadata={"about": document})


def unpack(blob: bytes) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors, on the CPU, and the document that `pack` was given.

    Raises
    ------
    StateError
        These are not bytes that `pack` has written, or they are damaged.
    """
    try:
        tensors = load(blob)
        length = int.from_bytes(blob[:_HEADER], "little")
        header = json.loads(blob[_HEADER : _HEADER + length])
        about = json.loads(header["__metadata__"]["about"])
    except (SafetensorError, RecursionError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"the state cannot be read as safetensors: {error}") from error
    if not isinstance(about, dict):
        raise StateError("the state's description is no JSON object")
    return tensors, about


def at_rate(about: Mapping[str, Any], part: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told of a state, as if it had been learned at the rate of another model.

    How fast it learned is in the weights already, and no part of their form.

    >>> at_rate({"config": {"lr": 1.0, "dim": 3}}, "config", {"lr": 2.5, "dim": 4})
    {'config': {'lr': 2.5, 'dim': 3}}
    """
    told = about[part]
    rates = {name: wanted[name] for name in RATES if name in told and name in wanted}
    return {**about, part: {**told, **rates}}


def check_same(expected: Mapping[str, Any], found: Any) -> None:
    """Refuse the state of another configuration.

    Raises
    ------
    StateError
        Names what differs, and what to do.
    """
    if found == expected:
        return
    stored = found if isinstance(found, dict) else {}
    differ = [
        f"{name} was {stored.get(name)!r} and is {value!r}"
        for name, value in expected.items()
        if stored.get(name) != value
    ]
    raise StateError(
        f"the state was written under another configuration ({'; '.join(differ) or 'unknown'}): "
        "put it back, or give the changed model another name"
    )


def check_whole(
    read: Mapping[str, torch.Tensor],
    about: Mapping[str, Any],
    held: Mapping[str, torch.Tensor],
    told: Mapping[str, Any],
) -> None:
    """Refuse a state of which some was not taken, or not as it was, or that is not finite.

    Parameters
    ----------
    read, about
        What was read.
    held, told
        What the model that has taken it would write.

    Raises
    ------
    StateError
        They differ.
    """
    whole = (
        read.keys() == held.keys()
        and json.dumps(about, sort_keys=True) == json.dumps(told, sort_keys=True)
        and all(_equal(tensor, held[name].detach().cpu()) for name, tensor in read.items())
    )
    if not whole:
        raise StateError("the state is damaged: there is more in it, or less, than it should hold")
    if not all_finite(*(tensor for tensor in read.values() if tensor.is_floating_point())):
        raise StateError("the state is damaged: a number in it is not finite")


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one is other or (one.dtype == other.dtype and torch.equal(one, other))


def digest(tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> str:
    """Return 32 hex digits: equal for equal names, types, shapes and bits, on whatever device.

    >>> once = digest({"w": torch.zeros(2)}, {})
    >>> once == digest({"w": torch.zeros(2)}, {}), once == digest({"w": torch.zeros(1, 2)}, {})
    (True, False)
    """
    found = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(np.atleast_1d(tensor.numpy()).view(np.uint8).data)
    return found.hexdigest()


def all_finite(*tensors: torch.Tensor) -> bool:
    """Tell whether every number of the tensors is finite."""
    # A sum is not finite where a term is not; one that merely overflows is as ruinous.
    return all(math.isfinite(tensor.sum().item()) for tensor in tensors)
