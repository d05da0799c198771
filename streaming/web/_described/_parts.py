"""What the descriptions of several addresses share."""

from streaming import plugins
from streaming.events import CURSOR_PATTERN
from streaming.openapi import JSON, Events, Parameter
from streaming.web import _bodies, _query, _responses

TEXT: JSON = {"type": "string"}
FLAG: JSON = {"enum": ["0", "1", "true", "false"], "default": "0"}
CURSOR: JSON = {"type": "string", "pattern": f"^({CURSOR_PATTERN})?$", "examples": ["1.42"]}
SECONDS: JSON = {"type": "number", "minimum": 0, "exclusiveMaximum": _query.MOST_SECONDS}
KEY: JSON = {"type": "string", "pattern": f"^{_bodies.KEY_PATTERN}$"}

STREAM_ID = Parameter(
    "stream_id", "path", "The id that creating the run gave.", {**TEXT, "examples": ["st_…"]}
)
LAST_EVENT_ID = Parameter(
    "Last-Event-ID", "header", "The id of the last event you have. It wins over `after`.", CURSOR
)
AFTER = Parameter("after", "query", "Only what comes after this event. Left out: from the start.", CURSOR)
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    "header",
    "A name of yours for this request. The same again joins the run instead of starting a second one.",
    KEY,
)


def format_of(default: str) -> Parameter:
    return Parameter(
        "format",
        "query",
        "How this reader hears the stream. Given at all, it asks for an event stream.",
        {"enum": plugins.names("formats"), "default": default},
    )


BUFFERING = (
    Parameter(
        "buffer_tokens",
        "query",
        "Join up to so many tokens into one message; `n` says how many events it stands for.",
        {"type": "integer", "minimum": 0, "maximum": _responses.MOST_BUFFERED_TOKENS, "default": 0},
    ),
    Parameter(
        "buffer_ms",
        "query",
        "The longest that a token waits for others, in milliseconds.",
        {"type": "integer", "minimum": 0, "maximum": _responses.MOST_BUFFERED_MS, "default": 0},
    ),
)
METRICS = Parameter("metrics", "query", "1: tokens and rates while the run goes on.", FLAG)
USAGE = Parameter("usage", "query", "1: in OpenAI's chat format, a last chunk with the usage.", FLAG)
READING = (*BUFFERING, METRICS, USAGE)
"""What a reader may wish, besides the format."""

NATIVE_EXAMPLE = """\
id: 1.1
data: {"type":"start","stream_id":"st_…","source":"chat","model":"demo","created":1767225600}

id: 1.3
data: {"type":"token","content":"Hello"}

id: 1.42
data: {"type":"done","finish_reason":"stop","done":true,"last_seq":42,"text_sha256":"…"}

"""
RUN_HEADERS = {
    "Stream-Id": "The run's id: it can be followed, looked at and cancelled under `/streams`.",
    "Content-Location": "Where that is.",
    "Idempotent-Replayed": "`true` when the key named a run that was there.",
}
LEAVING: JSON = {"enum": ["grace", "cancel", "continue"], "default": "grace"}
ANY: JSON = {}
OBJECT: JSON = {"type": "object"}
REFUSAL: JSON = {"$ref": "#/components/schemas/Refusal"}


def or_whole(name: str) -> JSON:
    """Return the schema called ``name``, or what a format says that is one whole JSON value."""
    whole = {"type": "object", "description": "With `format=openai_completion` or `langserve_output`."}
    return {"anyOf": [{"$ref": f"#/components/schemas/{name}"}, whole]}


def events(shape: object = None, example: str = "") -> Events:
    """Return an event stream whose data is of ``shape``; left out: of any."""
    return Events(ANY if shape is None else shape, example)
