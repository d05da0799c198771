"""One HTTP exchange: as little of a client as sees every byte, and every end, when it comes."""

import asyncio
import itertools
import json
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple

EXCHANGE_SECONDS = 20.0


class Lost(Exception):
    """There was no answer; ``sent`` says whether the request may have arrived."""

    def __init__(self, why: str, *, sent: bool) -> None:
        super().__init__(why)
        self.sent = sent


class Wire(asyncio.Protocol):
    """One request and its answer, whose body is handed over as it arrives."""

    _numbers = itertools.count(1)

    def __init__(self, request: bytes, on_body: "OnBody") -> None:
        loop = asyncio.get_running_loop()
        self.number = next(self._numbers)
        self.status = 0
        self.headers: dict[str, str] = {}
        self.head: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[str] = loop.create_future()
        """``whole``, ``cut`` (by the server, in the middle), or ``us``."""
        self.last_byte_at = time.monotonic()
        self.longest_silence = (self.last_byte_at, self.last_byte_at)
        self._request = request
        self._on_body = on_body
        self._buffer = b""
        self._chunk_left = -1
        self._left: int | None = None
        self._chunked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.status:
            self.note_silence()
        self.last_byte_at = time.monotonic()
        self._buffer += data
        if not self.status and not self._read_head():
            return
        try:
            body = self._read_chunks() if self._chunked else self._read_rest()
        except ValueError:
            self._end("cut")
            return
        if body:
            self._on_body(self, body)

    def eof_received(self) -> bool:
        self._end("whole" if self.status and not self._chunked and self._left is None else "cut")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._end("cut")

    def note_silence(self) -> None:
        """Remember the time since the last byte if it is the longest so far."""
        now = time.monotonic()
        start, end = self.longest_silence
        if now - self.last_byte_at > end - start:
            self.longest_silence = (self.last_byte_at, now)

    def close(self, *, reset: bool = False) -> None:
        """Leave, whatever is under way; with ``reset`` without the usual farewell."""
        self._end("us")
        if reset and not self._transport.is_closing():
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _end(self, how: str) -> None:
        if not self.ended.done():
            if self.status:
                self.note_silence()
            self.ended.set_result(how)
        if not self.head.done():
            self.head.set_exception(Lost("no answer", sent=True))
            self.head.exception()  # taken note of: somebody may have left before it came
        if how != "us":
            self._transport.close()

    def _read_head(self) -> bool:
        head, blank, rest = self._buffer.partition(b"\r\n\r\n")
        if not blank:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        fields = (line.partition(":") for line in lines)
        self.headers = {name.lower(): value.strip() for name, _, value in fields}
        self._buffer = rest
        self._chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        if self.status == 204:
            self._left = 0
        elif not self._chunked and "content-length" in self.headers:
            self._left = int(self.headers["content-length"])
        if not self.head.done():
            self.head.set_result(None)
        return True

    def _read_rest(self) -> bytes:
        body, self._buffer = self._buffer, b""
        if self._left is not None:
            self._left -= len(body)
            if self._left <= 0:
                asyncio.get_running_loop().call_soon(self._end, "whole")
        return body

    def _read_chunks(self) -> bytes:
        found = []
        while True:
            if self._chunk_left < 0:
                line, newline, rest = self._buffer.partition(b"\r\n")
                if not newline:
                    break
                self._buffer = rest
                self._chunk_left = int(line, 16) + 2
            if len(self._buffer) < self._chunk_left:
                break
            found.append(self._buffer[: self._chunk_left - 2])
            self._buffer = self._buffer[self._chunk_left :]
            is_last, self._chunk_left = self._chunk_left == 2, -1
            if is_last:
                asyncio.get_running_loop().call_soon(self._end, "whole")
                break
        return b"".join(found)


OnBody = Callable[[Wire, bytes], None]


async def connect(
    port: int,
    method: str,
    path: str,
    on_body: OnBody,
    headers: dict[str, str] | None = None,
    body: object = None,
) -> Wire:
    """Return a connection on which the request was sent. Raises ``Lost``."""
    payload = b"" if body is None else json.dumps(body).encode()
    fields = {"Host": f"127.0.0.1:{port}", "Connection": "close", **(headers or {})}
    if body is not None:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(payload))}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    request = "\r\n".join([*lines, "", ""]).encode("latin-1") + payload
    try:
        opening = asyncio.get_running_loop().create_connection(
            lambda: Wire(request, on_body), "127.0.0.1", port
        )
        _, wire = await asyncio.wait_for(opening, EXCHANGE_SECONDS)
    except (OSError, TimeoutError) as error:
        raise Lost(str(error), sent=False) from None
    return wire


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any
    """Decoded where it is JSON, else bytes."""


async def exchange(
    port: int,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: object = None,
    seconds: float = EXCHANGE_SECONDS,
) -> Answer:
    """Return one whole answer. Raises ``Lost``."""
    blocks: list[bytes] = []
    wire = await connect(port, method, path, lambda _, block: blocks.append(block), headers, body)
    try:
        how = await asyncio.wait_for(asyncio.shield(wire.ended), seconds)
    except TimeoutError:
        raise Lost(f"no whole answer in {seconds} s", sent=True) from None
    finally:
        wire.close()
    if how != "whole" or not wire.status:
        raise Lost("the answer was cut off", sent=True)
    whole = b"".join(blocks)
    if wire.headers.get("content-type", "").startswith("application/json"):
        return Answer(wire.status, wire.headers, json.loads(whole))
    return Answer(wire.status, wire.headers, whole)
