from datetime import UTC, datetime
from typing import Any

import pytest
from chatkit.types import ThreadItem
from pydantic import TypeAdapter

from streaming.chatkit.history import messages_of, title_of, within

item_type: TypeAdapter[ThreadItem] = TypeAdapter(ThreadItem)


def item(type_: str, **fields: Any) -> ThreadItem:
    about = {"id": "i", "thread_id": "t", "created_at": datetime.now(UTC), "type": type_}
    return item_type.validate_python(about | fields)


def user(text: str, **fields: Any) -> ThreadItem:
    content = [{"type": "input_text", "text": text}]
    return item("user_message", content=content, inference_options={}, **fields)


def assistant(text: str) -> ThreadItem:
    return item("assistant_message", content=[{"text": text}])


def test_what_was_said_is_told_and_what_is_only_shown_is_not() -> None:
    items = [
        user("a"),
        item("workflow", workflow={"type": "custom", "tasks": []}),
        assistant(" b "),
        assistant("  "),
        user("c"),
    ]
    assert messages_of(items) == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]


def test_hidden_context_goes_before_the_next_message_of_the_user() -> None:
    items = [assistant("b"), item("sdk_hidden_context", content="stopped"), user("c")]
    assert messages_of(items)[1] == {
        "role": "user",
        "content": "Hidden context, not shown to the user: stopped\n\nc",
    }


def test_a_quote_and_a_tag_are_part_of_what_was_said() -> None:
    content = [
        {"type": "input_text", "text": "ask "},
        {"type": "input_tag", "id": "1", "text": "Ana", "data": {}},
    ]
    (said,) = messages_of([item("user_message", content=content, inference_options={}, quoted_text="q")])
    assert said["content"] == "The user refers to this in particular:\nq\n\nask @Ana"


def test_a_clients_tool_is_told_once_it_has_answered() -> None:
    fields = {"call_id": "c1", "name": "pick", "arguments": {"a": 1}}
    assert messages_of([item("client_tool_call", **fields)]) == []
    call, output = messages_of([item("client_tool_call", status="completed", output={"b": 2}, **fields)])
    assert call["tool_calls"][0]["function"] == {"name": "pick", "arguments": '{"a":1}'}
    assert output == {"role": "tool", "tool_call_id": "c1", "content": '{"b":2}'}


@pytest.mark.parametrize(
    ("most", "chars", "left"), [(9, 99, 5), (3, 99, 3), (2, 99, 1), (9, 5, 1), (9, 0, 1)]
)
def test_the_oldest_messages_are_left_out_never_the_last_one(most: int, chars: int, left: int) -> None:
    roles = ("user", "assistant", "user", "assistant", "user")
    messages = [{"role": role, "content": "123"} for role in roles]
    kept = within(messages, most, chars)
    assert kept == messages[-left:]
    assert kept[0]["role"] == "user"


def test_a_title_is_the_beginning_of_the_question_cut_at_a_word() -> None:
    assert title_of("  What\n is it? ") == "What is it?"
    assert title_of("word " * 30) == "word " * 11 + "word…"
    assert title_of("x" * 100) == "x" * 60 + "…"
