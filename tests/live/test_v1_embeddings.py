"""Embeddings through a real worker: who leaves takes the question back, and others are not held up."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import openai
import pytest

from tests.live.conftest import StartService
from tests.live.service import PATIENCE_SECONDS, Service, wait_until

ANSWER = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
    "model": "there",
    "usage": {"prompt_tokens": 1, "total_tokens": 1},
    "x_vendor": {"deep": [None, 1]},
}


class Upstream:
    """Answers embeddings, or keeps silent where the input says so. Notes who leaves without an answer."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._server.getsockname()[1]}/v1"
        self.bodies: list[dict[str, object]] = []
        self.left_at: list[float] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader, contextlib.suppress(OSError):
            while reader.readline():
                lines = iter(lambda: reader.readline().decode().strip(), "")
                fields = dict(line.lower().split(": ", 1) for line in lines)
                body = json.loads(reader.read(int(fields.get("content-length", 0))) or b"{}")
                self.bodies.append(body)
                if body.get("input") == "silence":
                    if not connection.recv(1):
                        self.left_at.append(time.monotonic())
                    return
                answer = json.dumps(ANSWER).encode()
                head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                connection.sendall(f"{head}Content-Length: {len(answer)}\r\n\r\n".encode() + answer)


@pytest.fixture
def embedder() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def live(embedder: Upstream, start_service: StartService) -> Service:
    return start_service(embedder.base_url)


def ask(port: int, text: str) -> socket.socket:
    """Send a request for embeddings, and return its connection."""
    body = json.dumps({"model": "m", "input": text})
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    head = "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return connection


def test_a_client_that_leaves_takes_its_question_back(live: Service, embedder: Upstream) -> None:
    with ask(live.port, "silence"):
        wait_until(lambda: embedder.bodies, PATIENCE_SECONDS, "the upstream is asked")
        assert not embedder.left_at
        left_at = time.monotonic()
    wait_until(lambda: embedder.left_at, PATIENCE_SECONDS, "the upstream's connection is closed")
    assert embedder.left_at[0] - left_at < 2
    assert len(embedder.bodies) == 1, "it is not asked again"
    assert live.request("GET", "/healthz").status == 200


def test_a_silent_upstream_holds_up_nobody_else(live: Service, embedder: Upstream) -> None:
    with ask(live.port, "silence"):
        wait_until(lambda: embedder.bodies, PATIENCE_SECONDS, "the upstream is asked")
        answer = live.request("POST", "/v1/embeddings", {"model": "m", "input": "quick"})
        assert answer.status == 200
        assert answer.json() == ANSWER


def test_the_sdk_gets_what_the_upstream_says(live: Service, embedder: Upstream) -> None:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="of-the-caller", max_retries=0) as sdk:
        answer = sdk.embeddings.create(model="m", input=["one"], encoding_format="float", dimensions=2)
        assert answer.data[0].embedding == [0.25, -0.5]
        assert answer.usage.total_tokens == 1
        with pytest.raises(openai.NotFoundError) as missing:
            sdk.models.retrieve("org/other")
        assert missing.value.code == "model_not_found"
        assert [model.id for model in sdk.models.list()] == ["test-model"]
    assert embedder.bodies[0] == {
        "model": "m",
        "input": ["one"],
        "encoding_format": "float",
        "dimensions": 2,
    }


def test_a_worker_told_to_stop_answers_who_is_still_waiting(
    embedder: Upstream, start_service: StartService
) -> None:
    service = start_service(embedder.base_url, environment={"DRAIN_SECONDS": "1"})
    with ask(service.port, "silence") as waiting:
        wait_until(lambda: embedder.bodies, PATIENCE_SECONDS, "the upstream is asked")
        service.stop()
        said = waiting.recv(65536)
    assert said.startswith(b"HTTP/1.1 503 ")
    assert b"restarted" in said
