"""Every way an upstream can fail, and what a reader, the log and the upstream see then.

One row of ``FAULTS`` is one row, or one variant of a row, of the table "Upstream
faults" in the stream semantics.
"""

import itertools
import json
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.live.conftest import StartService
from tests.live.service import (
    PATIENCE_SECONDS,
    SECRET_KEY,
    EventReader,
    Service,
    Upstream,
    sequence_of,
    text_of,
    times_asked,
    wait_until,
)
from tests.live.upstream import LEAK, Script, contents

TOKENS = 6
RETRIED = 3
"""Upstream requests of a stream that was retried as often as allowed."""

_numbers = itertools.count(1)


class Ends(NamedTuple):
    """How a stream must end. ``None`` leaves a point open; several names mean any of them."""

    types: tuple[str, ...]
    codes: tuple[str, ...]
    retryable: bool | None
    requests: int
    text: str | None


def fails(
    type: str,
    *codes: str,
    retryable: bool | None = None,
    requests: int = 1,
    after: int = 0,
) -> Ends:
    """Return the end of a stream that fails after ``after`` tokens; the code is the type unless given."""
    return Ends((type,), codes or (type,), retryable, requests, words(after))


def completes(text: str | None = None, reason: str = "stop") -> Ends:
    """Return the end of a stream that completes with ``text``, or with all of the tokens."""
    return Ends(("done",), (reason,), None, 1, words(TOKENS) if text is None else text)


def words(count: int) -> str:
    """Return the text of the first ``count`` tokens."""
    return "".join(contents({"tokens": count}))


ANY_TEXT = Ends(("done",), ("stop",), None, 1, None)

rejected = fails("upstream_rejected", retryable=False)
failed = fails("upstream_error", retryable=True, requests=RETRIED)
overloaded = fails("upstream_overloaded", retryable=True, requests=RETRIED)
limited = fails("upstream_rate_limited", retryable=True, requests=RETRIED)
truncated = fails("upstream_truncated", retryable=True, requests=RETRIED)
truncated_late = fails("upstream_truncated", retryable=True, after=2)
idle = fails("upstream_timeout", "idle", retryable=True, requests=RETRIED)
idle_late = fails("upstream_timeout", "idle", retryable=True, after=2)


def bad(code: str, after: int = 0) -> Ends:
    """Return the end of a stream whose upstream broke the protocol."""
    return fails("upstream_bad_response", code, retryable=False, after=after)


def quota_exceeded() -> Ends:
    """Return the end of a stream that only money can help; the code is what tells it apart."""
    ends = fails("upstream_rate_limited", "upstream_quota", retryable=False)
    return ends._replace(types=("upstream_rate_limited", "upstream_quota"))


ODD_TEXT = 'line\nbreak\r\ntab\t quote" \u2028\u2029\u0085\x0b\x0c\x00\x1b é€\N{GRINNING FACE} data: x\n\n'

FAULTS: dict[str, tuple[Script, Ends]] = {
    # Before the answer's headers.
    "reset before headers": ({"play": "reset"}, fails("upstream_unreachable")),
    "closed before headers": ({"play": "close"}, fails("upstream_unreachable")),
    "silence before headers": (
        {"play": "hang"},
        fails("upstream_timeout", "upstream_timeout", "idle", "first_token", "headers"),
    ),
    # Statuses.
    "status 401": ({"play": "status", "status": 401}, fails("upstream_auth", retryable=False)),
    "status 403": ({"play": "status", "status": 403}, fails("upstream_auth", retryable=False)),
    "status 400": ({"play": "status", "status": 400}, rejected),
    "status 404": ({"play": "status", "status": 404}, rejected),
    "status 413": ({"play": "status", "status": 413}, rejected),
    "status 422": ({"play": "status", "status": 422}, rejected),
    "status 400 with a code that nobody knows": (
        {"play": "status", "status": 400, "code": f"{LEAK}-code"},
        rejected,
    ),
    "status 400 for a long context": (
        {"play": "status", "status": 400, "code": "context_length_exceeded"},
        fails("upstream_rejected", "context_length_exceeded", retryable=False),
    ),
    "status 404 for an unknown model": (
        {"play": "status", "status": 404, "code": "model_not_found"},
        fails("upstream_rejected", "model_not_found", retryable=False),
    ),
    "status 408": ({"play": "status", "status": 408}, failed),
    "status 409": ({"play": "status", "status": 409}, failed),
    "status 429 with a short wait": ({"play": "status", "status": 429, "retry_after": 1}, limited),
    "status 429 with a long wait": (
        {"play": "status", "status": 429, "retry_after": 60},
        fails("upstream_rate_limited"),
    ),
    "status 429 for a spent quota": (
        {"play": "status", "status": 429, "code": "insufficient_quota", "retry_after": 1},
        quota_exceeded(),
    ),
    "status 500": ({"play": "status", "status": 500}, failed),
    "status 502": ({"play": "status", "status": 502}, failed),
    "status 504": ({"play": "status", "status": 504}, failed),
    "status 503": ({"play": "status", "status": 503}, overloaded),
    "status 529": ({"play": "status", "status": 529}, overloaded),
    "redirect 302": ({"play": "redirect", "status": 302}, bad("redirect")),
    "redirect 307": ({"play": "redirect", "status": 307}, bad("redirect")),
    # Another body than an event stream.
    "html": ({"play": "html"}, bad("content_type")),
    "plain text": ({"play": "ok", "content_type": "text/plain"}, bad("content_type")),
    "compressed": ({"play": "gzip"}, bad("encoding")),
    "one whole completion": ({"play": "whole"}, completes()),
    "a json error with status 200": (
        {"play": "json_error", "code": "context_length_exceeded"},
        fails("upstream_rejected", "context_length_exceeded", retryable=False),
    ),
    "a quota error with status 200": (
        {"play": "json_error", "code": "insufficient_quota", "type": "insufficient_quota"},
        quota_exceeded(),
    ),
    "a server's json error with status 200": (
        {"play": "json_error", "code": "server_error", "type": "server_error"},
        failed,
    ),
    # Errors and odd events inside the stream.
    "error object first": ({"play": "stream_error"}, failed),
    "error object later": (
        {"play": "stream_error", "after": 2},
        fails("upstream_error", after=2),
    ),
    "comments, fields and names nobody knows": ({"play": "noise"}, completes()),
    "byte order mark": ({"play": "bom"}, completes()),
    "lines ended by CR": ({"play": "cr"}, completes()),
    "lines ended by CRLF": ({"play": "crlf"}, completes()),
    "no space after the colon": ({"play": "no_space"}, completes()),
    "data over several lines": ({"play": "multiline"}, completes()),
    "not json first": ({"play": "garbage"}, bad("json")),
    "not json later": ({"play": "garbage", "after": 2}, bad("json", after=2)),
    "another object than a chunk": ({"play": "not_chunk", "after": 2}, bad("json", after=2)),
    "a list": ({"play": "not_chunk", "after": 2, "value": [1]}, bad("json", after=2)),
    "a string": ({"play": "not_chunk", "after": 2, "value": LEAK}, bad("json", after=2)),
    "a number": ({"play": "not_chunk", "after": 2, "value": 42}, bad("json", after=2)),
    "choices that are no list": (
        {"play": "not_chunk", "after": 2, "value": {"choices": "none"}},
        bad("json", after=2),
    ),
    "empty data": ({"play": "empty_data", "after": 2}, completes()),
    "no choices": ({"play": "empty_choices", "after": 2}, completes()),
    "null fields": ({"play": "nulls", "after": 2}, completes()),
    "null delta": ({"play": "null_delta", "after": 2}, completes()),
    "chunk after the finish reason": ({"play": "after_finish", "after": 2}, completes()),
    "data after [DONE]": ({"play": "after_done", "after": TOKENS}, completes()),
    "silence after [DONE]": ({"play": "done_then_silence", "after": TOKENS}, completes()),
    # Ends.
    "finish reason without [DONE]": ({"play": "no_done"}, completes()),
    "[DONE] without finish reason": ({"play": "no_finish"}, completes(reason="unknown")),
    "neither, and no token": ({"play": "stop"}, truncated),
    "neither": ({"play": "neither", "tokens": 2}, truncated_late),
    "neither, ended by closing": ({"play": "neither", "tokens": 2, "framing": "close"}, truncated_late),
    "whole, ended by closing": ({"play": "ok", "framing": "close"}, completes()),
    "cut chunked body first": ({"play": "cut"}, truncated),
    "cut chunked body later": ({"play": "cut", "after": 2}, truncated_late),
    "reset chunked body later": ({"play": "cut", "after": 2, "reset": True}, truncated_late),
    "short content-length first": ({"play": "cut", "framing": "length"}, truncated),
    "short content-length later": ({"play": "cut", "framing": "length", "after": 2}, truncated_late),
    "half an event, ended by closing": ({"play": "cut", "framing": "close", "after": 2}, truncated_late),
    # Silence.
    "half open first": ({"play": "half_open"}, idle),
    "half open later": ({"play": "half_open", "after": 2}, idle_late),
    "byte drip first": ({"play": "drip_line"}, idle),
    "byte drip later": ({"play": "drip_line", "after": 2}, idle_late),
    "only comments": (
        {"play": "comments"},
        fails("upstream_timeout", "first_token"),
    ),
    "comments for longer than the idle time": (
        {"play": "comments", "after": 2, "comments_for_ms": 2500},
        completes(),
    ),
    # Size.
    "a line over 1 MiB first": ({"play": "big_line"}, bad("too_large")),
    "a line over 1 MiB later": ({"play": "big_line", "after": 2}, bad("too_large", after=2)),
    "an event over 1 MiB": ({"play": "big_event", "after": 2}, bad("too_large", after=2)),
    # Characters.
    "one byte a write": (
        # Without pauses: an event of 250 writes would then be a second's silence on a busy machine.
        {"play": "byte_by_byte", "text": "né€\N{GRINNING FACE} ok", "pieces": 3},
        completes("né€\N{GRINNING FACE} ok"),
    ),
    "invalid UTF-8": (
        {"play": "invalid_utf8", "tokens": 3, "after": 3},
        completes(words(3) + "a\N{REPLACEMENT CHARACTER}b c\N{REPLACEMENT CHARACTER}d "),
    ),
    "surrogate halves in two deltas": (
        {"play": "surrogates", "tokens": 3, "after": 3},
        completes(words(3) + "\N{GRINNING FACE}"),
    ),
    "a lone surrogate": (
        {"play": "lone_surrogate", "tokens": 3, "after": 3},
        completes(words(3) + "x\N{REPLACEMENT CHARACTER}y "),
    ),
    "a first half that the end follows": (
        {"play": "held_surrogate", "tokens": 3, "after": 3},
        completes(words(3) + "\N{REPLACEMENT CHARACTER}"),
    ),
    "a first half that another delta follows": (
        {"play": "held_surrogate", "tokens": 1, "after": 0},
        completes("\N{REPLACEMENT CHARACTER}" + words(1)),
    ),
    "text full of line ends and control characters": (
        {"text": ODD_TEXT, "pieces": len(ODD_TEXT)},
        completes(ODD_TEXT),
    ),
    "the same text, escaped": ({"text": ODD_TEXT, "pieces": 5, "ascii": True}, completes(ODD_TEXT)),
    # JSON that hurts a parser.
    "json of depth 100": ({"play": "deep", "after": 2}, bad("json", after=2)),
    "an integer of 5000 digits": ({"play": "big_int", "after": 2}, bad("json", after=2)),
    "NaN": ({"play": "nan", "after": 2}, bad("json", after=2)),
    # Other content than text.
    "tool calls": ({"play": "tools"}, completes("", reason="tool_calls")),
    "reasoning": ({"play": "reasoning"}, completes()),
    "refusal": ({"play": "refusal"}, ANY_TEXT),
    "log probabilities": ({"play": "logprobs"}, completes()),
    "unknown fields": ({"play": "unknown"}, completes()),
    "two choices": ({"play": "two_choices"}, ANY_TEXT),
}

RECOVERABLE = {name: script for name, (script, ends) in FAULTS.items() if ends.requests == RETRIED}

# The plays end as an answer does; what makes them endless is the limit under test.
LIMITS: dict[str, tuple[Script, str]] = {
    "bytes": ({"play": "endless", "fill": 4096, "pace_ms": 10}, "bytes"),
    "events": ({"play": "endless", "pace_ms": 5}, "events"),
    "duration": ({"play": "endless", "pace_ms": 100}, "duration"),
}


class Played(NamedTuple):
    """One fault, played to the end."""

    stream_id: str
    reader: EventReader
    requests: list[dict[str, Any]]

    @property
    def last(self) -> dict[str, Any]:
        return self.reader.events[-1].json()


def play(service: Service, upstream: Upstream, script: Script) -> Played:
    """Create a stream with ``script`` and follow it to its end."""
    token = f"fault-{next(_numbers)}"
    script = {"tokens": TOKENS, "token": token, **script}
    if "text" in script:
        del script["tokens"]
    stream_id = service.create(f"please <<{json.dumps(script)}>>")
    with service.follow(stream_id) as reader:
        assert reader.status == 200, bytes(reader.raw)
        reader.read_all()
    played = Played(stream_id, reader, upstream.log(token))
    assert_one_proper_end(played)
    assert_nothing_leaks(played, service)
    wait_until(
        lambda: all(request_is_over(entry) for entry in upstream.log(token)),
        PATIENCE_SECONDS,
        "every upstream request is answered whole or closed after the stream's end",
    )
    return played._replace(requests=upstream.log(token))


def request_is_over(entry: dict[str, Any]) -> bool:
    return entry["finished"] or entry["t_closed_by_peer"] or entry["t_closed_by_us"]


def assert_one_proper_end(played: Played) -> None:
    """The last event is the only terminal one, and the body came to its HTTP end."""
    events = played.reader.events
    assert events, f"no event: {bytes(played.reader.raw)!r}"
    assert [event.is_last for event in events] == [False] * (len(events) - 1) + [True]
    assert events[0].json()["type"] == "start"
    assert played.reader.whole
    sequence_of(events)


def assert_nothing_leaks(played: Played, service: Service) -> None:
    """Neither the key nor the upstream's words are in an answer or in the log."""
    snapshot = service.request("GET", f"/streams/{played.stream_id}", headers={"Accept": "application/json"})
    seen = bytes(played.reader.raw).decode(errors="replace") + snapshot.body.decode() + service.log_text()
    assert SECRET_KEY.removeprefix("sk-") not in seen
    assert LEAK not in seen
    assert '{"play"' not in service.log_text(), "a prompt is in the log"


def assert_ends(played: Played, ends: Ends, service: Service) -> None:
    """The end, the text, the snapshot and the number of upstream requests are as the table says."""
    last = played.last
    text = text_of(played.reader.events)
    snapshot = service.snapshot(played.stream_id)
    completed = ends.types == ("done",)
    assert last["type"] == ("done" if completed else "error"), last
    assert times_asked(played.requests) == ends.requests, played.requests
    if ends.text is not None:
        assert text == ends.text
    assert snapshot["text"] == text
    assert snapshot["cursor"] == played.reader.events[-1].id
    if completed:
        assert last["finish_reason"] in ends.codes
        assert snapshot["state"] == "completed"
        return
    error = last["error"]
    assert error.keys() >= {"message", "type", "code", "param", "retryable", "partial", "request_id"}
    assert error["type"] in ends.types, error
    assert error["code"] in ends.codes, error
    assert isinstance(error["retryable"], bool)
    if ends.retryable is not None:
        assert error["retryable"] is ends.retryable
    assert error["partial"] is bool(text), error
    assert snapshot["state"] == "failed"
    assert snapshot["error"]["code"] == error["code"]


@pytest.mark.parametrize(("script", "ends"), FAULTS.values(), ids=FAULTS)
def test_an_upstream_fault_ends_as_the_table_says(
    impatient_service: Service, upstream: Upstream, script: Script, ends: Ends
) -> None:
    strays = upstream.stats()["strays"]

    played = play(impatient_service, upstream, script)

    assert_ends(played, ends, impatient_service)
    assert upstream.stats()["strays"] == strays, "a redirect was followed"
    assert {entry["authorization"] for entry in played.requests} == {f"Bearer {SECRET_KEY}"}


@pytest.mark.parametrize("script", RECOVERABLE.values(), ids=RECOVERABLE)
def test_a_fault_that_passes_is_retried_without_a_trace_in_the_text(
    impatient_service: Service, upstream: Upstream, script: Script
) -> None:
    played = play(impatient_service, upstream, {**script, "attempts_fail": 1, "tokens": TOKENS})

    assert_ends(played, completes()._replace(requests=2), impatient_service)


def test_a_retry_after_is_waited_for(impatient_service: Service, upstream: Upstream) -> None:
    script = {"play": "status", "status": 429, "retry_after": 2, "attempts_fail": 1}

    first, second = play(impatient_service, upstream, script).requests

    assert second["t_received"] - first["t_received"] >= 1.9


@pytest.mark.parametrize(("script", "code"), LIMITS.values(), ids=LIMITS)
def test_an_endless_stream_is_ended_by_a_limit(
    bounded_service: Service, upstream: Upstream, script: Script, code: str
) -> None:
    played = play(bounded_service, upstream, script)

    error = played.last["error"]
    assert (error["type"], error["code"], error["partial"]) == ("limit_exceeded", code, True)
    assert len(played.requests) == 1
    assert played.requests[0]["sent_text"].startswith(text_of(played.reader.events))
    assert played.requests[0]["t_closed_by_peer"]


def test_a_connection_that_the_upstream_closed_meanwhile_is_not_noticed(
    impatient_service: Service, upstream: Upstream
) -> None:
    script = {"play": "keepalive_closed", "fin_ms": 50}
    first = play(impatient_service, upstream, script)
    token = first.requests[0]["token"]
    wait_until(
        lambda: upstream.log(token)[0]["t_closed_by_us"],
        PATIENCE_SECONDS,
        "the upstream has closed the connection",
    )

    second = play(impatient_service, upstream, {})

    assert_ends(second, completes(), impatient_service)


@pytest.mark.parametrize("end", ["reset", "close"])
def test_a_request_that_an_idle_connection_took_along_is_sent_once_more(
    impatient_service: Service, upstream: Upstream, end: str
) -> None:
    play(impatient_service, upstream, {})

    played = play(impatient_service, upstream, {"play": end, "attempts_fail": 1})

    assert_ends(played, completes(), impatient_service)
    assert [entry["reused"] for entry in played.requests] == [True, False]


def test_tool_calls_are_joined_from_their_fragments(impatient_service: Service, upstream: Upstream) -> None:
    played = play(impatient_service, upstream, {"play": "tools"})

    messages = [event.json() for event in played.reader.events]
    calls = [(m["id"], m["tool"], m["args"]) for m in messages if m["type"] == "tool_call"]
    assert calls == [("call_1", "weather", {"city": "Paris", "days": 3}), ("call_2", "clock", {})]


def test_reasoning_is_told_apart_from_text(impatient_service: Service, upstream: Upstream) -> None:
    played = play(impatient_service, upstream, {"play": "reasoning"})

    messages = [event.json() for event in played.reader.events]
    assert "".join(m["content"] for m in messages if m["type"] == "reasoning") == "first second "


def test_no_line_of_the_wire_holds_a_character_that_line_splitters_cut_at(
    impatient_service: Service, upstream: Upstream
) -> None:
    played = play(impatient_service, upstream, {"text": ODD_TEXT, "pieces": 7})

    body = bytes(played.reader.body).decode()
    assert not set(body) & set("\u2028\u2029\u0085\x0b\x0c\x00\x1b")
    assert body.splitlines() == body.split("\n")[:-1]


@pytest.fixture
def full_backlog() -> Iterator[int]:
    """The port of a listener that lets nobody in any more."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        yield port
        for each in waiting:
            each.close()


@pytest.mark.parametrize("what", ["refused", "unknown host", "no TLS", "no answer to the connect"])
def test_an_upstream_that_cannot_be_reached_is_an_error_within_seconds(
    start_service: StartService, upstream: Upstream, full_backlog: int, what: str
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: a connect is refused
        urls = {
            "refused": f"http://127.0.0.1:{unused.getsockname()[1]}/v1",
            "unknown host": "http://upstream.invalid/v1",
            "no TLS": f"https://127.0.0.1:{upstream.port}/v1",
            "no answer to the connect": f"http://127.0.0.1:{full_backlog}/v1",
        }
        service = start_service(urls[what], environment={"CONNECT_TIMEOUT_SECONDS": "1"})
        stream_id = service.create("hello")
        with service.follow(stream_id, timeout_seconds=15) as reader:
            reader.read_all()

    played = Played(stream_id, reader, [])
    assert_one_proper_end(played)
    assert_nothing_leaks(played, service)
    error = played.last["error"]
    assert (error["type"], error["code"]) == ("upstream_unreachable", "upstream_unreachable")
    assert (error["retryable"], error["partial"]) == (True, False)
