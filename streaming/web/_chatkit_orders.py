"""Read what ChatKit's clients ask for, before its library does, within limits; refusals name the field."""

import re
from typing import Annotated, Any, Literal

import msgspec
from flask import Request
from msgspec import Meta, Struct

from streaming import plugins
from streaming.errors import InvalidRequest
from streaming.settings import Settings
from streaming.streams import Streams
from streaming.web import _bodies, _query
from streaming.web._runnable_orders import text_chars

MAX_TITLE_CHARS = 200
MAX_ID_CHARS = 128
BEGINS_ANSWER = frozenset(
    {
        "threads.create",
        "threads.add_user_message",
        "threads.add_client_tool_output",
        "threads.add_structured_input",
        "threads.retry_after_item",
    }
)


class Page(Struct, frozen=True):
    """What the page that shows ChatKit says in the address it gives it."""

    source: str
    on_disconnect: Literal["cancel", "grace", "continue"]


HOSTED_PATTERN = "[!-~]{1,128}"
"""Visible ASCII."""
Name = Annotated[str, Meta(extra_json_schema={"pattern": f"^{HOSTED_PATTERN}$"})]


class Hosted(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /chatkit/session`` and ``/chatkit/refresh``; all of it may be left out."""

    user: Name | None = None
    """Whose the session is; left out: the visitor's."""
    thread_id: Name | None = None
    """Said again in the answer."""
    client_secret: str | None = None
    """The one that expires. Not needed; pages that have it at hand may send it."""
    currentClientSecret: str | None = None
    """The same, by the name it has in the vendor's examples."""


def read_page(request: Request, settings: Settings, streams: Streams) -> Page:
    """Read the query. Raises `InvalidRequest`."""
    for name in request.args:
        if name not in ("source", "on_disconnect"):
            raise _bodies.unknown_field(name)
    source = _query.one(request, "source")
    source = settings.chatkit_source if source is None else source
    check_source(source, streams)
    asked = _query.one(request, "on_disconnect")
    asked = settings.chatkit_on_disconnect if asked is None else asked
    try:
        return msgspec.convert({"source": source, "on_disconnect": asked}, Page)
    except msgspec.ValidationError as error:
        _bodies.refuse(error)


def check_source(source: str, streams: Streams) -> None:
    known = [*plugins.names("sources"), *streams.registered]
    if source not in known:
        raise InvalidRequest(
            f"no source is called {source[:100]!r}; known: {', '.join(known)}",
            code="unknown_source",
            param="source",
        )


def read_message(request: Request, settings: Settings) -> dict[str, Any]:
    """Return the request of the protocol. The library checks its shape; this, how large it is."""
    _bodies.check_origin(request)
    body = _bodies.read_json(request, settings)
    if not isinstance(body, dict) or not isinstance(body.get("type"), str):
        raise InvalidRequest("type: it is missing", code="required", param="type")
    params = body.get("params")
    if not isinstance(params, dict):
        raise InvalidRequest("params: an object", code="wrong_type", param="params")
    for name in ("thread_id", "item_id", "after"):
        given = params.get(name)
        if isinstance(given, str) and len(given) > MAX_ID_CHARS:
            raise _wrong(f"params.{name}", f"at most {MAX_ID_CHARS} characters")
    if body["type"] == "threads.update" and isinstance(title := params.get("title"), str):
        params["title"] = _title(title)
    if body["type"] in BEGINS_ANSWER:
        _check_question(params, settings)
    if body["type"] == "threads.custom_action":
        # No item of ours is a widget, which the library tells without a word; an action is refused with one.
        params.pop("item_id", None)
    return body


def read_hosted(request: Request, settings: Settings) -> Hosted:
    """Read the body of a request for a hosted session. Raises `InvalidRequest`."""
    _bodies.check_origin(request)
    is_empty = not request.content_length and "Transfer-Encoding" not in request.headers
    asked = {} if is_empty else _bodies.read_json(request, settings)
    try:
        hosted = msgspec.convert(asked, Hosted)
    except msgspec.ValidationError as error:
        _bodies.refuse(error)
    for name, given in (("user", hosted.user), ("thread_id", hosted.thread_id)):
        if given is not None and not re.fullmatch(HOSTED_PATTERN, given):
            raise _wrong(name, "1 to 128 visible ASCII characters")
    return hosted


def _check_question(params: dict[str, Any], settings: Settings) -> None:
    chars = text_chars(params)
    if chars > settings.max_prompt_chars:
        raise InvalidRequest(
            f"params: {chars} characters, at most {settings.max_prompt_chars}",
            code="too_long",
            param="params",
            status=413,
        )
    asked = params.get("input")
    if not isinstance(asked, dict) or "content" not in asked:
        return
    if asked.get("attachments"):
        raise InvalidRequest(
            "files cannot be attached here: this service keeps none",
            code="no_attachments",
            param="params.input.attachments",
        )
    parts = asked["content"] if isinstance(asked["content"], list) else []
    said = "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
    if not said.strip():
        raise InvalidRequest(
            "params.input.content: it is empty", code="required", param="params.input.content"
        )
    options = asked.get("inference_options")
    model = options.get("model") if isinstance(options, dict) else None
    if isinstance(model, str):
        _bodies.model_of(model, settings)


def _title(title: str) -> str:
    title = " ".join(title.split())
    if not 0 < len(title) <= MAX_TITLE_CHARS:
        raise _wrong("params.title", f"1 to {MAX_TITLE_CHARS} characters")
    return title


def _wrong(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: {why}", code="wrong_value", param=param)
