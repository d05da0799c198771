"""The WebSocket under chance, the whole way from a worker's socket."""

import contextlib
import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import gevent
import gevent.socket
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import CloseReason

from tests import fuzz_places
from tests.fuzz_places import fixture_of
from tests.fuzzing import CUTS, TEXTS, fuzzed, near, pieces
from tests.live.websocket import CLOSE, TEXT, frames_in
from tests.live.websocket import frame as frame_of
from tests.unit.test_fuzz_http import Worker
from tests.unit.test_fuzz_websocket import ANY_FRAMES, KEY, WRONG, check_refusal


class Ends(NamedTuple):
    """What a client was told until its connection was over."""

    frames: list[dict[str, Any]]
    code: int


class Line:
    """Connections to a worker of the service."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.broke: list[logging.LogRecord] = []

    def talk(self, blocks: list[bytes], until: bytes = b"") -> Ends:
        """Send these blocks, each after the other was read; leave when ``until`` was heard, or at once.

        Raises ``gevent.Timeout`` where the service does not end the connection.
        """
        ours, theirs = gevent.socket.socketpair()
        with theirs, gevent.Timeout(ENDS_SECONDS):
            serving = gevent.spawn(self._worker.serve, ours)
            with contextlib.suppress(OSError):
                for block in [HANDSHAKE, *blocks]:
                    theirs.sendall(block)
                    gevent.sleep(0)
                if not until:
                    theirs.shutdown(socket.SHUT_WR)
            came = b""
            with contextlib.suppress(ConnectionError):
                while block := theirs.recv(65536):
                    came += block
                    if until and until in came:
                        theirs.sendall(frame_of(CLOSE, b"\x03\xe8"))
                        theirs.shutdown(socket.SHUT_WR)
                        until = b""
            serving.get()
        frames, _ = frames_in(came.partition(b"\r\n\r\n")[2])
        # A close without a code counts as 1005: RFC 6455, section 7.1.5.
        codes = [int.from_bytes(payload[:2], "big") or 1005 for opcode, payload in frames if opcode == CLOSE]
        return Ends(
            [json.loads(payload) for opcode, payload in frames if opcode == TEXT], (codes or [1006])[-1]
        )


ENDS_SECONDS = 5.0
HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
).encode()


@contextmanager
def open_line() -> Iterator[Line]:
    with fuzz_places.open_app() as app:
        worker = Worker(app)
        line = Line(worker)
        handler = logging.Handler(logging.ERROR)
        handler.emit = line.broke.append  # type: ignore[method-assign]
        logging.getLogger("streaming").addHandler(handler)
        yield line
        logging.getLogger("streaming").removeHandler(handler)
        worker.close()


fuzz_places.PLACES["line"] = open_line
line = fixture_of("line")
NOTHING_BEGUN = near(
    [{"type": "ping"}, {"type": "pause"}, {"type": "follow", "stream_id": "st_none"}, {"type": "start"}],
    {"type": st.sampled_from(["ping", "resume", "stop", "x"]), "request": TEXTS, "stream_id": TEXTS},
    WRONG,
)


@fuzzed(40)
@given(st.lists(NOTHING_BEGUN, max_size=4), CUTS)
def test_every_command_is_answered_in_its_turn_however_the_network_cuts_it(
    line: Line, sent: list[Any], cuts: list[int]
) -> None:
    commands = [*sent, {"type": "ping", "request": "the end"}]
    body = b"".join(frame_of(TEXT, json.dumps(each).encode()) for each in commands)
    ends = line.talk(pieces(body, cuts), b'"the end"')
    assert len(ends.frames) == len(commands)
    for asked, told in zip(commands, ends.frames, strict=True):
        assert told["type"] in ("error", "pong")
        if told["type"] == "pong":
            assert told.get("request") == asked.get("request")
        else:
            check_refusal(told, asked)
    assert ends.code == CloseReason.NORMAL_CLOSURE
    assert not line.broke


@fuzzed(40)
@given(ANY_FRAMES, CUTS)
def test_no_bytes_break_a_connection_or_keep_it_open(line: Line, sent: bytes, cuts: list[int]) -> None:
    ends = line.talk(pieces(sent, cuts))
    assert (
        ends.code in (1000, 1002, 1003, 1005, 1006, 1007, 1009)
        or sent.find(ends.code.to_bytes(2, "big")) >= 0
    )
    assert ends.code != CloseReason.INTERNAL_ERROR or sent.find(b"\x03\xf3") >= 0
    assert not line.broke
