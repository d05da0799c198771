"""Write a stream's messages to its client from the event loop itself, as long as the client keeps up.

The greenlet of the request waits meanwhile. It goes on when the client does not take what it is
sent, for heartbeats, and at the end.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streaming.client_socket import ClientSocket
from streaming.events import Record
from streaming.reader import Merging, Reader


class Straight:
    """The way past the greenlet, for the body of one response."""

    def __init__(
        self,
        source: Reader | Merging,
        encode: Callable[[Sequence[Record]], bytes],
        environ: Mapping[str, Any],
    ) -> None:
        self.wrote_at = 0.0
        """By ``time.monotonic``."""
        self._encode = encode
        self._error: Exception | None = None
        client = environ.get("gunicorn.socket")
        able = isinstance(client, ClientSocket) and client.chunked is not None
        self._client: ClientSocket | None = client if able and environ["REQUEST_METHOD"] != "HEAD" else None
        self._reader = source if isinstance(source, Reader) else None

    def open(self) -> None:
        """Take this way from now on, where there is one. The head of the response was sent."""
        if self._reader is not None and self._client is not None:
            self._reader.straight = self._write

    def settle(self) -> None:
        """Send what the client did not take at once. Blocks; raises what went wrong on this way."""
        if self._error is not None:
            raise self._error
        if self._client is not None:
            self._client.flush()

    def _write(self, records: Sequence[Record]) -> None:
        """See `Reader.straight`. What goes wrong here is for the greenlet to raise."""
        assert self._reader is not None
        assert self._client is not None
        try:
            out = self._encode(records)
            if not out:
                return
            self.wrote_at = time.monotonic()
            if self._client.send_now(out):
                return
        except Exception as error:
            self._error = error
        self._reader.straight = None
        self._reader.nudge()
