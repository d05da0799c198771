"""``/streams``: create a run, follow it, look at it, cancel it, erase it."""

from typing import Any

from msgspec import Struct

from streaming import events
from streaming.answers import Snapshot
from streaming.errors import ErrorInfo
from streaming.eventlogs import State
from streaming.openapi import Answer, Body, Operation, Parameter
from streaming.streams import Receipt
from streaming.web._described import _parts as parts
from streaming.web._orders import Create, Params


class Links(Struct):
    self: str
    events: str
    """Follow it as an event stream."""
    cancel: str


class Created(Struct):
    stream_id: str
    state: State
    links: Links


CREATE_EXAMPLES: dict[str, Any] = {
    "A question": {"prompt": "How do I resume a stream?"},
    "A conversation with an image": {
        "messages": [
            {"role": "system", "content": "Answer in one sentence."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
                ],
            },
        ],
        "params": {"temperature": 0.2, "max_tokens": 200},
    },
    "A question in a thread": {"thread": "th_example", "prompt": "And what then?"},
    "An agent with tools": {"source": "agent", "prompt": "What is the weather in Lisbon?"},
}
FOLLOWED = Answer(
    "The events after the cursor, or without an event stream asked for, a snapshot.",
    {
        "text/event-stream": parts.events(events.Event, parts.NATIVE_EXAMPLE),
        "application/json": parts.or_whole("Snapshot"),
        "application/x-ndjson": parts.TEXT,
    },
    {"Stream-Id": "The run's id."},
)
OPERATIONS = (
    Operation(
        "POST",
        "/streams",
        "createStream",
        "Streams",
        "Create a run",
        "Answers at once with the run's id; the run goes on by itself. With `Accept: text/event-stream` "
        "or `?format=` the answer is the stream. A runnable takes `input`, `mode` and `config`.",
        (parts.IDEMPOTENCY_KEY, parts.format_of("native"), *parts.READING),
        Body(Create, CREATE_EXAMPLES),
        {
            201: Answer(
                "The run was created.",
                {"application/json": Created},
                {"Location": "Where it is.", **parts.RUN_HEADERS},
            ),
            200: Answer(
                "The key named a run that was there; or the stream itself, where one was asked for.",
                {
                    "application/json": parts.or_whole("CreatedStream"),
                    "text/event-stream": parts.events(events.Event, parts.NATIVE_EXAMPLE),
                    "application/x-ndjson": parts.TEXT,
                },
                parts.RUN_HEADERS,
            ),
        },
        (400, 404, 409, 410, 413, 415, 422),
    ),
    Operation(
        "GET",
        "/streams/{stream_id}",
        "getStream",
        "Streams",
        "Follow a run, or look at it",
        "With `Accept: text/event-stream` or `?format=` it follows; else it is a snapshot, and with `wait` a "
        "long poll. A cursor at the end of an ended stream answers 204, which stops an `EventSource`.",
        (
            parts.STREAM_ID,
            parts.LAST_EVENT_ID,
            parts.AFTER,
            parts.format_of("native"),
            *parts.READING,
            Parameter(
                "wait",
                "query",
                "Of a snapshot: so many seconds at most for something new.",
                {**parts.SECONDS, "default": 0},
            ),
            Parameter("events", "query", "Of a snapshot: 1 for its events too.", parts.FLAG),
        ),
        None,
        {200: FOLLOWED, 204: Answer("There is nothing after that cursor, and nothing will come.")},
        (400, 404, 410),
        "read",
    ),
    Operation(
        "POST",
        "/streams/{stream_id}/cancel",
        "cancelStream",
        "Streams",
        "Stop a run",
        "Waits until it has stopped. Stopping what has ended changes nothing.",
        (parts.STREAM_ID,),
        None,
        {
            200: Answer("It has ended; `state` says how.", {"application/json": Receipt}),
            202: Answer("It is being stopped by another worker.", {"application/json": Receipt}),
        },
        (404, 410),
    ),
    Operation(
        "DELETE",
        "/streams/{stream_id}",
        "eraseStream",
        "Streams",
        "Stop a run and forget its text",
        "",
        (parts.STREAM_ID,),
        None,
        {204: Answer("It is gone.")},
        (404, 410),
    ),
)
NAMES = {
    Create: "NewStream",
    Params: "Params",
    Created: "CreatedStream",
    Links: "StreamLinks",
    Snapshot: "Snapshot",
    Receipt: "CancelReceipt",
    ErrorInfo: "Error",
    events.Event: "Event",
    **{
        kind: kind.__name__ if kind.__name__.endswith("Event") else f"{kind.__name__}Event"
        for kind in events.Event.__args__
    },
}
