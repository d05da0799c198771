"""The demo model, heard through the real SDKs."""

import asyncio
import base64
import json
import struct
import threading
import time
from collections.abc import Iterator
from enum import Enum
from typing import Any, Literal

import httpx2
import openai
import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_openai import ChatOpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, Field, SecretStr

from streaming.sources._demo import MODEL, AsyncDemoTransport, DemoTransport

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
        },
    },
}
ADD: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}


def client(transport: httpx2.BaseTransport | None = None) -> openai.OpenAI:
    http_client = openai.DefaultHttpx2Client(transport=transport or DemoTransport(tokens_per_second=0))
    return openai.OpenAI(api_key="demo", base_url="http://demo/v1", http_client=http_client, max_retries=0)


@pytest.fixture
def sdk() -> Iterator[openai.OpenAI]:
    with client() as made:
        yield made


def user(content: Any) -> list[Any]:
    return [{"role": "user", "content": content}]


def whole(sdk: openai.OpenAI, content: Any, **options: Any) -> ChatCompletion:
    answer: ChatCompletion = sdk.chat.completions.create(model=MODEL, messages=user(content), **options)
    return answer


def streamed(sdk: openai.OpenAI, content: Any, **options: Any) -> list[ChatCompletionChunk]:
    return list(sdk.chat.completions.create(model=MODEL, messages=user(content), stream=True, **options))


def text(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def content_tokens(chunks: list[ChatCompletionChunk]) -> int:
    return sum(bool(choice.delta.content) for chunk in chunks for choice in chunk.choices)


def finish_reasons(chunks: list[ChatCompletionChunk]) -> list[str]:
    return [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]


def tool_calls(chunks: list[ChatCompletionChunk]) -> dict[int, dict[str, Any]]:
    """Put the fragments together; the first one of a call must carry its id and name."""
    calls: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for fragment in chunk.choices[0].delta.tool_calls or ():
            assert fragment.function is not None
            if fragment.index not in calls:
                assert fragment.id
                assert fragment.type == "function"
                calls[fragment.index] = {"id": fragment.id, "name": fragment.function.name, "fragments": []}
            calls[fragment.index]["fragments"].append(fragment.function.arguments)
    for call in calls.values():
        call["arguments"] = json.loads("".join(call["fragments"]))
    return calls


# Text


@pytest.mark.parametrize("prompt", ["hi", "How does this work?", "a long story", "", "Łódź 🎈\r\n\ttab"])
def test_the_streamed_text_is_the_whole_text(sdk: openai.OpenAI, prompt: str) -> None:
    answer = whole(sdk, prompt).choices[0]

    chunks = streamed(sdk, prompt)

    assert text(chunks) == answer.message.content
    assert finish_reasons(chunks) == [answer.finish_reason] == ["stop"]


def test_a_stream_opens_with_the_role_and_closes_with_the_reason(sdk: openai.OpenAI) -> None:
    chunks = streamed(sdk, "What is this?")

    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content == ""
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {(c.id, c.object, c.model, c.system_fingerprint) for c in chunks} == {
        (chunks[0].id, "chat.completion.chunk", "demo", "fp_demo")
    }


def test_each_event_is_one_piece_of_bytes_and_the_last_is_done() -> None:
    body = {"model": "demo", "messages": user("hi"), "stream": True}
    with (
        httpx2.Client(transport=DemoTransport(0)) as http,
        http.stream("POST", "http://demo/v1/chat/completions", json=body) as response,
    ):
        pieces = list(response.iter_raw())

    assert response.headers["content-type"].startswith("text/event-stream")
    assert all(piece.startswith(b"data: ") and piece.endswith(b"\n\n") for piece in pieces)
    assert all(piece.count(b"\n") == 2 for piece in pieces)
    assert pieces[-1] == b"data: [DONE]\n\n"
    opening = json.loads(pieces[0].removeprefix(b"data: "))
    assert opening["choices"][0]["logprobs"] is None
    assert "usage" not in opening


def test_the_explanation_is_markdown_that_admits_to_be_no_ai(sdk: openai.OpenAI) -> None:
    answer = whole(sdk, "Please explain\nstreaming").choices[0].message.content or ""

    assert answer.startswith("> Please explain streaming\n")
    for part in ("\n# ", "\n- ", "\n| --- |", "```sh\ncurl", "```python\n", "OPENAI_API_KEY", "🌊", "ï"):
        assert part in answer
    assert "no AI, no key" in answer


def test_a_long_prompt_is_quoted_shortened(sdk: openai.OpenAI) -> None:
    answer = whole(sdk, "word " * 500).choices[0].message.content or ""

    assert len(answer.splitlines()[0]) < 130
    assert answer.splitlines()[0].endswith("…")


def test_a_greeting_gets_a_short_answer_and_long_a_long_one(sdk: openai.OpenAI) -> None:
    assert 40 <= len(streamed(sdk, "Hello!")) <= 90
    assert 250 <= len(streamed(sdk, "What is this?")) <= 400
    assert len(streamed(sdk, "Something long, please")) >= 2000


def test_the_same_request_gets_the_same_text_and_ids(sdk: openai.OpenAI) -> None:
    options: dict[str, Any] = {"tools": [WEATHER]}
    with client() as another:
        assert tool_calls(streamed(sdk, "Paris?", **options)) == tool_calls(
            streamed(another, "Paris?", **options)
        )
        first, second = whole(sdk, "What is this?"), whole(another, "What is this?")

    assert (first.id, first.choices) == (second.id, second.choices)
    assert first.id != whole(sdk, "What is that?").id


def test_any_model_name_is_echoed(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="gpt-99", messages=user("hi"))

    assert answer.model == "gpt-99"


# Limits, choices, usage


def test_usage_comes_last_and_only_when_asked_for(sdk: openai.OpenAI) -> None:
    chunks = streamed(sdk, "one two three", stream_options={"include_usage": True})

    *others, last = chunks
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.prompt_tokens == 3
    assert last.usage.completion_tokens == content_tokens(chunks)
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert all(chunk.usage is None and chunk.choices for chunk in others)
    assert all(chunk.usage is None and chunk.choices for chunk in streamed(sdk, "one two three"))
    assert whole(sdk, "one two three").usage == last.usage


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_token_limit_cuts_the_answer_and_says_so(sdk: openai.OpenAI, name: str) -> None:
    chunks = streamed(sdk, "What is this?", **{name: 7})

    assert content_tokens(chunks) == 7
    assert finish_reasons(chunks) == ["length"]
    assert (whole(sdk, "What is this?").choices[0].message.content or "").startswith(text(chunks))


@pytest.mark.parametrize("stop", ["durable", ["\u2603", "reader", "durable"]])
def test_a_stop_sequence_ends_the_answer_before_it(sdk: openai.OpenAI, stop: Any) -> None:
    full = whole(sdk, "What is this?").choices[0].message.content or ""

    chunks = streamed(sdk, "What is this?", stop=stop)

    assert text(chunks) == full.partition("durable")[0]
    assert finish_reasons(chunks) == ["stop"]


def test_two_choices_come_interleaved_and_each_is_whole(sdk: openai.OpenAI) -> None:
    answers = whole(sdk, "What is this?", n=2).choices

    chunks = streamed(sdk, "What is this?", n=2, stream_options={"include_usage": True})

    assert [chunk.choices[0].index for chunk in chunks[:6]] == [0, 1, 0, 1, 0, 1]
    assert [text(chunks, 0), text(chunks, 1)] == [choice.message.content for choice in answers]
    assert text(chunks, 0) != text(chunks, 1)
    assert finish_reasons(chunks) == ["stop", "stop"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == content_tokens(chunks)


# Tools


def test_a_tool_call_is_streamed_in_fragments_that_fit_the_tool(sdk: openai.OpenAI) -> None:
    chunks = streamed(sdk, "What is the weather in Paris, in fahrenheit?", tools=[WEATHER])

    (call,) = tool_calls(chunks).values()
    assert call["name"] == "get_weather"
    assert call["arguments"] == {"city": "Paris", "unit": "fahrenheit"}
    assert len(call["fragments"]) > 3
    assert finish_reasons(chunks) == ["tool_calls"]
    assert text(chunks) == ""


def test_a_whole_answer_holds_the_same_call_as_the_stream(sdk: openai.OpenAI) -> None:
    choice = whole(sdk, "Add 19 and 23", tools=[WEATHER, ADD]).choices[0]

    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("add", {"a": 19, "b": 23})
    (twin,) = tool_calls(streamed(sdk, "Add 19 and 23", tools=[WEATHER, ADD])).values()
    assert (twin["name"], twin["arguments"]) == ("add", {"a": 19, "b": 23})


@pytest.mark.parametrize("word", ["both", "parallel"])
def test_two_tools_are_called_in_parallel_when_the_prompt_says_so(sdk: openai.OpenAI, word: str) -> None:
    chunks = streamed(sdk, f"Use {word} tools: Oslo, 1, 2", tools=[WEATHER, ADD])

    calls = tool_calls(chunks)
    assert [calls[0]["name"], calls[1]["name"]] == ["get_weather", "add"]
    assert calls[0]["id"] != calls[1]["id"]
    one = streamed(sdk, f"Use {word} tools", tools=[WEATHER, ADD], parallel_tool_calls=False)
    assert len(tool_calls(one)) == 1


def test_tool_choice_forbids_and_forces(sdk: openai.OpenAI) -> None:
    forced = {"type": "function", "function": {"name": "add"}}

    none = streamed(sdk, "weather?", tools=[WEATHER, ADD], tool_choice="none")
    named = streamed(sdk, "weather?", tools=[WEATHER, ADD], tool_choice=forced)

    assert tool_calls(none) == {}
    assert text(none)
    assert [call["name"] for call in tool_calls(named).values()] == ["add"]


def after_tools(sdk: openai.OpenAI) -> list[Any]:
    asked = whole(sdk, "both, for Paris", tools=[WEATHER, ADD]).choices[0].message
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": f"result {i}"}
        for i, call in enumerate(asked.tool_calls or ())
    ]
    return [*user("both, for Paris"), asked.model_dump(exclude_none=True), *results]


def test_the_answer_after_tools_quotes_their_results(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model=MODEL, messages=after_tools(sdk), tools=[WEATHER, ADD])

    assert answer.choices[0].finish_reason == "stop"
    content = answer.choices[0].message.content or ""
    assert "**get_weather** answered: result 0" in content
    assert "**add** answered: result 1" in content


def test_a_required_call_goes_on_to_the_tool_not_called_yet(sdk: openai.OpenAI) -> None:
    last: Any = {"type": "function", "function": {"name": "final_answer"}}

    answer = sdk.chat.completions.create(
        model=MODEL,
        messages=after_tools(sdk),
        tools=[WEATHER, ADD, last],
        tool_choice="required",
    )

    assert answer.choices[0].message.tool_calls
    (call,) = answer.choices[0].message.tool_calls
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("final_answer", "{}")


# JSON


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Step(BaseModel):
    title: str = Field(min_length=3, max_length=40)
    minutes: int = Field(ge=5, le=90, multiple_of=5)
    colour: Colour
    kind: Literal["walk"]


class Node(BaseModel):
    name: str
    child: "Node | None"
    friends: list["Node"]


class Plan(BaseModel):
    city: str
    steps: list[Step] = Field(min_length=3)
    first: Step | None
    ratio: float = Field(gt=0, lt=1)
    done: bool
    nothing: None
    tree: Node


def test_structured_output_parses_into_a_nested_model(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.parse(
        model=MODEL, messages=user("Plan a blue day in Oslo"), response_format=Plan
    )

    plan = answer.choices[0].message.parsed
    assert plan is not None
    assert plan.city == "Oslo"
    assert len(plan.steps) == 3
    assert plan.steps[0].colour is Colour.BLUE


def test_structured_output_streams_as_tokens(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(model=MODEL, messages=user("Plan"), response_format=Plan) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()

    assert kinds.count("content.delta") > 20
    assert isinstance(final.choices[0].message.parsed, Plan)


def json_for(sdk: openai.OpenAI, schema: dict[str, Any], prompt: str = "Make it so") -> Any:
    shape = {"type": "json_schema", "json_schema": {"name": "shape", "schema": schema}}
    return json.loads(whole(sdk, prompt, response_format=shape).choices[0].message.content or "")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": [1, None]}, [1, None]),
        ({"enum": ["x", "y"]}, "x"),
        ({"type": ["null", "boolean"]}, True),
        ({"type": "null"}, None),
        ({"oneOf": [{"type": "integer", "minimum": 7}, {"type": "string"}]}, 7),
        ({"type": "integer", "exclusiveMaximum": -10, "multipleOf": 4}, -12),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, 0.5),
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"type": "string", "pattern": "^[A-Z]{3}$"}, "ABC"),
        ({"type": "array", "items": {"enum": [1]}, "minItems": 3}, [1, 1, 1]),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False}, [1, 2]),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 0}, []),
        ({"properties": {"a": {"$ref": "#/definitions/A"}}, "definitions": {"A": {"const": 5}}}, {"a": 5}),
        (
            {
                "allOf": [
                    {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]},
                    {"properties": {"b": {"const": 2}}, "required": ["b"]},
                ]
            },
            {"a": 1, "b": 2},
        ),
    ],
)
def test_json_fits_its_schema(sdk: openai.OpenAI, schema: dict[str, Any], value: Any) -> None:
    assert json_for(sdk, schema) == value


def test_a_json_object_needs_no_schema(sdk: openai.OpenAI) -> None:
    chunks = streamed(sdk, "JSON\u2028please\u0085now", response_format={"type": "json_object"})

    assert json.loads(text(chunks))["prompt"] == "JSON\u2028please\u0085now"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"me": {"$ref": "#"}}, "required": ["me"]},
        {"allOf": [{"$ref": "#"}]},
        {"type": "array", "minItems": 10**9},
        {"type": "object", "properties": 5},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 100},
    ],
)
def test_a_schema_without_an_end_or_a_meaning_is_refused(sdk: openai.OpenAI, schema: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        json_for(sdk, schema)

    assert refused.value.param == "response_format.json_schema.schema"


def test_a_pattern_cannot_make_the_model_think_for_ever(sdk: openai.OpenAI) -> None:
    assert json_for(sdk, {"type": "string", "pattern": "^(o+)+$", "minLength": 10**12}, "o" * 60 + "!")


# Images


def data_url(media_type: str, image: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(image).decode()}"


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 640, 480) + b"\x08\x06\0\0\0"
GIF = b"GIF89a" + struct.pack("<HH", 320, 200) + b"\0\0\0"
JPEG = b"\xff\xd8\xff\xe0\0\x04\0\0\xff\xc0\0\x11\x08" + struct.pack(">HH", 30, 40) + b"\x03"
WEBP_LOSSY = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 16, 9)
WEBP_LOSSLESS = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + struct.pack("<I", 99 | 49 << 14) + b"\0" * 5
WEBP_EXTENDED = b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0" + b"\x63\0\0" + b"\x31\0\0"


@pytest.mark.parametrize(
    ("media_type", "image", "size"),
    [
        ("image/png", PNG, "640 by 480"),
        ("image/gif", GIF, "320 by 200"),
        ("image/jpeg", JPEG, "40 by 30"),
        ("image/webp", WEBP_LOSSY, "16 by 9"),
        ("image/webp", WEBP_LOSSLESS, "100 by 50"),
        ("image/webp", WEBP_EXTENDED, "100 by 50"),
    ],
)
def test_an_image_is_described_by_its_header(
    sdk: openai.OpenAI, media_type: str, image: bytes, size: str
) -> None:
    image_part = {"type": "image_url", "image_url": {"url": data_url(media_type, image)}}

    answer = whole(sdk, [{"type": "text", "text": "Look"}, image_part]).choices[0].message.content

    assert answer is not None
    assert answer.startswith("> Look\n")
    assert f"{media_type}, {len(image)} bytes, {size} pixels" in answer


@pytest.mark.parametrize("image", [JPEG[:-4], PNG[:20], b"RIFF\0\0\0\0WEBP", b"\xff\xd8\xff\xe0\0\0", b"x"])
def test_an_image_cut_short_is_described_without_its_size(sdk: openai.OpenAI, image: bytes) -> None:
    image_part = {"type": "image_url", "image_url": {"url": data_url("image/x", image)}}

    answer = whole(sdk, [image_part]).choices[0].message.content or ""

    assert f"image/x, {len(image)} bytes\n" in answer


def test_a_linked_image_is_named_by_host_and_not_fetched(sdk: openai.OpenAI) -> None:
    image_part = {"type": "image_url", "image_url": {"url": "https://images.example.com/secret/cat.png"}}

    answer = whole(sdk, [image_part]).choices[0].message.content or ""

    assert "images.example.com, which the demo model does not fetch" in answer
    assert "secret" not in answer


@pytest.mark.parametrize(
    "url",
    ["data:image/png;base64,***", "data:image/png", "file:///etc/passwd", "", "http://[::1", "https://"],
)
def test_an_unreadable_image_is_refused(sdk: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        whole(sdk, [{"type": "image_url", "image_url": {"url": url}}])

    assert refused.value.code == "invalid_image_url"


# Errors and other routes


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "king", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"model": 5}, "model"),
        ({"n": 0}, "n"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": 1}}]}, None),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "poem"}}, "response_format.type"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_request_is_refused_by_the_name_of_its_field(
    sdk: openai.OpenAI, fields: dict[str, Any], param: str | None, stream: bool
) -> None:
    body = {"model": "demo", "messages": user("hi"), "stream": stream, **fields}

    with pytest.raises(openai.BadRequestError) as refused:
        sdk.post("/chat/completions", body=body, cast_to=object)

    assert refused.value.param == (param or "tools[0].function.parameters")
    assert refused.value.type == "invalid_request_error"
    assert refused.value.request_id


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"model":"\\ud800"}', b'{"x":' + b"[" * 100_000]
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with httpx2.Client(transport=DemoTransport(0)) as http:
        response = http.post("http://demo/v1/chat/completions", content=body)

    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_the_only_model_listed_is_the_demo(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()] == ["demo"]
    assert sdk.models.retrieve("demo").id == "demo"
    with pytest.raises(openai.NotFoundError) as missing:
        sdk.models.retrieve("gpt-99")
    assert missing.value.code == "model_not_found"


def test_other_routes_are_not_found(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        sdk.responses.create(model="demo", input="hi")

    assert missing.value.code == "unknown_url"


# Pace


def test_tokens_keep_the_asked_pace() -> None:
    with client(DemoTransport(tokens_per_second=500, first_token_seconds=0.02)) as sdk:
        started = time.monotonic()
        tokens = content_tokens(streamed(sdk, "hi"))
        streaming_seconds = time.monotonic() - started
        whole(sdk, "hi")
        whole_seconds = time.monotonic() - started - streaming_seconds

    least = 0.02 + (tokens - 1) / 500
    assert least <= streaming_seconds < least + 5
    assert least <= whole_seconds < least + 5


def test_the_role_comes_at_once_however_late_the_first_token() -> None:
    started = time.monotonic()
    with (
        client(DemoTransport(first_token_seconds=3600)) as sdk,
        sdk.chat.completions.create(model=MODEL, messages=user("hi"), stream=True) as stream,
    ):
        assert next(stream).choices[0].delta.role == "assistant"

    assert time.monotonic() - started < 60


@pytest.mark.parametrize("rate", [0.0, float("inf")])
def test_an_unlimited_rate_never_sleeps(rate: float) -> None:
    with client(DemoTransport(tokens_per_second=rate, first_token_seconds=3600)) as sdk:
        assert streamed(sdk, "hi")
        assert whole(sdk, "hi")


def test_closing_from_elsewhere_stops_a_reader_with_an_error() -> None:
    failures: list[BaseException] = []

    def read_on() -> None:
        try:
            list(stream)
        except openai.APIConnectionError as error:
            failures.append(error)

    with client(DemoTransport(tokens_per_second=5, first_token_seconds=0.3)) as sdk:
        stream = sdk.chat.completions.create(model=MODEL, messages=user("long"), stream=True)
        next(stream)
        reader = threading.Thread(target=read_on)
        reader.start()
        stream.close()
        reader.join(timeout=10)

    assert not reader.is_alive()
    assert len(failures) == 1


# Other clients


def test_the_asynchronous_sdk_hears_the_same() -> None:
    async def ask() -> tuple[str, str | None, float]:
        transport = AsyncDemoTransport(tokens_per_second=1000, first_token_seconds=0.01)
        http_client = openai.DefaultAsyncHttpx2Client(transport=transport)
        async with openai.AsyncOpenAI(
            api_key="demo", base_url="http://demo/v1", http_client=http_client
        ) as sdk:
            started = time.monotonic()
            stream = await sdk.chat.completions.create(model=MODEL, messages=user("hi"), stream=True)
            chunks = [chunk async for chunk in stream]
            seconds = time.monotonic() - started
            answer = await sdk.chat.completions.create(model=MODEL, messages=user("hi"))
            with pytest.raises(openai.BadRequestError):
                await sdk.chat.completions.create(model=MODEL, messages=[])
            return text(chunks), answer.choices[0].message.content, seconds

    streamed_text, whole_text, seconds = asyncio.run(ask())

    assert streamed_text == whole_text
    assert seconds >= 0.04


def chat_openai(http_client: httpx2.Client) -> ChatOpenAI:
    return ChatOpenAI(
        model=MODEL,
        api_key=SecretStr("demo"),
        base_url="http://demo/v1",
        http_client=http_client,
        stream_usage=True,
        max_retries=0,
    )


def test_langchain_streams_text_usage_and_tool_calls(sdk: openai.OpenAI) -> None:
    with openai.DefaultHttpx2Client(transport=DemoTransport(0)) as http_client:
        model = chat_openai(http_client)
        chunks = list(model.stream("What is this?"))
        merged = AIMessageChunk(content="")
        for chunk in model.bind_tools([convert_to_openai_tool(WEATHER)]).stream("Weather in Paris?"):
            assert isinstance(chunk, AIMessageChunk)
            merged = merged + chunk

    assert "".join(chunk.text for chunk in chunks) == whole(sdk, "What is this?").choices[0].message.content
    assert sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata) > 200
    (call,) = merged.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris", "unit": "celsius"})
