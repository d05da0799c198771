"""Read a request to OpenAI's chat completions."""

import hashlib
from collections.abc import Container
from typing import Annotated, Any, NamedTuple

import msgspec
from flask import Request
from msgspec import Meta, Struct

from streaming.errors import InvalidRequest
from streaming.formats import Wants
from streaming.settings import Settings
from streaming.sources import Prompt
from streaming.streams import Order
from streaming.web import _bodies, _errors, _principals, _v1

ROUTE = "POST /v1/chat/completions"
OURS = frozenset({"model", "messages", "stream"})
"""What is not passed on as it is."""


class StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None


class Asked(Struct, frozen=True):
    """What is acted on here, then the types of what is often asked.

    Which values of those make sense is the upstream's to judge, and so is everything else.
    """

    messages: Annotated[list[_bodies.Message], Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    n: float | None = None
    max_tokens: float | None = None
    max_completion_tokens: float | None = None
    seed: float | None = None
    top_logprobs: float | None = None
    logprobs: bool | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    logit_bias: dict[str, Any] | None = None


class ChatOrder(NamedTuple):
    order: Order
    streamed: bool
    wants: Wants


def read(request: Request, settings: Settings, runnables: Container[str] = ()) -> ChatOrder:
    """Read ``POST /v1/chat/completions``; ``model`` may be one of ``runnables``. Raises `InvalidRequest`."""
    _bodies.check_origin(request)
    body = _v1.check_fields(_bodies.read_json(request, settings))
    if "messages" not in body:
        raise InvalidRequest("messages: they are missing", code="required", param="messages")
    try:
        asked = msgspec.convert(body, Asked)
    except msgspec.ValidationError as error:
        _bodies.refuse(error)
    if asked.stream_options is not None and not asked.stream:
        raise InvalidRequest("stream_options: only with stream", code="wrong_value", param="stream_options")
    _bodies.check_shape(asked.messages)
    _bodies.check_size(asked.messages, "messages", settings)
    is_runnable = asked.model is not None and asked.model in runnables
    model = asked.model if is_runnable and asked.model else _bodies.model_of(asked.model, settings)
    source = model if is_runnable else "chat"
    key = request.headers.get("Idempotency-Key")
    if key is not None:
        _bodies.check_key(key, "Idempotency-Key")
    about = {"prompt": _bodies.last_user_text(asked.messages), "model": model, "source": source}
    params = {name: value for name, value in body.items() if name not in OURS}
    order = Order(
        source=source,
        prompt=Prompt(model, asked.messages, params),
        asked=about,
        # Who names a request may ask again, and finds the run still going.
        on_disconnect="grace" if key else "cancel",
        key=f"{ROUTE} {key}" if key else None,
        fingerprint=hashlib.sha256(msgspec.json.encode(body, order="deterministic")).hexdigest(),
        request_id=_errors.request_id(),
        owner=_principals.asking(),
    )
    usage = asked.stream_options is not None and asked.stream_options.include_usage is True
    return ChatOrder(order, asked.stream is True, Wants(usage=usage, request=about))
