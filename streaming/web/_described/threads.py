"""``/threads``: conversations."""

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from streaming.openapi import Answer, Body, Operation, Parameter
from streaming.web._described import _parts as parts
from streaming.web.threads import MAX_LISTED, Change, Make


class Thread(Struct):
    id: str
    title: str
    created: float
    """Seconds since 1970, as `updated` is."""
    updated: float
    mine: bool
    """The caller may change it."""


class Threads(Struct):
    threads: list[Thread]
    """The last updated first."""
    more: bool
    """There are older ones: ask `after` the last of these."""


class Turn(Struct):
    stream_id: str
    """Of the run that answers it, and the turn's own id."""
    parent: str
    """The turn before; empty for a first one."""
    versions: list[str]
    """The turns that stand in its place, itself among them."""
    source: str
    model: str
    created: float
    prompt: str
    messages: list[dict[str, Any]]
    instructions: str
    answer: dict[str, Any] | None
    """`state`, `text`, `reasoning`, `events` and how it ended; null while the run goes on."""
    input: Any | UnsetType = UNSET
    """What a runnable was given instead of messages."""


class WholeThread(Thread):
    """A conversation and the turns on its newest path, or on the one to `turn`."""

    turns: list[Turn]


THREAD_ID = Parameter(
    "thread_id",
    "path",
    "The thread's id.",
    {"type": "string", "examples": ["th_example"]},
)
OPERATIONS = (
    Operation(
        "GET",
        "/threads",
        "listThreads",
        "Threads",
        "List conversations",
        "Those of this caller; of a caller without an identity none.",
        (
            Parameter(
                "limit",
                "query",
                "How many at most.",
                {"type": "integer", "minimum": 1, "maximum": MAX_LISTED, "default": 50},
            ),
            Parameter("after", "query", "The id of the last one you have.", parts.TEXT),
        ),
        None,
        {200: Answer("A page of them.", {"application/json": Threads})},
        (400, 404),
        "read",
    ),
    Operation(
        "POST",
        "/threads",
        "createThread",
        "Threads",
        "Make a conversation",
        "One that is there already is returned as it is. A run that names a thread makes it too.",
        (),
        Body(
            Make, {"With a title": {"title": "A trip to Lisbon"}, "With an id of yours": {"id": "th_example"}}
        ),
        {201: Answer("The conversation.", {"application/json": Thread}, {"Location": "Where it is."})},
        (400, 413, 415),
    ),
    Operation(
        "GET",
        "/threads/{thread_id}",
        "getThread",
        "Threads",
        "Show a conversation",
        "",
        (
            THREAD_ID,
            Parameter("turn", "query", "Show the path to this turn instead of the newest.", parts.TEXT),
        ),
        None,
        {200: Answer("It, and its turns.", {"application/json": WholeThread})},
        (404,),
        "read",
    ),
    Operation(
        "PATCH",
        "/threads/{thread_id}",
        "renameThread",
        "Threads",
        "Rename a conversation",
        "",
        (THREAD_ID,),
        Body(Change, {"A new title": {"title": "Lisbon in May"}}),
        {200: Answer("The conversation.", {"application/json": Thread})},
        (400, 404, 413, 415),
    ),
    Operation(
        "DELETE",
        "/threads/{thread_id}",
        "deleteThread",
        "Threads",
        "Delete a conversation, and stop and erase its runs",
        "Deleting what is not there is no error.",
        (THREAD_ID,),
        None,
        {204: Answer("It is gone.")},
    ),
)
NAMES = {Make: "NewThread", Change: "ThreadTitle"}
