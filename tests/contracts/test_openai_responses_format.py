"""What OpenAI's Responses dialect makes of a run: of an upstream that speaks it, and of any other."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from streaming.errors import ErrorInfo
from streaming.events import (
    Chunk,
    Done,
    Error,
    Event,
    Extra,
    Metrics,
    Reasoning,
    Record,
    ResponseEvent,
    Start,
    Status,
    Token,
    ToolCall,
    Usage,
    encode,
)
from streaming.formats import Message, Wants
from streaming.formats.openai_responses import ResponseStream, create
from streaming.reader import merged
from streaming.sources._chunks import ChunkReader
from tests.chunk_streams import STREAMS, as_json, chunk, fragment, says
from tests.openai_schemas import RESPONSE_EVENTS, check, check_event, example

FOLDER = Path(__file__).parents[1] / "transcripts"
TRANSCRIPTS = sorted(path.stem for path in FOLDER.glob("*.jsonl"))
START = Start("st_abc", "responses", "m-1", 1_767_225_600)
NAME = "abc"
ENDS = ("response.completed", "response.incomplete", "response.failed")
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
CUT = ErrorInfo("the answer was cut off", "upstream_truncated", "upstream_truncated", retryable=True)
DELTAS = {
    "response.output_text.delta": lambda text: Token(text),
    "response.refusal.delta": lambda text: Token(text, refusal=True),
    "response.reasoning_text.delta": lambda text: Reasoning(text, "reasoning_text"),
    "response.reasoning_summary_text.delta": lambda text: Reasoning(text, "reasoning_summary_text"),
}


def records(events: Sequence[Event]) -> list[Record]:
    return [Record(1, seq, encode(event)) for seq, event in enumerate(events, 1)]


def records_of(transcript: str) -> list[Record]:
    payloads = (FOLDER / f"{transcript}.jsonl").read_bytes().split(b"\n")[:-1]
    return [Record(1, seq, payload) for seq, payload in enumerate(payloads, 1)]


def messages_of(found: Sequence[Record], **wants: Any) -> list[Message]:
    wire_format = create(Wants(**wants))
    return [message for record in found for message in wire_format.encode(record)]


def told(*events: Event, **asked: Any) -> list[dict[str, Any]]:
    """Return the events a client is told of a run, each checked against OpenAI's schema."""
    found = messages_of(records([START, Status("connecting", 0), *events]), request={"response": asked})
    bodies = [json.loads(message.data) for message in found]
    for body in bodies:
        check_event(body)
    return bodies


def kinds(bodies: Sequence[dict[str, Any]]) -> list[str]:
    return [body["type"].removeprefix("response.") for body in bodies]


def in_log(said: dict[str, Any]) -> list[Event]:
    """Return what a source writes for one event of an upstream, without remembering the ones before."""
    rest = {name: value for name, value in said.items() if name != "sequence_number"}
    if said["type"] not in DELTAS:
        return [ResponseEvent(rest)]
    text = rest.pop("delta")
    return [ResponseEvent(rest, more=True), DELTAS[said["type"]](text)]


def read(chunks: list[dict[str, Any]]) -> list[Event]:
    """Return what the chat source writes for these chunks."""
    reader = ChunkReader()
    events = [event for each in chunks for event in reader.read(json.dumps(each).encode())]
    return [*events, *reader.end()]


# Every run


@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_every_event_is_what_openai_describes_and_the_last_one_ends_it(transcript: str) -> None:
    found = messages_of(records_of(transcript))
    bodies = [json.loads(message.data) for message in found]

    for body in bodies:
        check_event(body)
    assert [message.event for message in found] == [body["type"] for body in bodies]
    assert {message.id for message in found} == {""}
    assert [body["sequence_number"] for body in bodies] == list(range(len(bodies)))
    assert bodies[0]["type"] == "response.created"
    assert [body["type"] in ENDS for body in bodies] == [False] * (len(bodies) - 1) + [True]
    ids = {body["response"]["id"] for body in bodies if "response" in body}
    assert ids == {"resp_abcdefghiiiiiiiiiiiiiiiiiiiiiiiiii"}


@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_each_message_is_one_line_for_every_reader(transcript: str) -> None:
    for message in messages_of(records_of(transcript)):
        text = message.data.decode()
        assert text.splitlines() == [text]


@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_a_reader_goes_on_after_any_number_it_has(transcript: str) -> None:
    whole = messages_of(records_of(transcript))
    for number in range(-1, len(whole) + 1):
        rest = messages_of(records_of(transcript), starting_after=number)
        assert rest == whole[number + 1 :]


@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_the_object_holds_at_any_time_the_text_of_the_deltas_so_far(transcript: str) -> None:
    stream = ResponseStream({})
    texts = dict.fromkeys(DELTAS, "")
    for record in records_of(transcript):
        for event in stream.take(record):
            if event["type"] in texts:
                texts[event["type"]] += event["delta"]
        response = stream.response()
        check("Response", response)
        parts = [
            part
            for item in response["output"]
            for part in [*item.get("content", ()), *item.get("summary", ())]
        ]
        for kind, (part_type, field) in {
            "response.output_text.delta": ("output_text", "text"),
            "response.refusal.delta": ("refusal", "refusal"),
            "response.reasoning_text.delta": ("reasoning_text", "text"),
            "response.reasoning_summary_text.delta": ("summary_text", "text"),
        }.items():
            assert "".join(part[field] for part in parts if part["type"] == part_type) == texts[kind]


@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_the_last_event_holds_the_object_that_is_there_afterwards(transcript: str) -> None:
    stream = ResponseStream({})
    last = [event for record in records_of(transcript) for event in stream.take(record)][-1]

    assert last["response"] == stream.response()
    assert stream.response()["status"] not in ("in_progress", "queued")
    for item in stream.response()["output"]:
        assert item.get("status") != "in_progress"


@pytest.mark.parametrize("name", STREAMS)
def test_chunks_of_every_kind_make_events_openai_describes(name: str) -> None:
    bodies = told(*read(STREAMS[name]), Done("stop"))

    assert kinds(bodies)[:2] == ["created", "in_progress"]
    assert kinds(bodies)[-1] == "completed"
    items = [body["item"] for body in bodies if body["type"] == "response.output_item.done"]
    output = bodies[-1]["response"]["output"]
    assert sorted(items, key=str) == sorted(output, key=str)


@pytest.mark.parametrize("size", [2, 3, 1000])
@pytest.mark.parametrize("transcript", ["answer", "odd_text", "cancelled", "response"])
def test_merged_tokens_say_the_same_text(transcript: str, size: int) -> None:
    whole = [json.loads(m.data) for m in messages_of(records_of(transcript))]
    fewer = [json.loads(m.data) for m in messages_of(list(merged(records_of(transcript), size)))]

    assert spoken(fewer) == spoken(whole)
    assert len(fewer) <= len(whole)
    assert [body["sequence_number"] for body in fewer] == list(range(len(fewer)))


def spoken(bodies: Sequence[dict[str, Any]]) -> str:
    return "".join(body["delta"] for body in bodies if body["type"] == "response.output_text.delta")


def test_a_very_long_answer_is_not_copied_for_each_of_its_pieces() -> None:
    stream = ResponseStream({})
    pieces = itertools.chain([START], itertools.repeat(Token("x" * 80), 100_000), [Done("stop")])
    for seq, event in enumerate(pieces, 1):
        stream.take(Record(1, seq, encode(event)))

    (item,) = stream.response()["output"]
    assert len(item["content"][0]["text"]) == 8_000_000


# Of chat completions, and of any other source


def test_text_begins_with_an_item_and_a_part_and_ends_with_both() -> None:
    bodies = told(Token("Hel"), Token("lo"), Done("stop"))

    assert kinds(bodies) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert spoken(bodies) == "Hello"
    assert bodies[6]["text"] == "Hello"
    (item,) = bodies[-1]["response"]["output"]
    assert item == {
        "id": f"msg_{NAME}_0",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}],
    }


def test_an_answer_without_a_word_is_complete_all_the_same() -> None:
    bodies = told(Done("stop"))

    assert kinds(bodies) == ["created", "in_progress", "completed"]
    assert bodies[-1]["response"]["output"] == []


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "reasoning_text"])
def test_reasoning_comes_as_an_item_of_its_own_before_the_text(field: str) -> None:
    bodies = told(Reasoning("hm", field), Reasoning("m", field), Token("Hi"), Done("stop"))

    assert [kind for kind in kinds(bodies) if "reasoning" in kind] == [
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
    ]
    reasoning, message = bodies[-1]["response"]["output"]
    assert reasoning["id"] == f"rs_{NAME}_0"
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "hmm"}]
    assert reasoning["summary"] == []
    assert message["id"] == f"msg_{NAME}_1"


def test_a_summary_of_reasoning_stands_among_the_summaries() -> None:
    bodies = told(Reasoning("in short", "reasoning_summary_text"), Token("Hi"), Done("stop"))

    assert "reasoning_summary_part.added" in kinds(bodies)
    assert "reasoning_summary_text.delta" in kinds(bodies)
    assert "reasoning_summary_part.done" in kinds(bodies)
    reasoning = bodies[-1]["response"]["output"][0]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "in short"}]


def test_reasoning_that_a_server_sends_under_two_names_is_told_once() -> None:
    both = {"reasoning": "hm", "reasoning_content": "hm"}
    bodies = told(*read([chunk(both), says("Hi"), chunk(finish="stop")]), Done("stop"))

    assert bodies[-1]["response"]["output"][0]["content"] == [{"type": "reasoning_text", "text": "hm"}]


def test_a_refusal_is_a_part_of_the_message_and_not_its_text() -> None:
    bodies = told(Token("Well, "), Token("I ", refusal=True), Token("won't", refusal=True), Done("stop"))

    (item,) = bodies[-1]["response"]["output"]
    assert [part["type"] for part in item["content"]] == ["output_text", "refusal"]
    assert item["content"][1]["refusal"] == "I won't"
    assert [body["content_index"] for body in bodies if body["type"] == "response.refusal.delta"] == [1, 1]


def test_a_call_is_told_in_the_fragments_it_came_in() -> None:
    bodies = told(*read(STREAMS["a call in fragments"]), Done("tool_calls"))

    deltas = [body for body in bodies if body["type"] == "response.function_call_arguments.delta"]
    assert [body["delta"] for body in deltas] == ['{"ci', 'ty":"Köln"}']
    (item,) = bodies[-1]["response"]["output"]
    assert item == {
        "id": f"fc_{NAME}_0",
        "type": "function_call",
        "status": "completed",
        "call_id": "call_1",
        "name": "get_weather",
        "arguments": '{"city":"Köln"}',
    }


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (ToolCall("call_1", "look", {"at": ["ü"]}), '{"at":["ü"]}'),
        (ToolCall("call_1", "look", None, "{not json"), "{not json"),
        (ToolCall("call_1", "look", {}), "{}"),
    ],
)
def test_a_call_of_a_source_without_fragments_comes_in_one(call: ToolCall, arguments: str) -> None:
    bodies = told(Token("Let me look."), call, Done("tool_calls"))

    assert [body["delta"] for body in bodies if body["type"].endswith("arguments.delta")] == [arguments]
    assert [item["type"] for item in bodies[-1]["response"]["output"]] == ["message", "function_call"]
    assert bodies[-1]["response"]["output"][1]["arguments"] == arguments


def test_parallel_calls_are_items_of_their_own_even_when_their_fragments_mix() -> None:
    def begins(index: int) -> dict[str, Any]:
        function = {"name": f"tool{index}", "arguments": ""}
        return chunk(
            {"tool_calls": [{"index": index, "id": f"c{index}", "type": "function", "function": function}]}
        )

    bodies = told(
        *read(
            [
                begins(0),
                fragment('{"a"', 0),
                begins(1),
                fragment('{"b"', 1),
                fragment(":1}", 0),
                fragment(":2}", 1),
                chunk(finish="tool_calls"),
            ]
        ),
        Done("tool_calls"),
    )

    output = bodies[-1]["response"]["output"]
    assert [(item["call_id"], item["arguments"]) for item in output] == [("c0", '{"a":1}'), ("c1", '{"b":2}')]
    assert [item["status"] for item in output] == ["completed", "completed"]


def test_a_call_is_done_as_soon_as_the_next_one_begins() -> None:
    bodies = told(ToolCall("c0", "one", {"a": 1}), ToolCall("c1", "two", {"b": 2}), Done("tool_calls"))

    at = [
        (kind, body["output_index"])
        for kind, body in zip(kinds(bodies), bodies, strict=True)
        if "item." in kind
    ]
    assert at == [
        ("output_item.added", 0),
        ("output_item.done", 0),
        ("output_item.added", 1),
        ("output_item.done", 1),
    ]


def test_a_call_whose_name_comes_late_begins_with_its_name() -> None:
    late = [
        chunk({"tool_calls": [{"index": 0, "id": "c0", "function": {"arguments": '{"a"'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"name": "look", "arguments": ":1}"}}]}),
    ]
    bodies = told(*read(late), Done("tool_calls"))

    added = next(body for body in bodies if body["type"] == "response.output_item.added")
    assert added["item"]["name"] == "look"
    assert [body["delta"] for body in bodies if body["type"].endswith("arguments.delta")] == ['{"a":1}']


def test_a_custom_tool_is_called_with_text() -> None:
    custom = {"index": 0, "id": "c0", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    more = {"index": 0, "custom": {"input": " -l"}}
    bodies = told(*read([chunk({"tool_calls": [custom]}), chunk({"tool_calls": [more]})]), Done("tool_calls"))

    assert [body["delta"] for body in bodies if body["type"].endswith("input.delta")] == ["ls", " -l"]
    (item,) = bodies[-1]["response"]["output"]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "shell", "ls -l")


def test_annotations_of_chunks_are_told_flat() -> None:
    where = {"url": "https://example.org", "title": "x", "start_index": 0, "end_index": 2}
    cited = chunk({"annotations": [{"type": "url_citation", "url_citation": where}]})
    bodies = told(*read([says("Hi"), cited, chunk(finish="stop")]), Done("stop"))

    (added,) = [body for body in bodies if body["type"] == "response.output_text.annotation.added"]
    assert added["annotation"] == {"type": "url_citation", **where}
    assert added["annotation_index"] == 0
    (item,) = bodies[-1]["response"]["output"]
    assert item["content"][0]["annotations"] == [added["annotation"]]


def test_log_probabilities_stand_beside_the_text_they_are_of() -> None:
    bodies = told(*read(STREAMS["log-probabilities"]), Done("stop"))

    of_deltas = [body["logprobs"] for body in bodies if body["type"] == "response.output_text.delta"]
    assert [[one["token"] for one in each] for each in of_deltas] == [["Hel"], [], []]
    (item,) = bodies[-1]["response"]["output"]
    assert [one["token"] for one in item["content"][0]["logprobs"]] == ["Hel"]


def test_log_probabilities_that_every_chunk_repeats_stand_beside_every_text() -> None:
    logprobs = {"content": [{"token": "a", "logprob": -1, "bytes": None, "top_logprobs": []}]}
    repeated = [chunk({"content": "a"}, choice={"logprobs": logprobs}) for _ in range(3)]
    bodies = told(*read(repeated), Done("stop"))

    of_deltas = [body["logprobs"] for body in bodies if body["type"] == "response.output_text.delta"]
    assert [[one["token"] for one in each] for each in of_deltas] == [["a"]] * 3


def test_text_keeps_its_place_between_parts_of_chunks_that_hold_more() -> None:
    def both(reasoning: str, text: str) -> dict[str, Any]:
        return chunk({"reasoning_content": reasoning, "content": text})

    bodies = told(
        *read([says("a"), says("b"), both("x", "c"), says("d"), both("y", "e"), chunk(finish="stop")]),
        Done("stop"),
    )

    said = [(item["type"], item["content"][0]["text"]) for item in bodies[-1]["response"]["output"]]
    assert said == [
        ("message", "ab"),
        ("reasoning", "x"),
        ("message", "cd"),
        ("reasoning", "y"),
        ("message", "e"),
    ]


@pytest.mark.parametrize("junk", ["x", [1], [{"token": 3}], [{"token": "a", "logprob": "b"}], {"a": 1}, None])
def test_log_probabilities_that_are_none_are_left_out(junk: object) -> None:
    token = Token("Hi", extra=Extra(choice={"logprobs": {"content": junk}}))

    assert spoken(told(token, Done("stop"))) == "Hi"


def test_of_several_choices_the_first_is_the_answer() -> None:
    other = Chunk(whole={"choices": [{"index": 1, "delta": {"content": "other"}}]})
    both = Chunk(
        whole={"choices": [{"index": 1, "delta": {"content": "o"}}, {"delta": {"content": "!"}, "index": 0}]}
    )

    assert spoken(told(Token("Hi"), other, both, Done("stop"))) == "Hi!"


@pytest.mark.parametrize(
    "calls", ["x", [1, {}], [{"index": "a"}], [{"function": 3}], [{"index": 0, "id": 7}], {}]
)
def test_what_is_no_call_breaks_nothing(calls: object) -> None:
    bodies = told(Token("Hi"), Chunk(extra=Extra(delta={"tool_calls": calls})), Done("stop"))

    assert bodies[-1]["type"] == "response.completed"
    assert spoken(bodies) == "Hi"


# The end


@pytest.mark.parametrize(
    ("reason", "told_reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_that_was_cut_short_is_incomplete_and_says_why(reason: str, told_reason: str) -> None:
    bodies = told(Token("Hel"), Done(reason))

    assert bodies[-1]["type"] == "response.incomplete"
    response = bodies[-1]["response"]
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": told_reason}
    assert response["output"][0]["status"] == "incomplete"
    assert response["completed_at"] is None


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "unknown", "eos"])
def test_any_other_reason_of_the_model_is_an_end(reason: str) -> None:
    bodies = told(Token("Hi"), Done(reason, metrics=Metrics(1, 2.4)))

    assert bodies[-1]["type"] == "response.completed"
    assert bodies[-1]["response"]["completed_at"] == START.created + 2


def test_a_cancelled_run_keeps_its_text_and_looks_like_no_success() -> None:
    bodies = told(Token("so far"), Done("cancelled"))

    assert bodies[-1]["type"] == "response.failed"
    response = bodies[-1]["response"]
    assert response["status"] == "cancelled"
    assert response["error"] is None
    assert response["output"][0]["content"][0]["text"] == "so far"
    assert response["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("upstream_truncated", "server_error"),
        ("upstream_timeout", "server_error"),
        ("interrupted", "server_error"),
        ("upstream_rate_limited", "rate_limit_exceeded"),
        ("upstream_quota", "rate_limit_exceeded"),
        ("upstream_rejected", "invalid_prompt"),
        ("invalid_request", "invalid_prompt"),
        ("nobody_knows", "server_error"),
    ],
)
def test_a_failure_has_one_of_openai_s_codes_and_our_words(kind: str, code: str) -> None:
    bodies = told(Token("Hel"), Error(ErrorInfo("our words", kind, kind, request_id="req_1")))

    assert bodies[-1]["type"] == "response.failed"
    response = bodies[-1]["response"]
    assert response["status"] == "failed"
    assert response["error"]["code"] == code
    assert response["error"]["message"] == "our words"
    assert response["error"]["type"] == kind
    assert spoken(bodies) == response["output"][0]["content"][0]["text"] == "Hel"


def test_a_run_that_fails_before_its_first_word_is_created_first() -> None:
    assert kinds(told(Error(CUT))) == ["created", "failed"]
    assert kinds(told(Done("cancelled"))) == ["created", "failed"]


def test_what_keeps_one_reader_from_going_on_is_an_error_event_that_sdks_raise() -> None:
    lost = Record(0, 0, encode(Error(ErrorInfo("the store is away", "store_unavailable", "x"), done=True)))
    wire_format = create(Wants())
    before = [m for record in records([START, Token("Hi")]) for m in wire_format.encode(record)]

    (message,) = wire_format.encode(lost)

    body = json.loads(message.data)
    check_event(body)
    assert message.event == "error"
    assert body["sequence_number"] == len(before)
    assert body["error"]["message"] == body["message"] == "the store is away"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (USAGE, (3, 2, 5, 0, 0)),
        ({"prompt_tokens": 3, "completion_tokens": 2}, (3, 2, 5, 0, 0)),
        (
            USAGE
            | {
                "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": None},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            (3, 2, 5, 1, 2),
        ),
        (
            {
                "input_tokens": 3,
                "output_tokens": 2,
                "total_tokens": 6,
                "input_tokens_details": {"cached_tokens": 1},
                "output_tokens_details": None,
            },
            (3, 2, 6, 1, 0),
        ),
        ({"prompt_tokens": None, "completion_tokens": "x"}, (0, 0, 0, 0, 0)),
    ],
)
def test_usage_has_this_dialect_s_names(usage: dict[str, Any], expected: tuple[int, ...]) -> None:
    for events in ([Usage(usage), Done("stop")], [Done("stop", usage)], [Usage(usage), Error(CUT)]):
        found = told(Token("Hi"), *events)[-1]["response"]["usage"]
        assert (
            found["input_tokens"],
            found["output_tokens"],
            found["total_tokens"],
            found["input_tokens_details"]["cached_tokens"],
            found["output_tokens_details"]["reasoning_tokens"],
        ) == expected


def test_there_is_no_usage_where_nobody_counted() -> None:
    assert "usage" not in told(Token("Hi"), Done("stop"))[-1]["response"]


# The request, repeated


def test_the_response_repeats_what_was_asked() -> None:
    asked = {
        "instructions": "Be brief.",
        "temperature": 0.25,
        "top_p": 0.5,
        "max_output_tokens": 100,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "previous_response_id": "resp_before",
        "tools": [{"type": "function", "name": "look"}],
        "tool_choice": {"type": "function", "name": "look"},
        "text": {"verbosity": "low"},
        "reasoning": {"effort": "low"},
        "truncation": "auto",
        "service_tier": "flex",
        "user": "somebody",
        "store": True,
        "background": False,
    }
    bodies = told(Token("Hi"), Done("stop"), **asked)

    for body in bodies:
        if "response" in body:
            found = body["response"]
            for name in asked.keys() - {"tools", "text", "reasoning"}:
                assert found[name] == asked[name]
            assert found["text"] == {"format": {"type": "text"}, "verbosity": "low"}
            assert found["reasoning"] == {"effort": "low", "summary": None}
            assert found["tools"] == [
                {"type": "function", "name": "look", "strict": None, "parameters": None}
            ]


def test_the_model_and_tier_are_those_that_answer() -> None:
    chunks = [says("Hi") | {"service_tier": "flex"}, chunk(finish="stop")]
    bodies = told(*read(chunks), Done("stop"))

    assert {body["response"]["model"] for body in bodies if "response" in body} == {chunks[0]["model"]}
    assert bodies[-1]["response"]["service_tier"] == "flex"


def test_a_background_response_is_created_before_the_upstream_answers() -> None:
    begun = messages_of(records([START]), request={"response": {"background": True}})

    assert [message.event for message in begun] == ["response.created"]
    bodies = told(Token("Hi"), Done("stop"), background=True)
    assert kinds(bodies)[:3] == ["created", "in_progress", "output_item.added"]


# Of an upstream that speaks Responses


@pytest.mark.parametrize("kind", sorted(RESPONSE_EVENTS.keys() - {"error", *ENDS}))
def test_an_upstream_s_event_comes_out_equal(kind: str) -> None:
    said = example(RESPONSE_EVENTS[kind]) | {"unknown": [1, True, None]}
    begin = example("ResponseCreatedEvent")

    found = json.loads(messages_of(records([START, *in_log(begin), *in_log(said)]))[-1].data)

    if "response" in said:
        ours = {"id": "resp_abc", "background": False, "previous_response_id": None, "store": True}
        said["response"] = said["response"] | ours
    assert as_json(found) == as_json(said | {"sequence_number": 1})


@pytest.mark.parametrize("kind", ["completed", "incomplete"])
def test_an_upstream_s_end_comes_out_equal(kind: str) -> None:
    end = example(RESPONSE_EVENTS[f"response.{kind}"]) | {"unknown": 1}
    end["response"] |= {
        "output": [{"type": "unknown", "text": "Hi"}],
        "usage": {"new": 1},
        "metadata": {"a": "b"},
    }
    usage = {"input_tokens": 7}
    events = [*in_log(example("ResponseCreatedEvent")), *in_log(end), Usage(usage), Done("stop", usage)]

    found = json.loads(messages_of(records([START, *events]))[-1].data)

    ours = {"id": "resp_abc", "background": False, "previous_response_id": None, "store": True}
    expected = end | {"response": end["response"] | ours, "sequence_number": 1}
    assert as_json(found) == as_json(expected)


def upstream(*events: dict[str, Any]) -> list[Event]:
    return [each for event in events for each in in_log(event)]


CREATED = {
    "type": "response.created",
    "response": example("Response") | {"status": "in_progress", "output": []},
}
ADDED = {
    "type": "response.output_item.added",
    "output_index": 0,
    "item": {"type": "message", "id": "m", "role": "assistant", "status": "in_progress", "content": []},
}
PART = {
    "type": "response.content_part.added",
    "item_id": "m",
    "output_index": 0,
    "content_index": 0,
    "part": {"type": "output_text", "text": "", "annotations": [], "logprobs": []},
}
DELTA = {
    "type": "response.output_text.delta",
    "item_id": "m",
    "output_index": 0,
    "content_index": 0,
    "logprobs": [],
    "delta": "Hi",
}
COMPLETED = {
    "type": "response.completed",
    "response": example("Response")
    | {"status": "completed", "id": "resp_theirs", "metadata": {"theirs": "yes"}},
}


def test_a_delta_has_the_fields_of_the_one_of_its_type_before_it() -> None:
    other = {name: value for name, value in DELTA.items() if name != "delta"} | {"content_index": 1}
    bodies = told(
        *upstream(CREATED, ADDED, PART, DELTA),
        Token(" you"),
        ResponseEvent(other, more=True),
        Token("!"),
        Token("?"),
        ResponseEvent(COMPLETED),
        Done("stop"),
    )

    deltas = [body for body in bodies if body["type"] == "response.output_text.delta"]
    assert [(body["delta"], body["content_index"], body["item_id"]) for body in deltas] == [
        ("Hi", 0, "m"),
        (" you", 0, "m"),
        ("!", 1, "m"),
        ("?", 1, "m"),
    ]


def test_an_upstream_s_end_is_told_only_when_the_log_says_that_it_ended() -> None:
    before = upstream(CREATED, ADDED, PART, DELTA)

    assert kinds(told(*before, *upstream(COMPLETED)))[-1] == "output_text.delta"
    assert kinds(told(*before, *upstream(COMPLETED), Done("stop")))[-1] == "completed"
    assert kinds(told(*before, *upstream(COMPLETED), Error(CUT)))[-1] == "failed"
    assert "completed" not in kinds(told(*before, *upstream(COMPLETED), Error(CUT)))


def test_what_the_client_asked_of_us_is_told_instead_of_what_we_asked_of_the_upstream() -> None:
    asked = {"store": True, "background": True, "previous_response_id": "resp_1", "metadata": {"ours": "yes"}}
    bodies = told(*upstream(CREATED, COMPLETED), Done("stop"), **asked)

    for body in bodies:
        assert {name: body["response"][name] for name in asked} == asked
        assert body["response"]["id"] == "resp_abc"
    assert kinds(bodies) == ["created", "completed"], "it is created once, though told at once"


def test_an_upstream_s_response_is_created_once_where_ours_was_created_before() -> None:
    early = {"type": "keepalive"}
    bodies = [json.loads(m.data) for m in messages_of(records([START, *upstream(early, CREATED, ADDED)]))]

    assert [body["type"] for body in bodies] == [
        "response.created",
        "keepalive",
        "response.output_item.added",
    ]


@pytest.mark.parametrize(("last", "status"), [(Error(CUT), "failed"), (Done("cancelled"), "cancelled")])
def test_an_upstream_s_answer_that_was_cut_off_keeps_what_came(last: Event, status: str) -> None:
    bodies = told(*upstream(CREATED, ADDED, PART, DELTA), Token(" you"), last)

    assert bodies[-1]["type"] == "response.failed"
    response = bodies[-1]["response"]
    assert response["status"] == status
    assert response["output"][0]["content"][0]["text"] == "Hi you"
    assert response["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize("last", [Error(CUT), Done("cancelled")])
def test_a_usage_that_an_upstream_does_not_know_yet_is_left_out_at_a_cut_off_end(last: Event) -> None:
    begun = CREATED | {"response": CREATED["response"] | {"usage": None}}

    found = json.loads(messages_of(records([START, *upstream(begun, ADDED), last]))[-1].data)

    check_event(found)
    assert "usage" not in found["response"]


def test_an_upstream_that_forgets_to_create_its_response_is_helped() -> None:
    assert kinds(told(*upstream(ADDED, PART, DELTA), Done("stop")))[0] == "created"


LIES: list[dict[str, Any]] = [
    {"type": "response.output_item.added"},
    {"type": "response.output_item.added", "output_index": "0", "item": {}},
    {"type": "response.output_item.added", "output_index": 0, "item": []},
    {"type": "response.output_item.added", "output_index": 0, "item": {"content": 3, "summary": "x"}},
    {"type": "response.content_part.added", "output_index": 0, "content_index": -1, "part": {}},
    {"type": "response.content_part.added", "output_index": 0, "content_index": 99, "part": {"text": 3}},
    {"type": "response.content_part.done", "output_index": 0, "part": None},
    {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": 3},
    {"type": "response.output_text.annotation.added", "output_index": 0, "content_index": []},
    {"type": "response.in_progress", "response": 3},
    {"type": "response.completed", "response": {}},
    {"type": "response.completed", "response": {"output": 7}},
    {"type": "response.new\r\nevent: forged"},
    {"type": ""},
    {},
]


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_an_upstream_that_lies_breaks_nothing(lie: dict[str, Any]) -> None:
    events = [
        *upstream(CREATED, ADDED),
        ResponseEvent(lie),
        *upstream(PART, DELTA),
        Token("x"),
        ResponseEvent(lie),
    ]
    for last in (Done("stop"), Done("cancelled"), Error(CUT)):
        found = messages_of(records([START, *events, last]))
        assert json.loads(found[-1].data)["type"] in ENDS
        assert all("\n" not in message.event and "\r" not in message.event for message in found)
        stream = ResponseStream({})
        for record in records([START, *events, last]):
            stream.take(record)
            encode(ResponseEvent(stream.response()))
