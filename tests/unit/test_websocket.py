"""The protocol of ``/ws``: what a command does, and which frame answers it."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from streaming.errors import InvalidRequest, StoreUnavailable
from streaming.eventlogs.memory import MemoryLog
from streaming.events import Done, Start, Token, ToolCall, encode
from streaming.formats import Message, Wants, native
from streaming.reader import Reader
from streaming.settings import Settings
from streaming.sources import Prompt
from streaming.streams import Order, Streams
from streaming.websocket import MOST_FOLLOWED, Answer, Following, Session, dropped_frame, event_frame
from tests.doubles import PROMPT, Gate, ScriptedSource, all_records, ended, eventually, running, says

SETTINGS = Settings(eventlog_url="memory://", runnables=("none",))


class Client:
    """One connection without a socket: it sends commands and reads frames."""

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self.orders: list[dict[str, Any]] = []
        self.session = Session(streams, self._read_order, self._listen, lambda: "req_1")
        self.following: Following | None = None

    def _read_order(self, asked: dict[str, Any]) -> Order:
        self.orders.append(asked)
        if "prompt" not in asked:
            raise InvalidRequest("prompt: it is missing", code="required", param="prompt")
        key = asked.get("message_id")
        return Order("chat", Prompt(PROMPT.model, PROMPT.messages), {}, key=key, fingerprint="same")

    def _listen(self, reader: Reader) -> Following:
        return Following(reader, reader, native.create(Wants()))

    def send_text(self, text: str) -> dict[str, Any]:
        answer: Answer = self.session.take(text)
        self.following = answer.begun
        assert "\n" not in answer.frame
        frame: dict[str, Any] = json.loads(answer.frame)
        return frame

    def send(self, type_: str, **fields: Any) -> dict[str, Any]:
        return self.send_text(json.dumps({"type": type_, **fields}))

    def refused(self, type_: str, **fields: Any) -> dict[str, Any]:
        """Send what should be refused and return the error."""
        frame = self.send(type_, **fields)
        assert frame["type"] == "error", frame
        assert "done" not in frame
        assert self.following is None
        error: dict[str, Any] = frame["error"]
        return error

    def begin(self, **fields: Any) -> Following:
        """Start a run and return how it is followed."""
        assert self.send("start", prompt="hello", **fields)["type"] == "started"
        assert self.following
        return self.following


def heard(following: Following) -> list[dict[str, Any]]:
    """Follow to the end; return the frames."""
    frames: list[str] = []
    with following.reader:
        while not following.has_ended:
            frames += following.next(5)
    return [json.loads(frame) for frame in frames]


def text_of(frames: list[dict[str, Any]]) -> str:
    return "".join(frame["content"] for frame in frames if frame["type"] == "token")


def assert_each_once(frames: list[dict[str, Any]], count: int) -> None:
    """Check that the frames stand for the events 1 to ``count``, each once and in order."""
    seq = 0
    for frame in frames:
        seq += frame.get("n", 1)
        assert frame["cursor"] == f"1.{seq}"
    assert seq == count


Connect = Callable[..., Client]


@pytest.fixture
def connect(log: MemoryLog) -> Iterator[Connect]:
    """Return a function that makes a client of a service whose model does these steps."""
    made: list[Streams] = []

    def connect_(*steps: Any) -> Client:
        source = ScriptedSource(*(steps or says("Hel", "lo")))
        made.append(Streams(log, lambda _: source, SETTINGS))
        return Client(made[-1])

    yield connect_
    for streams in made:
        streams.drain(0, 0)
        streams.close()


# Runs


def test_a_run_is_started_and_its_events_come_with_their_stream_and_cursor(connect: Connect) -> None:
    client = connect()

    started = client.send("start", prompt="hello", request="a-1")
    frames = heard(client.following)

    assert started == {
        "type": "started",
        "stream_id": started["stream_id"],
        "replayed": False,
        "request": "a-1",
    }
    assert {frame["stream_id"] for frame in frames} == {started["stream_id"]}
    assert [frame["type"] for frame in frames][-3:] == ["token", "token", "done"]
    assert frames[-1]["cursor"] == f"1.{frames[-1]['last_seq']}"
    assert text_of(frames) == "Hello"
    assert client.orders == [{"prompt": "hello"}], "type and request are no fields of the order"


def test_the_thread_of_a_run_is_told(connect: Connect) -> None:
    assert connect().send("start", prompt="hello", thread="t-1")["thread"] == "t-1"


@pytest.mark.parametrize("cut", range(6))
def test_a_run_cut_anywhere_goes_on_from_the_cursor(connect: Connect, log: MemoryLog, cut: int) -> None:
    client = connect(*says("a", "b", "c"))
    whole = heard(client.begin())
    stream_id = whole[0]["stream_id"]
    seen = whole[:cut]

    again = Client(client.streams)
    told = again.send("follow", stream_id=stream_id, after=seen[-1]["cursor"] if seen else "")
    rest = heard(again.following)

    assert (told["type"], told["ended"]) == ("following", False)
    assert text_of(seen + rest) == "abc"
    assert_each_once(seen + rest, len(all_records(log, stream_id)))


def test_a_client_that_has_everything_is_told_so_and_hears_nothing(connect: Connect) -> None:
    client = connect()
    last = heard(client.begin())[-1]
    again = Client(client.streams)

    told = again.send("follow", stream_id=last["stream_id"], after=last["cursor"])

    assert told == {
        "type": "following",
        "stream_id": last["stream_id"],
        "after": last["cursor"],
        "ended": True,
    }
    assert again.following is None
    assert not again.session.followed


def test_a_start_repeated_under_its_name_joins_the_run(connect: Connect) -> None:
    client = connect()
    first = client.send("start", prompt="hello", message_id="m")
    assert client.following

    again = client.send("start", prompt="hello", message_id="m")

    assert again["stream_id"] == first["stream_id"]
    assert again["replayed"]
    assert client.following is None, "it is followed already"
    elsewhere = Client(client.streams)
    elsewhere.send("start", prompt="hello", message_id="m")
    assert text_of(heard(elsewhere.following)) == "Hello"


# Pause and resume


def test_a_paused_run_goes_on_and_is_told_whole_when_it_is_resumed(connect: Connect, log: MemoryLog) -> None:
    gate = Gate()
    client = connect([Token("a")], gate, [Token("b"), Token("c")], [Done("stop")])
    following = client.begin()
    frames: list[dict[str, Any]] = []
    with running(lambda: frames.extend(heard(following))):
        gate.reached.wait(5)
        assert client.send("pause", request=7) == {
            "type": "paused",
            "stream_id": following.stream_id,
            "request": 7,
        }
        gate.open()
        assert ended(log, following.stream_id) == "completed"
        eventually(lambda: following.reader.cursor.seq > following.cursor.seq)
        assert not frames, "nothing was told while it was paused"
        assert client.send("resume") == {"type": "resumed", "stream_id": following.stream_id}

    assert text_of(frames) == "abc"
    assert_each_once(frames, len(all_records(log, following.stream_id)))


def test_what_arrives_in_the_moment_of_a_pause_is_kept_for_later(connect: Connect) -> None:
    client = connect()
    following = client.begin()
    ended(client.streams._log, following.stream_id)
    client.send("pause")
    found: list[list[str]] = []
    with following.reader, running(lambda: found.append(following.next(5))):
        eventually(lambda: following.reader.ended)
        assert not found
        client.send("resume")

    assert text_of([json.loads(frame) for frame in found[0]]) == "Hello"


def test_pausing_and_resuming_twice_is_once(connect: Connect) -> None:
    client = connect()
    following = client.begin()
    assert client.send("pause")["type"] == client.send("pause")["type"] == "paused"
    assert following.is_paused
    assert not client.session.is_sending
    assert client.send("resume")["type"] == client.send("resume")["type"] == "resumed"
    assert not following.is_paused
    assert client.session.is_sending


def test_one_that_leaves_while_paused_waits_no_more_and_has_lost_nothing(connect: Connect) -> None:
    client = connect()
    following = client.begin()
    ended(client.streams._log, following.stream_id)
    client.send("pause")
    found: list[list[str]] = []
    with following.reader, running(lambda: found.append(following.next(5))):
        eventually(lambda: following.reader.ended)
        following.leave()

    assert found == [[]]
    assert following.cursor.seq == 0, "the client was told nothing, so it is nowhere"


# Stop


def test_a_run_is_stopped_with_a_receipt(connect: Connect) -> None:
    gate = Gate()
    client = connect([Token("a")], gate, [Done("stop")])
    following = client.begin()
    gate.reached.wait(5)

    receipt = client.send("stop", request="s")

    last = heard(following)[-1]
    assert receipt == {
        "type": "stopped",
        "stream_id": following.stream_id,
        "receipt": {
            "stream_id": following.stream_id,
            "state": "cancelled",
            "cursor": last["cursor"],
            "upstream": "closed",
        },
        "request": "s",
    }
    assert last["finish_reason"] == "cancelled"


def test_a_stop_that_comes_too_late_says_what_won(connect: Connect) -> None:
    client = connect()
    following = client.begin()
    heard(following)
    client.session.forget(following)

    receipt = client.send("stop")["receipt"]

    assert (receipt["stream_id"], receipt["state"]) == (following.stream_id, "completed")
    assert receipt["upstream"] == "none"


def test_a_run_of_another_connection_can_be_stopped_by_its_id(connect: Connect) -> None:
    gate = Gate()
    client = connect(gate, [Done("stop")])
    following = client.begin()
    gate.reached.wait(5)

    stopped = Client(client.streams).send("stop", stream_id=following.stream_id)
    assert stopped["receipt"]["state"] == "cancelled"


# Several runs


@pytest.mark.parametrize("type_", ["pause", "resume", "stop"])
def test_with_several_runs_a_command_must_say_which(connect: Connect, type_: str) -> None:
    client = connect()
    one, two = client.begin(), client.begin()

    error = client.refused(type_)
    assert (error["code"], error["param"]) == ("required", "stream_id")

    assert client.send(type_, stream_id=two.stream_id)["stream_id"] == two.stream_id
    assert one.is_paused is False


@pytest.mark.parametrize("type_", ["pause", "resume", "stop"])
def test_with_no_run_there_is_nothing_to_do(connect: Connect, type_: str) -> None:
    error = connect().refused(type_)
    assert (error["code"], error["param"]) == ("not_followed", "stream_id")


def test_so_many_runs_and_no_more(connect: Connect, log: MemoryLog) -> None:
    client = connect()
    for _ in range(MOST_FOLLOWED):
        client.begin()
    made = len(log._streams)

    frame = client.send("start", prompt="hello")

    assert frame["error"]["code"] == "too_many_runs"
    assert frame["retry_after_seconds"] == 1
    assert len(log._streams) == made, "a run was begun that nobody hears"


# Refusals


@pytest.mark.parametrize(
    ("text", "code", "param"),
    [
        ("", "json", None),
        ("hello", "json", None),
        ('{"type":"ping"', "json", None),
        ('{"type":"ping"} {}', "json", None),
        ('{"type":"\\ud800"}', "json", None),
        ("[]", "wrong_type", None),
        ("null", "wrong_type", None),
        ("1e999", "json", None),
        ("{}", "required", "type"),
        ('{"type":null}', "required", "type"),
        ('{"type":"fly"}', "wrong_value", "type"),
        ('{"type":["ping"]}', "wrong_value", "type"),
        ('{"type":{}}', "wrong_value", "type"),
        ('{"type":"ping","colour":"red"}', "unknown_field", "colour"),
        ('{"type":"follow"}', "required", "stream_id"),
        ('{"type":"follow","stream_id":7}', "wrong_type", "stream_id"),
        ('{"type":"follow","stream_id":"x","after":1.4}', "wrong_type", "after"),
        ('{"type":"follow","stream_id":"x","after":"here"}', "bad_cursor", "after"),
        ('{"type":"pause","stream_id":"x"}', "not_followed", "stream_id"),
        ('{"type":"start"}', "required", "prompt"),
        ('{"type":"ping","request":{}}', "wrong_value", "request"),
        ('{"type":"ping","request":true}', "wrong_value", "request"),
        ('{"type":"ping","request":1.5}', "wrong_value", "request"),
        ('{"type":"ping","request":"%s"}' % ("r" * 101), "wrong_value", "request"),
        ('{"type":"ping","request":%s}' % ("9" * 40), "wrong_value", "request"),
        ('{"type":"ping","deep":%s}' % ("[" * 65 + "]" * 65), "too_deep", None),
        ("[" * 100_000, "too_deep", None),
        ('{"a":' * 100_000, "too_deep", None),
    ],
)
def test_a_frame_that_cannot_be_used_is_refused_and_names_the_field(
    connect: Connect, text: str, code: str, param: str | None
) -> None:
    frame = connect().send_text(text)

    assert frame["type"] == "error"
    assert (frame["error"]["code"], frame["error"]["param"]) == (code, param)
    assert frame["error"]["request_id"] == "req_1"
    assert len(json.dumps(frame)) < 1000, "a refusal repeats what was sent"


def test_a_refusal_bears_the_name_of_what_it_refuses(connect: Connect) -> None:
    frame = connect().send("follow", stream_id="st_unknown", request="f-1")
    assert (frame["request"], frame["stream_id"]) == ("f-1", "st_unknown")
    assert frame["error"]["type"] == "stream_lost" or frame["error"]["type"] == "not_found"


def test_a_lost_cursor_comes_with_the_last_id(connect: Connect) -> None:
    client = connect()
    last = heard(client.begin())[-1]

    frame = Client(client.streams).send("follow", stream_id=last["stream_id"], after="3.999")

    assert frame["error"]["type"] == "cursor_lost"
    assert frame["last_id"] == last["cursor"]


def test_one_run_is_not_followed_twice_on_a_connection(connect: Connect) -> None:
    client = connect()
    following = client.begin()
    assert client.refused("follow", stream_id=following.stream_id)["code"] == "followed"


def test_a_worker_that_stops_refuses_a_start_and_says_when_to_come_back(connect: Connect) -> None:
    client = connect()
    client.streams.drain(0, 0)

    frame = client.send("start", prompt="hello")

    assert (frame["error"]["type"], frame["error"]["code"]) == ("overloaded", "draining")
    assert frame["error"]["retryable"]
    assert frame["retry_after_seconds"] >= 1


def test_a_dropped_run_says_why_and_where_to_go_on(connect: Connect) -> None:
    following = connect().begin()
    with following.reader:
        following.next(5)

    frame = json.loads(dropped_frame(following, StoreUnavailable("the store is away"), "req_2"))

    assert frame["type"] == "dropped"
    assert frame["cursor"] == str(following.cursor) != "0.0"
    assert frame["error"]["type"] == "store_unavailable"
    assert frame["error"]["request_id"] == "req_2"
    assert frame["retry_after_seconds"] == 1


# Frames


def test_an_event_keeps_an_id_of_its_own() -> None:
    call = encode(ToolCall("call_1", "weather", {"city": "Paris"}))
    frame = json.loads(event_frame("st_1", Message(call, "1.7")))
    assert (frame["id"], frame["cursor"], frame["stream_id"]) == ("call_1", "1.7", "st_1")


def test_the_first_event_names_its_stream_once() -> None:
    frame = event_frame("st_1", Message(encode(Start("st_1", "chat", "demo", 1)), "1.1"))
    assert frame.count("stream_id") == 1
    assert json.loads(frame)["cursor"] == "1.1"


def test_guests_are_told_when_a_drain_begins(connect: Connect) -> None:
    streams = connect().streams
    told: list[str] = []
    with streams.hosting(lambda: told.append("before")):
        with streams.hosting(lambda: told.append("gone before")):
            pass
        assert not told
        drain = gevent.spawn(streams.drain, 0, 0)
        drain.join()
        assert told == ["before"]
        with streams.hosting(lambda: told.append("after")):
            assert told == ["before", "after"]
