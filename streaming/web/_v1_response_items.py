"""The items of a response's input: checked, kept for later turns, and said again in them."""

import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from streaming.errors import InvalidRequest
from streaming.settings import Settings
from streaming.web import _urls

JSON = dict[str, Any]

_ROLES = ("user", "assistant", "system", "developer")
_ID_PREFIXES = {"message": "msg", "function_call": "fc", "custom_tool_call": "ctc", "reasoning": "rs"}
_TEXTS = ("text", "refusal", "arguments", "input", "output")
# What an upstream that keeps nothing would look up, or refuse, rather than read.
_OF_THE_KEEPER = ("id", "status")


def check(items: Sequence[JSON]) -> None:
    """Check what every source relies on; the rest is theirs to judge. Raises `InvalidRequest`."""
    for place, item in enumerate(items):
        at = f"input[{place}]"
        kind = item.get("type", "message" if "role" in item else None)
        if not isinstance(kind, str):
            raise InvalidRequest(f"{at}.type: text", code="wrong_type", param=f"{at}.type")
        if kind == "message":
            _check_message(item, at)


def check_size(items: Sequence[JSON], instructions: str, settings: Settings) -> None:
    """Check the number and length of items, those of earlier turns too. Raises `InvalidRequest`."""
    if len(items) > settings.max_messages:
        raise _too_long(f"input: {len(items)} items with the earlier turns, at most {settings.max_messages}")
    chars = len(instructions) + sum(len(text) for item in items for text in _texts(item))
    if chars > settings.max_prompt_chars:
        raise _too_long(
            f"input: {chars} characters with the earlier turns, at most {settings.max_prompt_chars}"
        )
    if len(msgspec.json.encode(items)) > settings.max_body_bytes:
        raise _too_long(f"input: with the earlier turns more than {settings.max_body_bytes} bytes")


def kept(item: JSON) -> JSON:
    """Return an item as it is kept and listed: with an id, and its content as parts."""
    kind = str(item.get("type") or "message")
    made_up = f"{_ID_PREFIXES.get(kind, 'item')}_{secrets.token_hex(16)}"
    given = item.get("id")
    found = {**item, "type": kind, "id": given if isinstance(given, str) and given else made_up}
    if kind == "message":
        found |= {"status": "completed", "content": _parts(item)}
    return found


def said_again(items: Sequence[JSON]) -> list[JSON]:
    """Return what an upstream is told of earlier turns.

    Without the ids: this service keeps the items, and an upstream that does not
    would miss those. Without reasoning that only its keeper could read, and
    without calls that were cut off.
    """
    again = []
    for item in items:
        kind = item.get("type")
        if kind == "reasoning" and not item.get("encrypted_content"):
            continue
        if kind == "function_call" and item.get("status") == "incomplete":
            continue
        if kind == "message":
            if not (content := [_without(part, "logprobs") for part in _parts(item)]):
                continue
            item = {**item, "content": content}
        again.append(item if kind == "reasoning" else _without(item, *_OF_THE_KEEPER))
    return again


def last_user_text(items: Sequence[JSON]) -> str:
    """Return what a person would recognise the request by."""
    for item in reversed(items):
        if item.get("role") == "user":
            return "\n".join(part["text"] for part in _parts(item) if isinstance(part.get("text"), str))
    return ""


def _check_message(item: JSON, at: str) -> None:
    if item.get("role") not in _ROLES:
        raise InvalidRequest(f"{at}.role: one of {', '.join(_ROLES)}", code="wrong_value", param=f"{at}.role")
    content = item.get("content")
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise InvalidRequest(
            f"{at}.content: text or a list of parts", code="wrong_type", param=f"{at}.content"
        )
    for place, part in enumerate(content):
        name = f"{at}.content[{place}]"
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise InvalidRequest(f"{name}: an object with a type", code="wrong_type", param=name)
        if part["type"] in ("input_text", "output_text") and not isinstance(part.get("text"), str):
            raise InvalidRequest(f"{name}.text: text", code="wrong_type", param=f"{name}.text")
        if isinstance(url := part.get("image_url"), str):
            _urls.check_image(url, f"{name}.image_url")
        if isinstance(url := part.get("file_url"), str):
            _urls.check_web(url, f"{name}.file_url")


def _parts(message: JSON) -> list[JSON]:
    content = message.get("content")
    if isinstance(content, list):
        return [part for part in content if isinstance(part, dict)]
    text = content if isinstance(content, str) else ""
    if message.get("role") == "assistant":
        return [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return [{"type": "input_text", "text": text}]


def _texts(item: JSON) -> Iterator[str]:
    for name in ("content", "output", "summary"):
        if isinstance(inner := item.get(name), list):
            for part in inner:
                if isinstance(part, dict):
                    yield from _texts(part)
        elif name == "content" and isinstance(inner, str):
            yield inner
    yield from (text for name in _TEXTS if isinstance(text := item.get(name), str))


def _without(fields: JSON, *names: str) -> JSON:
    return {name: value for name, value in fields.items() if name not in names}


def _too_long(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="too_long", param="input", status=413)
