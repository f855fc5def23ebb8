"""Torch heads learn in one pass, grow with what they see, and travel as safetensors."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from online_learner.errors import ConfigError, StateError, Unfit
from online_learner.learners import Answer, Learner
from online_learner.learners.factory import make_learner
from online_learner.learners.torch import tensors
from online_learner.learners.torch.head import CHUNK
from online_learner.learners.torch.layered import LayeredHead, dense, mixed, text
from online_learner.learners.torch.readers import MAX_NAMES, ROOM
from online_learner.schema import Example, Ranked, Rated
from online_learner.settings import ModelSpec

TOPICS = {"sport": "ball goal team win", "food": "soup bread cook salt", "law": "court judge rule"}
COMMON = "the a of and in on for with"


def spec(task: str = "classification", **more: Any) -> ModelSpec:
    """Return a configuration."""
    return ModelSpec.model_validate({"task": task, "learner": "torch:text", **more})


def texts(count: int, seed: int = 0) -> list[Example]:
    """Return sentences of three topics."""
    rng = random.Random(seed)
    topics = [rng.choice([*TOPICS]) for _ in range(count)]
    return [
        Example(
            {"text": " ".join([rng.choice(TOPICS[y].split()), *rng.choices(COMMON.split(), k=6)])},
            y,
        )
        for y in topics
    ]


def vectors(count: int, dim: int = 16, seed: int = 0) -> list[Example]:
    """Return vectors, and on which side of a plane they lie."""
    rng = np.random.default_rng(seed)
    plane = np.random.default_rng(99).normal(size=dim)
    return [Example({"e": x.tolist()}, bool(x @ plane > 0)) for x in rng.normal(size=(count, dim))]


def flats(count: int, seed: int = 0) -> list[Example]:
    """Return flats and their rent, in amounts of very different size."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        area, year = float(rng.uniform(20, 120)), int(rng.integers(1900, 2020))
        city = str(rng.choice(["Bern", "Rom", "Oslo"]))
        rent = 1e5 + 1000 * area + 100 * (year - 1900) + {"Bern": 5e4, "Rom": 0, "Oslo": 2e4}[city]
        found.append(Example({"area": area, "year": year, "city": city}, float(rent)))
    return found


def rings(count: int, seed: int = 0) -> list[Example]:
    """Return points within and without a circle: nothing that a line can tell apart."""
    rng = np.random.default_rng(seed)
    return [
        Example({"x": float(x), "y": float(y)}, bool(x * x + y * y < 1.4))
        for x, y in rng.normal(size=(count, 2))
    ]


def batches(examples: Sequence[Example], size: int) -> Iterator[Sequence[Example]]:
    """Yield the examples in batches."""
    for start in range(0, len(examples), size):
        yield examples[start : start + size]


def taught(head: LayeredHead, examples: Sequence[Example], size: int = 32) -> LayeredHead:
    """Return the head after the examples."""
    for batch in batches(examples, size):
        head.learn(batch)
    return head


def accuracy(head: Learner, examples: Sequence[Example]) -> float:
    """Return the share of examples that the head answers rightly."""
    answers = head.predict([example.features for example in examples])
    return sum(a.output == e.target for a, e in zip(answers, examples, strict=True)) / len(examples)


def error(head: Learner, examples: Sequence[Example]) -> float:
    """Return the mean absolute error."""
    answers = head.predict([example.features for example in examples])
    numbers = [float(answer.output) for answer in answers]  # type: ignore[arg-type]
    return float(np.mean([abs(y - e.target) for y, e in zip(numbers, examples, strict=True)]))  # type: ignore[operator]


def one(head: Learner, features: dict[str, Any]) -> Answer:
    """Return the one answer."""
    [answer] = head.predict([features])
    return answer


HEADS: dict[str, tuple[Callable[[], LayeredHead], list[Example]]] = {
    "text": (lambda: text(spec=spec(), buckets=4096), texts(100)),
    "closed text": (lambda: text(spec=spec(labels=[*TOPICS])), texts(100)),
    "dense": (lambda: dense(spec=spec(labels=[False, True])), vectors(100)),
    "open dense": (lambda: dense(spec=spec()), vectors(100)),
    "hidden dense": (lambda: dense(spec=spec(seed=3), hidden=8), vectors(100)),
    "mixed": (lambda: mixed(spec=spec("regression")), flats(100)),
    "hidden mixed": (lambda: mixed(spec=spec("regression"), hidden=8, loss="squared"), flats(100)),
}
EVERY = pytest.mark.parametrize("name", HEADS)

# --- learning -----------------------------------------------------------------------------------


def test_text_is_learned_in_one_pass() -> None:
    """After a few hundred sentences, topics are told by their words."""
    head = taught(text(spec=spec(labels=[*TOPICS])), texts(300))
    assert accuracy(head, texts(100, seed=1)) > 0.97


def test_vectors_are_learned_in_one_pass() -> None:
    """A linear head finds the plane between two classes of vectors."""
    head = taught(dense(spec=spec(labels=[False, True]), dim=16), vectors(2000))
    assert accuracy(head, vectors(500, seed=1)) > 0.95


@pytest.mark.parametrize("make", [dense, mixed])
def test_a_hidden_layer_learns_what_a_line_cannot(make: Callable[..., LayeredHead]) -> None:
    """A circle is no matter for a linear head, and is for one with a hidden layer."""
    labels = spec(labels=[False, True])
    linear, hidden = make(spec=labels), make(spec=labels, hidden=32)
    for head in (linear, hidden):
        taught(head, rings(3000), size=16)
    assert accuracy(linear, rings(500, seed=1)) < 0.7
    assert accuracy(hidden, rings(500, seed=1)) > 0.85


@pytest.mark.parametrize("hidden", [0, 16])
@pytest.mark.parametrize("loss", ["huber", "squared"])
def test_numbers_of_any_size_are_learned(hidden: int, loss: Any) -> None:
    """Rents in the hundred thousands are learned from years, areas and cities as they are."""
    head = taught(mixed(spec=spec("regression"), hidden=hidden, loss=loss), flats(1500), size=16)
    spread = float(np.std([float(e.target) for e in flats(200, seed=1)]))  # type: ignore[arg-type]
    assert error(head, flats(200, seed=1)) < 0.2 * spread


def test_dense_and_mixed_learn_the_same_of_numbers() -> None:
    """Where all features are numbers, hashing them makes no difference."""
    examples = rings(200)
    answers = [
        taught(make(spec=spec(labels=[False, True])), examples).predict([examples[0].features])
        for make in (dense, mixed)
    ]
    assert answers[0][0].scores == pytest.approx(answers[1][0].scores, abs=1e-5)


def test_huber_minds_an_absurd_target_less() -> None:
    """One target a million times too large moves a Huber head less than a squared one."""
    absurd = Example(flats(1)[0].features, 1e12)
    moved = {}
    for loss in ("huber", "squared"):
        head = taught(mixed(spec=spec("regression"), loss=loss), flats(500))
        before = error(head, flats(100, seed=1))
        head.learn([absurd])
        moved[loss] = error(head, flats(100, seed=1)) - before
    assert moved["huber"] < moved["squared"]


@pytest.mark.parametrize("labels", [None, [*TOPICS]])
def test_complementary_examples_lower_their_label(labels: list[str] | None) -> None:
    """That an answer is not right lowers its score, and raises that of the next best label."""
    head = taught(text(spec=spec(labels=labels)), texts(60))
    features = {"text": "the goal of the soup"}
    before = one(head, features).scores
    head.learn([Example(features, "sport", complementary=True)])
    after = one(head, features).scores
    assert after["sport"] < before["sport"]
    assert after["food"] > before["food"] > before["law"]


def test_thumbs_alone_teach_three_labels() -> None:
    """A head that only hears which label is wrong still finds the right one."""
    rng = random.Random(1)
    wrong = [
        Example(e.features, rng.choice([y for y in TOPICS if y != e.target]), complementary=True)
        for e in texts(600)
    ]
    head = taught(text(spec=spec(labels=[*TOPICS])), wrong)
    assert accuracy(head, texts(100, seed=1)) > 0.9


def test_weights_scale_the_step() -> None:
    """A lesson moves an answer the further, the larger its weight, and not at all without one."""
    moved = []
    for weight in (0.0, 0.1, 1.0, 5.0):
        head = taught(text(spec=spec(labels=["a", "b"])), [Example({"text": "y"}, "a")] * 3)
        head.learn([Example({"text": "x"}, "b", weight)])
        moved.append(one(head, {"text": "x"}).scores["b"])
    assert moved == sorted(set(moved))


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    """A weight below zero, infinite or not a number is an error."""
    with pytest.raises(ValueError, match="weight"):
        text(spec=spec()).learn([Example({"text": "x"}, "a", weight)])


# --- before the first lesson, and growth --------------------------------------------------------


def test_before_the_first_lesson() -> None:
    """An untrained head answers with equal scores, with no label where none is known, or with 0."""
    third = {key: pytest.approx(1 / 3) for key in TOPICS}
    for make in (text, dense, mixed):
        assert one(make(spec=spec(labels=[*TOPICS])), {}).scores == third
        assert one(make(spec=spec()), {}) == Answer(None)
        assert one(make(spec=spec("regression")), {}) == Answer(0.0)
    assert one(dense(spec=spec(labels=[*TOPICS]), hidden=4), {"e": [1.0, 2.0]}).scores == third
    assert text(spec=spec()).predict([]) == []


@EVERY
def test_labels_and_features_may_come_late(name: str) -> None:
    """A head that has learned goes on with a new feature, and has not forgotten the others."""
    make, examples = HEADS[name]
    head = taught(make(), examples)
    features = examples[0].features | {"late": 3.0}
    head.learn([Example(features, examples[0].target)])
    assert np.isfinite([*one(head, {"late": 2.0}).scores.values()]).all()
    assert one(head, examples[0].features).output is not None


def test_labels_are_learned_as_they_come() -> None:
    """Without a closed set, scores cover the labels so far, in their own types."""
    head = text(spec=spec())
    for label in (1, True, "x") * 3:
        head.learn([Example({"text": f"word {label}"}, label)])
    for label in (1, True, "x"):
        answer = one(head, {"text": f"word {label}"})
        assert (type(answer.output), answer.output) == (type(label), label)
    assert [*answer.scores] == ["1", "true", "x"]


def test_a_label_outside_the_closed_set_is_refused() -> None:
    """An unknown label is an error that names the known ones."""
    with pytest.raises(ValueError, match="sport, food, law"):
        text(spec=spec(labels=[*TOPICS])).learn([Example({"text": "x"}, "art")])


@pytest.mark.parametrize("lesson", [Ranked({}, ({}, {})), Rated({}, {}, 1.0)])
def test_lessons_for_rankers_are_refused(lesson: Ranked | Rated) -> None:
    """A comparison or a judgement of options says what learns from it."""
    with pytest.raises(TypeError, match="torch:ranking"):
        text(spec=spec()).learn([lesson])


@pytest.mark.parametrize("dim", [None, 3])
def test_a_vector_of_another_length_is_refused(dim: int | None) -> None:
    """The error of an embedding of another length says both lengths, when asked and when taught."""
    head = dense(spec=spec(labels=["a", "b"]), dim=dim)
    if dim is None:
        head.learn([Example({"e": [1.0, 2.0, 3.0]}, "a")])
    for call in (
        lambda: head.predict([{"e": [1.0, 2.0]}]),
        lambda: head.learn([Example({"e": [1.0, 2.0]}, "a")]),
    ):
        with pytest.raises(ValueError, match="one has 2 numbers, and this model takes 3 there"):
            call()


def test_a_number_is_no_vector() -> None:
    """One number in the place of a vector does not fill all of it."""
    head = dense(spec=spec(labels=["a", "b"]))
    head.learn([Example({"e": [1.0, 2.0, 3.0]}, "a")])
    with pytest.raises(ValueError, match="1 numbers"):
        head.predict([{"e": 1.0}])


def test_text_among_numbers_is_refused() -> None:
    """A dense head says which learner takes text."""
    with pytest.raises(Unfit, match="torch:mixed"):
        dense(spec=spec()).predict([{"e": "text"}])


def test_a_vector_has_room_for_so_many_names() -> None:
    """Names without end leave the state bounded, and what came first is still learned."""
    head = dense(spec=spec(labels=["a", "b"]))
    head.learn([Example({"first": 1.0}, "a")])
    for start in range(0, 2 * MAX_NAMES, 100):
        names = dict.fromkeys(map(str, range(start, start + 100)), 1.0)
        head.learn([Example(names | {"first": 2.0}, "b")])
    found, _ = tensors.unpack(head.to_bytes())
    assert found["first.weight"].shape == (MAX_NAMES, 1)


def test_a_head_is_as_large_as_what_it_has_seen() -> None:
    """The state of many buckets and labels stays small until they are needed, then is bounded."""
    labels = list(map(str, range(77)))
    small = text(spec=spec(labels=labels), buckets=1 << 22)
    small.learn([Example({"text": "one two three"}, "5")])
    assert len(small.to_bytes()) < 1 << 19
    words = [" ".join("".join(w) for w in itertools.product("abcdef", repeat=5))]
    full = text(spec=spec(labels=["a", "b"]), buckets=2048)
    full.learn([Example({"text": words[0]}, "a")])
    assert len(full.to_bytes()) < 2048 * 16


def test_asking_with_new_words_keeps_the_others() -> None:
    """Words that no lesson had count for nothing but the length of the text."""
    head = taught(text(spec=spec(labels=["a", "b"])), [Example({"text": "x"}, "b")] * 5)
    known, more = one(head, {"text": "x"}).scores["b"], one(head, {"text": "x y z"}).scores["b"]
    assert 0.5 < more < known


def test_asking_with_new_numbers_keeps_the_others() -> None:
    """A number that no lesson had counts for nothing, also where a head has no room left."""
    head = mixed(spec=spec("regression"), buckets=1 << 22)
    for number in range(0, ROOM, 8):
        names = map(str, range(number, number + 8))
        lesson = Example({name: float(place) for place, name in enumerate(names)}, number + 1.0)
        head.learn([lesson, Example(dict.fromkeys(lesson.features, 9.0), 0.0)])
    found, _ = tensors.unpack(head.to_bytes())
    assert len(found["reader.seen"]) == len(found["first.weight"]) == ROOM
    assert one(head, {"new": 1e6}) == one(head, {"new": -1e6}) == one(head, {})


# --- hostile input ------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e300])
def test_numbers_that_are_none_are_refused(name: str, number: float) -> None:
    """A number that is not finite, or beyond any that is accepted, is an error both ways."""
    make, examples = HEADS[name]
    target = examples[0].target
    head = taught(make(), [*examples, Example({"number": 1.0}, target)])
    with pytest.raises(ValueError, match="finite"):
        head.predict([{"number": number}])
    with pytest.raises(ValueError, match="finite"):
        head.learn([Example({"number": number}, target)])


def test_weights_that_overflow_are_found() -> None:
    """A lesson that ruins the weights is an error of arithmetic, for the caller to undo."""
    head = taught(text(spec=spec("regression"), loss="squared"), [Example({"text": "x"}, 1.0)])
    with pytest.raises(FloatingPointError):
        head.learn([Example({"text": "x"}, 5.0, weight=3e38)] * 40)


def test_a_ruined_answer_is_not_given() -> None:
    """An answer that is not finite is an error, not a score."""
    head = taught(text(spec=spec(labels=["a", "b"])), [Example({"text": "x"}, "a")])
    head._first.weight[:] = torch.nan
    with pytest.raises(FloatingPointError):
        head.predict([{"text": "x"}])


def test_a_text_of_a_megabyte() -> None:
    """A very long text is learned and answered like any other."""
    long = {"text": "so it goes " * 100_000}
    head = taught(text(spec=spec(labels=["a", "b"])), [Example(long, "b")] * 3)
    assert one(head, long).output == "b"


# --- state --------------------------------------------------------------------------------------


@EVERY
def test_a_round_trip_in_the_middle_changes_nothing(name: str) -> None:
    """A head that went through bytes halfway ends with the digest of one that did not."""
    make, examples = HEADS[name]
    half = CHUNK * 3 + 1
    straight = taught(taught(make(), examples[:half]), examples[half:])
    bent = taught(make().from_bytes(taught(make(), examples[:half]).to_bytes()), examples[half:])
    assert bent.digest() == straight.digest()
    assert bent.to_bytes() == straight.to_bytes()
    batch = [example.features for example in examples]
    assert bent.predict(batch) == straight.predict(batch)


@EVERY
def test_batches_are_part_of_the_record(name: str) -> None:
    """The same batches give the same digest; whole chunks may be cut anywhere between them."""
    make, examples = HEADS[name]
    digests = {taught(make(), examples, size).digest() for size in (CHUNK, 2 * CHUNK, 512)}
    assert len(digests) == 1
    assert taught(make(), examples, 5).digest() == taught(make(), examples, 5).digest()


def test_the_seed_draws_the_hidden_weights() -> None:
    """Heads of one seed are equal, of two seeds are not."""
    first, again, other = (
        dense(spec=spec(labels=["a", "b"], seed=seed), dim=4, hidden=4) for seed in (1, 1, 2)
    )
    for head in (first, again, other):
        head.learn([Example({"e": [1.0, 2.0, 3.0, 4.0]}, "a")])
    assert first.digest() == again.digest() != other.digest()


def test_reading_a_state_leaves_the_reader() -> None:
    """`from_bytes` returns another head; the two share nothing."""
    reader, writer = text(spec=spec()), taught(text(spec=spec()), texts(50))
    fresh = reader.digest()
    twin = reader.from_bytes(writer.to_bytes())
    assert (reader.digest(), reader.fitted, twin.fitted) == (fresh, False, True)
    before = writer.digest()
    taught(twin, texts(50, seed=1))
    assert writer.digest() == before


@pytest.mark.parametrize(
    "other",
    [
        lambda: text(spec=spec(), buckets=1024),
        lambda: text(spec=spec(), lr=1.0),
        lambda: text(spec=spec(labels=[*TOPICS])),
        lambda: dense(spec=spec()),
    ],
)
def test_the_state_of_another_configuration_is_refused(other: Callable[[], LayeredHead]) -> None:
    """A state is not read by a head that is made otherwise; the error says what differs."""
    blob = taught(text(spec=spec()), texts(20)).to_bytes()
    with pytest.raises(StateError, match=r"another configuration.* was .* and is "):
        other().from_bytes(blob)


def test_damaged_bytes_are_refused() -> None:
    """What is cut, garbage, or lacks a part is no state."""
    head = taught(text(spec=spec()), texts(20))
    blob = head.to_bytes()
    found, about = tensors.unpack(blob)
    short = {name: tensor for name, tensor in found.items() if name != "first.bias"}
    for bytes_ in (b"", b"garbage", blob[:-1], blob[: len(blob) // 2], tensors.pack(short, about)):
        with pytest.raises(StateError):
            head.from_bytes(bytes_)


def test_state_is_no_pickle() -> None:
    """The bytes are safetensors, which hold numbers and one JSON document."""
    blob = taught(text(spec=spec()), texts(20)).to_bytes()
    _, about = tensors.unpack(blob)
    assert about["labels"] == list(dict.fromkeys(e.target for e in texts(20)))
    assert b"__reduce__" not in blob
    assert blob[8:9] == b"{"


# --- configuration and devices ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "more"),
    [
        ("torch:text", {"hidden": 3}),
        ("torch:text", {"ngrams": 0}),
        ("torch:text", {"buckets": 0}),
        ("torch:mixed", {"loss": "hinge"}),
        ("torch:dense", {"hidden": -1}),
        ("torch:dense", {"lr": 0}),
        ("torch:dense", {"dim": 0}),
        ("torch:dense", {"dim": "many"}),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(use: str, more: dict[str, Any]) -> None:
    """An argument that no head has is an error of configuration that names it."""
    learner = spec("regression", learner={"use": use, **more})
    with pytest.raises(ConfigError, match=next(iter(more)) if more != {"dim": "many"} else "dense"):
        make_learner(learner)


def test_a_head_does_not_rank() -> None:
    """For a ranking, the error names the learner that does."""
    with pytest.raises(ConfigError, match="torch:ranking"):
        text(spec=spec("ranking"))


@pytest.mark.parametrize("on_missing", ["refuse", "wait"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_named_at_once(on_missing: str) -> None:
    """Where a GPU is asked for and none is there, the error says what to do."""
    wanted = spec(resources={"num_gpus": 1}, on_gpu_missing=on_missing)
    with pytest.raises(ConfigError, match="on_gpu_missing: cpu"):
        text(spec=wanted)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_may_be_done_without() -> None:
    """With `on_gpu_missing: cpu`, the head computes on the CPU, and its state fits any other."""
    wanted = spec(resources={"num_gpus": 1}, on_gpu_missing="cpu")
    head = taught(text(spec=wanted), texts(20))
    assert text(spec=spec()).from_bytes(head.to_bytes()).digest() == head.digest()


@EVERY
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_state_moves_from_gpu_to_cpu(name: str) -> None:
    """A state that was learned on a GPU has the same digest and answers on a CPU, within 1e-5."""
    make, examples = HEADS[name]
    on_gpu = taught(LayeredHead(make()._settings, torch.device("cuda")), examples)
    on_cpu = make().from_bytes(on_gpu.to_bytes())
    assert on_cpu.digest() == on_gpu.digest()
    batch = [example.features for example in examples]
    for here, there in zip(on_cpu.predict(batch), on_gpu.predict(batch), strict=True):
        assert here.scores == pytest.approx(there.scores, abs=1e-5)
        if not here.scores:
            assert here.output == pytest.approx(there.output, rel=1e-5)


@EVERY
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_learns_the_same_twice(name: str) -> None:
    """On a GPU too, the same batches give the same digest."""
    make, examples = HEADS[name]
    heads = [LayeredHead(make()._settings, torch.device("cuda")) for _ in range(2)]
    assert len({taught(head, examples).digest() for head in heads}) == 1


def test_a_head_computes_on_one_thread() -> None:
    """Making a head leaves torch with one thread, on which sums have one order."""
    text(spec=spec())
    assert torch.get_num_threads() == 1
