"""Read what a client asks for. Every refusal names the field at fault."""

import hashlib
from typing import Annotated, Any, Literal

import msgspec
from flask import Request
from msgspec import UNSET, Meta, Struct, UnsetType

from streaming import plugins
from streaming.errors import InvalidRequest
from streaming.runnables import Registered
from streaming.settings import Settings
from streaming.sources import Prompt
from streaming.streams import Order, Streams
from streaming.web import _bodies, _errors, _principals, _query, _thread_orders
from streaming.web import _runnable_orders as orders

RANGES = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_logprobs": (0, 20),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}


def _told(**schema: Any) -> Meta:
    """Describe what is checked here, in words of our own, rather than by msgspec."""
    return Meta(extra_json_schema=schema)


def _ranged(name: str) -> Meta:
    low, high = RANGES[name]
    return _told(minimum=low, maximum=high)


Thread = Annotated[str, _told(pattern=f"^{orders.THREAD_PATTERN}$")]
AtLeastOne = Annotated[int, _told(minimum=1)]


class Params(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What may be passed on to the upstream, by its names."""

    temperature: Annotated[float, _ranged("temperature")] | UnsetType = UNSET
    top_p: Annotated[float, _ranged("top_p")] | UnsetType = UNSET
    max_tokens: AtLeastOne | UnsetType = UNSET
    max_completion_tokens: AtLeastOne | UnsetType = UNSET
    n: Literal[1] | UnsetType = UNSET
    stop: str | list[str] | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    presence_penalty: Annotated[float, _ranged("presence_penalty")] | UnsetType = UNSET
    frequency_penalty: Annotated[float, _ranged("frequency_penalty")] | UnsetType = UNSET
    logit_bias: dict[str, float] | UnsetType = UNSET
    logprobs: bool | UnsetType = UNSET
    top_logprobs: Annotated[int, _ranged("top_logprobs")] | UnsetType = UNSET
    tools: list[dict[str, Any]] | UnsetType = UNSET
    tool_choice: str | dict[str, Any] | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    response_format: dict[str, Any] | UnsetType = UNSET
    reasoning_effort: str | UnsetType = UNSET
    verbosity: str | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET
    metadata: dict[str, str] | UnsetType = UNSET
    user: str | UnsetType = UNSET


class Create(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /streams``: give one of ``prompt``, ``messages`` and, for a runnable, ``input``."""

    prompt: Annotated[str, _told(pattern=r"\S")] | None = None
    """The question."""
    messages: Annotated[list[_bodies.Message], _told(minItems=1)] | None = None
    """Messages in the shape of OpenAI's chat, images included."""
    source: str | None = None
    """``chat`` (the default), ``responses``, or a runnable's name."""
    model: str | None = None
    """One the upstream knows; left out: the service's default."""
    instructions: str | None = None
    """System instructions."""
    params: Params = Params()
    """What is passed on to the upstream, by OpenAI's names."""
    on_disconnect: Literal["grace", "cancel", "continue"] = "grace"
    """What becomes of the run without a reader: cancelled after some 30 seconds, at once, or not at all."""
    message_id: Annotated[str, _told(pattern=f"^{_bodies.KEY_PATTERN}$")] | None = None
    """A name of yours for this run: the same again joins it. ``Idempotency-Key`` wins over it."""
    timeout_seconds: Annotated[float, _told(exclusiveMinimum=0)] | None = None
    """For the whole run."""
    continues: str | None = None
    """A stream that was interrupted, failed or cancelled: the model goes on where it stopped."""
    input: Any = None
    """What a runnable is given, in its own shape."""
    thread: Thread | None = None
    """The conversation it belongs to; made if it is not there."""
    follows: str | None = None
    """The turn (its stream's id) that it comes after, instead of the newest."""
    replaces: str | None = None
    """The turn in whose place it stands."""
    mode: str | list[str] | UnsetType = UNSET
    """What a runnable is to tell: one of its modes, or several."""
    config: dict[str, Any] | UnsetType = UNSET
    """Of a runnable's run: ``tags``, ``metadata``, ``configurable``, ``recursion_limit``."""


def from_body(request: Request, settings: Settings, streams: Streams) -> Order:
    """Read ``POST /streams``. Raises `InvalidRequest`."""
    _bodies.check_origin(request)
    asked = _bodies.read_json(request, settings)
    key = request.headers.get("Idempotency-Key")
    if key is not None:
        _bodies.check_key(key, "Idempotency-Key")
    return from_fields(asked, settings, streams, key)


def from_fields(asked: Any, settings: Settings, streams: Streams, key: str | None = None) -> Order:
    """Read the fields of ``POST /streams``, wherever they came from. Raises `InvalidRequest`.

    ``key`` wins over their ``message_id``.
    """
    create = _convert(asked)
    if key is None and create.message_id is not None:
        key = _bodies.check_key(create.message_id, "message_id")
    return _order(create, f"POST /streams {key}" if key else None, settings, streams)


def from_query(request: Request, settings: Settings, streams: Streams) -> Order:
    """Read ``GET /stream?prompt=…``. Raises `InvalidRequest`."""
    _bodies.check_origin(request)
    known = {
        "prompt",
        "model",
        "message_id",
        "instructions",
        "source",
        "thread",
        "follows",
        "replaces",
        "on_disconnect",
    } | READER_PARAMETERS
    for name in request.args:
        if name not in known:
            raise _bodies.unknown_field(name)
    given = {name: _query.one(request, name) for name in sorted(known - READER_PARAMETERS)}
    asked = {name: text for name, text in given.items() if text is not None}
    create = _convert(asked)
    key = create.message_id
    if key is not None:
        _bodies.check_key(key, "message_id")
    return _order(create, f"GET /stream {key}" if key else None, settings, streams)


READER_PARAMETERS = frozenset({"format", "after", "buffer_tokens", "buffer_ms", "metrics", "usage", "wait"})


def _convert(asked: Any) -> Create:
    try:
        return msgspec.convert(asked, Create)
    except msgspec.ValidationError as error:
        _bodies.refuse(error)


def _order(create: Create, key: str | None, settings: Settings, streams: Streams) -> Order:
    if create.timeout_seconds is not None and create.timeout_seconds <= 0:
        raise InvalidRequest("timeout_seconds: more than 0", code="wrong_value", param="timeout_seconds")
    _thread_orders.check(create)
    canonical = msgspec.json.encode(create, order="deterministic")
    create = _thread_orders.asked_again(create, streams)
    source = "chat" if create.source is None else create.source
    runnable = streams.registered.get(source)
    if runnable is None:
        prompt = _prompt(create, source, settings)
        said = _bodies.last_user_text(prompt.messages)
        asked: dict[str, Any] = {"prompt": said, "model": prompt.model}
    else:
        prompt = _runnable_prompt(create, settings, runnable)
        given = prompt.input if prompt.messages == [] else _bodies.last_user_text(prompt.messages)
        asked = {"prompt": orders.shown(given), "model": prompt.model, "modes": list(prompt.modes)}
        given = _thread_orders.said_in(given)
        said = given if isinstance(given, str) else orders.shown(given)
    question = _thread_orders.question_of(create, source, prompt, said)
    if question is not None:
        asked["thread"] = question.thread
    return Order(
        source=source,
        prompt=prompt,
        asked={**asked, "source": source},
        on_disconnect=create.on_disconnect,
        timeout_seconds=create.timeout_seconds,
        key=key,
        fingerprint=hashlib.sha256(canonical).hexdigest(),
        request_id=_errors.request_id(),
        owner=_principals.asking(),
        continues=create.continues or "",
        question=question,
    )


def _prompt(create: Create, source: str, settings: Settings) -> Prompt:
    given = {"input": create.input is not None, "mode": create.mode is not UNSET}
    given["config"] = create.config is not UNSET
    if source in plugins.names("sources"):
        for name, is_given in given.items():
            if is_given:
                raise InvalidRequest(
                    f"{name}: the source {source} has none, only runnables have",
                    code="wrong_value",
                    param=name,
                )
    if (create.prompt is None) == (create.messages is None):
        raise InvalidRequest("give either prompt or messages", code="required", param="prompt")
    messages = _messages(create, settings)
    _check_params(create.params)
    return Prompt(_bodies.model_of(create.model, settings), messages, msgspec.to_builtins(create.params))


def _runnable_prompt(create: Create, settings: Settings, runnable: Registered) -> Prompt:
    if create.model not in (None, runnable.name):
        raise InvalidRequest(
            f"model: {runnable.name} has its own, leave this out", code="wrong_value", param="model"
        )
    if [create.prompt, create.messages, create.input].count(None) != 2:
        raise InvalidRequest("give one of prompt, messages and input", code="required", param="prompt")
    messages = []
    if create.input is None:
        messages = _messages(create, settings)
    else:
        for name, given in (("instructions", create.instructions), ("continues", create.continues)):
            if given is not None:
                raise InvalidRequest(f"{name}: not with input", code="wrong_value", param=name)
    _check_params(create.params)
    return Prompt(
        runnable.name,
        messages,
        msgspec.to_builtins(create.params),
        orders.check_input(create.input, settings),
        create.thread or "",
        orders.check_modes(create.mode, runnable) if create.mode is not UNSET else (),
        orders.check_config(create.config, runnable) if create.config is not UNSET else {},
    )


def _messages(create: Create, settings: Settings) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if create.instructions:
        messages.append({"role": "system", "content": create.instructions})
    if create.prompt is not None:
        if not create.prompt.strip():
            raise InvalidRequest("prompt: it is empty", code="required", param="prompt")
        messages.append({"role": "user", "content": create.prompt})
    else:
        if not create.messages:
            raise InvalidRequest("messages: it is empty", code="required", param="messages")
        _bodies.check_shape(create.messages)
        messages += create.messages
    _bodies.check_size(messages, "prompt" if create.prompt is not None else "messages", settings)
    return messages


def _check_params(params: Params) -> None:
    for name, (low, high) in RANGES.items():
        value = getattr(params, name)
        if value is not UNSET and not low <= value <= high:
            raise InvalidRequest(
                f"params.{name}: between {low} and {high}", code="wrong_value", param=f"params.{name}"
            )
    for name in ("max_tokens", "max_completion_tokens"):
        value = getattr(params, name)
        if value is not UNSET and value < 1:
            raise InvalidRequest(f"params.{name}: at least 1", code="wrong_value", param=f"params.{name}")
