"""A thread's items as the messages a model is given."""

from collections.abc import Iterable, Sequence
from typing import Any

from chatkit.types import (
    AssistantMessageItem,
    ClientToolCallItem,
    HiddenContextItem,
    SDKHiddenContextItem,
    StructuredInputItem,
    ThreadItem,
    UserMessageItem,
    UserMessageTextContent,
)

from streaming.events import json_line

Message = dict[str, Any]

MAX_TITLE_CHARS = 60


def messages_of(items: Iterable[ThreadItem]) -> list[Message]:
    """Return what was said, oldest first; workflows and what only the client shows are left out.

    What the model is to know and nobody said goes before the next message of the
    user, because some models allow nothing else between two answers.
    """
    messages: list[Message] = []
    hidden: list[str] = []
    for item in items:
        match item:
            case UserMessageItem():
                messages.append({"role": "user", "content": "\n\n".join([*hidden, text_of(item)])})
                hidden = []
            case AssistantMessageItem():
                if text := "".join(part.text for part in item.content).strip():
                    messages.append({"role": "assistant", "content": text})
            case ClientToolCallItem(status="completed"):
                messages += _called(item)
            case StructuredInputItem() if item.status != "pending":
                messages += _asked(item)
            case HiddenContextItem() | SDKHiddenContextItem():
                hidden.append(f"Hidden context, not shown to the user: {item.content}")
    return messages


def text_of(item: UserMessageItem) -> str:
    """Return what a user wrote, with what they quoted before it."""
    said = "".join(
        part.text if isinstance(part, UserMessageTextContent) else f"@{part.text}" for part in item.content
    )
    if item.quoted_text:
        return f"The user refers to this in particular:\n{item.quoted_text}\n\n{said}"
    return said


def within(messages: Sequence[Message], max_messages: int, max_chars: int) -> list[Message]:
    """Leave out the oldest messages beyond the limits, never the last one; begin with the user's."""
    kept: list[Message] = []
    chars = 0
    for message in reversed(messages):
        chars += len(message["content"] or "")
        if kept and (chars > max_chars or len(kept) >= max_messages):
            break
        kept.append(message)
    kept.reverse()
    first = next((place for place, each in enumerate(kept) if each["role"] == "user"), 0)
    return kept[first:]


def title_of(text: str) -> str:
    """Return the beginning of a question, cut at a word.

    >>> title_of("What is a cursor?")
    'What is a cursor?'
    """
    words = " ".join(text.split())
    if len(words) <= MAX_TITLE_CHARS:
        return words
    return (words[:MAX_TITLE_CHARS].rpartition(" ")[0] or words[:MAX_TITLE_CHARS]) + "…"


def _called(item: ClientToolCallItem) -> list[Message]:
    function = {"name": item.name, "arguments": json_line(item.arguments).decode()}
    call = {"id": item.call_id, "type": "function", "function": function}
    output = item.output if isinstance(item.output, str) else json_line(item.output).decode()
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": item.call_id, "content": output},
    ]


def _asked(item: StructuredInputItem) -> list[Message]:
    messages: list[Message] = []
    for each in item.inputs:
        answered = ", ".join(each.answer.values) if each.answer else ""
        messages.append({"role": "assistant", "content": each.question})
        messages.append({"role": "user", "content": answered or "(skipped)"})
    return messages
