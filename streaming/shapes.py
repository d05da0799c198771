"""Decode what a client sent, and check its shape. Every refusal names the field at fault."""

import re
from typing import Any, NoReturn

import msgspec

from streaming.errors import InvalidRequest
from streaming.jsonlimits import (
    MAX_DEPTH,
    MAX_VALUES,
    is_too_deep,
    may_be_too_deep,
    may_hold_too_many,
    repeated_name,
)

MAX_NAME_CHARS = 100


def decode(text: bytes, what: str) -> Any:
    """Return what the JSON in ``text`` holds; ``what`` is its name in a refusal. Raises `InvalidRequest`."""
    if may_hold_too_many(text):
        raise InvalidRequest(f"{what} holds more than {MAX_VALUES} values", code="too_large", status=413)
    try:
        decoded = msgspec.json.decode(text)
    except RecursionError:
        raise _too_deep(what) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{what} is not JSON: {error}", code="json") from None
    if may_be_too_deep(text) and is_too_deep(decoded):
        raise _too_deep(what)
    if (name := repeated_name(text, decoded)) is not None:
        raise InvalidRequest(
            f"{what} has the field {name[:MAX_NAME_CHARS]!r} twice", code="json", param=name[:MAX_NAME_CHARS]
        )
    return decoded


def _too_deep(what: str) -> InvalidRequest:
    return InvalidRequest(f"{what} is nested more than {MAX_DEPTH} deep", code="too_deep")


def refuse(error: msgspec.ValidationError, what: str = "the body") -> NoReturn:
    """Raise the `InvalidRequest` that tells a client what msgspec found wrong."""
    said, _, path = str(error).partition(" - at `")
    param = path.removesuffix("`").removeprefix("$").removeprefix(".") or None
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", said):
        raise unknown_field(f"{param}.{unknown[1]}" if param else unknown[1]) from None
    raise InvalidRequest(
        f"{param or what}: {said[:1].lower()}{said[1:]}", code="wrong_type", param=param
    ) from None


def unknown_field(name: str) -> InvalidRequest:
    name = name[:MAX_NAME_CHARS]
    return InvalidRequest(f"there is no field {name!r} here", code="unknown_field", param=name)
