"""A proxy in front of the service that treats event streams as bad networks do, and counts them."""

import contextlib
import http.client
import select
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from tests.live.service import wait_until


class Passage(NamedTuple):
    """How one event stream is passed on."""

    events: int | None = None
    """Cut after so many events; None for all of it."""
    held: bool = False
    """Nothing comes through, not even the answer's head."""
    change: Callable[[bytes], bytes] = bytes
    """Done to each block that comes through."""


class Middlebox:
    """Listens on ``port`` until ``stop``; every request is passed to the service on a new connection.

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
                with contextlib.suppress(OSError, http.client.HTTPException):
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

    def wait_for_streams(self, count: int, seconds: float = 10.0) -> None:
        wait_until(lambda: self.open == count, seconds, f"{count} event streams are open")

    def _pass_on(self, handler: BaseHTTPRequestHandler, port: int) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        headers = {name: value for name, value in handler.headers.items() if name.lower() != "connection"}
        far = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(far):
            if "text/event-stream" in handler.headers.get("Accept", ""):
                with self._counted(handler.path) as passage:
                    if passage.held:
                        _wait_for_close(handler.connection)
                        return
                    far.request(handler.command, handler.path, body, headers)
                    self._stream(handler, far.getresponse(), passage)
                return
            far.request(handler.command, handler.path, body, headers)
            answer = far.getresponse()
            data = answer.read()
            handler.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)

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

    def _stream(
        self, handler: BaseHTTPRequestHandler, answer: http.client.HTTPResponse, passage: Passage
    ) -> None:
        handler.close_connection = True
        handler.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                handler.send_header(name, value)
        handler.send_header("Connection", "close")
        handler.end_headers()
        left = passage.events
        far = answer.fp.raw._sock if answer.fp else None  # type: ignore[attr-defined]
        while far is not None and left != 0:
            ready, _, _ = select.select([far, handler.connection], [], [], 60)
            if handler.connection in ready and not handler.connection.recv(1):
                return  # the client has gone: so does its way to the service
            if far not in ready:
                continue
            block = answer.read1(65536)
            if not block:
                return
            if left is not None:
                events = block.split(b"\n\n")
                block = b"\n\n".join(events[:left]) + (b"\n\n" if len(events) > left else b"")
                left -= min(left, len(events) - 1)
            handler.wfile.write(passage.change(block))


def _wait_for_close(connection: socket.socket) -> None:
    connection.settimeout(60)
    while connection.recv(4096):
        pass
