"""Where the figures of a process go outside the store: to Ray, whose agents Prometheus reads.

Each figure of `online_learner.metrics` is a metric of Ray's here, made when it is first needed. A
distribution goes out as three counters, `_bucket`, `_sum` and `_count`, a whole tally at a time:
Ray's own histogram takes in one time a call, and its agent records each again, which at 5,000
answers a second was measured to take a tenth of a core.

Ray forgets a gauge that nobody sets for two of its reports, so levels are told with every flush.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

from online_learner.errors import trace
from online_learner.metrics import METRICS, Tally, Times
from online_learner.metrics.tally import PER_OCTAVE

log = logging.getLogger(__name__)

PREFIX = "online_learner_"
OCTAVES = range(-13, 18)  # of seconds: from an eighth of a millisecond to a day and a half
LIMITS = (*(repr(2.0**octave) for octave in OCTAVES), "+Inf")
TARGETS = "prometheus.json"  # a file in the data directory
_SUFFIXES = {"bucket": ("le",), "sum": (), "count": ()}


def export(model: str, tally: Tally) -> None:
    """Pass on what a process saw of a model since it last told; it does nothing without Ray."""
    _exporter.export(model, tally)


class Exporter:
    """Turns tallies into metrics of Ray's, as far as there is a Ray. One a process."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        self._failed = False

    def export(self, model: str, tally: Tally) -> None:
        """Pass a tally on. A failure is logged once, and harms nothing."""
        ray: Any = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return
        try:
            self._pass_on(model, tally)
        except Exception as error:
            if not self._failed:
                log.warning("figures of '%s' are not exported\n%s", model, trace(error))
            self._failed = True

    def _pass_on(self, model: str, tally: Tally) -> None:
        for (name, *values), n in tally.counts.items():
            if n > 0:
                self._metric(name).inc(n, _tags(name, model, values))
        for (name, *values), value in tally.levels.items():
            self._metric(name).set(value, _tags(name, model, values))
        for (name, *values), times in tally.times.items():
            self._distribution(name, _tags(name, model, values), times)

    def _distribution(self, name: str, tags: dict[str, str], times: Times) -> None:
        bucket = self._metric(name, "bucket")
        for limit, n in zip(LIMITS, cumulative(times), strict=True):
            if n:
                bucket.inc(n, {**tags, "le": limit})
        if times.total > 0:
            self._metric(name, "sum").inc(times.total, tags)
        if times.n:
            self._metric(name, "count").inc(times.n, tags)

    def _metric(self, name: str, suffix: str = "") -> Any:
        """Return the metric of Ray's for a figure, or for one part of a distribution."""
        full = f"{name}_{suffix}" if suffix else name
        if full not in self._made:
            from ray.util.metrics import Counter, Gauge

            metric = METRICS[name]
            make: Any = Gauge if metric.kind == "gauge" else Counter
            labels = ("model", *metric.labels, *_SUFFIXES.get(suffix, ()))
            self._made[full] = make(PREFIX + full, metric.help, labels)
        return self._made[full]


_exporter = Exporter()


def cumulative(times: Times) -> list[int]:
    """Return how many times were up to each of `LIMITS`; the last one counts all of them."""
    counts = [0] * len(LIMITS)
    for place, n in times.buckets.items():
        octave = -(-place // PER_OCTAVE)  # the bucket's limit is 2**(place / PER_OCTAVE)
        counts[min(max(octave - OCTAVES.start, 0), len(OCTAVES))] += n
    return list(accumulate(counts))


def exported(name: str) -> tuple[str, ...]:
    """Return the names that Prometheus sees of a figure."""
    metric = METRICS[name]
    if metric.kind == "gauge":
        return (f"ray_{PREFIX}{name}",)
    if metric.kind == "counter":
        return (f"ray_{PREFIX}{name}",)  # they end in _total already
    return tuple(f"ray_{PREFIX}{name}_{suffix}_total" for suffix in _SUFFIXES)


def _tags(name: str, model: str, values: list[str]) -> dict[str, str]:
    return {"model": model, **dict(zip(METRICS[name].labels, values, strict=True))}


# --- where Prometheus finds them --------------------------------------------------------------


@contextlib.contextmanager
def targets(folder: Path) -> Iterator[Path]:
    """Say in a file there, in Prometheus's own form, where this cluster's metrics are.

    A cluster with a dashboard writes such a file itself, `prom_metrics_service_discovery.json`.
    """
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    agents = [f"{n['NodeManagerAddress']}:{n['MetricsExportPort']}" for n in nodes if n["Alive"]]
    groups = [{"targets": agents, "labels": {"job": "ray"}}, *_ingress(os.environ)]
    place = folder / TARGETS
    beside = place.with_suffix(".new")  # Prometheus may read at any moment
    beside.write_text(json.dumps(groups, indent=2) + "\n")
    beside.replace(place)
    try:
        yield place
    finally:
        place.unlink(missing_ok=True)


def _ingress(environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return where HAProxy shows its own figures, where it is the ingress."""
    port = environment.get("RAY_SERVE_HAPROXY_METRICS_PORT")
    if environment.get("RAY_SERVE_ENABLE_HA_PROXY") != "1" or not port:
        return []
    return [{"targets": [f"127.0.0.1:{port}"], "labels": {"job": "ingress"}}]
