"""``/streams``: create a run, follow it, look at it, cancel it, erase it."""

from flask import Blueprint, Response, request

from streaming.settings import Settings
from streaming.streams import Started, Streams
from streaming.web import _orders, _query
from streaming.web._errors import json_response
from streaming.web._responses import Wishes, cursor_of, event_stream


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("streams", __name__, url_prefix="/streams")

    @blueprint.post("")
    def start() -> Response:
        order = _orders.from_body(request, settings, streams)
        follow = _wants_events()
        wishes = Wishes.of(request, "native", lambda: order.asked)
        started = streams.start(order)
        headers = _headers(started)
        if follow:
            reader = streams.reader(started.stream_id)
            return event_stream(request, streams, settings, reader, wishes, headers)
        state = "running" if not started.replayed else streams.snapshot(started.stream_id).state
        body = {"stream_id": started.stream_id, "state": state, "links": _links(started.stream_id)}
        response = json_response(body, 200 if started.replayed else 201)
        response.headers.update(headers)
        return response

    @blueprint.get("/<stream_id>")
    def follow(stream_id: str) -> Response:
        after = cursor_of(request)
        # All that was asked is checked, also what only the other kind of answer looks at.
        wait_seconds = _query.seconds(request, "wait", settings.max_wait_seconds)
        events = _query.flag(request, "events")
        follows = _wants_events()
        wishes = Wishes.of(request, "native", (lambda: streams.asked(stream_id)) if follows else None)
        if not follows:
            streams.check_poll()
            return json_response(streams.snapshot(stream_id, after, wait_seconds, events))
        reader = streams.reader(stream_id, after)
        if reader.ended:
            return Response(status=204)  # tells EventSource to stop reconnecting
        headers = {"Stream-Id": stream_id}
        rotates = wishes.wire_format.resumes
        return event_stream(request, streams, settings, reader, wishes, headers, rotates)

    @blueprint.post("/<stream_id>/cancel")
    def cancel(stream_id: str) -> Response:
        receipt = streams.cancel(stream_id)
        return json_response(receipt, 202 if receipt.state == "cancelling" else 200)

    @blueprint.delete("/<stream_id>")
    def erase(stream_id: str) -> Response:
        streams.erase(stream_id)
        return Response(status=204)

    return blueprint


def _wants_events() -> bool:
    """Say whether the caller wants to follow, rather than one JSON object.

    ``?format=`` asks to follow; so does accepting an event stream before JSON.
    """
    if "format" in request.args:
        return True
    accepted = request.accept_mimetypes
    return accepted["text/event-stream"] > accepted["application/json"]


def _headers(started: Started) -> dict[str, str]:
    at = f"/streams/{started.stream_id}"
    headers = {"Stream-Id": started.stream_id, "Location": at, "Content-Location": at}
    if started.replayed:
        headers["Idempotent-Replayed"] = "true"
    return headers


def _links(stream_id: str) -> dict[str, str]:
    at = f"/streams/{stream_id}"
    return {"self": at, "events": f"{at}?format=native", "cancel": f"{at}/cancel"}
