"""Each short cut says what its plain twin says, whatever comes."""

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.errors import UpstreamBadResponse
from streaming.events import Chunk, Event, Extra, Reasoning, Record, Start, Token, encode
from streaming.formats import Wants
from streaming.formats.openai_chat import ChatFormat
from streaming.sources._chunks import ChunkReader
from streaming.sources._like_before import LikeBefore
from streaming.sse import Decoder
from tests.chunk_streams import chunk, says

TEXTS = st.text(st.characters(), max_size=6) | st.sampled_from(
    ['"', "\\", 'a","role":"x', "\u2028", "\ud83d", "\x01probe"]
)
CHUNKS = st.one_of(
    TEXTS.map(says),
    st.builds(lambda a, b: chunk({"content": a, "reasoning_content": b}), TEXTS, TEXTS),
    st.builds(
        lambda text, name: says(text) | {name: text}, TEXTS, st.sampled_from(["content", "obfuscation", "id"])
    ),
    st.builds(lambda a, b: says(a) | {"content": b}, TEXTS, TEXTS),
    st.sampled_from(
        [chunk({"role": "assistant", "content": ""}), chunk(finish="stop"), chunk({"refusal": "no"})]
    ),
)


def bytes_of(value: dict[str, Any], spaces: bool, ascii_only: bool) -> bytes:
    separators = (", ", ": ") if spaces else (",", ":")
    text = json.dumps(value, separators=separators, ensure_ascii=ascii_only)
    return text.encode("utf-8", "surrogatepass")


def said(read: Any, data: bytes) -> list[Event] | str:
    try:
        return list(read(data))
    except UpstreamBadResponse as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(st.lists(CHUNKS, max_size=12), st.booleans(), st.booleans())
def test_a_chunk_like_those_before_is_read_as_any_other(
    chunks: list[dict[str, Any]], spaces: bool, ascii_only: bool
) -> None:
    quick, plain = ChunkReader(), ChunkReader()
    for one in chunks:
        data = bytes_of(one, spaces, ascii_only)
        assert said(quick.read, data) == said(plain.read_any, data)


@settings(max_examples=300, deadline=None)
@given(st.lists(CHUNKS, max_size=12), st.booleans(), st.lists(st.integers(0, 2000), max_size=4))
def test_a_block_that_is_one_event_with_nothing_but_text_is_read_as_its_parts_are(
    chunks: list[dict[str, Any]], ascii_only: bool, cuts: list[int]
) -> None:
    quick, plain, decoder = ChunkReader(), ChunkReader(), Decoder(1_000_000)
    body = b"".join(b"data: %b\n\n" % bytes_of(one, False, ascii_only) for one in chunks)
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))} | set(_ends_of_events(body)))
    for begin, end in pairwise(places):
        block = body[begin:end]
        text = quick.text_of_event(block) if decoder.at_rest else ""
        found = decoder.feed(block)
        read = [said(plain.read_any, data) for data in found]
        if text:
            assert read == [[Token(text)]]
        else:
            assert [said(quick.read, data) for data in found] == read


def _ends_of_events(body: bytes) -> list[int]:
    return [found.end() for found in re.finditer(b"\n\n", body)]


def test_the_short_cut_is_taken() -> None:
    learned = LikeBefore.learn(bytes_of(says("Hel"), False, False))
    assert learned is not None
    assert learned.text_of_event(b"data: " + bytes_of(says("lo"), False, False) + b"\n\n") == "lo"
    assert learned.text_of_event(b"data: " + bytes_of(says("lo"), False, False) + b"\n") == ""
    assert learned.text_of(bytes_of(says('l"o\n'), False, False)) == 'l"o\n'
    assert learned.text_of(bytes_of(says("lo") | {"id": "other"}, False, False)) == ""
    assert learned.text_of(bytes_of(chunk({"content": "a", "role": "b"}), False, False)) == ""


@pytest.mark.parametrize("between", [b'a","role":"b', b"a\\", b"\xff", b"\\ud83d", b"a\nb"])
def test_what_is_not_one_string_is_left_to_the_parser(between: bytes) -> None:
    whole = bytes_of(says("Hel"), False, False)
    learned = LikeBefore.learn(whole)
    assert learned is not None
    assert learned.text_of(whole.replace(b"Hel", between)) == ""


EVENTS = st.one_of(
    TEXTS.filter(lambda text: text.isprintable()).map(Token),
    st.builds(Token, st.just("a"), more=st.booleans()),
    st.builds(Token, st.just("no"), refusal=st.booleans()),
    st.builds(Token, st.just("b"), extra=st.just(Extra(chunk={"id": "other"}))),
    st.builds(Reasoning, st.just("hm"), more=st.booleans()),
    st.just(Chunk(extra=Extra(choice={"finish_reason": "stop"}))),
)
FIRST = Chunk(first=chunk({"role": "assistant"}), more=False)


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, max_size=12), st.booleans(), st.booleans())
def test_a_plain_token_is_written_as_any_other(events: list[Event], from_chunks: bool, usage: bool) -> None:
    quick, plain = ChatFormat(Wants(usage=usage)), ChatFormat(Wants(usage=usage))
    head: list[Event] = [Start("st_x", "chat", "m", 1)]
    for event in [*head, *([FIRST] if from_chunks else []), *events]:
        record = Record(1, 1, encode(event))
        assert quick.encode(record) == plain.encode_any(record)
