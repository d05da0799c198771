"""The grammar of event streams, both ways, against a parser written after the standard."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming import sse
from tests.doubles import EventSourceParser

AT_RANDOM = settings(deadline=None, database=None, max_examples=200)
LARGE = 1_000_000

# Whole streams, each with what a browser hears.
STREAMS: dict[str, tuple[bytes, list[str]]] = {
    "one event": (b"data: a\n\n", ["a"]),
    "no space": (b"data:a\n\n", ["a"]),
    "one space goes, others stay": (b"data:  a \n\n", [" a "]),
    "a tab stays": (b"data:\ta\n\n", ["\ta"]),
    "lines are joined": (b"data: a\ndata: b\ndata:\ndata: c\n\n", ["a\nb\n\nc"]),
    "empty data": (b"data: \n\n", [""]),
    "data without a colon": (b"data\n\n", [""]),
    "two empty lines of data": (b"data\ndata\n\n", ["\n"]),
    "nothing between": (b"data: a\n\n\n\ndata: b\n\n", ["a", "b"]),
    "an id alone": (b"id: 1\n\ndata: a\n\n", ["a"]),
    "other fields": (b"event: x\nid: 7\nretry: 10\ndata: a\nnonsense: b\n\n", ["a"]),
    "data in a name": (b"datax: a\ndat: a\n data: a\nDATA: a\ndata : a\n\n", []),
    "comments": (b": hello\ndata: a\n: data: no\n:\ndata: b\n\n", ["a\nb"]),
    "the end without an empty line": (b"data: a\n\ndata: b\n", ["a"]),
    "the end inside a line": (b"data: a\n\ndata: b", ["a"]),
    "CR": (b"data: a\rdata: b\r\rdata: c\r\r", ["a\nb", "c"]),
    "CRLF": (b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", ["a\nb", "c"]),
    "mixed": (b"data: a\r\ndata: b\rdata: c\n\r\ndata: d\r\r\ndata: e\n\n", ["a\nb\nc", "d", "e"]),
    "LF CR is two": (b"data: a\n\rdata: b\n\n", ["a", "b"]),
    "CR then CRLF": (b"data: a\r\r\ndata: b\r\n\r\n", ["a", "b"]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
    "a second byte order mark": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", ["b"]),
    "a byte order mark later": (b"data: \xef\xbb\xbfa\n\n", ["\ufeffa"]),
    "a byte order mark alone": (b"\xef\xbb\xbf\n\ndata: a\n\n", ["a"]),
    "only a part of one": (b"\xef\xbbdata: a\n\ndata: b\n\n", ["b"]),
    "other line breaks are text": (
        "data: a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\n\n".encode(),
        ["a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"],
    ),
    "NUL": (b"data: a\0b\n\n", ["a\0b"]),
    "nothing": (b"", []),
    "only line ends": (b"\n\r\n\r\r\n\n", []),
    "long": (b"data: " + b"x" * 5000 + b"\n\n", ["x" * 5000]),
}


def decoded(decoder: sse.Decoder, *blocks: bytes) -> list[str]:
    return [data.decode("utf-8", "replace") for block in blocks for data in decoder.feed(block)]


def as_a_browser(body: bytes) -> list[str]:
    parser = EventSourceParser(strict=False)
    parser.feed(body)
    return [event.data for event in parser.heard]


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_heard_as_the_standard_says(name: str) -> None:
    body, expected = STREAMS[name]

    assert as_a_browser(body) == expected
    assert decoded(sse.Decoder(LARGE), body) == expected


@pytest.mark.parametrize("name", STREAMS)
def test_it_is_heard_the_same_wherever_it_is_cut(name: str) -> None:
    body, expected = STREAMS[name]

    for cut in range(min(len(body), 200) + 1):
        assert decoded(sse.Decoder(LARGE), body[:cut], b"", body[cut:]) == expected, f"cut at {cut}"


@pytest.mark.parametrize("name", STREAMS)
def test_it_is_heard_the_same_byte_by_byte(name: str) -> None:
    body, expected = STREAMS[name]

    assert decoded(sse.Decoder(LARGE), *(bytes([byte]) for byte in body)) == expected


GRAMMAR = st.lists(
    st.sampled_from(
        [
            b"data",
            b":",
            b" ",
            b"\n",
            b"\r",
            b"\r\n",
            b"\n\n",
            b"id",
            b"a",
            b"\0",
            b"\xef\xbb\xbf",
            b"\xe2\x80\xa8",
        ]
    ),
    max_size=40,
).map(b"".join)


@AT_RANDOM
@given(GRAMMAR, st.lists(st.integers(0, 100), max_size=5))
def test_any_stream_cut_anywhere_is_heard_as_the_standard_says(body: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    blocks = [body[start:end] for start, end in pairwise(places)]

    assert decoded(sse.Decoder(LARGE), *blocks) == as_a_browser(body)


def test_lines_are_counted_when_they_are_complete() -> None:
    decoder = sse.Decoder(LARGE)

    counts = []
    for block in (b": drip", b" drip", b"\n", b"data: a\n\n", b"x", b"", b"\r", b"\n", b"\n"):
        decoder.feed(block)
        counts.append(decoder.lines)

    assert counts == [0, 0, 1, 3, 3, 3, 4, 4, 5]


# Too long


@pytest.mark.parametrize(
    "line", [b"data: " + b"x" * 100, b": " + b"x" * 104, b"x" * 106], ids=["data", "comment", "?"]
)
@pytest.mark.parametrize("step", [1, 7, 50, 1000])
def test_a_line_over_the_limit_ends_the_reading(line: bytes, step: int) -> None:
    body = b"data: before\n\n" + line + b"\n\ndata: after\n\n"
    blocks = [body[place : place + step] for place in range(0, len(body), step)]

    fits, too_small = sse.Decoder(110), sse.Decoder(100)

    assert decoded(fits, *blocks)[-1] == "after"
    assert not fits.too_long
    assert decoded(too_small, *blocks) == ["before"]
    assert too_small.too_long


@pytest.mark.parametrize("step", [1, 7, 50, 1000])
def test_an_event_of_many_lines_over_the_limit_ends_the_reading(step: int) -> None:
    body = b"data: before\n\n" + b"data: 0123456789\n" * 11 + b"\ndata: after\n\n"
    blocks = [body[place : place + step] for place in range(0, len(body), step)]
    decoder = sse.Decoder(100)

    assert decoded(decoder, *blocks) == ["before"]
    assert decoder.too_long


@AT_RANDOM
@given(GRAMMAR, st.integers(1, 30), st.integers(1, 40))
def test_what_is_too_long_does_not_depend_on_the_cuts(body: bytes, limit: int, step: int) -> None:
    body = body.replace(b"\xef\xbb\xbf", b"x")
    whole, pieces = sse.Decoder(limit), sse.Decoder(limit)
    blocks = [body[place : place + step] for place in range(0, len(body), step)]

    assert decoded(pieces, *blocks) == decoded(whole, body)
    assert pieces.too_long == whole.too_long


def test_a_line_that_never_ends_is_not_kept() -> None:
    decoder = sse.Decoder(1000)
    for _ in range(100):
        decoder.feed(b"x" * 1000)

    assert decoder.too_long
    assert len(decoder._tail) <= 2000


# Writing


def test_a_frame_is_dispatched_as_it_was_given() -> None:
    parser = EventSourceParser()
    parser.feed(sse.frame(b"two\nlines", id="1.7", retry_milliseconds=1500))

    assert parser.heard == [("two\nlines", "1.7", "message")]
    assert parser.retry == 1500


@pytest.mark.parametrize("id", ["1\n2", "1\r2", "1\0", "1\n\ndata: forged"])
def test_an_id_cannot_forge_an_event(id: str) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        sse.frame(b"x", id=id)


@AT_RANDOM
@given(st.lists(st.text(), min_size=1, max_size=4))
def test_any_text_comes_back_with_its_line_breaks_as_newlines(texts: list[str]) -> None:
    body = b"".join(sse.frame(text.encode(), id=f"1.{place}") for place, text in enumerate(texts, 1))
    parser = EventSourceParser()
    parser.feed(body)
    expected = [re.sub("\r\n|\r", "\n", text) for text in texts]

    assert [event.data for event in parser.heard] == expected
    assert [event.last_event_id for event in parser.heard] == [f"1.{n}" for n in range(1, len(texts) + 1)]
    assert decoded(sse.Decoder(LARGE), body) == expected


@AT_RANDOM
@given(st.text(alphabet="\r\n: adtx\0\ufeff", max_size=20))
def test_no_text_forges_a_field(text: str) -> None:
    parser = EventSourceParser()
    parser.feed(sse.frame(text.encode(), id="1.1") + sse.HEARTBEAT + sse.frame(b"next", id="1.2"))

    assert [event.last_event_id for event in parser.heard] == ["1.1", "1.2"]
    assert parser.comments == [" hb"]
    assert parser.retry is None


def test_a_heartbeat_is_no_event_wherever_it_comes() -> None:
    parser = EventSourceParser()
    parser.feed(sse.HEARTBEAT + sse.frame(b"a", id="1.1") + sse.HEARTBEAT * 2 + sse.frame(b"b", id="1.2"))

    assert [event.data for event in parser.heard] == ["a", "b"]
