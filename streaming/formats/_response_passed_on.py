"""The events of a response of an upstream that speaks this dialect: as they came.

Their numbers are ours, and of the response itself its id and what the client
asked of us. See `ResponseEvent` for how they stand in the log.
"""

from typing import Any

from streaming.events import Event, Reasoning, ResponseEvent, Start, Token
from streaming.formats._response_items import Events
from streaming.formats._response_object import as_ours

JSON = dict[str, Any]

_TEXT = "response.output_text.delta"
_REFUSAL = "response.refusal.delta"
_REASONING = "response.reasoning_text.delta"
_SUMMARY = "response.reasoning_summary_text.delta"
_ENDS = ("response.completed", "response.incomplete")


class PassedOn:
    """Passes one stream's events on."""

    def __init__(self, start: Start, asked: JSON) -> None:
        self.head: JSON = {}
        """The response as the upstream last told it."""
        self._start = start
        self._asked = asked
        self._like: dict[str, JSON] = {}
        """The last delta of each type, apart from its text."""
        self._end: JSON | None = None

    def of(self, event: Event) -> Events:
        match event:
            case ResponseEvent(said, more=True):
                self._like[str(said.get("type"))] = said
            case ResponseEvent(said):
                yield from self._pass_on(said)
            case Token(text, refusal):
                yield self._delta(_REFUSAL if refusal else _TEXT, text)
            case Reasoning(text, field):
                yield self._delta(_SUMMARY if field == "reasoning_summary_text" else _REASONING, text)

    def end(self) -> JSON | None:
        """Return the event that ends the answer, as the upstream sent it."""
        return self._end

    def _pass_on(self, said: JSON) -> Events:
        if isinstance(response := said.get("response"), dict):
            said = {**said, "response": as_ours(response, self._start, self._asked)}
            if said.get("type") in _ENDS:
                # Held back until the log says so too: a run is complete once, and nothing follows.
                self._end = said
                return
            self.head = said["response"]
        yield said

    def _delta(self, kind: str, text: str) -> JSON:
        return {**self._like.get(kind, {"type": kind, "output_index": 0}), "delta": text}
