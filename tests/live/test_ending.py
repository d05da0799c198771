"""SIGTERM and SIGHUP: runs end, readers are told, nobody is cut off without a word."""

import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.live.conftest import StartService
from tests.live.service import PATIENCE_SECONDS, EventReader, Service, Upstream, wait_until
from tests.live.upstream import Script

SLOW: Script = {"play": "ok", "tokens": 2000, "pace_ms": 50}


@pytest.fixture
def service(start_service: StartService) -> Iterator[Service]:
    return start_service(environment={"DRAIN_SECONDS": "2"})


def prompt(script: Script) -> str:
    return f"<<{json.dumps(script)}>>"


Begin = Callable[[Service, Script], tuple[str, EventReader]]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Return a function that starts a run and returns it, and its reader, once it has some text."""
    readers: list[EventReader] = []

    def begin_(service: Service, script: Script) -> tuple[str, EventReader]:
        stream_id = service.create(prompt(script))
        readers.append(service.follow(stream_id))
        for event in readers[-1]:
            if event.json()["type"] == "token":
                break
        return stream_id, readers[-1]

    yield begin_
    for reader in readers:
        reader.close()


def test_a_run_that_ends_in_time_ends_whole(service: Service, begin: Begin) -> None:
    _, reader = begin(service, {"play": "ok", "tokens": 20, "pace_ms": 50})

    os.kill(service.pid, signal.SIGTERM)
    last = list(reader)[-1]

    assert last.json()["type"] == "done"
    wait_until(service.has_ended, PATIENCE_SECONDS, "the service ends")


def test_a_run_that_does_not_is_interrupted_and_says_so(
    service: Service, upstream: Upstream, begin: Begin
) -> None:
    _, reader = begin(service, SLOW | {"token": "drain-1"})

    told = time.monotonic()
    os.kill(service.pid, signal.SIGTERM)
    last = list(reader)[-1].json()

    assert last["type"] == "error"
    assert (last["error"]["type"], last["error"]["code"]) == ("interrupted", "shutdown")
    assert last["error"]["retryable"]
    assert last["error"]["partial"]
    wait_until(service.has_ended, PATIENCE_SECONDS, "the service ends")
    assert time.monotonic() - told < 2 + 7, "it ended by its own clock"
    (asked,) = upstream.log("drain-1")
    assert asked["t_closed_by_peer"] is not None
    assert "graceful timeout" not in service.log_text()


def test_the_interruption_is_in_the_log_for_those_who_come_later(
    service: Service, start_service: StartService, begin: Begin
) -> None:
    stream_id, reader = begin(service, SLOW)
    os.kill(service.pid, signal.SIGTERM)
    heard = [event.json() for event in reader]
    wait_until(service.has_ended, PATIENCE_SECONDS, "the service ends")

    later = start_service()
    snapshot = later.snapshot(stream_id)

    assert snapshot["state"] == "interrupted"
    assert snapshot["text_sha256"] == heard[-1]["text_sha256"]
    assert snapshot["text"].endswith("".join(e["content"] for e in heard if e["type"] == "token"))


def test_an_idle_connection_does_not_hold_the_end(service: Service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    connection.request("GET", "/healthz")
    connection.getresponse().read()

    told = time.monotonic()
    os.kill(service.pid, signal.SIGTERM)
    assert connection.sock.recv(1) == b"", "it was closed in order"

    wait_until(service.has_ended, PATIENCE_SECONDS, "the service ends")
    assert time.monotonic() - told < 5
    connection.close()


def test_while_it_ends_it_is_not_ready_and_takes_no_runs(service: Service, begin: Begin) -> None:
    begin(service, SLOW)
    kept = [http.client.HTTPConnection("127.0.0.1", service.port, timeout=20) for _ in range(2)]
    for connection in kept:
        connection.connect()

    os.kill(service.pid, signal.SIGTERM)
    wait_until(lambda: _status(kept[0], "GET", "/readyz") == 503, PATIENCE_SECONDS, "not ready")

    for connection in kept:
        connection.close()


def _status(connection: http.client.HTTPConnection, method: str, path: str) -> int:
    try:
        connection.request(method, path)
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        return 503  # nobody listens any more
    return response.status


def test_a_reload_lets_go_of_readers_and_serves_on(start_service: StartService, begin: Begin) -> None:
    service = start_service(environment={"DRAIN_SECONDS": "1"})
    stream_id, reader = begin(service, SLOW)
    before = service.worker_pids()

    os.kill(service.pid, signal.SIGHUP)
    last = list(reader)[-1].json()

    assert last["error"]["code"] == "shutdown"
    wait_until(
        lambda: not set(before) & set(service.worker_pids()), PATIENCE_SECONDS, "the old worker is gone"
    )
    wait_until(service.is_healthy, PATIENCE_SECONDS, "the new one answers")
    assert service.snapshot(stream_id)["state"] == "interrupted"
    _, again = begin(service, {"play": "ok", "tokens": 3})
    assert list(again)[-1].json()["type"] == "done"


def test_a_client_that_never_reads_is_dropped(start_service: StartService, upstream: Upstream) -> None:
    service = start_service(environment={"WRITE_TIMEOUT_SECONDS": "1"})
    script: Script = {"play": "ok", "tokens": 90_000, "stamp": True, "token": "deaf"}
    stream_id = service.create(prompt(script), on_disconnect="continue")
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.connect(("127.0.0.1", service.port))
    deaf.sendall(f"GET /streams/{stream_id}?format=native HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    deaf_port = deaf.getsockname()[1]

    assert _is_established(service.port, deaf_port)
    wait_until(lambda: service.snapshot(stream_id)["state"] == "completed", 60, "the run is not held back")
    wait_until(
        lambda: not _is_established(service.port, deaf_port), PATIENCE_SECONDS, "its connection is closed"
    )
    deaf.close()


def _is_established(port: int, peer_port: int) -> bool:
    """Say whether the service still holds its end of a connection. Source: proc(5), ``/proc/net/tcp``."""
    with open("/proc/net/tcp") as table:
        rows = [line.split()[1:4] for line in table][1:]
    ends = (f":{port:04X}", f":{peer_port:04X}", "01")
    return any((local[-5:], remote[-5:], state) == ends for local, remote, state in rows)
