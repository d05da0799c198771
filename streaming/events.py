"""The vocabulary of a stream: what can happen, and where it stands in the log.

A stream is one `Start`, anything in between, then exactly one `Done` or
`Error`. An event is encoded once, by the producer; what it looks like in the
log is what a native reader gets.

Events are lossless for the dialect they came from. What a chunk of an upstream
holds besides its text goes into `Extra`, as the difference from the stream's
first chunk, so that what is the same in every chunk is stored once.
"""

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Self

from msgspec import Struct
from msgspec.json import Decoder, Encoder

from streaming.errors import BadCursor, ErrorInfo


class Extra(Struct, frozen=True, omit_defaults=True):
    """How a chunk differs from the first one, apart from the text beside it."""

    chunk: dict[str, Any] = {}
    choice: dict[str, Any] = {}
    delta: dict[str, Any] = {}
    absent: list[str] = []
    """Fields the first chunk had and this one has not: ``chunk.<name>`` or ``choice.<name>``."""


class Metrics(Struct, frozen=True, omit_defaults=True):
    tokens: int
    elapsed_seconds: float
    tokens_per_second: float | None = None
    """After the first one; absent where there was too little time to tell."""
    time_to_first_token_ms: float | None = None
    prompt_tokens: int | None = None
    """At the end, where the upstream gave no usage: an estimate of what was asked."""
    estimated: bool = False
    """True where ``tokens`` is this service's own count, because the upstream gave none."""


class _Event(Struct, frozen=True, omit_defaults=True, tag_field="type"):
    pass


class Start(_Event, frozen=True, tag="start"):
    stream_id: str
    source: str
    model: str
    created: int
    """Seconds since 1970, for display."""
    continues: str = ""
    """The stream whose text this one goes on with."""


class Status(_Event, frozen=True, tag="status"):
    """What the run is busy with, for people who wait."""

    status: Literal["queued", "connecting", "thinking", "retrying", "fallback", "stalled"]
    milliseconds: int
    """Since the start of the run."""
    model: str = ""
    """Which one is asked instead, after ``fallback``."""


class Chunk(_Event, frozen=True, tag="chunk"):
    """What a chunk held when it held no text: a role, a finish reason, parts of a tool call.

    The stream's first chunk is kept whole in ``first``; later ones as ``extra``.
    """

    first: dict[str, Any] | None = None
    extra: Extra | None = None
    whole: dict[str, Any] | None = None
    """A later chunk that is not one choice of index 0, as it came."""
    more: bool = False
    """The next event came in the same chunk."""


class ResponseEvent(_Event, frozen=True, tag="response"):
    """An event of an upstream that speaks OpenAI's Responses, apart from its ``sequence_number``.

    A delta of text is kept whole, its text apart, only where it differs in more
    than the text from the delta of its type before it; other deltas are just a
    `Token` or a `Reasoning`.
    """

    event: dict[str, Any]
    more: bool = False
    """The next event, a `Token` or a `Reasoning`, holds its ``delta``."""


class Token(_Event, frozen=True, tag="token"):
    content: str
    refusal: bool = False
    extra: Extra | None = None
    more: bool = False
    """The next event came in the same chunk."""


class Reasoning(_Event, frozen=True, tag="reasoning"):
    content: str
    field: str = "reasoning_content"
    """The name the upstream has for it."""
    extra: Extra | None = None
    more: bool = False


class ToolCall(_Event, frozen=True, tag="tool_call"):
    """A complete call; its parts came before, in `Chunk` events."""

    id: str
    tool: str
    args: dict[str, Any] | None
    args_text: str | None = None
    """The arguments as they came, when they are not a JSON object."""
    handled: bool = False
    """This service runs the tool itself, and tells its `ToolResult`: nobody else is to run it."""

    @property
    def arguments(self) -> str:
        """The arguments as text."""
        return self.args_text if self.args_text is not None else json_line(self.args or {}).decode()


class ToolResult(_Event, frozen=True, tag="tool_result"):
    id: str
    tool: str
    result: Any
    """JSON; what a tool raised is told in words, as it is told to the model."""
    failed: bool = False
    truncated: bool = False
    """``result`` is the beginning of a text that was too long."""


class Document(Struct, frozen=True, omit_defaults=True):
    id: str
    title: str
    snippet: str
    score: float | None = None


class Sources(_Event, frozen=True, tag="sources"):
    """What an answer rests on, as a retriever found it."""

    documents: list[Document]


class StateUpdate(_Event, frozen=True, tag="state"):
    """What a graph's stream mode told."""

    mode: str
    data: Any
    node: str = ""
    namespace: list[str] = []
    """The subgraph it comes from, outermost first."""


class RunEvent(_Event, frozen=True, tag="event"):
    """One of LangChain's StreamEvents, version 2."""

    event: str
    name: str
    run_id: str
    parent_ids: list[str] = []
    tags: list[str] = []
    metadata: dict[str, Any] = {}
    data: dict[str, Any] = {}


class Interrupt(_Event, frozen=True, tag="interrupt"):
    """A graph waits for a person; the run ends, and another one with the answer goes on."""

    id: str
    value: Any


class Usage(_Event, frozen=True, tag="usage"):
    usage: dict[str, Any]
    extra: Extra | None = None


class MetricsTick(_Event, frozen=True, tag="metrics"):
    metrics: Metrics


class Done(_Event, frozen=True, tag="done"):
    """The upstream said it had finished, or the run was cancelled.

    A source gives the reason and usage; the producer, which knows them, the rest.
    """

    finish_reason: str
    usage: dict[str, Any] | None = None
    done: Literal[True] | None = None
    metrics: Metrics | None = None
    last_seq: int = 0
    text_sha256: str = ""


class Error(_Event, frozen=True, tag="error"):
    """Text that did not end normally is always followed by this."""

    error: ErrorInfo
    status: int = 0
    """Where it is another than that of the error's type, for who still waits for one."""
    retry_after_seconds: float | None = None
    usage: dict[str, Any] | None = None
    done: Literal[True] | None = None
    metrics: Metrics | None = None
    last_seq: int = 0
    text_sha256: str = ""


Event = (
    Start
    | Status
    | Chunk
    | ResponseEvent
    | Token
    | Reasoning
    | ToolCall
    | ToolResult
    | Sources
    | StateUpdate
    | RunEvent
    | Interrupt
    | Usage
    | MetricsTick
    | Done
    | Error
)

# U+0085, U+2028 and U+2029 end a line for `str.splitlines`, and so for several SSE clients.
_LINE_BREAKS = ((b"\xc2\x85", b"\\u0085"), (b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"))
_to_json = Encoder().encode


def json_line(value: Any) -> bytes:
    r"""Return JSON that ends no line for any reader.

    The ASCII control characters, U+0085, U+2028 and U+2029 are escaped. Raises
    ``UnicodeEncodeError`` for a lone surrogate.

    >>> json_line("a\u2028b")
    b'"a\\u2028b"'
    """
    payload = _to_json(value)
    for raw, escaped in _LINE_BREAKS:
        if raw in payload:
            payload = payload.replace(raw, escaped)
    return payload


def encode(event: Event) -> bytes:
    """Return the event as one line of JSON, as it stands in the log. Raises as `json_line`."""
    return json_line(event)


decode: Callable[[bytes], Event] = Decoder(Event).decode


class Cursor(NamedTuple):
    """A place in a log: the event ``seq`` as it was written by owner number ``gen``.

    ``Cursor(0, 0)`` is before the first event. ``gen`` is in it because a log
    that lost its tail and was continued has another event at the same ``seq``.
    """

    gen: int
    seq: int

    def __str__(self) -> str:
        return f"{self.gen}.{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"<gen>.<seq>"``; empty means the start. Raises `BadCursor`."""
        if not text:
            return cls(0, 0)
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise BadCursor("a cursor looks like 1.42", param="after")
        return cls(int(match[1]), int(match[2]))


CURSOR_PATTERN = r"(0|[1-9][0-9]{0,17})\.(0|[1-9][0-9]{0,17})"
_CURSOR = re.compile(CURSOR_PATTERN)
START = Cursor(0, 0)


class Record(NamedTuple):
    """An event at its place in the log, or several neighbours merged into one."""

    gen: int
    seq: int
    """1, 2, 3 … inside the stream; of the last event when merged."""
    payload: bytes
    events: int = 1
    """How many events of the log this stands for."""

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.gen, self.seq)

    def is_a(self, *tags: str) -> bool:
        """Say whether the event has one of these types, without decoding it."""
        return self.payload.startswith(tuple(_PREFIXES[tag] for tag in tags))


_PREFIXES = {
    event.__struct_config__.tag: b'{"type":"%s"' % str(event.__struct_config__.tag).encode()
    for event in Event.__args__
}
