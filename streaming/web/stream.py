"""``GET /stream?prompt=…``: ask and listen in one request, for curl and small pages."""

from flask import Blueprint, Response, request

from streaming.settings import Settings
from streaming.streams import Streams
from streaming.web import _orders
from streaming.web._responses import cursor_of, event_stream, format_of


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("stream", __name__)

    @blueprint.get("/stream")
    def ask() -> Response:
        order = _orders.from_query(request, settings)
        wire_format = format_of(request, "simple")
        after = cursor_of(request)
        if order.key is None and after.seq:
            # An EventSource that reconnects on its own must never start, and bill, a second run.
            return Response(status=204)
        started = streams.start(order)
        reader = streams.reader(started.stream_id, after)
        if reader.ended:
            return Response(status=204)
        at = f"/streams/{started.stream_id}"
        return event_stream(
            request,
            streams,
            settings,
            reader,
            wire_format,
            {"Stream-Id": started.stream_id, "Content-Location": at},
        )

    return blueprint
