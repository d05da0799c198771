"""The events of a response made of chat completion chunks, from any source.

There is one answer here where chunks may have several: that of index 0.
"""

from collections.abc import Iterable
from typing import Any

from streaming.events import Event, Reasoning, Start, Token
from streaming.formats._complete_chunks import Chunks
from streaming.formats._response_items import Call, Events, Speech

JSON = dict[str, Any]

# Some servers send the same under both names.
_REASONINGS = ("reasoning_content", "reasoning")
_ID_PREFIXES = {"message": "msg", "reasoning": "rs"}


class FromChunks:
    """Makes one stream's events."""

    def __init__(self, start: Start) -> None:
        self.head: JSON = {}
        """What the chunks say of the whole answer."""
        self._name = start.stream_id.removeprefix("st_")
        self._chunks = Chunks()
        self._chunks.of(start)
        self._in_chunk = False
        """More of the same chunk is to come."""
        self._texts_are_plain = False
        """A chunk that is like the first one has nothing besides its text."""
        self._items = 0
        self._speech: Speech | None = None
        self._calls: dict[int, Call] = {}

    def of(self, event: Event) -> Events:
        """Return what ``event`` adds to the output."""
        match event:
            case Reasoning(content, "reasoning_summary_text"):
                yield from self._say("reasoning", "summary_text", content)
            case Token(content, False, None, False) if (
                content and self._texts_are_plain and not self._in_chunk
            ):
                # Nearly all of a stream: its chunk would be built only to be taken apart.
                yield from self._say("message", "output_text", content)
            case _:
                chunks = self._chunks.of(event)
                if isinstance(event, Token) and event.extra is None and not event.more:
                    self._texts_are_plain = not any(
                        choice.get("logprobs") for chunk in chunks for choice in chunk["choices"]
                    )
                self._in_chunk = getattr(event, "more", False)
                for chunk in chunks:
                    yield from self._take(chunk)

    def end(self, status: str) -> Events:
        """End every item; the last one with this status."""
        open_calls = [call for call in self._calls.values() if not call.ended]
        for call in open_calls[:-1]:
            yield from call.end("completed")
        for call in open_calls[-1:]:
            yield from call.end(status)
        yield from self._end_speech(status)

    def _take(self, chunk: JSON) -> Events:
        for name in ("model", "service_tier"):
            if isinstance(value := chunk.get(name), str) and value:
                self.head[name] = value
        for choice in chunk["choices"]:
            if choice["index"] == 0:
                yield from self._take_choice(choice)

    def _take_choice(self, choice: JSON) -> Events:
        delta = choice["delta"]
        for name in _REASONINGS:
            if text := _text(delta.get(name)):
                yield from self._say("reasoning", "reasoning_text", text)
                break
        if text := _text(delta.get("content")):
            yield from self._say("message", "output_text", text, _logprobs(choice.get("logprobs")))
        if text := _text(delta.get("refusal")):
            yield from self._say("message", "refusal", text)
        for annotation in _objects(delta.get("annotations")):
            yield from self._speak("message")
            assert self._speech
            yield from self._speech.annotate(_annotation(annotation))
        for fragment in _objects(delta.get("tool_calls")):
            if isinstance(place := fragment.get("index"), int):
                yield from self._call(place, fragment)

    def _say(self, kind: str, part: str, text: str, logprobs: list[JSON] | None = None) -> Events:
        yield from self._speak(kind)
        assert self._speech
        yield from self._speech.say(part, text, logprobs or [])

    def _speak(self, kind: str) -> Events:
        """Make an item of this kind the one that is spoken in."""
        if self._speech is not None and self._speech.kind == kind:
            return
        yield from self._end_speech("completed")
        for call in self._calls.values():
            yield from call.end_if_complete()
        index = self._next_index()
        self._speech = Speech(kind, f"{_ID_PREFIXES[kind]}_{self._name}_{index}", index)
        yield from self._speech.begin()

    def _end_speech(self, status: str) -> Events:
        if self._speech is not None:
            speech, self._speech = self._speech, None
            yield from speech.end(status)

    def _call(self, place: int, fragment: JSON) -> Events:
        if place not in self._calls:
            yield from self._end_speech("completed")
            for call in self._calls.values():
                yield from call.end_if_complete()
            self._calls[place] = Call(self._name, self._next_index(), fragment)
        yield from self._calls[place].add(fragment)

    def _next_index(self) -> int:
        self._items += 1
        return self._items - 1


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _objects(value: object) -> Iterable[JSON]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else ()


def _annotation(annotation: JSON) -> JSON:
    """Return a chat completion's annotation as this dialect has it, flat."""
    inside = annotation.get(str(annotation.get("type")))
    if not isinstance(inside, dict):
        return annotation
    return {"type": annotation["type"], **inside}


def _logprobs(of_choice: object) -> list[JSON]:
    if not isinstance(of_choice, dict):
        return []
    return [
        {**of_token, "top_logprobs": _of_tokens(each.get("top_logprobs"))}
        for each in _objects(of_choice.get("content"))
        for of_token in _of_tokens([each])
    ]


def _of_tokens(value: object) -> list[JSON]:
    return [
        {"token": each["token"], "logprob": each["logprob"], "bytes": each.get("bytes") or []}
        for each in _objects(value)
        if isinstance(each.get("token"), str) and isinstance(each.get("logprob"), int | float)
    ]
