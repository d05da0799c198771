"""An HTTP/1.1 transport for httpx2 that passes a body on as it arrives.

httpx2's own yields one piece for each HTTP chunk, however many one read
brought, and drops a connection whose body was not read by the time it is
closed. This one yields what one read brought as one block, and keeps the
connection when the body was read to its end.

Heads are written and read by h11. Source of the rest: RFC 9112, sections 6
(message body) and 9 (connections).
"""

import select
import socket
import ssl
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import h11
import httpx2

from streaming.incoming import Incoming

BLOCK_BYTES = 64 * 1024
MAX_CHUNK_HEAD_BYTES = 4096


class HTTP1Transport(httpx2.BaseTransport):
    """Keeps idle connections, the last used first, for ``idle_seconds``."""

    def __init__(self, idle_seconds: float = 60.0, max_idle: int = 1000) -> None:
        self._tls = httpx2.create_ssl_context()
        self._idle: dict[_Origin, deque[_Connection]] = defaultdict(deque)
        self._idle_seconds = idle_seconds
        self._max_idle = max_idle

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        origin = _Origin.of(request.url)
        timeouts = request.extensions.get("timeout", {})
        connection = self._take_idle(origin)
        if connection is not None:
            try:
                return self._exchange(connection, request, timeouts)
            except _NeverAnswered:
                pass  # closed by the other side while it was idle: nothing was processed
        return self._exchange(self._connect(origin, request, timeouts), request, timeouts)

    def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    def keep(self, connection: "_Connection") -> None:
        """Take a connection back whose last body was read to its end."""
        connections = self._idle[connection.origin]
        connection.rest()
        connections.append(connection)
        if len(connections) > self._max_idle:
            connections.popleft().close()

    def _take_idle(self, origin: "_Origin") -> "_Connection | None":
        connections = self._idle[origin]
        while connections:
            connection = connections.pop()
            if time.monotonic() - connection.idle_since < self._idle_seconds and not connection.readable():
                return connection
            connection.close()
        return None

    def _connect(
        self, origin: "_Origin", request: httpx2.Request, timeouts: dict[str, float | None]
    ) -> "_Connection":
        try:
            sock = socket.create_connection((origin.host, origin.port), timeouts.get("connect"))
        except TimeoutError:
            raise httpx2.ConnectTimeout("connecting took too long", request=request) from None
        except (OSError, UnicodeError) as error:
            raise httpx2.ConnectError(str(error), request=request) from None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if origin.scheme == "https":
                sock = self._tls.wrap_socket(sock, server_hostname=origin.host)
            sock.settimeout(timeouts.get("read"))
        except TimeoutError:
            sock.close()
            raise httpx2.ConnectTimeout("the TLS handshake took too long", request=request) from None
        except OSError as error:
            sock.close()
            raise httpx2.ConnectError(str(error), request=request) from None
        except BaseException:
            sock.close()
            raise
        return _Connection(origin, sock)

    def _exchange(
        self, connection: "_Connection", request: httpx2.Request, timeouts: dict[str, float | None]
    ) -> httpx2.Response:
        connection.socket.settimeout(timeouts.get("read"))
        try:
            with _as_httpx2_errors(request):
                head, rest = connection.ask(request)
        except BaseException:
            connection.close()
            raise
        body = Body(self, connection, request, head, rest)
        return httpx2.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=body,
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": head.reason, "body": body},
        )


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: httpx2.URL) -> "_Origin":
        return cls(url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))


class _NeverAnswered(Exception):
    """A connection that served before was closed before the first byte of an answer."""


class _Connection:
    def __init__(self, origin: _Origin, sock: socket.socket) -> None:
        self.origin = origin
        self.socket = sock
        self.idle_since = 0.0
        self._requests = 0
        self._over_tls = isinstance(sock, ssl.SSLSocket)
        self._incoming: Incoming | None = Incoming(sock.fileno())

    def receive(self) -> bytes:
        """Return what has come; nothing at the end. Blocks. Raises ``OSError``."""
        # Over TLS it may be readable and yet have nothing to give.
        if self._incoming is not None and not self._over_tls and self.socket.gettimeout() is None:
            self._incoming.wait()
        return self.socket.recv(BLOCK_BYTES)

    def receive_now(self) -> bytes | None:
        """Return what has come, ``None`` if that is nothing yet. Never blocks. Raises ``OSError``.

        A block is larger than a record of TLS, so nothing stays behind that the loop would not tell of.
        """
        inner: Any = self.socket
        try:
            received: bytes
            received = inner._sslobj.read(BLOCK_BYTES) if self._over_tls else inner._sock.recv(BLOCK_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        except ssl.SSLZeroReturnError:
            return b""
        return received

    def pour(self, take: Callable[[], bool]) -> None:
        """See `Incoming.pour`; does nothing where waits have a time-out."""
        if self._incoming is not None and self.socket.gettimeout() is None:
            self._incoming.pour(take)

    def interrupt(self) -> None:
        if self._incoming is not None:
            self._incoming.interrupt()

    def rest(self) -> None:
        """Be idle from now on."""
        self.idle_since = time.monotonic()
        if self._incoming is not None:
            self._incoming.rest()

    def close(self) -> None:
        if self._incoming is not None:
            self._incoming.close()
            self._incoming = None
        self.socket.close()

    def readable(self) -> bool:
        """Say whether an idle connection has something to read, which can only be its end."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    def ask(self, request: httpx2.Request) -> tuple[h11.Response, bytes]:
        """Send the request; return the head of the answer and what came after it."""
        machine = h11.Connection(h11.CLIENT)
        self._requests += 1
        try:
            self._send(machine, request)
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            # A server may answer, with an error, before it has read the whole request.
        answered = False
        while True:
            event = machine.next_event()
            if isinstance(event, h11.Response):
                return event, machine.trailing_data[0]
            if event is not h11.NEED_DATA:
                continue
            try:
                received = self.receive()
            except (ConnectionError, ssl.SSLError):
                received = b""
            if not received and not answered:
                if self._requests > 1:
                    raise _NeverAnswered
                raise httpx2.RemoteProtocolError("closed without an answer", request=request)
            answered = True
            machine.receive_data(received)

    def _send(self, machine: h11.Connection, request: httpx2.Request) -> None:
        head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
        pieces = [machine.send(head)]
        assert isinstance(request.stream, httpx2.SyncByteStream)
        pieces += [machine.send(h11.Data(data=piece)) for piece in request.stream]
        pieces.append(machine.send(h11.EndOfMessage()))
        self.socket.sendall(b"".join(piece for piece in pieces if piece))


class Body(httpx2.SyncByteStream):
    """The body of one answer. Closing it early closes the connection.

    Responses have it in their ``extensions`` too, as ``body``: httpx2 wraps what it calls their stream.
    """

    def __init__(
        self,
        transport: HTTP1Transport,
        connection: _Connection,
        request: httpx2.Request,
        head: h11.Response,
        rest: bytes,
    ) -> None:
        self._transport = transport
        self._connection: _Connection | None = connection
        self._request = request
        self._framing = _framing(head, request.method)
        self._keep = not _says_close(head) and not isinstance(self._framing, _UntilClose)
        self._rest = rest
        self._poured = b""
        self._fault: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx2_errors(self._request):
            received = self._rest
            while not self._framing.ended:
                if received and (block := self._framing.feed(received)):
                    yield block
                    yield from self._left_by_pouring()
                if self._framing.ended or self._connection is None:
                    break
                received = self._connection.receive()
                if not received:
                    self._framing.end_of_file()
        self._finish()

    def pour(self, take: Callable[[bytes], bool]) -> None:
        """Give what comes to ``take``, called by the event loop, as long as it takes it.

        Only between two blocks of an iteration, which goes on with the block that was not taken, the
        end, or the fault. ``take`` must not block. Blocks, and raises what ``take`` does; returns at
        once where reads have a time-out.
        """
        if self._connection is not None and not self._framing.ended:
            self._connection.pour(partial(self._pour_block, self._connection, take))

    def interrupt(self) -> None:
        """Make ``pour`` return soon."""
        if self._connection is not None:
            self._connection.interrupt()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _pour_block(self, connection: _Connection, take: Callable[[bytes], bool]) -> bool:
        try:
            received = connection.receive_now()
            if received is None:
                return True
            if not received:
                return False  # the end: to be read again
            block = self._framing.feed(received)
        except (OSError, httpx2.RemoteProtocolError) as fault:
            self._fault = fault
            return False
        if block and not take(block):
            self._poured = block
            return False
        return not self._framing.ended

    def _left_by_pouring(self) -> Iterator[bytes]:
        while self._poured:
            block, self._poured = self._poured, b""
            yield block
        if self._fault is not None:
            raise self._fault

    def _finish(self) -> None:
        if self._connection is not None and self._keep and not self._framing.surplus:
            self._transport.keep(self._connection)
            self._connection = None
        self.close()


def _says_close(head: h11.Response) -> bool:
    connection = b",".join(value for name, value in head.headers if name == b"connection").lower()
    if head.http_version < b"1.1":
        return b"keep-alive" not in connection
    return b"close" in connection


def _framing(head: h11.Response, method: str) -> "_Chunked | _Length | _UntilClose":
    """Choose how the body ends. Source: RFC 9112, section 6.3."""
    headers = dict(head.headers)
    if method == "HEAD" or head.status_code in (204, 304):
        return _Length(0)
    if headers.get(b"transfer-encoding", b"").lower().endswith(b"chunked"):
        return _Chunked()
    if b"content-length" in headers:
        return _Length(int(headers[b"content-length"]))
    return _UntilClose()


class _Length:
    def __init__(self, length: int) -> None:
        self._left = length
        self.ended = length == 0
        self.surplus = False

    def feed(self, received: bytes) -> bytes:
        block = received[: self._left]
        self.surplus = len(received) > self._left
        self._left -= len(block)
        self.ended = self._left == 0
        return block

    def end_of_file(self) -> None:
        raise httpx2.RemoteProtocolError("closed before the end of the body")


class _UntilClose:
    ended = False
    surplus = False

    def feed(self, received: bytes) -> bytes:
        return received

    def end_of_file(self) -> None:
        self.ended = True


class _Chunked:
    """Source: RFC 9112, section 7.1. Trailers are read and dropped."""

    def __init__(self) -> None:
        self.ended = False
        self.surplus = False
        self._buffer = b""
        self._left = 0  # of the current chunk, with the CRLF after it
        self._in_trailers = False

    def feed(self, received: bytes) -> bytes:
        """Return the data in ``received``, the chunks' heads taken out."""
        buffer = self._buffer + received if self._buffer else received
        place = 0
        found: list[bytes] = []
        while place < len(buffer) and not self.ended:
            if self._left > 2:
                piece = buffer[place : place + self._left - 2]
                found.append(piece)
                place += len(piece)
                self._left -= len(piece)
            elif self._left:
                skip = min(self._left, len(buffer) - place)
                if not b"\r\n"[2 - self._left :].startswith(buffer[place : place + skip]):
                    raise httpx2.RemoteProtocolError("a chunk has no end")
                place += skip
                self._left -= skip
            else:
                end = buffer.find(b"\r\n", place)
                if end < 0:
                    if len(buffer) - place > MAX_CHUNK_HEAD_BYTES:
                        raise httpx2.RemoteProtocolError("the head of a chunk is too long")
                    break
                self._begin(buffer[place:end])
                place = end + 2
        self._buffer = buffer[place:]
        self.surplus = self.ended and bool(self._buffer)
        return found[0] if len(found) == 1 else b"".join(found)

    def end_of_file(self) -> None:
        raise httpx2.RemoteProtocolError("closed in the middle of a chunked body")

    def _begin(self, line: bytes) -> None:
        if self._in_trailers:
            self.ended = not line
            return
        digits = line.partition(b";")[0].strip()
        if not digits or digits.strip(b"0123456789abcdefABCDEF"):
            raise httpx2.RemoteProtocolError("a chunk's size is not a number")
        size = int(digits, 16)
        self._left = size + 2 if size else 0
        self._in_trailers = size == 0


@contextmanager
def _as_httpx2_errors(request: httpx2.Request) -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise httpx2.ReadTimeout("the upstream was silent for too long", request=request) from None
    except OSError as error:
        raise httpx2.ReadError(str(error), request=request) from None
    except h11.RemoteProtocolError as error:
        raise httpx2.RemoteProtocolError(str(error), request=request) from None
