"""A trace through the whole service: from a caller to the upstream, to the log and to the collector."""

import gzip
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.live.service import PATIENCE_SECONDS, Service, wait_until

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
HEADERS = {
    "traceparent": f"00-{TRACE}-{PARENT}-01",
    "tracestate": "rojo=1,congo=2",
    "X-Request-Id": "req-mine",
}
CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "there"}


class Upstream:
    """Answers chat completions, responses and embeddings, takes spans, and keeps every request's headers."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, str]]] = []
        self.spans: list[Any] = []
        self.collector_is_silent = threading.Event()
        self.collector_is_silent.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.heard.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                kind, answer = outer.answer(self.path, body)
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str, body: bytes) -> tuple[str, bytes]:
        if path == "/v1/traces":
            self.collector_is_silent.wait(30)
            self.spans += [
                span
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]
            return "application/x-protobuf", b""
        if path.endswith("/embeddings"):
            return "application/json", json.dumps({"object": "list", "data": [], "model": "there"}).encode()
        if path.endswith("/responses"):
            done = {
                "type": "response.completed",
                "response": {"id": "r", "output": [], "status": "completed"},
            }
            return "text/event-stream", f"event: response.completed\ndata: {json.dumps(done)}\n\n".encode()
        first = CHUNK | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}}]}
        last = CHUNK | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        events = [json.dumps(first), json.dumps(last), "[DONE]"]
        return "text/event-stream", "".join(f"data: {event}\n\n" for event in events).encode()

    def headers_of(self, path: str) -> dict[str, str]:
        found = wait_until(lambda: [said for at, said in self.heard if at == path], 10, f"{path} is asked")
        return found[-1]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = Upstream()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def start(tmp_path: Path, upstream: Upstream) -> Iterator[Any]:
    made: list[Service] = []

    def start_(**environment: str) -> Service:
        made.append(Service(tmp_path, f"{upstream.url}/v1", environment=environment))
        return made[-1]

    yield start_
    for service in made:
        service.stop()


def assert_gone_on_with(headers: dict[str, str]) -> str:
    """Check that a request to an upstream is of our trace; return the id it has as its parent."""
    found = re.fullmatch(rf"00-{TRACE}-([0-9a-f]{{16}})-01", headers["traceparent"])
    assert found, headers
    assert found[1] not in (PARENT, "0" * 16)
    assert headers["tracestate"] == "rojo=1,congo=2"
    assert headers["x-request-id"] == "req-mine"
    return found[1]


def test_a_callers_trace_reaches_every_kind_of_upstream_request(start: Any, upstream: Upstream) -> None:
    service = start(UPSTREAM_RESPONSES="yes")
    service.request("POST", "/streams", {"prompt": "hello"}, HEADERS)
    first = assert_gone_on_with(upstream.headers_of("/v1/chat/completions"))
    service.request(
        "POST",
        "/v1/chat/completions",
        {"model": "m", "messages": [{"role": "user", "content": "a"}]},
        HEADERS,
    )
    second = assert_gone_on_with(upstream.headers_of("/v1/chat/completions"))
    assert first != second
    service.request("POST", "/v1/responses", {"model": "m", "input": "hello"}, HEADERS)
    assert_gone_on_with(upstream.headers_of("/v1/responses"))
    service.request("POST", "/v1/embeddings", {"model": "m", "input": "hello"}, HEADERS)
    assert_gone_on_with(upstream.headers_of("/v1/embeddings"))

    log = wait_until(
        lambda: text if (text := service.log_text()).count("stream ended") >= 3 else "",
        PATIENCE_SECONDS,
        "all have ended",
    )
    lines = [line for line in log.splitlines() if "INFO stream" in line]
    assert len(lines) == 6
    assert all(f"trace_id={TRACE}" in line and "request_id=req-mine" in line for line in lines)


def test_on_one_connection_no_request_inherits_the_trace_of_the_one_before(
    start: Any, upstream: Upstream
) -> None:
    import http.client

    service = start()
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    seen = []
    for headers in (HEADERS, {"traceparent": "garbage"}, {}):
        connection.request(
            "POST", "/streams", json.dumps({"prompt": "a"}), {"Content-Type": "application/json", **headers}
        )
        assert connection.getresponse().read()
        wait_until(lambda: len(upstream.heard) > len(seen), PATIENCE_SECONDS, "it was asked")
        seen.append(upstream.heard[-1][1])
    connection.close()
    traces = [headers["traceparent"][3:35] for headers in seen]
    assert traces[0] == TRACE
    assert len(set(traces)) == 3
    assert "tracestate" not in seen[1]
    assert all(headers["traceparent"].endswith("-02") for headers in seen[1:])


def test_spans_are_sent_to_a_collector_while_streams_go_on(start: Any, upstream: Upstream) -> None:
    service = start(OTEL_EXPORTER_OTLP_ENDPOINT=upstream.url, OTEL_BSP_SCHEDULE_DELAY="100")
    upstream.collector_is_silent.clear()
    service.request("POST", "/streams", {"prompt": "a secret question"}, HEADERS)
    parent = assert_gone_on_with(upstream.headers_of("/v1/chat/completions"))
    wait_until(
        lambda: [at for at, _ in upstream.heard if at == "/v1/traces"], PATIENCE_SECONDS, "spans are sent"
    )
    began = time.monotonic()
    for _ in range(20):
        assert service.request("GET", "/healthz").status == 200
    assert time.monotonic() - began < 5, "a collector that does not answer holds the loop"
    upstream.collector_is_silent.set()

    (span,) = wait_until(lambda: upstream.spans, PATIENCE_SECONDS, "the collector has the span")
    assert span.trace_id.hex() == TRACE
    assert span.span_id.hex() == parent, "what the upstream was told is not the span"
    assert span.parent_span_id.hex() == PARENT
    assert b"secret" not in span.SerializeToString()
    asked = [said for at, said in upstream.heard if at == "/v1/traces"]
    assert all("traceparent" not in said for said in asked), "sending spans is itself traced"


def test_the_last_spans_are_sent_before_a_worker_ends(start: Any, upstream: Upstream) -> None:
    # Nothing is sent before the end, however long the five take.
    never = {"OTEL_BSP_SCHEDULE_DELAY": "600000"}
    service = start(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{upstream.url}/v1/traces", **never)
    for _ in range(5):
        service.request("POST", "/streams", {"prompt": "a"})
    wait_until(lambda: service.log_text().count("stream ended") == 5, PATIENCE_SECONDS, "all have ended")
    assert upstream.spans == []
    service.stop()
    assert len(upstream.spans) == 5
    assert len({span.trace_id for span in upstream.spans}) == 5


def test_a_collector_that_is_not_there_harms_no_stream_and_no_end(start: Any, upstream: Upstream) -> None:
    service = start(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_BSP_SCHEDULE_DELAY="100")
    stream_id = service.create("a")
    wait_until(
        lambda: service.request("GET", f"/streams/{stream_id}").json()["state"] == "completed",
        PATIENCE_SECONDS,
        "done",
    )
    began = time.monotonic()
    service.stop()
    assert time.monotonic() - began < 12
