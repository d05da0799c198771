"""The ``text/event-stream`` grammar under arbitrary bytes, cut anywhere, beside a browser's parser."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming import sse
from streaming.terminal.event_stream import Parser
from tests.doubles import EventSourceParser
from tests.fuzzing import CUTS, TEXTS, fuzzed, pieces

FRAGMENTS = st.sampled_from(
    b"data:|data|data: |: hb|id: 1.2|id:|id: \0|event: x|retry: 10|\n|\n|\n|\r|\r\n|\n\n| |x|\xef\xbb\xbf"
    b"|\xe2\x80\xa8|\xc2\x85|\x0b|\xff|\xc3|\0|dat|a:".split(b"|")
)
STREAMS = st.one_of(st.lists(FRAGMENTS, max_size=40).map(b"".join), st.binary(max_size=200))
MAX_BYTES = 10_000


@fuzzed(300)
@given(STREAMS, CUTS)
def test_the_upstreams_decoder_hears_what_a_browser_would_however_it_is_cut(
    stream: bytes, cuts: list[int]
) -> None:
    browser = EventSourceParser(strict=False)
    browser.feed(stream)
    decoder = sse.Decoder(MAX_BYTES)

    found = [data for piece in pieces(stream, cuts) for data in decoder.feed(piece)]

    assert [data.decode(errors="replace") for data in found] == [heard.data for heard in browser.heard]
    assert not decoder.too_long


@fuzzed(300)
@given(STREAMS, CUTS)
def test_the_terminals_parser_hears_what_a_browser_would_however_it_is_cut(
    stream: bytes, cuts: list[int]
) -> None:
    browser = EventSourceParser(strict=False)
    browser.feed(stream)
    parser = Parser()

    found = [message for piece in pieces(stream, cuts) for message in parser.feed(piece)]

    assert [(message.id, message.data.decode(errors="replace")) for message in found] == [
        (heard.last_event_id, heard.data) for heard in browser.heard
    ]


@fuzzed(200)
@given(STREAMS, st.integers(1, 40), CUTS)
def test_a_decoder_gives_out_nothing_above_its_limit(stream: bytes, limit: int, cuts: list[int]) -> None:
    decoder = sse.Decoder(limit)
    for piece in pieces(stream, cuts):
        assert all(len(data) <= 2 * limit + 2 for data in decoder.feed(piece))


@fuzzed(300)
@given(st.one_of(TEXTS.map(str.encode), st.binary(max_size=60)), TEXTS, TEXTS, st.integers(0, 10**6), CUTS)
def test_a_frame_is_one_event_whatever_is_in_it(
    data: bytes, id: str, event: str, retry: int, cuts: list[int]
) -> None:
    if set(id + event) & set("\r\n\0"):
        with pytest.raises(ValueError, match="cannot hold"):
            sse.frame(data, id, event, retry)
        return
    framed = sse.frame(data, id, event, retry)
    browser = EventSourceParser(strict=False)

    for piece in pieces(framed, cuts):
        browser.feed(piece)

    assert len(browser.heard) == 1
    (heard,) = browser.heard
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert heard.data == lines.decode(errors="replace")
    assert heard.last_event_id == id
    assert heard.type == (event or "message")
