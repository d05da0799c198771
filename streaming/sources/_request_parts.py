"""Reading a request that nobody has checked yet: every refusal names its field."""

from collections.abc import Iterator, Mapping
from typing import Any

from streaming.errors import InvalidRequest

MAX_NAME_CHARS = 100


def unsupported(at: str, why: str) -> InvalidRequest:
    """Return the refusal of the field ``at``, which the model's server has no counterpart for."""
    at = at[:MAX_NAME_CHARS]
    return InvalidRequest(f"{at}: {why}", code="unsupported_parameter", param=at)


def wrong(at: str, wanted: str) -> InvalidRequest:
    at = at[:MAX_NAME_CHARS]
    return InvalidRequest(f"{at}: {wanted}", code="wrong_type", param=at)


def text(fields: Mapping[str, Any], name: str, at: str) -> str:
    """Return the text ``name``, which must be there."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise wrong(f"{at}.{name}", "text")
    return value


def as_object(value: object, at: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong(at, "an object")
    return value


def objects(value: object, at: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each object of a list, with its name."""
    if not isinstance(value, list):
        raise wrong(at, "a list")
    for place, each in enumerate(value):
        yield f"{at}[{place}]", as_object(each, f"{at}[{place}]")


def kind_of(part: Mapping[str, Any], at: str) -> str:
    """Return the ``type`` of an object that must have one."""
    return text(part, "type", at)


def given(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return those of the fields that are there, and not null."""
    return {name: fields[name] for name in names if fields.get(name) is not None}
