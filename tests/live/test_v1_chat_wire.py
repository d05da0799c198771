"""What ``/v1/chat/completions`` sends, byte for byte beside what the upstream sent."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.service import EventReader, Service, Upstream
from tests.live.upstream import LEAK
from tests.live.v1 import (
    MURMURING,
    PATH,
    SILENCES,
    chunks_of,
    messages,
    new_token,
    said_by,
    text_of,
    with_roles,
)

PLAYS: dict[str, dict[str, Any]] = {
    "plain": {"tokens": 5},
    "long": {"tokens": 400, "fill": 40},
    "paced": {"tokens": 5, "pace_ms": 20},
    "odd text": {"text": 'a\nb\r\n\u2028\u2029\u0085\x0b\x00é€\N{GRINNING FACE} data: x\n\n"\\', "pieces": 9},
    "tools": {"play": "tools"},
    "reasoning": {"play": "reasoning"},
    "a refusal": {"play": "refusal"},
    "log-probabilities": {"play": "logprobs"},
    "unknown fields": {"play": "unknown"},
    "two choices": {"play": "two_choices", "tokens": 4},
    "noise": {"play": "noise"},
    "a byte order mark": {"play": "bom"},
    "carriage returns": {"play": "cr"},
    "byte by byte": {"play": "byte_by_byte", "tokens": 3},
    "no end of the connection": {"play": "done_then_silence", "tokens": 3, "after": 3},
    "without [DONE]": {"play": "no_done"},
}


@pytest.fixture(scope="module")
def murmuring(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that says often that it is there."""
    service = Service(tmp_path_factory.mktemp("murmuring"), upstream.base_url, environment=MURMURING)
    yield service
    service.stop()


@pytest.mark.parametrize("name", PLAYS)
def test_every_chunk_is_the_upstreams_own(service: Service, upstream: Upstream, name: str) -> None:
    asked = {
        "messages": messages(token=new_token(), **PLAYS[name]),
        "stream_options": {"include_usage": True},
    }
    with EventReader(upstream.port).open(PATH, method="POST", body={"stream": True, **asked}) as reader:
        theirs = []
        for event in reader:
            if event.data == b"[DONE]":
                break
            theirs.append(event.json())

    ours = chunks_of(service.port, **asked)

    assert len(theirs) > 2
    assert ours == with_roles(theirs)


def test_the_wire_has_only_data_and_comments(murmuring: Service) -> None:
    reader, said = said_by(murmuring.port, messages=messages(**SILENCES))

    assert len(reader.comments) >= 8, "no heartbeats came: the silence proves nothing"
    lines = bytes(reader.body).split(b"\n")
    assert {line.split(b" ")[0] for line in lines} == {b"data:", b":", b""}
    assert all(said), "an empty event crashes the Python and Node SDKs"
    assert said[-1] == "[DONE]"
    assert text_of([json.loads(one) for one in said[:-1]]) == "w0 w1 "


def test_usage_is_passed_on_only_when_asked_for_but_always_asked_for(
    service: Service, upstream: Upstream
) -> None:
    token = new_token()
    asked = {"messages": messages(token=token, tokens=3)}

    silent = chunks_of(service.port, **asked)
    told = chunks_of(service.port, **asked, stream_options={"include_usage": True})

    assert told[:-1] == silent
    assert not any("usage" in one or not one["choices"] for one in silent)
    assert told[-1]["choices"] == []
    assert told[-1]["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert [one["body"]["stream_options"] for one in upstream.log(token)] == [{"include_usage": True}] * 2


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_an_answer_says_who_asked_and_where_its_run_is(service: Service, stream: bool) -> None:
    body = {"messages": messages(tokens=2), "stream": stream}
    answer = service.request("POST", PATH, body, {"X-Request-Id": "mine"})

    assert answer.status == 200
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["content-location"] == f"/streams/{answer.headers['stream-id']}"
    assert service.snapshot(answer.headers["stream-id"])["text"] == "w0 w1 "


# An end is an end


@pytest.mark.parametrize(
    "script",
    [
        {"play": "stop"},
        {"play": "cut"},
        {"play": "cut", "reset": True},
        {"play": "neither"},
        {"play": "stream_error"},
        {"play": "garbage"},
        {"play": "half_open"},
    ],
    ids=lambda script: "-".join(map(str, script.values())),
)
def test_an_answer_without_its_end_ends_in_an_error_and_no_done(
    impatient_service: Service, script: dict[str, Any]
) -> None:
    script = {"tokens": 4, "after": 2, "pace_ms": 100, "first_ms": 100} | script
    reader, said = said_by(impatient_service.port, messages=messages(**script))

    assert reader.status == 200
    assert reader.whole, "the connection is ended in order"
    *chunks, last = map(json.loads, said)
    assert set(last) == {"error"}
    assert {"message", "type", "param", "code"} <= last["error"].keys()
    assert text_of(chunks).startswith("w0 w1 ")
    assert not any(choice["finish_reason"] for one in chunks for choice in one["choices"])
    assert LEAK.encode() not in bytes(reader.raw)


@pytest.mark.parametrize("play", ["ok", "no_done", "no_finish", "whole", "tools", "two_choices"])
def test_an_answer_with_its_end_has_a_reason_and_done(service: Service, play: str) -> None:
    chunks = chunks_of(service.port, messages=messages(play=play, tokens=3))

    choices = {choice["index"] for one in chunks for choice in one["choices"]}
    ended = {choice["index"] for one in chunks for choice in one["choices"] if choice["finish_reason"]}
    assert ended == choices


@pytest.mark.parametrize(
    ("status", "ours", "kind", "retry"),
    [
        (400, 400, "invalid_request_error", None),
        (401, 502, "server_error", "false"),
        (404, 404, "invalid_request_error", None),
        (429, 429, "rate_limit_error", "true"),
        (500, 502, "server_error", "true"),
        (503, 503, "server_error", "true"),
    ],
)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_refusing_upstream_is_a_status_in_openais_shape(
    impatient_service: Service, status: int, ours: int, kind: str, retry: str | None, stream: bool
) -> None:
    script = {"play": "status", "status": status, "code": "model_not_found" if status == 404 else None}
    answer = impatient_service.request("POST", PATH, {"messages": messages(**script), "stream": stream})

    assert answer.status == ours
    error = answer.json()["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    assert error["type"] == kind
    assert answer.headers.get("x-should-retry") == retry
    assert ("retry-after" in answer.headers) == (ours in (429, 503))
    assert answer.headers["x-request-id"]
    assert LEAK.encode() not in answer.body
