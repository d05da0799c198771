"""What a chat client hears of an answer: the upstream's own chunks, or what they add up to."""

import json
from typing import Any

import gevent
import pytest

from streaming.eventlogs.memory import MemoryLog
from streaming.events import Done, Event, Reasoning, Token, ToolCall, Usage
from tests.chunk_streams import HEAD, LOGPROBS, STREAMS, USAGE, as_json, chunk
from tests.doubles import Gate, ScriptedSource, eventually
from tests.web.chat_answers import ask, chunks_of, completion, text_of, upstream_of
from tests.web.conftest import Compose

REGULAR = [
    "plain",
    "the usage at the end",
    "log-probabilities",
    "tier and fingerprint change",
    "unknown fields everywhere",
    "reasoning, then text",
    "reasoning by its other name",
    "a refusal",
    "a call in fragments",
    "parallel calls",
    "two choices",
    "two choices in the first",
    "text in the first",
    "odd text",
    "extra content",
]


@pytest.mark.parametrize("name", REGULAR)
def test_chunks_are_the_upstreams_own(compose: Compose, name: str) -> None:
    chunks = STREAMS[name]
    response = ask(compose(upstream_of(chunks)), stream=True, stream_options={"include_usage": True})

    said = chunks_of(response)
    said, added = said[: len(chunks)], said[len(chunks) :]

    for ours, theirs in zip(said, chunks, strict=True):
        assert as_json(without_additions(ours, theirs)) == as_json(theirs)
    for choice in (choice for one in added for choice in one["choices"]):
        assert (choice["delta"], choice["finish_reason"]) == ({}, "stop"), "where the upstream gave no reason"


def without_additions(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Take away what a client cannot do without and this upstream left out."""
    choices = []
    for choice, other in zip(ours["choices"], theirs["choices"], strict=True):
        kept = {name: value for name, value in choice.items() if name in other or name not in ADDED}
        delta = other.get("delta") or {}
        kept["delta"] = {
            name: value
            for name, value in choice["delta"].items()
            if name in delta or (name, value) != ("role", "assistant")
        }
        choices.append(kept)
    return ours | {"choices": choices}


ADDED = {"index", "finish_reason"}


@pytest.mark.parametrize("name", STREAMS)
def test_every_stream_has_what_clients_cannot_do_without(compose: Compose, name: str) -> None:
    said = chunks_of(ask(compose(upstream_of(STREAMS[name])), stream=True))

    begun: dict[int, dict[str, Any]] = {}
    reasons: dict[int, str] = {}
    calls: set[tuple[int, int]] = set()
    for one in said:
        assert {"id", "object", "created", "model", "choices"} <= one.keys()
        assert "error" not in one, "for the AI SDK that is an error, even when it is null"
        assert isinstance(one["choices"], list)
        assert one["choices"] or not one.get("usage"), "a usage that nobody asked for"
        for choice in one["choices"]:
            assert {"index", "delta", "finish_reason"} <= choice.keys()
            begun.setdefault(choice["index"], choice["delta"])
            reasons |= {choice["index"]: choice["finish_reason"]} if choice["finish_reason"] else {}
            for call in choice["delta"].get("tool_calls") or []:
                assert isinstance(call["index"], int)
                if (at := (choice["index"], call["index"])) not in calls:
                    assert call["id"]
                    assert call["function"]["name"]
                    calls.add(at)
    assert all(delta.get("role") == "assistant" for delta in begun.values()), "the first delta has the role"
    assert reasons.keys() == (begun.keys() or {0}), "every choice has a reason for its end"


def test_usage_is_told_only_on_request(compose: Compose) -> None:
    chunks = STREAMS["the usage at the end"]
    silent = chunks_of(ask(compose(upstream_of(chunks)), stream=True))
    off = chunks_of(ask(compose(upstream_of(chunks)), stream=True, stream_options={"include_usage": False}))
    told = chunks_of(ask(compose(upstream_of(chunks)), stream=True, stream_options={"include_usage": True}))

    assert silent == off == told[:-1]
    assert not any("usage" in one for one in silent)
    assert told[-1]["choices"] == []
    assert told[-1]["usage"] == USAGE


def test_usage_that_an_upstream_says_first_is_told_last(compose: Compose) -> None:
    source = upstream_of(STREAMS["the usage first"])

    said = chunks_of(ask(compose(source), stream=True, stream_options={"include_usage": True}))

    assert [bool(one["choices"]) for one in said].index(False) == len(said) - 1


def test_a_tool_call_without_an_index_gets_one(compose: Compose) -> None:
    said = chunks_of(ask(compose(upstream_of(STREAMS["a call without an index"])), stream=True))

    calls = [
        call for one in said for choice in one["choices"] for call in choice["delta"].get("tool_calls", [])
    ]
    assert [(call["index"], call["id"], call["type"]) for call in calls] == [
        (0, "call_1", "function"),
        (1, "call_2", "function"),
    ]


def test_a_run_of_another_source_is_chunks_too(compose: Compose) -> None:
    events: list[list[Event]] = [
        [Reasoning("hm")],
        [Token("Hi")],
        [ToolCall("call_9", "get_weather", {"city": "Köln"})],
        [Usage({"input_tokens": 3, "output_tokens": 2})],
        [Done("stop")],
    ]
    said = chunks_of(
        ask(compose(ScriptedSource(*events)), stream=True, stream_options={"include_usage": True})
    )

    assert said[0]["choices"][0]["delta"] == {"role": "assistant", "reasoning_content": "hm"}
    assert text_of(said) == "Hi"
    (call,) = said[2]["choices"][0]["delta"]["tool_calls"]
    assert (call["index"], call["id"]) == (0, "call_9")
    assert json.loads(call["function"]["arguments"]) == {"city": "Köln"}
    assert said[3]["choices"][0]["finish_reason"] == "stop"
    assert said[4]["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


@pytest.mark.parametrize("name", [name for name in STREAMS if name != "Azure's filter first"])
def test_the_whole_is_what_the_chunks_add_up_to(compose: Compose, name: str) -> None:
    service = compose(upstream_of(STREAMS[name]))
    said = chunks_of(ask(service, stream=True))

    whole = completion(service)

    for choice in whole["choices"]:
        for field in ("content", "refusal", "reasoning_content", "reasoning"):
            assert (choice["message"].get(field) or "") == text_of(said, choice["index"], field)
    assert {choice["index"] for choice in whole["choices"]} == {
        choice["index"] for one in said for choice in one["choices"]
    }


def test_a_whole_answer_has_its_usage_asked_or_not(compose: Compose) -> None:
    whole = completion(compose(upstream_of(STREAMS["the usage at the end"])))

    assert whole["usage"] == USAGE
    assert whole["choices"][0]["message"]["content"] == "Hi"


def test_a_whole_answer_has_its_tool_calls_without_their_places(compose: Compose) -> None:
    whole = completion(compose(upstream_of(STREAMS["parallel calls, interleaved"])))

    function = {"name": "get_weather", "arguments": '{"a":1}'}
    assert whole["choices"][0]["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": function},
        {"id": "call_2", "type": "function", "function": function | {"arguments": '{"b":2}'}},
    ]


def test_a_whole_answer_of_several_choices_has_each(compose: Compose) -> None:
    chunks = [
        chunk({"role": "assistant", "content": "a"}),
        chunk({"role": "assistant", "content": "A"}, choice={"index": 1}),
        chunk({"content": "b"}),
        chunk(finish="stop"),
        chunk({"content": "B"}, choice={"index": 1}),
        chunk(None, "length", {"index": 1}),
    ]
    whole = completion(compose(upstream_of(chunks)), n=2)

    assert [(one["index"], one["message"]["content"], one["finish_reason"]) for one in whole["choices"]] == [
        (0, "ab", "stop"),
        (1, "AB", "length"),
    ]


def test_a_whole_answer_keeps_what_chunks_say_besides_text(compose: Compose) -> None:
    citation = {"type": "url_citation", "url_citation": {"url": "https://x", "start_index": 0}}
    more = {"content": [LOGPROBS["content"][0] | {"token": "lo"}], "refusal": None}
    chunks = [
        chunk({"role": "assistant", "content": ""}, service_tier="flex", system_fingerprint="fp_1"),
        chunk({"reasoning_content": "Let me "}, x_top=1),
        chunk({"reasoning_content": "think"}),
        chunk({"content": "Hel"}, choice={"logprobs": LOGPROBS}),
        chunk({"content": "lo"}, choice={"logprobs": more}),
        chunk({"annotations": [citation]}),
        chunk({"annotations": [citation]}, "stop"),
        {**HEAD, "choices": [], "usage": USAGE},
    ]

    whole = completion(compose(upstream_of(chunks)))

    (choice,) = whole["choices"]
    assert choice["message"]["reasoning_content"] == "Let me think"
    assert choice["message"]["annotations"] == [citation, citation]
    assert choice["logprobs"]["content"] == [*LOGPROBS["content"], *more["content"]]
    assert (whole["service_tier"], whole["system_fingerprint"], whole["x_top"]) == ("flex", "fp_1", 1)


def test_a_refusal_is_not_content(compose: Compose) -> None:
    whole = completion(compose(upstream_of([*STREAMS["a refusal"], chunk(finish="stop")])))

    message_ = whole["choices"][0]["message"]
    assert (message_["refusal"], message_["content"] or "") == ("I won't", "")


def test_a_whole_answer_and_its_head_come_while_nobody_else_listens(compose: Compose) -> None:
    gate, log = Gate(), MemoryLog()
    service = compose(ScriptedSource([Token("a")], gate, [Token("b")], [Done("stop")]), log)
    asking = gevent.spawn(ask, service)
    assert gate.reached.wait(5)
    (stream_id,) = log._streams
    follower = service.client.application.test_client()

    eventually(lambda: follower.get(f"/streams/{stream_id}").json["text"] == "a")
    gate.open()

    assert asking.get(timeout=5).json["choices"][0]["message"]["content"] == "ab"
