"""The WebSocket under chance: commands nearly right, and frames as bytes, cut anywhere."""

import base64
import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from simple_websocket import Server
from wsproto.frame_protocol import CloseReason

from streaming.formats import Wants, native
from streaming.streams import Streams
from streaming.web import _orders
from streaming.websocket import MOST_FOLLOWED, TYPES, Following, Session
from tests.fuzz_places import Kitchen, fixture_of
from tests.fuzzing import CUTS, HARMS, TEXTS, fuzzed, harmed, json_values, near, pieces
from tests.live.websocket import BINARY, CLOSE, PING, PONG, TEXT, frames_in
from tests.live.websocket import frame as frame_of

kitchen = fixture_of("kitchen")
NAMES = st.one_of(st.sampled_from(["type", "request", "stream_id", "prompt", "after"]), TEXTS)
WRONG = json_values(NAMES, st.one_of(TEXTS, st.none(), st.booleans(), st.integers(), st.floats(-9, 9)))
IDS = st.one_of(st.sampled_from(["FOLLOWED", "OTHER", "", "st_none"]), TEXTS)
COMMANDS = near(
    [
        {"type": "start", "prompt": "hi"},
        {"type": "follow", "stream_id": "OTHER"},
        {"type": "pause"},
        {"type": "resume", "stream_id": "FOLLOWED"},
        {"type": "stop"},
        {"type": "ping"},
    ],
    {
        "type": st.sampled_from([*TYPES, "", "Ping", "done"]),
        "request": st.one_of(
            TEXTS, st.sampled_from(["x" * 100, "x" * 101, 0, 2**53, 2**53 + 1, True, 1.0, None])
        ),
        "stream_id": IDS,
        "after": st.sampled_from(["", "0.0", "1.1", "1.99", "2.1", "x", "1"]),
        "prompt": TEXTS,
        "source": st.sampled_from(["chat", "modal", "none"]),
        "message_id": st.sampled_from(["a", "b", "", "é"]),
    },
    WRONG,
)
# A command, and the name of a run that is there where it names one.
SENT = st.lists(st.one_of(COMMANDS, COMMANDS, COMMANDS, WRONG), min_size=1, max_size=6)
OF_THE_WHOLE = frozenset({"json", "too_deep", "too_large", "too_many_runs"})
ANSWERED_BY = {
    "start": "started",
    "follow": "following",
    "pause": "paused",
    "resume": "resumed",
    "stop": "stopped",
    "ping": "pong",
}


def session_of(kitchen: Kitchen) -> Session:
    def read_order(asked: dict[str, Any]) -> Any:
        return _orders.from_fields(asked, kitchen.settings, kitchen.streams)

    return Session(
        kitchen.streams,
        read_order,
        lambda found: Following(found, found, native.create(Wants())),
        lambda: "req_1",
    )


@fuzzed(80)
@given(SENT)
def test_each_command_is_answered_in_its_own_shape_or_refused_by_field(
    kitchen: Kitchen, sent: list[Any]
) -> None:
    with kitchen.app.test_request_context("/ws"):
        other = _begin(kitchen.streams, kitchen)
        session, made = session_of(kitchen), [other]
        for asked in sent:
            followed = session.followed[0].stream_id if session.followed else "none"
            asked = _with_ids(asked, {"FOLLOWED": followed, "OTHER": other})
            answer = session.take(json.dumps(asked))
            assert len(answer.frame.splitlines()) == 1
            told = json.loads(answer.frame)
            if told["type"] == "error":
                check_refusal(told, asked)
                assert answer.begun is None
                continue
            assert told["type"] == ANSWERED_BY[asked["type"]]
            assert told.get("request") == asked.get("request")
            assert len(session.followed) <= MOST_FOLLOWED
            if asked["type"] == "start":
                made.append(told["stream_id"])
        for following in session.followed:
            following.leave()
        for stream_id in set(made):
            kitchen.streams.erase(stream_id)


def _begin(streams: Streams, kitchen: Kitchen) -> str:
    return streams.start(_orders.from_fields({"prompt": "hi"}, kitchen.settings, streams)).stream_id


def _with_ids(asked: Any, ids: dict[str, str]) -> Any:
    if not isinstance(asked, dict):
        return asked
    return {name: ids.get(value, value) if isinstance(value, str) else value for name, value in asked.items()}


def check_refusal(told: dict[str, Any], asked: Any) -> None:
    error = told["error"]
    assert error["message"]
    assert error["type"] not in ("internal_error", "")
    assert len(error["message"]) < 2000
    if error["type"] == "invalid_request" and error["code"] not in OF_THE_WHOLE and isinstance(asked, dict):
        assert error["param"] is not None, f"no field is named: {error}"
    if isinstance(asked, dict) and isinstance(asked.get("request"), str) and len(asked["request"]) <= 100:
        assert told.get("request") == asked["request"]


# Frames


class InOneGo:
    """A thread that has done its work when it was started."""

    def __init__(self, target: Callable[[], None], name: str = "") -> None:
        self._target = target
        self.name = "reader"

    def start(self) -> None:
        self._target()


class Blocks:
    """A socket that brings these blocks, then its end; it keeps what is sent."""

    def __init__(self, blocks: list[bytes]) -> None:
        self._blocks = [block for block in blocks if block]
        self.sent = b""

    def recv(self, size: int) -> bytes:
        return self._blocks.pop(0) if self._blocks else b""

    def send(self, data: bytes) -> int:
        self.sent += data
        return len(data)

    def close(self) -> None:
        pass


MOST_BYTES = 300
KEY = base64.b64encode(b"0" * 16).decode()


def heard(blocks: list[bytes]) -> tuple[list[Any], int, list[tuple[int, bytes]]]:
    """Return the messages in these bytes, why the connection was closed, and the frames it answered."""
    sock = Blocks(blocks)
    environ = {
        "gunicorn.socket": sock,
        "HTTP_HOST": "localhost",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": KEY,
    }
    ws = Server(environ, max_message_size=MOST_BYTES, thread_class=InOneGo, receive_bytes=65536)
    frames, rest = frames_in(sock.sent.partition(b"\r\n\r\n")[2])
    assert not rest
    return ws.input_buffer, int(ws.close_reason), frames


def code_of(frames: list[tuple[int, bytes]]) -> int:
    """Return the code of the last close frame, 0 without one."""
    codes = [int.from_bytes(payload[:2]) for opcode, payload in frames if opcode == CLOSE]
    return codes[-1] if codes else 0


PAYLOADS = st.one_of(
    TEXTS.map(str.encode), st.binary(max_size=40), st.just(b"x" * 126), st.just(b"x" * (MOST_BYTES + 1))
)
FRAMES = st.builds(
    frame_of,
    st.sampled_from([0, TEXT, BINARY, CLOSE, PING, PONG, 3, 15, TEXT, TEXT]),
    PAYLOADS,
    st.sampled_from([True, True, True, False]),
    st.sampled_from([True, True, True, True, False]),
)
ANY_FRAMES = st.one_of(
    st.lists(FRAMES, max_size=6).map(b"".join),
    st.builds(
        lambda frames, harms: harmed(b"".join(frames).decode("latin-1"), harms).encode("latin-1", "replace"),
        st.lists(FRAMES, max_size=4),
        HARMS,
    ),
    st.binary(max_size=60),
)


@fuzzed(100)
@given(ANY_FRAMES, CUTS)
def test_frames_are_the_same_messages_however_they_are_cut(sent: bytes, cuts: list[int]) -> None:
    messages, why, frames = heard([sent])
    assert all(len(message) <= MOST_BYTES for message in messages)
    cut_messages, cut_why, cut_frames = heard(pieces(sent, cuts))
    # What came before the fault is heard in any case; how much of it, one read may hide.
    assert messages == cut_messages
    # Of a message that is both too large and no text, either is noticed first.
    assert why == cut_why or {code_of(frames), code_of(cut_frames)} == {1007, 1009}


def test_of_two_faults_of_one_message_a_cut_decides_which_is_noticed() -> None:
    sent = frame_of(TEXT, b"x" * MOST_BYTES + b"y\xff")

    _, _, frames = heard([sent])
    _, _, cut_frames = heard([sent[:-1], sent[-1:]])

    assert (code_of(frames), code_of(cut_frames)) == (1007, 1009)


@fuzzed(100)
@given(st.lists(st.tuples(TEXTS, CUTS, st.booleans()), max_size=4), CUTS)
def test_texts_are_heard_as_they_were_sent_whatever_is_between(
    texts: list[tuple[str, list[int], bool]], cuts: list[int]
) -> None:
    sent = b""
    for text, at, pinged in texts:
        parts = pieces(text.encode(), at)
        for place, part in enumerate(parts):
            sent += frame_of(TEXT if place == 0 else 0, part, place == len(parts) - 1)
            sent += frame_of(PING, b"p") if pinged else b""
    sent += frame_of(CLOSE, b"\x03\xe8")

    messages, why, frames = heard(pieces(sent, cuts))

    assert messages == [text for text, _, _ in texts]
    assert why == CloseReason.NORMAL_CLOSURE
    assert [opcode for opcode, _ in frames][-1] == CLOSE
    pings = sum(len(at) + 1 for _, at, pinged in texts if pinged)
    assert [opcode for opcode, _ in frames].count(PONG) == pings
