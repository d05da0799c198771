"""What an answer is made of, for people: its events as the parts a page shows, in their order."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from streaming.events import (
    Document,
    Event,
    Interrupt,
    Reasoning,
    Sources,
    StateUpdate,
    Token,
    ToolCall,
    ToolResult,
)

BRIEF_CHARS = 60
MOST_ANSWERS = 12


class Text(NamedTuple):
    text: str
    kind: str = "text"


class Thoughts(NamedTuple):
    text: str
    kind: str = "reasoning"


class Tool(NamedTuple):
    id: str
    tool: str
    brief: str
    args: str
    result: str | None = None
    truncated: bool = False
    state: str = "called"
    """``called``, ``answered`` or ``failed``."""
    kind: str = "tool"

    @property
    def outcome(self) -> str:
        return {"called": "called", "answered": "done", "failed": "failed"}[self.state]


class Found(NamedTuple):
    documents: list[Document]
    kind: str = "sources"


class State(NamedTuple):
    mode: str
    node: str
    data: str
    kind: str = "state"


class Question(NamedTuple):
    """What a graph asks a person."""

    question: str
    details: str
    answers: list[str]
    """To choose from; empty: the answer is written."""
    kind: str = "interrupt"


Part = Text | Thoughts | Tool | Found | State | Question


def parts_of(events: Iterable[Event]) -> list[Part]:
    """Return what to show of ``events``: neighbouring text as one, a tool's result with its call."""
    parts: list[Part] = []
    for event in events:
        match event:
            case Token(content):
                _grow(parts, Text(content))
            case Reasoning(content):
                _grow(parts, Thoughts(content))
            case ToolCall():
                parts.append(_call(event))
            case ToolResult():
                _answer(parts, event)
            case Sources(documents):
                parts.append(Found(documents))
            case StateUpdate(mode, data, node, namespace):
                parts.append(State(mode, node or ".".join(namespace), indented(data)))
            case Interrupt(_, value):
                parts.append(_question(value))
    return parts


def indented(value: Any) -> str:
    """Return JSON for people; a text as it is.

    >>> indented({"a": [1]}).replace("\\n", "|")
    '{|  "a": [|    1|  ]|}'
    """
    if isinstance(value, str):
        return value
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _grow(parts: list[Part], more: Text | Thoughts) -> None:
    last = parts[-1] if parts else None
    if isinstance(last, Text | Thoughts) and last.kind == more.kind:
        parts[-1] = last._replace(text=last.text + more.text)
    elif more.text:
        parts.append(more)


def _call(call: ToolCall) -> Tool:
    args = indented(call.args) if call.args_text is None else call.args_text
    return Tool(call.id, call.tool, shortened(call.arguments), args)


def _answer(parts: list[Part], result: ToolResult) -> None:
    state = "failed" if result.failed else "answered"
    told = indented(result.result)
    for place in reversed(range(len(parts))):
        part = parts[place]
        if isinstance(part, Tool) and part.id == result.id:
            parts[place] = part._replace(result=told, truncated=result.truncated, state=state)
            return
    parts.append(Tool(result.id, result.tool, "", "", told, result.truncated, state))


def shortened(text: str) -> str:
    """Return so much of ``text`` as fits on a line.

    >>> len(shortened("x" * 100))
    61
    """
    return text if len(text) <= BRIEF_CHARS else text[:BRIEF_CHARS] + "…"


def _question(value: Any) -> Question:
    if isinstance(value, str):
        return Question(value, "", [])
    if not isinstance(value, dict):
        return Question("An answer is needed to go on", indented(value), [])
    rest = {name: told for name, told in value.items() if name not in ("question", "answers")}
    question = value.get("question")
    if not isinstance(question, str):
        question = "An answer is needed to go on"
        rest = {name: told for name, told in value.items() if name != "answers"}
    answers = value.get("answers")
    if not isinstance(answers, list) or not all(isinstance(each, str) for each in answers):
        answers = []
    details = next(iter(rest.values())) if len(rest) == 1 else rest
    return Question(question, indented(details) if rest else "", answers[:MOST_ANSWERS])
