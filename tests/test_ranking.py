"""The ranker: gradients, what each lesson moves and where to, and its state."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from online_learner.errors import ConfigError, StateError, Unfit
from online_learner.learners import Ranker
from online_learner.learners.factory import make_learner
from online_learner.learners.torch.pairs import MAX_CROSSED
from online_learner.learners.torch.ranking import LinearRanker, plackett_luce, ranker, slopes_of
from online_learner.schema import Example, Lesson, Ranked, Rated
from online_learner.settings import ModelSpec

GOOD, BAD, OTHER = {"text": "a clear answer"}, {"text": "no idea"}, {"text": "it depends, really"}
SCORES = st.lists(st.floats(-30, 30), min_size=2, max_size=7)


def spec(**more: Any) -> ModelSpec:
    """Return the configuration of a ranking model."""
    return ModelSpec(task="ranking", **{"learner": "torch:ranking", **more})


def fresh(**arguments: Any) -> LinearRanker:
    """Return a ranker that has learned nothing."""
    return ranker(spec=spec(), **{"buckets": 1 << 14, **arguments})


def taught(*lessons: Lesson, times: int = 1, **arguments: Any) -> LinearRanker:
    """Return a ranker that has learned these lessons, in one batch."""
    made = fresh(**arguments)
    made.learn(list(lessons) * times)
    return made


def lessons(n: int = 200) -> list[Lesson]:
    """Return lessons of all kinds, over text, numbers, categories and lists."""
    draw = np.random.default_rng(5)
    found: list[Lesson] = []
    for i in range(n):
        options = tuple(
            {
                "text": f"word{k} word{k + i % 3}",
                "price": float(k),
                "new": k > 2,
                "at": [k / 3, 1.0],
            }
            for k in draw.permutation(5).tolist()
        )
        context = {"query": f"word{i % 4}", "at": [1.0, i % 5], "user": f"u{i % 3}"}
        weight = float(draw.uniform(0.1, 1.0))
        found += [
            Ranked(context, options[:2], weight=weight),
            Ranked(context, options, places=3),
            Ranked({}, options, worst_first=True, weight=0.1),
            Rated(context, options[0], reward=i % 5 / 4, weight=weight),
        ]
    return found


# --- gradients --------------------------------------------------------------------------------


def plackett_luce_loss(scores: torch.Tensor, places: int) -> torch.Tensor:
    """Return -log P(the first `places` places are filled in this order), stage by stage."""
    stages = range(min(places, len(scores) - 1))
    return sum((scores[k:].logsumexp(0) - scores[k] for k in stages), torch.zeros(()))


@given(SCORES, st.integers(1, 8))
def test_plackett_luce_has_the_gradient_of_its_likelihood(
    numbers: list[float], places: int
) -> None:
    """The slopes are those that autograd finds for the likelihood written out stage by stage."""
    scores = torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
    (wanted,) = torch.autograd.grad(plackett_luce_loss(scores, places), scores)
    assert plackett_luce(np.array(numbers), places) == pytest.approx(wanted.numpy(), abs=1e-9)


@given(SCORES)
def test_worst_first_is_the_likelihood_of_negated_scores(numbers: list[float]) -> None:
    """An order of dislike is an order of preference under the negated scores."""
    scores = torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
    (wanted,) = torch.autograd.grad(plackett_luce_loss(-scores, 1), scores)
    lesson = Ranked({}, ({},) * len(numbers), worst_first=True)
    assert slopes_of(lesson, np.array(numbers)) == pytest.approx(wanted.numpy(), abs=1e-9)


@given(st.floats(-30, 30), st.floats(0, 1))
def test_a_judgement_has_the_gradient_of_the_logistic_loss(score: float, reward: float) -> None:
    """The slope is that of the cross-entropy between the reward and the logistic of the score."""
    at = torch.tensor(score, dtype=torch.float64, requires_grad=True)
    target = torch.tensor(reward, dtype=torch.float64)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(at, target)
    (wanted,) = torch.autograd.grad(loss, at)
    found = slopes_of(Rated({}, {}, reward), np.array([score]))
    assert found[0] == pytest.approx(wanted.item(), abs=1e-9)


def test_two_options_are_bradley_terry() -> None:
    """The slope of a pair is the probability with which the loser was expected to win."""
    won, lost = plackett_luce(np.array([2.0, 0.5]), 1)
    assert lost == pytest.approx(1.0 / (1.0 + math.exp(1.5)))
    assert won == pytest.approx(-lost)


def test_slopes_stay_finite_where_scores_are_far_apart() -> None:
    """Scores whose exponentials overflow, in either order, give slopes of ordinary size."""
    for scores in ([900.0, -900.0, 0.0], [-900.0, 900.0, 0.0]):
        found = plackett_luce(np.array(scores), 2)
        assert np.abs(found).max() <= 2.0
        assert found.sum() == pytest.approx(0.0, abs=1e-9)


# --- what a lesson does -----------------------------------------------------------------------


def test_it_is_a_ranker_by_its_short_name() -> None:
    """`torch:ranking`, with arguments beside it, makes a ranker of the torch family."""
    made = make_learner(spec(learner={"use": "torch:ranking", "buckets": 1024, "context": False}))
    assert isinstance(made, Ranker)
    assert isinstance(made, LinearRanker)
    assert (made.family, made.shape.buckets, made.shape.context) == ("torch", 1024, False)


def test_an_untrained_ranker_scores_zero() -> None:
    """Before the first lesson every option has a reward of 0, and there may be none."""
    made = fresh()
    assert not made.fitted
    assert made.score({"prompt": "hello"}, [GOOD, {}, {"price": 3.0}]) == [0.0, 0.0, 0.0]
    assert made.score({"prompt": "hello"}, []) == []


@pytest.mark.parametrize("context", [{}, {"prompt": "well?"}])
def test_the_preferred_option_rises(context: dict[str, Any]) -> None:
    """After one comparison the winner is above 0 and the loser below."""
    made = taught(Ranked(context, (GOOD, BAD)))
    good, bad = made.score(context, [GOOD, BAD])
    assert made.fitted
    assert good > 0 > bad


def test_a_ranking_teaches_the_order_of_its_places() -> None:
    """Three options end in the order in which they were ranked."""
    made = taught(Ranked({}, (GOOD, OTHER, BAD), places=2), times=20)
    good, other, bad = made.score({}, [GOOD, OTHER, BAD])
    assert good > other > bad


def test_one_place_leaves_the_rest_tied() -> None:
    """Where the first place alone is decided, equal options behind it stay equal."""
    rest = ({"id": "b"}, {"id": "c"})
    made = taught(Ranked({}, ({"id": "a"}, *rest)), times=5)
    first, second, third = made.score({}, [{"id": "a"}, *rest])
    assert first > 0 > second
    assert second == pytest.approx(third)


def test_worst_first_moves_the_first_down() -> None:
    """The first option of an order of dislike falls below the others."""
    made = taught(Ranked({}, (BAD, GOOD, OTHER), worst_first=True))
    bad, good, other = made.score({}, [BAD, GOOD, OTHER])
    assert bad < 0 < min(good, other)


@pytest.mark.parametrize(("reward", "sign"), [(1.0, 1), (0.8, 1), (0.5, 0), (0.2, -1), (0.0, -1)])
def test_a_judgement_moves_its_option(reward: float, sign: int) -> None:
    """A reward above a half moves the option up, one below moves it down."""
    made = taught(Rated({"prompt": "well?"}, GOOD, reward))
    assert np.sign(made.score({"prompt": "well?"}, [GOOD])[0]) == sign
    assert made.fitted == (sign != 0)


def test_the_logistic_of_a_score_tends_to_the_reward() -> None:
    """An option that is judged .8 again and again is good with a probability of .8."""
    made = taught(Rated({}, GOOD, 0.8), times=300)
    assert 1 / (1 + math.exp(-made.score({}, [GOOD])[0])) == pytest.approx(0.8, abs=0.01)


def test_the_difference_of_scores_tends_to_the_log_odds() -> None:
    """Where one option wins three times of four, its odds are about 3."""
    once: list[Lesson] = [Ranked({}, (GOOD, BAD))] * 3
    made = taught(*once, Ranked({}, (BAD, GOOD)), times=200)
    good, bad = made.score({}, [GOOD, BAD])
    assert good - bad == pytest.approx(math.log(3), abs=0.2)


@pytest.mark.parametrize(
    "lesson",
    [
        lambda weight: Ranked({}, (GOOD, BAD), weight=weight),
        lambda weight: Rated({}, GOOD, 1.0, weight=weight),
    ],
)
def test_a_weight_scales_the_step(lesson: Callable[[float], Lesson]) -> None:
    """A tenth of the weight moves a score by a tenth; no weight does not move it."""
    whole, tenth, none = (taught(lesson(w)).score({}, [GOOD])[0] for w in (1.0, 0.1, 0.0))
    assert tenth == pytest.approx(whole / 10, rel=1e-4)
    assert none == 0.0


@pytest.mark.parametrize("length", [1, 30, 300])
def test_texts_of_any_length_learn_alike(length: int) -> None:
    """A first comparison moves two options apart by a like amount, and never beyond `step`."""
    first, second = ({"text": " ".join(f"{name}{i}" for i in range(length))} for name in "ab")
    a, b = taught(Ranked({}, (first, second)), step=1.5).score({}, [first, second])
    assert 0.9 < a - b <= 1.5


def test_what_options_share_is_not_learned() -> None:
    """Words that both options have say nothing about either."""
    made = taught(Ranked({}, ({"text": "tea please"}, {"text": "tea refuse"})), ngrams=1)
    assert made.score({}, [{"text": "tea"}])[0] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", ["price", "deep"])
def test_numbers_are_learned_in_their_own_scale(name: str) -> None:
    """The cheaper of two wins, though prices are in the thousands and differ by a few."""
    draw = np.random.default_rng(2)
    made = fresh()
    for _ in range(200):
        low, high = sorted(draw.uniform(2000, 2010, 2).tolist())
        options = (
            ({name: low}, {name: high})
            if name == "price"
            else ({name: [low, 1.0]}, {name: [high, 1.0]})
        )
        made.learn([Ranked({}, options)])
    cheap, dear = made.score({}, list(options))
    assert cheap - dear > 0.5


# --- context ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ({"topic": "sport news"}, {"topic": "tax law"}),
        ({"member": True}, {"member": False}),
        ({"hour": 8.0}, {"hour": 20.0}),
        ({"user": "ada", "hour": 8}, {"user": "bob", "hour": 8}),
    ],
)
def test_the_context_matters(here: dict[str, Any], there: dict[str, Any]) -> None:
    """An option that is good in one context and bad in another learns both."""
    made = taught(Ranked(here, (GOOD, BAD)), Ranked(there, (BAD, GOOD)), times=30)
    assert np.diff(made.score(here, [BAD, GOOD])) > 1.0
    assert np.diff(made.score(there, [GOOD, BAD])) > 1.0


def test_without_context_options_are_seen_by_themselves() -> None:
    """With `context: false` a score is the same in every context."""
    made = taught(Ranked({"topic": "tea"}, (GOOD, BAD)), context=False)
    options = [GOOD, BAD, {"text": "tea"}]
    assert made.score({"topic": "tea"}, options) == made.score({"topic": "coffee"}, options)


def test_repeating_the_words_of_a_query_counts() -> None:
    """Documents that hold the query's words win, also for a query that was never seen."""
    made = fresh()
    for i in range(100):
        made.learn([Ranked({"query": f"q{i}"}, ({"text": f"a q{i}"}, {"text": f"a r{i}"}))])
    hit, miss = made.score({"query": "tea"}, [{"text": "a tea"}, {"text": "a cup"}])
    assert hit - miss > 1.0


def test_lists_are_compared_with_those_of_the_context() -> None:
    """Options whose embedding points where the query's does win, for an unseen query too."""
    draw = np.random.default_rng(1)
    made = fresh()
    for _ in range(200):
        query, near, far = draw.normal(size=(3, 8))
        near += 2 * query
        made.learn([Ranked({"e": query.tolist()}, ({"v": near.tolist()}, {"v": far.tolist()}))])
    query = draw.normal(size=8)
    near, far = made.score({"e": query.tolist()}, [{"v": query.tolist()}, {"v": (-query).tolist()}])
    assert near - far > 1.0


# --- what does not matter ---------------------------------------------------------------------


def test_an_options_score_does_not_depend_on_the_others() -> None:
    """Options in another order, or fewer of them, keep their scores."""
    made = taught(*lessons())
    context = {"query": "word1", "at": [1.0, 2.0]}
    options = [{"text": f"word{k}", "price": float(k), "at": [k / 3, 1.0]} for k in range(5)]
    scores = made.score(context, options)
    assert made.score(context, options[::-1]) == scores[::-1]
    assert made.score(context, options[2:3]) == scores[2:3]


def test_the_order_of_features_does_not_matter() -> None:
    """Features in another order give the same scores and the same weights."""

    def turned(features: dict[str, Any]) -> dict[str, Any]:
        return dict(reversed(features.items()))

    there = [lesson for lesson in lessons() if isinstance(lesson, Ranked)]
    back = [
        Ranked(turned(r.features), tuple(map(turned, r.options)), r.places, r.worst_first, r.weight)
        for r in there
    ]
    assert taught(*there).digest() == taught(*back).digest()


def test_missing_new_and_empty_features_are_fine() -> None:
    """Features may come, go, or be none at all; an option without any scores about 0."""
    made = taught(Ranked({"q": "a"}, ({"x": 1.0}, {"y": "b"})), Ranked({}, ({}, {"z": True})))
    scores = made.score(
        {"new": [1.0, 2.0], "none": ""}, [{"x": 2.0, "new": "c"}, {}, {"tags": ["a"]}]
    )
    assert np.isfinite(scores).all()
    assert scores[1] == pytest.approx(0.0, abs=1e-9)


def test_nothing_given_is_changed() -> None:
    """Neither scoring nor learning changes the features."""
    given_lessons = lessons(20)
    before = copy.deepcopy(given_lessons)
    made = taught(*given_lessons)
    for lesson in given_lessons:
        if isinstance(lesson, Ranked):
            made.score(lesson.features, lesson.options)
    assert given_lessons == before


def test_scoring_changes_nothing() -> None:
    """The digest is the same after scores have been asked for, in several threads at once."""
    made = taught(*lessons())
    before = made.digest()
    cases = [(r.features, r.options) for r in lessons(50) if isinstance(r, Ranked)]
    alone = [made.score(*case) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda case: made.score(*case), cases * 4))
    assert together == alone * 4
    assert made.digest() == before


def test_a_thousand_options_and_a_wide_context_are_taken() -> None:
    """A full ranking of 1000 options is learned, under more features than are crossed."""
    options = tuple({"price": float(i), "text": f"option number {i}"} for i in range(1000))
    context = {f"f{i:02}": f"v{i}" for i in range(MAX_CROSSED + 5)}
    made = taught(Ranked(context, options, places=999), times=5)
    scores = made.score(context, options)
    assert np.isfinite(scores).all()
    assert np.mean(scores[:500]) > np.mean(scores[500:])


# --- state ------------------------------------------------------------------------------------


def test_the_same_lessons_in_the_same_batches_make_the_same_ranker() -> None:
    """Two rankers with one history are equal, also where one was written and read in between."""
    once, again = fresh(), fresh()
    batches = [lessons()[i : i + 37] for i in range(0, 800, 37)]
    for i, batch in enumerate(batches):
        once.learn(batch)
        again.learn(batch)
        if i % 5 == 2:
            again = fresh().from_bytes(again.to_bytes())
        assert again.digest() == once.digest()
    assert again.to_bytes() == once.to_bytes()
    case = lessons(1)[1]
    assert isinstance(case, Ranked)
    assert again.score(case.features, case.options) == once.score(case.features, case.options)


def test_the_digest_tells_rankers_apart() -> None:
    """Another lesson, another weight or another configuration is another digest."""
    found = {
        fresh().digest(),
        fresh(step=1.0).digest(),
        taught(Ranked({}, (GOOD, BAD))).digest(),
        taught(Ranked({}, (BAD, GOOD))).digest(),
        taught(Ranked({}, (GOOD, BAD), weight=0.5)).digest(),
    }
    assert len(found) == 5


def test_a_copy_goes_its_own_way() -> None:
    """What a ranker learns after it was copied, its copy does not know."""
    made = taught(Ranked({}, (GOOD, BAD)))
    copied = made.from_bytes(made.to_bytes())
    before = copied.digest()
    made.learn(lessons(10))
    assert copied.fitted
    assert copied.digest() == before != made.digest()


def test_memory_is_bounded() -> None:
    """However many words there are, the state is no larger than its buckets."""
    made = fresh(buckets=256)
    for i in range(3000):
        made.learn([Rated({}, {f"name{i}": f"word{i}", f"number{i}": float(i)}, 1.0)])
    assert len(made.to_bytes()) < 256 * 40 + 2048


def test_the_state_of_another_configuration_is_refused() -> None:
    """Bytes that were written under other arguments are refused, and say which."""
    blob = taught(Ranked({}, (GOOD, BAD))).to_bytes()
    with pytest.raises(StateError, match="buckets was 16384 and is 1024"):
        fresh(buckets=1024).from_bytes(blob)


@pytest.mark.parametrize("kept", [0, 7, 100, -3])
def test_damaged_bytes_are_refused(kept: int) -> None:
    """Bytes that are cut off are refused with a `StateError`."""
    blob = taught(Ranked({}, (GOOD, BAD))).to_bytes()
    with pytest.raises(StateError):
        fresh().from_bytes(blob[:kept])


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lesson", "error", "words"),
    [
        (Example({"text": "a"}, "spam"), TypeError, "Ranked and Rated"),
        (Ranked({}, (GOOD,)), ValueError, "two options"),
        (Ranked({}, (GOOD, BAD), places=0), ValueError, "one place"),
        (Ranked({}, (GOOD, BAD), weight=math.nan), ValueError, "weight"),
        (Ranked({}, (GOOD, BAD), weight=-1.0), ValueError, "weight"),
        (Rated({}, GOOD, 1.5), ValueError, "between 0 and 1"),
        (Rated({}, GOOD, math.nan), ValueError, "between 0 and 1"),
        (Rated({}, {"x": math.nan}, 1.0), ValueError, "finite"),
        (Rated({}, {"x": 1e308}, 1.0), ValueError, "within"),
        (Ranked({"v": [1.0, math.inf]}, ({"v": [1.0, 2.0]}, BAD)), ValueError, "finite"),
        (Rated({}, {"x": object()}, 1.0), Unfit, "object"),
    ],
)
def test_a_lesson_that_makes_no_sense_is_refused(
    lesson: Lesson, error: type[Exception], words: str
) -> None:
    """It raises, says why, and leaves the ranker as it was."""
    made = taught(Ranked({}, (GOOD, BAD)))
    before = made.digest()
    with pytest.raises(error, match=words):
        made.learn([lesson])
    assert made.digest() == before


@pytest.mark.parametrize("number", [math.nan, math.inf, -1e308])
def test_a_number_that_is_none_gets_no_score(number: float) -> None:
    """The client is told, instead of being given a score that is no number."""
    with pytest.raises(ValueError, match="finite"):
        taught(*lessons(5)).score({}, [{"price": number}])


def test_a_weight_beyond_all_bounds_is_an_error() -> None:
    """A step that would ruin the weights raises `FloatingPointError`, and is not taken."""
    made = taught(Ranked({}, (GOOD, BAD)))
    with pytest.raises(FloatingPointError):
        made.learn([Ranked({}, (GOOD, BAD), weight=1e300)])
    assert np.isfinite(made.score({}, [GOOD, BAD])).all()


def test_hostile_numbers_do_not_silence_a_feature() -> None:
    """After one absurd number, prices are still learned from."""
    made = fresh()
    cheap, dear = {"price": 1.0}, {"price": 2.0}
    made.learn([Ranked({}, (cheap, dear))] * 20)
    before = np.diff(made.score({}, [dear, cheap]))[0]
    made.learn([Ranked({}, ({"price": 1e15}, {"price": -1e15}))])
    made.learn([Ranked({}, (cheap, dear))] * 50)
    assert np.diff(made.score({}, [dear, cheap]))[0] > before / 2


@pytest.mark.parametrize("arguments", [{"buckets": 0}, {"ngrams": 0}, {"step": 0.0}])
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any]) -> None:
    """A ranker without buckets, words or steps is a mistake in the configuration."""
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        fresh(**arguments)


def test_a_gpu_is_declined() -> None:
    """Where a GPU is asked for, the error says that none is used; `cpu` accepts that."""
    wanted = spec(resources={"num_gpus": 1})
    with pytest.raises(ConfigError, match="computes on the CPU"):
        ranker(spec=wanted)
    assert not ranker(spec=wanted.model_copy(update={"on_gpu_missing": "cpu"})).fitted
