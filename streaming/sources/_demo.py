"""The built-in demo model: an in-process transport that speaks OpenAI's chat completions and embeddings.

Give it to ``OpenAI(http_client=DefaultHttpx2Client(transport=DemoTransport()))``,
and to LangChain or the Agents SDK the same way: they run for real, with no key
and no network. The text/event-stream written here is the upstream's, not the
service's own.
"""

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from typing import NamedTuple

import httpx2
import msgspec

from streaming.sources._demo_completion import Completion, Piece
from streaming.sources._demo_embeddings import embed
from streaming.sources._demo_request import BadRequest, read_request

MODEL = "demo"

_MODEL_CARD = {"id": MODEL, "object": "model", "created": 1767225600, "owned_by": "sluice"}


class DemoTransport(httpx2.BaseTransport):
    """Answers every request itself, at a model's pace.

    The first content token comes after ``first_token_seconds``, the others at
    ``tokens_per_second`` for each choice. At 0 or infinity nothing ever sleeps.
    """

    def __init__(self, tokens_per_second: float = 60.0, first_token_seconds: float = 0.05) -> None:
        self._pace = _Pace(tokens_per_second, first_token_seconds)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        started = time.monotonic()
        reply = _reply(request.method, request.url.path, request.read())
        if due := self._pace.due(reply.headers_at_token):
            time.sleep(_until(started + due))
        return reply.response(_Body(reply.pieces, self._pace, started))


class AsyncDemoTransport(httpx2.AsyncBaseTransport):
    """``DemoTransport`` for asynchronous clients."""

    def __init__(self, tokens_per_second: float = 60.0, first_token_seconds: float = 0.05) -> None:
        self._pace = _Pace(tokens_per_second, first_token_seconds)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        started = time.monotonic()
        reply = _reply(request.method, request.url.path, await request.aread())
        if due := self._pace.due(reply.headers_at_token):
            await asyncio.sleep(_until(started + due))
        return reply.response(_AsyncBody(reply.pieces, self._pace, started))


# Pace


class _Pace(NamedTuple):
    tokens_per_second: float
    first_token_seconds: float

    def due(self, token: int) -> float:
        """Return the seconds from a request to its ``token``-th token; 0.0 means at once.

        >>> _Pace(10.0, 0.5).due(0), _Pace(10.0, 0.5).due(1), _Pace(10.0, 0.5).due(6)
        (0.0, 0.5, 1.0)
        """
        if token == 0 or not 0 < self.tokens_per_second < math.inf:
            return 0.0
        return self.first_token_seconds + (token - 1) / self.tokens_per_second


def _until(due: float) -> float:
    # Behind schedule the sleep is of 0 seconds, and still lets others run.
    return max(0.0, due - time.monotonic())


class _Body(httpx2.SyncByteStream):
    """The pieces, each at its time.

    A stream may be closed while another greenlet sleeps inside it. Closing the
    generator would raise ``ValueError`` there, so it looks at a flag instead.
    """

    def __init__(self, pieces: Iterable[Piece], pace: _Pace, started: float) -> None:
        self._closed = False
        self._paced = self._each(pieces, pace, started)

    def __iter__(self) -> Iterator[bytes]:
        return self._paced

    def close(self) -> None:
        self._closed = True

    def _each(self, pieces: Iterable[Piece], pace: _Pace, started: float) -> Iterator[bytes]:
        for piece in pieces:
            if due := pace.due(piece.at_token):
                time.sleep(_until(started + due))
            if self._closed:
                raise httpx2.ReadError("the response was closed while it was read")
            yield piece.content


class _AsyncBody(httpx2.AsyncByteStream):
    # One generator for all iterations: after [DONE] the SDK iterates once more
    # to drain the rest, and must not be sent the answer again.

    def __init__(self, pieces: Iterable[Piece], pace: _Pace, started: float) -> None:
        self._closed = False
        self._paced = self._each(pieces, pace, started)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._paced

    async def aclose(self) -> None:
        self._closed = True

    async def _each(
        self, pieces: Iterable[Piece], pace: _Pace, started: float
    ) -> AsyncGenerator[bytes, None]:
        for piece in pieces:
            if due := pace.due(piece.at_token):
                await asyncio.sleep(_until(started + due))
            if self._closed:
                raise httpx2.ReadError("the response was closed while it was read")
            yield piece.content


# Routes


class _Reply(NamedTuple):
    status: int
    content_type: str
    digest: str
    headers_at_token: int
    pieces: Iterable[Piece]

    def response(self, body: httpx2.SyncByteStream | httpx2.AsyncByteStream) -> httpx2.Response:
        headers = {"content-type": self.content_type, "x-request-id": f"req_{self.digest[:32]}"}
        return httpx2.Response(self.status, headers=headers, stream=body)


def _reply(method: str, path: str, body: bytes) -> _Reply:
    digest = hashlib.sha256(body).hexdigest()
    if method == "POST" and path.endswith("/chat/completions"):
        try:
            completion = Completion(read_request(body), digest)
        except BadRequest as error:
            return _error(400, str(error), digest, param=error.param, code=error.code)
        if completion.streamed:
            return _Reply(200, "text/event-stream; charset=utf-8", digest, 0, completion.events())
        return _whole(200, completion.whole(), digest, at_token=completion.length)
    if method == "POST" and path.endswith("/embeddings"):
        try:
            return _whole(200, embed(body), digest)
        except BadRequest as error:
            return _error(400, str(error), digest, param=error.param, code=error.code)
    if method == "GET" and path.endswith("/models"):
        return _whole(200, {"object": "list", "data": [_MODEL_CARD]}, digest)
    if method == "GET" and path.endswith(f"/models/{MODEL}"):
        return _whole(200, _MODEL_CARD, digest)
    if method == "GET" and "/models/" in path:
        message = f"The model {path.rpartition('/models/')[2]!r} does not exist"
        return _error(404, message, digest, param="model", code="model_not_found")
    return _error(404, f"Unknown request URL: {method} {path}", digest, code="unknown_url")


def _whole(status: int, content: Mapping[str, object], digest: str, at_token: int = 0) -> _Reply:
    return _Reply(status, "application/json", digest, at_token, [Piece(0, msgspec.json.encode(content))])


def _error(
    status: int, message: str, digest: str, param: str | None = None, code: str | None = None
) -> _Reply:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return _whole(status, {"error": error}, digest)
