"""Every figure that is exported, in one table: its name, what it counts, and its labels.

Names stand here without a prefix: Prometheus sees `ray_online_learner_<name>`. Each has the label
`model` besides its own. Labels take few values, whatever is sent: never a user, a key or an id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from online_learner.schema import Raised

Kind: TypeAlias = Literal["counter", "histogram", "gauge"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure.

    Parameters
    ----------
    kind
        A `counter` only grows, a `histogram` has the distribution of seconds, and a `gauge` tells
        how it is now.
    unit
        `1` for what is counted, `s`, or what the figure is a ratio or a logarithm of.
    labels
        In this order, after `model`.
    help
        What it tells, in one sentence.
    """

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    help: str


_ALL = (
    Metric(
        "predictions_total",
        "counter",
        "1",
        ("outcome",),
        "Answers: ok, unlogged (given while the store was down), or the code of the refusal.",
    ),
    Metric(
        "prediction_seconds",
        "histogram",
        "s",
        (),
        "Time that one request for answers took inside the gateway, the log included.",
    ),
    Metric(
        "feedback_total",
        "counter",
        "1",
        ("kind", "outcome"),
        "Signals by kind: accepted, duplicate, archived_only, or the code of the refusal.",
    ),
    Metric("implicit_total", "counter", "1", ("event",), "What users did, of implicit signals."),
    Metric("join_delay_seconds", "histogram", "s", (), "From an answer to what is said of it."),
    Metric("learn_delay_seconds", "histogram", "s", (), "From a signal accepted to its commit."),
    Metric(
        "loop_seconds",
        "histogram",
        "s",
        (),
        "From a signal accepted to the first answer by weights that learned it, while following.",
    ),
    Metric("learned_total", "counter", "1", (), "Signals that were learned."),
    Metric("served_total", "counter", "1", (), "Signals learned by weights that have answered."),
    Metric("set_aside_total", "counter", "1", ("reason",), "Signals that were not learned."),
    Metric("learner_lag_seconds", "gauge", "s", (), "Age of the oldest signal not yet learned."),
    Metric("queue_length", "gauge", "1", ("lane",), "Audited answers that have not settled."),
    Metric(
        "e_value_log10",
        "gauge",
        "log10",
        ("test",),
        "Evidence of the furthest test: of a challenger, of the lineage, or of the detector.",
    ),
    Metric("verdicts_total", "counter", "1", ("action",), "Decisions, by what was decided."),
    Metric("swaps_total", "counter", "1", (), "Sets of weights that began to answer."),
    Metric("quarantined", "gauge", "1", (), "Signals in quarantine, released ones among them."),
    Metric(
        "durability",
        "gauge",
        "1",
        ("class",),
        "1 for what an acknowledged write survives now: fsynced, os, none, unknown.",
    ),
    Metric("store_memory_ratio", "gauge", "ratio", (), "Share of the store's memory in use."),
    Metric("settled_total", "counter", "1", ("answered",), "Audits that settled: true, false."),
    Metric(
        "alarms_total", "counter", "1", ("about",), "Alarms of observers, by what they are about."
    ),
    Metric(
        "asked_total",
        "counter",
        "1",
        ("reason",),
        "Labels asked for beside audits: uncertain (by active learning), gold (planted).",
    ),
    Metric("champion_version", "gauge", "1", (), "Version that answers."),
    Metric("following", "gauge", "1", (), "1 while the learner's newest step answers."),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}

OTHER = "other"  # of a label, whatever is none of its known values
KINDS = frozenset(
    {
        "thumbs",
        "rating",
        "correction",
        "selection",
        "preference",
        "ranking",
        "category",
        "flag",
        "implicit",
    }
)
EVENTS = frozenset(
    {
        "abandon",
        "click",
        "copy",
        "dwell",
        "feedback_shown",
        "purchase",
        "regenerate",
        "save",
        "share",
        "skip",
        "undo",
    }
)
REASONS = frozenset(
    {
        "burst",
        "contradiction",
        "duplicate",
        "flip",
        "gone",
        "nothing_to_learn",
        "poison",
        "rolled_back",
        "unreadable",
    }
)

# What alarms are about: the first word that they say, else the observer that raised them.
ABOUT = frozenset({"loss", "score", "output", "feature", "response", "rater", "implicit"})
OBSERVERS = {"raters": "rater", "scores": "score"}
ASKED = frozenset({"uncertain", "gold"})


def about(raised: Raised) -> str:
    """Return what an alarm is about, as one of a few words.

    >>> about(Raised(by="drift", about="output spam", sentence="")), about(
    ...     Raised(by="raters", about="human:ada", sentence="")
    ... )
    ('output', 'rater')
    """
    first = next(iter(raised.about.lower().split()), "")
    return first if first in ABOUT else known(OBSERVERS.get(raised.by, raised.by), ABOUT)


def known(value: object, values: frozenset[str]) -> str:
    """Return a label's value where it is one of those known, else `other`.

    >>> known("thumbs", KINDS), known("x' OR 1", KINDS)
    ('thumbs', 'other')
    """
    return value if isinstance(value, str) and value in values else OTHER
