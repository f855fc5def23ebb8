"""The confidence sequence: it covers the mean at every look at once, and it narrows."""

from __future__ import annotations

import numpy as np
import pytest

from online_learner.evidence import confidence_sequence

PATHS, LENGTH, ALPHA = 2000, 1000, 0.1


def share_covered(scores: np.ndarray, means: np.ndarray | float) -> float:
    """Return the share of paths whose mean is within the bounds at every look."""
    low, high = confidence_sequence(scores, ALPHA)
    return float(((low <= means) & (means <= high)).all(-1).mean())


@pytest.mark.parametrize("mean", [0.02, 0.5, 0.9])
def test_it_covers_the_mean_at_every_look(mean: float) -> None:
    """Right or wrong with any probability: the bounds ever fail on at most alpha of the paths."""
    random = np.random.default_rng(7)
    scores = random.random((PATHS, LENGTH)) < mean
    slack = 3 * np.sqrt(ALPHA * (1 - ALPHA) / PATHS)
    assert share_covered(scores, mean) >= 1 - ALPHA - slack


def test_it_covers_where_scores_depend_on_the_past() -> None:
    """Shares that swing with what came before, and keep their conditional mean, are covered."""
    random = np.random.default_rng(8)
    scores = np.full((PATHS, LENGTH), 0.4)
    for n in range(1, LENGTH):
        width = 0.4 * (scores[:, :n].sum(1) > 0.4 * n)  # wide after good luck, else none
        scores[:, n] = 0.4 + width * random.choice([-1.0, 1.0], PATHS)
    assert share_covered(scores, 0.4) >= 1 - ALPHA


def test_it_narrows_and_the_more_so_the_less_scores_vary() -> None:
    """The width goes down about as 1 / sqrt(n), and with the spread of the scores."""
    random = np.random.default_rng(9)
    even, rare = (random.random((50, 4000)) < mean for mean in (0.5, 0.05))
    (low, high), (less, more) = confidence_sequence(even), confidence_sequence(rare)
    widths = (high - low).mean(0)
    assert widths[3999] < 0.6 * widths[999] < 0.36 * widths[249]
    assert (more - less).mean(0)[3999] < 0.5 * widths[3999]


def test_each_bound_rests_on_the_scores_before_it() -> None:
    """What comes later changes no bound, and a stack of paths is each path by itself."""
    random = np.random.default_rng(10)
    scores = random.random((3, 100))
    low, high = confidence_sequence(scores)
    for path in range(3):
        alone = confidence_sequence(scores[path, :60])
        np.testing.assert_array_equal(alone, (low[path, :60], high[path, :60]))
    assert (low <= high).all()
    assert low.min() >= 0
    assert high.max() <= 1


def test_bounds_are_those_of_the_theorem() -> None:
    """Scores of a few looks, computed by hand along the formulas."""
    x = [1.0, 0.0, 1.0, 1.0] * 10
    surprise = seen = 0.0
    for i, value in enumerate(x, start=1):
        surprise += (value - (0.5 + seen) / i) ** 2
        seen += value
    widths = []
    for k in range(1, 13):
        log_odds = np.log(2 / 0.05) + np.log(k * (k + 1))
        psi = -np.log(1 - 2.0**-k) - 2.0**-k
        widths.append((log_odds + psi * surprise) * 2.0**k)
    low, high = confidence_sequence(x)
    assert low[-1] == pytest.approx(0.75 - min(widths) / 40)
    assert high[-1] == pytest.approx(min(1.0, 0.75 + min(widths) / 40))


@pytest.mark.parametrize(("first", "last"), [(0.95, 0.55), (0.6, 0.95), (1.0, 0.0)])
def test_it_covers_the_average_of_a_mean_that_drifts(first: float, last: float) -> None:
    """Weights that get worse, or better: the average so far is covered, and is what is shown."""
    random = np.random.default_rng(11)
    means = np.where(np.arange(LENGTH) < LENGTH // 3, first, last)
    scores = (random.random((500, LENGTH)) < means).astype(float)
    number = np.arange(1, LENGTH + 1)
    assert share_covered(scores, means.cumsum() / number) >= 1 - ALPHA
    assert share_covered(scores, scores.cumsum(-1) / number) == 1.0


def test_nothing_has_no_bounds() -> None:
    """No scores have no bounds; one has nearly all of the range."""
    assert [len(bound) for bound in confidence_sequence([])] == [0, 0]
    low, high = confidence_sequence([1.0])
    assert (low[0], high[0]) == (0.0, 1.0)
