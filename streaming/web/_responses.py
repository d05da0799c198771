"""Turn a reader into a streaming response, and notice when its client has gone."""

import math
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import gevent
import gevent.socket
from flask import Request, Response, stream_with_context

from streaming import plugins, sse
from streaming.errors import Cancelled, InvalidRequest, Overloaded, StreamingError, Told
from streaming.events import Cursor, Done, Error, Record, decode, encode
from streaming.formats import Message, Wants, WireFormat
from streaming.reader import Merging, Reader
from streaming.settings import Settings
from streaming.streams import Streams
from streaming.web import _query
from streaming.web._errors import request_id
from streaming.web._straight import Straight

HEADERS = {
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}
RECONNECT_MILLISECONDS = 1000
MOST_BUFFERED_TOKENS = 1000
MOST_BUFFERED_MS = 5000
# How long tokens are held back when a client only says how many it wants together.
BUFFER_SECONDS = 0.25


def cursor_of(request: Request) -> Cursor:
    """Return where to continue: ``Last-Event-ID`` wins over ``?after=``. Raises `BadCursor`."""
    if len(request.args.getlist("after")) > 1:
        return Cursor.parse("repeated")
    asked = Cursor.parse(request.args.get("after", ""))
    last = request.headers.get("Last-Event-ID")
    return Cursor.parse(last) if last else asked


class Wishes(NamedTuple):
    """How one reader wants to hear a stream."""

    wire_format: WireFormat
    tokens: int = 0
    """Deltas to merge into one message, 0 or 1 for as they come."""
    seconds: float = 0.0
    """The longest a delta may wait for others."""

    @classmethod
    def of(
        cls, request: Request, default_format: str, asked: Callable[[], dict[str, Any]] | None = None
    ) -> "Wishes":
        """Read them from the query. Raises `InvalidRequest`; so do it before a run is started.

        ``asked`` returns what the run was asked, for the formats that tell it.
        """
        asked_format = _query.one(request, "format")
        name = default_format if asked_format is None else asked_format
        wants = Wants(
            metrics=_query.flag(request, "metrics"),
            usage=_query.flag(request, "usage"),
            request=asked() if asked else {},
        )
        wire_format: WireFormat = plugins.create("formats", name, wants)
        if wire_format.from_start and cursor_of(request).seq:
            raise InvalidRequest(
                f"format {name} begins at the start: it has no ids to continue from",
                code="wrong_value",
                param="after",
            )
        return cls(
            wire_format,
            _query.whole(request, "buffer_tokens", 0, 0, MOST_BUFFERED_TOKENS),
            _query.whole(request, "buffer_ms", 0, 0, MOST_BUFFERED_MS) / 1000,
        )

    def merging(self, reader: Reader) -> Reader | Merging:
        if self.tokens < 2 and not self.seconds:
            return reader
        return Merging(reader, self.tokens or MOST_BUFFERED_TOKENS, self.seconds or BUFFER_SECONDS)


def event_stream(
    request: Request,
    streams: Streams,
    settings: Settings,
    reader: Reader,
    wishes: Wishes,
    headers: Mapping[str, str],
    rotates: bool = False,
    waits_for_answer: bool = False,
) -> Response:
    """Return a response that follows ``reader`` to the stream's end.

    One that ``rotates`` is closed now and then before it; its client resumes.
    Whatever can be refused must have been refused before; later there is no
    status. One that ``waits_for_answer`` gives a run that fails before its
    answer begins the status of its error, by raising it; it blocks so long, but
    not longer than clients and routers wait for a first byte.
    """
    wire_format = wishes.wire_format
    source = wishes.merging(reader)
    is_sse = wire_format.media_type == "text/event-stream"
    frame = _sse_frame if is_sse else _line
    heartbeat = sse.HEARTBEAT if is_sse else b" "
    environ = request.environ
    held: list[Record] = []
    with ExitStack() as until_answered:
        until_answered.enter_context(streams.seated(reader))
        if waits_for_answer:
            until_answered.enter_context(_present(environ, streams, reader, settings))
            held = _await_answer(source, settings.heartbeat_seconds)
        presence = until_answered.pop_all()

    def encode_all(records: Sequence[Record]) -> bytes:
        return b"".join([frame(message) for record in records for message in wire_format.encode(record)])

    def body() -> Iterator[bytes]:
        straight = Straight(source, encode_all, environ)
        retry_due = wire_format.resumes
        heartbeat_at = time.monotonic() + settings.heartbeat_seconds
        closes_at = math.inf  # none is closed before it has told something
        lasts_seconds = settings.connection_seconds * random.uniform(0.9, 1.1) if rotates else math.inf
        began_at = time.monotonic()
        records: Sequence[Record] = held
        with presence:
            if not waits_for_answer:
                presence.enter_context(_present(environ, streams, reader, settings))
            while True:
                out = encode_all(records)
                if out:
                    if retry_due:
                        out = b"retry: %d\n" % RECONNECT_MILLISECONDS + out
                        retry_due = False
                elif time.monotonic() >= heartbeat_at:
                    out = heartbeat
                if out:
                    yield out
                    heartbeat_at = time.monotonic() + settings.heartbeat_seconds
                    closes_at = began_at + lasts_seconds
                    straight.open()
                if source.ended or source.left or time.monotonic() > closes_at:
                    return
                try:
                    records = source.next(max(0.0, min(heartbeat_at, closes_at) - time.monotonic()))
                except StreamingError as error:
                    yield b"".join(map(frame, _in_band(error, wire_format)))
                    return
                straight.settle()
                heartbeat_at = max(heartbeat_at, straight.wrote_at + settings.heartbeat_seconds)

    response = Response(stream_with_context(body()), headers={**HEADERS, **headers})
    response.call_on_close(presence.close)
    response.content_type = sse.CONTENT_TYPE if is_sse else wire_format.media_type
    response.headers.update(_fallback_header(held))
    return response


class WholeStream(NamedTuple):
    """All that a format says of a stream, and what the headers of the answer say besides."""

    messages: list[Message]
    headers: dict[str, str]


def whole_stream(
    request: Request, streams: Streams, settings: Settings, reader: Reader, wire_format: WireFormat
) -> WholeStream:
    """Return all messages of a stream, for an answer that is sent when it is complete.

    Blocks so long; its reader counts as present meanwhile. Raises the error that ended the run,
    and `Overloaded` if this worker stops.
    """
    whole = WholeStream([], {})
    with streams.seated(reader), _present(request.environ, streams, reader, settings):
        while not (reader.ended or reader.left):
            records = reader.next(settings.heartbeat_seconds)
            for record in records:
                if failure := _failure(record):
                    raise failure
                whole.messages.extend(wire_format.encode(record))
            whole.headers.update(_fallback_header(records))
    if not reader.ended:
        raise Overloaded("this worker is stopping", code="draining", retry_after_seconds=1)
    return whole


def _fallback_header(records: Sequence[Record]) -> dict[str, str]:
    """Return the header that says which model was asked last, if it is not the one that was named."""
    headers = {}
    for record in records:
        if record.is_a("status") and (model := getattr(decode(record.payload), "model", "")):
            headers["Stream-Fallback"] = model
    return headers


def _await_answer(source: Reader | Merging, seconds: float) -> list[Record]:
    """Return what comes first, up to the beginning of the answer; raise what ended the run before it."""
    held: list[Record] = []
    begun = False
    deadline = time.monotonic() + seconds
    while not (begun or source.ended or source.left) and (left := deadline - time.monotonic()) > 0:
        for record in source.next(left):
            if not begun and (failure := _failure(record)):
                raise failure
            held.append(record)
            begun = begun or not record.is_a("start", "status")
    return held


def _failure(record: Record) -> StreamingError | None:
    if record.is_a("done", "error"):
        match decode(record.payload):
            case Error() as last:
                return Told(last.error, last.status, last.retry_after_seconds)
            case Done("cancelled"):
                return Cancelled("the run was cancelled")
    return None


@contextmanager
def _present(
    environ: Mapping[str, Any], streams: Streams, reader: Reader, settings: Settings
) -> Iterator[None]:
    """Follow as a reader that has its seat, and is present until its client goes."""
    with streams.attending(reader, seated=True), noticing(environ, reader.leave, settings):
        yield


def _in_band(error: StreamingError, wire_format: WireFormat) -> list[Message]:
    """Say what keeps this reader from going on; without an id, since the log does not hold it."""
    said = Error(error.info(partial=True, request_id=request_id()), done=True)
    return [
        Message(message.data, event=message.event)
        for message in wire_format.encode(Record(0, 0, encode(said)))
    ]


def _sse_frame(message: Message) -> bytes:
    return sse.frame(message.data, message.id, message.event)


def _line(message: Message) -> bytes:
    return message.data + b"\n"


@contextmanager
def noticing(environ: Mapping[str, Any], gone: Callable[[], None], settings: Settings) -> Iterator[None]:
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
