"""Answers of upstreams under arbitrary bytes: typed failures and nothing else, and cuts change nothing."""

import json
from typing import Any

import httpx2
from hypothesis import given
from hypothesis import strategies as st

from streaming import sse
from streaming.errors import UpstreamFailure
from streaming.events import Event, decode, encode
from streaming.sources._chat_dialect import _Dialect
from streaming.sources._chunks import ChunkReader
from streaming.sources._http1 import _Chunked
from streaming.sources._response_events import ResponseReader
from tests.chunk_streams import CALL, STREAMS, USAGE, chunk, says
from tests.fuzzing import CUTS, TEXTS, fuzzed, json_values, pieces

NAMES = st.sampled_from(
    "id object model choices index delta content reasoning reasoning_content refusal role tool_calls function"
    " name arguments finish_reason usage error message type code param logprobs status".split()
)
CHOICES = json_values(NAMES)
CHUNKS = st.one_of(
    st.sampled_from([one for stream in STREAMS.values() for one in stream]),
    TEXTS.map(says),
    json_values(NAMES).map(chunk),
    st.fixed_dictionaries(
        {"choices": st.lists(CHOICES, max_size=2)}, optional={"usage": CHOICES, "id": TEXTS}
    ),
    st.fixed_dictionaries({"error": CHOICES}),
    st.just(chunk({"tool_calls": [CALL]})),
    st.just(chunk(finish="stop", usage=USAGE)),
    CHOICES,
)
KINDS = st.sampled_from(
    "response.created response.output_text.delta response.refusal.delta response.reasoning_text.delta"
    " response.output_item.done response.completed response.incomplete response.failed error x.delta".split()
)
FIELDS = st.sampled_from(
    "delta item_id output_index content_index response item status error usage output type id name arguments"
    " call_id incomplete_details reason sequence_number".split()
)
RESPONSE_EVENTS = st.one_of(
    st.builds(
        lambda kind, fields: {**fields, "type": kind},
        KINDS,
        st.dictionaries(FIELDS, json_values(FIELDS), max_size=5),
    ),
    st.builds(lambda kind, text: {"type": kind, "delta": text, "item_id": "m"}, KINDS, TEXTS),
    json_values(FIELDS),
)


def as_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def kept(events: list[Event]) -> list[bytes]:
    """Return events as the log holds them, after a look whether it gives them back."""
    found = [encode(event) for event in events]
    assert [encode(decode(payload)) for payload in found] == found
    return found


@fuzzed(200)
@given(st.lists(CHUNKS.map(as_bytes), max_size=8))
def test_chunks_become_events_or_a_typed_failure_and_the_short_cut_changes_nothing(
    chunks: list[bytes],
) -> None:
    reader, plain = ChunkReader(), ChunkReader()
    for data in chunks:
        try:
            expected = kept(plain.read_any(data))
        except UpstreamFailure:
            return
        assert kept(reader.read(data)) == expected
    assert kept(reader.end()) == kept(plain.end())


@fuzzed(300)
@given(st.binary(max_size=100))
def test_what_is_no_chunk_is_a_typed_failure(data: bytes) -> None:
    for reader in (ChunkReader(), ResponseReader(), _Dialect()):
        try:
            kept(reader.read(data))
        except UpstreamFailure:
            continue


@fuzzed(200)
@given(st.lists(RESPONSE_EVENTS.map(as_bytes), max_size=8))
def test_events_of_a_response_become_events_or_a_typed_failure(said: list[bytes]) -> None:
    reader = ResponseReader()
    for data in said:
        try:
            kept(reader.read(data))
        except UpstreamFailure:
            return


def heard(blocks: list[bytes]) -> tuple[list[bytes], str]:
    """Return the events of a stream's bytes, and the type of what ended it, as `Exchange` reads them."""
    dialect, decoder = _Dialect(), sse.Decoder(100_000)
    events: list[Event] = []
    try:
        for block in blocks:
            for data in decoder.feed(block):
                if not dialect.ended and data.strip():
                    events += dialect.read(data)
        if not dialect.ended:
            events += dialect.end()
    except UpstreamFailure as failure:
        return kept(events), failure.type
    return kept(events), ""


@fuzzed(200)
@given(
    st.lists(CHUNKS.map(as_bytes), max_size=6),
    st.lists(st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r", b"\n: hb\n\n"]), min_size=6, max_size=6),
    st.booleans(),
    CUTS,
)
def test_an_answer_means_the_same_however_the_network_cuts_it(
    chunks: list[bytes], ends: list[bytes], done: bool, cuts: list[int]
) -> None:
    body = b"".join(b"data: " + data + end for data, end in zip(chunks, ends, strict=False))
    body += b"data: [DONE]\n\n" if done else b""
    assert heard(pieces(body, cuts)) == heard([body])


@fuzzed(200)
@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.sampled_from([b"", b";a=b", b" "]), CUTS)
def test_a_chunked_body_is_the_same_however_it_is_cut(
    body: list[bytes], tail: bytes, cuts: list[int]
) -> None:
    framed = (
        b"".join(b"%x%s\r\n%s\r\n" % (len(piece), tail, piece) for piece in body) + b"0\r\nX-A: b\r\n\r\n"
    )
    framing = _Chunked()
    found = b"".join(framing.feed(piece) for piece in pieces(framed, cuts) if piece)
    assert found == b"".join(body)
    assert framing.ended
    assert not framing.surplus


@fuzzed(300)
@given(
    st.lists(st.sampled_from(b"0|1|5|ff|\r\n|\r|\n|;|x| |-1|0x2|+1|_|\xb2".split(b"|")), max_size=20).map(
        b"".join
    ),
    CUTS,
)
def test_what_is_no_chunked_body_is_refused_alike_however_it_is_cut(framed: bytes, cuts: list[int]) -> None:
    def outcome(blocks: list[bytes]) -> tuple[bytes, bool] | None:
        framing, found = _Chunked(), b""
        try:
            for block in blocks:
                if block and not framing.ended:
                    found += framing.feed(block)
        except httpx2.RemoteProtocolError:
            return None
        return found, framing.ended

    assert outcome(pieces(framed, cuts)) == outcome([framed])
