"""What is answered to bytes that are no request, in the shape of every other refusal.

Nothing of what the client sent is repeated: not in the answer, and not in the log.
"""

import secrets
from http import HTTPStatus
from typing import NamedTuple

import msgspec
from gunicorn.http import errors

from streaming.errors import InvalidRequest, RequestTimeout, StreamingError

_FORMS: tuple[tuple[type[BaseException], int, str, str], ...] = (
    (errors.LimitRequestLine, 414, "too_long", "the address is too long"),
    (errors.LimitRequestHeaders, 431, "too_large", "the headers are too large, or too many"),
    (errors.UnsupportedTransferCoding, 501, "framing", "Transfer-Encoding: chunked, and nothing else"),
    (errors.ExpectationFailed, 417, "expect", "Expect: 100-continue, and nothing else"),
    (errors.InvalidRequestMethod, 400, "method", "this is not an HTTP method"),
    (errors.InvalidHTTPVersion, 400, "version", "this is neither HTTP/1.0 nor HTTP/1.1"),
    (errors.InvalidRequestLine, 400, "request_line", "the first line is not one of HTTP/1.1"),
    (errors.ObsoleteFolding, 400, "header", "a header goes on in the next line, which HTTP/1.1 forbids"),
    (errors.InvalidHeaderName, 400, "header", "a header's name is not one"),
    (errors.InvalidHeader, 400, "header", "a header is missing, given twice, or not one of HTTP/1.1"),
    (errors.ForbiddenProxyRequest, 403, "proxy", "the PROXY protocol is not spoken here"),
    (errors.ParseException, 400, "http", "this is not HTTP/1.1"),
)


class Refusal(NamedTuple):
    status: int
    error: StreamingError

    @property
    def code(self) -> str:
        return self.error.code

    def encode(self) -> bytes:
        """Return the whole answer, which ends its connection."""
        body = (
            msgspec.json.encode({"error": self.error.info(request_id=f"req_{secrets.token_hex(12)}")}) + b"\n"
        )
        lines = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            "Connection: close",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
        )
        return "\r\n".join((*lines, "", "")).encode() + body


def refusal_of(error: BaseException) -> Refusal:
    """Return the answer to a request that ``error`` kept from its view."""
    if isinstance(error, RequestTimeout):
        return Refusal(error.status, error)
    for kind, status, code, message in _FORMS:
        if isinstance(error, kind):
            return Refusal(status, InvalidRequest(message, code=code, status=status))
    return Refusal(500, StreamingError("something went wrong in this service"))
