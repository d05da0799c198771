"""Wire formats under arbitrary events: each message can be read, and the text is the same in all."""

import json
from typing import Any

import httpx
from httpx_sse import EventSource
from hypothesis import given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from streaming import plugins, sse
from streaming.errors import ErrorInfo
from streaming.events import (
    Document,
    Done,
    Error,
    Event,
    Interrupt,
    Metrics,
    MetricsTick,
    Reasoning,
    Record,
    RunEvent,
    Sources,
    Start,
    StateUpdate,
    Status,
    Token,
    ToolCall,
    ToolResult,
    Usage,
    encode,
)
from streaming.formats import Message, Wants
from streaming.sources._chunks import ChunkReader
from streaming.terminal.event_stream import Parser
from tests.chunk_streams import says
from tests.doubles import parse_event_stream
from tests.fuzzing import CUTS, TEXTS, fuzzed, json_values, pieces

FORMATS = plugins.names("formats")
# No lone halves of characters and no numbers that JSON in the log could not hold: a source has cleaned these.
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), TEXTS)
JSON = json_values(TEXTS, PLAIN)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=3)
COUNTS = st.integers(0, 10**6)

EVENTS: Any = st.one_of(
    TEXTS.map(Token),
    TEXTS.map(Token),
    TEXTS.map(Reasoning),
    st.builds(Status, st.sampled_from(["connecting", "thinking", "retrying", "fallback"]), COUNTS, TEXTS),
    st.builds(ToolCall, TEXTS, TEXTS, OBJECTS, handled=st.booleans()),
    st.builds(ToolCall, TEXTS, TEXTS, st.none(), TEXTS),
    st.builds(ToolResult, TEXTS, TEXTS, JSON, failed=st.booleans(), truncated=st.booleans()),
    st.builds(Sources, st.lists(st.builds(Document, TEXTS, TEXTS, TEXTS), max_size=2)),
    st.builds(StateUpdate, TEXTS, JSON, TEXTS, st.lists(TEXTS, max_size=2)),
    st.builds(RunEvent, TEXTS, TEXTS, TEXTS, data=OBJECTS),
    st.builds(Interrupt, TEXTS, JSON),
    st.builds(Usage, st.fixed_dictionaries({"prompt_tokens": COUNTS, "completion_tokens": COUNTS})),
    st.builds(MetricsTick, st.builds(Metrics, COUNTS, st.just(1.5))),
)
ENDS: Any = st.one_of(
    st.builds(
        Done, st.sampled_from(["stop", "length", "tool_calls", "cancelled", "unknown"]), done=st.just(True)
    ),
    st.builds(
        Error, st.builds(ErrorInfo, TEXTS, st.just("upstream_truncated"), st.just("x")), done=st.just(True)
    ),
)
START = Start("st_1", "chat", "m", 1_700_000_000)


def records_of(events: list[Event], last: Event) -> list[Record]:
    return [Record(1, seq, encode(event)) for seq, event in enumerate([START, *events, last], 1)]


def told(name: str, records: list[Record], **wants: Any) -> list[Message]:
    wire_format = plugins.create("formats", name, Wants(**wants))
    return [message for record in records for message in wire_format.encode(record)]


def is_sse(name: str) -> bool:
    return bool(plugins.create("formats", name, Wants()).media_type == "text/event-stream")


def carried(name: str, messages: list[Message]) -> bytes:
    if is_sse(name):
        return b"".join(sse.frame(message.data, message.id, message.event) for message in messages)
    return b"".join(message.data + b"\n" for message in messages)


def hear(name: str, blocks: list[bytes]) -> dict[str, list[tuple[str, bytes]]]:
    """Return the type and data of each event, as each client of a dialect hears them in these blocks."""
    parser, decoder = Parser(), sse.Decoder(10_000_000)
    heard = {
        "the terminal": [("", found.data) for block in blocks for found in parser.feed(block)],
        "the decoder": [("", data) for block in blocks for data in decoder.feed(block)],
    }
    if name.startswith("openai"):
        said = SSEDecoder().iter_bytes(iter(blocks))
        heard["openai-python"] = [(each.event or "", each.data.encode()) for each in said]
    if name.startswith("langserve"):
        response = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=iter(blocks))
        heard["httpx-sse"] = [(each.event, each.data.encode()) for each in EventSource(response).iter_sse()]
    return heard


@fuzzed(60)
@given(st.lists(EVENTS, max_size=8), ENDS, CUTS, st.booleans())
def test_whatever_happens_each_format_tells_it_so_that_it_can_be_read(
    events: list[Event], last: Event, cuts: list[int], metrics: bool
) -> None:
    records = records_of(events, last)
    for name in FORMATS:
        messages = told(name, records, metrics=metrics)
        body = carried(name, messages)
        if is_sse(name):
            whole = parse_event_stream(body).heard
            # A text of the model never becomes an event of its own.
            assert [each.data.encode() for each in whole] == [unbroken(each.data) for each in messages], name
            for client, heard in hear(name, pieces(body, cuts)).items():
                assert [data for _, data in heard] == [unbroken(each.data) for each in messages], client
                if client in ("openai-python", "httpx-sse"):
                    assert [kind for kind, _ in heard] == [each.event for each in messages], client
        else:
            assert body.count(b"\n") == len(messages), name
        for message in messages:
            if name == "text" or message.data in (b"[DONE]", b""):
                continue  # LangServe's clients are told the end by an event without data
            json.loads(message.data)
            # Some clients end a line where SSE does not.
            assert len(message.data.decode().splitlines()) == 1, name


def unbroken(text: bytes) -> bytes:
    """Return a text as an event stream carries it: it knows one kind of line end."""
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def text_of(name: str, messages: list[Message]) -> str:
    found = ""
    for message in messages:
        if message.data in (b"[DONE]", b""):
            continue
        body = json.loads(message.data)
        if name == "langserve":
            found += body if message.event == "data" and isinstance(body, str) else ""
        elif name == "openai_chat":
            for choice in body.get("choices", ()):
                found += choice["delta"].get("content") or ""
        elif name == "openai_responses":
            found += body.get("delta", "") if body["type"] == "response.output_text.delta" else ""
        elif "content" in body and body.get("type", "token") == "token":
            found += body["content"]
    return found


@fuzzed(100)
@given(st.lists(TEXTS, max_size=10), ENDS)
def test_the_text_is_the_same_in_every_format(texts: list[str], last: Event) -> None:
    reader = ChunkReader()
    events = [event for text in texts for event in reader.read(json.dumps(says(text)).encode())]
    records = records_of([*events, *reader.end()], last)
    for name in ("native", "simple", "ndjson", "openai_chat", "openai_responses", "langserve"):
        assert text_of(name, told(name, records)) == "".join(texts), name
    plain = [unbroken(message.data) for message in told("text", records)[:-1]]
    assert b"".join(plain) == b"".join(unbroken(text.encode()) for text in texts)
