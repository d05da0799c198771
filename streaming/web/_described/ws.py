"""``/ws``: runs over a WebSocket."""

from streaming.openapi import Answer, Operation
from streaming.web._described import _parts as parts

OPERATIONS = (
    Operation(
        "GET",
        "/ws",
        "connect",
        "Streams",
        "Start, follow, pause, resume and stop runs over a WebSocket",
        "OpenAPI has no words for what is said on it: JSON commands and frames, in `docs/websocket.md`.",
        (*parts.BUFFERING, parts.METRICS),
        None,
        {101: Answer("WebSocket from here on.", {}, {"Upgrade": "`websocket`"})},
        (400, 426, 501),
    ),
)
