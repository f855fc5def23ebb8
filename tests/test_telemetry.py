"""What a tally becomes for Prometheus: names, labels, buckets; and where Prometheus finds it."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.util import metrics

from online_learner.metrics import METRICS, Tally, Times
from serve_app.telemetry import page as metrics_page
from serve_app.telemetry import ray_metrics
from serve_app.telemetry.ray_metrics import LIMITS, OCTAVES, Exporter, cumulative, export, exported

ROOT = Path(__file__).parent.parent
EVERY = sorted(METRICS)


class Recorder:
    """Stands where Ray hands figures to its core, below its own checks of names and tags."""

    def __init__(self) -> None:
        self.seen: dict[tuple[Any, ...], float] = {}

    def take(self, metric: Any, value: float, tags: dict[str, str] | None = None) -> None:
        """Take in what was recorded; counters add up."""
        tags = metric._get_final_tags(tags)
        metric._validate_tags(tags)
        assert set(tags) == set(metric._tag_keys), "a tag that was not declared"
        key = (metric._name, *sorted(tags.items()))
        adds = isinstance(metric, metrics.Counter)
        self.seen[key] = value + (self.seen.get(key, 0.0) if adds else 0.0)

    def of(self, name: str, **tags: str) -> float:
        """Return what was recorded under a name with these tags, or 0."""
        return self.seen.get((ray_metrics.PREFIX + name, *sorted(tags.items())), 0.0)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Let Ray seem to run, and record what reaches it."""
    found = Recorder()
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr(metrics.Metric, "_record", lambda *a, **k: found.take(*a, **k))  # noqa: PLW0108
    return found


def full() -> Tally:
    """Return a tally with every figure of the table in it."""
    tally = Tally()
    for name, metric in METRICS.items():
        labels = dict.fromkeys(metric.labels, "some")
        if metric.kind == "counter":
            tally.count(name, 3, **labels)
        elif metric.kind == "gauge":
            tally.level(name, 0.5, **labels)
        else:
            tally.time(name, 0.3, 4, **labels)
    return tally


@pytest.mark.parametrize("name", EVERY)
def test_every_figure_goes_out(recorder: Recorder, name: str) -> None:
    """Each figure of the table becomes a metric of Ray's with its labels and the model."""
    Exporter().export("spam", full())
    metric = METRICS[name]
    tags = {"model": "spam", **dict.fromkeys(metric.labels, "some")}
    if metric.kind == "histogram":
        assert recorder.of(f"{name}_count", **tags) == 4
        assert recorder.of(f"{name}_sum", **tags) == pytest.approx(1.2)
        assert recorder.of(f"{name}_bucket", le="0.5", **tags) == 4
        assert recorder.of(f"{name}_bucket", le="0.25", **tags) == 0
    else:
        assert recorder.of(name, **tags) == (3 if metric.kind == "counter" else 0.5)


def test_counters_add_up_and_gauges_do_not(recorder: Recorder) -> None:
    """Two tallies one after the other count on; of a level the newer holds."""
    exporter = Exporter()
    for level in (1.0, 2.0):
        tally = Tally()
        tally.count("learned_total", 2)
        tally.level("quarantined", level)
        tally.time("loop_seconds", 0.1)
        exporter.export("spam", tally)
    assert recorder.of("learned_total", model="spam") == 4
    assert recorder.of("quarantined", model="spam") == 2
    assert recorder.of("loop_seconds_bucket", model="spam", le="+Inf") == 2


def test_models_are_told_apart(recorder: Recorder) -> None:
    """One process counts for many models, each under its own name."""
    exporter = Exporter()
    for model, n in (("a", 1), ("b", 5)):
        tally = Tally()
        tally.count("learned_total", n)
        exporter.export(model, tally)
    assert recorder.of("learned_total", model="a") == 1
    assert recorder.of("learned_total", model="b") == 5


@pytest.mark.parametrize("seconds", [0.0, 1e-9, 1e-4, 0.25, 0.26, 0.5, 1.0, 3.0, 1e5, 1e9])
def test_a_time_is_counted_where_it_belongs(seconds: float) -> None:
    """A time is in every bucket from the first limit that it does not exceed, and in no other."""
    times = Times()
    times.see(seconds)
    limits = [*(2.0**octave for octave in OCTAVES), float("inf")]
    assert cumulative(times) == [int(seconds <= limit) for limit in limits]
    assert [float(limit) for limit in LIMITS] == limits


def test_without_ray_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no Ray runs in this process, an export makes no metric."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    exporter = Exporter()
    exporter.export("spam", full())
    assert exporter._made == {}
    export("spam", full())


def test_a_failing_export_harms_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever Ray raises stays inside, and is said once."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the core is gone")

    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr(metrics.Metric, "_record", fail)
    exporter = Exporter()
    with caplog.at_level(logging.WARNING):
        exporter.export("spam", full())
        exporter.export("spam", full())
    assert len(caplog.records) == 1
    assert "not exported" in caplog.text


def test_what_prometheus_sees_is_well_named() -> None:
    """Names are of Prometheus's form, each counter ends in _total once, and no two are equal."""
    names = [name for metric in METRICS for name in exported(metric)]
    assert len(names) == len(set(names))
    for name in names:
        assert re.fullmatch(r"ray_online_learner_[a-z0-9_]+", name)
    counted = [n for n in METRICS if METRICS[n].kind != "gauge"]
    assert all(n.endswith("_total") for m in counted for n in exported(m))
    assert not any(n.endswith("_total_total") for n in names)


def test_the_page_is_made_from_the_table() -> None:
    """docs/metrics.md is what `make docs` makes."""
    assert (ROOT / "docs" / "metrics.md").read_text() == metrics_page.page(), "run make docs"


def test_the_page_names_every_figure() -> None:
    """Each name that Prometheus sees is on the page."""
    page = metrics_page.page()
    assert [n for metric in METRICS for n in exported(metric) if f"`{n}`" not in page] == []


def test_the_targets_are_there_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file names the agents of living nodes and HAProxy, and is gone afterwards."""
    nodes = [
        {"NodeManagerAddress": "127.0.0.1", "MetricsExportPort": 7001, "Alive": True},
        {"NodeManagerAddress": "127.0.0.2", "MetricsExportPort": 7002, "Alive": False},
    ]
    monkeypatch.setitem(__import__("sys").modules, "ray", SimpleNamespace(nodes=lambda: nodes))
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_METRICS_PORT", "7003")
    with ray_metrics.targets(tmp_path) as place:
        groups = json.loads(place.read_text())
        assert groups == [
            {"targets": ["127.0.0.1:7001"], "labels": {"job": "ray"}},
            {"targets": ["127.0.0.1:7003"], "labels": {"job": "ingress"}},
        ]
        monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
        with ray_metrics.targets(tmp_path) as plain:
            assert [group["labels"]["job"] for group in json.loads(plain.read_text())] == ["ray"]
    assert list(tmp_path.iterdir()) == []
