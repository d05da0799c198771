"""``/ws`` before the upgrade, and the wire below it; live/test_ws.py has the rest."""

import socket
from collections.abc import Iterator

import gevent
import pytest

from streaming.web._websocket_wire import SEND_BUFFER_BYTES, Wire
from tests.doubles import eventually
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
    closing = gevent.spawn(wire.close)
    client.sendall(b"still sending " * 100)
    client.shutdown(socket.SHUT_WR)
    closing.join(timeout=2)
    ours.close()

    assert closing.ready()
    assert read_to_end(client) == b"the reason", "a reset would have lost it"


def test_a_close_does_not_wait_for_ever(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.web._websocket_wire.LINGER_SECONDS", 0.1)
    ours, _client = ends
    closing = gevent.spawn(Wire(ours, 5).close)
    eventually(closing.ready, 2)
    closing.get()
