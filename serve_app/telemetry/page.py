"""The page on metrics, of which the table is made: see `make docs`."""

from __future__ import annotations

import sys

from online_learner.metrics import METRICS, Metric
from serve_app.telemetry.ray_metrics import exported

_P = "ray_online_learner_"

_INTRO = """# Metrics, alerts, traces

Made by `make docs` from the table in `online_learner/metrics/names.py`; a test holds it to that.

Each process counts what it sees and tells Ray once a second. Ray's processes report to the agent
of their node every 10 s, and Prometheus reads the agents. So a dashboard is some 20 s behind, and
shows no single swap; the console at `/` does, live, from the same figures.

## Where Prometheus finds them

- `online-learner up` writes `prometheus.json` into its data directory, by default
  `.online_learner/prometheus.json`, and removes it in the end. It names Ray's agent and HAProxy,
  both on loopback: Prometheus has to run on this machine.
- `ray up` and `ray start --head`: Ray's dashboard keeps `prom_metrics_service_discovery.json`, with
  all nodes, in Ray's temporary directory on the head node.
- KubeRay: `deploy/prometheus/podmonitor.yaml`, for Prometheus Operator, takes the port `metrics`
  of all Ray pods.

`deploy/prometheus/prometheus.yml` names both files, and loads the alerts:

    prometheus --config.file=deploy/prometheus/prometheus.yml

Grafana takes `deploy/grafana/dashboard.json` by *Import*, or by the files in
`deploy/grafana/provisioning/`; it asks which data source and which models to show.
"""
_TABLE = """
## The figures

Each has the label `model`, and those that Ray adds (`NodeAddress`, `WorkerId`, `SessionName`):
every process has series of its own, so add counters up with `sum`, and take the `max` of gauges.
Ray counts on in the agent when a process ends; where a node ends, its series end.

| in Prometheus | kind | labels | what it tells |
|---|---|---|---|
"""
_DISTRIBUTIONS = """
A *distribution* is three counters. `_bucket_total{le}` counts the times up to `le` seconds, in
powers of two from an eighth of a millisecond to a day and a half, and `histogram_quantile` takes
it; `_sum_total` has the seconds, `_count_total` how many. They are not of Prometheus's histogram
type, and hence the suffix: Ray's own histogram takes in one time a call, and its agent records
each again, some 20 µs a time; this way a second of them costs 100 µs, however many. Quantiles are
right within a bucket, and `GET /v1/models/{model}/metrics` has them within 9 %.

Serve's own figures are there beside these and are not repeated: requests by route and status
(`ray_serve_num_http_requests_total`), how long they took (`ray_serve_http_request_latency_ms`), how
many are under way (`ray_serve_replica_processing_queries`), and who is well
(`ray_serve_deployment_status`: 6 is well, 3 to 5 changing, less is not).

## Questions, and what to ask Prometheus
"""
QUESTIONS = {
    "How many answers a second, by model?": (
        f"sum by (model) (rate({_P}predictions_total{{outcome=~'ok|unlogged'}}[5m]))"
    ),
    "How many requests for an answer are refused, and why?": (
        f"sum by (outcome) (rate({_P}predictions_total{{outcome!~'ok|unlogged'}}[5m]))"
    ),
    "What share of all requests fails on our side?": (
        "sum(rate(ray_serve_num_http_requests_total{application='gateway',status_code=~'5..'}[5m]))"
        " / sum(rate(ray_serve_num_http_requests_total{application='gateway'}[5m]))"
    ),
    "How long does an answer take (p99, seconds)?": (
        f"histogram_quantile(0.99, sum by (le) (rate({_P}prediction_seconds_bucket_total[5m])))"
    ),
    "What share of the answers takes more than 8 ms?": (
        f"1 - sum(rate({_P}prediction_seconds_bucket_total{{le='0.0078125'}}[5m]))"
        f" / sum(rate({_P}prediction_seconds_count_total[5m]))"
    ),
    "What share of the answers gets any feedback?": (
        f"sum by (model) (rate({_P}feedback_total{{outcome='accepted'}}[1h]))"
        f" / sum by (model) (rate({_P}predictions_total{{outcome='ok'}}[1h]))"
    ),
    "Is feedback served within half a second (share)?": (
        f"sum by (model) (rate({_P}loop_seconds_bucket_total{{le='0.5'}}[5m]))"
        f" / sum by (model) (rate({_P}loop_seconds_count_total[5m]))"
    ),
    "How far behind is each learner (seconds)?": (f"max by (model) ({_P}learner_lag_seconds)"),
    "Why is feedback not learned?": (f"sum by (model, reason) (rate({_P}set_aside_total[15m]))"),
    "Who answers now?": f"max by (model) ({_P}champion_version)",
    "How far is the evidence (1 in 100 by chance is 2)?": (
        f"max by (model, test) ({_P}e_value_log10)"
    ),
    "What did the gate decide today?": (
        f"sum by (model, action) (increase({_P}verdicts_total[24h]))"
    ),
    "Do people answer the audits (share)?": (
        f"sum by (model) (rate({_P}settled_total{{answered='true'}}[6h]))"
        f" / sum by (model) (rate({_P}settled_total[6h]))"
    ),
    "How durable is what is acknowledged?": f"max by (class) ({_P}durability) == 1",
    "When is the store full, as it fills now (seconds)?": (
        f"(1 - max({_P}store_memory_ratio)) / clamp_min(max(deriv({_P}store_memory_ratio[1h])), 0)"
    ),
}
_REST = """
## Alerts

`deploy/prometheus/alerts.yml` has them, each with what to do about it; `alerts_test.yml` beside it
is their test (`promtool test rules`). *Critical*: requests fail, what is acknowledged may be lost,
the store is almost full, a part is down, a learner lags, nothing is counted or scraped. *Warning*:
answers are not logged, the store fills, the loop is slow, much is set aside, a model went back,
nobody answers audits.

A counter that appears with its first event has no `increase` for it. The alert on models that went
back says so with `unless ... offset`; a dashboard may miss the first event of a cluster's life.

## Traces

Install the extra `otel`, and set `OTEL_EXPORTER_OTLP_ENDPOINT` on every node before Ray starts:
each process then sends its spans there, by OTLP over HTTP. `OTEL_TRACES_EXPORTER=console` prints
them instead, and `none` switches them off. Sampling, headers and limits follow the SDK's own
variables: `OTEL_TRACES_SAMPLER=parentbased_traceidratio` with `OTEL_TRACES_SAMPLER_ARG=0.01` keeps
one in a hundred. A request that brings a `traceparent` becomes a part of that trace. Without these
variables nothing is traced, and nothing of it is loaded.

Every attribute has `online_learner.` before it, and every span the `model`.

| span | attributes |
|---|---|
| `predict` | `version`, `step`, `role`, `prediction_id` of the answer; of a batch, `answers` |
| `journal append` | `answers`; it ends when the store has acknowledged them |
| `feedback` | `feedback_id`, `prediction_id`, `status`; of a batch, `signals` |
| `learn step` | `lineage`, `step`, `signals`, `feedback_ids` (the first 100) |
| `gate turn` | `settled`, `promotions`; where something moved `action`, `version` |
| `swap` | `version`, `lineage`, `step`, `following` |

What was sent, answered and said is in none of them. Two things to know where strangers reach the
port: with a `parentbased` sampler whoever sends a `traceparent` decides that it is kept (take
`traceidratio` there), and where `public_feedback` is on, a `prediction_id` is all that feedback on
that answer needs, so who reads the traces can give it.

A `learn step` is a trace of its own: it learns from many requests, and what is kept of those has no
trace. Look for the `feedback_id` of a `feedback` span in `feedback_ids` to find the step that
learned it.
"""


def page() -> str:
    """Return the page as Markdown."""
    rows = "".join(_row(metric) for metric in METRICS.values())
    asked = "".join(f"\n{question}\n\n    {query}\n" for question, query in QUESTIONS.items())
    return _INTRO + _TABLE + rows + _DISTRIBUTIONS + asked + _REST


def _row(metric: Metric) -> str:
    names = "<br>".join(f"`{name}`" for name in exported(metric.name))
    parts = ", `le`" if metric.kind == "histogram" else ""
    labels = ", ".join(f"`{label}`" for label in metric.labels) + parts
    kind = "distribution" if metric.kind == "histogram" else metric.kind
    return f"| {names} | {kind} | {labels.removeprefix(', ')} | {metric.help} |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
