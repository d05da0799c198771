"""HTTP/1.1 as bytes, cut anywhere: what clients send to a worker."""

import json
import logging
import os
import re
import socket as plain
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.socket
from flask import Flask, Response, request
from gunicorn.config import Config
from gunicorn.glogging import Logger
from hypothesis import given
from hypothesis import strategies as st

from streaming.gevent_worker import LeanGeventWorker
from streaming.web import _errors
from tests import fuzz_places
from tests.fuzz_places import fixture_of
from tests.fuzzing import CUTS, HARMS, fuzzed, harmed, pieces

METHODS = ["GET", "POST", "DELETE", "PATCH", "PUT"]


class Worker:
    """A worker of the service without its arbiter."""

    def __init__(self, app: Flask) -> None:
        self._errors = logging.getLogger("gunicorn.error")
        # gunicorn sets up loggers, which are there for all tests.
        self._before = self._errors.level, self._errors.handlers[:], self._errors.propagate
        cfg = Config()
        for name, value in (("keepalive", 5), ("loglevel", "critical"), ("errorlog", "-")):
            cfg.set(name, value)
        cfg.set("secure_scheme_headers", {})
        self._worker = LeanGeventWorker(1, os.getpid(), [], None, 30, cfg, Logger(cfg))
        self._worker.wsgi = app

    def serve(self, sock: Any) -> None:
        """Answer a client until its connection is over."""
        listener = SimpleNamespace(getsockname=lambda: ("127.0.0.1", 8000))
        self._worker.handle(listener, sock, ("127.0.0.1", 1))

    def answer(self, blocks: list[bytes]) -> bytes:
        """Return all that a client is answered that sends these blocks, each after the other was read."""
        ours, theirs = gevent.socket.socketpair()
        with theirs:
            client = gevent.spawn(send_blocks, theirs, blocks)
            self.serve(ours)
            client.kill()
            return _read(theirs)

    def close(self) -> None:
        self._worker.tmp.close()
        level, self._errors.handlers[:], self._errors.propagate = self._before
        self._errors.setLevel(level)


def send_blocks(sock: Any, blocks: list[bytes]) -> None:
    try:
        for block in blocks:
            if block:
                sock.sendall(block)
                gevent.sleep(0)
        sock.shutdown(plain.SHUT_WR)
    except OSError:
        pass  # it was refused, and has heard so


def _read(sock: Any) -> bytes:
    found = b""
    try:
        while block := sock.recv(65536):
            found += block
    except ConnectionError:
        pass
    return found


def _echo(path: str = "") -> Response:
    body = request.get_data()
    said = {
        "method": request.method,
        "path": request.environ["RAW_URI"],
        "names": sorted(name for name, _ in request.headers),
        "x": request.headers.get("X-A"),
        "body": body.decode("latin-1"),
    }
    return Response(json.dumps(said), content_type="application/json")


def echoing() -> Flask:
    """An application whose view says what it was asked."""
    app = Flask(__name__)
    app.url_map.merge_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = 100_000
    _errors.register(app)
    app.add_url_rule("/", "root", _echo, methods=METHODS, provide_automatic_options=False)
    app.add_url_rule("/<path:path>", "path", _echo, methods=METHODS, provide_automatic_options=False)
    return app


@contextmanager
def open_worker() -> Iterator[Worker]:
    made = Worker(echoing())
    yield made
    made.close()


fuzz_places.PLACES["worker"] = open_worker
worker = fixture_of("worker")

# What is another each time.
_CHANGING = re.compile(rb"^(?:Date|X-Request-Id): .*\r\n", re.MULTILINE)
_ID = re.compile(rb"req_[0-9a-f]+")


def same(answer: bytes) -> bytes:
    return _ID.sub(b"req", _CHANGING.sub(b"", answer))


def read_answers(data: bytes) -> list[tuple[int, Any]]:
    """Return the status and body of each answer; there must be nothing else in the bytes."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        status = int(re.fullmatch(rb"HTTP/1\.[01] (\d{3}) [ -~]*", lines[0])[1])  # type: ignore[index]
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
        length = int(headers.get(b"content-length", b"0"))
        assert len(data) >= length
        found.append((status, json.loads(data[:length]) if length else None))
        data = data[length:]
    return found


TARGETS = st.sampled_from(["/", "/a", "/a//b", "/a?b=c", "/%00", "/%", "/a%20b", "/..", "/*", "/~!$&'()"])
BODIES = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"", b"GET / HTTP/1.1\r\n\r\n", b"0\r\n\r\n", b"\r\n"])
)


def written(method: str, target: str, value: str, body: bytes, sizes: list[int]) -> bytes:
    """Return a request, its body in chunks of these sizes, or whole where there are none."""
    head = f"{method} {target} HTTP/1.1\r\nHost: here\r\nX-A: {value}\r\n"
    if not sizes:
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    framed, at = b"", 0
    for size in [*sizes, len(body)]:
        if piece := body[at : at + size]:
            framed += b"%x\r\n%s\r\n" % (len(piece), piece)
        at += size
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + framed + b"0\r\n\r\n"


ASKED = st.tuples(
    st.sampled_from(METHODS),
    TARGETS,
    st.sampled_from(["", "a", "a b", "x" * 100, "é", ":", "a,b", '"']),
    BODIES,
    st.lists(st.integers(1, 20), max_size=4),
)


@fuzzed(100)
@given(st.lists(ASKED, min_size=1, max_size=3), CUTS)
def test_requests_are_heard_as_they_were_written_however_they_are_cut(
    worker: Worker, asked: list[tuple[str, str, str, bytes, list[int]]], cuts: list[int]
) -> None:
    answers = read_answers(worker.answer(pieces(b"".join(written(*each) for each in asked), cuts)))

    assert [status for status, _ in answers] == [200] * len(asked)
    for (method, target, value, body, _), (_, heard) in zip(asked, answers, strict=True):
        assert (heard["method"], heard["path"]) == (method, target)
        assert heard["x"].encode("latin-1").decode() == value
        assert heard["body"].encode("latin-1") == body


FRAGMENTS = st.sampled_from(
    [
        *(
            b"GET / HTTP/1.1\r\n",
            b"POST / HTTP/1.1\r\n",
            b"GET /",
            b" HTTP/1.1",
            b" HTTP/1.0\r\n",
            b"HTTP/2.0\r\n",
        ),
        *(b"Host: a\r\n", b"Host: b\r\n", b"host:\r\n", b"Host : a\r\n", b"Content-Length: 3\r\n", b"abc"),
        *(
            b"Content-Length: 03\r\n",
            b"Content-Length: +3\r\n",
            b"Content-Length: 3, 3\r\n",
            b"Content-Length: \xb2\r\n",
        ),
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: x, chunked\r\n",
            b"transfer-encoding:\x0bchunked\r\n",
        ),
        *(
            b"3\r\nabc\r\n",
            b"0\r\n\r\n",
            b"0\r\nX-T: a\r\n\r\n",
            b"3;x=y\r\nabc\r\n",
            b"0x3\r\n",
            b"-1\r\n",
            b"3 \r\nabc\r\n",
        ),
        *(
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"\n\n",
            b"\r",
            b" ",
            b"\t",
            b":",
            b"\0",
            b"\xff",
            b"%",
            b"X_A: a\r\n",
            b" x\r\n",
        ),
        *(
            b"Expect: 100-continue\r\n",
            b"Expect: x\r\n",
            b"Connection: close\r\n",
            b"Connection: upgrade\r\n",
        ),
        *(
            b"Upgrade: h2c\r\nHTTP2-Settings: AA\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        ),
        *(
            b"CONNECT a:1 HTTP/1.1\r\n",
            b"OPTIONS * HTTP/1.1\r\n",
            b"GET http://a/ HTTP/1.1\r\n",
            b"A" * 300,
            b"\x16\x03\x01",
        ),
    ]
)
HARMED = st.builds(
    lambda asked, harms: b"".join(
        harmed(written(*each).decode("latin-1"), harms).encode("utf-8") for each in asked
    ),
    st.lists(ASKED, min_size=1, max_size=2),
    st.one_of(st.just([]), HARMS),
)
ANY_BYTES = st.one_of(
    HARMED,
    st.lists(FRAGMENTS, max_size=20).map(b"".join),
    st.lists(FRAGMENTS, max_size=8).map(lambda found: b"POST / HTTP/1.1\r\nHost: a\r\n" + b"".join(found)),
    st.binary(max_size=100),
)


@fuzzed(150)
@given(ANY_BYTES, CUTS)
def test_any_bytes_are_requests_or_refused_alike_however_they_are_cut(
    worker: Worker, sent: bytes, cuts: list[int]
) -> None:
    whole = worker.answer([sent])
    without_interim = whole.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    for status, said in read_answers(without_interim):
        assert status in (200, *range(400, 500), 501), status
        if status != 200:
            assert said["error"]["message"]
    assert same(worker.answer(pieces(sent, cuts))) == same(whole)
