"""Read what LangServe's clients send: ``{input, config, kwargs}``."""

import hashlib
from typing import Any

import msgspec
from flask import Request
from msgspec import Struct

from streaming.errors import InvalidRequest
from streaming.runnables import Registered
from streaming.settings import Settings
from streaming.sources import Prompt
from streaming.streams import Order
from streaming.web import _bodies, _errors, _principals
from streaming.web import _runnable_orders as orders

JSON = dict[str, Any]

MAX_INPUTS = 100
ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant", "HumanMessageChunk": "user"}
FILTERS = tuple(f"{how}_{what}" for how in ("include", "exclude") for what in ("names", "types", "tags"))


class Invoke(Struct):
    input: Any
    config: JSON | None = None
    kwargs: JSON = {}


class Batch(Struct):
    inputs: list[Any]
    config: JSON | list[JSON] | None = None
    kwargs: JSON = {}


class Events(Invoke):
    include_names: list[str] | None = None
    include_types: list[str] | None = None
    include_tags: list[str] | None = None
    exclude_names: list[str] | None = None
    exclude_types: list[str] | None = None
    exclude_tags: list[str] | None = None


def read_one(request: Request, settings: Settings, runnable: Registered, mode: str) -> Order:
    """Read the body of ``invoke``, ``stream`` or ``stream_events``, for a run in ``mode``.

    Raises `InvalidRequest`.
    """
    kind = Events if mode == "events" else Invoke
    asked = _read(request, settings, kind)
    if mode == "events" and mode not in runnable.modes:
        raise InvalidRequest(f"{runnable.name} tells no StreamEvents", code="unknown_mode", status=404)
    order = _order(settings, runnable, asked.input, asked.config or {}, mode)
    about = {name: getattr(asked, name) for name in FILTERS} if isinstance(asked, Events) else {}
    key = request.headers.get("Idempotency-Key")
    if key is not None:
        _bodies.check_key(key, "Idempotency-Key")
        key = f"POST {request.path} {key}"
    return msgspec.structs.replace(
        order,
        asked={**order.asked, "filters": about},
        key=key,
        fingerprint=hashlib.sha256(msgspec.json.encode(asked, order="deterministic")).hexdigest(),
    )


def read_batch(request: Request, settings: Settings, runnable: Registered) -> list[Order]:
    """Read the body of ``batch``. Raises `InvalidRequest`."""
    asked = _read(request, settings, Batch)
    if len(asked.inputs) > MAX_INPUTS:
        raise InvalidRequest(f"inputs: more than {MAX_INPUTS}", code="too_long", param="inputs", status=413)
    configs = asked.config if isinstance(asked.config, list) else [asked.config or {}] * len(asked.inputs)
    if len(configs) != len(asked.inputs):
        raise InvalidRequest("config: as many as there are inputs", code="wrong_value", param="config")
    return [
        _order(settings, runnable, given, config, "output")
        for given, config in zip(asked.inputs, configs, strict=True)
    ]


def _read(request: Request, settings: Settings, kind: type[Any]) -> Any:
    _bodies.check_origin(request)
    try:
        asked = msgspec.convert(_bodies.read_json(request, settings), kind)
    except msgspec.ValidationError as error:
        _bodies.refuse(error)
    # Of a caller's own client: they were meant for the HTTP request.
    if unknown := sorted(asked.kwargs.keys() - {"headers"}):
        raise InvalidRequest(
            "kwargs: there are none here", code="unknown_field", param=f"kwargs.{unknown[0][:100]}"
        )
    return asked


def _order(settings: Settings, runnable: Registered, given: Any, config: JSON, mode: str) -> Order:
    config, thread = _known(config, runnable)
    modes = (mode,) if mode in runnable.modes else ()
    given = given if runnable.modes else _as_chat(given)
    if given is None:
        raise InvalidRequest("input: it is null", code="required", param="input")
    orders.check_input(given, settings)
    return Order(
        source=runnable.name,
        prompt=Prompt(runnable.name, [], input=given, thread=thread, modes=modes, config=config),
        asked={
            "prompt": orders.shown(given),
            "model": runnable.name,
            "source": runnable.name,
            "modes": list(modes),
        },
        request_id=_errors.request_id(),
        owner=_principals.asking(),
    )


def _known(config: JSON, runnable: Registered) -> tuple[JSON, str]:
    """Return what counts of a client's own configuration, and the thread in it.

    A remote runnable sends all that is configured around it, for others too.
    """
    configurable = config.get("configurable")
    configurable = configurable if isinstance(configurable, dict) else {}
    known = {name: value for name, value in config.items() if name in orders.CONFIG and value is not None}
    known["configurable"] = {
        name: value for name, value in configurable.items() if name in (runnable.configurable or ())
    }
    thread = configurable.get("thread_id") or ""
    if thread:
        orders.check_thread(thread, "config.configurable.thread_id")
    if runnable.configurable is None:
        return {}, thread
    return orders.check_config(known, runnable), thread


def _as_chat(given: Any) -> Any:
    """Return the input of what speaks OpenAI's chat: a text, or messages by their ``role``."""
    if isinstance(given, dict) and "messages" not in given:
        texts = [value for value in given.values() if isinstance(value, str)]
        if len(given) == 1 and texts:  # as {"input": "…"} or {"question": "…"}
            return texts[0]
    said = given.get("messages") if isinstance(given, dict) else given
    if not isinstance(said, list):
        return given
    messages = [_as_message(each) for each in said]
    _bodies.check_shape(messages)
    return messages


def _as_message(said: Any) -> JSON:
    if not isinstance(said, dict):
        raise InvalidRequest("input: messages are objects", code="wrong_type", param="input")
    if "role" in said:
        return said
    kind = str(said.get("type"))
    message = {"role": ROLES.get(kind, kind), "content": said.get("content")}
    return message | ({"tool_call_id": said["tool_call_id"]} if "tool_call_id" in said else {})
