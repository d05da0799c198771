"""``/runnables``: what was registered, and LangServe's dialect of asking it, over the same log.

``RemoteRunnable("http://…/runnables/<name>")`` works as with LangServe. Each
request is a run that is kept, and can be followed, resumed and cancelled under
``/streams``; its id is in the header ``Stream-Id`` and in the metadata.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from flask import Blueprint, Response, request

from streaming import plugins
from streaming.errors import NotFound, StreamingError
from streaming.formats import Wants
from streaming.runnables import Registered
from streaming.runnables._declared import Which, schema_of
from streaming.settings import Settings
from streaming.streams import Order, Streams
from streaming.web import _langserve_orders as orders
from streaming.web import _v1
from streaming.web._errors import json_response
from streaming.web._responses import HEADERS, Wishes, event_stream, whole_stream

AT_ONCE = 16
"""How many inputs of a batch run together."""
LINKS = ("invoke", "batch", "stream", "stream_events", "input_schema", "output_schema", "config_schema")


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("runnables", __name__, url_prefix="/runnables")

    @blueprint.get("")
    def list_all() -> Response:
        known = [each for each in streams.registered.values() if streams.may_name(each.name)]
        return json_response({"runnables": [_shown(each) for each in known]})

    @blueprint.get("/<name>")
    def show(name: str) -> Response:
        return json_response(_shown(find(name)))

    @blueprint.post("/<name>/invoke")
    def invoke(name: str) -> Response:
        order = orders.read_one(request, settings, find(name), "output")
        started = streams.start(order)
        _v1.announce(started)
        return Response(wait(order, started.stream_id), content_type="application/json", headers=HEADERS)

    @blueprint.post("/<name>/batch")
    def batch(name: str) -> Response:
        answers = run_all(orders.read_batch(request, settings, find(name)))
        metadata = [answer["metadata"] for answer in answers]
        return json_response(
            {
                "output": [answer["output"] for answer in answers],
                "callback_events": [[] for _ in answers],
                "metadata": {"run_ids": [each["run_id"] for each in metadata], "responses": metadata},
            }
        )

    @blueprint.post("/<name>/stream")
    def stream(name: str) -> Response:
        return follow(orders.read_one(request, settings, find(name), "chunks"), "langserve")

    @blueprint.post("/<name>/stream_events")
    def stream_events(name: str) -> Response:
        return follow(orders.read_one(request, settings, find(name), "events"), "langserve_events")

    @blueprint.get("/<name>/<any(input, output, config):which>_schema")
    def show_schema(name: str, which: Which) -> Response:
        return json_response(schema_of(find(name).found, which))

    def find(name: str) -> Registered:
        if name not in streams.registered:
            known = ", ".join(streams.registered) or "none"
            raise NotFound(f"no runnable is called {name[:100]!r}; known: {known}", code="unknown_runnable")
        return streams.registered[name]

    def follow(order: Order, format_name: str) -> Response:
        wishes = Wishes(plugins.create("formats", format_name, Wants(request=order.asked)))
        started = streams.start(order)
        _v1.announce(started)
        reader = streams.reader(started.stream_id)
        return event_stream(request, streams, settings, reader, wishes, {}, waits_for_answer=True)

    def wait(order: Order, stream_id: str) -> bytes:
        wire_format = plugins.create("formats", "langserve_output", Wants(request=order.asked))
        reader = streams.reader(stream_id)
        (whole,), _ = whole_stream(request, streams, settings, reader, wire_format)
        return whole.data

    def run_all(asked: Sequence[Order]) -> list[dict[str, Any]]:
        """Run some at once, in order; if one fails, cancel the others and raise its error."""
        ids: list[str] = []
        answers: list[dict[str, Any]] = []
        try:
            for place, order in enumerate(asked):
                ids += [streams.start(each).stream_id for each in asked[len(ids) : place + AT_ONCE]]
                answers.append(msgspec.json.decode(wait(order, ids[place])))
        except StreamingError:
            for stream_id in ids[len(answers) :]:
                streams.cancel(stream_id)
            raise
        return answers

    return blueprint


def _shown(runnable: Registered) -> dict[str, Any]:
    at = f"/runnables/{runnable.name}"
    links = {name: f"{at}/{name}" for name in LINKS if name != "stream_events" or "events" in runnable.modes}
    return {"name": runnable.name, "kind": runnable.kind, "modes": runnable.modes, "links": links}
