"""How deep JSON may be nested, here and at an upstream; and what a request's may hold."""

import json
from typing import Any

import msgspec

MAX_DEPTH = 64
MAX_VALUES = 1_000_000
"""In one text. Each takes time and memory that its bytes do not tell of."""


def may_be_too_deep(text: bytes) -> bool:
    """Say whether ``text`` has brackets enough for it; brackets inside strings count too."""
    return text.count(b"{") + text.count(b"[") > MAX_DEPTH


def is_too_deep(value: Any) -> bool:
    """Say whether a decoded value is nested more than `MAX_DEPTH` deep.

    >>> is_too_deep([[1], {"a": [2]}])
    False
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return any(isinstance(outer, dict | list) for outer in level)


def may_hold_too_many(text: bytes) -> bool:
    """Say whether ``text`` has marks enough for it; those inside strings count too."""
    return text.count(b",") + text.count(b":") > MAX_VALUES


def repeated_name(text: bytes, decoded: Any) -> str | None:
    """Return a name that one object in ``text`` has twice; of two such values readers choose differently.

    ``decoded`` is what a reader made of it that keeps one of them.

    >>> repeated_name(b'{"a": {"b": 1, "b": 2}}', {"a": {"b": 2}})
    'b'
    """
    # Each name has a colon after it, and other colons stay, if they are not written in another way.
    if b"\\u003" not in text and msgspec.json.encode(decoded).count(b":") == text.count(b":"):
        return None
    found: list[str] = []

    def look(pairs: list[tuple[str, Any]]) -> None:
        names = set()
        for name, _ in pairs:
            if name in names:
                found.append(name)
            names.add(name)

    json.loads(text, object_pairs_hook=look, parse_int=len, parse_float=len)
    return found[0] if found else None


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
