"""Bytes that no honest client sends: each is refused in our own words, soon, and the worker lives on."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.live.service import PATIENCE_SECONDS, Service, Upstream, wait_until

HANG_SECONDS = 5.0
QUIET_SECONDS = 0.5
CANARY = "hostile-canary"
SHORT = {"HEAD_TIMEOUT_SECONDS": "1", "BODY_TIMEOUT_SECONDS": "1", "BODY_BYTES_PER_SECOND": "1000"}
HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
POST = b"POST /streams HTTP/1.1\r\n" + HOST + JSON
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
BODY = b'{"prompt": "hi"}'


@pytest.fixture(scope="module")
def guarded(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One worker that waits a second for a request."""
    service = Service(tmp_path_factory.mktemp("guarded"), upstream.base_url, environment=SHORT)
    yield service
    service.stop()


class Heard(NamedTuple):
    """What came back on one connection until it was closed, or nothing came for a while."""

    data: bytes
    closed: bool
    seconds: float

    @property
    def answers(self) -> list[tuple[int, bytes]]:
        """The status and body of each answer that came whole."""
        return answers_in(self.data)

    @property
    def statuses(self) -> list[int]:
        return [status for status, _ in self.answers]

    @property
    def errors(self) -> list[dict[str, object]]:
        """The error objects among the bodies."""
        return [json.loads(body)["error"] for status, body in self.answers if status >= 400]


def answers_in(data: bytes) -> list[tuple[int, bytes]]:
    """Return the status and body of each whole answer that stands there."""
    found = []
    while data.startswith(b"HTTP/1.1 ") and b"\r\n\r\n" in data:
        head, _, data = data.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        lengths = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
        length = lengths[0] if lengths else 0
        if len(data) < length:
            break
        found.append((int(lines[0].split(b" ")[1]), data[:length]))
        data = data[length:]
    return found


def tell(service: Service, *parts: bytes, answers: int | None = None, ends: bool = False) -> Heard:
    """Send bytes and listen until the connection is closed.

    Or, for a connection that stays open, until so many answers came and then nothing for a while.
    """
    began = time.monotonic()
    with closing(socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE_SECONDS)) as client:
        data = b""
        try:
            for part in parts:
                client.sendall(part)
            if ends:
                client.shutdown(socket.SHUT_WR)
            client.settimeout(PATIENCE_SECONDS)
            while block := client.recv(65536):
                data += block
                if answers is not None and len(answers_in(data)) >= answers:
                    client.settimeout(QUIET_SECONDS)
            closed = True
        except TimeoutError:
            closed = False
        except ConnectionError:
            closed = True
    return Heard(data, closed, time.monotonic() - began)


REFUSED: dict[str, bytes] = {
    "two lengths that differ": POST + b"Content-Length: 16\r\nContent-Length: 5\r\n\r\n" + BODY,
    "two equal lengths": POST + b"Content-Length: 16\r\nContent-Length: 16\r\n\r\n" + BODY,
    "a list of lengths": POST + b"Content-Length: 16, 16\r\n\r\n" + BODY,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + BODY,
    "a length with a sign": POST + b"Content-Length: +16\r\n\r\n" + BODY,
    "a hexadecimal length": POST + b"Content-Length: 0x10\r\n\r\n" + BODY,
    "a length in other digits": POST + b"Content-Length: \xd9\xa1\r\n\r\n" + BODY,
    "a length of superscripts": POST + b"Content-Length: \xb2\r\n\r\n" + BODY,
    "a length and chunks": POST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "chunks and a length": POST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"
    + SMUGGLED,
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and then more": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a coding that is unknown": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding with a tab in it": POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "chunks of HTTP/1.0": b"POST /streams HTTP/1.0\r\n"
    + JSON
    + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X-A: b\r\n c\r\n\r\n",
    "bare line feeds": b"GET /healthz HTTP/1.1\nHost: localhost\n\n",
    "a bare line feed in a header": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X-A: b\nX-B: c\r\n\r\n",
    "a bare carriage return in a header": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X-A: b\rX-B: c\r\n\r\n",
    "NUL in a header": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X-A: b\0c\r\n\r\n",
    "NUL in the address": b"GET /health\0z HTTP/1.1\r\n" + HOST + b"\r\n",
    "a header without a name": b"GET /healthz HTTP/1.1\r\n" + HOST + b": b\r\n\r\n",
    "a header without a colon": b"GET /healthz HTTP/1.1\r\n" + HOST + b"nothing\r\n\r\n",
    "a name that is none": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X(A): b\r\n\r\n",
    "a space before the first header": b"GET /healthz HTTP/1.1\r\n X-A: b\r\n" + HOST + b"\r\n",
    "bytes above ASCII in the address": b"GET /h\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n",
    "an address with a space": b"GET /health z HTTP/1.1\r\n" + HOST + b"\r\n",
    "no address": b"GET  HTTP/1.1\r\n" + HOST + b"\r\n",
    "no version": b"GET /healthz\r\n" + HOST + b"\r\n",
    "a version that is none": b"GET /healthz HTTP/9.9\r\n" + HOST + b"\r\n",
    "a version in small letters": b"GET /healthz http/1.1\r\n" + HOST + b"\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method in small letters": b"get /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method that is none": b"G@T /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method without end": b"A" * 9000 + b" /healthz HTTP/1.1\r\n" + HOST + b"\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\n" + HOST + b"Host: elsewhere\r\n\r\n",
    "two types": POST + JSON + b"Content-Length: 16\r\n\r\n" + BODY,
    "an address without end": b"GET /stream?prompt=" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "a header without end": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n",
    "headers without end": b"GET /healthz HTTP/1.1\r\n" + HOST + b"X-A: b\r\n" * 5000 + b"\r\n",
    "an expectation of something else": POST + b"Expect: tea\r\nContent-Length: 16\r\n\r\n" + BODY,
    "a chunk's size that is none": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "a chunk's size that is negative": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a chunk that is longer than it says": POST
    + b"Transfer-Encoding: chunked\r\n\r\n2\r\n"
    + BODY
    + b"\r\n0\r\n\r\n",
    "a chunk's extension without end": POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 50_000,
    "a length in the trailers": POST
    + b"Transfer-Encoding: chunked\r\n\r\n10\r\n"
    + BODY
    + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
    "trailers that are none": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nno colon\r\n\r\n",
    "trailers without end": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X-A: b\r\n" * 200_000,
    "TLS": bytes.fromhex("1603010200010001fc0303") + bytes(range(256)) + b"\r\n\r\n",
    "random bytes": bytes(byte * 7 % 256 for byte in range(3000)) + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_http_is_refused_in_our_own_words(guarded: Service, name: str) -> None:
    heard = tell(guarded, REFUSED[name].replace(b"/healthz", f"/healthz?{CANARY}".encode()))
    assert heard.seconds < HANG_SECONDS, heard
    assert heard.closed, heard
    assert heard.statuses, f"{name}: cut without a word: {heard}"
    assert all(400 <= status < 500 or status == 501 for status in heard.statuses), heard
    assert len(heard.statuses) == 1, "what followed was taken for a request"
    (error,) = heard.errors
    assert error["message"]
    assert error["code"]
    assert CANARY.encode() not in heard.data
    assert b"<html" not in heard.data.lower()


ANSWERED: dict[str, tuple[bytes, set[int]]] = {
    "another address in full": (
        b"GET http://elsewhere/healthz HTTP/1.1\r\n" + HOST + b"\r\n",
        {200, 400, 404},
    ),
    "percent signs that say nothing": (b"GET /streams/%zz%%f HTTP/1.1\r\n" + HOST + b"\r\n", {404}),
    "no UTF-8 in the path": (b"GET /streams/%ff%fe%c0%80 HTTP/1.1\r\n" + HOST + b"\r\n", {404}),
    "no UTF-8 in the query": (b"GET /stream?prompt=&model=%ff%fe HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "line breaks in the path": (b"GET /streams/a%0d%0aSet-Cookie:%20a HTTP/1.1\r\n" + HOST + b"\r\n", {404}),
    "NUL in the path": (b"GET /streams/a%00 HTTP/1.1\r\n" + HOST + b"\r\n", {404}),
    "dots in the path": (b"GET /assets/../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", {404}),
    "encoded dots": (b"GET /assets/x/%2e%2e%2f%2e%2e%2fapp.py HTTP/1.1\r\n" + HOST + b"\r\n", {404}),
    "slashes": (b"GET //////healthz HTTP/1.1\r\n" + HOST + b"\r\n", {200, 404}),
    "a star": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", {400, 404, 405}),
    "a tunnel": (b"CONNECT elsewhere:443 HTTP/1.1\r\n" + HOST + b"\r\n", {400, 404, 405}),
    "TRACE": (b"TRACE /healthz HTTP/1.1\r\n" + HOST + b"\r\n", {405}),
    "a method nobody knows": (b"BREW /healthz HTTP/1.1\r\n" + HOST + b"\r\n", {405}),
    "a host that is none": (b"GET /healthz HTTP/1.1\r\nHost: a b<>\r\n\r\n", {200, 400}),
    "an empty host": (b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", {200, 400}),
    "no UTF-8 in a header": (b"GET /healthz HTTP/1.1\r\n" + HOST + b"X-Request-Id: \xff\xfe\r\n\r\n", {200}),
    "no UTF-8 in the cursor": (
        b"GET /streams/st_x HTTP/1.1\r\n" + HOST + b"Last-Event-ID: \xff\xfe\r\n\r\n",
        {400, 404},
    ),
    "no UTF-8 in a cookie": (
        b"GET /threads HTTP/1.1\r\n" + HOST + b'Cookie: \xff=\xfe; a="\r\n\r\n',
        {200, 404},
    ),
    "no UTF-8 in a key": (
        POST + b"Idempotency-Key: \xff\r\nContent-Length: 16\r\n\r\n" + BODY,
        {400},
    ),
    "an upgrade to h2c": (
        b"GET /healthz HTTP/1.1\r\n"
        + HOST
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        {200},
    ),
    "an upgrade where none is": (
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        {400},
    ),
    "a WebSocket without a key": (
        b"GET /ws HTTP/1.1\r\n" + HOST + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        {400, 426},
    ),
    "a WebSocket of another version": (
        b"GET /ws HTTP/1.1\r\n"
        + HOST
        + b"Connection: upgrade\r\nUpgrade: websocket\r\n"
        + b"Sec-WebSocket-Version: 99\r\nSec-WebSocket-Key: x\r\n\r\n",
        {400, 426},
    ),
    "a body that is no JSON": (POST + b"Content-Length: 3\r\n\r\n\xff\xfe\0", {400}),
    "a body in UTF-16": (
        POST + b"Content-Length: 34\r\n\r\n" + '{"prompt": "hi"}'.encode("utf-16"),
        {400},
    ),
    "a type that is none": (
        b"POST /streams HTTP/1.1\r\n" + HOST + b"Content-Type: ;;;\r\nContent-Length: 16\r\n\r\n" + BODY,
        {415},
    ),
    "a form without its boundary": (
        b"POST / HTTP/1.1\r\n"
        + HOST
        + b"Content-Type: multipart/form-data\r\nContent-Length: 16\r\n\r\n"
        + BODY,
        {303, 400, 403, 413, 415},
    ),
    "an announced body that is far too large": (POST + b"Content-Length: 99999999999999\r\n\r\n", {413}),
    "a length of a thousand digits": (POST + b"Content-Length: " + b"9" * 1000 + b"\r\n\r\n", {400, 413}),
    "ranges of nonsense": (b"GET /healthz HTTP/1.1\r\n" + HOST + b"Range: bytes=9-1,-,a\r\n\r\n", {200}),
    "an Accept of nonsense": (
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"Accept: ;q=,*/;q=nan," + b"a/b," * 1500 + b"\r\n\r\n",
        {200},
    ),
}


@pytest.mark.parametrize("name", ANSWERED)
def test_odd_requests_are_answered_and_break_nothing(guarded: Service, name: str) -> None:
    sent, statuses = ANSWERED[name]
    heard = tell(guarded, sent, answers=1)
    assert heard.statuses, f"{name}: no answer: {heard}"
    assert heard.statuses[0] in statuses, heard.data[:600]
    assert len(heard.statuses) == 1
    head = heard.data.partition(b"\r\n\r\n")[0].lower()
    assert b"set-cookie: a" not in head


def test_requests_that_come_together_are_answered_one_after_the_other(guarded: Service) -> None:
    one = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
    heard = tell(guarded, one * 200, answers=200)
    assert heard.statuses == [200] * 200


def test_what_follows_a_body_is_the_next_request_and_garbage_there_is_refused(guarded: Service) -> None:
    asked = POST + b"Content-Length: 16\r\n\r\n" + BODY
    heard = tell(guarded, asked + asked + b"garbage\r\n\r\n")
    assert heard.statuses == [201, 201, 400]
    assert heard.closed


def test_a_body_nobody_reads_does_not_become_a_request(guarded: Service) -> None:
    hidden = SMUGGLED * 3
    length = b"Content-Length: %d\r\n\r\n" % len(hidden)
    first = b"POST /no/such/address HTTP/1.1\r\n" + HOST + JSON + length + hidden
    heard = tell(guarded, first + b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n", answers=2)
    assert heard.statuses == [404, 200]


def test_a_body_that_is_cut_starts_nothing(guarded: Service) -> None:
    # What came is JSON by itself: only its length says that something is missing.
    heard = tell(guarded, POST + b"Content-Length: 99\r\n\r\n" + BODY, ends=True)
    assert heard.statuses == [400]
    assert heard.errors[0]["code"] == "framing"


def test_a_client_that_asks_first_is_told_to_go_on(guarded: Service) -> None:
    with closing(socket.create_connection(("127.0.0.1", guarded.port), timeout=PATIENCE_SECONDS)) as client:
        client.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 16\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(BODY)
        assert client.recv(1000).startswith(b"HTTP/1.1 201 ")


# Slow clients


def drip(port: int, head: bytes, drop: bytes, every_seconds: float = 0.1) -> tuple[bytes, float]:
    """Send ``head``, then ``drop`` again and again; return the answer and when it came."""
    began = time.monotonic()
    answer = b""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)) as client:
        client.sendall(head)
        client.settimeout(every_seconds)
        while time.monotonic() < began + HANG_SECONDS + 3:
            try:
                if drop:
                    client.sendall(drop)
                block = client.recv(65536)
                if not block:
                    break
                answer += block
            except TimeoutError:
                continue
            except ConnectionError:
                break
            if answer.endswith(b"}\n"):
                break
    return answer, time.monotonic() - began


SLOW: dict[str, tuple[bytes, bytes]] = {
    "headers that drip": (b"GET /healthz HTTP/1.1\r\n" + HOST + b"X-A: ", b"a"),
    "headers that stop": (b"GET /healthz HT", b""),
    "a body that drips": (POST + b"Content-Length: 100000\r\n\r\n", b" "),
    "a body that never comes": (POST + b"Content-Length: 16\r\n\r\n", b""),
    "a body that is asked for and never comes": (
        POST + b"Expect: 100-continue\r\nContent-Length: 16\r\n\r\n",
        b"",
    ),
    "chunks that drip": (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a chunk's size that never ends": (POST + b"Transfer-Encoding: chunked\r\n\r\n1;a", b"a"),
    "trailers that drip": (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: ", b"a"),
    "a form that drips": (
        b"POST / HTTP/1.1\r\n"
        + HOST
        + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100000\r\n\r\n",
        b"a",
    ),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_request_that_does_not_come_in_time_is_ended_with_408(guarded: Service, name: str) -> None:
    answer, seconds = drip(guarded.port, *SLOW[name])
    answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 408 "), answer
    assert b'"type":"request_timeout"' in answer
    assert b"connection: close" in answer.lower()
    assert 0.8 < seconds < HANG_SECONDS


def test_a_large_body_may_take_as_long_as_it_keeps_coming(guarded: Service) -> None:
    body = json.dumps({"prompt": "hi", "instructions": "x" * 6000}).encode()
    with closing(socket.create_connection(("127.0.0.1", guarded.port), timeout=PATIENCE_SECONDS)) as client:
        client.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 300):
            client.sendall(body[at : at + 300])
            time.sleep(0.1)  # 2 s in all, a second more than without a byte
        assert client.recv(1000).startswith(b"HTTP/1.1 201 ")


def answer_of(client: socket.socket) -> bytes:
    """Return one whole answer, which ends with a line of JSON."""
    answer = b""
    while not answer.endswith(b"}\n"):
        answer += client.recv(2000)
    return answer


def test_an_idle_connection_is_not_a_slow_one(guarded: Service) -> None:
    with closing(socket.create_connection(("127.0.0.1", guarded.port), timeout=PATIENCE_SECONDS)) as client:
        asked = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
        for _ in range(2):
            client.sendall(asked)
            assert answer_of(client).startswith(b"HTTP/1.1 200 ")
            time.sleep(1.5)  # longer than a request may take
        client.sendall(asked)
        assert answer_of(client).startswith(b"HTTP/1.1 200 ")


def test_three_hundred_slow_clients_do_not_disturb_another(guarded: Service) -> None:
    heads: list[Callable[[], bytes]] = [
        lambda: b"GET /heal",
        lambda: POST + b"Content-Length: 9999\r\n\r\n{",
        lambda: POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    ]
    with ExitStack() as open_ones:
        slow = []
        for number in range(300):
            client = socket.create_connection(("127.0.0.1", guarded.port), timeout=PATIENCE_SECONDS)
            open_ones.enter_context(closing(client))
            client.sendall(heads[number % len(heads)]())
            slow.append(client)
        waits = []
        for _ in range(10):
            began = time.monotonic()
            with guarded.create_and_follow("hi") as reader:
                reader.read(1)
                waits.append(time.monotonic() - began)
        assert max(waits) < 1.0, waits
        for client in slow:
            client.settimeout(PATIENCE_SECONDS)
            assert client.recv(100).startswith(b"HTTP/1.1 408 ")


def test_the_worker_lives_on_and_has_said_nothing_of_what_was_sent(guarded: Service) -> None:
    workers = guarded.worker_pids()
    heard = tell(guarded, b"GET /healthz?" + CANARY.encode() + b" HTTP/9.9\r\n" + HOST + b"\r\n")
    assert heard.statuses == [400]
    wait_until(lambda: guarded.request("GET", "/healthz").status == 200, PATIENCE_SECONDS, "it answers")
    assert guarded.worker_pids() == workers
    said = guarded.log_text()
    assert CANARY not in said
    assert "Traceback" not in said, said[-3000:]
    assert Path(guarded.log_file).stat().st_size < 200_000
