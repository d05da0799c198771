"""Anything a runnable may hand out, as JSON that a person can read.

It never raises, never runs over its bound, and says the same for the same value
in every process. What it cannot take apart it names. Nothing is made from such
JSON again: it is for reading, not for loading.
"""

import base64
import dataclasses
import datetime
import decimal
import enum
import math
import pathlib
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from streaming.events import json_line

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32
MAX_KEY_CHARS = 200
MAX_SORTED_ITEMS = 10_000
CUT = "…"
_MARKER_BYTES = 48
_SMALLEST_ITEM_BYTES = 64
_LARGEST_INTEGER = 2**63
_AS_TEXT = (uuid.UUID, pathlib.PurePath, decimal.Decimal, complex, range)
_AS_ISO = (datetime.datetime, datetime.date, datetime.time)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def to_json(value: Any, max_bytes: int = MAX_BYTES) -> Any:
    """Return ``value`` as dicts, lists, texts, numbers, booleans and ``None``.

    Encoded, it has at most ``max_bytes``, of which there are 128 or more; what
    is left out is marked by ``…``. Messages, documents and other models become
    their fields; numbers that JSON lacks ``None``; an exception its class alone,
    for its text may quote anything.

    >>> to_json({"when": datetime.date(2026, 8, 1), "found": {3, 1}, "raw": b"ok"})
    {'when': '2026-08-01', 'found': [1, 3], 'raw': 'ok'}
    >>> to_json("word " * 1000, 128)[-7:]
    'word w…'
    """
    return _Reading(max_bytes).read(value, 0)


class _Reading:
    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._inside: set[int] = set()
        """The ids of the values that are being taken apart, to see cycles."""

    def read(self, value: Any, depth: int) -> Any:
        try:
            return self._read(value, depth)
        except Exception:
            # A property that raises, an object that lies about its kind: whatever users bring.
            return self._text(f"<{type(value).__name__}>")

    def _read(self, value: Any, depth: int) -> Any:
        if value is None or value is True or value is False:
            return self._spend(5, value)
        if isinstance(value, enum.Enum):
            return self.read(value.value, depth)
        if isinstance(value, str):
            return self._text(str(value))
        if isinstance(value, int):
            return self._spend(21, int(value)) if abs(value) < _LARGEST_INTEGER else self._big(value)
        if isinstance(value, float):
            return self._spend(25, float(value) if math.isfinite(value) else None)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._bytes(bytes(value[: self._left]))
        if isinstance(value, _AS_ISO):
            return self._text(value.isoformat())
        if isinstance(value, datetime.timedelta):
            return self._spend(25, value.total_seconds())
        if isinstance(value, _AS_TEXT):
            return self._text(str(value))
        if isinstance(value, BaseException):
            return self._text(type(value).__name__)
        if hasattr(value, "get_secret_value"):
            return self._text("**********")
        return self._compound(value, depth)

    def _compound(self, value: Any, depth: int) -> Any:
        if id(value) in self._inside or depth >= MAX_DEPTH:
            return self._text(CUT)
        self._inside.add(id(value))
        try:
            if (fields := _fields(value)) is not None:
                return self._mapping(fields.items(), len(fields), depth)
            if isinstance(value, Mapping):
                return self._mapping(value.items(), len(value), depth)
            if isinstance(value, Set):
                return self._set(value, depth)
            if isinstance(value, Sequence):
                return self._list(value, len(value), depth)
            if callable(as_list := getattr(value, "tolist", None)):  # numpy and its like
                if getattr(value, "nbytes", 0) > 64 * self._left:
                    return self._text(f"<{type(value).__name__} of {value.size}>")
                return self.read(as_list(), depth)
            return self._text(_name(value))
        finally:
            self._inside.discard(id(value))

    def _mapping(self, items: Iterable[tuple[Any, Any]], size: int, depth: int) -> dict[str, Any]:
        self._left -= 2 + _MARKER_BYTES
        found: dict[str, Any] = {}
        for place, (key, value) in enumerate(items):
            name = _whole(key if isinstance(key, str) else _key(key))[:MAX_KEY_CHARS]
            cost = len(json_line(name)) + 2
            if self._left < cost + _SMALLEST_ITEM_BYTES:
                found[CUT] = f"{size - place} more"
                break
            self._left -= cost
            found[name] = self.read(value, depth + 1)
        return found

    def _list(self, items: Iterable[Any], size: int, depth: int) -> list[Any]:
        self._left -= 2 + _MARKER_BYTES
        found: list[Any] = []
        for place, value in enumerate(items):
            if self._left < _SMALLEST_ITEM_BYTES:
                found.append(f"{CUT} {size - place} more")
                break
            self._left -= 1
            found.append(self.read(value, depth + 1))
        return found

    def _set(self, items: Set[Any], depth: int) -> Any:
        if len(items) > MAX_SORTED_ITEMS:
            return self._text(f"<{type(items).__name__} of {len(items)}>")
        # In an order of its own: that of a set changes from process to process.
        try:
            ordered = sorted(items)
        except TypeError:
            ordered = sorted(items, key=lambda item: (type(item).__name__, _name(item)))
        return self._list(ordered, len(items), depth)

    def _bytes(self, raw: bytes) -> str:
        try:
            return self._text(raw.decode())
        except UnicodeDecodeError:
            return self._text(base64.b64encode(raw).decode())

    def _big(self, number: int) -> Any:
        # As text: most readers of JSON would round it.
        return self._text(str(number) if number.bit_length() < 4096 else f"<{number.bit_length()} bits>")

    def _text(self, text: str) -> str:
        left = max(self._left, 0)
        kept = _whole(text[:left])
        while (cost := len(json_line(kept))) > left and kept:
            kept = kept[: max(0, (len(kept) - 4) * left // cost)]
        if len(kept) < len(text):
            # Room for the mark.
            while kept and len(json_line(kept + CUT)) > left:
                kept = kept[:-1]
            kept += CUT
        self._left -= len(json_line(kept))
        return kept

    def _spend(self, bytes_at_most: int, value: Any) -> Any:
        self._left -= min(bytes_at_most, len(json_line(value)))
        return value


def _fields(value: Any) -> Mapping[str, Any] | None:
    """Return what a model, a dataclass or a named tuple holds; ``None`` for anything else."""
    kind = type(value)
    if isinstance(value, type):
        return None
    if (declared := getattr(kind, "model_fields", None)) is not None and hasattr(
        value, "__pydantic_fields_set__"
    ):
        if callable(getattr(value, "invoke", None)):
            return None
        shown = {name: getattr(value, name) for name, field in declared.items() if not field.exclude}
        return {**shown, **(getattr(value, "__pydantic_extra__", None) or {})}
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.repr}
    for names in ("__struct_fields__", "_fields"):
        listed = getattr(kind, names, None)
        if isinstance(listed, tuple) and all(isinstance(name, str) for name in listed):
            return {name: getattr(value, name) for name in listed}
    return None


def _key(key: Any) -> str:
    if key is None or isinstance(key, bool | int | float):
        return json_line(key).decode() if not isinstance(key, float) or math.isfinite(key) else str(key)
    return _name(key)


def _name(value: Any) -> str:
    """Return how a value calls itself, without its address."""
    if isinstance(value, type) or callable(value):
        name = getattr(value, "__qualname__", None)
        return f"<{name or type(value).__name__}>"
    if callable(getattr(value, "invoke", None)):
        return f"<{type(value).__name__}>"  # its settings would follow, with clients and keys
    return _ADDRESS.sub("", repr(value))


def _whole(text: str) -> str:
    """Replace halves of characters, which cannot be encoded, by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
