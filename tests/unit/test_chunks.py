"""Nothing of an upstream's chunks is lost on the way through the log."""

import contextlib
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.errors import UpstreamBadResponse
from streaming.events import Event, Reasoning, Token, ToolCall, Usage, decode, encode
from streaming.formats._chunks import ChunkWriter
from streaming.sources._chunks import ChunkReader
from tests.chunk_streams import CALL, HEAD, STREAMS, USAGE, as_json, chunk, fragment, says

AT_RANDOM = settings(deadline=None, database=None, max_examples=200)


def read(chunks: Sequence[Any], end: bool = True) -> list[Event]:
    """Return the events of chunks, as they come out of the log again."""
    reader = ChunkReader()
    found: list[Event] = []
    for one in chunks:
        found += reader.read(one if isinstance(one, bytes) else json.dumps(one).encode())
    if end:
        found += reader.end()
    return [decode(encode(event)) for event in found]


def rejoin(events: Sequence[Event]) -> list[dict[str, Any]]:
    """Rebuild the upstream's chunks from the events alone, as the OpenAI formats do."""
    writer = ChunkWriter()
    return [one for event in events for one in writer.write(event)]


def tidied(one: dict[str, Any]) -> dict[str, Any]:
    """Return a chunk as every client gets it: with choices, and in each a delta."""
    choices = [choice | {"delta": choice.get("delta") or {}} for choice in one.get("choices") or []]
    return one | {"choices": choices}


@pytest.mark.parametrize("name", STREAMS)
def test_every_chunk_can_be_rebuilt_from_the_log(name: str) -> None:
    chunks = STREAMS[name]

    rebuilt = rejoin(read(chunks))

    assert as_json([tidied(one) for one in rebuilt]) == as_json([tidied(one) for one in chunks])


@pytest.mark.parametrize("name", STREAMS)
def test_the_text_is_in_the_tokens(name: str) -> None:
    expected = ""
    for one in STREAMS[name]:
        choices = one.get("choices") or []
        if len(choices) == 1 and choices[0].get("index", 0) == 0:
            delta = choices[0].get("delta") or {}
            expected += (delta.get("content") or "") + (delta.get("refusal") or "")

    assert "".join(event.content for event in read(STREAMS[name]) if isinstance(event, Token)) == expected


def test_what_is_the_same_in_every_chunk_is_stored_once() -> None:
    chunks = [chunk({"role": "assistant", "content": ""})] + [says("x")] * 100
    events = read([one | {"system_fingerprint": "fp_1", "usage": None} for one in chunks])

    assert events[1:] == [Token("x")] * 100


# Tool calls


def calls_of(name: str) -> list[ToolCall]:
    return [event for event in read(STREAMS[name]) if isinstance(event, ToolCall)]


def test_a_call_is_told_whole_when_it_is_complete() -> None:
    assert calls_of("a call in fragments") == [ToolCall("call_1", "get_weather", {"city": "Köln"})]
    assert calls_of("parallel calls") == [
        ToolCall("call_1", "get_weather", {}),
        ToolCall("call_2", "get_weather", {"a": 1}),
    ]
    assert calls_of("parallel calls, interleaved") == [
        ToolCall("call_1", "get_weather", {"a": 1}),
        ToolCall("call_2", "get_weather", {"b": 2}),
    ]
    assert calls_of("a whole call at once") == [ToolCall("call_1", "f", {})]
    assert calls_of("a call without an index") == [
        ToolCall("call_1", "f", {"a": 1}),
        ToolCall("call_2", "g", {}),
    ]


def test_a_call_that_is_never_finished_is_told_at_the_end() -> None:
    events = read([chunk({"tool_calls": [CALL]}), fragment('{"a":1}')])

    assert events[-1] == ToolCall("call_1", "get_weather", {"a": 1})


@pytest.mark.parametrize(
    "arguments", ["", "{", "[1]", "null", "not json", "{'a': 1}", '{"a":NaN}', "1" * 5000]
)
def test_arguments_that_are_no_object_are_kept_as_text(arguments: str) -> None:
    events = read([chunk({"tool_calls": [CALL]}), fragment(arguments), chunk(finish="tool_calls")])

    (call,) = [event for event in events if isinstance(event, ToolCall)]
    assert (call.args, call.args_text) == (None, arguments) or (call.args == {} and arguments == "")


@pytest.mark.parametrize(
    "fragments",
    ["x", {"a": 1}, ["x"], [1], [None], [{"function": "x"}], [{"function": [1]}], [{"function": 5, "id": 7}]],
    ids=repr,
)
def test_what_is_no_call_is_refused_or_passed_on_but_never_breaks(fragments: Any) -> None:
    with contextlib.suppress(UpstreamBadResponse):
        read([says("a"), chunk({"tool_calls": fragments}), chunk(finish="tool_calls")])


# The end


def test_the_reason_and_the_usage_are_known_at_the_end() -> None:
    reader = ChunkReader()
    for one in STREAMS["the usage at the end"]:
        reader.read(json.dumps(one).encode())

    assert (reader.finish_reason, reader.usage) == ("stop", USAGE)


def test_text_after_the_end_is_ignored_and_usage_kept() -> None:
    events = read([says("a"), chunk(finish="stop"), says("late"), chunk(finish="stop", usage=USAGE)])

    assert [event.content for event in events if isinstance(event, Token)] == ["a"]
    assert Usage(USAGE) in events


# Characters


def test_a_character_whose_halves_come_in_two_chunks_is_joined() -> None:
    halves = [json.dumps(says("\ud83d")).encode(), json.dumps(says("\ude00!")).encode()]
    assert b"\\ud83d" in halves[0]

    tokens = [event.content for event in read([says("a"), *halves, says("b")]) if isinstance(event, Token)]

    assert "".join(tokens) == "a😀!b"


@pytest.mark.parametrize("field", ["content", "refusal", "reasoning_content", "reasoning"])
def test_half_a_character_alone_becomes_a_replacement(field: str) -> None:
    def heard(*texts: str) -> str:
        events = read([chunk({field: text}) for text in texts])
        return "".join(event.content for event in events if isinstance(event, Token | Reasoning))

    assert heard("a", "\ud83d", "b") == "a\ufffdb"
    assert heard("a", "\ude00b") == "a\ufffdb"
    assert heard("a\ud83d") == "a\ufffd"
    assert heard("\ud83d") == "\ufffd"
    assert heard("\ud83d", "\ud83d\ude00") == "\ufffd😀"
    assert heard("a\ud83d", "", "\ude00") == "a😀"


def test_halves_of_arguments_are_joined_in_the_call() -> None:
    events = read(
        [
            chunk({"tool_calls": [CALL]}),
            fragment('{"a":"\ud83d'),
            fragment('\ude00"}'),
            chunk(finish="tool_calls"),
        ]
    )

    assert events[-1] == ToolCall("call_1", "get_weather", {"a": "😀"})


HALF = "\ud800"


@pytest.mark.parametrize(
    "one",
    [
        chunk({"role": HALF, "content": "a"}),
        chunk({HALF: 1, "content": "a"}),
        chunk({"content": "a"}, choice={"x": HALF}),
        chunk({"content": "a"}, x={"y": [HALF, {HALF: HALF}]}),
        chunk({"content": "a"}, finish=HALF),
        chunk({"tool_calls": [CALL | {"id": HALF, "function": {"name": HALF, "arguments": HALF}}]}),
        chunk({"content": "a"}, usage={"x": HALF}),
        {**HEAD, "choices": [], "usage": {"x": HALF}},
        {**HEAD, "choices": [], "x": HALF},
        chunk({"content": "a"}, choice={"index": 1, "x": HALF}),
    ],
    ids=range(10),
)
@pytest.mark.parametrize("place", ["first", "later"])
def test_half_a_character_anywhere_can_still_be_written(one: dict[str, Any], place: str) -> None:
    events = read([one] if place == "first" else [says("hello"), one])

    assert events
    assert HALF not in repr(events)


def test_invalid_utf_8_becomes_a_replacement() -> None:
    good = json.dumps(says("hello")).encode()

    events = read([good, good.replace(b"hello", b"a\xffb\xe2\x82")])

    assert [event.content for event in events if isinstance(event, Token)] == ["hello", "a\ufffdb\ufffd"]


# What is no chunk


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"{",
        b"[]",
        b'"x"',
        b"1",
        b"null",
        b"{}",
        b'{"choices":{}}',
        b'{"choices":"x"}',
        b'{"choices":[1]}',
        b'{"choices":[null]}',
        b'{"choices":[{"index":0,"delta":"x"}]}',
        b'{"choices":[{"index":0,"delta":[1]}]}',
        b'{"id":"x"}',
        b'{"choices":[],"x":NaN}',
        b'{"choices":[],"x":Infinity}',
        b'{"choices":[],"x":-Infinity}',
        b'{"choices":[],"x":1e999}',
        b'{"choices":[],"x":-1e999}',
        b'{"choices":[],"x":"\xff","y":1e999}',
        b'{"choices":[],"x":' + b"9" * 5000 + b"}",
        b'{"choices":[],"x":"\xff","y":' + b"9" * 5000 + b"}",
        b'{"choices":[],"x":' + b'{"a":' * 70 + b"1" + b"}" * 70 + b"}",
        b'{"choices":[],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"choices":[],"x":"\xff","y":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"choices":[],"x":' + b"[" * 100_000,
        b"{'choices': []}",
        b'{"choices":[],}',
        b"\xff\xfe",
    ],
    ids=lambda data: repr(data[:40]),
)
def test_what_is_no_chunk_is_a_bad_response(data: bytes) -> None:
    with pytest.raises(UpstreamBadResponse) as refused:
        read([data])
    assert refused.value.code == "json"
    with pytest.raises(UpstreamBadResponse):
        read([says("a"), data])


@pytest.mark.parametrize("text", ["[" * 500, "{" * 500, '\\"[' * 300, "[\\\\" * 200])
def test_brackets_in_a_text_are_not_depth(text: str) -> None:
    assert [event.content for event in read([says(text)]) if isinstance(event, Token)] == [text]


# Anything at all

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
# Without 0 and 1, which equal False and True for Python; a test of its own is about them.
NUMBERS = (st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)).filter(
    lambda number: number not in (0, 1)
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
SMALL = st.sampled_from([None, True, False, 2, "", "a", [], {}, [2], {"a": 2}])
DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant") | st.none(),
        "content": TEXT | st.none(),
        "reasoning_content": TEXT | st.none(),
        "reasoning": TEXT,
        "refusal": TEXT | st.none(),
        "x": JSON,
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {"index": st.integers(0, 2), "function": st.fixed_dictionaries({"arguments": TEXT})},
                optional={"id": TEXT},
            ),
            max_size=2,
        ),
    },
)
CHOICES = st.fixed_dictionaries(
    {"delta": DELTAS}, optional={"index": st.sampled_from([0, 0, 0, 1]), "logprobs": SMALL, "y": SMALL}
)
CHUNKS = st.fixed_dictionaries(
    {
        "choices": st.lists(CHOICES, min_size=1, max_size=1) | st.lists(CHOICES, max_size=2),
        "object": st.just("chat.completion.chunk"),
    },
    optional={
        "id": st.sampled_from(["1", "2"]),
        "usage": st.none() | st.just({"n": 1}),
        "z": SMALL,
        "w": JSON,
    },
)


@AT_RANDOM
@given(st.lists(CHUNKS, min_size=1, max_size=6))
def test_any_chunks_can_be_rebuilt(chunks: list[dict[str, Any]]) -> None:
    assert as_json(rejoin(read(chunks))) == as_json(chunks)


@AT_RANDOM
@given(st.lists(st.text(max_size=4), min_size=1, max_size=6))
def test_any_text_in_any_pieces_is_joined(texts: list[str]) -> None:
    events = read([says(text) for text in texts])

    said = "".join(event.content for event in events if isinstance(event, Token))
    expected = "".join(texts).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert said == expected


@AT_RANDOM
@given(st.text(st.characters(), min_size=1, max_size=6), st.integers(1, 5))
def test_a_text_cut_inside_its_characters_is_joined(text: str, step: int) -> None:
    halves = text.encode("utf-16-le", "surrogatepass")
    units = [
        halves[place : place + 2].decode("utf-16-le", "surrogatepass") for place in range(0, len(halves), 2)
    ]
    pieces = ["".join(units[place : place + step]) for place in range(0, len(units), step)]

    events = read([says(piece) for piece in pieces])

    said = "".join(event.content for event in events if isinstance(event, Token))
    assert said == halves.decode("utf-16-le", "replace")


@AT_RANDOM
@given(
    st.recursive(
        JSON, lambda inner: st.dictionaries(st.sampled_from(["choices", "delta", "index", "usage"]), inner)
    )
)
def test_any_json_is_read_or_refused(value: Any) -> None:
    for one in (value, {"choices": value}, {"choices": [value]}, {"choices": [{"index": 0, "delta": value}]}):
        with contextlib.suppress(UpstreamBadResponse):
            read([one])
            read([says("a"), one])


HALF = "\\ud83d"


@pytest.mark.parametrize(
    "chunks",
    [
        [json.dumps(says("b")).encode(), f'{{"usage": {{}}, "odd": "{HALF}"}}'.encode()],
        [json.dumps(says("b")).encode(), f'{{"usage": {{}}, "{HALF}": 1}}'.encode()],
        [f'{{"{HALF}": 1, "choices": []}}'.encode(), b'{"usage": {}, "choices": []}'],
        [f'{{"{HALF}": 1, "choices": []}}'.encode(), json.dumps(says("b")).encode()],
        [f'{{"choices": [{{"{HALF}": 1, "delta": {{}}}}]}}'.encode(), json.dumps(says("b")).encode()],
    ],
)
def test_half_a_character_beside_the_text_can_be_kept_wherever_it_stands(chunks: list[bytes]) -> None:
    assert read(chunks)
