"""OpenAI's Responses, streamed: typed events with numbers, of any run.

A run of an upstream that speaks this dialect is told in that one's events, any
other in events made of its chunks. An answer that did not end normally ends in
``response.failed``, also a cancelled one, whose ``response.status`` says so:
this dialect has no event for that, and most clients take ``response.incomplete``
for a success.
"""

import re

from streaming.events import Record, json_line
from streaming.formats import Message, Wants, WireFormat
from streaming.formats._response_object import ECHOED as ECHOED
from streaming.formats._response_stream import ResponseStream as ResponseStream

_NAME = re.compile(r"[a-z0-9_.]+")


class ResponsesFormat:
    media_type = "text/event-stream"
    resumes = False
    from_start = True

    def __init__(self, wants: Wants) -> None:
        self._starting_after = wants.starting_after
        self._stream = ResponseStream(wants.request)

    def encode(self, record: Record) -> list[Message]:
        return [
            Message(json_line(event), event=_name(event.get("type")))
            for event in self._stream.take(record)
            if event["sequence_number"] > self._starting_after
        ]


def _name(kind: object) -> str:
    """Return an event's name; none for what an upstream made up to break a line."""
    return kind if isinstance(kind, str) and _NAME.fullmatch(kind) else ""


def create(wants: Wants) -> WireFormat:
    return ResponsesFormat(wants)
