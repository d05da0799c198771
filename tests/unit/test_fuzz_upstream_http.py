"""HTTP/1.1 as bytes, cut anywhere: what upstreams answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import gevent.socket
import httpx2
from hypothesis import given
from hypothesis import strategies as st

from streaming.sources._http1 import HTTP1Transport, _Connection, _Origin
from tests import fuzz_places
from tests.fuzz_places import fixture_of
from tests.fuzzing import CUTS, HARMS, fuzzed, harmed, pieces
from tests.unit.test_fuzz_http import FRAGMENTS, send_blocks


class Upstreams(HTTP1Transport):
    """Connects to a server that answers these blocks and closes."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[bytes] = []

    def _connect(
        self, origin: _Origin, request: httpx2.Request, timeouts: dict[str, float | None]
    ) -> _Connection:
        ours, theirs = gevent.socket.socketpair()
        gevent.spawn(self._serve, theirs)
        return _Connection(origin, ours)

    def _serve(self, sock: Any) -> None:
        with sock:
            sock.recv(65536)
            send_blocks(sock, self.blocks)


@contextmanager
def open_upstreams() -> Iterator[Upstreams]:
    made = Upstreams()
    yield made
    made.close()


fuzz_places.PLACES["upstreams"] = open_upstreams
upstreams = fixture_of("upstreams")


def heard(upstreams: Upstreams, blocks: list[bytes]) -> tuple[Any, ...]:
    """Return what an upstream answered, up to what was wrong with it, and the kind of that."""
    upstreams.blocks = blocks
    body = b""
    head: tuple[Any, ...] = ()
    try:
        answer = upstreams.handle_request(httpx2.Request("POST", "http://there.test/", content=b"x"))
        head = (answer.status_code, answer.headers.raw, answer.reason_phrase)
        assert isinstance(answer.stream, httpx2.SyncByteStream)
        try:
            for block in answer.stream:
                body += block
        finally:
            answer.close()
    except httpx2.HTTPError as error:
        return (*head, body, type(error))
    return (*head, body, None)


ANSWERS = st.builds(
    lambda status, headers, body, harms: harmed(f"HTTP/1.1 {status}\r\n{headers}\r\n{body}", harms).encode(),
    st.sampled_from(["200 OK", "200", "204 x", "304 x", "100 x\r\n\r\nHTTP/1.1 200 OK", "999 x", "429 \t"]),
    st.lists(
        st.sampled_from(
            [
                *(
                    "Content-Length: 3\r\n",
                    "Content-Length: 5\r\n",
                    "Transfer-Encoding: chunked\r\n",
                    "A: b\r\n",
                ),
                *(
                    "Connection: close\r\n",
                    "Content-Type: text/event-stream\r\n",
                    "Content-Length: x\r\n",
                    "é: ü\r\n",
                ),
                *(
                    "Transfer-Encoding: gzip, chunked\r\n",
                    "Transfer-Encoding: gzip\r\n",
                    " folded\r\n",
                    "A\r\n",
                ),
            ]
        ),
        max_size=3,
    ).map("".join),
    st.sampled_from(
        [
            "abc",
            "",
            "3\r\nabc\r\n0\r\n\r\n",
            "3\r\nabc\r\n",
            "3\r\nab",
            "ffffffffffffffffff\r\n",
            "0\r\n\r\nx",
        ]
    ),
    st.one_of(st.just([]), st.just([]), HARMS),
)


@fuzzed(150)
@given(
    st.one_of(ANSWERS, ANSWERS, st.lists(FRAGMENTS, max_size=8).map(b"".join), st.binary(max_size=80)), CUTS
)
def test_an_upstreams_answer_is_the_same_however_it_is_cut(
    upstreams: Upstreams, answer: bytes, cuts: list[int]
) -> None:
    assert heard(upstreams, pieces(answer, cuts)) == heard(upstreams, [answer])
