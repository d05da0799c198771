"""How this service refuses: its error objects, and which types come with which status."""

from collections.abc import Mapping
from http import HTTPStatus

from msgspec import Struct

from streaming import errors
from streaming.errors import ErrorInfo
from streaming.openapi import JSON, Access, Dialect

NAMES = {
    400: "BadRequest",
    401: "NotAuthenticated",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "TooSlow",
    409: "Conflict",
    410: "Gone",
    413: "TooLarge",
    414: "AddressTooLong",
    415: "UnsupportedMediaType",
    422: "NotTheSame",
    426: "UpgradeRequired",
    429: "TooMany",
    431: "HeadersTooLarge",
    499: "Cancelled",
    501: "NotConfigured",
    502: "UpstreamFailed",
    503: "Unavailable",
    504: "UpstreamTimedOut",
}
ABOUT = {
    400: "The request cannot be used; `param` names the field at fault.",
    401: "A key is needed, or the one that was sent is not valid.",
    403: "This caller may not, or another site's page sent the request.",
    404: "There is no such thing here, or it is somebody else's.",
    405: "This address does not answer to that method; `Allow` says to which.",
    408: "The request came too slowly, or not at all.",
    409: "It cannot be done now, because of something that goes on.",
    410: "It was here, and cannot be read from there any more.",
    413: "The body, or a text in it, is too long.",
    414: "The address is longer than 4 KiB.",
    415: "The body is not of the type that is read here.",
    422: "The key was used before for another body, or a check of the runnable refused.",
    426: "This address speaks WebSocket only.",
    429: "A limit was reached, here or at the model's server.",
    431: "A header is longer than 8 KiB, or there are more than 100.",
    499: "Somebody cancelled the run while this request waited for its answer.",
    501: "A setting is missing for that; the message names it.",
    502: "The model's server, or a registered runnable, failed.",
    503: "Not now: too many runs, a store that cannot be written, or a worker that stops.",
    504: "The model's server was silent for too long.",
}
BEFORE_ANY_VIEW = frozenset({408, 414, 431})
"""Told by the server itself: alike in all dialects, and with the request's id in the body only."""
BY_ACCESS: Mapping[Access, tuple[int, ...]] = {
    "public": (),
    "read": (401, 403, 429, 503),
    "run": (401, 403, 429, 503),
    "metrics": (401, 403),
    "admin": (401, 403, 429, 503),
}
"""What any address may answer, by who may ask it."""


class Refusal(Struct, frozen=True):
    """What every refusal holds."""

    error: ErrorInfo


class CursorRefusal(Struct, frozen=True):
    """A refusal to go on from a cursor."""

    error: ErrorInfo
    last_id: str | None = None
    """With `cursor_lost`: the last event that the log holds."""


class OpenAIError(Struct, frozen=True):
    """The error object of OpenAI's API."""

    message: str
    type: str
    param: str | None
    code: str | None
    retryable: bool
    """Asking again may help. Not in OpenAI's API, as `request_id` is not."""
    request_id: str | None


class OpenAIRefusal(Struct, frozen=True):
    """What a refusal below `/v1` holds."""

    error: OpenAIError


SHAPES = (Refusal, CursorRefusal, OpenAIRefusal)


def name_of(status: int, dialect: Dialect) -> str:
    return NAMES[status] + ("OpenAI" if dialect == "openai" else "")


def responses() -> JSON:
    """Return what may be referred to, by its name."""
    dialects: tuple[Dialect, ...] = ("sluice", "openai")
    return {name_of(status, dialect): _response(status, dialect) for status in NAMES for dialect in dialects}


def _response(status: int, dialect: Dialect) -> JSON:
    before_any_view = status in BEFORE_ANY_VIEW
    shape = (
        "OpenAIRefusal"
        if dialect == "openai" and not before_any_view
        else "CursorRefusal"
        if status == 410
        else "Refusal"
    )
    types = types_of(status)
    about = ABOUT[status] + (f" Types: {', '.join(f'`{name}`' for name in types)}." if types else "")
    headers: JSON = {} if before_any_view else {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    if status in (429, 503):
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    if status == 401:
        headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
    if status == 405:
        headers["Allow"] = {"schema": {"type": "string"}}
    schema = {"$ref": f"#/components/schemas/{shape}"}
    return {
        "description": about,
        "headers": headers,
        "content": {"application/json": {"schema": schema}},
    }


def types_of(status: int) -> list[str]:
    """Return the types of error that come with a status.

    >>> types_of(410)
    ['cursor_lost', 'stream_expired', 'stream_lost']
    """
    kinds = errors.kinds()
    hidden = {"settings", "fenced", "internal_error"}
    return sorted({kind.type for kind in kinds if kind.status == status} - hidden)


def phrase_of(status: int) -> str:
    """Return the words for a status, for people.

    >>> phrase_of(499)
    'Client Closed Request'
    """
    return "Client Closed Request" if status == 499 else HTTPStatus(status).phrase
