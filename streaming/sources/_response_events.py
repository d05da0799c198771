"""Events of OpenAI's Responses as our events, losing nothing.

Deltas of text and of reasoning become events of their own; what else such a
delta holds is kept once, before the first of its kind, and again when it
changes. Every other event is kept whole, apart from its ``sequence_number``.

Source: OpenAI API reference, "Streaming events" of Responses.
"""

from typing import Any, NamedTuple

import msgspec

from streaming.errors import UpstreamBadResponse
from streaming.events import Done, Event, Reasoning, ResponseEvent, Token, ToolCall, Usage
from streaming.sources import _response_failures
from streaming.sources._chunks import cleaned, joined, parse

TEXT = "response.output_text.delta"
REFUSAL = "response.refusal.delta"
REASONINGS = {
    "response.reasoning_text.delta": "reasoning_text",
    "response.reasoning_summary_text.delta": "reasoning_summary_text",
}
SPOKEN = frozenset({TEXT, REFUSAL, *REASONINGS})
ENDS = ("response.completed", "response.incomplete")
# The order of the events on the upstream's connection, and its padding against eavesdroppers.
OF_THE_CONNECTION = ("sequence_number", "obfuscation")
CALLS = {"function_call": "arguments", "custom_tool_call": "input", "mcp_call": "arguments"}
REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class ResponseReader:
    """Reads one stream's events, in order, until one ends the answer."""

    def __init__(self) -> None:
        self.ended = False
        self._shapes: dict[str, bytes] = {}
        self._half: _Half | None = None
        self._calls = False

    def read(self, data: bytes) -> list[Event]:
        """Return the events of one event; the answer's last gives `Done` too.

        Raises `UpstreamBadResponse` for what is not one, and the upstream's
        failure when it tells one. What comes after the end counts for nothing.
        """
        if self.ended:
            return []
        said, odd = parse(data)
        return self.take(said, odd)

    def take(self, said: dict[str, Any], odd: bool = False) -> list[Event]:
        """Return the events of one that is decoded already; ``odd`` as `parse` says."""
        kind = said.get("type")
        if kind in ("error", "response.failed") or (kind is None and said.get("error")):
            raise _response_failures.failure_of_event(said)
        if not isinstance(kind, str):
            raise UpstreamBadResponse("the model sent what is not an event of a response", code="json")
        rest = {name: value for name, value in said.items() if name not in OF_THE_CONNECTION}
        if kind.endswith(".delta") and isinstance(rest.get("delta"), str):
            return self._read_delta(kind, rest, odd)
        if kind in SPOKEN:
            raise UpstreamBadResponse("the model sent a piece of text without text", code="json")
        before = self._let_go()
        rest = cleaned(rest) if odd else rest
        event = ResponseEvent(rest)
        if kind == "response.output_item.done":
            return [*before, event, *self._call(rest.get("item"))]
        if kind in ENDS:
            return [*before, event, *self._end(kind, rest.get("response"))]
        return [*before, event]

    def _read_delta(self, kind: str, said: dict[str, Any], odd: bool) -> list[Event]:
        text = said.pop("delta")
        said = cleaned(said) if odd else said
        before: list[Event] = []
        if self._half and (self._half.kind, self._half.place) == (kind, _place(said)):
            text = self._half.char + text
            self._half = None
        elif self._half:
            before = self._let_go()
        if odd or "\ud800" <= text[:1] <= "\udfff":
            if "\ud800" <= text[-1:] <= "\udbff":
                # Its other half comes with the next piece.
                self._half = _Half(kind, _place(said), said, text[-1])
                text = text[:-1]
            text = joined(text)
        return before + self._piece(kind, said, text)

    def _piece(self, kind: str, rest: dict[str, Any], text: str) -> list[Event]:
        if kind not in SPOKEN or not text:
            self._shapes.pop(kind, None)
            return [ResponseEvent({**rest, "delta": text})]
        spoken = (
            Reasoning(text, REASONINGS[kind]) if kind in REASONINGS else Token(text, refusal=kind == REFUSAL)
        )
        # Compared as JSON: Python takes 1 and true for the same.
        shape = msgspec.json.encode(rest)
        if self._shapes.get(kind) == shape:
            return [spoken]
        self._shapes[kind] = shape
        return [ResponseEvent(rest, more=True), spoken]

    def _let_go(self) -> list[Event]:
        """Return the half of a character that nothing has completed, as what it has become."""
        if self._half is None:
            return []
        half, self._half = self._half, None
        return self._piece(half.kind, half.rest, "\ufffd")

    def _call(self, item: object) -> list[Event]:
        if not isinstance(item, dict) or (kind := _text(item.get("type"))) not in CALLS:
            return []
        if kind != "mcp_call":  # that one the upstream makes itself
            self._calls = True
        text = _text(item.get(CALLS[kind]))
        call_id = _text(item.get("call_id") or item.get("id"))
        name = _text(item.get("name"))
        try:
            return [ToolCall(call_id, name, _decode(text.encode()))]
        except (msgspec.DecodeError, RecursionError):
            return [ToolCall(call_id, name, None, text)]

    def _end(self, kind: str, response: object) -> list[Event]:
        if not isinstance(response, dict):
            raise UpstreamBadResponse("the model sent the end of no response", code="json")
        self.ended = True
        usage = response.get("usage")
        usage = usage if isinstance(usage, dict) else None
        done = Done(self._reason(kind, response), usage)
        return [Usage(usage), done] if usage else [done]

    def _reason(self, kind: str, response: dict[str, Any]) -> str:
        if kind == "response.incomplete":
            details = response.get("incomplete_details")
            why = details.get("reason") if isinstance(details, dict) else None
            return REASONS.get(why, "unknown") if isinstance(why, str) else "unknown"
        output = response.get("output")
        for item in output if isinstance(output, list) else ():
            if isinstance(item, dict) and item.get("type") in ("function_call", "custom_tool_call"):
                return "tool_calls"
        return "tool_calls" if self._calls else "stop"


class _Half(NamedTuple):
    """The first half of a surrogate pair, held back until the next delta of its text."""

    kind: str
    place: tuple[object, ...]
    rest: dict[str, Any]
    """The delta it came in, apart from its text."""
    char: str


def _place(said: dict[str, Any]) -> tuple[object, ...]:
    """Say which text a delta continues."""
    return tuple(map(repr, map(said.get, ("item_id", "output_index", "content_index", "summary_index"))))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
