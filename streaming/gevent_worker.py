"""gunicorn's gevent worker: lean writes, a deadline for a request, refusals in our own words."""

import logging
import time
from typing import Any, NamedTuple

import gunicorn.util
from gunicorn.http.body import LengthReader
from gunicorn.http.errors import InvalidHeader, ParseException
from gunicorn.workers.ggevent import GeventWorker

from streaming.client_socket import ClientSocket
from streaming.errors import InvalidRequest, RequestTimeout
from streaming.http_refusals import refusal_of

logger = logging.getLogger(__name__)

LINGER_SECONDS = 5.0
"""How long the rest of a body that no view wanted is read: closed at once, a client would lose its answer."""
READ_BYTES = 65536


class Patience(NamedTuple):
    """How long clients may take; seconds and bytes per second."""

    head_seconds: float = 15.0
    body_seconds: float = 20.0
    body_bytes_per_second: float = 8192.0


class LeanGeventWorker(GeventWorker):  # type: ignore[misc]
    patience = Patience()
    """To be set before the first request."""
    connections = 0
    """Open ones of this process."""

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        if not hasattr(client, "cipher"):  # a TLS socket is more than its descriptor
            lean = ClientSocket(client.family, client.type, client.proto, fileno=client.detach())
            lean.expect_head(self.patience.head_seconds)
            client = lean
        LeanGeventWorker.connections += 1
        try:
            super().handle(listener, client, addr)
        finally:
            LeanGeventWorker.connections -= 1

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        if req.version >= (1, 1) and not any(name == "HOST" for name, _ in req.headers):
            raise InvalidHeader("HOST", req=req)
        if not isinstance(sock, ClientSocket):
            super().handle_request(listener_name, req, sock, addr)
            return
        sock.expect_nothing()
        # As gunicorn frames a body of which nobody said the length.
        sock.chunked = req.version > (1, 0) if self.cfg.protocol == "http" else None
        req.body.reader = _TimedReader(req, sock, self.patience)
        super().handle_request(listener_name, req, sock, addr)
        if not _skip_rest(req, sock):
            raise StopIteration  # as gunicorn ends a connection
        sock.expect_head(self.patience.head_seconds)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what never reached a view. gunicorn's own page would repeat what the client sent."""
        refusal = refusal_of(exc)
        path = str(getattr(req, "path", "") or "")[:200]
        fields = {"status": refusal.status, "code": refusal.code, "path": path}
        if refusal.status == 500:
            logger.error("a connection broke", exc_info=exc, extra=fields)
        else:
            logger.info("a request was refused before its view", extra=fields)
        try:
            if isinstance(client, ClientSocket):
                client.expect_nothing()
            client.settimeout(1.0)
            client.sendall(refusal.encode())
            gunicorn.util.close_graceful(client, timeout=1.0)
        except OSError:
            pass  # it has gone


class _TimedReader:
    """Reads one request's body, which has to come in time and in the form that was announced."""

    def __init__(self, req: Any, sock: ClientSocket, patience: Patience) -> None:
        self._req = req
        self._reader = req.body.reader
        self._sock = sock
        self._patience = patience
        self._deadline = 0.0

    def read(self, size: int) -> bytes:
        announced = self._reader.length if isinstance(self._reader, LengthReader) else 0
        if not announced and isinstance(self._reader, LengthReader):
            return b""
        self._deadline = self._deadline or time.monotonic() + self._patience.body_seconds
        self._sock.expect(self._deadline, self._patience.body_bytes_per_second)
        try:
            read: bytes = self._reader.read(size)
        except RequestTimeout:
            self._req.force_close()
            raise
        except ParseException:
            self._req.force_close()
            raise InvalidRequest("the body is not framed as HTTP/1.1 asks", code="framing") from None
        finally:
            self._deadline = self._sock.deadline
            self._sock.expect_nothing()
        if len(read) < min(size, announced):
            self._req.force_close()
            raise InvalidRequest("the body ended before its announced length", code="framing")
        return read


def _skip_rest(req: Any, sock: ClientSocket) -> bool:
    """Read what is left of a body, for a while; say whether its end was reached."""
    if req.body.failed:
        return False
    req.body.reader = getattr(req.body.reader, "_reader", req.body.reader)
    sock.expect(time.monotonic() + LINGER_SECONDS, float("inf"))
    try:
        while req.body.read(READ_BYTES):
            if time.monotonic() > sock.deadline:
                return False
    except (RequestTimeout, ParseException, OSError):
        return False
    finally:
        sock.expect_nothing()
    return True
