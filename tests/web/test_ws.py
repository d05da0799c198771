"""``/ws`` before the upgrade, and the wire below it; live/test_ws.py has the rest."""

import contextlib
import gc
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import gevent
import greenlet
import pytest
from werkzeug.test import EnvironBuilder

from streaming.events import Done, Token
from streaming.web._websocket_wire import SEND_BUFFER_BYTES, Wire
from tests.doubles import Gate, ScriptedSource, UnsteadyLog, eventually
from tests.live.websocket import CLOSE, TEXT, frame, frames_in
from tests.web.conftest import Compose, Service, nothing_made, refused

UPGRADE = {
    "Connection": "keep-alive, Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


# Before the upgrade


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_without_an_upgrade_is_told_to_make_one(shared: Service, method: str) -> None:
    response = shared.client.open("/ws", method=method)
    assert response.status_code == 426
    assert response.headers["Upgrade"] == "websocket"
    if method == "GET":
        refused(response, 426, "invalid_request", code="upgrade_required")


def test_another_method_is_refused(shared: Service) -> None:
    response = shared.client.post("/ws", json={})
    refused(response, 405, "invalid_request", code="method")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.test"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://localhost.evil.test"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://evil.test"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_sites_page_is_refused_before_the_upgrade(shared: Service, headers: dict[str, str]) -> None:
    with nothing_made(shared):
        refused(shared.client.get("/ws", headers=UPGRADE | headers), 403, "invalid_request", code="origin")


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://localhost"}, {"Sec-Fetch-Site": "same-origin", "Origin": "http://x"}]
)
def test_a_server_that_keeps_its_socket_says_so_to_those_who_may_connect(
    shared: Service, headers: dict[str, str]
) -> None:
    refused(shared.client.get("/ws", headers=UPGRADE | headers), 501, "internal_error", code="no_socket")


@pytest.mark.parametrize("version", [None, "", "8", "13, 8", "014"])
def test_another_version_of_the_protocol_is_refused(shared: Service, version: str | None) -> None:
    headers = {name: value for name, value in UPGRADE.items() if name != "Sec-WebSocket-Version"}
    if version is not None:
        headers["Sec-WebSocket-Version"] = version
    response = shared.client.get("/ws", headers=headers)
    refused(response, 426, "invalid_request", code="upgrade_required")
    assert response.headers["Sec-WebSocket-Version"] == "13"


@pytest.mark.parametrize("key", ["", "short", "!" * 24, "a" * 5000, "dGhlIHNhbXBsZSBub25jZQ==, x", "ä" * 24])
def test_a_handshake_without_a_proper_key_is_refused(shared: Service, key: str) -> None:
    response = shared.client.get("/ws", headers=UPGRADE | {"Sec-WebSocket-Key": key})
    refused(response, 400, "invalid_request", code="handshake")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("format=simple", "format"),
        ("after=1.2", "after"),
        ("colour=red", "colour"),
        ("buffer_tokens=many", "buffer_tokens"),
        ("buffer_tokens=", "buffer_tokens"),
        ("metrics=1&metrics=1", "metrics"),
        ("metrics=perhaps", "metrics"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named(shared: Service, query: str, param: str) -> None:
    refused(shared.client.get(f"/ws?{query}", headers=UPGRADE), 400, "invalid_request", param=param)


def test_other_addresses_do_not_upgrade(shared: Service) -> None:
    refused(shared.client.get("/healthz", headers=UPGRADE), 400, "invalid_request")


def test_what_is_no_socket_is_not_used(compose: Compose) -> None:
    service = compose(ValueError("no source is asked"))
    response = service.client.get("/ws", headers=UPGRADE, environ_overrides={"gunicorn.socket": object()})
    refused(response, 501, "internal_error", code="no_socket")


# The wire


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end of a connection and the client's."""
    listening = socket.create_server(("127.0.0.1", 0))
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(listening.getsockname())
    ours, _address = listening.accept()
    listening.close()
    yield ours, client
    ours.close()
    client.close()


def read_to_end(client: socket.socket) -> bytes:
    found = bytearray()
    while data := client.recv(65536):
        found += data
    return bytes(found)


def test_a_write_larger_than_any_buffer_arrives_whole(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, client = ends
    wire = Wire(ours, 5)
    sent = bytes(range(256)) * 20_000
    read = gevent.spawn(read_to_end, client)

    assert wire.send(sent) == len(sent)
    wire.shutdown()

    assert read.get(timeout=5) == sent


def test_writers_that_wait_for_each_other_keep_their_order(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, client = ends
    wire = Wire(ours, 5)
    parts = [b"%d" % digit * 400_000 for digit in range(8)]
    writers = [gevent.spawn(wire.send, part) for part in parts]
    gevent.sleep(0)
    assert not any(writer.ready() for writer in writers), "all wait: nobody reads"

    read = gevent.spawn(read_to_end, client)
    gevent.joinall(writers, timeout=5, raise_error=True)
    wire.shutdown()

    assert read.get(timeout=5) == b"".join(parts)


def test_what_is_sent_under_a_cork_is_one_write(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, client = ends
    wire = Wire(ours, 5)
    client.setblocking(False)
    with wire.corked():
        for _ in range(50):
            wire.send(b"ab")
        with pytest.raises(BlockingIOError):
            client.recv(1)
    client.setblocking(True)
    assert client.recv(1000) == b"ab" * 50


def test_a_client_that_does_not_read_ends_the_connection_and_holds_little(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, client = ends
    wire = Wire(ours, 0.2)
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BUFFER_BYTES
    other = gevent.spawn(_fails, wire)
    with pytest.raises(TimeoutError):
        wire.send(b"x" * 5_000_000)
    assert other.get(timeout=2), "who waited behind it is told as well"
    assert len(read_to_end(client)) < 5_000_000


def _fails(wire: Wire) -> bool:
    gevent.sleep(0.05)
    try:
        wire.send(b"y")
    except OSError:
        return True
    return False


def test_nothing_is_read_until_what_was_read_is_taken(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, client = ends
    wire = Wire(ours, 5)
    unread = ["one"]
    wire.hold_back(unread)
    client.sendall(b"two")
    reading = gevent.spawn(wire.recv, 10)
    wire.took()
    gevent.sleep(0.02)
    assert not reading.ready(), "one is still there"

    unread.clear()
    wire.took()

    assert reading.get(timeout=2) == b"two"


def test_a_shutdown_wakes_who_reads_and_who_is_held_back(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, _client = ends
    wire = Wire(ours, 5)
    wire.hold_back(["one"])
    reading = gevent.spawn(wire.recv, 10)
    gevent.sleep(0)
    wire.shutdown()
    assert reading.get(timeout=2) == b""


def test_a_close_lets_the_client_finish_so_that_nothing_is_reset(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, client = ends
    wire = Wire(ours, 5)
    wire.send(b"the reason")
    sending = gevent.spawn(client.sendall, b"still sending " * 300_000)
    gevent.sleep(0)
    assert not sending.ready()
    closing = gevent.spawn(lambda: (wire.close(), ours.close()))
    sending.get(timeout=2)
    client.shutdown(socket.SHUT_WR)

    assert read_to_end(client) == b"the reason"
    closing.get(timeout=2)


def test_a_close_does_not_wait_for_ever(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.web._websocket_wire.LINGER_SECONDS", 0.1)
    ours, _client = ends
    closing = gevent.spawn(Wire(ours, 5).close)
    eventually(closing.ready, 2)
    closing.get()


# The whole of it, in this process


class Socket:
    """A client of the application, on a real connection: frames by hand, and the server's greenlet."""

    def __init__(self, service: Service) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.end = socket.create_connection(listening.getsockname())
        ours, _address = listening.accept()
        listening.close()
        environ = EnvironBuilder("/ws", headers=UPGRADE).get_environ()
        self.greenlet = gevent.spawn(_serve, service, environ | {"gunicorn.socket": ours}, ours)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.end.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        self._came = b""

    def send(self, type_: str, **fields: Any) -> None:
        self.end.sendall(frame(TEXT, json.dumps({"type": type_, **fields}).encode()))

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Yield each frame that comes, until the connection ends."""
        while True:
            whole, self._came = frames_in(self._came)
            yield from whole
            block = self.end.recv(65536)
            if not block:
                return
            self._came += block

    def until(self, type_: str) -> list[dict[str, Any]]:
        came: list[dict[str, Any]] = []
        for opcode, payload in self.frames():
            assert opcode == TEXT, (opcode, payload)
            came.append(json.loads(payload))
            if came[-1]["type"] == type_:
                return came
        raise AssertionError(f"it ended without {type_}: {came}")

    def close_code(self) -> int:
        codes = [int.from_bytes(payload[:2], "big") for opcode, payload in self.frames() if opcode == CLOSE]
        self.end.close()
        self.greenlet.get(timeout=5)
        return codes[-1] if codes else 1006


def _serve(service: Service, environ: dict[str, Any], ours: socket.socket) -> None:
    """Be a server of the kind that lets the application take its connection."""
    with pytest.raises(StopIteration):
        service.client.application.wsgi_app(environ, lambda *_: None)
    ours.close()


def test_a_fault_of_ours_closes_the_connection_and_says_so_once(
    compose: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    client = Socket(compose(ValueError("a fault in a source")))
    client.send("start", prompt="hello")
    assert client.close_code() == 1011
    assert [record.message for record in caplog.records if record.exc_info] == ["a websocket broke"]


def test_a_store_that_is_away_drops_a_run_which_can_be_followed_again(compose: Compose) -> None:
    log = UnsteadyLog()
    gate = Gate()
    service = compose(ScriptedSource([Token("a")], gate, [Token("b"), Done("stop")]), log)
    client = Socket(service)
    client.send("start", prompt="hello")
    frames = client.until("token")
    log.broken.add("read")
    # A page that is awaited is read when there is something new.
    gate.open()
    frames += client.until("dropped")
    dropped = frames[-1]
    assert dropped["error"]["type"] == "store_unavailable"
    assert dropped["error"]["retryable"]
    assert dropped["cursor"] == [each["cursor"] for each in frames[:-1] if "cursor" in each][-1]

    log.broken.clear()
    client.send("follow", stream_id=dropped["stream_id"], after=dropped["cursor"])
    frames += client.until("done")

    assert "".join(each["content"] for each in frames if each["type"] == "token") == "ab"
    client.end.close()
    client.greenlet.get(timeout=5)


@pytest.mark.parametrize("leaving", ["cut", "closed", "garbage", "paused", "half a frame", "too large"])
def test_no_greenlet_and_no_descriptor_is_left(compose: Compose, leaving: str) -> None:
    service = compose(ScriptedSource([Token("a")], 60.0), settings={"max_body_bytes": 1000})
    last = {
        "cut": b"",
        "closed": frame(CLOSE, b"\x03\xe8"),
        "garbage": b"\xff\xff\xff\xff",
        "paused": frame(TEXT, b'{"type":"pause"}'),
        "half a frame": frame(TEXT, b"{}")[:-1],
        "too large": frame(TEXT, b"x" * 100_000),
    }[leaving]
    _talk_once(service, last)
    greenlets, descriptors = living_greenlets(), open_descriptors()

    for _ in range(5):
        _talk_once(service, last)

    # Fewer is fine: something of the first one may just have been ending.
    eventually(lambda: living_greenlets() <= greenlets and open_descriptors() <= descriptors)


def _talk_once(service: Service, last: bytes) -> None:
    client = Socket(service)
    client.send("start", prompt="hello", on_disconnect="cancel")
    client.until("token")
    with contextlib.suppress(ConnectionError):
        client.end.sendall(last)
    client.end.close()
    client.greenlet.get(timeout=5)
    eventually(lambda: service.streams.running == 0)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def living_greenlets() -> int:
    gc.collect()
    return sum(isinstance(each, greenlet.greenlet) and bool(each) for each in gc.get_objects())
