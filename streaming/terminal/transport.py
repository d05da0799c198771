"""Requests to a service: one connection each, bounded in time and size."""

import base64
import http.client
import time
from collections.abc import Iterator, Mapping
from typing import Protocol
from urllib.parse import unquote, urlsplit

MAX_BODY_BYTES = 64 * 1024 * 1024
BLOCK_BYTES = 65536


class Broken(Exception):
    """No answer, or only a part of one; the message says to people why."""


class Silent(Broken):
    """The connection stands, and nothing came for longer than it should."""


class Answer(Protocol):
    """An answer whose body was not read yet."""

    status: int

    @property
    def headers(self) -> Mapping[str, str]:
        """By their names in lower case."""

    def blocks(self) -> Iterator[bytes]:
        """Give out the body as it comes. Raises `Broken` when it is cut, or silent too long."""

    def expect_within(self, seconds: float) -> None:
        """Take a longer silence for a broken connection from now on."""

    def close(self) -> None: ...


class Transport(Protocol):
    def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", seconds: float = 10.0
    ) -> Answer:
        """Return the answer; ``seconds`` bound each wait. Raises `Broken`."""

    def close(self) -> None: ...


def read(answer: Answer, seconds: float) -> bytes:
    """Return the whole body, and close the answer. Raises `Broken`."""
    deadline = time.monotonic() + seconds
    body = b""
    try:
        for block in answer.blocks():
            body += block
            if len(body) > MAX_BODY_BYTES:
                raise Broken(f"its answer has more than {MAX_BODY_BYTES // 1024**2} MiB")
            if time.monotonic() > deadline:
                raise Broken("its answer takes too long")
    finally:
        answer.close()
    return body


class Remote:
    """A service at an address, which may have a path, and a name and password for a proxy."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        self._kind = kinds[parts.scheme]
        self._host, self._port = parts.hostname or "", parts.port
        self._path = parts.path.rstrip("/")
        self._headers = {"User-Agent": "sluice-terminal", "Connection": "close"}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"

    def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", seconds: float = 10.0
    ) -> Answer:
        """See `Transport`."""
        connection = self._kind(self._host, self._port, timeout=seconds)
        try:
            connection.request(method, self._path + path, body or None, {**self._headers, **headers})
            return RemoteAnswer(connection)
        except TimeoutError as error:
            connection.close()
            raise Silent("it does not answer in time") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            raise Broken(_reason(error)) from error

    def close(self) -> None:
        """Nothing is kept open between two requests."""


class RemoteAnswer:
    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        self._socket = connection.sock  # the response takes it over
        self._response = connection.getresponse()
        self.status = self._response.status
        self.headers = {name.lower(): value for name, value in self._response.getheaders()}

    def blocks(self) -> Iterator[bytes]:
        try:
            while block := self._response.read1(BLOCK_BYTES):
                yield block
        except TimeoutError as error:
            raise Silent("it fell silent") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Broken("the connection was cut") from error

    def expect_within(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def close(self) -> None:
        self._response.close()
        self._connection.close()


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.HTTPException | ValueError):
        return "it does not speak HTTP, or was cut off"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
