"""Turn a reader into a streaming response, and notice when its client has gone."""

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import gevent
import gevent.socket
from flask import Request, Response, stream_with_context

from streaming import plugins, sse
from streaming.errors import InvalidRequest
from streaming.events import Cursor
from streaming.formats import Message, WireFormat
from streaming.reader import Merging, Reader
from streaming.settings import Settings
from streaming.streams import Streams

HEADERS = {
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}
RECONNECT_MILLISECONDS = 1000


def cursor_of(request: Request) -> Cursor:
    """Return where to continue: ``Last-Event-ID`` wins over ``?after=``. Raises `BadCursor`."""
    if len(request.args.getlist("after")) > 1:
        return Cursor.parse("repeated")
    return Cursor.parse(request.headers.get("Last-Event-ID") or request.args.get("after", ""))


def format_of(request: Request, default: str) -> WireFormat:
    """Return the wire format asked for. Raises `InvalidRequest`."""
    name = request.args.get("format", default)
    wire_format: WireFormat = plugins.create("formats", name, show_metrics=_flag(request, "metrics"))
    return wire_format


def event_stream(
    request: Request,
    streams: Streams,
    settings: Settings,
    reader: Reader,
    wire_format: WireFormat,
    headers: Mapping[str, str] | None = None,
    status: int = 200,
) -> Response:
    """Return a response that follows ``reader`` to the stream's end.

    Whatever can be refused must have been refused before; later there is no status.
    """
    tokens = _number(request, "buffer_tokens", 1, 1000)
    seconds = _number(request, "buffer_ms", 0, 5000) / 1000
    merging = Merging(reader, tokens or 1000, seconds or 0.05) if tokens > 1 or seconds else None
    is_sse = wire_format.media_type == "text/event-stream"
    frame = _sse_frame if is_sse else _line
    heartbeat = sse.HEARTBEAT if is_sse else b" "

    def body() -> Iterator[bytes]:
        with streams.attending(reader), _noticing(request.environ, reader.leave, settings):
            retry_due = is_sse
            source = merging or reader
            while not (source.ended or source.left):
                records = source.next(settings.heartbeat_seconds)
                out = b"".join(
                    [frame(message) for record in records for message in wire_format.encode(record)]
                )
                if out and retry_due:
                    out = b"retry: %d\n" % RECONNECT_MILLISECONDS + out
                    retry_due = False
                if out:
                    yield out
                elif not records and not source.left and not source.ended:
                    yield heartbeat

    response = Response(stream_with_context(body()), status, HEADERS)
    response.content_type = sse.CONTENT_TYPE if is_sse else wire_format.media_type
    response.headers.update(headers or {})
    return response


def _sse_frame(message: Message) -> bytes:
    return sse.frame(message.data, message.id)


def _line(message: Message) -> bytes:
    return message.data + b"\n"


@contextmanager
def _noticing(environ: Mapping[str, Any], gone: Callable[[], None], settings: Settings) -> Iterator[None]:
    """Call ``gone`` when the client closes its connection, also while nothing is written.

    A client that never reads is dropped by the socket's time-out. Does nothing
    where the server does not show its socket, or over TLS, which can't be peeked.
    """
    sock = environ.get("gunicorn.socket")
    if not isinstance(sock, socket.socket) or hasattr(sock, "cipher"):
        yield
        return
    before = sock.gettimeout()
    sock.settimeout(settings.write_timeout_seconds)
    watcher = gevent.spawn(_watch, sock, gone)
    try:
        yield
    finally:
        watcher.kill(block=False)
        sock.settimeout(before)


def _watch(sock: socket.socket, gone: Callable[[], None]) -> None:
    while True:
        try:
            gevent.socket.wait_read(sock.fileno())
            if sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                return  # a pipelined request: its bytes are not ours, and stay readable
        except BlockingIOError:
            continue
        except (OSError, gevent.socket.cancel_wait_ex):
            pass
        gone()
        return


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.args.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) <= most):
        raise InvalidRequest(f"{name}: a whole number up to {most}", code="wrong_value", param=name)
    return int(text)


def _flag(request: Request, name: str) -> bool:
    text = request.args.get(name, "0")
    if text not in ("0", "1", "true", "false"):
        raise InvalidRequest(f"{name}: 0 or 1", code="wrong_value", param=name)
    return text in ("1", "true")


def seconds_of(request: Request, name: str, most: float) -> float:
    """Return a duration parameter, 0 when it is absent; more than ``most`` counts as ``most``."""
    text = request.args.get(name, "")
    if not text:
        return 0.0
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise InvalidRequest(f"{name}: a number of seconds", code="wrong_value", param=name)
    return min(seconds, most)
