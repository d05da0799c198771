"""The spans of runs: under the ids that upstreams were told, with what is known, and never with words."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from streaming import telemetry, traces
from streaming.events import Status, Token, Usage
from streaming.observers import RunEnd, RunFacts
from streaming.settings import Settings
from streaming.tally import Tally
from streaming.telemetry import Spans

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[Spans]:
    made = Spans(SimpleSpanProcessor(exporter), "1.2")
    yield made
    made.close()


def ended(spans: Spans, trace: traces.Trace | None, source: str = "chat", **end: Any) -> RunFacts:
    run = RunFacts("st_1", "key_1", source, "small", "req_1", trace)
    tally = Tally()
    tally.start()
    tally.add([Status("retrying", 1), Token("secret words"), Usage(end.pop("usage", {}))])
    given = {"state": "completed", "finish_reason": "stop", "seconds": 2.0} | end
    spans.ended(run, RunEnd(tally=tally, **given))
    return run


def test_a_run_is_a_span_under_the_ids_that_its_upstream_was_told(
    spans: Spans, exporter: InMemorySpanExporter
) -> None:
    trace = traces.begin([PARENT], ["rojo=1"])
    ended(spans, trace, usage={"prompt_tokens": 7, "completion_tokens": 3})

    (span,) = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == trace.trace_id == PARENT[3:35]
    assert f"{span.context.span_id:016x}" == trace.span_id
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == trace.parent_id == PARENT[36:52]
    assert span.kind is SpanKind.CLIENT
    assert span.name == "chat small"
    assert 1.9 < (span.end_time - span.start_time) / 1e9 < 2.1
    said = dict(span.attributes)
    assert said.pop("gen_ai.response.time_to_first_chunk") >= 0
    assert said == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "small",
        "gen_ai.request.stream": True,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.response.finish_reasons": ("stop",),
        "sluice.stream.id": "st_1",
        "sluice.stream.state": "completed",
        "sluice.stream.owner": "key_1",
        "sluice.request.id": "req_1",
        "sluice.upstream.retries": 1,
        "sluice.upstream.fallbacks": 0,
        "sluice.usage.estimated": False,
    }
    assert span.resource.attributes["service.name"] == "sluice"
    assert "secret" not in span.to_json()


def test_a_trace_that_begins_here_has_a_root_span_that_is_sampled(
    spans: Spans, exporter: InMemorySpanExporter
) -> None:
    trace = traces.begin()
    assert trace.sampled
    ended(spans, trace)
    (span,) = exporter.get_finished_spans()
    assert span.parent is None
    assert f"{span.context.trace_id:032x}" == trace.trace_id


def test_a_caller_who_does_not_record_is_not_recorded_for(
    spans: Spans, exporter: InMemorySpanExporter
) -> None:
    ended(spans, traces.begin([PARENT[:-1] + "0"]))
    assert exporter.get_finished_spans() == ()


def test_a_failure_is_told_by_its_type(spans: Spans, exporter: InMemorySpanExporter) -> None:
    ended(
        spans,
        traces.begin(),
        state="failed",
        finish_reason="",
        error_type="upstream_timeout",
        error_code="idle",
    )
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "upstream_timeout/idle"
    assert span.attributes["error.type"] == "upstream_timeout"
    assert span.attributes["sluice.usage.estimated"] is True


def test_a_runnable_is_an_agent_by_its_name(spans: Spans, exporter: InMemorySpanExporter) -> None:
    ended(spans, traces.begin(), source="support")
    (span,) = exporter.get_finished_spans()
    assert span.name == "invoke_agent support"
    assert span.attributes["gen_ai.agent.name"] == "support"


def test_a_run_without_a_trace_or_one_that_is_elsewhere_has_no_span(
    spans: Spans, exporter: InMemorySpanExporter
) -> None:
    ended(spans, None)
    ended(spans, traces.begin(), state="fenced")
    assert exporter.get_finished_spans() == ()


def test_when_it_is_closed_new_traces_are_not_sampled_any_more(exporter: InMemorySpanExporter) -> None:
    made = Spans(SimpleSpanProcessor(exporter))
    made.close()
    assert not traces.begin().sampled


def test_without_an_endpoint_nothing_is_made_or_imported() -> None:
    assert telemetry.create(Settings(), "") is None
    program = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import sys, json; from app import create_app; from streaming.settings import Settings\n"
        "create_app(Settings(eventlog_url='memory://', runnables=('none',)))\n"
        "print(json.dumps([name for name in sys.modules if name.startswith('opentelemetry.sdk')]))\n"
        "import os; sys.stdout.flush(); os._exit(0)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert json.loads(found.stdout) == [], found.stderr


def test_an_sdk_that_is_not_installed_is_told_and_harms_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    settings = replace(Settings(), otel_exporter_otlp_endpoint="http://127.0.0.1:9")
    assert telemetry.create(settings, "") is None
    assert [record.message for record in caplog.records] == ["OpenTelemetry is configured, but not installed"]
