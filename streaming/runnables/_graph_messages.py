"""The messages of a graph as events: text as it comes, calls when they are complete, results."""

from collections.abc import Iterator
from typing import Any

import msgspec
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.tool import ToolCallChunk

from streaming.events import Event, Reasoning, Token, ToolCall, ToolResult
from streaming.runnables._readable import CUT, _whole, to_json

RESULT_BYTES = 64 * 1024

_decode_arguments = msgspec.json.Decoder(dict[str, Any]).decode


class MessageEvents:
    """Translates the messages of one run, in order; each answer is a paragraph of its own."""

    def __init__(self) -> None:
        self.has_text = False
        self._spoken: dict[str, list[str]] = {}
        """The text of each message that came in chunks."""
        self._calls: dict[str, dict[object, _Call]] = {}
        """Calls that may go on, by message and place."""

    def of(self, message: BaseMessage) -> Iterator[Event]:
        match message:
            case AIMessageChunk():
                yield from self._of_chunk(message)
            case AIMessage():
                yield from self._of_whole(message)
            case ToolMessage():
                yield from self.rest()
                yield _result(message)

    def rest(self) -> Iterator[Event]:
        """Return the calls of which no end was told."""
        for calls in self._calls.values():
            yield from (call.event() for call in calls.values())
        self._calls.clear()

    def _of_chunk(self, chunk: AIMessageChunk) -> Iterator[Event]:
        said = str(chunk.id)
        yield from self._thoughts_and_text(chunk, said)
        for part in chunk.tool_call_chunks:
            calls = self._calls.setdefault(said, {})
            place = part.get("index") if part.get("index") is not None else len(calls)
            calls.setdefault(place, _Call()).add(part)
        if chunk.chunk_position == "last":
            yield from (call.event() for call in self._calls.pop(said, {}).values())

    def _of_whole(self, message: AIMessage) -> Iterator[Event]:
        if message.text and any("".join(text) == message.text for text in self._spoken.values()):
            return  # a node made a message of its own out of what its model said
        yield from self._thoughts_and_text(message, str(message.id))
        for call in message.tool_calls:
            yield ToolCall(
                _whole(call["id"] or ""), _whole(call["name"]), to_json(call["args"]), handled=True
            )
        for bad in message.invalid_tool_calls:
            name, text = bad["name"] or "", bad["args"] or ""
            yield ToolCall(_whole(bad["id"] or ""), _whole(name), None, _whole(text), handled=True)

    def _thoughts_and_text(self, message: AIMessage, said: str) -> Iterator[Event]:
        if isinstance(thought := message.additional_kwargs.get("reasoning_content"), str) and thought:
            yield Reasoning(_whole(thought))
        if isinstance(refused := message.additional_kwargs.get("refusal"), str) and refused:
            yield self._token(refused, said, refusal=True)
        if isinstance(message.content, str):
            if message.content:
                yield self._token(message.content, said)
            return
        for block in message.content_blocks:
            if block["type"] == "text" and block["text"]:
                yield self._token(block["text"], said)
            elif block["type"] == "reasoning" and not thought and (summary := block.get("reasoning")):
                yield Reasoning(_whole(summary))

    def _token(self, text: str, said: str, refusal: bool = False) -> Token:
        is_new = said not in self._spoken
        self._spoken.setdefault(said, []).append(text)
        if is_new and self.has_text:
            text = "\n\n" + text
        self.has_text = True
        return Token(_whole(text), refusal)


class _Call:
    def __init__(self) -> None:
        self._id = ""
        self._name = ""
        self._arguments: list[str] = []

    def add(self, part: ToolCallChunk) -> None:
        self._id = self._id or part["id"] or ""
        self._name += part["name"] or ""
        self._arguments.append(part["args"] or "")

    def event(self) -> ToolCall:
        text = "".join(self._arguments)
        try:
            args = to_json(_decode_arguments(text or "{}"), RESULT_BYTES)
            return ToolCall(_whole(self._id), _whole(self._name), args, handled=True)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return ToolCall(_whole(self._id), _whole(self._name), None, _whole(text), handled=True)


def _result(message: ToolMessage) -> ToolResult:
    result = to_json(message.content, RESULT_BYTES)
    cut = isinstance(result, str) and result.endswith(CUT) and len(result) < len(str(message.content))
    name = _whole(message.name or "")
    return ToolResult(_whole(message.tool_call_id), name, result, message.status == "error", cut)
