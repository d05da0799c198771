"""A client's socket: a read ends by its deadline, a write when nobody takes it, and neither loses a byte."""

import errno
import socket as plain
import time
from collections.abc import Iterator

import gevent
import gevent.socket
import pytest

from streaming import client_socket
from streaming.client_socket import ClientSocket
from streaming.errors import RequestTimeout


@pytest.fixture
def pair() -> Iterator[tuple[ClientSocket, gevent.socket.socket]]:
    """The server's end of a connection, and the client's."""
    ours, theirs = gevent.socket.socketpair()
    server = ClientSocket(plain.AF_UNIX, plain.SOCK_STREAM, 0, fileno=ours.detach())
    server.setblocking(True)
    with server, theirs:
        yield server, theirs


Pair = tuple[ClientSocket, gevent.socket.socket]


def test_a_read_ends_at_its_deadline(pair: Pair) -> None:
    server, _ = pair
    server.expect(time.monotonic() + 0.05, 1.0)
    with pytest.raises(RequestTimeout):
        server.recv(100)


def test_bytes_that_are_there_are_read_although_it_is_late(pair: Pair) -> None:
    server, client = pair
    client.sendall(b"abc")
    server.expect(time.monotonic() - 1, 1.0)
    assert server.recv(100) == b"abc"


def test_each_byte_defers_the_deadline(pair: Pair) -> None:
    server, client = pair
    deadline = time.monotonic() + 100
    server.expect(deadline, 10.0)
    client.sendall(b"x" * 30)
    server.recv(100)
    assert server.deadline == pytest.approx(deadline + 3)


def test_an_idle_connection_has_no_deadline_until_its_first_byte(pair: Pair) -> None:
    server, client = pair
    server.expect_head(0.05)
    reading = gevent.spawn(server.recv, 100)
    gevent.sleep(0.15)
    assert not reading.ready()
    client.sendall(b"G")
    assert reading.get(timeout=2) == b"G"
    with pytest.raises(RequestTimeout):
        server.recv(100)


def test_a_client_that_takes_nothing_is_left(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_socket, "WRITE_SECONDS", 0.05)
    server, _ = pair
    with pytest.raises(BrokenPipeError) as raised:
        server.sendall(b"x" * 10_000_000)
    assert raised.value.errno == errno.EPIPE
    assert server.gettimeout() is None


def test_a_client_that_reads_slowly_gets_every_byte(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_socket, "WRITE_SECONDS", 5.0)
    server, client = pair
    sent = bytes(range(256)) * 8192
    writing = gevent.spawn(server.sendall, sent)
    got = bytearray()
    while len(got) < len(sent):
        got += client.recv(50_000)
    writing.get(timeout=2)
    assert got == sent


# Writing from the loop


@pytest.mark.parametrize(("chunked", "flushed"), [(True, True), (False, True), (True, False)])
def test_what_a_client_does_not_take_at_once_is_kept_and_sent_in_order(
    pair: Pair, chunked: bool, flushed: bool
) -> None:
    server, client = pair
    server.chunked = chunked
    parts = [bytes([65 + i % 26]) * 20_000 for i in range(200)]
    left = iter(parts)
    sent = b""
    for part in left:
        sent += b"%X\r\n%b\r\n" % (len(part), part) if chunked else part
        if not server.send_now(part):
            break
    else:
        pytest.fail("the socket's buffer took 4 MB")

    received = gevent.spawn(_read_all, client, len(sent) + 4)
    if flushed:
        server.flush()
    server.sendall(b"last")

    assert received.get(timeout=5) == sent + b"last"


def test_a_client_that_does_not_read_what_was_kept_is_given_up(pair: Pair) -> None:
    server, _ = pair
    server.chunked = False
    server.settimeout(0.05)
    while server.send_now(b"x" * 50_000):
        pass
    with pytest.raises(BrokenPipeError):
        server.flush()


def test_a_client_that_has_gone_is_an_error_of_the_write(pair: Pair) -> None:
    server, client = pair
    client.close()
    with pytest.raises(OSError, match="pipe"):
        server.send_now(b"x")


def _read_all(sock: gevent.socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size and (block := sock.recv(65536)):
        received += block
    return received
