"""``/threads``: list conversations, make, show, rename and delete them."""

import secrets
from typing import Annotated, Any

import msgspec
from flask import Blueprint, Response, request
from msgspec import Meta, Struct

from streaming.errors import InvalidRequest, NotFound
from streaming.settings import Settings
from streaming.streams import Streams
from streaming.threads import Thread
from streaming.turns import Shown
from streaming.web import _bodies, _query, _visitors
from streaming.web import _runnable_orders as orders
from streaming.web._errors import json_response

MAX_TITLE_CHARS = 200
MAX_LISTED = 100


class Make(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /threads``."""

    id: Annotated[str, Meta(extra_json_schema={"pattern": f"^{orders.THREAD_PATTERN}$"})] | None = None
    """Left out: one nobody can guess."""
    title: str = ""
    """Left out: the beginning of the first question."""


class Change(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``PATCH /threads/<id>``."""

    title: Annotated[str, Meta(extra_json_schema={"pattern": r"\S"})]


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("threads", __name__, url_prefix="/threads")

    @blueprint.get("")
    def listed() -> Response:
        limit = _query.whole(request, "limit", 50, 1, MAX_LISTED)
        after = _query.one(request, "after") or ""
        owner = _visitors.owner_of(request)
        # Nobody's threads are nobody's to list: who made them knows their ids.
        found = streams.threads.listed(owner, after, limit + 1) if owner else []
        return json_response(
            {"threads": [_shown(each) for each in found[:limit]], "more": len(found) > limit}
        )

    @blueprint.post("")
    def make() -> Response:
        asked = _read(Make, settings)
        thread_id = orders.check_thread(asked.id, "id") if asked.id is not None else new_thread_id()
        title = _title(asked.title) if asked.title else ""
        thread = streams.threads.open(thread_id, _visitors.owner_of(request), title)
        response = json_response(_shown(thread), 201)
        response.headers["Location"] = f"/threads/{thread.id}"
        return response

    @blueprint.get("/<thread_id>")
    def show(thread_id: str) -> Response:
        thread = streams.threads.get(thread_id)
        turns = streams.threads.turns(thread_id, _query.one(request, "turn") or "")
        return json_response({**_shown(thread), "turns": [_turn(each) for each in turns]})

    @blueprint.patch("/<thread_id>")
    def change(thread_id: str) -> Response:
        asked = _read(Change, settings)
        _check_owner(streams.threads.get(thread_id))
        return json_response(_shown(streams.threads.rename(thread_id, _title(asked.title))))

    @blueprint.delete("/<thread_id>")
    def delete(thread_id: str) -> Response:
        _bodies.check_origin(request)
        try:
            _check_owner(streams.threads.get(thread_id))
            streams.delete_thread(thread_id)
        except NotFound:
            pass  # it is gone, as was asked
        return Response(status=204)

    return blueprint


def new_thread_id() -> str:
    """Return an id nobody can guess."""
    return f"th_{secrets.token_hex(16)}"


def _read(kind: type[Any], settings: Settings) -> Any:
    _bodies.check_origin(request)
    try:
        return msgspec.convert(_bodies.read_json(request, settings), kind)
    except msgspec.ValidationError as error:
        _bodies.refuse(error)


def _title(asked: str) -> str:
    title = " ".join(asked.split())
    if not 0 < len(title) <= MAX_TITLE_CHARS:
        raise InvalidRequest(f"title: 1 to {MAX_TITLE_CHARS} characters", code="wrong_value", param="title")
    return title


def _check_owner(thread: Thread) -> None:
    if thread.owner and thread.owner != _visitors.owner_of(request):
        raise InvalidRequest("this thread is somebody else's to change", code="owner", status=403)


def _shown(thread: Thread) -> dict[str, Any]:
    return {
        "id": thread.id,
        "title": thread.title,
        "created": thread.created,
        "updated": thread.updated,
        "mine": not thread.owner or thread.owner == _visitors.owner_of(request),
    }


def _turn(shown: Shown) -> dict[str, Any]:
    turn = shown.turn
    found: dict[str, Any] = {
        "stream_id": turn.stream_id,
        "parent": turn.parent,
        "versions": shown.versions,
        "source": turn.source,
        "model": turn.model,
        "created": turn.created,
        "prompt": turn.prompt,
        "messages": turn.messages,
        "instructions": turn.instructions,
        "answer": None,
    }
    if turn.input is not None:
        found["input"] = turn.input
    if (answer := turn.answer) is not None:
        found["answer"] = {"text": answer.text, "reasoning": answer.reasoning, **msgspec.to_builtins(answer)}
    return found
