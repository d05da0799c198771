"""``/``: the page. The server writes the conversation so far; a script goes on from there.

Whatever the script does, forms do too: ask, ask again, edit, stop, rename, delete.
"""

import secrets
from typing import Any, NamedTuple

import gevent
from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for
from markupsafe import Markup, escape

from streaming.errors import (
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    RateLimited,
    StreamingError,
)
from streaming.settings import Settings
from streaming.streams import Streams
from streaming.threads import Thread
from streaming.web import (
    _bodies,
    _conversation,
    _errors,
    _form_orders,
    _markdown,
    _principals,
    _sign_in_page,
    _visitors,
    _words,
)
from streaming.web._conversation import View

PAGE_THREADS = 50
MAX_TITLE_CHARS = 200


class Group(NamedTuple):
    label: str
    choices: list["Choice"]


class Choice(NamedTuple):
    """Who can be asked: ``model:<name>`` or ``runnable:<name>``."""

    value: str
    name: str


class Suggestion(NamedTuple):
    source: str
    prompt: str
    about: str


SUGGESTIONS = {
    "chat": Suggestion("chat", "How did this answer get here?", "The demo model: text, a table, code"),
    "agent": Suggestion("agent", "What is the weather in Lisbon?", "An agent with tools"),
    "docs": Suggestion("docs", "How do I resume a stream?", "Answers from documents"),
    "approval": Suggestion("approval", "Invite Ana to lunch", "A graph that asks before it acts"),
}
"""What the examples are good at."""


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("page", __name__)
    answerers = _answerers(streams, settings)
    suggestions = _suggestions(streams, settings)

    def page(status: int = 200, view: View | None = None, **told: Any) -> Response:
        visitor = _visitors.owner_of(request) or _visitors.new_visitor()
        nonce = secrets.token_urlsafe(16)
        form_key = secrets.token_hex(16)
        given: dict[str, Any] = {
            "chosen": (view and view.chosen) or f"model:{settings.default_model}",
            "editing": "",
            "form_key": form_key,
            "instructions": view.instructions if view else "",
            "missing": False,
            "notice": "",
            "options": False,
            "owned": bool(view and view.thread and _is_owned(streams.threads.get(view.thread))),
            "threads": listed(),
            "typed": "",
            "new_thread": f"th_{form_key}",
        }
        html = render_template(
            "page.html",
            settings=settings,
            answerers=answerers,
            suggestions=suggestions,
            principal=_principals.current(),
            nonce=nonce,
            view=view,
            words=_words.WORDS,
            **given | told,
        )
        response = Response(html, status, _headers(nonce), content_type="text/html; charset=utf-8")
        _visitors.remember(response, request, visitor)
        return response

    def listed() -> Listed:
        owner = _visitors.owner_of(request)
        found: list[Thread] = []
        for after in dict.fromkeys([request.args.get("after", ""), ""]):
            try:
                found = streams.threads.listed(owner, after, PAGE_THREADS + 1) if owner else []
                break
            except StreamingError:
                continue  # that one is gone; or the store is, which the page will say elsewhere
        shown = found[:PAGE_THREADS]
        return Listed(shown, shown[-1].id if len(found) > len(shown) else "")

    def refusal(error: StreamingError, **told: Any) -> Response:
        info = error.info(request_id=_errors.request_id())
        response = page(error.status, refusal=info, **told)
        if error.retry_after_seconds is not None:
            response.headers["Retry-After"] = str(max(1, round(error.retry_after_seconds)))
        return response

    @blueprint.before_request
    def check() -> None:
        if settings.page_access == "off":
            raise NotFound("there is nothing at this address")

    @blueprint.errorhandler(NotAuthenticated)
    def ask_to_sign_in(error: NotAuthenticated) -> Response:
        if settings.page_access == "off":
            return _errors.refuse(NotFound("there is nothing at this address"))
        return _sign_in_page.asking(settings, request.method == "POST")

    @blueprint.errorhandler(InvalidRequest)
    @blueprint.errorhandler(PermissionDenied)
    @blueprint.errorhandler(RateLimited)
    def refuse(error: StreamingError) -> Response:
        """Of what no view took: a form of another session, a key that may not do this, too many visitors."""
        return _sign_in_page.refusing(error)

    @blueprint.get("/")
    def show() -> Response:
        thread_id, stream_id = request.args.get("thread"), request.args.get("stream")
        try:
            if thread_id:
                return show_thread(thread_id)
            view = _conversation.of_stream(streams, stream_id) if stream_id else None
            return page(view=view)
        except StreamingError as error:
            return refusal(error, missing=True)

    def show_thread(thread_id: str) -> Response:
        view = _conversation.of_thread(streams, thread_id, request.args.get("turn", ""))
        edited = next((each for each in view.turns if each.stream_id == request.args.get("edit")), None)
        return page(
            view=view,
            editing=edited.stream_id if edited else "",
            typed=edited.question if edited else "",
            options="options" in request.args,
        )

    @blueprint.post("/")
    def ask() -> Response:
        form = request.form
        try:
            order = _form_orders.read(request, settings, streams)
            started = streams.start(order)
        except StreamingError as error:
            return refuse_form(error)
        where = {"thread": form["thread"]} if form.get("thread") else {"stream": started.stream_id}
        return _go(**where)

    def refuse_form(error: StreamingError) -> Response:
        form = request.form
        said = error.info().message
        told = {
            "notice": f"{said[:1].upper()}{said[1:]}.",
            "typed": form.get("prompt", ""),
            "instructions": form.get("instructions", ""),
            "chosen": form.get("answerer", ""),
        }
        try:
            view = _conversation.of_thread(streams, form["thread"]) if form.get("thread") else None
        except StreamingError:
            view = None  # it was to be made by this question
        return refusal(error, view=view, **told)

    @blueprint.post("/stop")
    def stop() -> Response:
        _bodies.check_origin(request)
        thread_id, stream_id = request.form.get("thread"), request.form.get("stream", "")
        try:
            streams.cancel(stream_id)
        except StreamingError as error:
            return refusal(error, missing=True)
        return _go(thread=thread_id) if thread_id else _go(stream=stream_id)

    @blueprint.post("/rename")
    def rename() -> Response:
        _bodies.check_origin(request)
        thread_id = request.form.get("thread", "")
        try:
            check_owner(thread_id)
            title = " ".join(request.form.get("title", "").split())[:MAX_TITLE_CHARS]
            if title:
                streams.threads.rename(thread_id, title)
        except StreamingError as error:
            return refusal(error, missing=True)
        return _go(thread=thread_id)

    @blueprint.post("/delete")
    def delete() -> Response:
        _bodies.check_origin(request)
        thread_id = request.form.get("thread", "")
        try:
            check_owner(thread_id)
            streams.delete_thread(thread_id)
        except StreamingError as error:
            return refusal(error, missing=True)
        return _go()

    def check_owner(thread_id: str) -> None:
        if not _is_owned(streams.threads.get(thread_id)):
            raise InvalidRequest("this conversation is somebody else's to change", code="owner", status=403)

    blueprint.add_app_template_filter(_exactly, "exactly")
    blueprint.add_app_template_filter(_as_markdown, "markdown")
    return blueprint


class Listed(NamedTuple):
    """A page of the list of conversations."""

    shown: list[Thread]
    next: str
    """What to ask for older ones after; empty: there are none."""


def _is_owned(thread: Thread) -> bool:
    return not thread.owner or thread.owner == _visitors.owner_of(request)


def _go(**where: Any) -> Response:
    return make_response(redirect(url_for("page.show", **where), 303))


def _headers(nonce: str) -> dict[str, str]:
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src 'self' data: blob:; worker-src 'self'; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'; require-trusted-types-for 'script'; "
            "trusted-types sluice-markdown sluice-worker"
        ),
        "X-Content-Type-Options": "nosniff",
        # Not "no-referrer": with that, a browser hides the origin of the form from us too.
        "Referrer-Policy": "same-origin",
    }


def _answerers(streams: Streams, settings: Settings) -> list[Group]:
    models = dict.fromkeys([settings.default_model, *([] if settings.is_demo else settings.models)])
    groups = [Group("Models", [Choice(f"model:{name}", name) for name in models])]
    if streams.registered:
        groups.append(
            Group("Chains and agents", [Choice(f"runnable:{name}", name) for name in streams.registered])
        )
    return groups


def _suggestions(streams: Streams, settings: Settings) -> list[Suggestion]:
    """Only with the demo model: nobody should pay for a click that was meant to look around."""
    if not settings.is_demo:
        return []
    return [each for name, each in SUGGESTIONS.items() if name == "chat" or name in streams.registered]


def _as_markdown(text: str) -> Markup:
    # A millisecond for each kilobyte: a long conversation is no reason to keep others waiting.
    gevent.sleep(0)
    return _markdown.render(text)


def _exactly(text: str) -> Markup:
    r"""Return ``text`` as HTML that a browser reads back as the same characters.

    A bare carriage return would be read as a line feed.

    >>> _exactly("<b>\r")
    Markup('&lt;b&gt;&#13;')
    """
    return Markup(str(escape(text)).replace("\r", "&#13;"))
