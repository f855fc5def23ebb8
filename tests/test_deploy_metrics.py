"""What is shipped for Prometheus and Grafana loads, and asks only for figures that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from online_learner.metrics import METRICS
from serve_app.telemetry.page import QUESTIONS
from serve_app.telemetry.ray_metrics import TARGETS, exported

DEPLOY = Path(__file__).parent.parent / "deploy"
PROMETHEUS, GRAFANA = DEPLOY / "prometheus", DEPLOY / "grafana"
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboard.json").read_text())
PANELS: list[dict[str, Any]] = [p for p in DASHBOARD["panels"] if p["type"] != "row"]
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
LABELS = {
    seen: {"model", "le", *metric.labels}
    if seen.endswith("_bucket_total")
    else {"model", *metric.labels}
    for name, metric in METRICS.items()
    for seen in exported(name)
}
promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool comes with Debian's package prometheus"
)


def queries(panel: dict[str, Any]) -> list[str]:
    """Return what a panel asks for."""
    return [target["expr"] for target in panel["targets"]]


def asked() -> Iterator[tuple[str, str]]:
    """Yield each query that is shipped, after where it stands."""
    for panel in PANELS:
        yield from ((f"panel {panel['title']}", query) for query in queries(panel))
    for annotation in DASHBOARD["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]
    yield from ((f"alert {rule['alert']}", rule["expr"]) for rule in ALERTS)
    yield from ((f"question {question}", query) for question, query in QUESTIONS.items())


@promtool
@pytest.mark.parametrize(
    ("what", "file", "says"),
    [
        (("check", "config"), "prometheus.yml", "SUCCESS"),
        (("check", "rules"), "alerts.yml", "SUCCESS"),
        (("test", "rules"), "alerts_test.yml", "SUCCESS"),
    ],
)
def test_prometheus_takes_what_is_shipped(what: tuple[str, str], file: str, says: str) -> None:
    """Prometheus's own tool finds no fault with configuration, alerts, and the alerts' tests."""
    command = ["promtool", *what, file]
    found = subprocess.run(
        command, cwd=PROMETHEUS, capture_output=True, text=True, check=False, timeout=60
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert says in found.stdout


@pytest.mark.parametrize("place", [pytest.param(query, id=where) for where, query in asked()])
def test_only_figures_that_there_are_are_asked_for(place: str) -> None:
    """Each name of ours in a query is exported, and has each label that the query selects by."""
    for name, selector in re.findall(r"(ray_online_learner_\w+)(?:\{(.*?)\})?", place):
        assert name in LABELS
        assert set(re.findall(r"(\w+)(?:=~|!~|!=|=)", selector)) <= LABELS[name]


@pytest.mark.parametrize("place", [pytest.param(query, id=where) for where, query in asked()])
def test_queries_group_by_labels_that_there_are(place: str) -> None:
    """A query of our figures alone is summed by labels that all of them have."""
    names = re.findall(r"ray_\w+", place)
    if any(name not in LABELS for name in names):
        return
    by = {
        label.strip() for found in re.findall(r"by \((.*?)\)", place) for label in found.split(",")
    }
    for name in names:
        assert by - {"le"} <= LABELS[name]


def test_every_figure_is_shown() -> None:
    """No figure of the table is missing from the dashboard."""
    shown = " ".join(query for panel in PANELS for query in queries(panel))
    assert [name for name in METRICS if f"ray_online_learner_{name}" not in shown] == []


def test_every_alert_is_tested_and_says_what_to_do() -> None:
    """Each alert goes off in a test, and has a severity, a sentence and a cure."""
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    told = [case for test in tests for case in test["alert_rule_test"]]
    fired = {case["alertname"] for case in told if case.get("exp_alerts")}
    silent = {case["alertname"] for case in told if not case.get("exp_alerts")}
    names = {rule["alert"] for rule in ALERTS}
    assert fired == silent == names
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "action"}


def test_prometheus_looks_where_up_writes() -> None:
    """The scrape configuration names the file of `up`'s default data directory, and Ray's own."""
    document = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    [job] = document["scrape_configs"]
    files = job["file_sd_configs"][0]["files"]
    assert (PROMETHEUS / files[0]).resolve() == DEPLOY.parent / ".online_learner" / TARGETS
    assert files[1].endswith("/prom_metrics_service_discovery.json")


def test_the_pod_monitor_takes_rays_port() -> None:
    """On Kubernetes all pods of KubeRay are scraped, at the port that KubeRay names `metrics`."""
    document = yaml.safe_load((PROMETHEUS / "podmonitor.yaml").read_text())
    assert (document["apiVersion"], document["kind"]) == (
        "monitoring.coreos.com/v1",
        "PodMonitor",
    )
    [endpoint] = document["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"
    [selector] = document["spec"]["selector"]["matchExpressions"]
    assert selector == {"key": "ray.io/node-type", "operator": "In", "values": ["head", "worker"]}


# --- the dashboard ----------------------------------------------------------------------------


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """It names no data source of anybody's, has a fixed uid, and no id of an installation."""
    assert "id" not in DASHBOARD
    assert DASHBOARD["uid"] == "online-learner"
    variables = {found["name"]: found for found in DASHBOARD["templating"]["list"]}
    assert set(variables) == {"datasource", "model"}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert "ray_online_learner_champion_version" in variables["model"]["query"]["query"]
    sources = [p["datasource"] for p in PANELS]
    sources += [target["datasource"] for panel in PANELS for target in panel["targets"]]
    sources += [found["datasource"] for found in DASHBOARD["annotations"]["list"]]
    assert all(found == {"type": "prometheus", "uid": "${datasource}"} for found in sources)


@pytest.mark.parametrize("panel", [pytest.param(panel, id=panel["title"]) for panel in PANELS])
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    """Each has a sentence and a unit, names its lines, and follows the choice of models."""
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    references = [target["refId"] for target in panel["targets"]]
    assert len(references) == len(set(references))
    for target in panel["targets"]:
        assert target["legendFormat"]
        for selector in re.findall(r"ray_online_learner_\w+(\{.*?\})?", target["expr"]):
            assert 'model=~"$model"' in selector


def test_panels_lie_in_rows_and_nowhere_twice() -> None:
    """Ids are unique, no two overlap, and the rows are those of the console, in its order."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    wanted = ["Health", "Predictions", "Feedback", "Loop latency", "Learner", "Gate", "Store"]
    assert rows == wanted
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


def test_grafana_finds_its_files() -> None:
    """The provisioning files are of Grafana's first version, and name a source and a folder."""
    folder = GRAFANA / "provisioning"
    [source] = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["type"] == "prometheus"
    [provider] = yaml.safe_load((folder / "dashboards" / "online_learner.yaml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"].startswith("/")
