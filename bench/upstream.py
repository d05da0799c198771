"""An upstream for measurements: chat completions, one write for each event, paced by a heap of timers.

``python -m bench.upstream`` prints its port and serves 127.0.0.1. One thread and
one epoll: it has to cost so little that the server under test is what is measured.

The request's prompt says by its knobs (``_knobs.py``) what is answered. Then come a
chunk with the role, the chunks with a marker each, one with the finish reason, one
with the usage if it was asked for, and ``[DONE]``. ``GET /stats`` tells what goes on.
"""

import contextlib
import gc
import heapq
import json
import re
import select
import socket
import time
from collections import deque

from bench._knobs import read_knobs
from bench._processes import lift_descriptor_limit

READ_BYTES = 65536
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

_HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: Mon, 06 Jan 2025 00:00:00 GMT\r\n"
    b"Content-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\nx-request-id: req_bench\r\n\r\n"
)
_CHUNK = (
    b'data: {"id":"chatcmpl-B9MBs8CjcvOU2jLn4n%06d","object":"chat.completion.chunk","created":1741569952,'
    b'"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_44709d6fcb",'
)
_ROLE = (
    b'"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},'
    b'"logprobs":null,"finish_reason":null}]%b}\n\n'
)
_TEXT = b'"choices":[{"index":0,"delta":{"content":"'
_TEXT_END = b'"},"logprobs":null,"finish_reason":null}]%b}\n\n'
_FINISH = b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]%b}\n\n'
_USAGE = b'"choices":[],"usage":{"prompt_tokens":19,"completion_tokens":%d,"total_tokens":%d}}\n\n'
_NO_USAGE = b',"usage":null'


class Connection:
    """A client's connection, and the stream it is being sent, if any."""

    __slots__ = (
        *("chunk_count", "delay_ns", "due_ns", "head", "held", "number", "open", "pad", "place", "sock"),
        *("streaming", "tail", "unsent", "usage"),
    )

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number  # tells timers apart that are due at once
        self.held = b""
        self.unsent = b""
        self.open = True
        self.streaming = False

    def begin(self, body: bytes, request_number: int) -> None:
        """Prepare the answer to a request."""
        knobs = read_knobs(body)
        self.usage = b'"include_usage":true' in body.replace(b" ", b"")
        self.chunk_count = knobs.chunks
        self.delay_ns = knobs.delay_us * 1000
        self.pad = knobs.chunk_chars
        self.due_ns = time.monotonic_ns() + knobs.first_us * 1000
        self.place = -1
        self.head = _CHUNK % (request_number % 1_000_000) + _TEXT
        self.tail = _TEXT_END % (_NO_USAGE if self.usage else b"")
        self.streaming = True

    def next_event(self) -> bytes:
        """Return the next event as one chunk of HTTP; after the last, ``streaming`` is false."""
        place = self.place
        self.place = place + 1
        if 0 <= place < self.chunk_count:
            text = b"@%d:%d@ " % (place, time.monotonic_ns())
            if len(text) < self.pad:
                text = text.ljust(self.pad, b"x")
            self.due_ns += self.delay_ns
            size = len(self.head) + len(text) + len(self.tail)
            return b"%x\r\n%b%b%b\r\n" % (size, self.head, text, self.tail)
        return self._other_event(place - self.chunk_count)

    def _other_event(self, after_last: int) -> bytes:
        start = self.head.removesuffix(_TEXT)
        null = _NO_USAGE if self.usage else b""
        if after_last < 0:
            event = start + _ROLE % null
        elif after_last == 0:
            event = start + _FINISH % null
        elif after_last == 1 and self.usage:
            event = start + _USAGE % (self.chunk_count, self.chunk_count + 19)
        else:
            self.streaming = False
            return b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
        return b"%x\r\n%b\r\n" % (len(event), event)


class Upstream:
    """The server; ``serve`` does not return."""

    def __init__(self) -> None:
        self.requests = 0
        self.events = 0
        self.streams = 0
        """Under way now."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._accepted = 0
        self._timers: list[tuple[int, int, Connection]] = []
        self._ready: deque[Connection] = deque()

    def serve(self) -> None:
        while True:
            self._wait()
            self._send_due()
            # As fast as it goes still is fair: one event each, in turn.
            for _ in range(len(self._ready)):
                self._send_event(self._ready.popleft())

    def _wait(self) -> None:
        seconds = 0.0
        if not self._ready:
            seconds = (self._timers[0][0] - time.monotonic_ns()) / 1e9 if self._timers else 60.0
        if seconds > 0:
            # epoll counts in milliseconds and would send what is due in bunches; select in microseconds.
            readable, _, _ = select.select([self._poll], [], [], seconds)
            if not readable:
                return
        for descriptor, what in self._poll.poll(0):
            connection = self._connections.get(descriptor)
            if connection is None:
                if descriptor == self._listener.fileno():
                    self._accept()
                continue
            if what & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._read(connection)
            if what & select.EPOLLOUT and connection.open:
                self._flush(connection)

    def _send_due(self) -> None:
        timers = self._timers
        now = time.monotonic_ns()
        while timers and timers[0][0] <= now:
            self._send_event(heapq.heappop(timers)[2])

    def _send_event(self, connection: Connection) -> None:
        if not connection.open or not connection.streaming:
            return
        self.events += 1
        self._send(connection, connection.next_event())
        if not connection.streaming:
            self.streams -= 1
            self._take_requests(connection)
        elif not connection.unsent:
            self._schedule(connection)

    def _schedule(self, connection: Connection) -> None:
        if connection.due_ns > time.monotonic_ns():
            heapq.heappush(self._timers, (connection.due_ns, connection.number, connection))
        else:
            self._ready.append(connection)

    def _send(self, connection: Connection, block: bytes) -> None:
        if not connection.open:
            return
        if connection.unsent:
            connection.unsent += block
            return
        try:
            sent = connection.sock.send(block)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(connection)
            return
        if sent < len(block):
            connection.unsent = block[sent:]
            self._poll.modify(connection.sock, select.EPOLLIN | select.EPOLLOUT)

    def _flush(self, connection: Connection) -> None:
        block, connection.unsent = connection.unsent, b""
        self._send(connection, block)
        if connection.open and not connection.unsent:
            self._poll.modify(connection.sock, select.EPOLLIN)
            if connection.streaming:
                self._schedule(connection)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._accepted += 1
            self._connections[sock.fileno()] = Connection(sock, self._accepted)
            self._poll.register(sock, select.EPOLLIN)

    def _drop(self, connection: Connection) -> None:
        if connection.open:
            connection.open = False
            self.streams -= connection.streaming
            connection.streaming = False
            del self._connections[connection.sock.fileno()]
            connection.sock.close()

    def _read(self, connection: Connection) -> None:
        try:
            block = connection.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            block = b""
        if not block:
            self._drop(connection)
            return
        connection.held += block
        self._take_requests(connection)

    def _take_requests(self, connection: Connection) -> None:
        """Begin to answer what is complete, one request after the other."""
        while connection.open and not connection.streaming:
            head, blank, rest = connection.held.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            size = int(length[1]) if length else 0
            if not blank or len(rest) < size:
                return
            connection.held = rest[size:]
            self._answer(connection, head, rest[:size])

    def _answer(self, connection: Connection, head: bytes, body: bytes) -> None:
        self.requests += 1
        path = head.split(b" ", 2)[1] if head.count(b" ") >= 2 else b""
        if head.startswith(b"POST ") and path.endswith(b"/chat/completions"):
            connection.begin(body, self.requests)
            self.streams += 1
            self._send(connection, _HEAD)
            if connection.open and not connection.unsent:
                self._schedule(connection)
        elif path == b"/stats":
            counts = {"requests": self.requests, "events": self.events, "streams": self.streams}
            self._send_json(connection, b"200 OK", counts)
        elif path.endswith(b"/models"):
            models = [{"id": "gpt-4o-mini", "object": "model", "created": 1721172741, "owned_by": "system"}]
            self._send_json(connection, b"200 OK", {"object": "list", "data": models})
        else:
            error = {"message": "not found", "type": "invalid_request_error", "param": None, "code": None}
            self._send_json(connection, b"404 Not Found", {"error": error})

    def _send_json(self, connection: Connection, status: bytes, what: object) -> None:
        body = json.dumps(what).encode()
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._send(connection, head % (status, len(body)) + body)


def main() -> None:
    lift_descriptor_limit()
    upstream = Upstream()
    print(upstream.port, flush=True)
    # Nothing here is a cycle; a collection would be a pause that looks like the server's.
    gc.freeze()
    gc.disable()
    with contextlib.suppress(KeyboardInterrupt):
        upstream.serve()


if __name__ == "__main__":
    main()
