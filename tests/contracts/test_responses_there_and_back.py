"""What the source reads of an upstream's Responses, the format of that dialect writes again."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from streaming.events import Record, Start, encode
from streaming.formats import Wants, openai_responses
from streaming.sources._response_events import ResponseReader
from tests.unit.test_response_events import STREAMS, created

# A response's own: whose it is, and what its client asked for.
OURS = ("id", "previous_response_id", "store", "background", "metadata")


def told(said: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what a client of the dialect hears of an upstream's events."""
    reader = ResponseReader()
    events = [Start("st_1", "responses", "m-1", 1_700_000_000)]
    events += [event for one in said for event in reader.read(json.dumps(one).encode())]
    wire_format = openai_responses.create(Wants())
    messages = [
        message
        for seq, event in enumerate(events, 1)
        for message in wire_format.encode(Record(1, seq, encode(event)))
    ]
    return [json.loads(message.data) for message in messages]


def without_ours(event: dict[str, Any]) -> str:
    event = {name: value for name, value in event.items() if name != "sequence_number"}
    if isinstance(event.get("response"), dict):
        event["response"] = {name: v for name, v in event["response"].items() if name not in OURS}
    return json.dumps(event, sort_keys=True)


@pytest.mark.parametrize("said", STREAMS.values(), ids=STREAMS)
def test_a_client_hears_what_the_upstream_said(said: list[dict[str, Any]]) -> None:
    if said[0]["type"] != "response.created":
        said = [created(), *said]

    heard = told(said)

    assert [event["sequence_number"] for event in heard] == list(range(len(said)))
    assert list(map(without_ours, heard)) == list(map(without_ours, said))
