"""The ``text/event-stream`` grammar, both ways: the only module that writes ``data:``.

Source: HTML Living Standard 9.2, "Server-sent events".
"""

import re

CONTENT_TYPE = "text/event-stream; charset=utf-8"
# One newline, not two: after an id, a comment that ends in a blank line makes
# httpx-sse and openai-python deliver an empty event.
HEARTBEAT = b": hb\n"

_LINE_BREAK = re.compile(rb"\r\n|\r|\n")
_FORBIDDEN = re.compile(r"[\r\n\0]")


def frame(data: bytes, id: str = "", event: str = "", retry_milliseconds: int = 0) -> bytes:
    r"""Return one dispatchable event.

    >>> frame(b"two\nlines", id="1.7")
    b'id: 1.7\ndata: two\ndata: lines\n\n'
    """
    head = b""
    if id:
        if _FORBIDDEN.search(id):
            # A line break here would let a model's text forge a second event.
            raise ValueError(f"an SSE field cannot hold {id!r}")
        head = b"id: %s\n" % id.encode()
    if event:
        if _FORBIDDEN.search(event):
            raise ValueError(f"an SSE field cannot hold {event!r}")
        head += b"event: %s\n" % event.encode()
    if retry_milliseconds:
        head += b"retry: %d\n" % retry_milliseconds
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_LINE_BREAK.split(data))
    return b"%sdata: %s\n\n" % (head, data)


class Decoder:
    """Turn blocks of bytes into the data of each complete event.

    Lines end at LF, CR or CRLF and nowhere else; other fields, comments and a
    byte order mark are passed over, as the standard says. ``lines`` counts the
    complete lines seen, so that a caller can tell life from a drip of bytes.
    ``too_long`` becomes true at a line or event of more than ``max_bytes``,
    after which nothing more is read.
    """

    def __init__(self, max_bytes: int) -> None:
        self.lines = 0
        self.too_long = False
        self._max_bytes = max_bytes
        self._tail = b""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._first = True
        self._skip_lf = False

    @property
    def at_rest(self) -> bool:
        """The last block ended with an event: the next begins one."""
        return not (self._tail or self._data or self._skip_lf or self.too_long)

    def feed(self, block: bytes) -> list[bytes]:
        """Return the events that ``block`` completes."""
        if self.too_long:
            return []
        if self._skip_lf and block:
            self._skip_lf = False
            if block.startswith(b"\n"):
                block = block[1:]
        text = self._tail + block if self._tail else block
        if b"\r" in text:
            self._skip_lf = text.endswith(b"\r")
            text = _LINE_BREAK.sub(b"\n", text)
        *lines, self._tail = text.split(b"\n")
        self.too_long = len(self._tail) > self._max_bytes
        if self._first and (lines or len(self._tail) >= 3):
            self._first = False
            if lines:
                lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
            else:
                self._tail = self._tail.removeprefix(b"\xef\xbb\xbf")
        self.lines += len(lines)
        return self._events(lines)

    def _events(self, lines: list[bytes]) -> list[bytes]:
        found = []
        for line in lines:
            if len(line) > self._max_bytes or self._data_bytes > self._max_bytes:
                self.too_long = True
                break
            if line.startswith(b"data:"):
                self._take(line[6:] if line.startswith(b" ", 5) else line[5:])
            elif not line:
                if self._data:
                    found.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                    self._data = []
                    self._data_bytes = 0
            elif line == b"data":
                self._take(b"")
        return found

    def _take(self, value: bytes) -> None:
        self._data_bytes += len(value) + 1
        self._data.append(value)
