"""A whole OpenAI chat completion, as one JSON object when it is complete.

What its chunks add up to. Source: OpenAI API reference, "The chat completion
object".
"""

from typing import Any

from streaming.events import Done, Error, Record, decode, json_line
from streaming.formats import Message, Wants, WireFormat
from streaming.formats._complete_chunks import Chunks
from streaming.openai_errors import CANCELLED, error_object

# Said once, in whichever fragment they come; all other text is said in parts.
_NAMES = frozenset({"role", "type", "id", "name"})
_OF_CHUNKS = frozenset({"choices", "object", "obfuscation"})


class CompletionFormat:
    media_type = "application/json"
    resumes = False
    from_start = True

    def __init__(self) -> None:
        self._chunks = Chunks()
        self._envelope: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    def encode(self, record: Record) -> list[Message]:
        event = decode(record.payload)
        for chunk in self._chunks.of(event):
            self._add(chunk)
        match event:
            case Error(error):
                return [Message(json_line({"error": error_object(error)}))]
            case Done("cancelled"):
                return [Message(json_line({"error": error_object(CANCELLED)}))]
            case Done():
                return [Message(json_line(self._whole()))]
        return []

    def _add(self, chunk: dict[str, Any]) -> None:
        for name, value in chunk.items():
            if name not in _OF_CHUNKS and (value is not None or name not in self._envelope):
                self._envelope[name] = value
        for choice in chunk["choices"]:
            whole = self._choices.setdefault(choice["index"], {"message": {}, "logprobs": None})
            add(whole["message"], choice["delta"])
            rest = {name: value for name, value in choice.items() if name not in ("index", "delta")}
            add(whole, rest, names=_NAMES | {"finish_reason"})

    def _whole(self) -> dict[str, Any]:
        choices = []
        for index, choice in sorted(self._choices.items()):
            message = {"content": None, "refusal": None, **choice["message"]}
            if isinstance(calls := message.get("tool_calls"), list):
                message["tool_calls"] = [_without_index(call) for call in calls]
            choices.append({"index": index, **choice, "message": message})
        return {**self._envelope, "object": "chat.completion", "choices": choices}


def add(whole: dict[str, Any], part: dict[str, Any], names: frozenset[str] = _NAMES) -> None:
    """Add what a fragment says: text to text, items to lists, calls to the call of their index.

    >>> whole = {"content": "Hel"}
    >>> add(whole, {"content": "lo", "role": "assistant"})
    >>> whole
    {'content': 'Hello', 'role': 'assistant'}
    """
    for name, value in part.items():
        before = whole.get(name)
        if before is None:
            # A copy: what is added later must not be added to the fragment.
            whole[name] = _copied(value)
        elif value is None:
            continue
        elif isinstance(before, str) and isinstance(value, str) and name not in names:
            whole[name] = before + value
        elif isinstance(before, dict) and isinstance(value, dict):
            add(before, value, names)
        elif isinstance(before, list) and isinstance(value, list):
            _add_items(before, value, names)
        elif name not in names or not before or name == "finish_reason":
            whole[name] = value


def _add_items(before: list[Any], items: list[Any], names: frozenset[str]) -> None:
    for item in items:
        index = _index(item)
        same = next((b for b in before if index is not None and _index(b) == index), None)
        if same is None:
            before.append(_copied(item))
        else:
            add(same, item, names)


def _without_index(call: Any) -> Any:
    if not isinstance(call, dict):
        return call
    return {name: value for name, value in call.items() if name != "index"}


def _index(item: Any) -> Any:
    return item.get("index") if isinstance(item, dict) else None


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(inner) for name, inner in value.items()}
    if isinstance(value, list):
        copied: list[Any] = []
        _add_items(copied, value, _NAMES)
        return copied
    return value


def create(wants: Wants) -> WireFormat:
    return CompletionFormat()
