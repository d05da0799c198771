"""The service as its users meet it: processes, sockets and event streams.

``Upstream`` and ``Service`` run the two programs; ``EventReader`` is a browser's
``EventSource`` cut down to what a test wants to see. Nothing here imports the
service, and nothing here is patched by gevent.
"""

import contextlib
import ctypes
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tests.log_scan import SCAN
from tests.ports import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
SECRET_KEY = "sk-secret-live-key"
# How long a test waits for what has to come. None of these is a claim: on a machine that does other things
# besides, what takes a moment may take seconds.
PATIENCE_SECONDS = 20.0
START_SECONDS = 60.0
REQUEST_SECONDS = 60.0
# A worker that drains is gone after 23 s, and gunicorn kills it at 25.
STOP_SECONDS = 30.0

Result = TypeVar("Result")


def wait_until(condition: Callable[[], Result], seconds: float, what: str) -> Result:
    """Return the first true result of ``condition``, asked every 10 ms for ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s still not: {what}")
        time.sleep(0.01)
    return result


class Answer(NamedTuple):
    """One whole HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body, decoded."""
        return json.loads(self.body)


def request(
    port: int,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    timeout_seconds: float = REQUEST_SECONDS,
) -> Answer:
    """Return the answer to one request on a connection of its own; ``body`` is sent as JSON."""
    sent = dict(headers or {})
    SCAN.said(body)
    if body is not None:
        sent.setdefault("Content-Type", "application/json")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
    with contextlib.closing(connection):
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, fields, answer.read())


# Processes.


class Upstream:
    """``upstream.py`` as a process of its own."""

    def __init__(self) -> None:
        program = [sys.executable, str(Path(__file__).with_name("upstream.py")), "--with-parent"]
        self._process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        assert ready, "the upstream did not print its port"
        self.port = int(self._process.stdout.readline())
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    def log(self, token: str) -> list[dict[str, Any]]:
        """Return what happened to each request that carried ``token``, oldest first."""
        return request(self.port, "GET", f"/log?token={token}").json()["requests"]

    def stats(self) -> dict[str, int]:
        """Return counts: connections, open, requests, strays, playing, peak_playing."""
        return request(self.port, "GET", "/stats").json()

    def reset(self) -> None:
        """Forget the log and the counts."""
        request(self.port, "POST", "/reset")

    def let(self, gate: str, tokens: int | None = None) -> None:
        """Let so many tokens through, or all, of the answers whose script has this gate."""
        request(self.port, "POST", f"/let?gate={gate}" + (f"&tokens={tokens}" if tokens is not None else ""))

    def wait_for_request(self, token: str, seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """Return the first request that carried ``token``, once it is there."""
        return wait_until(lambda: self.log(token), seconds, f"the upstream has a request {token!r}")[0]

    def wait_for_close(self, token: str, seconds: float = PATIENCE_SECONDS) -> float:
        """Return when the client closed the connection of the last request with ``token``."""
        return wait_until(
            lambda: (found := self.log(token)) and found[-1]["t_closed_by_peer"],
            seconds,
            f"the upstream's client has closed the connection of {token!r}",
        )

    def stop(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait(timeout=10)
        assert self._process.stdout
        self._process.stdout.close()


class Service:
    """gunicorn with the service, in a session of its own, until ``stop`` or ``kill``.

    ``environment`` is added to what every test service gets; a value of ``None``
    removes the variable.
    """

    def __init__(
        self,
        directory: Path,
        upstream_url: str,
        workers: int = 1,
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = directory / f"service-{self.port}.log"
        SCAN.watch(self.log_file)
        variables = _inherited_environment() | {
            "EVENTLOG_URL": f"sqlite:///{(directory / 'log.db').absolute()}",
            "OPENAI_BASE_URL": upstream_url,
            "OPENAI_API_KEY": SECRET_KEY,
            "MODEL": "test-model",
            "RUNNABLES": "none",
            **(environment or {}),
        }
        bind = ["-b", f"127.0.0.1:{self.port}", "-w", str(workers)]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", *bind, "wsgi:app"],
                cwd=REPOSITORY,
                env={name: value for name, value in variables.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        try:
            wait_until(self.is_healthy, START_SECONDS, "the service answers /healthz with 200")
        except BaseException as failure:
            self.kill()
            raise AssertionError(f"the service did not start:\n{self.log_text()[-4000:]}") from failure

    def is_healthy(self) -> bool:
        """Return whether it answers; fails when gunicorn has ended."""
        code = self._process.poll()
        if code is not None:
            raise AssertionError(f"gunicorn ended with {code}")
        try:
            return request(self.port, "GET", "/healthz", timeout_seconds=2).status == 200
        except (OSError, http.client.HTTPException):
            return False

    # Talking to it.

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float = REQUEST_SECONDS,
    ) -> Answer:
        """Return the answer to one request on a connection of its own."""
        return request(self.port, method, path, body, headers, timeout_seconds)

    def create(self, prompt: str, **fields: object) -> str:
        """Create a stream and return its id."""
        answer = self.request(
            "POST", "/streams", {"prompt": prompt, **fields}, {"Accept": "application/json"}
        )
        assert answer.status == 201, answer
        created = answer.json()
        assert {"stream_id", "state", "links"} <= created.keys(), created
        assert answer.headers["location"].endswith(f"/streams/{created['stream_id']}"), answer.headers
        return created["stream_id"]

    def snapshot(self, stream_id: str, query: str = "") -> dict[str, Any]:
        """Return ``GET /streams/<id>`` as JSON."""
        answer = self.request("GET", f"/streams/{stream_id}{query}", headers={"Accept": "application/json"})
        assert answer.status == 200, answer
        return answer.json()

    def follow(
        self, stream_id: str, after: str | None = None, timeout_seconds: float = REQUEST_SECONDS
    ) -> "EventReader":
        """Return an open reader of a stream, after the cursor ``after``."""
        headers = {"Last-Event-ID": after} if after else {}
        return EventReader(self.port, timeout_seconds).open(f"/streams/{stream_id}", headers)

    def create_and_follow(self, prompt: str, **fields: object) -> "EventReader":
        """Return the reader that is the answer to creating a stream."""
        return EventReader(self.port).open("/streams", method="POST", body={"prompt": prompt, **fields})

    def log_text(self) -> str:
        """Return all that the service has written to stdout and stderr."""
        return self.log_file.read_text(errors="replace")

    # Ending it.

    def worker_pids(self) -> list[int]:
        """Return the process ids of the workers that live now."""
        master = self._process.pid
        try:
            return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]
        except FileNotFoundError:
            return []

    @property
    def pid(self) -> int:
        """The master's."""
        return self._process.pid

    def has_ended(self) -> bool:
        """Return whether the master is gone."""
        return self._process.poll() is not None

    def kill_worker(self) -> list[int]:
        """Kill every worker with SIGKILL and return their process ids; the master lives on."""
        pids = self.worker_pids()
        assert pids, "the service has no worker"
        kill_processes(*pids)
        return pids

    def kill(self) -> None:
        """Kill the master and the workers at once with SIGKILL."""
        # The group outlives its master: what is left of it has to go too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=PATIENCE_SECONDS)
        # A worker that is not quite dead still holds the port, which the next start may want.
        wait_until(lambda: not self._left(), PATIENCE_SECONDS, "every process of the service is dead")

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop with SIGTERM; fails when that takes over ``seconds`` or leaves a process."""
        if self._process.poll() is not None:
            self.kill()
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"the service ignored SIGTERM for {seconds} s:\n{self.log_text()[-4000:]}"
            ) from None
        try:
            # Who has ended by itself may not be gone in the same moment.
            wait_until(lambda: not self._left(), 5, f"no process of the service is left: {self._left()}")
        finally:
            self.kill()

    def _left(self) -> list[int]:
        """Return the processes of the service's session that are not dead."""
        return _processes_of_session(self._process.pid)


def kill_processes(*pids: int) -> None:
    """Kill processes with SIGKILL, and return when they are dead: until then they may still answer."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(_is_alive, pids)), PATIENCE_SECONDS, f"{pids} are dead")


def _is_alive(pid: int) -> bool:
    try:
        return _state_of(pid)[0] != "Z"
    except OSError:
        return False


def _state_of(pid: int) -> list[str]:
    """Return state, parent, group and session of a process. Source: proc(5), ``/proc/[pid]/stat``."""
    # The command's name is in brackets and may hold anything.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:4]


def _end_with_parent() -> None:
    """Have the kernel end this process when the tests are killed: nobody else would."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _inherited_environment() -> dict[str, str | None]:
    """Return our environment without what would send a test's traffic elsewhere."""
    foreign = ("OPENAI_", "LANGCHAIN_", "LANGSMITH_")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and not name.lower().endswith("_proxy")
    }


def _processes_of_session(session: int) -> list[int]:
    """Return the process ids of a session, zombies left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _parent, _group, session_id = _state_of(int(folder.name))
            if int(session_id) == session and state != "Z":
                found.append(int(folder.name))
    return found


# Event streams.


class SSEEvent(NamedTuple):
    """One dispatched event; ``received_at`` is CLOCK_MONOTONIC in seconds."""

    id: str
    event: str
    data: bytes
    received_at: float

    def json(self) -> dict[str, Any]:
        """Return the data, decoded."""
        return json.loads(self.data)

    @property
    def is_last(self) -> bool:
        """Whether this native or simple event ends its stream."""
        return self.json().get("done") is True


class EventParser:
    """Turns the bytes of an event stream into events, as they come.

    Source: HTML Living Standard 9.2.6, "Interpreting an event stream".
    """

    def __init__(self) -> None:
        self.comments: list[tuple[float, bytes]] = []
        self.retry: int | None = None
        self._buffer = b""
        self._started = False
        self._after_cr = False
        self._last_id = b""
        self._event = b""
        self._data: list[bytes] = []

    def feed(self, data: bytes, now: float) -> list[SSEEvent]:
        """Return the events that ``data`` completes."""
        self._buffer += data
        if not self._started:
            if len(self._buffer) < 3 and b"\xef\xbb\xbf".startswith(self._buffer):
                return []
            self._buffer = self._buffer.removeprefix(b"\xef\xbb\xbf")
            self._started = True
        return [event for line in self._lines() if (event := self._line(line, now))]

    def _lines(self) -> Iterator[bytes]:
        # A CR ends its line at once: to wait for the LF of a CRLF would hold the event back.
        while self._buffer:
            if self._after_cr:
                self._after_cr = False
                self._buffer = self._buffer.removeprefix(b"\n")
            ends = [at for at in (self._buffer.find(b"\n"), self._buffer.find(b"\r")) if at >= 0]
            if not ends:
                return
            end = min(ends)
            self._after_cr = self._buffer[end : end + 1] == b"\r"
            line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
            yield line

    def _line(self, line: bytes, now: float) -> SSEEvent | None:
        if not line:
            return self._dispatch(now)
        name, _colon, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not name:
            self.comments.append((now, value))
        elif name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value
        elif name == b"id" and b"\0" not in value:
            self._last_id = value
        elif name == b"retry" and value.isdigit():
            self.retry = int(value)
        return None

    def _dispatch(self, now: float) -> SSEEvent | None:
        event, data = self._event, self._data
        self._event, self._data = b"", []
        if not data:
            return None
        return SSEEvent(self._last_id.decode(), event.decode() or "message", b"\n".join(data), now)


class EventReader:
    """One connection to the service: send a request, then iterate over its events.

    Blocking, but bounded: after ``timeout_seconds`` from ``start`` every wait
    raises ``TimeoutError``. ``pump`` does one read, for use with a selector.
    """

    def __init__(
        self, port: int, timeout_seconds: float = REQUEST_SECONDS, version: str = "1.1", buffer_bytes: int = 0
    ) -> None:
        self._version = version
        self._buffer_bytes = buffer_bytes
        """Of the socket, for what is not read yet; 0: what the system gives."""
        self._port = port
        self._timeout_seconds = timeout_seconds
        self._socket: socket.socket | None = None
        self._parser = EventParser()
        self._waiting: list[SSEEvent] = []
        self._encoded = b""
        self._left: int | None = None
        self._chunked = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.raw = bytearray()
        self.body = bytearray()
        self.events: list[SSEEvent] = []
        self.ended = False
        self.whole = False
        """Whether the body came to its proper HTTP end."""

    def open(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: object = None,
    ) -> "EventReader":
        """Send the request and return when the answer's status and headers are there."""
        self.start(path, headers, method, body)
        while not self.status and not self.ended:
            self._waiting += self.pump()
        assert self.status, f"the connection ended before an answer: {bytes(self.raw)!r}"
        return self

    def start(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: object = None,
    ) -> None:
        """Connect and send the request."""
        self._deadline = time.monotonic() + self._timeout_seconds
        SCAN.said(body)
        payload = b"" if body is None else json.dumps(body).encode()
        fields = {"Host": f"127.0.0.1:{self._port}", "Accept": "text/event-stream", **(headers or {})}
        if body is not None:
            fields |= {"Content-Type": "application/json", "Content-Length": str(len(payload))}
        lines = [
            f"{method} {path} HTTP/{self._version}",
            *(f"{name}: {value}" for name, value in fields.items()),
        ]
        self._socket = socket.socket()
        if self._buffer_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
        self._socket.settimeout(self._timeout_seconds)
        self._socket.connect(("127.0.0.1", self._port))
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + payload)

    def fileno(self) -> int:
        """Return the socket's descriptor, for a selector."""
        assert self._socket
        return self._socket.fileno()

    def __iter__(self) -> Iterator[SSEEvent]:
        while True:
            while self._waiting:
                yield self._waiting.pop(0)
            if self.ended:
                return
            self._waiting += self.pump()

    def pump(self) -> list[SSEEvent]:
        """Read once from the socket and return the events that completes."""
        assert self._socket
        left = self._deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            data = self._socket.recv(65536)
        except TimeoutError:
            raise TimeoutError(
                f"no end after {self._timeout_seconds} s; last bytes: {bytes(self.raw[-400:])!r}"
            ) from None
        except ConnectionError:
            data = b""
        now = time.monotonic()
        self.raw += data
        self._encoded += data
        if not data:
            self.ended = True
        if not self.status and not self._read_head():
            return []
        body = self._read_body()
        self.body += body
        events = self._parser.feed(body, now) if self._is_event_stream else []
        self.events += events
        return events

    def read_all(self) -> bytes:
        """Return the whole body, once it has ended."""
        for _event in self:
            pass
        return bytes(self.body)

    def read(self, count: int) -> list[SSEEvent]:
        """Return the next ``count`` events; fails when the stream ends before."""
        events = []
        for event in self:
            events.append(event)
            if len(events) == count:
                return events
        raise AssertionError(f"the stream ended after {len(events)} of {count} events: {events}")

    def read_until(self, kind: str) -> SSEEvent:
        """Return the next native event of type ``kind``."""
        for event in self:
            if event.json()["type"] == kind:
                return event
        raise AssertionError(f"the stream ended without {kind!r}: {self.events}")

    @property
    def comments(self) -> list[tuple[float, bytes]]:
        """The comments so far, each with the time it came."""
        return self._parser.comments

    def close(self) -> None:
        """Close the socket now, whatever is under way."""
        if self._socket:
            self._socket.close()
        self.ended = True

    def __enter__(self) -> "EventReader":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def _is_event_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    def _read_head(self) -> bool:
        head, blank, rest = self._encoded.partition(b"\r\n\r\n")
        if not blank:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        fields = (line.partition(":") for line in lines)
        self.headers = {name.lower(): value.strip() for name, _colon, value in fields}
        self._encoded = rest
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        if self.status == 204:
            self._left = 0
        elif not self._chunked and "content-length" in self.headers:
            self._left = int(self.headers["content-length"])
        return True

    def _read_body(self) -> bytes:
        if self._chunked:
            return self._read_chunks()
        data, self._encoded = self._encoded, b""
        if self._left is None:
            self.whole = self.ended
        else:
            self._left -= len(data)
            if self._left <= 0:
                self.ended = self.whole = True
        return data

    def _read_chunks(self) -> bytes:
        body = b""
        while True:
            size, newline, rest = self._encoded.partition(b"\r\n")
            if not newline:
                return body
            count = int(size.partition(b";")[0], 16)
            if len(rest) < count + 2:
                return body
            body, self._encoded = body + rest[:count], rest[count + 2 :]
            if not count:
                self.ended = self.whole = True
                return body


# What native events say.


def times_asked(requests: list[dict[str, Any]]) -> int:
    """Count an upstream's requests, but once what was sent again: an idle connection may end just then."""
    return len(requests) - sum(each["reused"] and not each["t_headers_sent"] for each in requests[:-1])


def text_of(events: list[SSEEvent]) -> str:
    """Return the joined content of the ``token`` events."""
    return "".join(message["content"] for message in _messages(events) if message["type"] == "token")


def sequence_of(events: list[SSEEvent]) -> list[int]:
    """Return the sequence numbers of a stream read from its start, after checking them.

    No hole, nothing twice, and ``gen`` never falls.

    A message that carries several events says how many in ``n``; its id is the last one's.
    """
    gen, seq, numbers = 0, 0, []
    for event, message in zip(events, _messages(events), strict=True):
        next_gen, next_seq = (int(part) for part in event.id.split("."))
        assert next_gen >= gen, f"gen falls at {event}"
        assert next_seq == seq + message.get("n", 1), f"{event} does not follow seq {seq}"
        gen, seq = next_gen, next_seq
        numbers.append(seq)
    return numbers


def _messages(events: list[SSEEvent]) -> list[dict[str, Any]]:
    return [event.json() for event in events]
