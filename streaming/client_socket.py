"""A client's socket: most writes are one system call, and no read or write waits for ever."""

import errno
import math
import time
from typing import Any

import gevent.socket

from streaming.errors import RequestTimeout

WRITE_SECONDS = 30.0
"""How long a client may take no bytes, where nobody has set the socket's own time-out."""
WRITE_BYTES = 256 * 1024


class ClientSocket(gevent.socket.socket):  # type: ignore[misc]
    """While a request is read, `recv` has a deadline; it raises `RequestTimeout`.

    A read that finds bytes at once costs one system call and no timer.
    """

    chunked: bool | None = None
    """How the response that is being written is framed; ``None`` where only the server knows."""
    _unsent = b""

    deadline = math.inf
    """In ``time.monotonic()``'s seconds."""
    _bytes_per_second = math.inf
    _head_seconds = 0.0

    def expect_head(self, seconds: float) -> None:
        """Begin to count at the next request's first byte: until then the connection is idle."""
        self.deadline = math.inf
        self._head_seconds = seconds

    def expect(self, deadline: float, bytes_per_second: float) -> None:
        """Let reads take until ``deadline``, and each byte that comes defer it."""
        self._head_seconds = 0.0
        self.deadline = deadline
        self._bytes_per_second = bytes_per_second

    def expect_nothing(self) -> None:
        """Let reads take as long as the socket's time-out says."""
        self.expect(math.inf, math.inf)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        if self._head_seconds:
            data: bytes = super().recv(bufsize, flags)
            self.expect(time.monotonic() + self._head_seconds, math.inf)
            return data
        if flags or self.deadline == math.inf:
            return super().recv(bufsize, flags)  # type: ignore[no-any-return]
        while True:
            try:
                data = self._sock.recv(bufsize)
            except BlockingIOError:
                self._wait_until_deadline()
            else:
                self.deadline += len(data) / self._bytes_per_second
                return data

    def send_now(self, data: bytes) -> bool:
        """Send a part of the response's body, framed; keep what the client does not take, for ``flush``.

        Returns whether all was sent; if not, call ``flush`` or ``sendall`` before it again. Never blocks.
        Raises ``OSError``.
        """
        framed = b"%X\r\n%b\r\n" % (len(data), data) if self.chunked else data
        try:
            sent = self._sock.send(framed)
        except BlockingIOError:
            sent = 0
        self._unsent = framed[sent:]
        return not self._unsent

    def flush(self) -> None:
        """Send what ``send_now`` kept. Blocks, as ``sendall`` does. Raises ``OSError``."""
        if self._unsent:
            unsent, self._unsent = self._unsent, b""
            self._send_slowly(memoryview(unsent), 0)

    def sendall(self, data: Any, flags: int = 0) -> None:
        self.flush()
        try:
            sent = self._sock.send(data, flags)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self._send_slowly(memoryview(data)[sent:], flags)

    def _send_slowly(self, data: memoryview, flags: int) -> None:
        before = self.timeout
        if before is None:
            self.settimeout(WRITE_SECONDS)
        try:
            for at in range(0, len(data), WRITE_BYTES):
                super().sendall(data[at : at + WRITE_BYTES], flags)
        except TimeoutError:
            # To gunicorn, a client that has gone.
            raise BrokenPipeError(errno.EPIPE, "the client does not read") from None
        finally:
            if before is None:
                self.settimeout(None)

    def _wait_until_deadline(self) -> None:
        late = RequestTimeout("the request did not come in time")
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise late
        gevent.socket.wait(self._read_event, left, late)
