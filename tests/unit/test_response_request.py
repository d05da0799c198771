"""A request to Responses can be asked of chat completions, and the other way round."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolUnionParam
from openai.types.responses import ResponseInputItemParam, ToolParam
from pydantic import TypeAdapter

from streaming.errors import InvalidRequest
from streaming.sources import Prompt
from streaming.sources._response_as_chat import chat_of
from streaming.sources._response_request import response_of

AT_RANDOM = settings(deadline=None, database=None, max_examples=300)
LOGPROBS = "message.output_text.logprobs"
HI = [{"role": "user", "content": "hi"}]


def messages_of(*items: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    messages, _ = chat_of({"input": list(items), **fields})
    for message in messages:
        TypeAdapter(ChatCompletionMessageParam).validate_python(message)
    return messages


def params_of(**fields: Any) -> dict[str, Any]:
    _, params = chat_of({"input": HI, **fields})
    return params


def items_of(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    body = response_of(Prompt("m", list(messages)))
    for item in body["input"]:
        TypeAdapter(ResponseInputItemParam).validate_python(item)
    return body["input"]


def body_of(**params: Any) -> dict[str, Any]:
    body = response_of(Prompt("m", HI, params))
    assert body.pop("input") == [{"type": "message", **HI[0]}]
    return body


def refusal_of(ask: Any, *arguments: Any, **fields: Any) -> tuple[str | None, str]:
    """Return the field that was refused, and why."""
    with pytest.raises(InvalidRequest) as caught:
        ask(*arguments, **fields)
    assert caught.value.status == 400
    assert str(caught.value).startswith(f"{caught.value.param}: ")
    return caught.value.param, caught.value.code


# Responses to chat completions: what was said


def call(call_id: str, name: str = "clock", arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "id": "fc", "call_id": call_id, "name": name, "arguments": arguments}


def chat_call(call_id: str, name: str = "clock", arguments: str = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(call_id: str, output: Any = "noon") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def said(*parts: dict[str, Any]) -> dict[str, Any]:
    """Return an assistant's message as an earlier response had it."""
    return {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": list(parts),
    }


def output_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def test_a_text_as_input_is_a_message_of_the_user() -> None:
    assert chat_of({"model": "m", "input": "hi"}) == (HI, {})


def test_instructions_come_first() -> None:
    assert messages_of(*HI, instructions="be brief") == [{"role": "system", "content": "be brief"}, *HI]


@pytest.mark.parametrize("role", ["user", "system", "developer"])
def test_a_single_text_part_is_plain_text(role: str) -> None:
    parts = [{"type": "input_text", "text": "hi"}]

    assert messages_of({"type": "message", "role": role, "content": parts}) == [
        {"role": role, "content": "hi"}
    ]


def test_parts_of_each_kind_have_their_counterpart() -> None:
    audio = {"data": "AAAA", "format": "wav"}
    parts = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low", "file_id": None},
        {"type": "input_image", "image_url": "https://example.com/a.png"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"},
        {"type": "input_audio", "input_audio": audio},
    ]

    (message,) = messages_of({"role": "user", "content": parts})

    assert message["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"}},
        {"type": "input_audio", "input_audio": audio},
    ]


def test_what_an_assistant_said_is_joined() -> None:
    assert messages_of(said(output_text("a"), output_text("b"))) == [{"role": "assistant", "content": "ab"}]
    assert messages_of({"role": "assistant", "content": "ab"}) == [{"role": "assistant", "content": "ab"}]


def test_a_refusal_stays_one() -> None:
    assert messages_of(said({"type": "refusal", "refusal": "no"})) == [
        {"role": "assistant", "content": None, "refusal": "no"}
    ]


def test_neighbouring_calls_are_one_message_with_the_text_before_them() -> None:
    messages = messages_of(
        *HI,
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "secret"},
        said(output_text("let me see")),
        call("call_1"),
        call("call_2"),
        result("call_1"),
        result("call_2", [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}]),
        call("call_3"),
        result("call_3"),
    )

    assert messages == [
        *HI,
        {
            "role": "assistant",
            "content": "let me see",
            "tool_calls": [chat_call("call_1"), chat_call("call_2")],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
        {
            "role": "tool",
            "tool_call_id": "call_2",
            "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
        },
        {"role": "assistant", "content": None, "tool_calls": [chat_call("call_3")]},
        {"role": "tool", "tool_call_id": "call_3", "content": "noon"},
    ]


def test_text_between_a_call_and_its_result_does_not_part_them() -> None:
    messages = messages_of(*HI, call("call_1"), said(output_text("one moment")), result("call_1"))

    assert [message["role"] for message in messages] == ["user", "assistant", "tool"]
    assert messages[1]["content"] == "one moment"


def test_two_answers_in_a_row_stay_two_messages() -> None:
    assert len(messages_of(said(output_text("a")), said(output_text("b")))) == 2


def test_calls_of_custom_tools_keep_their_input() -> None:
    messages = messages_of(
        {"type": "custom_tool_call", "call_id": "call_1", "name": "shell", "input": "ls"},
        {"type": "custom_tool_call_output", "call_id": "call_1", "output": "a b"},
    )

    custom = {"id": "call_1", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    assert messages == [
        {"role": "assistant", "content": None, "tool_calls": [custom]},
        {"role": "tool", "tool_call_id": "call_1", "content": "a b"},
    ]


REFUSED_ITEMS: dict[str, tuple[Any, str, str]] = {
    "a reference": ({"type": "item_reference", "id": "msg_1"}, "input[1]", "unsupported_parameter"),
    "a reference without a type": ({"id": "msg_1"}, "input[1]", "unsupported_parameter"),
    "a search": ({"type": "web_search_call", "id": "ws"}, "input[1].type", "unsupported_parameter"),
    "no object": ("hi", "input[1]", "wrong_type"),
    "a type that is a list": ({"type": ["message"]}, "input[1].type", "wrong_type"),
    "a message without a role": ({"type": "message"}, "input[1].role", "unsupported_parameter"),
    "a role nobody knows": ({"role": "tool", "content": "x"}, "input[1].role", "unsupported_parameter"),
    "no content": ({"role": "user"}, "input[1].content", "wrong_type"),
    "a part that is text": ({"role": "user", "content": ["x"]}, "input[1].content[0]", "wrong_type"),
    "a text part without text": (
        {"role": "user", "content": [{"type": "input_text"}]},
        "input[1].content[0].text",
        "wrong_type",
    ),
    "an image by its id": (
        {"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]},
        "input[1].content[0].image_url",
        "unsupported_parameter",
    ),
    "a file by its address": (
        {"role": "user", "content": [{"type": "input_file", "file_url": "https://example.com"}]},
        "input[1].content[0].file_url",
        "unsupported_parameter",
    ),
    "a screenshot": (
        {"role": "user", "content": [{"type": "computer_screenshot"}]},
        "input[1].content[0].type",
        "unsupported_parameter",
    ),
    "an image an assistant said": (
        said({"type": "input_image", "image_url": "x"}),
        "input[1].content[0].type",
        "unsupported_parameter",
    ),
    "an image as a result": (
        result("call_1", [{"type": "input_image", "image_url": "x"}]),
        "input[1].output[0].type",
        "unsupported_parameter",
    ),
    "a call without arguments": (
        {"type": "function_call", "call_id": "c", "name": "n"},
        "input[1].arguments",
        "wrong_type",
    ),
    "a call without an id": (
        {"type": "function_call", "name": "n", "arguments": ""},
        "input[1].call_id",
        "wrong_type",
    ),
    "a result without an id": (
        {"type": "function_call_output", "output": ""},
        "input[1].call_id",
        "wrong_type",
    ),
}


@pytest.mark.parametrize(("item", "param", "code"), REFUSED_ITEMS.values(), ids=REFUSED_ITEMS)
def test_an_item_without_a_counterpart_is_refused_by_name(item: Any, param: str, code: str) -> None:
    assert refusal_of(chat_of, {"input": [*HI, item]}) == (param, code)


@pytest.mark.parametrize("body", [{}, {"input": None}, {"input": 3}, {"input": {}}])
def test_an_input_must_be_text_or_a_list(body: dict[str, Any]) -> None:
    assert refusal_of(chat_of, body) == ("input", "wrong_type")


@pytest.mark.parametrize("items", [[], [{"type": "reasoning", "summary": []}]])
def test_an_input_that_says_nothing_is_refused(items: list[Any]) -> None:
    assert refusal_of(chat_of, {"input": items, "instructions": "x"}) == ("input", "required")


# Responses to chat completions: parameters

SCHEMA = {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("fields", "params"),
    [
        (
            {"temperature": 0, "top_p": 0.5, "user": "u", "service_tier": "flex", "seed": 7, "top_k": 40},
            {"temperature": 0, "top_p": 0.5, "user": "u", "service_tier": "flex", "seed": 7, "top_k": 40},
        ),
        (
            {"parallel_tool_calls": False, "prompt_cache_key": "k", "safety_identifier": "s"},
            {"parallel_tool_calls": False, "prompt_cache_key": "k", "safety_identifier": "s"},
        ),
        ({"max_output_tokens": 9}, {"max_completion_tokens": 9}),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
        ({"reasoning": {"effort": None}}, {}),
        ({"text": {"verbosity": "low", "format": {"type": "text"}}}, {"verbosity": "low"}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
                }
            },
        ),
        (
            {"include": [LOGPROBS], "top_logprobs": 3},
            {"logprobs": True, "top_logprobs": 3},
        ),
        ({"include": ["reasoning.encrypted_content"], "top_logprobs": 0}, {}),
        ({"temperature": None, "tools": [], "reasoning": None, "text": None, "include": None}, {}),
        ({"truncation": "auto", "metadata": {"a": "b"}, "store": False, "stream": True, "model": "m"}, {}),
    ],
)
def test_parameters_go_by_their_names_in_chat_completions(
    fields: dict[str, Any], params: dict[str, Any]
) -> None:
    assert params_of(**fields) == params


FUNCTION = {"type": "function", "name": "clock", "description": "d", "parameters": SCHEMA, "strict": True}
GRAMMAR = {"definition": "a+", "syntax": "regex"}
CUSTOM = {"type": "custom", "name": "shell", "format": {"type": "grammar", **GRAMMAR}}
CHAT_FUNCTION = {
    "type": "function",
    "function": {"name": "clock", "description": "d", "parameters": SCHEMA, "strict": True},
}
CHAT_CUSTOM = {
    "type": "custom",
    "custom": {"name": "shell", "format": {"type": "grammar", "grammar": GRAMMAR}},
}

CHOICES = [
    ("auto", "auto"),
    ("required", "required"),
    ({"type": "function", "name": "clock"}, {"type": "function", "function": {"name": "clock"}}),
    ({"type": "custom", "name": "shell"}, {"type": "custom", "custom": {"name": "shell"}}),
    (
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "clock"}]},
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "auto",
                "tools": [{"type": "function", "function": {"name": "clock"}}],
            },
        },
    ),
]


def test_tools_are_the_same_in_both_shapes() -> None:
    assert params_of(tools=[FUNCTION, CUSTOM]) == {"tools": [CHAT_FUNCTION, CHAT_CUSTOM]}
    assert body_of(tools=[CHAT_FUNCTION, CHAT_CUSTOM]) == {"tools": [FUNCTION, CUSTOM]}
    TypeAdapter(list[ChatCompletionToolUnionParam]).validate_python([CHAT_FUNCTION, CHAT_CUSTOM])
    TypeAdapter(list[ToolParam]).validate_python([FUNCTION, CUSTOM])


@pytest.mark.parametrize(("choice", "chat_choice"), CHOICES)
def test_a_choice_of_tools_is_the_same_in_both_shapes(choice: Any, chat_choice: Any) -> None:
    assert params_of(tool_choice=choice) == {"tool_choice": chat_choice}
    assert body_of(tool_choice=chat_choice) == {"tool_choice": choice}


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("tools", [FUNCTION, {"type": "web_search"}], "tools[1].type"),
        ("tools", [{"type": "mcp", "server_url": "x"}], "tools[0].type"),
        ("tool_choice", {"type": "file_search"}, "tool_choice.type"),
        ("conversation", "conv_1", "conversation"),
        ("previous_response_id", "resp_1", "previous_response_id"),
        ("prompt", {"id": "pmpt_1"}, "prompt"),
        ("context_management", [{"type": "compaction"}], "context_management"),
        ("text", {"format": {"type": "xml"}}, "text.format.type"),
        ("reasoning", {"mode": "pro"}, "reasoning.mode"),
        ("messages", HI, "messages"),
        ("n", 2, "n"),
    ],
)
def test_a_parameter_without_a_counterpart_is_refused_by_name(field: str, value: Any, param: str) -> None:
    assert refusal_of(params_of, **{field: value}) == (param, "unsupported_parameter")


# Chat completions to Responses


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def test_messages_become_items() -> None:
    image = {"url": "https://example.com/a.png"}
    items = items_of(
        {"role": "system", "content": "be brief"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": image}],
        },
        {"role": "assistant", "content": "let me see", "tool_calls": [chat_call("call_1")]},
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
        {"role": "assistant", "content": "It is noon.", "refusal": None},
    )

    assert items == [
        {"type": "message", "role": "system", "content": "be brief"},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "?"},
                {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"},
            ],
        },
        {"type": "message", "role": "assistant", "content": "let me see"},
        {"type": "function_call", "call_id": "call_1", "name": "clock", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": "noon"},
        {"type": "message", "role": "assistant", "content": "It is noon."},
    ]


def test_a_custom_call_has_a_custom_result() -> None:
    custom = {"id": "call_1", "type": "custom", "custom": {"name": "shell", "input": "ls"}}

    items = items_of(
        {"role": "assistant", "content": None, "tool_calls": [custom]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "a"}]},
    )

    assert items == [
        {"type": "custom_tool_call", "call_id": "call_1", "name": "shell", "input": "ls"},
        {
            "type": "custom_tool_call_output",
            "call_id": "call_1",
            "output": [{"type": "input_text", "text": "a"}],
        },
    ]


def test_refusals_and_files_have_a_counterpart() -> None:
    file = {"file_id": "file_1", "filename": None}
    items = items_of(
        {"role": "user", "content": [{"type": "file", "file": file}]},
        {"role": "assistant", "content": None, "refusal": "no"},
    )

    assert [item["content"] for item in items] == [
        [{"type": "input_file", "file_id": "file_1"}],
        "no",
    ]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "be brief"}, *HI],
        [*HI, {"role": "assistant", "content": "hello", "tool_calls": [chat_call("a"), chat_call("b")]}],
        [
            {"role": "assistant", "content": None, "tool_calls": [chat_call("a")]},
            {"role": "tool", "tool_call_id": "a", "content": "x"},
        ],
    ],
)
def test_a_conversation_there_and_back_is_the_same(messages: list[dict[str, Any]]) -> None:
    assert messages_of(*items_of(*messages)) == messages


@pytest.mark.parametrize(
    ("params", "body"),
    [
        ({"temperature": 0.5, "metadata": {"a": "b"}, "n": 1}, {"temperature": 0.5, "metadata": {"a": "b"}}),
        ({"max_tokens": 8}, {"max_output_tokens": 8}),
        ({"max_completion_tokens": 9, "max_tokens": 8}, {"max_output_tokens": 9}),
        ({"reasoning_effort": "high"}, {"reasoning": {"effort": "high"}}),
        ({"logprobs": True, "top_logprobs": 2}, {"include": [LOGPROBS], "top_logprobs": 2}),
        ({"logprobs": False, "tools": [], "stop": None}, {}),
        (
            {"verbosity": "low", "response_format": {"type": "json_object"}},
            {"text": {"verbosity": "low", "format": {"type": "json_object"}}},
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}},
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            {"tools": [{"type": "function", "name": "f", "parameters": None, "strict": False}]},
        ),
    ],
)
def test_parameters_go_by_their_names_in_responses(params: dict[str, Any], body: dict[str, Any]) -> None:
    assert body_of(**params) == body


@pytest.mark.parametrize(
    ("name", "value"),
    [("stop", "x"), ("seed", 1), ("logit_bias", {"1": 2}), ("n", 2), ("presence_penalty", 0.5), ("new", 0)],
)
def test_a_parameter_responses_have_not_is_refused_by_name(name: str, value: Any) -> None:
    assert refusal_of(body_of, **{name: value}) == (f"params.{name}", "unsupported_parameter")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "function", "name": "f", "content": "x"}, "messages[0].name"),
        ({"role": "function", "content": "x"}, "messages[0].role"),
        ({"role": "assistant", "audio": {"id": "a"}}, "messages[0].audio"),
        ({"role": "assistant", "content": [{"type": "image_url"}]}, "messages[0].content[0].type"),
        ({"role": "assistant", "tool_calls": [{"id": "a"}]}, "messages[0].tool_calls[0].function"),
        ({"role": "assistant", "tool_calls": 3}, "messages[0].tool_calls"),
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
        ({"role": "user", "content": [{"type": "video"}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[0].content[0].image_url"),
    ],
)
def test_a_message_responses_have_not_is_refused_by_name(message: dict[str, Any], param: str) -> None:
    assert refusal_of(items_of, message)[0] == param


# Whatever is asked

VOCABULARY = (
    "message role user assistant tool content type text input_text output_text refusal input_image image_url"
    " function_call call_id name arguments output function_call_output tools tool_choice function custom"
    " reasoning include text format input allowed_tools tool_calls id json_schema grammar"
).split()
words = st.sampled_from(VOCABULARY)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)
fields_of_a_body = st.dictionaries(
    st.sampled_from("tools tool_choice text reasoning include top_logprobs instructions n".split()), anything
)


@AT_RANDOM
@given(fields_of_a_body, st.lists(anything, max_size=3) | anything)
def test_any_body_is_converted_or_refused_by_name(body: dict[str, Any], asked: Any) -> None:
    assert outcome_of(chat_of, {**body, "input": asked})


@AT_RANDOM
@given(
    st.dictionaries(st.sampled_from(["tools", "tool_choice", "response_format", "logprobs"]), anything),
    st.lists(st.dictionaries(words, anything, max_size=4), max_size=3),
)
def test_any_prompt_is_converted_or_refused_by_name(
    params: dict[str, Any], messages: list[dict[str, Any]]
) -> None:
    assert outcome_of(response_of, Prompt("m", messages, params))


def outcome_of(convert: Any, asked: Any) -> Any:
    """Return what a request became, or the field for which it was refused."""
    try:
        return convert(asked)
    except InvalidRequest as refusal:
        return refusal.param
