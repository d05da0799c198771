"""``GET /streams``: several streams in one connection."""

from streaming import events
from streaming.openapi import Answer, Operation, Parameter
from streaming.web._described import _parts as parts

OPERATIONS = (
    Operation(
        "GET",
        "/streams",
        "followStreams",
        "Streams",
        "Follow several runs in one connection",
        "Each event is named by the id of its stream. It ends when all of them have. It does not resume: "
        "open another one at the cursors you have.",
        (
            Parameter(
                "follow",
                "query",
                "A stream's id, and after an @ the cursor to go on from; up to 64 of them.",
                {
                    "type": "string",
                    "pattern": f"^st_[A-Za-z0-9_-]{{1,100}}(@({events.CURSOR_PATTERN})?)?$",
                    "examples": ["st_…@1.42"],
                },
                required=True,
                repeated=True,
            ),
            parts.METRICS,
            Parameter(
                "Last-Event-ID",
                "header",
                "Sent by an `EventSource` that reconnects; it is answered 204, and stops.",
                parts.TEXT,
            ),
        ),
        None,
        {
            200: Answer(
                "The events of all, as they come. One that cannot be read is told by an error event.",
                {"text/event-stream": parts.events(events.Event)},
            ),
            204: Answer("`Last-Event-ID` was sent."),
        },
        (400,),
        "read",
    ),
)
