"""An HTTP/1.1 answer read block by block, as cheaply as Python can."""


class BadAnswer(Exception):
    """These bytes are no HTTP answer."""


class Answer:
    """Takes the bytes of one answer and gives back those of its body."""

    __slots__ = ("_chunked", "_held", "_in_body", "_last", "_left", "closes", "complete", "status")

    def __init__(self) -> None:
        self.status = 0
        self.complete = False
        self.closes = False
        """The server closes the connection after it."""
        self._in_body = False
        self._chunked = False
        self._last = False
        self._held = b""
        self._left = 0  # of a chunk, with its line end, or of the body; -1 when it ends with the connection

    def feed(self, block: bytes) -> bytes:
        """Return what ``block`` adds to the body. Raises `BadAnswer`."""
        if self._chunked and not self._left and not self._held:
            # A server that writes once for each event makes blocks of just one chunk.
            at = block.find(b"\r\n", 1, 8)
            size = len(block) - at - 4
            if at > 0 and size > 0 and block[:at].lower() == b"%x" % size:
                return block[at + 2 : -2]
        return self._feed_any(block)

    def end(self) -> bool:
        """Say whether the answer is complete now that the connection was closed."""
        self.complete = self.complete or (self._in_body and self._left < 0)
        return self.complete

    def _feed_any(self, block: bytes) -> bytes:
        if self._held:
            block = self._held + block
            self._held = b""
        if not self._in_body:
            head, blank, block = block.partition(b"\r\n\r\n")
            if not blank:
                self._held = head
                if len(head) > 65536 or not b"HTTP/1.".startswith(head[:7]):
                    raise BadAnswer("no HTTP answer")
                return b""
            self._read_head(head)
        if self._chunked:
            return self._dechunk(block)
        if self._left >= 0:
            self._left -= len(block)
            self.complete = self._left <= 0
        return block

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        try:
            self.status = int(first.split(b" ", 2)[1])
            fields = {
                name.strip().lower(): value.strip() for name, _, value in (x.partition(b":") for x in lines)
            }
            length = fields.get(b"content-length")
            self._chunked = fields.get(b"transfer-encoding", b"").lower() == b"chunked"
            self._left = 0 if self._chunked else int(length) if length else -1
        except (IndexError, ValueError):
            raise BadAnswer("no HTTP answer") from None
        if self.status == 204:
            self._left = 0
        self.closes = fields.get(b"connection", b"").lower() == b"close" or self._left < 0
        self._in_body = True

    def _dechunk(self, block: bytes) -> bytes:
        body = []
        at = 0
        while at < len(block) and not self.complete:
            if not self._left:
                line_end = block.find(b"\r\n", at)
                if line_end < 0:
                    self._held = block[at:]
                    if len(self._held) > 100:
                        raise BadAnswer("a chunk has no size")
                    break
                try:
                    size = int(block[at:line_end].partition(b";")[0], 16)
                except ValueError:
                    raise BadAnswer("a chunk's size is no number") from None
                self._last = not size
                self._left = size + 2
                at = line_end + 2
            taken = min(self._left, len(block) - at)
            if (text := min(taken, self._left - 2)) > 0:
                body.append(block[at : at + text])
            at += taken
            self._left -= taken
            self.complete = self._last and not self._left
        return body[0] if len(body) == 1 else b"".join(body)
