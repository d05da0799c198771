"""Read what a client asks for. Every refusal names the field at fault."""

import hashlib
import re
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit

import msgspec
from flask import Request
from msgspec import UNSET, Struct, UnsetType

from streaming.errors import InvalidRequest
from streaming.jsonlimits import MAX_DEPTH, is_too_deep, may_be_too_deep
from streaming.settings import Settings
from streaming.sources import Prompt
from streaming.streams import Order
from streaming.web import _errors

MAX_MODEL_CHARS = 200
MAX_NAME_CHARS = 100

RANGES = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_logprobs": (0, 20),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class Params(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What may be passed on to the upstream, by its names."""

    temperature: float | UnsetType = UNSET
    top_p: float | UnsetType = UNSET
    max_tokens: int | UnsetType = UNSET
    max_completion_tokens: int | UnsetType = UNSET
    n: Literal[1] | UnsetType = UNSET
    stop: str | list[str] | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    presence_penalty: float | UnsetType = UNSET
    frequency_penalty: float | UnsetType = UNSET
    logit_bias: dict[str, float] | UnsetType = UNSET
    logprobs: bool | UnsetType = UNSET
    top_logprobs: int | UnsetType = UNSET
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
    """The body of ``POST /streams``."""

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    source: str = "chat"
    model: str | None = None
    instructions: str | None = None
    params: Params = Params()
    on_disconnect: Literal["grace", "cancel", "continue"] = "grace"
    message_id: str | None = None
    timeout_seconds: float | None = None


def from_body(request: Request, settings: Settings) -> Order:
    """Read ``POST /streams``. Raises `InvalidRequest`."""
    _check_origin(request)
    create = _decode(_body(request, settings))
    key = request.headers.get("Idempotency-Key")
    if key is not None:
        _check_key(key, "Idempotency-Key")
    elif create.message_id is not None:
        key = _check_key(create.message_id, "message_id")
    return _order(create, f"POST /streams {key}" if key else None, settings)


def from_query(request: Request, settings: Settings) -> Order:
    """Read ``GET /stream?prompt=…``. Raises `InvalidRequest`."""
    _check_origin(request)
    known = {"prompt", "model", "message_id", "instructions", "source", "on_disconnect"} | READER_PARAMETERS
    for name in request.args:
        if name not in known:
            raise _unknown(name)
    asked = {name: request.args[name] for name in known - READER_PARAMETERS if name in request.args}
    create = _convert(asked)
    key = create.message_id
    if key is not None:
        _check_key(key, "message_id")
    return _order(create, f"GET /stream {key}" if key else None, settings)


def from_form(request: Request, settings: Settings) -> Order:
    """Read the page's own form, as a browser without JavaScript sends it. Raises `InvalidRequest`."""
    _check_origin(request)
    request.max_form_memory_size = settings.max_body_bytes
    # A form's line ends are CRLF, whatever was typed.
    create = Create(prompt=request.form.get("prompt", "").replace("\r\n", "\n"))
    key = request.form.get("message_id")
    if key is None:
        return _order(create, None, settings)
    _check_key(key, "message_id")
    # The browser may send the same form again with another question in it.
    asked = hashlib.sha256(str(create.prompt).encode()).hexdigest()
    return _order(create, f"POST / {key} {asked}", settings)


READER_PARAMETERS = frozenset({"format", "after", "buffer_tokens", "buffer_ms", "metrics", "usage", "wait"})


def _check_origin(request: Request) -> None:
    """Refuse what another site's page sent: it would ask, and pay, in the visitor's name.

    Source: Fetch Metadata Request Headers, section 2.4; other clients send neither header.
    """
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site:
        ours = site in ("same-origin", "none")
    else:
        ours = origin is None or urlsplit(origin).netloc == request.host
    if not ours:
        raise InvalidRequest("this was sent by another site's page", code="origin", status=403)


def _body(request: Request, settings: Settings) -> bytes:
    if request.mimetype != "application/json":
        raise InvalidRequest(
            "send JSON, with Content-Type: application/json", code="content_type", status=415
        )
    body = request.get_data(cache=False)
    if request.content_length is None and len(body) >= settings.max_body_bytes:
        # A chunked body is cut at the limit without a word.
        raise InvalidRequest("the body is too large", code="too_large", status=413)
    if not body.strip():
        raise InvalidRequest("the body is empty; send a JSON object", code="json")
    return body


def _decode(body: bytes) -> Create:
    try:
        decoded = msgspec.json.decode(body)
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}", code="json") from None
    if may_be_too_deep(body) and is_too_deep(decoded):
        raise _too_deep()
    return _convert(decoded)


def _convert(asked: Any) -> Create:
    try:
        return msgspec.convert(asked, Create)
    except msgspec.ValidationError as error:
        _refuse(error)


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"the body is nested more than {MAX_DEPTH} deep", code="too_deep")


def _refuse(error: msgspec.ValidationError) -> NoReturn:
    said, _, path = str(error).partition(" - at `")
    param = path.removesuffix("`").removeprefix("$").removeprefix(".") or None
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", said):
        raise _unknown(f"{param}.{unknown[1]}" if param else unknown[1]) from None
    raise InvalidRequest(
        f"{param or 'the body'}: {said[:1].lower()}{said[1:]}", code="wrong_type", param=param
    ) from None


def _unknown(name: str) -> InvalidRequest:
    name = name[:MAX_NAME_CHARS]
    return InvalidRequest(f"there is no field {name!r} here", code="unknown_field", param=name)


def _check_key(key: str, param: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise InvalidRequest(f"{param}: 1 to 255 visible ASCII characters", code="wrong_value", param=param)
    return key


def _order(create: Create, key: str | None, settings: Settings) -> Order:
    if (create.prompt is None) == (create.messages is None):
        raise InvalidRequest("give either prompt or messages", code="required", param="prompt")
    messages = _messages(create, settings)
    params = msgspec.to_builtins(create.params)
    _check_params(create.params)
    model = _model(create.model, settings)
    if create.timeout_seconds is not None and create.timeout_seconds <= 0:
        raise InvalidRequest("timeout_seconds: more than 0", code="wrong_value", param="timeout_seconds")
    canonical = msgspec.json.encode(create, order="deterministic")
    return Order(
        source=create.source,
        prompt=Prompt(model, messages, params),
        asked={"prompt": _last_user_text(messages), "model": model, "source": create.source},
        on_disconnect=create.on_disconnect,
        timeout_seconds=create.timeout_seconds,
        key=key,
        fingerprint=hashlib.sha256(canonical).hexdigest(),
        request_id=_errors.request_id(),
    )


def _model(asked: str | None, settings: Settings) -> str:
    known = ("demo",) if settings.is_demo else settings.models
    if asked is None:
        return settings.default_model
    if known and asked not in known:
        raise InvalidRequest(
            f"no model is called {asked[:MAX_NAME_CHARS]!r}; known: {', '.join(known)}",
            code="unknown_model",
            param="model",
        )
    if not 0 < len(asked) <= MAX_MODEL_CHARS:
        raise InvalidRequest(f"model: 1 to {MAX_MODEL_CHARS} characters", code="wrong_value", param="model")
    return asked


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
        for place, message in enumerate(create.messages):
            _check_message(message, f"messages[{place}]")
        messages += create.messages
    if len(messages) > settings.max_messages:
        raise InvalidRequest(
            f"messages: more than {settings.max_messages}", code="too_long", param="messages", status=413
        )
    chars = sum(_text_chars(message.get("content")) for message in messages)
    if chars > settings.max_prompt_chars:
        field = "prompt" if create.prompt is not None else "messages"
        raise InvalidRequest(
            f"{field}: {chars} characters, at most {settings.max_prompt_chars}",
            code="too_long",
            param=field,
            status=413,
        )
    return messages


def _check_message(message: dict[str, Any], at: str) -> None:
    try:
        msgspec.convert(message.get("role"), Role)
    except msgspec.ValidationError:
        raise InvalidRequest(
            f"{at}.role: one of system, developer, user, assistant, tool",
            code="wrong_value",
            param=f"{at}.role",
        ) from None
    content = message.get("content")
    if isinstance(content, list):
        for place, part in enumerate(content):
            if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                name = f"{at}.content[{place}]"
                raise InvalidRequest(f"{name}: an object with a type", code="wrong_type", param=name)
            _check_part(part, f"{at}.content[{place}]")
    elif content is None:
        if message.get("role") != "assistant":
            raise InvalidRequest(f"{at}.content: it is missing", code="required", param=f"{at}.content")
    elif not isinstance(content, str):
        raise InvalidRequest(
            f"{at}.content: text or a list of parts", code="wrong_type", param=f"{at}.content"
        )


def _check_part(part: dict[str, Any], at: str) -> None:
    if part["type"] == "text" and not isinstance(part.get("text"), str):
        raise InvalidRequest(f"{at}.text: text", code="wrong_type", param=f"{at}.text")
    if part["type"] == "image_url":
        image = part.get("image_url")
        if not isinstance(image, dict) or not isinstance(image.get("url"), str):
            raise InvalidRequest(f"{at}.image_url.url: text", code="wrong_type", param=f"{at}.image_url.url")


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


def _text_chars(content: object) -> int:
    if isinstance(content, str):
        return len(content)
    if isinstance(content, list):
        return sum(len(part["text"]) for part in content if isinstance(part.get("text"), str))
    return 0


def _last_user_text(messages: list[dict[str, Any]]) -> str:
    for message in reversed(messages):
        if message.get("role") == "user":
            content = message["content"]
            if isinstance(content, str):
                return content
            return "\n".join(part["text"] for part in content if isinstance(part.get("text"), str))
    return ""
