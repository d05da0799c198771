"""``/v1/responses``: what clients of OpenAI's Responses speak, over the same log and any upstream."""

from typing import Any

from flask import Blueprint, Response, request

from streaming import plugins
from streaming.errors import InvalidRequest
from streaming.events import Record
from streaming.formats import Message, Wants
from streaming.formats.openai_responses import ResponseStream
from streaming.settings import Settings
from streaming.streams import Started, Streams
from streaming.web import _query, _v1, _v1_kept_responses, _v1_response_orders
from streaming.web._errors import json_response
from streaming.web._responses import Wishes, event_stream, whole_stream

MOST_LISTED = 100
LARGEST_NUMBER = 999_999_999


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = _v1.create_blueprint("responses")

    @blueprint.post("/responses")
    def respond() -> Response:
        order, streamed, background = _v1_response_orders.read(
            request,
            settings,
            lambda previous: _v1_kept_responses.earlier_turns(streams, previous),
            streams.registered,
        )
        started = streams.start(order)
        _v1.announce(started, streams.rate())
        if streamed:
            wants = Wants(request=started.asked)
            return follow(started.stream_id, wants, waits_for_answer=not background)
        if background:
            kept = _v1_kept_responses.Kept(started.stream_id, started.asked)
            return json_response(_v1_kept_responses.read(streams, kept))
        whole = Whole(started.asked)
        reader = streams.reader(started.stream_id)
        _, headers = whole_stream(request, streams, settings, reader, whole)
        response = json_response(whole.response())
        response.headers.update(headers)
        return response

    @blueprint.get("/responses/<id>")
    def show(id: str) -> Response:
        kept = find(id)
        after = _query.whole(request, "starting_after", -1, 0, LARGEST_NUMBER)
        if not _flag("stream"):
            streams.check_poll()
        if _flag("stream"):
            wants = Wants(request=kept.asked, starting_after=after)
            return follow(kept.stream_id, wants)
        if "starting_after" in request.args:
            raise InvalidRequest(
                "starting_after: only with stream=true", code="wrong_value", param="starting_after"
            )
        return json_response(_v1_kept_responses.read(streams, kept))

    @blueprint.post("/responses/<id>/cancel")
    def cancel(id: str) -> Response:
        kept = find(id)
        streams.cancel(kept.stream_id)
        return json_response(_v1_kept_responses.read(streams, kept))

    @blueprint.delete("/responses/<id>")
    def erase(id: str) -> Response:
        streams.erase(find(id).stream_id)
        return json_response({"id": id, "object": "response", "deleted": True})

    @blueprint.get("/responses/<id>/input_items")
    def list_input(id: str) -> Response:
        return json_response(_page(find(id).input_items()))

    def find(id: str) -> _v1_kept_responses.Kept:
        kept = _v1_kept_responses.find(streams, id)
        _v1.announce(Started(kept.stream_id, replayed=False))
        return kept

    def follow(stream_id: str, wants: Wants, waits_for_answer: bool = False) -> Response:
        wishes = Wishes(plugins.create("formats", "openai_responses", wants))
        reader = streams.reader(stream_id)
        return event_stream(request, streams, settings, reader, wishes, {}, waits_for_answer=waits_for_answer)

    return blueprint


class Whole:
    """A wire format that says nothing, and has the whole response at the end."""

    media_type = "application/json"
    resumes = False
    from_start = True

    def __init__(self, asked: dict[str, Any]) -> None:
        self._stream = ResponseStream(asked)

    def encode(self, record: Record) -> tuple[Message, ...]:
        self._stream.take(record)
        return ()

    def response(self) -> dict[str, Any]:
        return self._stream.response()


def _page(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one page of a list as OpenAI pages: ``limit``, ``order``, ``after``. Raises `InvalidRequest`."""
    order = _query.one(request, "order")
    if order not in (None, "asc", "desc"):
        raise InvalidRequest("order: asc or desc", code="wrong_value", param="order")
    limit = _query.whole(request, "limit", 20, 1, MOST_LISTED)
    ordered = items if order == "asc" else items[::-1]
    if after := _query.one(request, "after"):
        ids = [item["id"] for item in ordered]
        if after not in ids:
            raise InvalidRequest("after: no item here has this id", code="wrong_value", param="after")
        ordered = ordered[ids.index(after) + 1 :]
    data = ordered[:limit]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(ordered) > limit,
    }


def _flag(name: str) -> bool:
    text = _query.one(request, name)
    if text is not None and text.lower() not in ("true", "false"):
        raise InvalidRequest(f"{name}: true or false", code="wrong_value", param=name)
    return text is not None and text.lower() == "true"
