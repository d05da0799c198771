"""``GET /streams?follow=…``: several streams in one connection, for browsers that allow six."""

import random
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack

from flask import Blueprint, Request, Response, request, stream_with_context

from streaming import plugins, sse
from streaming.errors import InvalidRequest, StreamingError
from streaming.events import Cursor, Error, encode
from streaming.formats import Message, Wants, WireFormat
from streaming.reader import Reader
from streaming.settings import Settings
from streaming.several import Several
from streaming.streams import Streams
from streaming.web import _query
from streaming.web._errors import request_id
from streaming.web._responses import HEADERS, RECONNECT_MILLISECONDS, noticing

MOST_STREAMS = 64
"""As many as fit into the 4 KiB that servers take for an address."""
# An id becomes the name of events: not "error" or "message", which mean something to EventSource.
_FOLLOWED = re.compile(r"(st_[A-Za-z0-9_-]{1,100})(?:@([^@\s]{0,64}))?")


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("feed", __name__)

    @blueprint.get("/streams")
    def feed() -> Response:
        places = _places(request)
        wants = Wants(metrics=_query.flag(request, "metrics"))
        if request.headers.get("Last-Event-ID"):
            # The one id says where one of the streams was: to go on from the address would repeat the
            # others. This tells EventSource to stop; its owner opens a feed at the cursors it has now.
            return Response(status=204)
        readers: dict[Reader, WireFormat] = {}
        refused = b""
        for stream_id, after in places.items():
            wire_format: WireFormat = plugins.create("formats", "native", wants)
            try:
                readers[_reader(streams, stream_id, after)] = wire_format
            except StreamingError as error:
                refused += _in_band(stream_id, error)
        body = _body(request, streams, settings, readers, refused)
        response = Response(stream_with_context(body), headers=HEADERS)
        response.content_type = sse.CONTENT_TYPE
        return response

    return blueprint


def _places(request: Request) -> dict[str, str]:
    """Read ``follow=<id>@<cursor>``, which may be repeated. Raises `InvalidRequest`."""
    found: dict[str, str] = {}
    for followed in request.args.getlist("follow"):
        match = _FOLLOWED.fullmatch(followed)
        if match is None:
            raise InvalidRequest(
                "follow: looks like st_…@1.42, or st_… for all of a stream",
                code="wrong_value",
                param="follow",
            )
        if match[1] in found:
            raise InvalidRequest("follow: names a stream twice", code="wrong_value", param="follow")
        found[match[1]] = match[2] or ""
    if not found:
        raise InvalidRequest("follow: name at least one stream", code="required", param="follow")
    if len(found) > MOST_STREAMS:
        raise InvalidRequest(f"follow: at most {MOST_STREAMS} streams", code="too_many", param="follow")
    return found


def _reader(streams: Streams, stream_id: str, cursor: str) -> Reader:
    reader = streams.reader(stream_id, Cursor.parse(cursor))
    reader.tell_end_again()  # in a feed, silence would be taken for a model that thinks
    return reader


def _body(
    request: Request,
    streams: Streams,
    settings: Settings,
    readers: dict[Reader, WireFormat],
    refused: bytes,
) -> Iterator[bytes]:
    several = Several(list(readers))
    heartbeat_at = time.monotonic() + settings.heartbeat_seconds
    closes_at = time.monotonic() + settings.connection_seconds * random.uniform(0.9, 1.1)

    def leave() -> None:
        for reader in readers:
            reader.leave()

    with ExitStack() as presence:
        for reader in readers:
            try:
                presence.enter_context(streams.attending(reader))
            except StreamingError as error:
                several.drop(reader)
                refused += _in_band(reader.stream_id, error)
        presence.enter_context(noticing(request.environ, leave, settings))
        out = b"retry: %d\n" % RECONNECT_MILLISECONDS + (refused or sse.HEARTBEAT)
        while True:
            if out:
                yield out
                if time.monotonic() > closes_at:
                    return
                heartbeat_at = time.monotonic() + settings.heartbeat_seconds
            if several.ended or several.left:
                return
            heard = several.next(max(0.0, heartbeat_at - time.monotonic()))
            if heard is None:
                out = sse.HEARTBEAT if time.monotonic() >= heartbeat_at else b""
            elif heard.error:
                out = _in_band(heard.reader.stream_id, heard.error)
            else:
                name, wire_format = heard.reader.stream_id, readers[heard.reader]
                messages = (message for record in heard.records for message in wire_format.encode(record))
                out = b"".join([_frame(name, message) for message in messages])


def _frame(stream_id: str, message: Message) -> bytes:
    return sse.frame(message.data, message.id, stream_id)


def _in_band(stream_id: str, error: StreamingError) -> bytes:
    """Say what keeps one stream from being read; without an id, since its log does not hold that."""
    said = Error(error.info(partial=True, request_id=request_id()), done=True)
    return sse.frame(encode(said), event=stream_id)
