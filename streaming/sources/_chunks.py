"""Chunks of OpenAI chat completions as events, losing nothing.

Text, reasoning and usage become events of their own; whatever else a chunk
held is kept beside them as the difference from the stream's first chunk, so a
reader of that dialect can be given chunks equal to the upstream's.

Source: OpenAI API reference, "The chat completion chunk object".
"""

import json
import math
from typing import Any, NoReturn

import msgspec

from streaming.errors import UpstreamBadResponse
from streaming.events import Chunk, Event, Extra, Reasoning, Token, ToolCall, Usage
from streaming.jsonlimits import is_too_deep, may_be_too_deep
from streaming.sources._like_before import LikeBefore

TEXT_FIELDS = ("reasoning_content", "reasoning", "content", "refusal")
_LARGEST_INTEGER = 2**63
LESSONS = 3
"""How often it is tried to learn what an upstream's plain chunks look like."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class ChunkReader:
    """Reads one stream's chunks, in order."""

    def __init__(self) -> None:
        self.finish_reason = ""
        self.usage: dict[str, Any] | None = None
        self._first: _First | None = None
        self._halves: dict[str, str] = {}
        self._calls: dict[int, _Call] = {}
        self._like: LikeBefore | None = None
        """Reads chunks that hold nothing but text, once there was one."""
        self._lessons = LESSONS

    def read(self, data: bytes) -> list[Event]:
        """Return the events of one chunk. Raises `UpstreamBadResponse` for what is not one."""
        if self._like is not None and not self._halves and not self.finish_reason:
            text = self._like.text_of(data)
            if text:
                return [Token(text)]
        events = self.read_any(data)
        match events:
            case [Token(refusal=False, extra=None, more=False)] if self._lessons:
                self._lessons -= 1
                self._like = LikeBefore.learn(data) or self._like
        return events

    def text_of_event(self, block: bytes) -> str:
        """Return the text of ``block`` if it is one server-sent event with a chunk that holds nothing else.

        Whoever uses it need not read the block.
        """
        if self._like is None or self._halves or self.finish_reason:
            return ""
        return self._like.text_of_event(block)

    def read_any(self, data: bytes) -> list[Event]:
        """Do the same without the short cut."""
        chunk, odd = parse(data)
        choices = _choices(chunk)
        usage = cleaned(chunk.get("usage")) if odd else chunk.get("usage")
        if isinstance(usage, dict):
            self.usage = usage
        if self._first is None:
            return self._read_first(chunk, choices, odd)
        if len(choices) == 1 and choices[0].get("index", 0) == 0:
            if self.finish_reason:  # after the end of the answer only the usage counts
                return [Usage(usage)] if isinstance(usage, dict) else []
            texts, delta = _texts(choices[0])
            return self._read_choice(
                choices[0], texts, delta, self._first.difference(chunk, choices[0], delta), odd
            )
        if not choices and isinstance(usage, dict):
            extra = self._first.difference({**chunk, "usage": self._first.usage}, None, {})
            return [Usage(usage, _cleaned_extra(extra) if odd else extra)]
        return [Chunk(whole=cleaned(chunk) if odd else chunk)]

    def _read_first(self, chunk: dict[str, Any], choices: list[dict[str, Any]], odd: bool) -> list[Event]:
        self._first = _First(chunk, choices[0] if choices else {})
        if len(choices) != 1 or choices[0].get("index", 0) != 0:
            return [Chunk(first=cleaned(chunk) if odd else chunk)]
        texts, delta = _texts(choices[0])
        rest = self._read_choice(choices[0], texts, delta, None, odd)
        without_text = {**chunk, "choices": [{**choices[0], "delta": delta}]}
        has_text = isinstance(rest[0], Token | Reasoning)
        first = Chunk(first=cleaned(without_text) if odd else without_text, more=has_text)
        return [first, *(event for event in rest if not isinstance(event, Chunk))]

    def end(self) -> list[Event]:
        """Return what was held back until the end of the answer."""
        left: list[Event] = []
        for name in self._halves:
            if name in ("content", "refusal"):
                left.append(Token("\ufffd", refusal=name == "refusal"))
            else:
                left.append(Reasoning("\ufffd", name))
        self._halves.clear()
        return left + self._take_calls()

    def _read_choice(
        self,
        choice: dict[str, Any],
        texts: list[tuple[str, str]],
        delta: dict[str, Any],
        extra: Extra | None,
        odd: bool,
    ) -> list[Event]:
        if odd or self._halves:
            texts = [(name, whole) for name, text in texts if (whole := self._join(name, text))]
            extra = _cleaned_extra(extra)
        events: list[Event] = []
        for place, (name, text) in enumerate(texts, 1):
            more = place < len(texts)
            beside = None if more else extra
            if name in ("content", "refusal"):
                events.append(Token(text, name == "refusal", beside, more))
            else:
                events.append(Reasoning(text, name, beside, more))
        if not events:
            events.append(Chunk(extra=extra or Extra()))
        events += self._note_calls(delta.get("tool_calls"))
        if reason := choice.get("finish_reason"):
            self.finish_reason = joined(str(reason))
            events += self._take_calls()
        return events

    def _note_calls(self, fragments: object) -> list[Event]:
        if not isinstance(fragments, list):
            return []
        complete: list[Event] = []
        for fragment in fragments:
            if not isinstance(fragment, dict):
                raise UpstreamBadResponse("the model sent what is not a tool call", code="json")
            index = fragment.get("index")
            # Some servers leave the index out; a new id then begins a new call.
            if not isinstance(index, int):
                index = len(self._calls) - (0 if fragment.get("id") or not self._calls else 1)
            if index not in self._calls:
                complete += self._take_calls(only_whole=True)
            self._calls.setdefault(index, _Call()).add(fragment)
        return complete

    def _take_calls(self, only_whole: bool = False) -> list[Event]:
        taken: list[Event] = []
        for call in self._calls.values():
            event = call.event()
            if not call.taken and (event.args is not None or not only_whole):
                call.taken = True
                taken.append(event)
        return taken

    def _join(self, name: str, text: str) -> str:
        """Join the halves of a character whose surrogates came in two deltas."""
        text = self._halves.pop(name, "") + text
        if "\ud800" <= text[-1:] <= "\udbff":
            self._halves[name] = text[-1]
            text = text[:-1]
        return joined(text)


class _First:
    """The stream's first chunk, which the others are told apart from."""

    def __init__(self, chunk: dict[str, Any], choice: dict[str, Any]) -> None:
        self.usage = chunk.get("usage")
        self._chunk = _without(chunk, "choices")
        self._choice = _without(choice, "delta")
        # Compared as JSON: Python takes 1 and true for the same.
        self._as_json = _to_json((self._chunk, self._choice))

    def difference(
        self, chunk: dict[str, Any], choice: dict[str, Any] | None, delta: dict[str, Any]
    ) -> Extra | None:
        """Say how a chunk differs, its text apart; ``delta`` is what its delta holds besides."""
        chunk = _without(chunk, "choices")
        choice = self._choice if choice is None else _without(choice, "delta")
        if not delta and _to_json((chunk, choice)) == self._as_json:
            return None
        # Names of the first chunk, which was cleaned before it was kept.
        absent = [joined(f"chunk.{name}") for name in self._chunk if name not in chunk]
        absent += [joined(f"choice.{name}") for name in self._choice if name not in choice]
        return Extra(_changes(self._chunk, chunk), _changes(self._choice, choice), delta, absent)


def _to_json(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # half a character; such a chunk is cleaned before it is kept
        return repr(value).encode()


def _without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    return {field: value for field, value in fields.items() if field != name}


def _changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in after.items()
        if name not in before or _to_json(before[name]) != _to_json(value)
    }


class _Call:
    def __init__(self) -> None:
        self.taken = False
        self._id = ""
        self._name = ""
        self._arguments: list[str] = []

    def add(self, fragment: dict[str, Any]) -> None:
        function = fragment.get("function") or fragment.get("custom") or {}
        if not isinstance(function, dict):
            raise UpstreamBadResponse("the model sent what is not a tool call", code="json")
        self._id = self._id or str(fragment.get("id") or "")
        self._name = self._name or str(function.get("name") or "")
        self._arguments.append(str(function.get("arguments") or function.get("input") or ""))

    def event(self) -> ToolCall:
        text = joined("".join(self._arguments))
        try:
            return ToolCall(joined(self._id), joined(self._name), _decode(text.encode()))
        except (msgspec.DecodeError, RecursionError):
            return ToolCall(joined(self._id), joined(self._name), None, text)


def _choices(chunk: dict[str, Any]) -> list[dict[str, Any]]:
    choices = chunk.get("choices")
    if choices is None and ("usage" in chunk or chunk.get("object") == "chat.completion.chunk"):
        return []
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise UpstreamBadResponse("the model sent what is not a chunk", code="json")
    return choices


def parse(data: bytes) -> tuple[dict[str, Any], bool]:
    """Decode one chunk; say whether it holds anything that JSON text cannot be encoded from.

    That is invalid UTF-8, which becomes U+FFFD, and halves of surrogate pairs.
    """
    try:
        chunk, odd = _decode(data), False
    except (msgspec.DecodeError, UnicodeDecodeError):
        chunk, odd = _parse_oddities(data), True
    except RecursionError:
        raise _too_deep() from None
    if may_be_too_deep(data) and is_too_deep(chunk):
        raise _too_deep()
    return chunk, odd


def joined(text: str) -> str:
    """Join surrogate pairs and replace halves that stand alone by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def cleaned(value: Any) -> Any:
    """Return what was parsed with every text in it, names too, `joined`."""
    if isinstance(value, str):
        return joined(value)
    if isinstance(value, dict):
        return {joined(name): cleaned(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [cleaned(inner) for inner in value]
    return value


def _too_deep() -> UpstreamBadResponse:
    return UpstreamBadResponse("the model sent JSON that is too deep", code="json")


def _parse_oddities(data: bytes) -> dict[str, Any]:
    try:
        chunk = json.loads(
            data.decode("utf-8", "replace"),
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_finite,
        )
    except (ValueError, RecursionError):
        raise UpstreamBadResponse("the model sent what is not JSON", code="json") from None
    if not isinstance(chunk, dict):
        raise UpstreamBadResponse("the model sent what is not a chunk", code="json")
    return chunk


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number too large")
    return value


def _integer(digits: str) -> int:
    value = int(digits)
    if abs(value) >= _LARGEST_INTEGER:
        raise ValueError("an integer of more than 64 bits")
    return value


def _texts(choice: dict[str, Any]) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """Take a delta apart: its texts, with their fields' names, and the rest."""
    delta = choice.get("delta")
    if delta is None:
        return [], {}
    if not isinstance(delta, dict):
        raise UpstreamBadResponse("the model sent what is not a chunk", code="json")
    texts = [(name, text) for name in TEXT_FIELDS if isinstance(text := delta.get(name), str) and text]
    if len(texts) == len(delta):
        return texts, {}
    taken = {name for name, _ in texts}
    return texts, {name: value for name, value in delta.items() if name not in taken}


def _cleaned_extra(extra: Extra | None) -> Extra | None:
    if extra is None:
        return None
    return Extra(cleaned(extra.chunk), cleaned(extra.choice), cleaned(extra.delta), extra.absent)
