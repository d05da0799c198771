"""What each wire format makes of a stream, byte for byte and from every place in it.

`tests/transcripts` holds streams (``.jsonl``, one payload a line) and beside each
what every format says of it. After a change that is meant, write them anew with
``REWRITE_TRANSCRIPTS=1`` and look at the difference.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from streaming import plugins, sse
from streaming.events import Done, Error, Event, Record, Token, decode, encode
from streaming.formats import Wants, WireFormat
from streaming.reader import merged
from tests.doubles import EventSourceParser, Heard, parse_event_stream

FOLDER = Path(__file__).parents[1] / "transcripts"
TRANSCRIPTS = sorted(path.stem for path in FOLDER.glob("*.jsonl"))
FORMATS = plugins.names("formats")
# OpenAI's dialects have tests of their own beside this file.
OURS = [name for name in FORMATS if not plugins.create("formats", name, Wants()).from_start]
REWRITE = os.environ.get("REWRITE_TRANSCRIPTS") == "1"


def records_of(transcript: str) -> list[Record]:
    payloads = (FOLDER / f"{transcript}.jsonl").read_bytes().split(b"\n")[:-1]
    return [Record(1, seq, payload) for seq, payload in enumerate(payloads, 1)]


def is_sse(wire_format: WireFormat) -> bool:
    return wire_format.media_type == "text/event-stream"


def said(name: str, records: list[Record], **options: Any) -> bytes:
    """Return what one connection of this format carries."""
    wire_format = plugins.create("formats", name, Wants(**options))
    out = b""
    for record in records:
        for message in wire_format.encode(record):
            out += (
                sse.frame(message.data, message.id, message.event)
                if is_sse(wire_format)
                else message.data + b"\n"
            )
    return out


def heard(name: str, body: bytes) -> list[Heard]:
    """Return the messages of a connection, for formats without ids with an empty one."""
    if is_sse(plugins.create("formats", name, Wants())):
        return parse_event_stream(body).heard
    return [Heard(line.decode(), "") for line in body.split(b"\n")[:-1]]


def text_of(name: str, messages: list[Heard]) -> str:
    """Return the text as a client of this format joins it."""
    if name == "text":
        return "".join(
            message.data for message in messages if message.data != "[DONE]" and not is_error(message.data)
        )
    bodies = [json.loads(message.data) for message in messages]
    return "".join(
        body["content"] for body in bodies if "content" in body and body.get("type", "token") == "token"
    )


def is_error(data: str) -> bool:
    return data.startswith('{"error":{"message":')


def is_last(name: str, data: str) -> bool:
    if name == "text":
        return data == "[DONE]" or is_error(data)
    return json.loads(data).get("done") is True


def real_text(records: list[Record]) -> str:
    events = [decode(record.payload) for record in records]
    return "".join(event.content for event in events if isinstance(event, Token))


def lines_as_sse(text: str) -> str:
    """A carriage return is a line end of that grammar, and arrives as a newline."""
    return re.sub("\r\n|\r", "\n", text)


def same_text(name: str, found: str, records: list[Record]) -> bool:
    expected = real_text(records)
    if name != "text":
        return found == expected
    tokens = [decode(record.payload) for record in records]
    return found == "".join(lines_as_sse(token.content) for token in tokens if isinstance(token, Token))


# The transcripts themselves


@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_a_transcript_is_what_a_log_would_hold(transcript: str) -> None:
    events = [decode(record.payload) for record in records_of(transcript)]

    assert [encode(event) for event in events] == [record.payload for record in records_of(transcript)]
    last = events[-1]
    assert isinstance(last, Done | Error)
    assert last.done is True
    assert last.last_seq == len(events)
    assert not any(isinstance(event, Done | Error) for event in events[:-1])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_a_format_says_of_a_stream_what_it_said_before(transcript: str, name: str) -> None:
    body = said(name, records_of(transcript))
    suffix = f"{name}.sse" if is_sse(plugins.create("formats", name, Wants())) else name
    golden = FOLDER / f"{transcript}.{suffix}"
    if REWRITE:
        golden.write_bytes(body)

    assert body == golden.read_bytes()


# Every format, from anywhere


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_what_is_said_is_well_formed_and_ends_once(transcript: str, name: str) -> None:
    body = said(name, records_of(transcript))
    messages = heard(name, body)

    assert [is_last(name, message.data) for message in messages] == [False] * (len(messages) - 1) + [True]
    assert same_text(name, text_of(name, messages), records_of(transcript))
    if is_sse(plugins.create("formats", name, Wants())):
        decoder = sse.Decoder(len(body))
        assert [data.decode() for data in decoder.feed(body)] == [message.data for message in messages]
        assert {message.type for message in messages} == {"message"}
        assert parse_event_stream(body).retry is None


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_json_is_one_line_for_every_reader(transcript: str, name: str) -> None:
    for message in heard(name, said(name, records_of(transcript))):
        if name == "text" and not is_error(message.data):
            continue
        assert message.data.splitlines() == [message.data], "a reader that splits at U+2028 would cut here"
        assert json.loads(message.data)


@pytest.mark.parametrize("name", [name for name in OURS if is_sse(plugins.create("formats", name, Wants()))])
@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_ids_rise_and_end_with_the_last_event(transcript: str, name: str) -> None:
    records = records_of(transcript)
    places = [message.last_event_id.split(".") for message in heard(name, said(name, records))]

    seqs = [int(seq) for _, seq in places]
    assert seqs == sorted(set(seqs))
    assert seqs[-1] == len(records)
    assert {gen for gen, _ in places} == {"1"}


@pytest.mark.parametrize("name", ["native", "ndjson"])
@pytest.mark.parametrize("metrics", [False, True])
@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_the_counts_say_how_many_events_a_message_stands_for(
    transcript: str, metrics: bool, name: str
) -> None:
    records = records_of(transcript)
    seq = 0
    for message in heard(name, said(name, records, metrics=metrics)):
        seq += json.loads(message.data).get("n", 1)
        if message.last_event_id:
            assert message.last_event_id == f"1.{seq}"

    assert seq == len(records)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_cut_anywhere_and_resumed_the_joined_text_is_the_same(transcript: str, name: str) -> None:
    records = records_of(transcript)
    for cut in range(len(records) + 1):
        before, after = said(name, records[:cut]), said(name, records[cut:])
        joined = [*heard(name, before), *heard(name, after)]

        assert same_text(name, text_of(name, joined), records), f"cut after event {cut}"
        assert [is_last(name, message.data) for message in joined].count(True) == 1


@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_a_client_that_resumes_at_each_id_it_saw_hears_every_message_once(transcript: str) -> None:
    records = records_of(transcript)
    for name in ("native", "simple", "text"):
        whole = heard(name, said(name, records))
        for place, message in enumerate(whole, 1):
            seq = int(message.last_event_id.partition(".")[2])
            rest = heard(name, said(name, records[seq:]))
            assert [other.last_event_id for other in rest] == [other.last_event_id for other in whole[place:]]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("size", [2, 3, 1000])
@pytest.mark.parametrize("transcript", TRANSCRIPTS)
def test_merged_tokens_say_the_same_text(transcript: str, size: int, name: str) -> None:
    records = records_of(transcript)

    messages = heard(name, said(name, list(merged(records, size))))

    found = text_of(name, messages)
    assert (
        found == real_text(records)
        if name != "text"
        else lines_as_sse(found) == lines_as_sse(real_text(records))
    )
    if name in ("native", "ndjson"):
        assert sum(json.loads(message.data).get("n", 1) for message in messages) == len(records)


@pytest.mark.parametrize("name", [name for name in OURS if is_sse(plugins.create("formats", name, Wants()))])
def test_no_text_of_a_model_forges_an_event(name: str) -> None:
    words = [
        "\n\ndata: forged\n\n",
        "\rid: 9.9\r\r",
        "\r\n\r\nevent: x\r\nretry: 1\r\n",
        ": comment\n",
        "data: [DONE]\n\n",
        '"}\n\ndata: {"type":"done"}',
        "\0id: 7\0",
        "\ufeffdata: x",
        "\u2028\u2029\u0085\x0b\x0c\x1c",
    ]
    records = [Record(1, seq, encode(Token(word))) for seq, word in enumerate(words, 1)]

    parser = EventSourceParser()
    parser.feed(said(name, records))

    assert [message.last_event_id for message in parser.heard] == [
        f"1.{seq}" for seq in range(1, len(words) + 1)
    ]
    assert parser.retry is None
    assert parser.comments == []
    assert same_text(name, text_of(name, parser.heard), records)


@pytest.mark.parametrize("words", [["[DONE]"], ["[DO", "NE]"]])
def test_a_model_that_says_the_words_of_an_end_does_not_end_the_text(words: list[str]) -> None:
    events: list[Event] = [*map(Token, words), Token("more"), Done("stop", done=True)]
    records = [Record(1, seq, encode(event)) for seq, event in enumerate(events, 1)]

    messages = heard("text", said("text", records))

    assert [is_last("text", message.data) for message in messages].count(True) == 1
    assert "".join(message.data for message in messages[:-1]) == "".join(words) + "more"
