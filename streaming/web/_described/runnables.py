"""``/runnables``: what was registered, in LangServe's dialect."""

from typing import Any

from msgspec import Struct

from streaming.openapi import Answer, Body, Operation, Parameter
from streaming.web import _langserve_orders as orders
from streaming.web._described import _parts as parts


class Runnable(Struct):
    name: str
    kind: str
    """What it is made with."""
    modes: list[str]
    """What its runs may be asked to tell; empty for tokens only."""
    links: dict[str, str]


class Runnables(Struct):
    runnables: list[Runnable]


class Output(Struct):
    output: Any
    callback_events: list[Any]
    metadata: dict[str, Any]
    """`run_id` is the id of the stream."""


class Outputs(Struct):
    output: list[Any]
    callback_events: list[Any]
    metadata: dict[str, Any]


NAME = Parameter(
    "name", "path", "What it was registered as.", {"type": "string", "examples": ["explain", "agent"]}
)
STREAM_EXAMPLE = """\
event: metadata
data: {"run_id":"st_…"}

event: data
data: "Hello"

event: end
data:

"""
ASKED = {"A chain's input": {"input": {"topic": "event logs"}}}
ERRORS = (400, 404, 409, 413, 415, 422, 499, 501, 502, 504)
HEADERS = parts.RUN_HEADERS
OPERATIONS = (
    Operation(
        "GET",
        "/runnables",
        "listRunnables",
        "Runnables",
        "List what was registered",
        answers={200: Answer("All of them.", {"application/json": Runnables})},
        access="read",
    ),
    Operation(
        "GET",
        "/runnables/{name}",
        "getRunnable",
        "Runnables",
        "Show one of them",
        parameters=(NAME,),
        answers={200: Answer("It.", {"application/json": Runnable})},
        errors=(404,),
        access="read",
    ),
    Operation(
        "POST",
        "/runnables/{name}/invoke",
        "invokeRunnable",
        "Runnables",
        "Run it, and answer with its output",
        "",
        (NAME, parts.IDEMPOTENCY_KEY),
        Body(orders.Invoke, ASKED),
        {200: Answer("Its output.", {"application/json": Output}, HEADERS)},
        ERRORS,
    ),
    Operation(
        "POST",
        "/runnables/{name}/batch",
        "batchRunnable",
        "Runnables",
        "Run it for several inputs",
        "If one fails, the others are cancelled, and its error is the answer.",
        (NAME,),
        Body(orders.Batch, {"Two inputs": {"inputs": [{"topic": "logs"}, {"topic": "cursors"}]}}),
        {200: Answer("Their outputs, in order.", {"application/json": Outputs})},
        ERRORS,
    ),
    Operation(
        "POST",
        "/runnables/{name}/stream",
        "streamRunnable",
        "Runnables",
        "Run it, and stream the chunks of its output",
        "",
        (NAME, parts.IDEMPOTENCY_KEY),
        Body(orders.Invoke, ASKED),
        {200: Answer("The chunks.", {"text/event-stream": parts.events(None, STREAM_EXAMPLE)}, HEADERS)},
        ERRORS,
    ),
    Operation(
        "POST",
        "/runnables/{name}/stream_events",
        "streamRunnableEvents",
        "Runnables",
        "Run it, and stream LangChain's StreamEvents",
        "",
        (NAME, parts.IDEMPOTENCY_KEY),
        Body(
            orders.Events,
            {"Of its models only": {**ASKED["A chain's input"], "include_types": ["chat_model"]}},
        ),
        {200: Answer("The events.", {"text/event-stream": parts.events()}, HEADERS)},
        ERRORS,
    ),
    Operation(
        "GET",
        "/runnables/{name}/{which}_schema",
        "getRunnableSchema",
        "Runnables",
        "The JSON schema of what goes in or out, or of a run's configuration",
        parameters=(NAME, Parameter("which", "path", "Which one.", {"enum": ["input", "output", "config"]})),
        answers={200: Answer("A JSON schema.", {"application/json": parts.OBJECT})},
        errors=(404,),
        access="read",
    ),
)
NAMES = {
    orders.Invoke: "RunnableInput",
    orders.Batch: "RunnableInputs",
    orders.Events: "RunnableEventsInput",
    Output: "RunnableOutput",
    Outputs: "RunnableOutputs",
}
