"""``GET /stream?prompt=…``: ask and listen in one request, for curl and small pages.

It is the one GET that starts something, so a link or an image of another site's
page could. That is refused by what browsers tell of where a request comes from;
``STREAM_GET=off`` is for who does not need it.
"""

from urllib.parse import urlsplit

from flask import Blueprint, Request, Response, request

from streaming import sse
from streaming.errors import InvalidRequest, NotFound
from streaming.settings import Settings
from streaming.streams import Streams
from streaming.web import _orders
from streaming.web._responses import Wishes, cursor_of, event_stream


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("stream", __name__)

    @blueprint.get("/stream")
    def ask() -> Response:
        if settings.stream_get == "off":
            raise NotFound("there is nothing at this address")
        _check_referrer(request)
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


def _check_referrer(request: Request) -> None:
    """Refuse what another site's page asks for over plain HTTP, where browsers send no ``Sec-Fetch-Site``.

    A page can hide that it is the referrer: what is to be safe without HTTPS is switched off.
    """
    referrer = request.headers.get("Referer")
    if referrer and "Sec-Fetch-Site" not in request.headers and _host_of(referrer) != request.host:
        raise InvalidRequest("this was sent by another site's page", code="origin", status=403)


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""
