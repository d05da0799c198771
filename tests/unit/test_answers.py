"""What a run said, put together from its records."""

import hashlib
from collections.abc import Sequence

import msgspec
import pytest

from streaming.answers import Answer, Gathering, missing
from streaming.errors import StreamExpired
from streaming.events import (
    Chunk,
    Document,
    Done,
    Error,
    Event,
    Interrupt,
    Metrics,
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

CALL = ToolCall("c1", "weather", {"city": "Paris"})
RESULT = ToolResult("c1", "weather", "sunny")
SOURCES = Sources([Document("d1", "A book", "words")])
EVENTS: list[Event] = [
    Start("st_1", "agent", "demo", 1),
    Status("connecting", 0),
    Reasoning("let me "),
    Reasoning("see"),
    Chunk(first={"role": "assistant"}),
    Token("It "),
    Chunk(whole={}),
    Token("is"),
    CALL,
    RESULT,
    Status("fallback", 5, model="other"),
    SOURCES,
    StateUpdate("values", {"a": 1}, node="n"),
    RunEvent("on_chain_start", "chain", "r1"),
    Token(" sunny"),
    Token(" no", refusal=True),
    Interrupt("i1", {"ask": "sure?"}),
    Usage({"total_tokens": 3}),
    Done("stop", metrics=Metrics(3, 1.0), last_seq=19, text_sha256=hashlib.sha256(b"x").hexdigest()),
]
SHOWN = [
    Reasoning("let me see"),
    Token("It is"),
    CALL,
    RESULT,
    Status("fallback", 5, model="other"),
    SOURCES,
    StateUpdate("values", {"a": 1}, node="n"),
    Token(" sunny"),
    Token(" no", refusal=True),
    Interrupt("i1", {"ask": "sure?"}),
]


def gathered(pages: Sequence[Sequence[Record]]) -> Answer:
    gathering = Gathering()
    for page in pages:
        gathering.add(page)
    return gathering.answer("completed")


def records(events: Sequence[Event]) -> list[Record]:
    return [Record(1, seq, encode(event)) for seq, event in enumerate(events, 1)]


@pytest.mark.parametrize("cut", range(len(EVENTS) + 1))
def test_an_answer_is_the_same_however_its_records_were_paged(cut: int) -> None:
    all_records = records(EVENTS)
    answer = gathered([all_records[:cut], all_records[cut:]])
    assert answer.events == SHOWN
    assert answer.text == "It is sunny no"
    assert answer.reasoning == "let me see"
    assert answer.cursor == "1.19"
    assert (answer.finish_reason, answer.usage, answer.last_seq) == ("stop", {"total_tokens": 3}, 19)
    assert answer.error is None


@pytest.mark.parametrize("cut", range(len(EVENTS) + 1))
def test_an_answer_seen_midway_has_the_text_so_far(cut: int) -> None:
    gathering = Gathering()
    gathering.add(records(EVENTS)[:cut])
    said = "".join(event.content for event in EVENTS[:cut] if isinstance(event, Token))
    assert gathering.answer("running").text == said


def test_an_answer_is_kept_as_it_was() -> None:
    answer = gathered([records(EVENTS)])
    assert msgspec.json.decode(msgspec.json.encode(answer), type=Answer) == answer


def test_an_answer_that_failed_says_why() -> None:
    error = StreamExpired("too old").info(partial=True)
    answer = gathered([records([Token("half"), Error(error, done=True, last_seq=2)])])
    assert (answer.text, answer.error, answer.finish_reason) == ("half", error, None)


def test_an_answer_that_cannot_be_had_says_why() -> None:
    error = StreamExpired("too old").info()
    assert missing(error) == Answer("failed", [], "0.0", error=error)
