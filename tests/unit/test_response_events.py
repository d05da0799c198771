"""Nothing of an upstream's Responses events is lost on the way through the log."""

import itertools
import json
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import BaseModel
from openai.types.responses import Response, ResponseStreamEvent

from streaming import sse
from streaming.errors import (
    UpstreamAuth,
    UpstreamBadResponse,
    UpstreamFailure,
    UpstreamOverloaded,
    UpstreamQuota,
    UpstreamRateLimited,
    UpstreamRejected,
)
from streaming.events import Done, Event, Reasoning, ResponseEvent, Token, ToolCall, Usage, decode, encode
from streaming.sources import _response_whole
from streaming.sources._response_events import ResponseReader

AT_RANDOM = settings(deadline=None, database=None, max_examples=200)
LEAK = "sk-quoted"


# Reading and writing back


def read(said: Iterable[Any], reader: ResponseReader | None = None) -> list[Event]:
    """Return the events of some, as they come out of the log again."""
    reader = reader or ResponseReader()
    found: list[Event] = []
    for one in said:
        found += reader.read(one if isinstance(one, bytes) else json.dumps(one).encode())
    return [decode(encode(event)) for event in found]


def rewritten(events: Sequence[Event], learn_from_whole: bool = True) -> list[dict[str, Any]]:
    """Rebuild the upstream's events from ours alone, numbered from 0.

    A delta is like the last one of its type, those that were kept whole counted or not.
    """
    written: list[dict[str, Any]] = []
    shapes: dict[str, dict[str, Any]] = {}
    for event in events:
        match event:
            case ResponseEvent(rest, more=True):
                shapes[rest["type"]] = rest
                continue
            case ResponseEvent(rest):
                written.append(dict(rest))
                if learn_from_whole:
                    shapes[rest["type"]] = {name: v for name, v in rest.items() if name != "delta"}
            case Token(content, refusal):
                kind = "response.refusal.delta" if refusal else "response.output_text.delta"
                written.append({**shapes[kind], "delta": content})
            case Reasoning(content, field):
                written.append({**shapes[f"response.{field}.delta"], "delta": content})
    return [{**one, "sequence_number": number} for number, one in enumerate(written)]


def numbered(said: Iterable[dict[str, Any]], first: int = 0) -> list[dict[str, Any]]:
    return [{**one, "sequence_number": number} for number, one in enumerate(said, first)]


def text_of(events: Iterable[Event]) -> str:
    return "".join(event.content for event in events if isinstance(event, Token))


def as_json(value: Any) -> Any:
    """Make values that are the same JSON equal, and others not: ``1`` is not ``true``."""
    return json.dumps(value, sort_keys=True)


# What an upstream says

USAGE = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 9,
}
HEAD = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1_700_000_000,
    "model": "m-1",
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}
AT = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "weather",
    "arguments": '{"city": "Paris"}',
    "status": "completed",
}


def created() -> dict[str, Any]:
    return {"type": "response.created", "response": {**HEAD, "status": "in_progress", "output": []}}


def delta(text: str, **fields: Any) -> dict[str, Any]:
    return {"type": "response.output_text.delta", **AT, "logprobs": [], "delta": text} | fields


def completed(*output: dict[str, Any], usage: Any = USAGE) -> dict[str, Any]:
    response = {**HEAD, "status": "completed", "output": list(output), "usage": usage}
    return {"type": "response.completed", "response": response}


def incomplete(reason: Any) -> dict[str, Any]:
    response = {**HEAD, "status": "incomplete", "output": [], "incomplete_details": reason}
    return {"type": "response.incomplete", "response": response}


def message(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": content,
    }


def reasoning(text: str, kind: str = "reasoning_text") -> dict[str, Any]:
    index = "summary_index" if "summary" in kind else "content_index"
    return {
        "type": f"response.{kind}.delta",
        "item_id": "rs_1",
        "output_index": 0,
        index: 0,
        "delta": text,
    }


def item_done(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": 0, "item": item}


STREAMS: dict[str, list[dict[str, Any]]] = {
    "plain": [created(), delta("Hel"), delta("lo"), completed(message("Hello"))],
    "reasoning before text": [
        created(),
        reasoning("so "),
        reasoning("then"),
        reasoning("In short", "reasoning_summary_text"),
        delta("Hi"),
        completed(message("Hi")),
    ],
    "two items whose deltas alternate": [
        delta("a"),
        delta("b", item_id="msg_2", output_index=1),
        delta("c"),
        delta("d"),
        completed(),
    ],
    "log probabilities": [
        delta("a", logprobs=[{"token": "a", "logprob": -0.5, "top_logprobs": []}]),
        delta("b", logprobs=[{"token": "b", "logprob": -1.5, "top_logprobs": []}]),
        delta("c"),
        completed(),
    ],
    "empty deltas": [delta(""), delta("a"), delta("", output_index=7), delta("b"), completed()],
    "1 that becomes true": [delta("a", x=1), delta("b", x=True), delta("c", x=1.0), completed()],
    "a refusal": [
        {"type": "response.refusal.delta", **AT, "delta": "I can"},
        {"type": "response.refusal.delta", **AT, "delta": "not."},
        completed(),
    ],
    "a call": [
        {"type": "response.output_item.added", "output_index": 0, "item": {**CALL, "arguments": ""}},
        {
            "type": "response.function_call_arguments.delta",
            "item_id": "fc_1",
            "output_index": 0,
            "delta": '{"ci',
        },
        item_done(CALL),
        completed(CALL),
    ],
    "events and fields nobody knows": [
        {"type": "keepalive"},
        {"type": "response.new_thing.delta", "delta": {"deep": [1, None]}, "x": "\u2028"},
        {"type": "response.new_thing.delta", "delta": "text"},
        delta("a", x_vendor={"kept": 1.5}),
        completed(),
    ],
}


@pytest.mark.parametrize("said", STREAMS.values(), ids=STREAMS)
def test_what_the_upstream_said_can_be_written_again(said: list[dict[str, Any]]) -> None:
    events = read(numbered(said, first=5))

    for learn_from_whole in (True, False):
        assert as_json(rewritten(events, learn_from_whole)) == as_json(numbered(said))


@pytest.mark.parametrize("said", STREAMS.values(), ids=STREAMS)
def test_a_stream_cut_anywhere_holds_what_came_before_and_no_end(said: list[dict[str, Any]]) -> None:
    for cut in range(len(said)):
        reader = ResponseReader()
        events = read(said[:cut], reader)

        assert as_json(rewritten(events)) == as_json(numbered(said[:cut]))
        assert not reader.ended
        assert not any(isinstance(event, Done) for event in events)


@pytest.mark.parametrize("said", STREAMS.values(), ids=STREAMS)
def test_bytes_one_by_one_give_the_same_events(said: list[dict[str, Any]]) -> None:
    wire = b"".join(sse.frame(json.dumps(one).encode(), event=one["type"]) for one in said)
    decoder = sse.Decoder(100_000)

    found = [data for place in range(len(wire)) for data in decoder.feed(wire[place : place + 1])]

    assert read(found) == read(said)


def test_deltas_that_differ_only_in_their_text_are_nothing_but_text() -> None:
    events = read([delta("a", sequence_number=1), delta("b", sequence_number=2), delta("c")])

    assert [type(event) for event in events] == [ResponseEvent, Token, Token, Token]
    assert events[0] == ResponseEvent({"type": "response.output_text.delta", **AT, "logprobs": []}, more=True)


def test_padding_is_not_kept() -> None:
    first, second = delta("a", obfuscation="xyzzy"), delta("b", obfuscation="plugh00")

    events = read([first, second])

    assert [type(event) for event in events] == [ResponseEvent, Token, Token]
    assert b"obfuscation" not in b"".join(map(encode, events))


# Every event the SDK knows


def sample(kind: Any) -> Any:
    """Return JSON that is of a type: a model of the SDK, or what its fields are made of."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return sample(arguments[0])
    if origin is Literal:
        return arguments[0]
    if origin in (typing.Union, types.UnionType):
        return sample(next(one for one in arguments if one is not type(None)))
    if origin is list:
        return [sample(arguments[0])]
    if origin is dict:
        return {"key": sample(arguments[1])}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {
            field.alias or name: sample(field.annotation)
            for name, field in kind.model_fields.items()
            if field.is_required()
        }
    return {str: "text", int: 3, float: 0.5, bool: True, object: {"any": [1]}}.get(kind, "anything")


def events_of_the_sdk() -> list[Any]:
    return [
        pytest.param(event, id=event["type"])
        for model in typing.get_args(typing.get_args(ResponseStreamEvent)[0])
        if (event := sample(model))["type"] not in ("error", "response.failed")
    ]


@pytest.mark.parametrize("event", events_of_the_sdk())
def test_every_event_of_the_sdk_survives(event: dict[str, Any]) -> None:
    said = [event, event] if event["type"] not in ("response.completed", "response.incomplete") else [event]

    assert as_json(rewritten(read(said))) == as_json(numbered(said))


def test_the_sdk_knows_enough_events_for_that_to_mean_something() -> None:
    assert len(events_of_the_sdk()) > 50


# Text, calls and ends


def test_text_refusals_and_reasoning_are_told_apart() -> None:
    events = read([*STREAMS["reasoning before text"][:-1], *STREAMS["a refusal"]])

    spoken = [event for event in events if isinstance(event, Token | Reasoning)]
    assert spoken == [
        Reasoning("so ", "reasoning_text"),
        Reasoning("then", "reasoning_text"),
        Reasoning("In short", "reasoning_summary_text"),
        Token("Hi"),
        Token("I can", refusal=True),
        Token("not.", refusal=True),
    ]


@pytest.mark.parametrize(
    ("item", "call"),
    [
        (CALL, ToolCall("call_1", "weather", {"city": "Paris"})),
        ({**CALL, "arguments": "not json"}, ToolCall("call_1", "weather", None, "not json")),
        ({**CALL, "arguments": "[1]"}, ToolCall("call_1", "weather", None, "[1]")),
        ({**CALL, "arguments": "[" * 9000}, ToolCall("call_1", "weather", None, "[" * 9000)),
        ({**CALL, "arguments": None, "name": 7}, ToolCall("call_1", "", None, "")),
        (
            {"type": "custom_tool_call", "call_id": "call_2", "name": "shell", "input": "ls -l"},
            ToolCall("call_2", "shell", None, "ls -l"),
        ),
        (
            {"type": "mcp_call", "id": "mcp_1", "name": "find", "server_label": "s", "arguments": "{}"},
            ToolCall("mcp_1", "find", {}),
        ),
    ],
)
def test_a_finished_call_is_told_after_its_event(item: dict[str, Any], call: ToolCall) -> None:
    assert read([item_done(item)]) == [ResponseEvent(item_done(item)), call]


@pytest.mark.parametrize("item", [message("hi"), {"type": "web_search_call"}, {"type": ["x"]}, {}, None, 3])
def test_other_items_are_no_calls(item: Any) -> None:
    assert read([item_done(item)]) == [ResponseEvent(item_done(item))]


ENDS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "completed": ([completed(message("hi"))], "stop"),
    "with a call": ([completed(CALL)], "tool_calls"),
    "with a call that only its own event tells": ([item_done(CALL), completed()], "tool_calls"),
    "with a call the upstream made itself": ([completed({"type": "mcp_call"})], "stop"),
    "with a call the upstream made itself, told by its own event": (
        [item_done({"type": "mcp_call"}), completed()],
        "stop",
    ),
    "output that is no list": ([completed() | {"response": {**HEAD, "output": 3}}], "stop"),
    "too long": ([incomplete({"reason": "max_output_tokens"})], "length"),
    "filtered": ([incomplete({"reason": "content_filter"})], "content_filter"),
    "for a new reason": ([incomplete({"reason": "boredom"})], "unknown"),
    "for no reason": ([incomplete(None)], "unknown"),
    "for a reason that is a list": ([incomplete({"reason": [1]})], "unknown"),
}


@pytest.mark.parametrize(("said", "reason"), ENDS.values(), ids=ENDS)
def test_an_answer_ends_for_a_reason(said: list[dict[str, Any]], reason: str) -> None:
    reader = ResponseReader()
    *_, done = read([delta("x"), *said], reader)

    assert isinstance(done, Done)
    assert done.finish_reason == reason
    assert reader.ended


def test_the_usage_comes_as_the_upstream_gave_it_before_the_end() -> None:
    last = read([completed()])

    assert last == [ResponseEvent(completed()), Usage(USAGE), Done("stop", USAGE)]
    assert read([completed(usage=None)])[1:] == [Done("stop", None)]


def test_what_comes_after_the_end_counts_for_nothing() -> None:
    reader = ResponseReader()
    read([completed()], reader)

    assert reader.read(json.dumps(delta("more")).encode()) == []
    assert reader.read(b"not json") == []


FAILURES: dict[str, tuple[dict[str, Any], type[UpstreamFailure], str]] = {
    "as documented": ({"type": "error", "code": "server_error", "message": LEAK}, UpstreamFailure, ""),
    "as it is sent": (
        {"type": "error", "error": {"type": "invalid_request_error", "code": "context_length_exceeded"}},
        UpstreamRejected,
        "context_length_exceeded",
    ),
    "as chat completions say it": (
        {"error": {"code": "insufficient_quota", "message": LEAK}},
        UpstreamQuota,
        "",
    ),
    "a failed response": (
        {"type": "response.failed", "response": {**HEAD, "error": {"code": "rate_limit_exceeded"}}},
        UpstreamRateLimited,
        "",
    ),
    "a failed response that says nothing": ({"type": "response.failed"}, UpstreamFailure, ""),
    "a bad image": (
        {"type": "response.failed", "response": {"error": {"code": "image_too_large", "message": LEAK}}},
        UpstreamRejected,
        "image_too_large",
    ),
    "a timeout of theirs": (
        {"type": "response.failed", "response": {"error": {"code": "vector_store_timeout"}}},
        UpstreamFailure,
        "",
    ),
    "a key": ({"type": "error", "code": "invalid_api_key", "message": LEAK}, UpstreamAuth, ""),
    "overloaded": ({"type": "error", "error": {"type": "overloaded_error"}}, UpstreamOverloaded, ""),
    "a code nobody knows": ({"type": "error", "code": LEAK}, UpstreamFailure, ""),
    "a code that is a list": ({"type": "error", "code": [LEAK], "error": "x"}, UpstreamFailure, ""),
}


@pytest.mark.parametrize(("said", "kind", "code"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_told_in_our_words(said: dict[str, Any], kind: type[UpstreamFailure], code: str) -> None:
    reader = ResponseReader()
    with pytest.raises(UpstreamFailure) as caught:
        reader.read(json.dumps(said).encode())

    assert type(caught.value) is kind
    assert caught.value.code == (code or kind.type)
    assert LEAK not in str(caught.value.info())
    assert not reader.ended


NOT_EVENTS: dict[str, bytes] = {
    "no json": b"{no",
    "a list": b"[1]",
    "no type": b'{"delta": "x"}',
    "a type that is a number": b'{"type": 3}',
    "a delta of text that is none": b'{"type": "response.output_text.delta", "delta": 3}',
    "a delta of text without one": b'{"type": "response.refusal.delta"}',
    "too deep": b'{"type": "x", "y": ' + b"[" * 100 + b"]" * 100 + b"}",
    "not a number": b'{"type": "x", "y": NaN}',
    "an integer of 5000 digits": b'{"type": "x", "y": ' + b"7" * 5000 + b"}",
    "an end of no response": b'{"type": "response.completed"}',
}


@pytest.mark.parametrize("data", NOT_EVENTS.values(), ids=NOT_EVENTS)
def test_what_is_not_an_event_is_refused(data: bytes) -> None:
    with pytest.raises(UpstreamBadResponse) as caught:
        ResponseReader().read(data)

    assert caught.value.code == "json"


# Characters


def test_halves_of_a_character_in_two_deltas_are_joined() -> None:
    events = read([delta("a\ud83d"), delta("\ude00b"), completed()])

    assert text_of(events) == "a\N{GRINNING FACE}b"


def test_halves_of_a_character_are_joined_in_arguments_too() -> None:
    fragments = [
        {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": text}
        for text in ('"\ud83d', '\ude00"')
    ]

    written = rewritten(read(fragments))

    assert "".join(one["delta"] for one in written) == '"\N{GRINNING FACE}"'


@pytest.mark.parametrize(
    "after",
    [
        delta("b"),
        delta("", item_id="msg_2"),
        {"type": "response.output_text.done", **AT, "text": "a"},
        completed(),
    ],
)
def test_a_half_that_nothing_completes_becomes_a_replacement_character(after: dict[str, Any]) -> None:
    events = read([delta("a\ud83d"), after])

    assert text_of(events).startswith("a\ufffd")
    types_written = [one["type"] for one in rewritten(events)]
    if after["type"] != "response.output_text.delta":
        assert types_written.index(after["type"]) == len(types_written) - 1


def test_invalid_utf8_and_lone_halves_become_replacement_characters_everywhere() -> None:
    event = b'{"type": "response.output_text.done", "text": "a\xffb", "x\\ud83d": ["\\udc00"]}'

    (read_event,) = read([event])

    assert read_event == ResponseEvent(
        {"type": "response.output_text.done", "text": "a\ufffdb", "x\ufffd": ["\ufffd"]}
    )


texts = st.text(max_size=4)
said_at_random = st.lists(
    st.one_of(
        st.builds(delta, texts, output_index=st.integers(0, 1)),
        st.builds(reasoning, texts, st.sampled_from(["reasoning_text", "reasoning_summary_text"])),
        st.builds(lambda text: {"type": "response.output_text.done", "text": text}, texts),
    ),
    max_size=12,
)


@AT_RANDOM
@given(said_at_random)
def test_any_events_can_be_written_again(said: list[dict[str, Any]]) -> None:
    written = rewritten(read([*said, completed()]))

    assert as_json(written) == as_json(numbered([*said, completed()]))


@AT_RANDOM
@given(st.text("a\N{GRINNING FACE}\N{EURO SIGN}", max_size=8), st.sets(st.integers(0, 16)))
def test_text_cut_anywhere_comes_through_whole(text: str, cuts: set[int]) -> None:
    units = text.encode("utf-16-le")
    places = [0, *sorted(2 * cut for cut in cuts if 2 * cut < len(units)), len(units)]
    pieces = [
        units[start:end].decode("utf-16-le", "surrogatepass") for start, end in itertools.pairwise(places)
    ]

    events = read([*map(delta, pieces), completed()])

    assert text_of(events) == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
field_names = st.sampled_from("type delta item response output usage error status content".split())
kinds = st.sampled_from(
    ["response.completed", "response.incomplete", "response.output_item.done", "response.output_text.delta"]
)


@AT_RANDOM
@given(st.dictionaries(field_names, json_values), kinds)
def test_an_upstream_that_lies_is_an_upstream_failure(said: dict[str, Any], kind: str) -> None:
    try:
        events = ResponseReader().read(json.dumps({**said, "type": kind}).encode())
    except UpstreamFailure:
        return
    assert [decode(encode(event)) for event in events]


# An answer that came whole


def whole(*output: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**HEAD, "status": "completed", "output": list(output), "usage": USAGE} | fields


def read_whole(response: dict[str, Any]) -> list[Event]:
    reader = ResponseReader()
    return [event for one in _response_whole.events_of(response) for event in reader.take(one)]


def test_a_whole_response_is_told_as_its_stream() -> None:
    thought = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "In short"}],
        "content": [{"type": "reasoning_text", "text": "so"}],
    }
    refused = {**message(""), "content": [{"type": "refusal", "refusal": "No."}]}
    response = whole(thought, message("Hello"), refused, CALL)

    events = read_whole(response)

    assert [event for event in events if not isinstance(event, ResponseEvent)] == [
        Reasoning("In short", "reasoning_summary_text"),
        Reasoning("so", "reasoning_text"),
        Token("Hello"),
        Token("No.", refusal=True),
        ToolCall("call_1", "weather", {"city": "Paris"}),
        Usage(USAGE),
        Done("tool_calls", USAGE),
    ]
    written = rewritten(events)
    assert written[-1]["response"] == response
    assert [one["item"] for one in written if one["type"] == "response.output_item.done"] == response[
        "output"
    ]


def test_a_whole_response_is_told_in_events_of_the_sdk() -> None:
    from openai import omit
    from openai._models import construct_type
    from openai.lib.streaming.responses._responses import ResponseStreamState

    state = ResponseStreamState(input_tools=omit, text_format=omit)
    for one in rewritten(read_whole(whole(message("Hello"), CALL))):
        state.handle_event(construct_type(type_=ResponseStreamEvent, value=one))

    assert isinstance(state._completed_response, Response)
    assert state._completed_response.output_text == "Hello"


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (whole(status="failed", error={"code": "server_error", "message": LEAK}), UpstreamFailure),
        (whole(error={"code": "rate_limit_exceeded"}), UpstreamRateLimited),
        (whole(status="in_progress"), UpstreamBadResponse),
        (whole(status=["completed"]), UpstreamBadResponse),
        (whole(output="text"), UpstreamBadResponse),
        (whole("text"), UpstreamBadResponse),
        ({"choices": []}, UpstreamBadResponse),
    ],
)
def test_a_whole_answer_that_is_no_end_is_a_failure(
    response: dict[str, Any], kind: type[UpstreamFailure]
) -> None:
    with pytest.raises(UpstreamFailure) as caught:
        read_whole(response)

    assert type(caught.value) is kind


@AT_RANDOM
@given(st.lists(st.dictionaries(field_names, json_values), max_size=3))
def test_a_whole_answer_that_lies_is_an_upstream_failure(output: list[dict[str, Any]]) -> None:
    try:
        events = read_whole(whole(*output))
    except UpstreamFailure:
        return
    assert isinstance(events[-1], Done)
