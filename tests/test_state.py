"""State on its way: what is packed comes back, and what is not ours is refused with the cure."""

from __future__ import annotations

import contextlib
import functools
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any, TypeAlias

import pytest
import torch
from river import linear_model
from tiny_ranker import WordRanker

from online_learner.errors import StateError
from online_learner.learners.factory import make_learner
from online_learner.learners.recorder import Recorder
from online_learner.learners.river import RiverLearner
from online_learner.learners.state import pack_memory, pack_state, unpack_memory, unpack_state
from online_learner.learners.torch import tensors
from online_learner.schema import Example, Ranked, Rated
from online_learner.settings import ModelSpec
from policies.signals import Signals

OPTION = {"text": "fine weather"}
HEADER = b'{"family":"words","library":""}'


def taught() -> WordRanker:
    """Return a ranker that has learned something."""
    made = WordRanker()
    made.learn([Rated({}, OPTION, 1.0)])
    return made


def river() -> RiverLearner:
    """Return a classifier that has learned something."""
    made = RiverLearner(
        linear_model.LogisticRegression(), task="classification", labels=[False, True]
    )
    made.learn([Example({"x": 1.0}, True)])
    return made


@pytest.mark.parametrize("make", [taught, river, Recorder])
def test_what_is_packed_comes_back(make: Any) -> None:
    """The weights to the last bit; the one that they are like stays as it is."""
    model = make()
    like = WordRanker() if make is taught else make()
    before = like.digest()
    found = unpack_state(pack_state(model), like)
    assert type(found) is type(model)
    assert found.digest() == model.digest()
    assert like.digest() == before
    assert found is not like


def test_equal_states_are_equal_bytes() -> None:
    """The header holds nothing that differs from one writing to the next."""
    assert pack_state(taught()) == pack_state(taught())


def test_what_is_remembered_comes_back() -> None:
    """To the last bit, in the same order, in far fewer bytes than its JSON."""
    raters = {f"human:ä\n\u2028{n}": [n, 0.1 + 0.2, 5e-324, math.inf] for n in range(99, 0, -1)}
    memory = {"raters": raters}
    packed = pack_memory(memory)
    assert list(unpack_memory(packed)["raters"].items()) == list(raters.items())
    assert len(packed) < len(repr(memory)) / 4
    assert unpack_memory(b"") == {}


@pytest.mark.parametrize(
    "packed",
    [
        b"{}",
        pack_memory({"a": 1})[:-3],
        zlib.compress(b"{"),
        zlib.compress(b"\xff"),
        zlib.compress(b"[" * 100_000),
        zlib.compress(b"[]"),
    ],
)
def test_what_is_no_memory_is_refused(packed: bytes) -> None:
    """Truncated, damaged or foreign bytes are an error of ours."""
    with pytest.raises(StateError, match="remembered of the raters"):
        unpack_memory(packed)


def test_the_memory_of_a_policy_travels() -> None:
    """A table of signals that takes it back knows the same raters."""
    one, other = Signals("ranking"), Signals("ranking")
    one.calibration.read("human:ada", 0.75)
    other.restore(unpack_memory(pack_memory(one.state())))
    assert other.calibration == one.calibration


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (b"", "cannot be read"),
        (b"OLS", "cannot be read"),
        (b"OLS1\xff\xff\xff\xff{}", "cannot be read"),
        (b"OLS1" + struct.pack(">I", 2) + b"{", "cannot be read"),
        (b"OLS1" + struct.pack(">I", 2) + b"\xff\xff", "cannot be read"),
        (b"OLS1" + struct.pack(">I", 2) + b"[]", "cannot be read"),
        (b"OLS2" + struct.pack(">I", len(HEADER)) + HEADER, "no format known here"),
        (b"\x80\x05\x95" + bytes(40), "cannot be read"),
    ],
)
def test_what_is_no_state_is_refused(blob: bytes, words: str) -> None:
    """Truncated, damaged or foreign bytes are an error of ours, never a stack trace of another."""
    with pytest.raises(StateError, match=words):
        unpack_state(blob, WordRanker())


def test_the_state_of_another_family_is_refused() -> None:
    """Who changes the learner of a model is told to give it another name."""
    with pytest.raises(StateError, match=r"family 'words'.*of 'river'.*another name"):
        unpack_state(pack_state(taught()), river())


def test_the_state_of_another_release_of_river_is_refused() -> None:
    """River's bytes are read by the minor release that wrote them; other families do not care."""
    ours = ".".join(version("river").split(".")[:2])
    older = pack_state(river()).replace(f'"library":"{ours}"'.encode(), b'"library":"0.99"')
    with pytest.raises(StateError, match=rf"by river 0\.99, and {ours} is installed.*replaying"):
        unpack_state(older, river())
    assert b'"library":""' in pack_state(taught())


# --- tensors ----------------------------------------------------------------------------------

HEADS: dict[str, dict[str, Any]] = {
    "text": {"learner": {"use": "torch:text", "buckets": 256}, "labels": ["a", "b", "c"]},
    "hidden": {"learner": {"use": "torch:mixed", "hidden": 3, "buckets": 64}, "labels": ["a", "b"]},
    "dense": {"learner": "torch:dense", "labels": ["a", "b"]},
    "module": {
        "learner": {"use": "torch:nn.Linear", "in_features": 2, "out_features": 2},
        "labels": ["a", "b"],
    },
    "ranking": {"learner": {"use": "torch:ranking", "buckets": 256}, "task": "ranking"},
}


@functools.cache
def head(name: str) -> Any:
    """Return a torch head, or a ranker, that has learned something."""
    made = make_learner(ModelSpec.model_validate({"task": "classification"} | HEADS[name]))
    if name == "ranking":
        made.learn([Ranked({}, ({"text": "fine", "n": n}, {"text": "rain"})) for n in range(4)])
    else:
        vector = name in ("dense", "module")
        features = [{"e": [n, 1.0]} if vector else {"text": "so it goes", "n": n} for n in range(6)]
        made.learn([Example(x, "ab"[n % 2]) for n, x in enumerate(features)])
    return made


Tensors: TypeAlias = dict[str, torch.Tensor]
CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "not a number": lambda t: t.double().mul(math.nan).to(t.dtype),
    "infinite": lambda t: t.double().add(math.inf).to(t.dtype),
    "one more": lambda t: torch.cat([t, t[-1:]]),
    "one less": lambda t: t[:-1],
    "flat": lambda t: t.reshape(-1)[None, None],
    "of another type": lambda t: t.to(torch.float16 if t.is_floating_point() else torch.int8),
}


def changed(name: str) -> Iterator[tuple[str, bytes]]:
    """Yield states that differ from a good one in one tensor, or in what is said of them."""
    found, about = tensors.unpack(head(name).to_bytes())
    for which, tensor in found.items():
        for how, change in CHANGES.items():
            whole = tensor.is_floating_point() or how not in ("not a number", "infinite")
            if tensor.numel() and tensor.dim() and whole:
                made = found | {which: change(tensor).contiguous()}
                yield f"{which} {how}", tensors.pack(made, about)
        rest = {other: found[other] for other in found if other != which}
        yield f"{which} gone", tensors.pack(rest, about)
        if "square" in which:
            yield f"{which} below 0", tensors.pack(found | {which: -tensor - 1}, about)
    yield "another tensor", tensors.pack(found | {"more": torch.zeros(1)}, about)
    for key, value in about.items():
        rest = {other: about[other] for other in about if other != key}
        yield f"no {key}", tensors.pack(found, rest)
        for wrong in (None, [value], {}, -1, 1 << 50, "x", list(reversed(["a", "b", "c"]))):
            yield f"{key} {wrong}", tensors.pack(found, about | {key: wrong})


@pytest.mark.parametrize("name", HEADS)
def test_tensors_that_are_not_as_they_were_written_are_refused(name: str) -> None:
    """A replica does not take the digest: whatever cannot answer, or would answer otherwise."""
    assert head(name).from_bytes(head(name).to_bytes()).digest() == head(name).digest()
    taken = []
    for what, blob in changed(name):
        with contextlib.suppress(StateError):
            head(name).from_bytes(blob)
            taken.append(what)
    assert set(taken) <= {"reader.seen one less"}  # a state that could be: it saw a word less
