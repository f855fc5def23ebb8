"""Tallies: they add up in any order, survive the wire, and know quantiles within 9 %."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_learner.metrics import METRICS, Tally
from online_learner.metrics.names import EVENTS, KINDS, REASONS
from online_learner.requests import KINDS as SENT_KINDS

WORST = 2 ** (1 / 8)

seconds = st.floats(1e-6, 1e5)
events = st.lists(
    st.one_of(
        st.tuples(st.just("count"), st.sampled_from(["ok", "unlogged"]), st.integers(1, 5)),
        st.tuples(st.just("time"), seconds, st.integers(1, 5)),
        st.tuples(st.just("level"), st.sampled_from(["audit", "label"]), st.integers(0, 9)),
    ),
    max_size=20,
)


def tally_of(seen: list[Any]) -> Tally:
    """Return a tally that has seen some events."""
    tally = Tally()
    for what, one, other in seen:
        if what == "count":
            tally.count("predictions_total", other, outcome=one)
        elif what == "time":
            tally.time("loop_seconds", one, other)
        else:
            tally.level("queue_length", other, lane=one)
    return tally


def summed(*tallies: Tally) -> Tally:
    """Return the sum."""
    found = Tally()
    for tally in tallies:
        found.add(tally)
    return found


def content(tally: Tally) -> Any:
    """Return all that a tally holds, but for the last bits of sums."""
    times = {s: (dict(t.buckets), pytest.approx(t.total)) for s, t in tally.times.items()}
    return dict(tally.counts), times, tally.levels


@given(events, events, events)
def test_tallies_add_up(a: Any, b: Any, c: Any) -> None:
    """The sum of parts is the tally of the whole, however the parts are cut and grouped."""
    whole = content(tally_of(a + b + c))
    assert content(summed(tally_of(a), tally_of(b), tally_of(c))) == whole
    right = summed(tally_of(b), tally_of(c))
    assert content(summed(tally_of(a), right)) == whole


@given(events)
def test_a_tally_survives_the_wire(seen: Any) -> None:
    """What is packed and unpacked is the same, and an empty one is false."""
    tally = tally_of(seen)
    assert content(Tally.unpack(tally.pack())) == content(tally)
    assert bool(tally) == bool(seen)


@given(st.lists(seconds, min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_quantiles_are_within_9_percent(times: list[float], q: float) -> None:
    """A quantile is off by a factor of 2**(1/8) at most, whatever the times."""
    tally = Tally()
    for time in times:
        tally.time("loop_seconds", time)
    exact = float(np.quantile(times, q, method="inverted_cdf"))
    found = tally.quantile("loop_seconds", q)
    assert exact / WORST * (1 - 1e-9) <= found <= exact * WORST * (1 + 1e-9)


def test_times_stay_few_whatever_comes() -> None:
    """Any number of times takes a bounded number of buckets, zero and for ever among them."""
    tally = Tally()
    for time in (0.0, 1e-300, 1e300, *np.geomspace(1e-9, 1e9, 5000)):
        tally.time("loop_seconds", float(time))
    assert tally.distribution("loop_seconds").n == 5003
    assert len(tally.distribution("loop_seconds").buckets) <= 181
    assert math.isnan(Tally().quantile("loop_seconds", 0.5))


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("predictions", {"outcome": "ok"}),
        ("predictions_total", {}),
        ("predictions_total", {"result": "ok"}),
        ("predictions_total", {"outcome": "ok", "user": "ada"}),
    ],
)
def test_what_is_not_in_the_table_is_refused(name: str, labels: dict[str, str]) -> None:
    """A name or a label that the table does not have raises where it is counted."""
    with pytest.raises(KeyError):
        Tally().count(name, **labels)


def test_counts_are_summed_over_the_labels_not_given() -> None:
    """A total takes all values of a label that is not given; `by` tells them apart."""
    tally = Tally()
    tally.count("feedback_total", 2, kind="thumbs", outcome="accepted")
    tally.count("feedback_total", 3, kind="rating", outcome="accepted")
    tally.count("feedback_total", 4, kind="rating", outcome="duplicate")
    assert tally.total("feedback_total") == 9
    assert tally.total("feedback_total", kind="rating") == 7
    assert tally.by("feedback_total", "kind", outcome="accepted") == {"thumbs": 2, "rating": 3}


def test_the_table_is_sound() -> None:
    """Names end as Prometheus wants them, labels take known values only, kinds are those sent."""
    for name, metric in METRICS.items():
        assert name == metric.name
        assert name.endswith("_total") == (metric.kind == "counter")
        assert (metric.unit == "s") <= name.endswith("_seconds")
        assert metric.help.endswith(".")
    assert frozenset(SENT_KINDS) == KINDS
    assert len(EVENTS | REASONS) < 30
