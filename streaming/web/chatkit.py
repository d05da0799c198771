"""``/chatkit``: ChatKit's self-hosted protocol over the log, and sessions of the hosted one.

The answer to a message is a run, so it can also be followed, polled and cancelled
below ``/streams``. Its library is imported at the first request.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
from flask import Blueprint, Response, g, request, stream_with_context

from streaming import sse
from streaming.chatkit import loading
from streaming.errors import InvalidRequest, NotConfigured, SettingsError
from streaming.settings import Settings
from streaming.streams import Order, Streams
from streaming.web import _chatkit_orders as orders
from streaming.web import _orders, _principals, _rights, _visitors
from streaming.web._errors import json_response
from streaming.web._responses import HEADERS, noticing

if TYPE_CHECKING:
    from streaming.chatkit.service import ChatKit, Events
    from streaming.chatkit.visits import Question, Visit

SESSION_SECONDS = 30.0
"""How long OpenAI may take to make a session."""


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("chatkit", __name__, url_prefix="/chatkit")
    try:
        orders.check_source(settings.chatkit_source, streams)
    except InvalidRequest as error:
        raise SettingsError(f"CHATKIT_SOURCE: {error}") from None

    @functools.cache
    def load() -> "ChatKit":
        loading.load("streaming.chatkit.service")
        from streaming.chatkit.service import ChatKit

        return ChatKit(streams, settings)

    @blueprint.after_request
    def keep_visitor(response: Response) -> Response:
        if "visitor" in g and response.status_code < 400:
            _visitors.remember(response, request, g.visitor)
        return response

    @blueprint.post("")
    def answer() -> Response:
        page = orders.read_page(request, settings, streams)
        asked = orders.read_message(request, settings)
        chatkit = load()
        from streaming.chatkit.visits import Visit

        owner = _owner()
        visit = Visit(owner, _order_maker(page, settings, streams), page.source, page.on_disconnect)
        answered = chatkit.answer(asked, visit)
        if isinstance(answered, bytes):
            return Response(answered, content_type="application/json", headers=HEADERS)
        return _event_stream(answered, visit, settings)

    @blueprint.post("/session")
    def open_session() -> Response:
        return _session()

    @blueprint.post("/refresh")
    def renew_session() -> Response:
        # OpenAI has no way to prolong a session: a new one for the same user shows the same threads.
        return _session()

    def _session() -> Response:
        asked = orders.read_hosted(request, settings)
        if not settings.chatkit_workflow_id:
            raise NotConfigured("CHATKIT_WORKFLOW_ID is not set: hosted sessions are of a workflow at OpenAI")
        if settings.is_demo:
            raise NotConfigured("OPENAI_API_KEY is not set: hosted sessions are made at OpenAI")
        owner = _owner()
        # Not the cookie itself: it opens this visitor's threads here.
        user = asked.user or f"visitor_{hashlib.sha256(owner.encode()).hexdigest()[:32]}"
        if asked.user and (principal := _principals.asking()):
            # Whose threads at OpenAI it opens is not for another principal to choose.
            user = f"user_{hashlib.sha256(f'{principal} {asked.user}'.encode()).hexdigest()[:32]}"
        with (
            streams.questions.asking(SESSION_SECONDS) as question,
            noticing(request.environ, question.leave, settings),
            _rights.watched(question.leave),
        ):
            session = question.relay.chatkit_session(settings.chatkit_workflow_id, user)
        told: dict[str, Any] = {
            "client_secret": session.client_secret,
            "expires_at": session.expires_at,
            "session_id": session.id,
            "user": user,
        }
        if asked.thread_id is not None:
            told["thread_id"] = asked.thread_id
        return json_response(told)

    return blueprint


def _owner() -> str:
    """Return who asks. Who has no cookie gets one, or could list nothing later, or what others began."""
    owner = _visitors.owner_of(request)
    if not owner:
        owner = g.visitor = _visitors.new_visitor()
    return owner


def _order_maker(page: orders.Page, settings: Settings, streams: Streams) -> "Callable[[Question], Order]":
    def make(question: "Question") -> Order:
        asked: dict[str, Any] = {"source": question.source, "on_disconnect": page.on_disconnect}
        if question.resumes:
            asked["input"] = {"resume": question.resume}
        else:
            asked["messages"] = question.messages
        if question.model is not None and question.source not in streams.registered:
            asked["model"] = question.model
        order = _orders.from_fields(asked, settings, streams)
        # Not the field ``thread``: the thread is ChatKit's, this is only what the runnable calls it.
        prompt = msgspec.structs.replace(order.prompt, thread=question.memory)
        return msgspec.structs.replace(
            order, prompt=prompt, asked={**order.asked, "thread": question.thread_id}
        )

    return make


def _event_stream(events: "Events", visit: "Visit", settings: Settings) -> Response:
    environ = request.environ
    principal = _principals.current()

    def body() -> Iterator[bytes]:
        with noticing(environ, visit.leave, settings):
            for data in events:
                yield sse.HEARTBEAT if data is None else sse.frame(data)

    def finish() -> None:
        with _principals.acting(principal):  # the request is over, the run it began may not be
            events.finish()

    response = Response(stream_with_context(body()), headers=HEADERS)
    # Also when the body was never begun: what is told to the library is told once.
    response.call_on_close(finish)
    response.content_type = sse.CONTENT_TYPE
    return response
