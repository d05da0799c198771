"""Requests to a service as a doctor makes them: one connection each, with the time of all that comes."""

import base64
import http.client
import json
import os
import socket
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from streaming.doctor.measured import Tls

BLOCK_BYTES = 65536
MAX_LINE_BYTES = 1024 * 1024
MAX_BODY_BYTES = 4 * 1024 * 1024
USER_AGENT = "sluice-doctor"
_WALL_MINUS_CLOCK = time.time() - time.monotonic()


class Unreachable(Exception):
    """No answer; the message says to people why."""


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes
    http: str

    def json(self) -> Any:
        """Return the body decoded, None where it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Heard(NamedTuple):
    """One event or, without ``event``, one comment."""

    at: float
    """Seconds since 1970, by a clock that does not jump."""
    event: dict[str, Any] | None


class Stream:
    """An event stream that is being read. Close it."""

    def __init__(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._socket = connection.sock  # the answer takes it over
        self._answer = answer
        self.status = answer.status
        self.headers = _headers(answer)
        self.http = _version(answer)
        self.first_byte_at: float | None = None
        encoded = self.headers.get("content-encoding", "") in ("gzip", "deflate")
        self._inflate = zlib.decompressobj(wbits=47) if encoded else None
        self.silent = False
        """It fell silent for longer than was waited; otherwise the connection ended."""

    def heard(self, patience_seconds: float) -> Iterator[Heard]:
        """Give out what comes, each with its time, until the end or a silence of ``patience_seconds``."""
        rest = b""
        while True:
            self._socket.settimeout(patience_seconds)
            try:
                block = self._answer.read1(BLOCK_BYTES)
            except TimeoutError:
                self.silent = True
                return
            except (OSError, http.client.HTTPException, ValueError):
                return
            at = now()
            if not block:
                return
            self.first_byte_at = self.first_byte_at or at
            if self._inflate:
                try:
                    block = self._inflate.decompress(block, MAX_LINE_BYTES)
                except zlib.error:
                    return
            *lines, rest = (rest + block).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                return
            for line in lines:
                if line.startswith(b":"):
                    yield Heard(at, None)
                elif line.startswith(b"data:"):
                    event = _decoded(line[5:])
                    if event is not None:
                        yield Heard(at, event)

    def close(self) -> None:
        self._answer.close()
        self._connection.close()


class Way:
    """The way to a service at an address, which may have a path, and a name and password for a proxy."""

    def __init__(self, url: str, key: str = "") -> None:
        parts = urlsplit(url)
        self.url = url
        self._https = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._https else 80)
        self._path = parts.path.rstrip("/")
        self._headers = {"User-Agent": USER_AGENT}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        elif parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        seconds: float = 10.0,
    ) -> Reply:
        """Return a whole answer. Raises `Unreachable`."""
        with closing(self._connection(seconds)) as connection:
            return self._asked(connection, method, path, {"Connection": "close", **(headers or {})}, body)

    def ask_twice(self, path: str) -> tuple[Reply, bool]:
        """Return an answer, and whether its connection served a second request. Raises `Unreachable`."""
        with closing(self._connection(10.0)) as connection:
            first = self._asked(connection, "GET", path, {}, None)
            before = connection.sock
            if before is None:
                return first, False
            try:
                self._asked(connection, "GET", path, {}, None)
            except Unreachable:
                return first, False
            return first, connection.sock is before

    def stream(self, path: str, headers: Mapping[str, str] | None = None, seconds: float = 15.0) -> Stream:
        """Open an event stream; ``seconds`` bound the wait for its head. Raises `Unreachable`."""
        connection = self._connection(seconds)
        sent = {**self._headers, "Accept": "text/event-stream", "Connection": "close", **(headers or {})}
        try:
            connection.request("GET", self._path + path, None, sent)
            # The socket is asked for before the answer takes it over.
            sock = connection.sock
            answer = connection.getresponse()
            connection.sock = sock
            return Stream(connection, answer)
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            raise Unreachable(reason(error)) from error

    def upgrade(self, path: str, seconds: float = 10.0) -> int:
        """Ask for a WebSocket; return the status, 0 without an answer.

        Source: RFC 6455, section 4.1.
        """
        key = base64.b64encode(os.urandom(16)).decode()
        sent = {
            **self._headers,
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
        }
        with closing(self._connection(seconds)) as connection:
            try:
                connection.request("GET", self._path + path, None, sent)
                sock = connection.sock
                answer = connection.getresponse()
                if answer.status == 101:
                    with suppress(OSError):
                        sock.sendall(b"\x88\x80\0\0\0\0")  # a close frame, masked with zeros
                return answer.status
            except (OSError, http.client.HTTPException, ValueError):
                return 0

    def tls(self) -> Tls | None:
        """Return what TLS was agreed on, None without TLS. Raises `Unreachable`."""
        if not self._https:
            return None
        context = ssl.create_default_context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        try:
            with (
                socket.create_connection((self._host, self._port), timeout=10) as plain,
                context.wrap_socket(plain, server_hostname=self._host) as secure,
            ):
                return Tls(
                    secure.version() or "",
                    secure.selected_alpn_protocol() == "h2",
                    _days_left(secure.getpeercert() or {}),
                )
        except (OSError, ValueError) as error:
            raise Unreachable(reason(error)) from error

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
        return kind(self._host, self._port, timeout=seconds)

    def _asked(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
    ) -> Reply:
        try:
            connection.request(method, self._path + path, body, {**self._headers, **headers})
            answer = connection.getresponse()
            return Reply(answer.status, _headers(answer), answer.read(MAX_BODY_BYTES), _version(answer))
        except BrokenPipeError:
            # Refused before all of the body was sent; the answer may be there.
            with suppress(OSError, http.client.HTTPException):
                answer = connection.getresponse()
                return Reply(answer.status, _headers(answer), b"", _version(answer))
            raise Unreachable("the connection was closed while the request was sent") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(reason(error)) from error


def now() -> float:
    return _WALL_MINUS_CLOCK + time.monotonic()


def reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message}"
    if isinstance(error, http.client.HTTPException | ValueError):
        return "it does not speak HTTP, or was cut off"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _decoded(data: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(data)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _headers(answer: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value[:300] for name, value in answer.getheaders()[:100]}


def _version(answer: http.client.HTTPResponse) -> str:
    return {10: "1.0", 11: "1.1"}.get(answer.version, "?")


def _days_left(certificate: Mapping[str, Any]) -> float | None:
    try:
        ends = ssl.cert_time_to_seconds(certificate["notAfter"])
    except (KeyError, ValueError):
        return None
    return (ends - datetime.now(UTC).timestamp()) / 86400
