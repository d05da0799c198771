"""A streaming client for measurements: many streams at once, every chunk of each checked.

``python -m bench.load JOB`` (a `Job` as JSON) prints a `Result` as JSON. One thread
and one epoll, see ``upstream.py``.

A stream is a success when its status is 200, its body well framed, its last text
holds ``end``, and each chunk came once and in order.
"""

import errno
import gc
import os
import select
import socket
import sys
import time
from array import array
from collections import Counter, deque

import msgspec
from msgspec import Struct

from bench._answer import Answer, BadAnswer
from bench._markers import Markers
from bench._processes import lift_descriptor_limit

READ_BYTES = 65536
END_BYTES = 800
LOOK_SECONDS = 0.2
MOST_SAMPLES = 4
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)


class Job(Struct, frozen=True):
    """What to ask, how often, and what must come."""

    port: int
    path: str
    method: str = "POST"
    body: str = ""
    headers: dict[str, str] = {}
    end: str = ""
    """What the last text of a complete stream holds."""
    chunks: int = 100
    first_chunk: int = 0
    at_once: int = 1
    total: int = 0
    """Streams in all; 0: one after the other for ``seconds``."""
    seconds: float = 0.0
    ramp_per_second: float = 0.0
    """How many streams may begin in a second; 0: all at once."""
    timeout_seconds: float = 120.0


class Result(Struct, frozen=True):
    ok: int
    failed: int
    chunks: int
    seconds: float
    """From the first request to the end of the last stream."""
    cpu_seconds: float
    """Of this driver."""
    reads: int
    first_token_ms: dict[str, float]
    """Quantile to milliseconds, from the request to the first chunk."""
    latency_ms: dict[str, float]
    """Quantile to milliseconds, from the upstream's write to this driver's read."""
    faults: dict[str, int]
    samples: list[str]


class Client:
    """One connection, and the stream that is on it."""

    __slots__ = (
        "answer",
        "asked_ns",
        "busy",
        "deadline",
        "heard",
        "markers",
        "reused",
        "sock",
        "tail",
        "unsent",
    )

    # Of the stream; set when one begins.
    answer: Answer
    markers: Markers
    heard: bool
    tail: bytes
    unsent: bytes
    asked_ns: int
    deadline: float

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.busy = False
        self.reused = False


class Load:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._request = _request(job)
        self._end = job.end.encode()
        self._poll = select.epoll()
        self._clients: dict[int, Client] = {}
        self._idle: deque[Client] = deque()
        self._latencies_ns = array("q")
        self._first_token_ns = array("q")
        self._faults: Counter[str] = Counter()
        self._samples: list[str] = []
        self._started = self._ok = self._chunks = self._reads = self._under_way = 0

    def run(self) -> Result:
        job = self._job
        begun = ended = time.monotonic()
        look_at = begun + LOOK_SECONDS
        # A server that refuses everything must not be asked for ever.
        most_faults = 3 * job.at_once + 100
        while True:
            now = time.monotonic()
            more = self._started < job.total if job.total else now - begun < job.seconds
            more = more and self._faults.total() < most_faults
            allowed = 1 + job.ramp_per_second * (now - begun) if job.ramp_per_second else sys.maxsize
            while more and self._under_way < job.at_once and self._started < allowed:
                self._start()
                more = self._started < job.total if job.total else True
            if not self._under_way and not more:
                break
            ramping = more and self._under_way < job.at_once
            for descriptor, what in self._poll.poll(0.001 if ramping else 0.05, 512):
                if client := self._clients.get(descriptor):
                    if what & select.EPOLLOUT:
                        self._write(client)
                    else:
                        self._read(client)
            ended = time.monotonic()
            if ended > look_at:
                look_at = ended + LOOK_SECONDS
                for client in [c for c in self._clients.values() if c.busy and c.deadline < ended]:
                    self._fail(client, "time-out")
        times = os.times()
        return Result(
            ok=self._ok,
            failed=self._faults.total(),
            chunks=self._chunks,
            seconds=ended - begun,
            cpu_seconds=times.user + times.system,
            reads=self._reads,
            first_token_ms=quantiles_ms(self._first_token_ns),
            latency_ms=quantiles_ms(self._latencies_ns),
            faults=dict(self._faults),
            samples=self._samples,
        )

    def _start(self) -> None:
        self._started += 1
        self._under_way += 1
        client = self._idle.popleft() if self._idle else self._connect()
        client.busy = True
        client.answer = Answer()
        client.markers = Markers(self._job.chunks, self._latencies_ns, self._job.first_chunk)
        client.heard = False
        client.tail = b""
        client.unsent = self._request
        client.deadline = time.monotonic() + self._job.timeout_seconds
        self._write(client)

    def _connect(self) -> Client:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect_ex(("127.0.0.1", self._job.port))  # how it went is told by the first write
        client = self._clients[sock.fileno()] = Client(sock)
        self._poll.register(sock, select.EPOLLIN)
        return client

    def _write(self, client: Client) -> None:
        try:
            client.unsent = client.unsent[client.sock.send(client.unsent) :]
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOTCONN):
                self._lost(client, error.strerror or "no connection")
                return
        client.asked_ns = time.monotonic_ns()
        self._poll.modify(client.sock, select.EPOLLOUT if client.unsent else select.EPOLLIN)

    def _read(self, client: Client) -> None:
        try:
            block = client.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(client, error.strerror or "reset")
            return
        now_ns = time.monotonic_ns()
        if not block or not client.busy:
            self._lost(client, "cut off")
            return
        self._reads += 1
        try:
            text = client.answer.feed(block)
        except BadAnswer as error:
            self._fail(client, str(error))
            return
        if text:
            if count := client.markers.feed(text, now_ns):
                self._chunks += count
                if not client.heard:
                    client.heard = True
                    self._first_token_ns.append(now_ns - client.asked_ns)
            client.tail = text if len(text) > END_BYTES else (client.tail + text)[-END_BYTES:]
        if client.answer.complete:
            self._finish(client)

    def _lost(self, client: Client, why: str) -> None:
        """The connection has ended."""
        if not client.busy:
            self._idle.remove(client)
            self._close(client)
        elif client.answer.end():
            self._finish(client)
        elif client.reused and not client.answer.status:
            # The server closed an idle connection just when it was used again: no answer was begun.
            self._close(client)
            self._under_way -= 1
            self._started -= 1
        else:
            self._fail(client, why)

    def _finish(self, client: Client) -> None:
        fault = client.markers.fault
        if client.answer.status != 200:
            self._fail(client, f"status {client.answer.status}")
        elif fault:
            # Named by its kind: how many it were is in the sample.
            self._fail(
                client,
                "chunks "
                + " and ".join(w for w in ("lost", "repeated", "reordered", "too many") if w in fault),
                fault,
            )
        elif self._end not in client.tail:
            self._fail(client, "no end")
        else:
            self._ok += 1
            self._under_way -= 1
            client.busy = False
            if client.answer.closes:
                self._close(client)
            else:
                client.reused = True
                self._idle.append(client)

    def _fail(self, client: Client, kind: str, detail: str = "") -> None:
        self._faults[kind] += 1
        self._under_way -= 1
        if len(self._samples) < MOST_SAMPLES:
            said = client.tail[-250:].decode("latin-1")
            self._samples.append(f"{detail or kind}; next chunk {client.markers.next}; last heard: {said!r}")
        self._close(client)

    def _close(self, client: Client) -> None:
        del self._clients[client.sock.fileno()]
        client.sock.close()


def quantiles_ms(values_ns: "array[int]") -> dict[str, float]:
    """Return the quantiles of times: `QUANTILES` to milliseconds. Empty when there are no times."""
    ordered = sorted(values_ns)
    last = len(ordered) - 1
    return {f"{q:g}": ordered[round(q * last)] / 1e6 for q in QUANTILES} if ordered else {}


def _request(job: Job) -> bytes:
    body = job.body.encode()
    lines = [
        f"{job.method} {job.path} HTTP/1.1",
        f"Host: 127.0.0.1:{job.port}",
        "User-Agent: bench",
        *map(": ".join, job.headers.items()),
    ]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def main() -> None:
    lift_descriptor_limit()
    load = Load(msgspec.json.decode(sys.argv[1], type=Job))
    gc.freeze()
    gc.disable()
    print(msgspec.json.encode(load.run()).decode())


if __name__ == "__main__":
    main()
