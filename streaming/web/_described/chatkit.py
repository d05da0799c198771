"""``/chatkit``: OpenAI's chat component."""

from typing import Any

from msgspec import Struct

from streaming.openapi import Answer, Body, Operation, Parameter
from streaming.web._chatkit_orders import Hosted
from streaming.web._described import _parts as parts


class ChatKitRequest(Struct):
    """A request of ChatKit's protocol; its library knows the types and their params."""

    type: str
    params: dict[str, Any]


class ChatKitSession(Struct):
    client_secret: str
    expires_at: int
    session_id: str
    user: str
    thread_id: str | None = None


ASKED: dict[str, Any] = {
    "A new thread": {
        "type": "threads.create",
        "params": {
            "input": {
                "content": [{"type": "input_text", "text": "How do I resume a stream?"}],
                "attachments": [],
                "inference_options": {},
            }
        },
    },
    "The threads": {"type": "threads.list", "params": {"limit": 10, "order": "desc"}},
}
SESSION = Answer("What the component is given.", {"application/json": ChatKitSession})
SESSION_ERRORS = (400, 413, 415, 501, 502, 504)
OPERATIONS = (
    Operation(
        "POST",
        "/chatkit",
        "chatkit",
        "ChatKit",
        "One request of ChatKit's protocol",
        "What begins an answer is answered with an event stream, anything else with JSON.",
        (
            Parameter("source", "query", "What answers: `chat`, or the name of a runnable.", parts.TEXT),
            Parameter(
                "on_disconnect", "query", "What becomes of an answer when its page goes.", parts.LEAVING
            ),
        ),
        Body(ChatKitRequest, ASKED),
        {
            200: Answer(
                "ChatKit's events, or its answer.",
                {"text/event-stream": parts.events(parts.OBJECT), "application/json": parts.ANY},
            )
        },
        (400, 404, 409, 413, 415, 422, 501, 502, 504),
    ),
    Operation(
        "POST",
        "/chatkit/session",
        "createChatKitSession",
        "ChatKit",
        "Open a session of the hosted ChatKit at OpenAI",
        "",
        (),
        Body(Hosted, {"Anybody": {}}, required=False),
        {200: SESSION},
        SESSION_ERRORS,
    ),
    Operation(
        "POST",
        "/chatkit/refresh",
        "refreshChatKitSession",
        "ChatKit",
        "Open another one for the same user",
        "",
        (),
        Body(Hosted, {"The same": {}}, required=False),
        {200: SESSION},
        SESSION_ERRORS,
    ),
)
NAMES = {Hosted: "ChatKitSessionRequest"}
