"""A digest of an object's state that does not depend on its history.

Pickle bytes differ for equal models: they record which objects are the same, in which order a dict
was filled, and how strings hash. This walk records values only: floats by their bits, dicts and
sets sorted, objects by class and state.
"""

from __future__ import annotations

import copyreg
import hashlib
import struct
import types
from typing import Any

import numpy as np

# River's pipeline caches an execution plan that is made anew from its steps.
_CACHES = frozenset({"_plan", "_inference_transformers", "_last_step_cached", "_last_step_params"})


def state_digest(state: Any) -> str:
    """Return 32 hex digits that are equal for equal states.

    >>> state_digest({"a": 1.0, "b": {2, 3}}) == state_digest({"b": {3, 2}, "a": 1.0})
    True
    >>> state_digest(0.0) == state_digest(-0.0)
    False
    """
    return _walk(state, set()).hex()


def _passing(key: Any, state: dict[Any, Any]) -> bool:
    # The leaves of River's trees carry a sampler that was seeded by the operating system; learning
    # and predicting do not draw from it. (A model whose own randomness is unseeded differs anyway.)
    return key in _CACHES or (key == "_rng" and state.get("seed", 0) is None)


def _hash(tag: str, *parts: bytes) -> bytes:
    digest = hashlib.blake2b(tag.encode(), digest_size=16)
    for part in parts:
        digest.update(struct.pack(">I", len(part)))
        digest.update(part)
    return digest.digest()


def _walk(value: Any, open_ids: set[int]) -> bytes:  # noqa: PLR0911
    kind = type(value)
    if kind is float:
        return _hash("float", struct.pack(">d", value))
    if kind is str:
        return _hash("str", value.encode("utf-8", "surrogatepass"))
    if value is None or kind in (bool, int, complex):
        return _hash(kind.__name__, repr(value).encode())
    if kind in (bytes, bytearray):
        return _hash("bytes", bytes(value))
    if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        array = np.ascontiguousarray(value)
        return _hash(
            "array", str(array.dtype).encode(), repr(array.shape).encode(), array.tobytes()
        )
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
        return _hash("name", f"{value.__module__}.{value.__qualname__}".encode())
    if id(value) in open_ids:
        return _hash("cycle")
    open_ids.add(id(value))
    try:
        return _walk_container(value, kind, open_ids)
    finally:
        open_ids.discard(id(value))


def _walk_container(value: Any, kind: type, open_ids: set[int]) -> bytes:
    if kind in (list, tuple):
        return _hash(kind.__name__, *(_walk(item, open_ids) for item in value))
    if kind in (set, frozenset):
        return _hash("set", *sorted(_walk(item, open_ids) for item in value))
    if kind is dict:
        return _walk_items(value.items(), open_ids)
    if isinstance(value, types.MethodType):
        return _hash("method", value.__name__.encode(), _walk(value.__self__, open_ids))
    return _walk_object(value, open_ids)


def _walk_items(items: Any, open_ids: set[int]) -> bytes:
    pairs = sorted(_walk(key, open_ids) + _walk(item, open_ids) for key, item in items)
    return _hash("dict", *pairs)


def _walk_object(value: Any, open_ids: set[int]) -> bytes:
    """Take an object apart as pickle would, through its own `__reduce_ex__`."""
    reduced = value.__reduce_ex__(4)
    if isinstance(reduced, str):
        return _hash("name", reduced.encode())
    function, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    if isinstance(state, dict):
        state = {key: item for key, item in state.items() if not _passing(key, state)}
    name = "new" if function is copyreg.__newobj__ else function.__qualname__  # type: ignore[attr-defined]
    return _hash(
        f"object:{name}",
        _walk(arguments, open_ids),
        _walk(state, open_ids),
        _hash("items", *(_walk(item, open_ids) for item in items or ())),
        _walk_items(pairs or (), open_ids),
    )
