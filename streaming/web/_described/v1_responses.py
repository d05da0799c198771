"""``/v1/responses``."""

from typing import Any, Literal

from msgspec import Struct

from streaming.openapi import JSON, Answer, Body, Operation, Parameter
from streaming.web import _v1_response_orders as orders
from streaming.web._described import _parts as parts
from streaming.web.v1_responses import LARGEST_NUMBER, MOST_LISTED


class Response(Struct):
    """A response, as OpenAI's API has it; the fields of its request are said again in it."""

    id: str
    object: Literal["response"]
    created_at: int | float
    status: str
    model: str
    output: list[dict[str, Any]]
    error: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None


class ResponseStreamEvent(Struct):
    """One event of a streamed response, as OpenAI's API has it."""

    type: str
    sequence_number: int


class InputItems(Struct):
    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(Struct):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


EXAMPLE = """\
event: response.output_text.delta
data: {"type":"response.output_text.delta","delta":"Hello","sequence_number":4,…}

event: response.completed
data: {"type":"response.completed","response":{…},"sequence_number":42}

"""
NUMBER: JSON = {"type": "integer", "minimum": 0, "maximum": LARGEST_NUMBER}
ID = Parameter("id", "path", "The response's id.", {"type": "string", "examples": ["resp_…"]})
WHOLE = {"application/json": Response, "text/event-stream": parts.events(ResponseStreamEvent, EXAMPLE)}
HEADERS = {name: about for name, about in parts.RUN_HEADERS.items() if name != "Idempotent-Replayed"}
OPERATIONS = (
    Operation(
        "POST",
        "/v1/responses",
        "createResponse",
        "OpenAI",
        "Answer in the dialect of Responses",
        "Streamed, whole, or in the background. Works with any upstream and any runnable. Responses are kept "
        "for as long as streams are; `previous_response_id` goes on from one.",
        (parts.IDEMPOTENCY_KEY,),
        Body(
            orders.Asked,
            {
                "Whole": {"input": "How do I resume a stream?"},
                "Streamed": {"input": "How do I resume a stream?", "stream": True},
                "In the background": {"input": "How do I resume a stream?", "background": True},
            },
        ),
        {200: Answer("The response; with `stream` its events.", WHOLE, parts.RUN_HEADERS)},
        (400, 404, 409, 413, 415, 422, 499, 501, 502, 504),
        dialect="openai",
    ),
    Operation(
        "GET",
        "/v1/responses/{id}",
        "getResponse",
        "OpenAI",
        "Show a response, or follow it",
        "Any run has a response: its id is the stream's, with `resp_` for `st_`.",
        (
            ID,
            Parameter(
                "stream", "query", "true: its events.", {"enum": ["true", "false"], "default": "false"}
            ),
            Parameter("starting_after", "query", "With `stream`: the last number you have.", NUMBER),
        ),
        None,
        {200: Answer("The response as it is now; with `stream` its events.", WHOLE, HEADERS)},
        (400, 404, 410),
        "read",
        "openai",
    ),
    Operation(
        "POST",
        "/v1/responses/{id}/cancel",
        "cancelResponse",
        "OpenAI",
        "Stop a response",
        "",
        (ID,),
        None,
        {200: Answer("The response as it is now.", {"application/json": Response}, HEADERS)},
        (404, 410),
        dialect="openai",
    ),
    Operation(
        "DELETE",
        "/v1/responses/{id}",
        "deleteResponse",
        "OpenAI",
        "Stop a response and forget it",
        "",
        (ID,),
        None,
        {200: Answer("It is gone.", {"application/json": Deleted}, HEADERS)},
        (404, 410),
        dialect="openai",
    ),
    Operation(
        "GET",
        "/v1/responses/{id}/input_items",
        "listInputItems",
        "OpenAI",
        "List what a response was made from",
        "",
        (
            ID,
            Parameter("order", "query", "By age.", {"enum": ["asc", "desc"], "default": "desc"}),
            Parameter(
                "limit",
                "query",
                "How many at most.",
                {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": 20},
            ),
            Parameter("after", "query", "The id of the last one you have.", parts.TEXT),
        ),
        None,
        {200: Answer("A page of them.", {"application/json": InputItems}, HEADERS)},
        (400, 404, 410),
        "read",
        "openai",
    ),
)
NAMES = {orders.Asked: "ResponseRequest", Deleted: "DeletedResponse"}
