"""Read a ``text/event-stream`` as it comes, with the ids to resume from.

Source: HTML Living Standard 9.2.6, "Interpreting an event stream".
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_EVENT_BYTES = 16 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\r|\n")


class TooLong(Exception):
    """An event of more than `MAX_EVENT_BYTES`."""


class Message(NamedTuple):
    id: str
    """The last id that was sent, with this event or before."""
    data: bytes


class Parser:
    """Turns blocks of bytes into messages; an event counts from its blank line on."""

    def __init__(self) -> None:
        self._buffer = b""
        self._scanned = 0
        self._started = False
        self._after_cr = False
        self._id = b""
        self._data: list[bytes] = []
        self._size_bytes = 0

    def feed(self, block: bytes) -> Iterator[Message]:
        """Give out the messages that ``block`` completes. Raises `TooLong`."""
        for line in self._lines(block):
            if line:
                self._field(line)
            elif self._data:
                yield Message(self._id.decode("utf-8", "replace"), b"\n".join(self._data))
                self._data, self._size_bytes = [], 0

    def _lines(self, block: bytes) -> Iterator[bytes]:
        self._buffer += block
        if not self._started:
            if len(self._buffer) < 3 and _BOM.startswith(self._buffer):
                return
            self._started = True
            self._buffer = self._buffer.removeprefix(_BOM)
        begin = 0
        if self._after_cr and self._buffer:
            # A CR ended its line at once: to wait for the LF of a CRLF would hold the event back.
            begin, self._after_cr = int(self._buffer.startswith(b"\n")), False
        scan_from = max(begin, self._scanned)
        while end := _LINE_END.search(self._buffer, scan_from):
            yield self._buffer[begin : end.start()]
            begin = scan_from = end.end()
            self._after_cr = end[0] == b"\r" and begin == len(self._buffer)
        self._buffer = self._buffer[begin:]
        self._scanned = len(self._buffer)
        self._check_size(len(self._buffer))

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size_bytes += len(value) + 1
            self._check_size(self._size_bytes)
        elif name == b"id" and b"\0" not in value:
            self._id = value

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > MAX_EVENT_BYTES:
            raise TooLong
