"""What the bodies of all dialects are checked for. Every refusal names the field at fault."""

import re
from typing import Annotated, Any, Literal, get_args

import msgspec
from flask import Request, g
from msgspec import Meta

from streaming import shapes
from streaming.errors import InvalidRequest
from streaming.settings import Settings
from streaming.shapes import MAX_NAME_CHARS
from streaming.shapes import refuse as refuse
from streaming.shapes import unknown_field as unknown_field
from streaming.web import _urls

MAX_MODEL_CHARS = 200
KEY_PATTERN = "[!-~]{1,255}"
"""Visible ASCII."""

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
_PART = {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}}
Message = Annotated[
    dict[str, Any],
    Meta(
        # For the description: what `check_shape` checks, which names the field better than msgspec would.
        extra_json_schema={
            "required": ["role"],
            "properties": {
                "role": {"enum": list(get_args(Role))},
                "content": {
                    "anyOf": [{"type": "string"}, {"type": "array", "items": _PART}, {"type": "null"}]
                },
            },
        }
    ),
]


def check_origin(request: Request) -> None:
    """Refuse what another site's page sent: it would ask, and pay, in the visitor's name.

    Those of ``CORS_ORIGINS`` may. Other clients send neither header.
    Source: Fetch Metadata Request Headers, section 2.4.
    """
    if "cors_origin" in g:
        return
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site:
        ours = site in ("same-origin", "none")
    else:
        # Not taken apart: whatever is no origin is not ours. A host that the framework takes for
        # none, as one with an underscore, is "", which nothing may be equal to.
        ours = origin is None or (request.host != "" and origin.partition("://")[2] == request.host)
    if not ours:
        raise InvalidRequest("this was sent by another site's page", code="origin", status=403)


def read_json(request: Request, settings: Settings) -> Any:
    """Return what the body holds, within limits of size and depth. Raises `InvalidRequest`."""
    return shapes.decode(_body(request, settings), "the body")


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


def check_key(key: str, param: str) -> str:
    if not re.fullmatch(KEY_PATTERN, key):
        raise InvalidRequest(f"{param}: 1 to 255 visible ASCII characters", code="wrong_value", param=param)
    return key


def model_of(asked: str | None, settings: Settings) -> str:
    """Return the model to ask. Raises `InvalidRequest` for one that is not known here."""
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


def check_shape(messages: list[dict[str, Any]]) -> None:
    """Check that messages have the shape of OpenAI's chat. Raises `InvalidRequest`."""
    for place, message in enumerate(messages):
        _check_message(message, f"messages[{place}]")


def check_size(messages: list[dict[str, Any]], field: str, settings: Settings) -> None:
    """Check the number and length of messages; ``field`` is what the caller gave."""
    if len(messages) > settings.max_messages:
        raise InvalidRequest(
            f"messages: more than {settings.max_messages}", code="too_long", param="messages", status=413
        )
    chars = sum(_text_chars(message.get("content")) for message in messages)
    if chars > settings.max_prompt_chars:
        raise InvalidRequest(
            f"{field}: {chars} characters, at most {settings.max_prompt_chars}",
            code="too_long",
            param=field,
            status=413,
        )


def last_user_text(messages: list[dict[str, Any]]) -> str:
    """Return what a person would recognise the request by."""
    for message in reversed(messages):
        if message.get("role") == "user":
            content = message["content"]
            if isinstance(content, str):
                return content
            return "\n".join(part["text"] for part in content if isinstance(part.get("text"), str))
    return ""


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
        _urls.check_image(image["url"], f"{at}.image_url.url")


def _text_chars(content: object) -> int:
    if isinstance(content, str):
        return len(content)
    if isinstance(content, list):
        return sum(len(part["text"]) for part in content if isinstance(part.get("text"), str))
    return 0
