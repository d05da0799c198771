"""A server of the test's own, in this process, that gives whole answers or none."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import gevent
from gevent import socket
from gevent.event import Event as Flag
from gevent.server import StreamServer

from app import create_app
from streaming.eventlogs.memory import MemoryLog
from streaming.settings import Settings
from streaming.sources._routes import routes_of
from tests.web.conftest import FAST, Service

LEAK = "quoted-by-the-upstream"
KEY = "sk-of-the-service"

Answer = bytes | Callable[[socket.socket], object]
"""The bytes of a whole answer, or what to do with the connection."""


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def answer(value: object, status: int = 200, content_type: str = "application/json", **headers: str) -> bytes:
    """Return an answer, its value as JSON unless it is bytes; ``retry_after`` is ``Retry-After``."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    lines = [f"HTTP/1.1 {status} Status", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def refusal(status: int, code: str | None = None, **headers: str) -> bytes:
    said = {"message": f"{LEAK}: Bearer {KEY}", "type": "error", "code": code}
    return answer({"error": said}, status, **headers)


class Upstream:
    """Gives one answer after the other, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[Asked] = []
        self.left = Flag()
        """The client closed a connection whose answer was not complete."""
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.stop()

    def silence(self, connection: socket.socket) -> None:
        """An answer: none at all, until the client goes."""
        if not connection.recv(1):
            self.left.set()

    def drip(self, connection: socket.socket) -> None:
        """An answer: a byte now and then, without an end."""
        try:
            connection.sendall(answer(b" ").replace(b"Content-Length: 1", b"Content-Length: 1000000"))
            while True:
                connection.sendall(b" ")
                gevent.sleep(0.01)
        except OSError:
            self.left.set()

    def _serve(self, connection: socket.socket, _address: object) -> None:
        with connection, connection.makefile("rb") as reader:
            while first := reader.readline():
                method, path, _ = first.decode().split()
                lines = iter(lambda: reader.readline().decode().strip(), "")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = reader.read(int(headers.get("content-length", 0)))
                self.asked.append(Asked(method, path, headers, body))
                what = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if isinstance(what, bytes):
                    connection.sendall(what)
                else:
                    what(connection)
                    return


@contextmanager
def upstream_of(*answers: Answer) -> Iterator[Upstream]:
    upstream = Upstream(*answers)
    try:
        yield upstream
    finally:
        upstream.close()


@contextmanager
def service_on(
    upstream: Upstream | None, settings: Mapping[str, Any] | Settings | None = None
) -> Iterator[Service]:
    """The whole service, with that upstream; with ``None`` the demo model's."""
    if not isinstance(settings, Settings):
        there = {"openai_base_url": upstream.base_url, "openai_api_key": KEY} if upstream else {}
        settings = replace(FAST, **there, **(settings or {}))
    app = create_app(settings)
    log = app.extensions["streams"]._log
    assert isinstance(log, MemoryLog)
    service = Service(app, lambda: len(log._streams))
    try:
        yield service
    finally:
        service.streams.drain(0, 0)
        service.streams.close()
        if not settings.is_demo:  # the demo's client may be another service's too
            for route in routes_of(settings).all():
                route.client.close()
            routes_of.cache_clear()
