"""``POST /v1/chat/completions``: what every OpenAI client speaks, over the same log."""

from flask import Blueprint, Response, request

from streaming import plugins
from streaming.settings import Settings
from streaming.streams import Streams
from streaming.web import _v1, _v1_chat_orders
from streaming.web._responses import HEADERS, Wishes, event_stream, whole_stream


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = _v1.create_blueprint("chat")

    @blueprint.post("/chat/completions")
    def complete() -> Response:
        order, streamed, wants = _v1_chat_orders.read(request, settings, streams.registered)
        started = streams.start(order)
        _v1.announce(started, streams.rate())
        reader = streams.reader(started.stream_id)
        name = "openai_chat" if streamed else "openai_completion"
        wire_format = plugins.create("formats", name, wants)
        if streamed:
            wishes = Wishes(wire_format)
            return event_stream(request, streams, settings, reader, wishes, {}, waits_for_answer=True)
        (whole,), headers = whole_stream(request, streams, settings, reader, wire_format)
        return Response(whole.data, content_type=wire_format.media_type, headers={**HEADERS, **headers})

    return blueprint
