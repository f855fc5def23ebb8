"""State on its way: what is packed comes back, and what is not ours is refused with the cure."""

from __future__ import annotations

import struct
from importlib.metadata import version
from typing import Any

import pytest
from river import linear_model
from tiny_ranker import WordRanker

from online_learner.errors import StateError
from online_learner.learners.recorder import Recorder
from online_learner.learners.river import RiverLearner
from online_learner.learners.state import pack_state, unpack_state
from online_learner.schema import Example, Rated
from policies.signals import Signals

OPTION = {"text": "fine weather"}
HEADER = b'{"family":"words","library":"","memory":{}}'


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
    """Weights and what the signals policy remembers; the one that it is like stays as it is."""
    model, memory = make(), {"raters": {"human:ä\ud800": [1, 0.1 + 0.2, 5e-324]}}
    like = WordRanker() if make is taught else make()
    before = like.digest()
    found, remembered = unpack_state(pack_state(model, memory), like)
    assert type(found) is type(model)
    assert found.digest() == model.digest()
    assert remembered == memory
    assert like.digest() == before
    assert found is not like


def test_equal_states_are_equal_bytes() -> None:
    """The header holds nothing that differs from one writing to the next."""
    assert pack_state(taught(), {"a": 1}) == pack_state(taught(), {"a": 1})


def test_the_memory_of_a_policy_travels() -> None:
    """A table of signals that takes it back knows the same raters."""
    one, other = Signals("ranking"), Signals("ranking")
    one.calibration.read("human:ada", 0.75)
    _, memory = unpack_state(pack_state(taught(), one.state()), WordRanker())
    other.restore(memory)
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
        unpack_state(pack_state(taught(), {}), river())


def test_the_state_of_another_release_of_river_is_refused() -> None:
    """River's bytes are read by the minor release that wrote them; other families do not care."""
    ours = ".".join(version("river").split(".")[:2])
    older = pack_state(river(), {}).replace(f'"library":"{ours}"'.encode(), b'"library":"0.99"')
    with pytest.raises(StateError, match=rf"by river 0\.99, and {ours} is installed.*replaying"):
        unpack_state(older, river())
    assert b'"library":""' in pack_state(taught(), {})
