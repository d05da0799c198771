"""Bodies arrive whole, cuts are noticed, connections are kept when they can be."""

import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import gevent
import httpx2
import pytest
from gevent.event import Event as Flag
from gevent.server import StreamServer
from gevent.socket import socket as Socket

from streaming.sources._http1 import HTTP1Transport
from tests.doubles import eventually
from tests.live.nginx import make_certificate

Handler = Callable[["Peer"], None]


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: Socket, number: int) -> None:
        self.socket = sock
        self.number = number
        self._received = b""

    def request(self) -> bytes:
        """Return the next request, b"" when the client has closed."""
        while b"\r\n\r\n" not in self._received:
            if not self._more():
                return b""
        head, _, rest = self._received.partition(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        self._received = rest
        while len(self._received) < length:
            if not self._more():
                return b""
        body, self._received = self._received[:length], self._received[length:]
        return head + b"\r\n\r\n" + body

    def _more(self) -> bool:
        try:
            block = self.socket.recv(65536)
        except OSError:
            block = b""
        self._received += block
        return bool(block)

    def send(self, *blocks: bytes) -> None:
        """Send each block so that it arrives on its own."""
        for block in blocks:
            self.socket.sendall(block)
            gevent.sleep(0)

    def answer_all(self, *blocks: bytes) -> None:
        """Answer every request of this connection so."""
        while self.request():
            self.send(*blocks)

    def is_closed(self) -> bool:
        """Wait for the client to close."""
        with gevent.Timeout(2, False):
            return self.request() == b""
        return False


class Server:
    """Serves each connection with the handler of the test."""

    def __init__(self) -> None:
        self.handler: Handler = Peer.request
        self.connections = 0
        self.requests: list[bytes] = []
        self.failures: list[BaseException] = []
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _serve(self, sock: Socket, _: object) -> None:
        self.connections += 1
        try:
            with closing(sock):
                self.handler(Peer(sock, self.connections))
        except OSError:
            pass
        except BaseException as error:
            self.failures.append(error)
            raise

    def stop(self) -> None:
        self._server.stop(timeout=1)
        assert self.failures == []


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def transport() -> HTTP1Transport:
    """One for all tests, whose servers differ: to read the certificates takes its time."""
    return HTTP1Transport()


@pytest.fixture
def client(transport: HTTP1Transport) -> Iterator[httpx2.Client]:
    timeout = httpx2.Timeout(2, connect=1)
    with httpx2.Client(transport=transport, timeout=timeout, trust_env=False) as made:
        yield made


def ok(*headers: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *headers, b"", body])


LENGTH_5 = ok(b"Content-Length: 5", body=b"hello")
CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"5\r\nhello\r\n1;x=y\r\n \r\n005\r\nworld\r\nA\r\n" + b"\r\n" * 5 + b"\r\n0\r\n\r\n"
TEXT = b"hello world" + b"\r\n" * 5


def blocks_of(response: httpx2.Response) -> list[bytes]:
    return list(response.iter_raw())


# Bodies


def test_a_body_with_a_length_is_read(server: Server, client: httpx2.Client) -> None:
    server.handler = lambda peer: peer.answer_all(LENGTH_5)

    response = client.get(server.url)

    assert (response.status_code, response.content) == (200, b"hello")
    assert response.reason_phrase == "OK"


def test_the_request_arrives_as_it_was_made(server: Server, client: httpx2.Client) -> None:
    def serve(peer: Peer) -> None:
        server.requests.append(peer.request())
        peer.send(LENGTH_5)

    server.handler = serve
    client.post(f"{server.url}/v1/chat?x=%20y", content=b"the body", headers={"X-Odd": "a, b"})

    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat?x=%20y HTTP/1.1\r\n")
    assert b"content-length: 8" in head.lower()
    assert b"x-odd: a, b" in head.lower()
    assert b"host: 127.0.0.1:" in head.lower()
    assert body == b"the body"


@pytest.mark.parametrize("cut", range(1, len(CHUNKS)))
def test_a_chunked_body_is_read_wherever_it_is_cut(server: Server, client: httpx2.Client, cut: int) -> None:
    def serve(peer: Peer) -> None:
        while peer.request():
            peer.send(ok(CHUNKED) + CHUNKS[:cut], CHUNKS[cut:])

    server.handler = serve
    assert client.get(server.url).content == TEXT
    assert client.get(server.url).content == TEXT
    assert server.connections == 1


def test_an_answer_is_read_byte_by_byte(server: Server, client: httpx2.Client) -> None:
    whole = ok(CHUNKED, b"X-Odd: yes") + CHUNKS
    server.handler = lambda peer: peer.answer_all(*(whole[n : n + 1] for n in range(len(whole))))

    response = client.get(server.url)

    assert response.content == TEXT
    assert response.headers["x-odd"] == "yes"


def test_many_chunks_of_one_read_are_one_block(server: Server, client: httpx2.Client) -> None:
    chunks = b"".join(b"5\r\nhello\r\n" for _ in range(500)) + b"0\r\n\r\n"
    server.handler = lambda peer: peer.answer_all(ok(CHUNKED) + chunks)

    with client.stream("GET", server.url) as response:
        blocks = blocks_of(response)

    assert b"".join(blocks) == b"hello" * 500
    assert len(blocks) <= 5


def test_a_block_is_passed_on_as_soon_as_it_arrives(server: Server, client: httpx2.Client) -> None:
    seen = Flag()

    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(ok(CHUNKED) + b"5\r\nhello\r\n")
        assert seen.wait(2), "the first chunk was held back"
        peer.send(b"5\r\nworld\r\n0\r\n\r\n")

    server.handler = serve
    found = []
    with client.stream("GET", server.url) as response:
        for block in response.iter_raw():
            found.append(block)
            seen.set()

    assert found == [b"hello", b"world"]


def test_a_chunk_larger_than_a_read_is_read(server: Server, client: httpx2.Client) -> None:
    large = bytes(range(256)) * 4096
    server.handler = lambda peer: peer.answer_all(
        ok(CHUNKED) + b"%X\r\n" % len(large) + large + b"\r\n0\r\n\r\n"
    )

    assert client.get(server.url).content == large


def test_trailers_are_passed_over(server: Server, client: httpx2.Client) -> None:
    body = b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n"
    server.handler = lambda peer: peer.answer_all(ok(CHUNKED) + body)

    assert client.get(server.url).content == b"hello"
    assert client.get(server.url).content == b"hello"
    assert server.connections == 1


def test_an_empty_chunked_body_is_empty(server: Server, client: httpx2.Client) -> None:
    server.handler = lambda peer: peer.answer_all(ok(CHUNKED) + b"0\r\n\r\n")

    assert [client.get(server.url).content for _ in range(2)] == [b"", b""]
    assert server.connections == 1


def test_a_body_without_a_length_ends_with_its_connection(server: Server, client: httpx2.Client) -> None:
    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(ok(b"Content-Type: text/plain"), b"hello ", b"world")

    server.handler = serve

    assert client.get(server.url).content == b"hello world"
    assert client.get(server.url).content == b"hello world"
    assert server.connections == 2


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_some_answers_have_no_body(server: Server, client: httpx2.Client, status: bytes) -> None:
    server.handler = lambda peer: peer.answer_all(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\n")

    assert [client.get(server.url).content for _ in range(2)] == [b"", b""]
    assert server.connections == 1


@pytest.mark.parametrize("header", [b"Content-Length: 5", CHUNKED])
def test_an_answer_to_head_has_no_body(server: Server, client: httpx2.Client, header: bytes) -> None:
    server.handler = lambda peer: peer.answer_all(ok(header))

    assert [client.head(server.url).content for _ in range(2)] == [b"", b""]
    assert server.connections == 1


def test_interim_answers_are_passed_over(server: Server, client: httpx2.Client) -> None:
    server.handler = lambda peer: peer.answer_all(
        b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + LENGTH_5
    )

    assert client.post(server.url, content=b"x").content == b"hello"


def test_an_answer_that_comes_before_the_request_was_read_is_read(
    server: Server, client: httpx2.Client
) -> None:
    def serve(peer: Peer) -> None:
        peer.socket.recv(1000)
        peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        peer.is_closed()

    server.handler = serve

    response = client.post(server.url, content=b"x" * 300_000)
    assert (response.status_code, response.content) == (413, b"no")


# Cut off


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"Content-Length: 5", body=b"hell"),
        ok(b"Content-Length: 5"),
        *(ok(CHUNKED) + CHUNKS[:cut] for cut in range(len(CHUNKS))),
        ok(CHUNKED) + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n",
    ],
)
def test_a_body_that_is_cut_off_is_an_error(server: Server, client: httpx2.Client, answer: bytes) -> None:
    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(answer)

    server.handler = serve
    with pytest.raises(httpx2.TransportError):
        client.get(server.url)
    assert server.connections == 1


@pytest.mark.parametrize("cut", range(1, len(LENGTH_5) - 5, 4))
def test_a_head_that_is_cut_off_is_an_error(server: Server, client: httpx2.Client, cut: int) -> None:
    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(LENGTH_5[:cut])

    server.handler = serve
    with pytest.raises(httpx2.TransportError):
        client.get(server.url)
    assert server.connections == 1


def test_no_answer_at_all_is_an_error_and_not_asked_again(server: Server, client: httpx2.Client) -> None:
    server.handler = lambda peer: server.requests.append(peer.request())

    with pytest.raises(httpx2.RemoteProtocolError):
        client.get(server.url)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "chunks",
    [
        b"x\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b";x\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"5" * 5000 + b"\r\nhello",
        "٥\r\nhello\r\n0\r\n\r\n".encode(),
    ],
    ids=lambda chunks: repr(chunks[:20]),
)
def test_a_chunk_that_is_none_is_an_error(server: Server, client: httpx2.Client, chunks: bytes) -> None:
    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(ok(CHUNKED) + chunks)

    server.handler = serve
    with pytest.raises(httpx2.TransportError):
        client.get(server.url)


@pytest.mark.parametrize(
    "head",
    [
        b"hello\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        ok(b"Content-Length: -1"),
        ok(b"Content-Length: 5x"),
        ok(b"Content-Length: 5", b"Content-Length: 6", body=b"hello!"),
        ok(b"No colon"),
        ok(b"X: " + b"x" * 200_000),
    ],
    ids=lambda head: repr(head[:30]),
)
def test_a_head_that_is_none_is_an_error(server: Server, client: httpx2.Client, head: bytes) -> None:
    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(head)

    server.handler = serve
    with pytest.raises(httpx2.TransportError):
        client.get(server.url)


# Connections


def test_a_connection_is_kept_for_the_next_request(server: Server, client: httpx2.Client) -> None:
    server.handler = lambda peer: peer.answer_all(LENGTH_5)

    for _ in range(20):
        client.get(server.url)

    assert server.connections == 1


def test_requests_at_the_same_time_have_their_own_connections(server: Server, client: httpx2.Client) -> None:
    def serve(peer: Peer) -> None:
        while request := peer.request():
            gevent.sleep(0.01)
            word = request.split(b" ")[1]
            peer.send(ok(b"Content-Length: %d" % len(word), body=word))

    server.handler = serve
    for _ in range(3):
        jobs = [gevent.spawn(client.get, f"{server.url}/{n}") for n in range(10)]
        gevent.joinall(jobs, timeout=5, raise_error=True)
        assert [job.value.content for job in jobs] == [b"/%d" % n for n in range(10)]

    assert server.connections == 10


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"Content-Length: 5", b"Connection: close", body=b"hello"),
        ok(b"Content-Length: 5", b"Connection: Keep-Alive, Close", body=b"hello"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        LENGTH_5 + b"surplus",
        ok(CHUNKED) + b"5\r\nhello\r\n0\r\n\r\nsurplus",
    ],
)
def test_a_connection_that_cannot_be_kept_is_closed(
    server: Server, client: httpx2.Client, answer: bytes
) -> None:
    closed = []

    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(answer)
        closed.append(peer.is_closed())

    server.handler = serve
    assert client.get(server.url).content == b"hello"
    assert client.get(server.url).content == b"hello"

    assert server.connections == 2
    eventually(lambda: len(closed) == 2)
    assert all(closed)


def test_a_connection_of_http_1_0_is_kept_when_it_says_so(server: Server, client: httpx2.Client) -> None:
    answer = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello"
    server.handler = lambda peer: peer.answer_all(answer)

    assert [client.get(server.url).content for _ in range(2)] == [b"hello"] * 2
    assert server.connections == 1


def test_an_idle_connection_the_server_closed_is_replaced(server: Server, client: httpx2.Client) -> None:
    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(LENGTH_5)

    server.handler = serve
    for _ in range(3):
        assert client.get(server.url).content == b"hello"
        gevent.sleep(0.01)

    assert server.connections == 3


def test_a_connection_closed_when_the_request_arrives_is_tried_once_more(
    server: Server, client: httpx2.Client
) -> None:
    def serve(peer: Peer) -> None:
        request = peer.request()
        server.requests.append(request)
        if peer.number != 2 or len(server.requests) > 3:
            peer.send(LENGTH_5)
            if peer.number == 1:
                server.requests.append(peer.request())  # the next one is dropped without a word

    server.handler = serve
    client.get(server.url)
    server.handler = lambda peer: peer.answer_all(LENGTH_5)

    assert client.post(server.url, content=b"the body").content == b"hello"
    assert server.connections == 2
    assert b"the body" in server.requests[1]


def test_a_new_connection_that_is_dropped_is_not_tried_again(server: Server, client: httpx2.Client) -> None:
    def serve(peer: Peer) -> None:
        if peer.number == 1:
            peer.request()
            peer.send(LENGTH_5)
        peer.request()

    server.handler = serve
    client.get(server.url)

    with pytest.raises(httpx2.RemoteProtocolError):
        client.get(server.url)
    assert server.connections == 2


def test_a_connection_that_is_idle_for_too_long_is_not_used(server: Server) -> None:
    server.handler = lambda peer: peer.answer_all(LENGTH_5)
    with httpx2.Client(transport=HTTP1Transport(idle_seconds=0.0), trust_env=False) as client:
        client.get(server.url)
        client.get(server.url)

    assert server.connections == 2


def test_no_more_idle_connections_are_kept_than_allowed(server: Server) -> None:
    closed: list[bool] = []

    def serve(peer: Peer) -> None:
        peer.request()
        gevent.sleep(0.01)
        peer.send(LENGTH_5)
        closed.append(peer.is_closed())

    server.handler = serve
    with httpx2.Client(transport=HTTP1Transport(max_idle=2), trust_env=False) as client:
        jobs = [gevent.spawn(client.get, server.url) for _ in range(5)]
        gevent.joinall(jobs, timeout=5, raise_error=True)
        eventually(lambda: len(closed) == 3)
    eventually(lambda: len(closed) == 5)


def test_a_body_left_early_closes_its_connection(server: Server, client: httpx2.Client) -> None:
    closed = Flag()

    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(ok(CHUNKED) + b"5\r\nhello\r\n")
        if peer.is_closed():
            closed.set()

    server.handler = serve
    with client.stream("GET", server.url) as response:
        assert next(response.iter_raw()) == b"hello"

    assert closed.wait(2)


def test_an_answer_nobody_reads_closes_its_connection(server: Server, client: httpx2.Client) -> None:
    closed = Flag()

    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(ok(CHUNKED) + b"5\r\nhello\r\n")
        if peer.is_closed():
            closed.set()

    server.handler = serve
    with client.stream("GET", server.url):
        pass

    assert closed.wait(2)


@pytest.mark.parametrize("when", ["before the head", "in the body"])
def test_a_greenlet_that_is_killed_while_it_waits_closes_its_connection(
    server: Server, client: httpx2.Client, when: str
) -> None:
    asked, closed = Flag(), Flag()

    def serve(peer: Peer) -> None:
        peer.request()
        if when == "in the body":
            peer.send(ok(CHUNKED) + b"5\r\nhello\r\n")
        asked.set()
        if peer.is_closed():
            closed.set()

    server.handler = serve
    greenlet = gevent.spawn(client.get, server.url)
    assert asked.wait(2)
    gevent.sleep(0.01)
    greenlet.kill()

    assert closed.wait(2)


def test_closing_the_client_closes_its_idle_connections(server: Server) -> None:
    closed = Flag()

    def serve(peer: Peer) -> None:
        peer.answer_all(LENGTH_5)
        closed.set()

    server.handler = serve
    with httpx2.Client(transport=HTTP1Transport(), trust_env=False) as client:
        client.get(server.url)
        assert not closed.is_set()
    assert closed.wait(2)


# Time-outs, and nobody there


@pytest.mark.parametrize("when", ["before the head", "in the head", "in the body"])
def test_silence_is_a_time_out(server: Server, when: str) -> None:
    closed = Flag()

    def serve(peer: Peer) -> None:
        peer.request()
        if when == "in the head":
            peer.send(b"HTTP/1.1 200 OK\r\n")
        elif when == "in the body":
            peer.send(ok(CHUNKED) + b"5\r\nhel")
        if peer.is_closed():
            closed.set()

    server.handler = serve
    timeout = httpx2.Timeout(0.05, connect=1)
    with (
        httpx2.Client(transport=HTTP1Transport(), timeout=timeout, trust_env=False) as client,
        pytest.raises(httpx2.ReadTimeout),
    ):
        client.get(server.url)
    assert closed.wait(2)


def test_nobody_there_is_a_connect_error(server: Server, client: httpx2.Client) -> None:
    server.stop()

    with pytest.raises(httpx2.ConnectError):
        client.get(server.url)


@pytest.mark.parametrize("host", ["nobody.invalid", "a..b", "x" * 300])
def test_a_host_that_does_not_exist_is_a_connect_error(client: httpx2.Client, host: str) -> None:
    with pytest.raises(httpx2.ConnectError):
        client.get(f"http://{host}/")


# Bodies that the loop reads


def poured(response: httpx2.Response, takes: Callable[[bytes], bool]) -> list[bytes]:
    """Read a body to its end; pour after each block. Poured blocks are in capitals."""
    body = response.extensions["body"]
    found: list[bytes] = []

    def take(block: bytes) -> bool:
        if takes(block):
            found.append(block.upper())
            return True
        return False

    for block in response.iter_raw():
        found.append(block)
        body.pour(take)
    return found


@pytest.fixture
def patient(transport: HTTP1Transport) -> Iterator[httpx2.Client]:
    """A client whose waits are ended by somebody else, as the service's are."""
    client = httpx2.Client(transport=transport, timeout=httpx2.Timeout(None), trust_env=False)
    with client, gevent.Timeout(5):
        yield client


def test_the_loop_reads_over_tls_too(transport: HTTP1Transport, tmp_path: Path) -> None:
    make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    texts = [b"one", b"t" * 100_000, b"stop", b"four", *(b"w%d" % i for i in range(200))]

    def serve(sock: Socket, _: object) -> None:
        with closing(sock):
            peer = Peer(sock, 0)
            peer.request()
            peer.send(ok(CHUNKED))
            for piece in pieces(*texts):
                sock.sendall(piece)
                gevent.sleep(0.001)
            peer.send(b"0\r\n\r\n")
            peer.is_closed()

    listener = StreamServer(("127.0.0.1", 0), serve, ssl_context=context)
    trusting = HTTP1Transport()
    trusting._tls = ssl.create_default_context(cafile=str(tmp_path / "chain.pem"))
    client = httpx2.Client(transport=trusting, timeout=httpx2.Timeout(None), trust_env=False)
    listener.start()
    try:
        with (
            client,
            gevent.Timeout(5),
            client.stream("GET", f"https://localhost:{listener.server_port}") as it,
        ):
            found = poured(it, lambda block: block != b"stop")
    finally:
        listener.stop()

    assert b"".join(found).lower() == b"".join(texts)
    assert sum(map(bytes.isupper, found)) > 100, "the loop did not read"
    assert b"stop" in found


def pieces(*texts: bytes) -> list[bytes]:
    return [b"%X\r\n%b\r\n" % (len(text), text) for text in texts]


def test_the_loop_reads_until_a_block_is_not_taken(server: Server, patient: httpx2.Client) -> None:
    texts = [b"one", b"two", b"three", b"stop", b"four", b"five"]

    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(ok(CHUNKED))
        for piece in pieces(*texts):
            peer.socket.sendall(piece)
            gevent.sleep(0.01)
        peer.send(b"0\r\n\r\n")
        peer.answer_all(LENGTH_5)

    server.handler = serve
    with patient.stream("GET", server.url) as response:
        found = poured(response, lambda block: block != b"stop")

    assert found == [b"one", b"TWO", b"THREE", b"stop", b"FOUR", b"FIVE"]
    assert patient.get(server.url).content == b"hello"
    assert server.connections == 1, "the connection was not kept"


@pytest.mark.parametrize("cut", range(1, len(b"3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n")))
def test_what_the_loop_reads_may_be_cut_anywhere(server: Server, patient: httpx2.Client, cut: int) -> None:
    rest = b"".join(pieces(b"two", b"three")) + b"0\r\n\r\n"

    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(ok(CHUNKED), *pieces(b"one"))
        gevent.sleep(0.005)
        peer.send(rest[:cut])
        gevent.sleep(0.005)
        peer.send(rest[cut:])
        peer.is_closed()

    server.handler = serve
    with patient.stream("GET", server.url) as response:
        found = poured(response, lambda block: len(block) < 6)

    assert b"".join(found).lower() == b"onetwothree"


@pytest.mark.parametrize("framing", [CHUNKED, b"Content-Length: 100"])
@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_while_the_loop_reads_is_a_cut(
    server: Server, patient: httpx2.Client, framing: bytes, reset: bool
) -> None:
    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(ok(framing), *(pieces(b"one") if framing == CHUNKED else [b"one"]))
        gevent.sleep(0.01)
        if reset:
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    server.handler = serve
    with patient.stream("GET", server.url) as response, pytest.raises(httpx2.TransportError):
        poured(response, lambda block: True)


def test_a_reset_while_the_loop_reads_is_no_end_of_a_body_without_a_length(
    server: Server, patient: httpx2.Client
) -> None:
    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(ok(), b"one")
        gevent.sleep(0.01)
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    server.handler = serve
    with patient.stream("GET", server.url) as response, pytest.raises(httpx2.ReadError):
        poured(response, lambda block: True)


def test_a_chunk_that_is_none_is_a_fault_of_the_iteration(server: Server, patient: httpx2.Client) -> None:
    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(ok(CHUNKED), *pieces(b"one"))
        gevent.sleep(0.01)
        peer.send(b"nonsense\r\n")
        peer.is_closed()

    server.handler = serve
    with patient.stream("GET", server.url) as response, pytest.raises(httpx2.RemoteProtocolError):
        poured(response, lambda block: True)


def test_pouring_can_be_interrupted_and_goes_on(server: Server, patient: httpx2.Client) -> None:
    silent = Flag()

    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(ok(CHUNKED), *pieces(b"one"))
        silent.wait(5)
        peer.send(*pieces(b"two"), b"0\r\n\r\n")
        peer.is_closed()

    server.handler = serve
    with patient.stream("GET", server.url) as response:
        body, blocks = response.extensions["body"], response.iter_raw()
        assert next(blocks) == b"one"
        gevent.spawn_later(0.02, body.interrupt)
        body.pour(lambda block: True)
        silent.set()
        assert list(blocks) == [b"two"]


def test_what_taking_raises_is_raised_where_it_is_waited_for(server: Server, patient: httpx2.Client) -> None:
    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(ok(CHUNKED), *pieces(b"one"))
        gevent.sleep(0.01)
        peer.send(*pieces(b"two"))
        peer.is_closed()

    def take(block: bytes) -> bool:
        raise LookupError(block)

    server.handler = serve
    with patient.stream("GET", server.url) as response:
        blocks = response.iter_raw()
        assert next(blocks) == b"one"
        with pytest.raises(LookupError):
            response.extensions["body"].pour(take)
