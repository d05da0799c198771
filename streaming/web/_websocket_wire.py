"""What stands between simple-websocket and the server's socket, and makes up for what it leaves out.

simple-websocket 1.1 hands a frame to ``socket.send``, which may write a part of
it; reads on while nobody takes what it has read; and closes the socket under
whoever else holds it.
"""

import contextlib
import socket
from collections.abc import Iterator, Sequence

import gevent
from gevent.event import Event as Flag
from gevent.lock import Semaphore

LINGER_SECONDS = 2.0
# What the kernel holds for a slow client: little enough that a ping behind it is answered in time.
SEND_BUFFER_BYTES = 128 * 1024


class Wire:
    """The socket of one client, with the four methods that simple-websocket uses.

    Bytes leave in the order in which they were given, whole; whoever gives some
    waits until they were written, and so produces nothing more meanwhile.
    """

    def __init__(self, sock: socket.socket, write_timeout_seconds: float) -> None:
        self._sock = sock
        sock.settimeout(write_timeout_seconds)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._given = bytearray()
        self._corked = False
        self._writing = Semaphore(1)
        self._unread: Sequence[object] = ()
        self._taken = Flag()

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def is_stuck(self) -> bool:
        """Whether somebody waits for the client to read."""
        return bool(self._writing.locked())

    def send(self, data: bytes) -> int:
        """Write all of ``data``. Raises ``OSError`` when the client is gone, or does not read."""
        self._given += data
        if not self._corked:
            self._write()
        return len(data)

    @contextlib.contextmanager
    def corked(self) -> Iterator[None]:
        """Write what is sent meanwhile at once, at the end; there must be no switch of greenlets in it."""
        self._corked = True
        try:
            yield
        finally:
            self._corked = False
        self._write()

    def _write(self) -> None:
        with self._writing:
            # What others gave goes along: a later frame must not overtake an earlier one.
            data, self._given = self._given, bytearray()
            if data:
                try:
                    self._sock.sendall(data)
                except BaseException:
                    self.shutdown()  # half a frame may be out: nothing can follow it
                    raise

    def recv(self, size: int) -> bytes:
        """Return what the client has sent, once all was taken that it sent before."""
        while self._unread:
            self._taken.clear()
            self._taken.wait()
        return self._sock.recv(size)

    def hold_back(self, unread: Sequence[object]) -> None:
        """Read nothing while ``unread`` holds something; ``took`` says that it may hold less."""
        self._unread = unread
        self._taken.set()

    def took(self) -> None:
        self._taken.set()

    def shutdown(self) -> None:
        """End the connection now, and wake whoever waits on it."""
        self.hold_back(())
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it in order; the socket itself stays open for the server to close.

        Bytes that are left unread would make the kernel reset the connection, and
        the client lose the frame that says why it was closed.
        """
        with contextlib.suppress(OSError), gevent.Timeout(LINGER_SECONDS, False):
            self._sock.shutdown(socket.SHUT_WR)
            while self._sock.recv(65536):
                pass
