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
MAX_SAID_CHARS = 200
# A name may hold anything, a line break and these very words too.
_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`(?: - at `\$(.*)`)?", re.DOTALL)


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
    if unknown := _UNKNOWN.fullmatch(str(error)):
        raise unknown_field(_joined(unknown[2] or "", unknown[1])) from None
    said, _, path = str(error).partition(" - at `$")
    place = _joined(path.removesuffix("`"))
    if missing := re.fullmatch(r"Object missing required field `(.*)`", said):
        param = _joined(place, missing[1])
        raise InvalidRequest(f"{param}: it is missing", code="required", param=param) from None
    # It may repeat what was sent, however long that is.
    said = f"{said[:1].lower()}{said[1:MAX_SAID_CHARS]}"
    raise InvalidRequest(f"{place or what}: {said}", code="wrong_type", param=place or None) from None


def _joined(*places: str) -> str:
    return ".".join(place.removeprefix(".") for place in places if place)


def unknown_field(name: str) -> InvalidRequest:
    name = name[:MAX_NAME_CHARS]
    return InvalidRequest(f"there is no field {name!r} here", code="unknown_field", param=name)
