"""Clients that know nothing of runs wait inside the scope of theirs."""

import contextlib
import contextvars
import socket
import threading
from collections.abc import Iterator
from typing import Any

import gevent
import httpx
import httpx2
import pytest
from gevent.server import StreamServer

from streaming import scope, traces
from streaming.runnables._scoped import scope_http_clients
from tests.doubles import eventually

LIBRARIES = [httpx, httpx2]


class Upstream:
    """Answers with a head and one chunk, or nothing at all, and then waits until the client is gone."""

    def __init__(self) -> None:
        self.asked = 0
        self.gone = 0
        self.says: list[bytes] = []
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def close(self) -> None:
        self._server.stop(timeout=0.1)

    def _serve(self, connection: socket.socket, _: Any) -> None:
        connection.recv(65536)
        for piece in self.says:
            connection.sendall(piece)
        self.asked += 1
        with contextlib.suppress(ConnectionError):
            while connection.recv(65536):
                pass
        self.gone += 1


HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
FIRST = b"5\r\nfirst\r\n"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _wrapped() -> None:
    scope_http_clients()


def _stopped_while(run: scope.Scope, body: Any, upstream: Upstream) -> Any:
    """Stop ``run`` once the upstream was asked; return what ended ``body`` in its greenlet."""
    ended: list[BaseException] = []

    def work() -> None:
        try:
            with scope.entered(run):
                body()
        except BaseException as error:
            ended.append(error)

    worker = gevent.spawn(work)
    eventually(lambda: upstream.asked)
    gevent.sleep(0.01)
    run.stop(None)
    worker.join(1)
    assert worker.ready(), "the stop did not reach the client"
    eventually(lambda: upstream.gone, 1)
    return ended[0] if ended else None


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_stop_closes_the_socket_of_a_client_that_waits_for_the_head(
    library: Any, upstream: Upstream
) -> None:
    with library.Client(trust_env=False) as client:
        ended = _stopped_while(scope.Scope(), lambda: client.get(upstream.url), upstream)

    assert isinstance(ended, scope.Stopped)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_stop_closes_the_socket_of_a_client_that_reads_a_body(library: Any, upstream: Upstream) -> None:
    upstream.says = [HEAD, FIRST]
    blocks: list[bytes] = []

    def read() -> None:
        with client.stream("GET", upstream.url) as response:
            blocks.extend(response.iter_raw())

    with library.Client(trust_env=False) as client:
        # collected by a list, so that it is the reading itself that waits
        ended = _stopped_while(scope.Scope(), read, upstream)

    assert isinstance(ended, scope.Stopped)


def test_a_stop_reaches_a_thread_that_copied_the_context(upstream: Upstream) -> None:
    ended: list[BaseException] = []

    def ask() -> None:
        with httpx.Client(trust_env=False) as client:
            try:
                client.get(upstream.url)
            except BaseException as error:
                ended.append(error)

    def in_a_thread() -> None:
        thread = threading.Thread(target=contextvars.copy_context().run, args=(ask,))
        thread.start()
        thread.join()

    _stopped_while(scope.Scope(), in_a_thread, upstream)

    assert isinstance(ended[0], scope.Stopped)


def test_a_real_thread_of_its_own_is_left_alone(upstream: Upstream) -> None:
    upstream.says = [HEAD, FIRST, b"0\r\n\r\n"]
    run = scope.Scope()
    run.stop(None)

    def ask() -> str:
        with httpx.Client(trust_env=False) as client:
            return client.get(upstream.url).text

    with scope.entered(run):
        context = contextvars.copy_context()
    assert gevent.get_hub().threadpool.spawn(context.run, ask).get(timeout=5) == "first"


def test_wrapping_twice_is_wrapping_once() -> None:
    before = httpx.HTTPTransport.handle_request

    scope_http_clients()

    assert httpx.HTTPTransport.handle_request is before


def test_outside_of_a_run_nothing_changes(upstream: Upstream) -> None:
    upstream.says = [HEAD, FIRST, b"0\r\n\r\n"]

    with httpx2.Client(trust_env=False) as client:
        assert client.get(upstream.url).text == "first"


# Traces


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.__name__)
def test_a_request_of_any_client_says_which_trace_it_belongs_to(library: Any) -> None:
    heard: list[bytes] = []

    def answer(connection: socket.socket, _: Any) -> None:
        heard.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    server = StreamServer(("127.0.0.1", 0), answer)
    server.start()
    trace = traces.begin()
    try:
        with library.Client(trust_env=False) as client:
            url = f"http://127.0.0.1:{server.server_port}/"
            contextvars.Context().run(client.get, url)  # of no trace
            contextvars.copy_context().run(lambda: (traces.enter(trace), client.get(url)))
    finally:
        server.stop()
    assert b"traceparent" not in heard[0]
    assert b"traceparent: " + trace.traceparent.encode() in heard[1]
