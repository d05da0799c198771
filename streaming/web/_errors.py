"""Every refusal as JSON of one shape, with the request's id; never a page of HTML."""

import logging
import re
import secrets
from collections.abc import Callable

import msgspec
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from streaming.errors import CursorLost, InvalidRequest, NotFound, StreamingError

logger = logging.getLogger(__name__)

DIALECTS: dict[str, Callable[[StreamingError], Response]] = {}
"""How errors are told below an address, also to requests that no view took."""


def register(app: Flask) -> None:
    """Answer every exception of the views, and put the request's id on every answer."""
    app.register_error_handler(StreamingError, refuse)
    app.register_error_handler(HTTPException, _refuse_http)
    app.register_error_handler(Exception, _break)
    app.after_request(_identify)


def request_id() -> str:
    """Return this request's id: the caller's ``X-Request-Id`` if it is harmless, else a new one."""
    if "request_id" not in g:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = (
            given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else f"req_{secrets.token_hex(12)}"
        )
    found: str = g.request_id
    return found


def refuse(error: StreamingError) -> Response:
    body: dict[str, object] = {"error": error.info(request_id=request_id())}
    if isinstance(error, CursorLost):
        body["last_id"] = error.last_id
    response = json_response(body, error.status)
    if error.status == 401:
        # Source: RFC 6750, section 3.
        wrong = "" if error.code == "no_key" else ' error="invalid_token"'
        response.headers["WWW-Authenticate"] = f'Bearer realm="sluice"{wrong and ","}{wrong}'
    if error.status in (429, 503):
        response.headers["Retry-After"] = str(max(1, round(error.retry_after_seconds or 1)))
    return response


def json_response(body: object, status: int = 200) -> Response:
    response = Response(msgspec.json.encode(body) + b"\n", status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _refuse_http(error: HTTPException) -> Response:
    status = error.code or 500
    told = next((in_dialect for at, in_dialect in DIALECTS.items() if request.path.startswith(at)), refuse)
    if status == 404:
        return told(NotFound("there is nothing at this address"))
    messages = {405: "this address does not answer to that method", 413: "the body is too large"}
    codes = {405: "method", 413: "too_large", 400: "bad_request", 415: "content_type"}
    kind = InvalidRequest if status < 500 else StreamingError
    message = messages.get(status, "this request cannot be answered")
    response = told(kind(message, code=codes.get(status, "http"), status=status))
    if allowed := getattr(error, "valid_methods", None):
        response.headers["Allow"] = ", ".join(sorted(allowed))
    return response


def _break(error: Exception) -> Response:
    logger.exception("a request broke", extra={"request_id": request_id()})
    return refuse(StreamingError("something went wrong in this service"))


def _identify(response: Response) -> Response:
    response.headers["X-Request-Id"] = request_id()
    return response
