"""The terminal's client, without a network: its parser, its follower, what it lets through to a terminal."""

import doctest
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from streaming.terminal import escaping, follower
from streaming.terminal.client import Client, Refused
from streaming.terminal.event_stream import MAX_EVENT_BYTES, Message, Parser, TooLong
from streaming.terminal.follower import Follower, TimeUp, Unverified
from streaming.terminal.screen import Screen
from streaming.terminal.telling import Diverged, Telling
from streaming.terminal.transport import Broken, Silent

WORDS = [f"w{i} " for i in range(6)]
TEXT = "".join(WORDS)


def events(words: list[str], **end: Any) -> list[dict[str, Any]]:
    """Return the log of a run that says these words."""
    said = [{"type": "start", "stream_id": "st_x"}, *({"type": "token", "content": word} for word in words)]
    digest = hashlib.sha256("".join(words).encode()).hexdigest()
    last = {"type": "done", "finish_reason": "stop", "done": True}
    return [*said, {**last, "last_seq": len(said) + 1, "text_sha256": digest, **end}]


class Answer:
    def __init__(self, status: int, body: list[bytes | Exception], kind: str) -> None:
        self.status = status
        self.headers = {"content-type": kind}
        self._body = body
        self.is_closed = False

    def blocks(self) -> Iterator[bytes]:
        for block in self._body:
            if isinstance(block, Exception):
                raise block
            yield block

    def expect_within(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


class Wire:
    """A service with one stream; each connection to it brings ``brings`` events and is then cut."""

    def __init__(self, log: list[dict[str, Any]], brings: Iterator[int | Exception]) -> None:
        self.log = log
        self.brings = brings
        self.answers: list[Answer] = []
        self.polls = 0

    def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", seconds: float = 0
    ) -> Answer:
        query = parse_qs(urlsplit(path).query)
        after = int(query.get("after", ["1.0"])[0].partition(".")[2])
        self.answers.append(self._follow(after) if "format" in query else self._snapshot(after))
        return self.answers[-1]

    def close(self) -> None:
        pass

    def _follow(self, after: int) -> Answer:
        if after == len(self.log):
            return Answer(204, [], "")
        brings = next(self.brings)
        frames: list[bytes | Exception] = [
            f"id: 1.{seq}\ndata: {json.dumps(event)}\n\n".encode()
            for seq, event in enumerate(self.log[after:], after + 1)
        ]
        if isinstance(brings, Exception):
            return Answer(200, [brings], "text/event-stream")
        # Of the next one a half arrives, which must not count.
        cut = [*frames[:brings], *(frame[:-3] for frame in frames[brings : brings + 1])]
        return Answer(200, cut, "text/event-stream; charset=utf-8")

    def _snapshot(self, after: int) -> Answer:
        self.polls += 1
        ended = {"done": "completed", "error": "failed"}[self.log[-1]["type"]]
        state = ended if after == len(self.log) else "running"
        found = {"state": state, "cursor": f"1.{min(after + 2, len(self.log))}", "events": []}
        for event in self.log[after : after + 2]:
            if event.get("done"):
                found |= {**event, "state": ended}
            else:
                found["events"].append(event)
        return Answer(200, [json.dumps(found).encode()], "application/json")


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "back_off_seconds", lambda _failures: 0.0)
    monkeypatch.setattr(follower, "POLL_PAUSE_SECONDS", 0.0)


def heard(wire: Wire, **options: Any) -> list[dict[str, Any]]:
    links: list[str] = []
    options = {"after": "", "patience_seconds": 5.0, "on_link": links.append, **options}
    return [each.event for each in Follower(Client(wire), "st_x", **options).events()]


@pytest.mark.parametrize("brings", range(1, 9))
def test_a_stream_that_is_cut_anywhere_is_heard_once(brings: int) -> None:
    wire = Wire(events(WORDS), itertools.repeat(brings))
    assert heard(wire) == events(WORDS)
    assert all(answer.is_closed for answer in wire.answers)


def test_a_reader_goes_on_after_any_event() -> None:
    log = events(WORDS)
    for seq in range(1, len(log)):
        assert heard(Wire(log, itertools.repeat(99)), after=f"1.{seq}") == log[seq:]


@pytest.mark.parametrize("how", ["done", "error"])
def test_a_reader_of_the_last_event_is_told_the_end(how: str) -> None:
    log = events(WORDS, type=how)
    (last,) = heard(Wire(log, itertools.repeat(99)), after=f"1.{len(log)}")
    assert last["type"] == how


@pytest.mark.parametrize("silent", [Silent("held back"), 0])
def test_a_stream_that_keeps_its_events_to_itself_is_polled(silent: Exception | int) -> None:
    wire = Wire(events(WORDS), itertools.repeat(silent))
    assert heard(wire) == events(WORDS)
    assert wire.polls > 3


def test_a_text_with_another_checksum_is_read_again_and_then_refused() -> None:
    wire = Wire(events(WORDS, text_sha256="0" * 64), itertools.repeat(99))
    with pytest.raises(Unverified):
        heard(wire)


def test_a_text_that_arrives_whole_the_second_time_is_taken() -> None:
    class Mends(Wire):
        def _follow(self, after: int) -> Answer:
            self.log = events(WORDS) if self.answers else events(["wrong ", *WORDS[1:]], text_sha256="0" * 64)
            return super()._follow(after)

    said = heard(Mends([], itertools.repeat(99)))
    assert [event["type"] for event in said].count("reset") == 1
    at = next(place for place, event in enumerate(said) if event["type"] == "reset")
    assert said[at + 1 :] == events(WORDS)


def test_a_service_that_is_lost_too_long_is_given_up() -> None:
    wire = Wire(events(WORDS), itertools.repeat(Broken("cut")))
    wire._snapshot = lambda after: Answer(502, [b"<html>"], "text/html")  # type: ignore[method-assign]
    with pytest.raises(Broken):
        heard(wire, patience_seconds=0.05)


def test_a_run_that_takes_too_long_is_left() -> None:
    with pytest.raises(TimeUp):
        heard(Wire(events(WORDS), itertools.repeat(1)), deadline=-math.inf)


def test_an_end_that_is_not_in_the_log_is_not_the_streams() -> None:
    """Such as the error that says why this connection cannot go on."""

    class Stumbles(Wire):
        def _follow(self, after: int) -> Answer:
            if self.answers:
                return super()._follow(after)
            error = {"type": "error", "error": {"message": "busy", "retryable": True}, "done": True}
            return Answer(200, [f"data: {json.dumps(error)}\n\n".encode()], "text/event-stream")

    assert heard(Stumbles(events(WORDS), itertools.repeat(99))) == events(WORDS)


def test_a_refusal_ends_it_in_the_services_words() -> None:
    wire = Wire(events(WORDS), itertools.repeat(99))
    gone = {"error": {"type": "stream_expired", "message": "that stream was erased"}}
    wire._follow = lambda after: Answer(410, [json.dumps(gone).encode()], "application/json")  # type: ignore[method-assign]
    with pytest.raises(Refused, match="that stream was erased"):
        heard(wire)


# The parser


def test_an_event_stream_may_be_cut_at_any_byte() -> None:
    body = (
        "\ufeffretry: 1\r\nid: 1.1\rdata: é\u2028\n\n: hb\nid: 1.2\ndata:x\ndata: y\r\n\r\n"
        "data\n\nid: a\0b\ndata: z\n\nid: 9\ndata: half"
    ).encode()
    whole = [
        Message("1.1", "é\u2028".encode()),
        Message("1.2", b"x\ny"),
        Message("1.2", b""),
        Message("1.2", b"z"),
    ]
    for cut in range(len(body) + 1):
        parser = Parser()
        assert [*parser.feed(body[:cut]), *parser.feed(body[cut:])] == whole, cut
    parser = Parser()
    assert [message for at in range(len(body)) for message in parser.feed(body[at : at + 1])] == whole


@pytest.mark.parametrize("block", [b"x" * 65536, b"data: x\n" * 8192])
def test_an_event_without_an_end_is_refused(block: bytes) -> None:
    parser = Parser()
    blocks = itertools.repeat(block, MAX_EVENT_BYTES // 8192 * 2)
    with pytest.raises(TooLong):
        list(itertools.chain.from_iterable(map(parser.feed, blocks)))


# What is shown


def told(*said: dict[str, Any]) -> str:
    out = StringIO()
    telling = Telling(Screen(out, StringIO(), {}), as_json=False)
    for event in said:
        telling.tell(event, "1.1")
    return out.getvalue()


def test_what_comes_again_is_not_printed_again() -> None:
    words = [{"type": "token", "content": word} for word in WORDS]
    for cut in range(len(words) + 1):
        assert told(*words[:cut], {"type": "reset"}, *words) == TEXT


def test_another_text_than_before_is_noticed() -> None:
    with pytest.raises(Diverged):
        told({"type": "token", "content": "one"}, {"type": "reset"}, {"type": "token", "content": "two"})


@pytest.mark.parametrize(
    "strange",
    [
        {"type": "token"},
        {"type": "token", "content": 7},
        {"type": "tool_call"},
        {"type": "sources", "documents": [1]},
        {"type": "metrics", "metrics": {"tokens": "many"}},
        {"type": "status", "status": None},
        {"type": "invented"},
    ],
)
def test_an_event_of_another_shape_is_passed_over(strange: dict[str, Any]) -> None:
    assert told(strange) == ""


def test_examples_in_docstrings_are_right() -> None:
    assert doctest.testmod(escaping).failed == 0
