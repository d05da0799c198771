"""``GET /stream?prompt=…``: ask and listen in one request, for curl and small pages."""

from flask import Blueprint, Response, request

from streaming import sse
from streaming.settings import Settings
from streaming.streams import Streams
from streaming.web import _orders
from streaming.web._responses import Wishes, cursor_of, event_stream


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("stream", __name__)

    @blueprint.get("/stream")
    def ask() -> Response:
        order = _orders.from_query(request, settings, streams)
        wishes = Wishes.of(request, "simple", lambda: order.asked)
        after = cursor_of(request)
        if request.method == "HEAD":
            return Response(content_type=sse.CONTENT_TYPE)
        if after.seq and not (order.key and streams.find(order.key)):
            # An EventSource that reconnects on its own must never start, and bill, a second run.
            return Response(status=204)
        stream_id = streams.start(order).stream_id
        reader = streams.reader(stream_id, after)
        if reader.ended:
            return Response(status=204)
        headers = {"Stream-Id": stream_id, "Content-Location": f"/streams/{stream_id}"}
        return event_stream(request, streams, settings, reader, wishes, headers)

    return blueprint
