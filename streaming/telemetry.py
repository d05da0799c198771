"""A span for each run, for OpenTelemetry: only where its SDK is installed and somebody takes the spans.

Spans are made when a run has ended, of what is known then, under the ids that
its upstream was told before. They never hold what was asked or answered.
Source of the names: OpenTelemetry's semantic conventions for generative AI.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import gevent

from streaming import traces
from streaming.observers import Nobody, RunEnd, RunFacts
from streaming.settings import Settings
from streaming.tokens import completion_tokens, given_tokens

logger = logging.getLogger(__name__)

CLOSE_SECONDS = 1.5
"""How long a worker that ends waits for its last spans to be taken."""
CHAT_SOURCES = frozenset({"chat", "responses"})


def create(settings: Settings, version: str) -> "Spans | None":
    """Return what sends spans to where the settings say; ``None`` where that is nowhere."""
    whole = settings.otel_exporter_otlp_traces_endpoint
    base = settings.otel_exporter_otlp_endpoint
    if not (whole or base):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        logger.warning("OpenTelemetry is configured, but not installed", extra={"missing": error.name})
        return None
    exporter = OTLPSpanExporter(endpoint=whole or base.rstrip("/") + "/v1/traces")
    # Its thread is a greenlet here, and its waits let others run.
    return Spans(BatchSpanProcessor(exporter), version)


class Spans(Nobody):
    """An `Observer` that makes a span of each run."""

    def __init__(self, processor: Any, version: str = "") -> None:
        """``processor`` is a ``SpanProcessor`` of the SDK: it is given each span when it has ended."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        self._ids = _Ids()
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say wins over this.
        resource = Resource({"service.name": "sluice", "service.version": version}).merge(Resource.create())
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "sluice"}))
        self._provider = TracerProvider(resource=resource, id_generator=self._ids.generator)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("sluice", version)
        traces.sample_by(self._is_sampled())

    def ended(self, run: RunFacts, end: RunEnd) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        if run.trace is None or end.state == "fenced":
            return
        now = time.time_ns()
        name, attributes = _said(run, end)
        self._ids.next = run.trace
        span = self._tracer.start_span(
            name,
            context=_parent_of(run.trace),
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=now - int(end.seconds * 1e9),
        )
        if end.error_type:
            span.set_status(Status(StatusCode.ERROR, f"{end.error_type}/{end.error_code}"))
        span.end(now)

    def close(self) -> None:
        """Send what was not sent yet, for as long as a worker that ends can wait."""
        traces.sample_by()
        with gevent.Timeout(CLOSE_SECONDS, False):
            self._provider.shutdown()

    def _is_sampled(self) -> Callable[[str], bool]:
        sampler = self._provider.sampler

        def is_sampled(trace_id: str) -> bool:
            decision: Any = sampler.should_sample(None, int(trace_id, 16), "").decision
            return bool(decision.is_sampled())

        return is_sampled


def _said(run: RunFacts, end: RunEnd) -> tuple[str, dict[str, Any]]:
    usage = end.tally.usage
    operation = "chat" if run.source in CHAT_SOURCES else "invoke_agent"
    subject = run.model[:100] if operation == "chat" else run.source
    first_ms = end.tally.first_token_ms
    metrics = end.tally.metrics(usage)
    counted = completion_tokens(usage)
    attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "openai" if operation == "chat" else "sluice",
        "gen_ai.request.model": run.model[:100],
        "gen_ai.request.stream": True,
        "gen_ai.agent.name": run.source if operation == "invoke_agent" else None,
        "gen_ai.usage.input_tokens": given_tokens(usage),
        "gen_ai.usage.output_tokens": counted if counted is not None or metrics is None else metrics.tokens,
        "gen_ai.response.finish_reasons": [end.finish_reason] if end.finish_reason else None,
        "gen_ai.response.time_to_first_chunk": None if first_ms is None else first_ms / 1000,
        "error.type": end.error_type or None,
        "sluice.stream.id": run.stream_id,
        "sluice.stream.state": end.state,
        "sluice.stream.owner": run.owner or None,
        "sluice.request.id": run.request_id,
        "sluice.upstream.retries": end.tally.retries,
        "sluice.upstream.fallbacks": end.tally.fallbacks,
        "sluice.usage.estimated": counted is None,
    }
    return f"{operation} {subject}", {name: value for name, value in attributes.items() if value is not None}


def _parent_of(trace: traces.Trace) -> Any:
    """Return the context of whoever asked us, or an empty one, so that none is found elsewhere."""
    from opentelemetry.context import Context
    from opentelemetry.trace import (
        NonRecordingSpan,
        SpanContext,
        TraceFlags,
        TraceState,
        set_span_in_context,
    )

    if not trace.parent_id:
        return Context()
    state = TraceState.from_header([trace.state]) if trace.state else None
    parent = SpanContext(
        int(trace.trace_id, 16), int(trace.parent_id, 16), True, TraceFlags(trace.flags), state
    )
    return set_span_in_context(NonRecordingSpan(parent), Context())


class _Ids:
    """Gives a span the ids that were told to upstreams when its run began."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace.id_generator import IdGenerator

        self.next: traces.Trace | None = None
        ids = self

        class Chosen(IdGenerator):
            def generate_span_id(self) -> int:
                return int(ids._trace().span_id, 16)

            def generate_trace_id(self) -> int:
                return int(ids._trace().trace_id, 16)

            def is_trace_id_random(self) -> bool:
                return True

        self.generator = Chosen()

    def _trace(self) -> traces.Trace:
        assert self.next is not None
        return self.next
