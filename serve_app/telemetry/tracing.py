"""Traces by OpenTelemetry, where its usual environment variables ask for them.

A process decides once, by `start`. Where nothing is asked for, nothing of it is loaded here, and
what the hot path calls returns at once. Serve can trace by itself (its
`RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH`): it tells of replicas and calls, not of the loop; where it
is on, our spans go where its go.

Spans name models, versions and ids: never what was sent, answered or said.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

log = logging.getLogger(__name__)

PREFIX = "online_learner."
SERVICE = "online-learner"
HEADERS = (b"traceparent", b"tracestate")
ROUTES = {  # by the last word of the path
    "predict": "predict",
    "predict_batch": "predict",
    "log": "predict",
    "log_batch": "predict",
    "feedback": "feedback",
    "feedback_batch": "feedback",
}
_NOTHING = contextlib.nullcontext()

_tracer: Tracer | None = None
_decided = False


def wanted(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the exporters that the environment asks for, as OpenTelemetry reads it.

    Its default, to export to this machine, is not taken: without a variable there are no traces.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return []
    named = environment.get("OTEL_TRACES_EXPORTER", "")
    if not named:
        places = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        named = "otlp" if any(environment.get(place) for place in places) else ""
    names = [name.strip() for name in named.split(",")]
    return [name for name in names if name not in ("", "none")]


def on() -> bool:
    """Tell whether anything is traced."""
    return _tracer is not None


def start() -> bool:
    """Begin to trace, where that is asked for; tells whether it is. One decision a process."""
    global _decided  # noqa: PLW0603
    if not _decided:
        _decided = True
        exporters = wanted(os.environ)
        if exporters:
            _begin(exporters)
    return _tracer is not None


def _begin(exporters: Sequence[str]) -> None:
    try:
        use(_provider(exporters))
    except ImportError as error:
        log.warning("nothing is traced: install the extra `otel` (%s)", error)
    except Exception as error:  # of an exporter that cannot be made of what is configured
        log.warning("nothing is traced: %s", error)


def use(provider: TracerProvider | None) -> None:
    """Trace by a provider, or, with None, no longer."""
    global _tracer, _decided  # noqa: PLW0603
    _decided = True
    _tracer = None if provider is None else provider.get_tracer(SERVICE)


def _provider(exporters: Sequence[str]) -> TracerProvider:
    """Return the provider that Serve has set, or else one of our own."""
    from opentelemetry import trace
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    known = trace.get_tracer_provider()
    if isinstance(known, TracerProvider):
        return known
    name = os.environ.get("OTEL_SERVICE_NAME", SERVICE)
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(_exporter(exporter)))
    return provider


def _exporter(name: str) -> Any:
    """Return an exporter by the name under which it is installed."""
    if name == "otlp":
        grpc = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").startswith("grpc")
        name = "otlp_proto_grpc" if grpc else "otlp_proto_http"
    for found in entry_points(group="opentelemetry_traces_exporter", name=name):
        return found.load()()
    raise ImportError(f"no exporter named {name} is installed")


# --- spans ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _around(tracer: Tracer, name: str, **how: Any) -> Iterator[Span]:
    """Open a span. Of an error it takes no words: they may hold what was sent."""
    from opentelemetry.trace import StatusCode

    how |= {"record_exception": False, "set_status_on_exception": False}
    with tracer.start_as_current_span(name, **how) as current:
        try:
            yield current
        except BaseException as error:
            current.set_status(StatusCode.ERROR, type(error).__name__)
            raise


def span(name: str, **attributes: Any) -> AbstractContextManager[object]:
    """Return a span within the one under way; nothing where there is none, or it is not kept."""
    if _tracer is None or not _current().is_recording():
        return _NOTHING
    return _around(_tracer, name, attributes=_ours(attributes))


def note(**attributes: Any) -> None:
    """Add to the span under way; what is None is left out."""
    if _tracer is not None:
        _current().set_attributes(_ours(attributes))


def _current() -> Span:
    from opentelemetry.trace import get_current_span

    return get_current_span()


def past(name: str, started_ns: int, **attributes: Any) -> None:
    """Tell of what is done already: a trace of its own, from its start until now."""
    if _tracer is not None:
        from opentelemetry.context import Context

        ours = _ours(attributes)
        _tracer.start_span(name, Context(), start_time=started_ns, attributes=ours).end()


def _ours(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {PREFIX + name: value for name, value in attributes.items() if value is not None}


# --- requests ---------------------------------------------------------------------------------


def middleware() -> list[Middleware]:
    """Return what traces requests; nothing where nothing is traced."""
    return [Middleware(Traced)] if start() else []


class Traced:
    """Puts a span around each request for an answer, and each with feedback.

    It continues the trace of a `traceparent` (W3C Trace Context), and takes no baggage.
    """

    def __init__(self, app: ASGIApp) -> None:
        from opentelemetry.trace import SpanKind, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.app = app
        self._server, self._error = SpanKind.SERVER, StatusCode.ERROR
        self._extract = TraceContextTextMapPropagator().extract

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        name = ROUTES.get(scope.get("path", "").rpartition("/")[2])
        if _tracer is None or scope["type"] != "http" or scope["method"] != "POST" or name is None:
            await self.app(scope, receive, send)
            return
        how = {"kind": self._server, "attributes": {"http.request.method": "POST"}}
        with _around(_tracer, name, context=self._context(scope), **how) as current:

            async def tell(message: Message) -> None:
                if message["type"] == "http.response.start":
                    current.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        current.set_status(self._error)
                await send(message)

            await self.app(scope, receive, tell)

    def _context(self, scope: Scope) -> Context | None:
        """Return the sender's trace; None is Serve's, where that traces, or a new one."""
        if _current().get_span_context().is_valid:
            return None
        headers = ((key, value) for key, value in scope["headers"] if key in HEADERS)
        return self._extract({key.decode(): value.decode("latin-1") for key, value in headers})
