"""What clients of OpenAI's chat dialect cannot do without, where a server leaves it out.

Of a chunk: its id, object, time and model; of a choice: its index, delta and
finish reason, and the role in its first delta; of a tool call: its index, and
in its first fragment its id and type. Left out is an ``error`` that is null:
the AI SDK takes the chunk for an error, and its text is lost.
"""

from collections.abc import Iterable
from typing import Any

from streaming.events import Done, Event, Start, Usage
from streaming.formats._chunks import ChunkWriter
from streaming.formats._usage import estimated_usage

JSON = dict[str, Any]


class Chunks:
    """The complete chunks of one stream, from its first event on."""

    def __init__(self) -> None:
        self._writer = ChunkWriter()
        self._name = ""
        self._head: JSON = {}
        self._begun: dict[int, int] = {}
        """Of each choice that has begun, how many tool calls it has so far."""
        self._finished: set[int] = set()
        """The choices that have said why they ended."""
        self._has_usage = False
        self._usage: list[JSON] = []
        """What came before that."""

    @property
    def between_chunks(self) -> bool:
        """The answer has begun, and no chunk waits for more of its texts."""
        return bool(self._begun) and self._writer.is_idle

    def of(self, event: Event) -> list[JSON]:
        """Return the chunks that ``event`` completes."""
        match event:
            case Start():
                self._begin(event)
            case Usage():
                self._has_usage = True
            case Done(reason) if reason != "cancelled":
                if not self._has_usage and (estimate := estimated_usage(event)):
                    self._usage = [self._complete({"choices": [], "usage": estimate})]
                return [*self._finish("stop" if reason == "unknown" else reason), *self._usage]
        said = []
        for chunk in map(self._complete, self._writer.write(event)):
            if not chunk["choices"] and chunk.get("usage") and self._unfinished():
                # It belongs behind the finish reasons, whatever the source says first.
                self._usage = [chunk]
            else:
                said.append(chunk)
        return said

    def _finish(self, reason: str) -> list[JSON]:
        """Say why choices end that have not said so.

        Some servers say only [DONE]; clients of this dialect wait for a reason.
        ``reason`` is the first choice's.
        """
        return [
            self._complete(self._writer.finish("stop" if index else reason, index))
            for index in self._unfinished()
        ]

    def _unfinished(self) -> list[int]:
        return sorted((self._begun.keys() or {0}) - self._finished)

    def _begin(self, start: Start) -> None:
        self._name = start.stream_id.removeprefix("st_")
        self._head = {
            "id": f"chatcmpl-{self._name}",
            "object": "chat.completion.chunk",
            "created": start.created,
            "model": start.model,
        }

    def _complete(self, chunk: JSON) -> JSON:
        choices = [self._choice(choice, place) for place, choice in enumerate(chunk.get("choices") or [])]
        whole = {**self._head, **chunk, "choices": choices}
        if whole.get("error", 0) is None:
            del whole["error"]
        return whole

    def _choice(self, choice: JSON, place: int) -> JSON:
        index = choice.get("index")
        if not isinstance(index, int):
            index = place
        delta = choice.get("delta")
        delta = delta if isinstance(delta, dict) else {}
        if index not in self._begun:
            self._begun[index] = 0
            delta = {**delta, "role": delta.get("role") or "assistant"}
        fragments = delta.get("tool_calls")
        if isinstance(fragments, list) and all(isinstance(fragment, dict) for fragment in fragments):
            delta = {**delta, "tool_calls": list(self._calls(index, fragments))}
        if choice.get("finish_reason"):
            self._finished.add(index)
        return {"finish_reason": None, **choice, "index": index, "delta": delta}

    def _calls(self, choice: int, fragments: Iterable[JSON]) -> Iterable[JSON]:
        for fragment in fragments:
            count = self._begun[choice]
            index = fragment.get("index")
            if not isinstance(index, int):
                # Some servers leave it out; a new id then begins a new call.
                index = count if fragment.get("id") or not count else count - 1
            if index >= count:
                self._begun[choice] = index + 1
                made_up = f"call_{self._name}_{choice}_{index}"
                kind = fragment.get("type") or ("custom" if "custom" in fragment else "function")
                fragment = {**fragment, "id": fragment.get("id") or made_up, "type": kind}
            yield {**fragment, "index": index}
