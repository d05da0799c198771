"""Chunks of OpenAI chat completions made of a stream's events, the inverse of how a chat source reads them.

A chunk comes out equal, as JSON, to what the upstream sent. The events of other
sources, which had no chunks, become chunks of the same kind.

Source: OpenAI API reference, "The chat completion chunk object".
"""

from typing import Any

from streaming.events import (
    Chunk,
    Event,
    Extra,
    Reasoning,
    Token,
    ToolCall,
    Usage,
)
from streaming.formats._usage import chat_usage

JSON = dict[str, Any]


class ChunkWriter:
    """Writes one stream's chunks, from its first event on."""

    def __init__(self) -> None:
        self._first: JSON = {}
        self._first_choice: JSON = {"index": 0, "logprobs": None, "finish_reason": None}
        self._from_chunks = False
        """The source had chunks: a tool call's parts came in them."""
        self._pending: JSON | None = None
        """The stream's first chunk, until its text is there."""
        self._texts: JSON = {}
        """Of the chunk that is not complete."""

    @property
    def is_idle(self) -> bool:
        """No chunk waits for more of its texts."""
        return self._pending is None and not self._texts

    def write(self, event: Event) -> list[JSON]:
        """Return the chunks that ``event`` completes."""
        match event:
            case Chunk(first=first) if first is not None:
                return self._write_first(first, event.more)
            case Chunk(whole=whole) if whole is not None:
                chunk = whole
            case Chunk(extra=extra):
                chunk = self._chunk(extra or Extra())
            case Token():
                self._texts["refusal" if event.refusal else "content"] = event.content
                if event.more:
                    return []
                chunk = self._chunk(event.extra or Extra())
            case Reasoning():
                self._texts[event.field if self._from_chunks else "reasoning_content"] = event.content
                if event.more:
                    return []
                chunk = self._chunk(event.extra or Extra())
            case ToolCall(handled=False) if not self._from_chunks:
                chunk = self._chunk(Extra(delta={"tool_calls": [self._call(event)]}))
            case Usage():
                chunk = {**self._like_first(event.extra), "choices": [], "usage": chat_usage(event.usage)}
            case _:
                return []
        return [chunk]

    def finish(self, reason: str, index: int) -> JSON:
        """Return a chunk that says why a choice ends, where none of the upstream's did."""
        return self._chunk(Extra(choice={"index": index, "finish_reason": reason}))

    def _write_first(self, first: JSON, more: bool) -> list[JSON]:
        self._from_chunks = True
        self._first = {name: value for name, value in first.items() if name != "choices"}
        choices = first.get("choices") or [{}]
        self._first_choice = {name: value for name, value in choices[0].items() if name != "delta"}
        if more:
            self._pending = first
            return []
        return [first]

    def _chunk(self, extra: Extra) -> JSON:
        """Return the chunk that holds the texts that came, and differs from the first by ``extra``."""
        texts, self._texts = self._texts, {}
        if self._pending is not None:
            chunk, self._pending = self._pending, None
            (choice,) = chunk["choices"]
            return {**chunk, "choices": [{**choice, "delta": {**(choice.get("delta") or {}), **texts}}]}
        choice = {
            name: value
            for name, value in {**self._first_choice, **extra.choice}.items()
            if f"choice.{name}" not in extra.absent
        }
        choice["delta"] = {**texts, **extra.delta}
        return {**self._like_first(extra), "choices": [choice]}

    def _like_first(self, extra: Extra | None) -> JSON:
        extra = extra or Extra()
        return {
            name: value
            for name, value in {**self._first, **extra.chunk}.items()
            if f"chunk.{name}" not in extra.absent
        }

    def _call(self, call: ToolCall) -> JSON:
        arguments = call.arguments
        return {"id": call.id, "type": "function", "function": {"name": call.tool, "arguments": arguments}}
