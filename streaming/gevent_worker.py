"""gunicorn's gevent worker, whose sockets write a chunk with one system call."""

from typing import Any

import gevent.socket
from gunicorn.workers.ggevent import GeventWorker


class LeanSocket(gevent.socket.socket):  # type: ignore[misc]
    """A client's socket. Most writes fit into its buffer: no timer and no copy is needed for them."""

    def sendall(self, data: Any, flags: int = 0) -> None:
        try:
            sent = self._sock.send(data, flags)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            super().sendall(memoryview(data)[sent:], flags)


class LeanGeventWorker(GeventWorker):  # type: ignore[misc]
    connections = 0
    """Open ones of this process."""

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        lean = LeanSocket(client.family, client.type, client.proto, fileno=client.detach())
        LeanGeventWorker.connections += 1
        try:
            super().handle(listener, lean, addr)
        finally:
            LeanGeventWorker.connections -= 1
