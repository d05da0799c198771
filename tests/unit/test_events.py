"""Events as one line of JSON, and places in a log."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.errors import BadCursor, ErrorInfo
from streaming.events import (
    START,
    Chunk,
    Cursor,
    Done,
    Error,
    Event,
    Extra,
    Metrics,
    MetricsTick,
    Reasoning,
    Record,
    Start,
    Status,
    Token,
    ToolCall,
    Usage,
    decode,
    encode,
)

AT_RANDOM = settings(deadline=None, database=None, max_examples=200)
EVENTS: list[Event] = [
    Start("st_1", "chat", "demo", 1_700_000_000),
    Status("connecting", 0),
    Chunk(first={"id": "c1", "choices": []}, more=True),
    Chunk(extra=Extra({"a": 1}, {"b": None}, {"c": [1, 2]}, ["chunk.x"])),
    Chunk(whole={"choices": [{"index": 1}]}),
    Token("text"),
    Token(""),
    Token("no", refusal=True, extra=Extra(choice={"logprobs": None}), more=True),
    Reasoning("hmm"),
    Reasoning("hmm", field="reasoning", more=True),
    ToolCall("call_1", "get_weather", {"city": "Köln"}),
    ToolCall("call_2", "broken", None, "{not json"),
    Usage({"completion_tokens": 3, "details": {"x": None}}),
    MetricsTick(Metrics(3, 1.5, 2.0, 120.5, estimated=True)),
    Done("stop"),
    Done("stop", {"total_tokens": 1}, True, Metrics(1, 1.0, 1.0), 9, "ab" * 32),
    Error(ErrorInfo("gone", "interrupted", "shutdown", None, True, True, "req_1"), done=True, last_seq=2),
]


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    assert decode(encode(event)) == event


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_a_record_knows_its_type_without_being_decoded(event: Event) -> None:
    record = Record(1, 1, encode(event))
    own = str(event.__struct_config__.tag)
    others = {str(other.__struct_config__.tag) for other in EVENTS} - {own}

    assert record.is_a(own)
    assert record.is_a("done", own)
    assert not record.is_a(*others)
    assert json.loads(record.payload)["type"] == own


TERRIBLE = (
    "".join(map(chr, [*range(0x20), 0x7F, 0x85, 0xA0, 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0x1F600])) + "\"\\/'<"
)


@pytest.mark.parametrize(
    "event",
    [Token(TERRIBLE), Done(TERRIBLE), Usage({TERRIBLE: TERRIBLE}), Chunk(first={TERRIBLE: [TERRIBLE]})],
    ids=["token", "done", "usage", "chunk"],
)
def test_nothing_in_a_payload_ends_a_line_for_any_reader(event: Event) -> None:
    payload = encode(event)

    assert len(payload.splitlines()) == 1
    assert len(payload.decode().splitlines()) == 1
    assert not any(byte < 0x20 for byte in payload)
    assert decode(payload) == event


@AT_RANDOM
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_one_line_and_comes_back(text: str) -> None:
    payload = encode(Token(text))

    assert payload.decode().splitlines() == [payload.decode()]
    assert decode(payload) == Token(text)
    assert json.loads(payload)["content"] == text


def test_half_a_character_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode(Token("\ud800"))


def test_what_is_not_given_is_not_written() -> None:
    assert encode(Token("a")) == b'{"type":"token","content":"a"}'
    assert encode(Done("stop")) == b'{"type":"done","finish_reason":"stop"}'


# Cursors


@pytest.mark.parametrize(
    ("text", "cursor"),
    [
        ("", START),
        ("0.0", Cursor(0, 0)),
        ("1.0", Cursor(1, 0)),
        ("1.42", Cursor(1, 42)),
        ("12.345678901234567890"[:20], Cursor(12, 34567890123456789)),
        ("999999999999999999.999999999999999999", Cursor(10**18 - 1, 10**18 - 1)),
    ],
)
def test_a_cursor_is_read(text: str, cursor: Cursor) -> None:
    assert Cursor.parse(text) == cursor
    if text:
        assert str(cursor) == text
        assert len(text) <= 40


@pytest.mark.parametrize(
    "text",
    [
        *("1", "1.", ".1", ".", "1.2.3", "a", "1.a", "-1.2", "1.-2", "+1.2", "1.2e3", "0x1.2", "1,2", "1 .2"),
        *(" 1.2", "1.2 ", "1.2\n", "\n1.2", "1.2\r", "1.2\0", "01.2", "1.02", "00.0", "1..2", "١.٢", "1.２"),
        *("1.1234567890123456789", "1" * 40 + ".1", "null", "undefined", "1.2, 1.3", "١"),
    ],
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(BadCursor) as refused:
        Cursor.parse(text)
    assert refused.value.status == 400
    assert refused.value.param == "after"


@AT_RANDOM
@given(st.integers(0, 10**18 - 1), st.integers(0, 10**18 - 1))
def test_any_cursor_comes_back(gen: int, seq: int) -> None:
    assert Cursor.parse(str(Cursor(gen, seq))) == (gen, seq)


@AT_RANDOM
@given(st.text(alphabet="0123456789.- \n", max_size=45))
def test_any_text_is_a_cursor_that_writes_itself_or_refused(text: str) -> None:
    try:
        cursor = Cursor.parse(text)
    except BadCursor:
        return
    assert text in ("", str(cursor))


def test_the_place_of_a_record_is_a_cursor() -> None:
    assert str(Record(3, 7, b"{}").cursor) == "3.7"
