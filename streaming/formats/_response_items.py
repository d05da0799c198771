"""Items of a response in the making: what each says when it begins, goes on and ends.

Source: OpenAI API reference, "Streaming events" of Responses.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

JSON = dict[str, Any]
Events = Iterator[JSON]

_SUMMARY = "summary_text"
_SAYS = {
    "output_text": "response.output_text",
    "refusal": "response.refusal",
    "reasoning_text": "response.reasoning_text",
    _SUMMARY: "response.reasoning_summary_text",
}
"""What the events of each type of part are called."""


class Speech:
    """A message or a train of thought: an item made of parts of text."""

    def __init__(self, kind: str, item_id: str, index: int) -> None:
        self.kind = kind
        self._at = {"item_id": item_id, "output_index": index}
        self._lists: dict[str, list[JSON]] = {"content": []}
        if kind == "reasoning":
            self._lists["summary"] = []
        self._open: _Part | None = None

    def begin(self) -> Events:
        yield self._event("added", self._item("in_progress"))

    def say(self, kind: str, text: str, logprobs: list[JSON]) -> Events:
        """Say more in a part of this type, after the end of one of another type."""
        yield from self._part(kind)
        assert self._open
        yield self._open.say(text, logprobs)

    def annotate(self, annotation: JSON) -> Events:
        yield from self._part("output_text")
        assert self._open
        yield self._open.annotate(annotation)

    def end(self, status: str) -> Events:
        yield from self._end_part()
        yield self._event("done", self._item(status))

    def _part(self, kind: str) -> Events:
        if self._open is not None and self._open.kind == kind:
            return
        yield from self._end_part()
        self._open = _Part(kind, self._at, len(self._lists[_list_of(kind)]))
        yield from self._open.begin()

    def _end_part(self) -> Events:
        if self._open is not None:
            part, self._open = self._open, None
            self._lists[_list_of(part.kind)].append(part.whole())
            yield from part.end()

    def _item(self, status: str) -> JSON:
        item = {"id": self._at["item_id"], "type": self.kind, "status": status}
        if self.kind == "message":
            item["role"] = "assistant"
        return {**item, **{name: list(parts) for name, parts in self._lists.items()}}

    def _event(self, what: str, item: JSON) -> JSON:
        index = self._at["output_index"]
        return {"type": f"response.output_item.{what}", "output_index": index, "item": item}


class _Part:
    def __init__(self, kind: str, item: JSON, place: int) -> None:
        self.kind = kind
        self._says = _SAYS[kind]
        self._is_summary = kind == _SUMMARY
        self._at = {**item, "summary_index" if self._is_summary else "content_index": place}
        self._field = "refusal" if kind == "refusal" else "text"
        self._texts: list[str] = []
        self._logprobs: list[JSON] = []
        self._annotations: list[JSON] = []

    def begin(self) -> Events:
        yield self._event("added")

    def say(self, text: str, logprobs: list[JSON]) -> JSON:
        self._texts.append(text)
        event = {"type": f"{self._says}.delta", **self._at, "delta": text}
        if self.kind == "output_text":
            self._logprobs += logprobs
            event["logprobs"] = logprobs
        return event

    def annotate(self, annotation: JSON) -> JSON:
        self._annotations.append(annotation)
        return {
            "type": f"{self._says}.annotation.added",
            **self._at,
            "annotation_index": len(self._annotations) - 1,
            "annotation": annotation,
        }

    def end(self) -> Events:
        whole = self.whole()
        done = {"type": f"{self._says}.done", **self._at, self._field: whole[self._field]}
        if self.kind == "output_text":
            done["logprobs"] = whole["logprobs"]
        yield done
        yield self._event("done")

    def whole(self) -> JSON:
        part: JSON = {"type": self.kind, self._field: "".join(self._texts)}
        if self.kind == "output_text":
            part |= {"annotations": list(self._annotations), "logprobs": list(self._logprobs)}
        return part

    def _event(self, what: str) -> JSON:
        name = "reasoning_summary_part" if self._is_summary else "content_part"
        return {"type": f"response.{name}.{what}", **self._at, "part": self.whole()}


def _list_of(kind: str) -> str:
    return "summary" if kind == _SUMMARY else "content"


class Call:
    """A call of a tool; it begins when its name is known."""

    def __init__(self, name: str, index: int, first: JSON) -> None:
        """Make one of its first fragment; ``name`` is what ids of its stream are made of."""
        is_custom = first.get("type") == "custom"
        self._kind = "custom" if is_custom else "function"
        self._field = "input" if is_custom else "arguments"
        self._says = "custom_tool_call_input" if is_custom else "function_call_arguments"
        self._head = {
            "id": f"{'ctc' if is_custom else 'fc'}_{name}_{index}",
            "type": "custom_tool_call" if is_custom else "function_call",
            "call_id": str(first.get("id")),
        }
        self._index = index
        self._name = ""
        self._begun = False
        self._pieces: list[str] = []
        self.ended = False

    def add(self, fragment: JSON) -> Events:
        if self.ended:  # only blanks can follow what was complete
            return
        inside = fragment.get(self._kind)
        inside = inside if isinstance(inside, dict) else {}
        if not self._name and isinstance(name := inside.get("name"), str):
            self._name = name
        if isinstance(piece := inside.get(self._field), str) and piece:
            self._pieces.append(piece)
        if not self._begun and self._name:
            yield from self._begin()
        elif self._begun and piece:
            yield self._delta(piece)

    def end_if_complete(self) -> Events:
        """End it if nothing can follow: its arguments are a whole JSON object."""
        if self._begun and not self.ended and self._is_complete():
            yield from self.end("completed")

    def end(self, status: str) -> Events:
        if self.ended:
            return
        if not self._begun:
            yield from self._begin()
        self.ended = True
        said = {self._field: "".join(self._pieces)}
        at = {"item_id": self._head["id"], "output_index": self._index}
        if self._kind == "function":
            at["name"] = self._name
        yield {"type": f"response.{self._says}.done", **at, **said}
        yield self._event("done", self._item(status, said[self._field]))

    def _begin(self) -> Events:
        self._begun = True
        yield self._event("added", self._item("in_progress", ""))
        if self._pieces:
            yield self._delta("".join(self._pieces))

    def _is_complete(self) -> bool:
        try:
            msgspec.json.decode("".join(self._pieces), type=dict)
        except (msgspec.DecodeError, RecursionError):
            return False
        return True

    def _item(self, status: str, said: str) -> JSON:
        item = {**self._head, "name": self._name, self._field: said}
        return {**item, "status": status} if self._kind == "function" else item

    def _delta(self, piece: str) -> JSON:
        at = {"item_id": self._head["id"], "output_index": self._index}
        return {"type": f"response.{self._says}.delta", **at, "delta": piece}

    def _event(self, what: str, item: JSON) -> JSON:
        return {"type": f"response.output_item.{what}", "output_index": self._index, "item": item}
