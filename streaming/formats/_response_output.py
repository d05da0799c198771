"""The output of a response, as its events have made it so far.

Text is joined only when somebody looks: an answer of a hundred thousand pieces
must not be copied for each. Events that make no sense are passed over, because
an upstream may send anything.
"""

from typing import Any

JSON = dict[str, Any]

_DELTAS = {
    "response.output_text.delta": ("content", "content_index", "output_text", "text"),
    "response.refusal.delta": ("content", "content_index", "refusal", "refusal"),
    "response.reasoning_text.delta": ("content", "content_index", "reasoning_text", "text"),
    "response.reasoning_summary_text.delta": ("summary", "summary_index", "summary_text", "text"),
}
"""Of each delta of a part: the list the part stands in, what counts its places, its type and its text."""
_WHOLE_DELTAS = {
    "response.function_call_arguments.delta": "arguments",
    "response.mcp_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "input",
    "response.code_interpreter_call_code.delta": "code",
}
_PARTS = {
    "response.content_part.added": ("content", "content_index"),
    "response.content_part.done": ("content", "content_index"),
    "response.reasoning_summary_part.added": ("summary", "summary_index"),
    "response.reasoning_summary_part.done": ("summary", "summary_index"),
}


class Output:
    def __init__(self) -> None:
        self._items: dict[int, _Item] = {}

    def take(self, event: JSON) -> None:
        """Do to the output what ``event`` says."""
        kind, index = event.get("type"), event.get("output_index")
        if not isinstance(kind, str) or not isinstance(index, int):
            return
        if kind in ("response.output_item.added", "response.output_item.done"):
            if isinstance(item := event.get("item"), dict):
                self._items[index] = _Item(item)
        elif (found := self._items.get(index)) is not None:
            found.take(kind, event)

    def items(self, ended: bool = False) -> list[JSON]:
        """Return the items in order; after the end none of them is in progress."""
        whole = [item.whole() for _, item in sorted(self._items.items())]
        if not ended:
            return whole
        return [
            {**item, "status": "incomplete"} if item.get("status") == "in_progress" else item
            for item in whole
        ]


class _Item:
    def __init__(self, head: JSON) -> None:
        self._head = head
        self._parts: dict[tuple[str, int], _Part] = {}
        self._texts: dict[str, list[str]] = {}

    def take(self, kind: str, event: JSON) -> None:
        delta = event.get("delta")
        if kind in _DELTAS and isinstance(delta, str):
            into, place, part, field = _DELTAS[kind]
            self._part(into, event.get(place), part).say(field, delta, event.get("logprobs"))
        elif kind in _WHOLE_DELTAS and isinstance(delta, str):
            self._texts.setdefault(_WHOLE_DELTAS[kind], []).append(delta)
        elif kind in _PARTS and isinstance(event.get("part"), dict):
            into, place = _PARTS[kind]
            self._parts[into, _place(event.get(place))] = _Part(event["part"])
        elif kind == "response.output_text.annotation.added":
            text = self._part("content", event.get("content_index"), "output_text")
            text.annotations.append(event.get("annotation"))

    def whole(self) -> JSON:
        item = {**self._head}
        for name, texts in self._texts.items():
            item[name] = _text(item.get(name)) + "".join(texts)
        for (into, place), part in sorted(self._parts.items()):
            parts = item[into] = _list(item.get(into))
            parts[place : place + 1] = [part.whole()]
        return item

    def _part(self, into: str, place: object, kind: str) -> "_Part":
        return self._parts.setdefault((into, _place(place)), _Part({"type": kind}))


class _Part:
    def __init__(self, head: JSON) -> None:
        self._head = head
        self._field = "text"
        self._texts: list[str] = []
        self._logprobs: list[Any] = []
        self.annotations: list[Any] = []

    def say(self, field: str, text: str, logprobs: object) -> None:
        self._field = field
        self._texts.append(text)
        self._logprobs += [_logprob(each) for each in _list(logprobs)]

    def whole(self) -> JSON:
        part = {**self._head}
        if self._texts:
            part[self._field] = _text(part.get(self._field)) + "".join(self._texts)
        if part.get("type") == "output_text":
            part["annotations"] = [*_list(part.get("annotations")), *self.annotations]
            part["logprobs"] = [*_list(part.get("logprobs")), *self._logprobs]
        return part


def _place(index: object) -> int:
    return index if isinstance(index, int) and index >= 0 else 0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list) else []


def _logprob(of_token: Any) -> Any:
    """Return a delta's log probability as a part has it, with fields a delta may leave out."""
    if not isinstance(of_token, dict):
        return of_token
    top = [{"bytes": [], **each} for each in _list(of_token.get("top_logprobs")) if isinstance(each, dict)]
    return {"bytes": [], **of_token, "top_logprobs": top}
