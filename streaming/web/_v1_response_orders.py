"""Read a request to OpenAI's Responses."""

import hashlib
from collections.abc import Callable, Container
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from flask import Request
from msgspec import Meta, Struct

from streaming.errors import InvalidRequest
from streaming.formats.openai_responses import ECHOED
from streaming.settings import Settings
from streaming.sources import Prompt
from streaming.sources._response_as_chat import chat_of
from streaming.streams import Order
from streaming.web import _bodies, _errors, _principals, _v1
from streaming.web import _v1_response_items as items

JSON = dict[str, Any]

ROUTE = "POST /v1/responses"
OURS = frozenset(
    "model input stream stream_options store background previous_response_id conversation".split()
)
"""What is not passed on as it is."""


class Asked(Struct, frozen=True):
    """What is acted on, or said again in the response; everything else is the upstream's to understand."""

    input: str | list[JSON] | None = None
    model: str | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None

    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_tool_calls: Annotated[int, Meta(ge=1)] | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None
    parallel_tool_calls: bool | None = None
    prompt: JSON | None = None
    prompt_cache_key: str | None = None
    reasoning: JSON | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    text: JSON | None = None
    tool_choice: str | JSON | None = None
    tools: list[JSON] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None


class ResponseOrder(NamedTuple):
    order: Order
    streamed: bool
    background: bool


def read(
    request: Request,
    settings: Settings,
    earlier_turns: Callable[[str], list[JSON]],
    runnables: Container[str] = (),
) -> ResponseOrder:
    """Read ``POST /v1/responses``; ``earlier_turns`` finds those of a response.

    ``model`` may be one of ``runnables``, which is told everything as messages.
    Raises `InvalidRequest`.
    """
    _bodies.check_origin(request)
    body = _v1.check_fields(_bodies.read_json(request, settings))
    try:
        asked = msgspec.convert(body, Asked)
    except msgspec.ValidationError as error:
        _bodies.refuse(error)
    _check_keeping(asked)
    is_runnable = asked.model is not None and asked.model in runnables
    model = asked.model if is_runnable and asked.model else _bodies.model_of(asked.model, settings)
    key = request.headers.get("Idempotency-Key")
    if key is not None:
        _bodies.check_key(key, "Idempotency-Key")
    new = _input(asked)
    items.check(new)
    earlier = earlier_turns(asked.previous_response_id) if asked.previous_response_id is not None else []
    told = [*items.said_again(earlier), *new]
    kept = [*earlier, *map(items.kept, new)]
    items.check_size(kept, asked.instructions or "", settings)
    said = {**_passed_on(body), "input": told}
    source = model if is_runnable else "responses"
    order = Order(
        source=source,
        prompt=Prompt(model, *chat_of(said)) if is_runnable else Prompt(model, [], response=said),
        asked={
            "prompt": items.last_user_text(new),
            "model": model,
            "source": source,
            "response": {name: body[name] for name in ECHOED & body.keys()},
            "input": kept,
        },
        # Who names a request may ask again, and finds the run still going.
        on_disconnect="continue" if asked.background else "grace" if key else "cancel",
        key=f"{ROUTE} {key}" if key else None,
        fingerprint=hashlib.sha256(msgspec.json.encode(body, order="deterministic")).hexdigest(),
        request_id=_errors.request_id(),
        owner=_principals.asking(),
    )
    return ResponseOrder(order, asked.stream is True, asked.background is True)


def _check_keeping(asked: Asked) -> None:
    if asked.conversation is not None:
        # It would be read, and written, under this service's key at the upstream.
        raise InvalidRequest(
            "conversation: there are none here; use previous_response_id",
            code="unsupported_parameter",
            param="conversation",
        )
    if asked.background and asked.store is False:
        raise InvalidRequest(
            "background: only with store, or nobody could ask for the response later",
            code="wrong_value",
            param="background",
        )


def _input(asked: Asked) -> list[JSON]:
    """Return the new items; only a prompt that the upstream keeps says enough without any."""
    if asked.input is None and asked.prompt is not None:
        return []
    if asked.input is None or not (asked.input.strip() if isinstance(asked.input, str) else asked.input):
        missing = "it is missing" if asked.input is None else "it is empty"
        raise InvalidRequest(f"input: {missing}", code="required", param="input")
    if isinstance(asked.input, str):
        return [{"type": "message", "role": "user", "content": asked.input}]
    return asked.input


def _passed_on(body: JSON) -> JSON:
    return {name: value for name, value in body.items() if name not in OURS}
