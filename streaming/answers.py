"""What a run said, put together: for pages, for clients that poll, and for threads, which keep it.

An answer has the events that people are shown, in their order. Neighbouring
pieces of text are one piece, because nobody needs to know how a text was cut.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from streaming.errors import ErrorInfo
from streaming.eventlogs import State
from streaming.events import (
    START,
    Cursor,
    Document,
    Done,
    Error,
    Event,
    Interrupt,
    Metrics,
    MetricsTick,
    Reasoning,
    Record,
    Sources,
    StateUpdate,
    Status,
    Token,
    ToolCall,
    ToolResult,
    Usage,
    decode,
)

SHOWN = ("token", "reasoning", "tool_call", "tool_result", "sources", "state", "interrupt", "status")
TOLD = (*SHOWN, "usage", "metrics", "done", "error")


class Answer(Struct, frozen=True, omit_defaults=True):
    """What came after some cursor, at one moment; of an ended run it never changes."""

    state: State
    events: list[Event]
    """Text, reasoning, tool calls and results, sources, state updates, interrupts, and the
    `Status` that says that another model was asked."""
    cursor: str
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    metrics: Metrics | None = None
    error: ErrorInfo | None = None
    last_seq: int | None = None
    """Of an ended stream, as ``text_sha256`` is: for clients that check what they have."""
    text_sha256: str | None = None

    @property
    def text(self) -> str:
        return "".join(event.content for event in self.events if isinstance(event, Token))

    @property
    def reasoning(self) -> str:
        return "".join(event.content for event in self.events if isinstance(event, Reasoning))


class Snapshot(Struct, frozen=True):
    """A stream at one moment; all lists and texts are of what came after the cursor given."""

    stream_id: str
    state: State
    text: str
    cursor: str
    reasoning: str = ""
    tool_calls: list[ToolCall] = []
    tool_results: list[ToolResult] = []
    sources: list[Document] = []
    interrupts: list[Interrupt] = []
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    metrics: Metrics | None = None
    error: ErrorInfo | None = None
    last_seq: int | None = None
    text_sha256: str | None = None
    events: list[Event] | UnsetType = UNSET
    """Those of the `Answer`, for who asks for them."""


def snapshot_of(answer: Answer, stream_id: str, events: bool) -> Snapshot:
    return Snapshot(
        stream_id,
        answer.state,
        answer.text,
        answer.cursor,
        answer.reasoning,
        [event for event in answer.events if isinstance(event, ToolCall)],
        [event for event in answer.events if isinstance(event, ToolResult)],
        [document for event in answer.events if isinstance(event, Sources) for document in event.documents],
        [event for event in answer.events if isinstance(event, Interrupt)],
        answer.finish_reason,
        answer.usage,
        answer.metrics,
        answer.error,
        answer.last_seq,
        answer.text_sha256,
        answer.events if events else UNSET,
    )


class Gathering:
    """Puts the records of a stream together, as they come."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._pieces: list[str] = []
        """Of the text that goes on: the last event's, which is made when something else comes."""
        self._like: Token | Reasoning | None = None
        self._cursor = START
        self._told: dict[str, Any] = {}

    def add(self, records: Sequence[Record]) -> None:
        for record in records:
            self._cursor = record.cursor
            if record.is_a(*TOLD):
                self._add(decode(record.payload))

    def answer(self, state: State, cursor: Cursor | None = None) -> Answer:
        """Return what was gathered; ``cursor``: up to where, if that is not the last record's place."""
        self._end_piece()
        return Answer(state, list(self._events), str(cursor or self._cursor), **self._told)

    def _add(self, event: Event) -> None:
        match event:
            case Token(content):
                self._add_piece(Token("", refusal=event.refusal), content)
            case Reasoning(content):
                self._add_piece(Reasoning("", field=event.field), content)
            case ToolCall() | ToolResult() | Sources() | StateUpdate() | Interrupt() | Status("fallback"):
                self._end_piece()
                self._events.append(event)
            case Usage(usage):
                self._told["usage"] = usage
            case MetricsTick(metrics):
                self._told["metrics"] = metrics
            case Done() | Error():
                self._told |= _told(event)

    def _add_piece(self, like: Token | Reasoning, content: str) -> None:
        if like != self._like:
            self._end_piece()
            self._like = like
        self._pieces.append(content)

    def _end_piece(self) -> None:
        content = "".join(self._pieces)
        match self._like:
            case Token(refusal=refusal) if content:
                self._events.append(Token(content, refusal=refusal))
            case Reasoning(field=field) if content:
                self._events.append(Reasoning(content, field=field))
        self._pieces = []
        self._like = None


def missing(error: ErrorInfo) -> Answer:
    """Return what stands for an answer that cannot be had any more."""
    return Answer("failed", [], str(START), error=error)


def _told(last: Done | Error) -> dict[str, Any]:
    told: dict[str, Any] = {
        "metrics": last.metrics,
        "last_seq": last.last_seq,
        "text_sha256": last.text_sha256,
    }
    if last.usage is not None:
        told["usage"] = last.usage
    if isinstance(last, Done):
        told["finish_reason"] = last.finish_reason
    else:
        told["error"] = last.error
    return told
