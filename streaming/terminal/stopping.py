"""Ctrl-C: the first stops the run where it is made, the second leaves at once."""

import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

from streaming.terminal.arguments import STOPPED
from streaming.terminal.client import Client, Refused
from streaming.terminal.transport import Broken

START_SECONDS = 5.0
END_SECONDS = 6.0
ATTEMPTS = 2


class Stopping:
    """Cancels the run from a thread of its own, while its end is followed as usual.

    What follows the run is never torn apart: the answer ends with the event that
    says it was cancelled. If that does not come, the process is left.
    """

    def __init__(self, client: Client, restore: Callable[[], None], tell: Callable[[str], None]) -> None:
        self.asked = False
        self._client = client
        self._restore = restore
        self._tell = tell
        self._stream_id = ""
        self._started = threading.Event()
        self._over = threading.Event()
        # A handler may run anywhere, also where nothing may wait: it only writes a byte.
        self._nudge, self._nudged = socket.socketpair()
        self._thread = threading.Thread(target=self._wait, daemon=True)

    def __enter__(self) -> "Stopping":
        self._thread.start()
        self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        signal.signal(signal.SIGINT, self._before)
        self._nudge.close()

    def started(self, stream_id: str) -> None:
        """Say which run is to be stopped; one that is only followed may be stopped too."""
        self._stream_id = stream_id
        self._started.set()

    def cancel(self) -> bool:
        """Stop the run; return whether the service said that it did."""
        for _ in range(ATTEMPTS):
            try:
                self._client.cancel(self._stream_id)
            except Refused:
                return False
            except Broken:
                continue
            return True
        return False

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            self._leave()
        self.asked = True
        self._nudge.send(b"!")

    def _wait(self) -> None:
        if not self._nudged.recv(1):
            return
        if self._started.wait(START_SECONDS):
            arrived = self.cancel()
            if not arrived:
                self._tell("The stop did not reach the service; a run that nobody follows ends by itself.")
            elif self._over.wait(END_SECONDS):
                return
        self._leave()

    def _leave(self) -> None:
        self._restore()
        os._exit(STOPPED)
