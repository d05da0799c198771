"""How deep JSON may be nested, here and at an upstream."""

from typing import Any

MAX_DEPTH = 64


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


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
