"""A model's server in this process, that answers each request with the next of its scripts."""

import contextlib
import json
import socket
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent.server import StreamServer

from tests.chunk_streams import chunk, says

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
JSON = dict[str, Any]
Script = Sequence["JSON | bytes | float"]

SILENCE = 3600.0


def text(*words: str, finish: str = "stop") -> list[JSON | bytes | float]:
    """Return the script of an answer that says these words."""
    return [*map(says, words), chunk(finish=finish), _usage(), b"data: [DONE]\n\n"]


def calls(
    *named: tuple[str, str, str], said: str = "", finish: str = "tool_calls"
) -> list[JSON | bytes | float]:
    """Return the script of an answer that calls tools: ids, names and arguments as text."""
    fragments = [
        {"index": i, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (call_id, name, arguments) in enumerate(named)
    ]
    before = [says(said)] if said else []
    called = [chunk({"tool_calls": [fragment]}) for fragment in fragments]
    return [*before, *called, chunk(finish=finish), _usage(), b"data: [DONE]\n\n"]


def _usage() -> JSON:
    return {**chunk(), "choices": [], "usage": USAGE}


class ModelDouble:
    """Numbers in a script are seconds to wait; bytes are sent as they are; at its end it closes.

    ``answer`` may choose the script by the request's body instead. The first
    requests get the statuses of ``fails``; with a ``status`` that is not 200 all do.
    """

    def __init__(
        self,
        *scripts: Script,
        answer: Callable[[JSON], Script] | None = None,
        status: bytes = b"200 OK",
        fails: Sequence[bytes] = (),
    ) -> None:
        self.asked: list[JSON] = []
        self.paths: list[str] = []
        self.gone = 0
        """Clients that closed their connection before the end."""
        self._scripts = list(scripts)
        self._answer = answer
        self._status = status
        self._fails = list(fails)
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.base_url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.stop(timeout=0.1)

    def _serve(self, connection: socket.socket, _: Any) -> None:
        with contextlib.suppress(OSError), connection.makefile("rb") as lines:
            self.paths.append(lines.readline().split()[1].decode())
            headers = {}
            while line := lines.readline().strip():
                name, _, value = line.partition(b":")
                headers[name.lower()] = value.strip()
            body = json.loads(lines.read(int(headers[b"content-length"])))
            self.asked.append(body)
            status = self._fails.pop(0) if self._fails else self._status
            if not status.startswith(b"200"):
                refused = b'{"error": {"message": "sk-secret", "code": "x"}}'
                connection.sendall(
                    b"HTTP/1.1 %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                    % (status, len(refused), refused)
                )
                return
            script = self._answer(body) if self._answer else self._scripts.pop(0)
            connection.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
            )
            watcher = gevent.spawn(self._watch, connection)
            try:
                for step in script:
                    if isinstance(step, float):
                        if watcher.join(step) or watcher.ready():
                            return
                    else:
                        data = step if isinstance(step, bytes) else _event(step)
                        connection.sendall(data)
            finally:
                watcher.kill()
                connection.shutdown(socket.SHUT_RDWR)

    def _watch(self, connection: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            while connection.recv(65536):
                pass
        self.gone += 1


def _event(said: JSON) -> bytes:
    name = f"event: {said['type']}\n" if "type" in said else ""
    return f"{name}data: {json.dumps(said)}\n\n".encode()
