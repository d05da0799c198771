"""``GET /stream``: ask and listen in one request."""

from msgspec import UNSET, Struct, UnsetType

from streaming.errors import ErrorInfo
from streaming.openapi import Answer, Operation, Parameter
from streaming.web._described import _parts as parts


class SimpleEvent(Struct, frozen=True):
    """A piece of the answer; the last one is done, with a reason or with what went wrong."""

    done: bool
    content: str | UnsetType = UNSET
    finish_reason: str | UnsetType = UNSET
    error: ErrorInfo | UnsetType = UNSET


EXAMPLE = """\
id: 1.3
data: {"content":"Hello","done":false}

id: 1.42
data: {"done":true,"finish_reason":"stop"}

"""


def _asked(name: str, about: str, required: bool = False) -> Parameter:
    return Parameter(name, "query", about, parts.TEXT, required)


OPERATIONS = (
    Operation(
        "GET",
        "/stream",
        "ask",
        "Streams",
        "Ask, and listen in the same request",
        "For curl, and for pages of six lines. With `message_id` an `EventSource` that reconnects joins its "
        "run; without one it is answered 204, and never starts a second run. Runnables can be asked by "
        "`source`, with a prompt.",
        (
            _asked("prompt", "The question.", required=True),
            _asked("model", "One the upstream knows."),
            _asked("source", "`chat`, `responses`, or the name of a runnable."),
            _asked("instructions", "System instructions."),
            _asked("thread", "The conversation it belongs to."),
            _asked("follows", "The turn it comes after."),
            _asked("replaces", "The turn in whose place it stands."),
            Parameter("message_id", "query", "As `Idempotency-Key` elsewhere.", parts.KEY),
            Parameter("on_disconnect", "query", "What becomes of the run without a reader.", parts.LEAVING),
            parts.format_of("simple"),
            parts.LAST_EVENT_ID,
            parts.AFTER,
            *parts.READING,
            Parameter("wait", "query", "Not used here.", parts.TEXT),
        ),
        None,
        {
            200: Answer(
                "The answer, as it is written. `format` chooses what its events look like.",
                {
                    "text/event-stream": parts.events(SimpleEvent, EXAMPLE),
                    "application/x-ndjson": parts.TEXT,
                    "application/json": parts.ANY,
                },
                {"Stream-Id": "The run's id.", "Content-Location": "Where it can be followed."},
            ),
            204: Answer("A reconnect to a run that has ended, or that has no `message_id`."),
        },
        (400, 404, 409, 410, 413, 422),
    ),
)
