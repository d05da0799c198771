"""A network between a client and the service that can be cut, and one that holds event streams back."""

import contextlib
import socket
import threading


class Cable:
    """A TCP port that leads to another one, until it is cut.

    One that ``holds_streams`` is the proxy people complain about: it passes an
    event stream on when it is whole, and everything else at once.
    """

    def __init__(self, port: int, holds_streams: bool = False) -> None:
        self._to = port
        self._holds_streams = holds_streams
        self._whole = True
        self.refused = 0
        """Connections that were tried while it was cut."""
        self._ends: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection, and every new one at once."""
        self._whole = False
        for end in self._ends:
            # Not close: a thread that waits in recv would not notice.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let new connections through again."""
        self._whole = True

    def remove(self) -> None:
        """Cut it for good."""
        self.cut()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _address = self._listening.accept()
                if not self._whole:
                    near.close()
                    self.refused += 1
                    continue
                far = socket.create_connection(("127.0.0.1", self._to))
                self._ends += [near, far]
                for source, sink, holds in ((near, far, False), (far, near, self._holds_streams)):
                    threading.Thread(target=self._carry, args=(source, sink, holds), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, holds: bool) -> None:
        with contextlib.suppress(OSError):
            held = b""
            while data := source.recv(65536):
                if holds and (held or b"text/event-stream" in data):
                    held += data
                else:
                    sink.sendall(data)
            sink.sendall(held)
            sink.shutdown(socket.SHUT_WR)
