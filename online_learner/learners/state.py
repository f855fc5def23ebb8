"""State on its way: a header that says what it is, then the learner's own bytes.

    b"OLS1" | length of the header, 4 bytes | header, JSON | weights

The header names the family and the library version that wrote it. River's pickles do not survive a
minor release of River, so they are refused with the cure instead of failing later; safetensors do
not care.

What the policies remember of the raters lies beside it, as compressed JSON: only who learns needs
it, and who answers neither fetches nor reads it.
"""

from __future__ import annotations

import functools
import struct
import zlib
from importlib.metadata import version
from typing import Any, TypedDict, TypeVar

from pydantic_core import from_json, to_json

from online_learner.errors import StateError
from online_learner.learners import Model

M = TypeVar("M", bound=Model)

_MAGIC = b"OLS1"
_HEAD = struct.Struct(">4sI")
_LIBRARIES = {"river": "river"}  # families whose bytes only the same release can read


class State(TypedDict):
    """A full state: the weights, and what is remembered of the raters, as they are stored."""

    blob: bytes
    memory: bytes


def pack_state(model: Model) -> bytes:
    """Return a model's state as bytes."""
    head = to_json({"family": model.family, "library": _library(model.family)})
    return _HEAD.pack(_MAGIC, len(head)) + head + model.to_bytes()


def unpack_state(blob: bytes, like: M) -> M:
    """Return the model in `blob`, as one like `like`.

    The caller has verified the seal of `blob`.

    Raises
    ------
    StateError
        It is no state of ours, of another family, or of another release of its library.
    """
    try:
        magic, length = _HEAD.unpack_from(blob)
        header = from_json(blob[_HEAD.size : _HEAD.size + length])
        family, library = header["family"], header["library"]
    except (struct.error, ValueError, LookupError, TypeError) as error:
        raise StateError(f"the stored state cannot be read: {error}") from error
    if magic != _MAGIC:
        raise StateError("the stored state is of no format known here")
    if family != like.family:
        raise StateError(
            f"the stored state is of the family '{family}', and the configured learner "
            f"of '{like.family}': give the changed model another name, or put the learner back"
        )
    if library != _library(like.family):
        raise StateError(
            f"the stored state was written by {like.family} {library}, and "
            f"{_library(like.family)} is installed: install that one again, or rebuild the weights "
            "by replaying the record: `online-learner replay MODEL`"
        )
    return like.from_bytes(blob[_HEAD.size + length :])


def pack_memory(memory: dict[str, Any]) -> bytes:
    """Return what the policies remember as bytes; of a thousand raters a fifth of the JSON's."""
    return zlib.compress(to_json(memory, inf_nan_mode="constants"), 1)


def unpack_memory(packed: bytes) -> dict[str, Any]:
    """Return what the policies remember; nothing where nothing was packed.

    The caller has verified the seal of `packed`.

    Raises
    ------
    StateError
        It is no memory of ours.
    """
    try:
        memory = from_json(zlib.decompress(packed)) if packed else {}
    except (zlib.error, ValueError) as error:
        raise StateError(f"what is remembered of the raters cannot be read: {error}") from error
    if not isinstance(memory, dict):
        raise StateError("what is remembered of the raters is of no format known here")
    return memory


@functools.cache
def _library(family: str) -> str:
    """Return major and minor version of the library whose bytes these are, or nothing."""
    name = _LIBRARIES.get(family)
    return "" if name is None else ".".join(version(name).split(".")[:2])
