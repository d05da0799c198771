"""A proxy in front of the service that treats event streams as bad networks do, and counts them."""

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from tests.live.service import PATIENCE_SECONDS, wait_until


class Passage(NamedTuple):
    """How one event stream is passed on."""

    events: int | None = None
    """Cut after so many events; None for all of it."""
    held: bool = False
    """Nothing comes through, not even the answer's head."""
    change: Callable[[bytes], bytes] = bytes
    """Done to each block that comes through."""


class Middlebox:
    """Listens on ``port`` until ``stop``; every request has its own connections, on both sides.

    ``passages`` says how the next event streams are treated; the last stays.
    """

    def __init__(self, port: int) -> None:
        self.passages: list[Passage] = [Passage()]
        self.asked: list[str] = []
        """What event streams were asked for, oldest first."""
        self.open = 0
        """Event streams under way."""
        self.most_open = 0
        self._lock = threading.Lock()
        box = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _pass_on(self) -> None:
                with contextlib.suppress(OSError):
                    box._pass_on(self, port)

            do_GET = do_POST = do_PATCH = do_DELETE = do_HEAD = _pass_on

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait_for_streams(self, count: int, seconds: float = PATIENCE_SECONDS) -> None:
        wait_until(lambda: self.open == count, seconds, f"{count} event streams are open")

    def _pass_on(self, handler: BaseHTTPRequestHandler, port: int) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        handler.close_connection = True
        head = [f"{handler.command} {handler.path} HTTP/1.0"]  # so that the answer comes without chunks
        head += [
            f"{name}: {value}" for name, value in handler.headers.items() if name.lower() != "connection"
        ]
        far = socket.create_connection(("127.0.0.1", port), timeout=60)
        with contextlib.closing(far):
            if "text/event-stream" not in handler.headers.get("Accept", ""):
                far.sendall("\r\n".join([*head, "", ""]).encode("latin-1") + body)
                _carry(far, handler.connection, Passage())
                return
            with self._counted(handler.path) as passage:
                if passage.held:
                    _wait_for_close(handler.connection)
                    return
                far.sendall("\r\n".join([*head, "", ""]).encode("latin-1") + body)
                _carry(far, handler.connection, passage)

    @contextlib.contextmanager
    def _counted(self, path: str):  # type: ignore[no-untyped-def]
        with self._lock:
            self.asked.append(path)
            passage = self.passages.pop(0) if len(self.passages) > 1 else self.passages[0]
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        try:
            yield passage
        finally:
            with self._lock:
                self.open -= 1


def _carry(far: socket.socket, near: socket.socket, passage: Passage) -> None:
    """Pass an answer on until either side closes its connection."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        block = far.recv(65536)
        if not block:
            return
        answer += block
    head, _, block = answer.partition(b"\r\n\r\n")
    near.sendall(head + b"\r\n\r\n")
    left = passage.events
    while True:
        if left is not None:
            parts = block.split(b"\n\n")
            block = b"".join(part + b"\n\n" for part in parts[:left]) if len(parts) > left else block
            left -= min(left, len(parts) - 1)
        near.sendall(passage.change(block))
        if left == 0:
            return
        ready, _, _ = select.select([far, near], [], [], 60)
        if near in ready and not near.recv(4096):
            return  # the client has gone: so does its way to the service
        block = far.recv(65536) if far in ready else b""
        if far in ready and not block:
            return


def _wait_for_close(connection: socket.socket) -> None:
    connection.settimeout(60)
    while connection.recv(4096):
        pass
