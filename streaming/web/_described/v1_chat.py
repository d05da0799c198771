"""``POST /v1/chat/completions``."""

from typing import Any, Literal

from msgspec import Struct

from streaming.openapi import Answer, Body, Operation
from streaming.web._described import _parts as parts
from streaming.web._v1_chat_orders import Asked, StreamOptions


class Completion(Struct):
    """A chat completion, as OpenAI's API has it; the upstream may add fields."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any] | None = None


class Chunk(Struct):
    """A piece of a chat completion, as OpenAI's API has it."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any] | None = None


MESSAGES = [{"role": "user", "content": "How do I resume a stream?"}]
EXAMPLE = """\
data: {"id":"chatcmpl-…","object":"chat.completion.chunk","choices":[{"delta":{"content":"Hello"}}],…}

data: [DONE]

"""
ERRORS = (400, 404, 413, 415, 422, 499, 501, 502, 504)
OPERATIONS = (
    Operation(
        "POST",
        "/v1/chat/completions",
        "createChatCompletion",
        "OpenAI",
        "Answer a chat, streamed or whole",
        "Fields that are not listed are passed on to the upstream as they are. `model` may be the name of a "
        "runnable. A run that fails before its first word is answered with a status.",
        (parts.IDEMPOTENCY_KEY,),
        Body(
            Asked,
            {
                "Streamed": {"stream": True, "messages": MESSAGES},
                "Whole": {"messages": MESSAGES, "temperature": 0.2},
                "With the usage": {
                    "stream": True,
                    "stream_options": {"include_usage": True},
                    "messages": MESSAGES,
                },
            },
        ),
        {
            200: Answer(
                "The completion; with `stream` its chunks, ended by `[DONE]` or by an error.",
                {"application/json": Completion, "text/event-stream": parts.events(Chunk, EXAMPLE)},
                {**parts.RUN_HEADERS, "Stream-Fallback": "The model that was asked instead."},
            )
        },
        ERRORS,
        dialect="openai",
    ),
)
NAMES = {
    Asked: "ChatCompletionRequest",
    StreamOptions: "StreamOptions",
    Completion: "ChatCompletion",
    Chunk: "ChatCompletionChunk",
}
