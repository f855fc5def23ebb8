"""Traces: which spans there are, what they say, what they never say, and what they cost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from the_service import KEY, Service, bearer, unused_port

from online_learner.loop import Loop
from online_learner.settings import Settings
from serve_app.telemetry import spans, tracing
from serve_app.writer import Writer

Poll = Callable[..., Awaitable[None]]
OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]
SECRET = "a-word-that-nobody-may-see"
FIGURE = 0.31415926
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture(scope="module")
def exporter() -> Iterator[InMemorySpanExporter]:
    """Trace into memory while the tests of this file run."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracing.use(provider)
    yield kept
    tracing.use(None)
    provider.shutdown()


@pytest.fixture(scope="module")
def service(exporter: InMemorySpanExporter, start_service: Callable[..., Service]) -> Service:
    """Run the application, which decides to trace as it is made."""
    return start_service(web={"audit": 1.0, "promotion": {"policy": "policies.promotion:Always"}})


@pytest.fixture(autouse=True)
def _no_spans_yet(exporter: InMemorySpanExporter) -> None:
    exporter.clear()


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    """Return the finished spans of a name."""
    return [span for span in exporter.get_finished_spans() if span.name == name]


def ended(exporter: InMemorySpanExporter, name: str, count: int = 1) -> list[ReadableSpan]:
    """Wait for spans to end, which may be a moment after the reply, and return them."""
    deadline = time.monotonic() + 10
    while len(found := named(exporter, name)) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} spans named {name}"
        time.sleep(0.002)
    return found


def ours(span: ReadableSpan) -> dict[str, Any]:
    """Return our attributes of a span, without their prefix."""
    found = span.attributes or {}
    return {
        key.removeprefix(tracing.PREFIX): value
        for key, value in found.items()
        if key.startswith(tracing.PREFIX)
    }


def ask(http: httpx2.Client, **headers: str) -> dict[str, Any]:
    """Ask for an answer, which must come."""
    body = {"features": {SECRET: FIGURE}, "user_id": SECRET}
    reply = http.post("/v1/models/web/predict", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def tell(http: httpx2.Client, answer: dict[str, Any], **headers: str) -> dict[str, Any]:
    """Correct an answer, which must be accepted."""
    body = {"prediction_id": answer["prediction_id"], "kind": "correction", "value": True}
    reply = http.post("/v1/feedback", json=body | {"comment": SECRET}, headers=headers)
    assert reply.status_code == 202, reply.text
    return dict(reply.json())


def parts(span: ReadableSpan) -> tuple[str, str | None]:
    """Return the trace of a span and its parent, in hexadecimal."""
    assert span.context is not None
    parent = None if span.parent is None else f"{span.parent.span_id:016x}"
    return f"{span.context.trace_id:032x}", parent


def test_an_answer_is_a_span_within_the_trace_of_who_asked(
    http: httpx2.Client, exporter: InMemorySpanExporter
) -> None:
    """`predict` continues the sender's trace, and the append to the journal is a part of it."""
    answer = ask(http, **TRACEPARENT)
    [asked], [logged] = ended(exporter, "predict"), ended(exporter, "journal append")
    assert parts(asked) == (TRACE, PARENT)
    assert asked.context is not None
    assert parts(logged) == (TRACE, f"{asked.context.span_id:016x}")
    told = {key: answer[key] for key in ("version", "step", "role", "prediction_id")}
    assert ours(asked) == told | {"model": "web"}
    assert asked.attributes is not None
    assert asked.attributes["http.response.status_code"] == 200
    assert ours(logged) == {"model": "web", "answers": 1}


def test_feedback_is_a_span_with_its_ids(
    http: httpx2.Client, exporter: InMemorySpanExporter
) -> None:
    """`feedback` says of which answer it is, and what became of it."""
    answer = ask(http)
    receipt = tell(http, answer, **TRACEPARENT)
    [span] = ended(exporter, "feedback")
    assert parts(span) == (TRACE, PARENT)
    assert ours(span) == {
        "model": "web",
        "feedback_id": receipt["feedback_id"],
        "prediction_id": answer["prediction_id"],
        "status": "accepted",
    }


def test_without_a_traceparent_a_trace_begins(
    http: httpx2.Client, exporter: InMemorySpanExporter
) -> None:
    """Two requests that name no trace, or no good one, are two traces."""
    ask(http)
    ask(http, traceparent="00-nonsense")
    first, second = ended(exporter, "predict", 2)
    assert parts(first)[1] is None
    assert parts(second)[1] is None
    assert parts(first)[0] != parts(second)[0]


def test_batches_tell_how_many(http: httpx2.Client, exporter: InMemorySpanExporter) -> None:
    """A batch is one span with a count, not with every id."""
    body = {"instances": [{"features": {"x": 1.0}}] * 3}
    http.post("/v1/models/web/predict_batch", json=body)
    [span] = ended(exporter, "predict")
    assert ours(span) == {"model": "web", "answers": 3}
    http.post("/v1/feedback_batch", json={"items": [{"kind": "thumbs", "value": True}] * 2})
    assert [ours(span) for span in ended(exporter, "feedback")] == [{"signals": 2}]


def test_other_requests_are_not_traced(http: httpx2.Client, exporter: InMemorySpanExporter) -> None:
    """Health checks and reads make no spans."""
    assert http.get("/livez").status_code == 200
    assert http.get("/v1/models/web/feedback").status_code == 200
    ask(http)
    ended(exporter, "predict")
    names = [span.name for span in exporter.get_finished_spans()]
    assert sorted(names) == ["journal append", "predict"]


def test_a_refusal_is_told_by_its_status(
    http: httpx2.Client, exporter: InMemorySpanExporter
) -> None:
    """What the sender did wrong is no error of ours, and its words are in no span."""
    reply = http.post("/v1/models/web/predict", json={"features": {SECRET: [SECRET]}})
    assert reply.status_code == 422
    [span] = ended(exporter, "predict")
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 422
    assert span.status.is_unset
    assert SECRET not in span.to_json()


def test_an_error_is_told_without_its_words(exporter: InMemorySpanExporter) -> None:
    """A span that ends in an exception has its kind, and neither its message nor its trace."""
    assert tracing._tracer is not None
    request = tracing._around(tracing._tracer, "request")
    with contextlib.suppress(ValueError), request, tracing.span("broken", model="web"):
        raise ValueError(SECRET)
    [span] = named(exporter, "broken")
    assert not span.status.is_ok
    assert span.status.description == "ValueError"
    assert SECRET not in span.to_json()


def test_what_is_not_sampled_makes_no_spans(
    http: httpx2.Client, exporter: InMemorySpanExporter
) -> None:
    """A sender who has decided against its trace gets none, nor does any part of it."""
    ask(http, traceparent=f"00-{TRACE}-{PARENT}-00")
    ask(http)
    ended(exporter, "predict")
    traces = {parts(span)[0] for span in exporter.get_finished_spans()}
    assert TRACE not in traces
    assert len(traces) == 1


async def test_the_whole_loop_is_traced_and_tells_no_content(
    service: Service,
    http: httpx2.Client,
    exporter: InMemorySpanExporter,
    eventually: Poll,
) -> None:
    """From the answer to the swap every stage has its span; `learn step` names the feedback."""
    before = time.time_ns()
    receipt = tell(http, ask(http))
    place = (service.server.url, str(service.data_dir))
    learner = Writer("learner", "web", *place, lambda stages: stages.trainer)
    keeper = Writer("gatekeeper", "web", *place, lambda stages: stages.gatekeeper)
    try:
        await eventually(lambda: named(exporter, "gate turn"), within_s=20)
        await eventually(lambda: named(exporter, "swap"), within_s=20)
        receipts = [receipt, tell(http, ask(http))]

        def taught() -> set[str]:
            steps = named(exporter, "learn step")
            return {i for span in steps for i in ours(span)["feedback_ids"]}

        ids = {receipt["feedback_id"] for receipt in receipts}
        await eventually(lambda: ids <= taught(), within_s=20)
    finally:
        await asyncio.gather(learner.stop(), keeper.stop())
    step = named(exporter, "learn step")[-1]
    assert {"model", "lineage", "step", "signals"} < set(ours(step))
    assert ours(step)["step"] >= 1
    assert step.parent is None
    assert step.start_time is not None
    assert before < step.start_time <= (step.end_time or 0)
    swap = named(exporter, "swap")[-1]
    assert set(ours(swap)) == {"model", "version", "lineage", "step", "following"}
    turn = named(exporter, "gate turn")[0]
    assert {"model", "settled", "promotions"} <= set(ours(turn))
    told = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert receipt["feedback_id"] in told
    assert SECRET not in told
    assert str(FIGURE) not in told


async def test_waiting_for_feedback_is_no_part_of_a_step(
    loop: Loop, exporter: InMemorySpanExporter, eventually: Poll
) -> None:
    """A span of the learner begins when something has come, not when it began to wait."""
    stages = loop.stages("web")
    turns = spans.turns(stages, role="learner")
    stages.trainer.heard = turns.read
    answer = await loop.predict("web", {"x": 1.0})
    turn = asyncio.create_task(stages.trainer.turn(block_ms=20_000))

    async def waits() -> bool:
        info = await loop.store.call("INFO", "clients")
        blocked = info if isinstance(info, dict) else dict(_pairs(info.decode()))
        return int(blocked["blocked_clients"]) > 0

    await eventually(waits, within_s=10)
    waiting_ns = time.time_ns()
    receipt = await loop.feedback(answer["prediction_id"], "correction", True)
    turns.told(await turn)
    [step] = named(exporter, "learn step")
    assert step.start_time is not None
    assert step.start_time > waiting_ns
    assert ours(step)["feedback_ids"] == (receipt.feedback_id,)


def _pairs(info: str) -> Iterator[list[str]]:
    return (line.split(":", 1) for line in info.splitlines() if ":" in line)


async def test_a_gate_turn_tells_what_moved(
    open_loop: OpenLoop, make_settings: MakeSettings, exporter: InMemorySpanExporter
) -> None:
    """Where the gate decided something, its span has the action and the version."""
    majority = {"learner": "river.dummy:PriorClassifier", "publish_s": 0.0, "audit": 1.0}
    loop = await open_loop(make_settings(web=majority))
    stages = loop.stages("web")
    turns = spans.turns(stages, role="gatekeeper")
    stages.gatekeeper.heard = turns.read
    turns.told(await stages.gatekeeper.turn())
    assert named(exporter, "gate turn") == [], "there was nothing to do"
    for number in range(40):
        answer = await loop.predict("web", {"x": 1.0})
        await loop.feedback(answer["prediction_id"], "correction", True, user_id=f"rater {number}")
        await loop.learn("web")
        await stages.trainer.publish()
        while done := await stages.gatekeeper.turn():
            turns.told(done)
        await stages.follower.refresh()
    told = [ours(span) for span in named(exporter, "gate turn")]
    assert len(told) >= 40
    assert [(t["action"], t["version"]) for t in told if "action" in t] == [("follow", 0)]


# --- configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "exporters"),
    [
        ({}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4318"}, ["otlp"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:4318/v1/traces"}, ["otlp"]),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp"]),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, []),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, []),
    ],
)
def test_the_environment_decides(environment: dict[str, str], exporters: Sequence[str]) -> None:
    """OpenTelemetry's own variables say whether, and where to, traces go; by default nowhere."""
    assert tracing.wanted(environment) == exporters


def test_an_exporter_that_is_not_installed_stops_nothing(
    exporter: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A name that nothing is installed for is a warning that says what to do."""
    monkeypatch.setattr(tracing, "_decided", False)
    monkeypatch.setattr(tracing, "_tracer", None)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "nowhere")
    assert tracing.start() is False
    assert "install the extra `otel`" in caplog.text


def test_without_a_word_nothing_is_loaded() -> None:
    """A process that is not asked to trace loads no tracing, and wraps no request."""
    code = (
        "import sys; from serve_app.telemetry import tracing;"
        "from serve_app.gateway import create_app;"
        "create_app('redis://nowhere', '.');"
        "assert tracing.middleware() == []; assert not tracing.on();"
        "assert 'opentelemetry.sdk.trace' not in sys.modules;"
        "assert 'openmetrics.exporter.otlp' not in sys.modules"
    )
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    subprocess.run([sys.executable, "-c", code], check=True, env=clean, timeout=60)


# --- a collector ------------------------------------------------------------------------------


class Collector(ThreadingHTTPServer):
    """Receives traces by OTLP over HTTP."""

    def __init__(self) -> None:
        self.taken: list[ExportTraceServiceRequest] = []
        super().__init__(("127.0.0.1", 0), _Receive)

    def spans(self) -> dict[str, str]:
        """Return the names of the spans that came, each with the service that sent it."""
        return {
            span.name: next(
                attribute.value.string_value
                for attribute in resource.resource.attributes
                if attribute.key == "service.name"
            )
            for message in self.taken
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }


class _Receive(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        """Take in one export."""
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/traces":
            self.server.taken.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Run a collector of the test's own."""
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


async def test_a_gateway_sends_its_spans_to_a_collector(
    service: Service, collector: Collector, eventually: Poll
) -> None:
    """A process with the endpoint in its environment sends what it traces by OTLP."""
    port = unused_port()
    code = (
        "import uvicorn; from serve_app.gateway import create_app;"
        f"uvicorn.run(create_app({service.server.url!r}, {str(service.data_dir)!r}), port={port},"
        " log_level='critical', ws='none')"
    )
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_SERVICE_NAME": "our-gateway",
    }
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | environment)
    try:
        url = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=url, headers=bearer(KEY), verify=False) as client:

            async def lives() -> bool:
                with contextlib.suppress(httpx2.TransportError):
                    return bool((await client.get("/livez")).status_code == 200)
                return False

            await eventually(lives, within_s=30)
            body = {"features": {"x": 1.0}}
            reply = await client.post("/v1/models/web/predict", json=body, headers=TRACEPARENT)
            assert reply.status_code == 200
        wanted = {"predict": "our-gateway", "journal append": "our-gateway"}
        await eventually(lambda: wanted.items() <= collector.spans().items(), within_s=20)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
    found = [
        span
        for message in collector.taken
        for resource in message.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if span.name == "predict"
    ]
    assert [span.trace_id.hex() for span in found] == [TRACE]
