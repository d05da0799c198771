"""Read a chunk that differs from an earlier one in nothing but its text, without parsing the rest.

Nearly all chunks of an answer are such chunks. What stands before and after
the text is compared byte by byte, and what stands between must be one JSON
string, so the whole can only mean what the earlier one meant, with that text.
"""

import re
from typing import Self

import msgspec

_PROBE = b'"\\u0001probe"'
_CONTENT = re.compile(rb'"content"[ \t]*:[ \t]*("(?:[^"\\]|\\.)*")')

_text = msgspec.json.Decoder(str).decode
_any = msgspec.json.Decoder().decode


class LikeBefore:
    __slots__ = ("_after", "_before", "_event_after", "_event_before", "_fixed_bytes")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._event_before = b"data: " + before
        self._event_after = after + b"\n\n"
        self._fixed_bytes = len(before) + len(after)

    @classmethod
    def learn(cls, data: bytes) -> Self | None:
        """Return what reads chunks like ``data``, whose only text is its first choice's content."""
        found = _CONTENT.search(data)
        if found is None:
            return None
        before, after = data[: found.start(1)], data[found.end(1) :]
        # Another "content", in a field nobody knows, must not be taken for the text.
        try:
            delta = _any(before + _PROBE + after)["choices"][0]["delta"]
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None  # half a character somewhere: to be cleaned each time
        return cls(before, after) if delta.get("content") == "\x01probe" else None

    def text_of(self, data: bytes) -> str:
        """Return the text of a chunk of that kind, "" for any other and for one without text."""
        return self._between(self._before, data, self._after)

    def text_of_event(self, block: bytes) -> str:
        """Return the text of a chunk of that kind that is all of one server-sent event, else ""."""
        return self._between(self._event_before, block, self._event_after)

    def _between(self, before: bytes, data: bytes, after: bytes) -> str:
        if len(data) < self._fixed_bytes or not (data.startswith(before) and data.endswith(after)):
            return ""
        try:
            return _text(data[len(before) : len(data) - len(after)])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return ""
