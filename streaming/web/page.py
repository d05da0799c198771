"""``/``: the page. The server writes the question and the text so far; a script goes on from there."""

import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
from flask import Blueprint, Response, make_response, redirect, render_template, request, url_for
from markupsafe import Markup, escape

from streaming.errors import ErrorInfo, StreamingError
from streaming.events import Metrics, ToolCall
from streaming.settings import Settings
from streaming.streams import Snapshot, Streams
from streaming.web import _errors, _orders

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer": with that, a browser hides the origin of the form from us too.
    "Referrer-Policy": "same-origin",
}
_FINISHED = {
    "cancelled": "Stopped; the text so far is kept",
    "length": "Ended at the length limit",
    "content_filter": "Ended by the model's content filter",
}


Page = Callable[..., Response]


class Conversation(NamedTuple):
    """What the page shows of one stream."""

    stream_id: str
    question: str
    source: str
    model: str
    text: str
    reasoning: str
    tool_calls: list[str]
    cursor: str
    state: str
    """``busy``, ``done``, ``stopped``, ``interrupted`` or ``error``."""
    words: str
    """The same for a reader."""


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("page", __name__)
    page = partial(_page, settings, list(streams.registered))
    refusal = partial(_refusal, page)

    @blueprint.get("/")
    def show() -> Response:
        stream_id = request.args.get("stream")
        if not stream_id:
            return page()
        try:
            conversation = _conversation(streams, stream_id)
        except StreamingError as error:
            return refusal(error)
        return page(conversation=conversation, chosen=conversation.source)

    @blueprint.post("/")
    def ask() -> Response:
        try:
            started = streams.start(_orders.from_form(request, settings, streams))
        except StreamingError as error:
            return refusal(
                error, typed=request.form.get("prompt", ""), chosen=request.form.get("source", "chat")
            )
        return make_response(redirect(url_for(".show", stream=started.stream_id), 303))

    blueprint.add_app_template_filter(_exactly, "exactly")
    return blueprint


def _page(
    settings: Settings,
    runnables: Sequence[str],
    status: int = 200,
    *,
    conversation: Conversation | None = None,
    refusal: ErrorInfo | None = None,
    typed: str = "",
    chosen: str = "chat",
) -> Response:
    html = render_template(
        "index.html",
        settings=settings,
        runnables=runnables,
        chosen=chosen,
        conversation=conversation,
        refusal=refusal,
        typed=typed,
        form_key=secrets.token_hex(16),
    )
    return Response(html, status, HEADERS, content_type="text/html; charset=utf-8")


def _refusal(page: Page, error: StreamingError, typed: str = "", chosen: str = "chat") -> Response:
    info = error.info(request_id=_errors.request_id())
    response = page(error.status, refusal=info, typed=typed, chosen=chosen)
    if error.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(max(1, round(error.retry_after_seconds)))
    return response


def _conversation(streams: Streams, stream_id: str) -> Conversation:
    asked = streams.asked(stream_id)
    snapshot = streams.snapshot(stream_id)
    state, words = _told(snapshot)
    return Conversation(
        stream_id,
        asked["prompt"],
        asked["source"],
        asked["model"],
        snapshot.text,
        snapshot.reasoning,
        [_in_words(call) for call in snapshot.tool_calls],
        snapshot.cursor,
        state,
        words,
    )


def _in_words(call: ToolCall) -> str:
    arguments = call.args_text or msgspec.json.encode(call.args).decode()
    return f"Tool call: {call.tool}({arguments})"


def _told(snapshot: Snapshot) -> tuple[str, str]:
    """Return the state of the page and the words for it; ``page.js`` has the same ones."""
    if error := snapshot.error:
        hint = "Asking again may help." if error.retryable else "Asking the same again will hardly help."
        kept = " The text so far is kept." if error.partial else ""
        interrupted = snapshot.state == "interrupted"
        head = "Interrupted" if interrupted else "Error"
        return "interrupted" if interrupted else "error", f"{head}: {error.message}. {hint}{kept}"
    if snapshot.finish_reason is None:
        return "busy", "The answer is being written"
    words = _FINISHED.get(snapshot.finish_reason, "Done")
    state = "stopped" if snapshot.finish_reason == "cancelled" else "done"
    return state, f"{words}.{_numbers(snapshot.metrics)}"


def _numbers(metrics: Metrics | None) -> str:
    if metrics is None:
        return ""
    about = "About " if metrics.estimated else ""
    pace = f" ({metrics.tokens_per_second:.1f} tokens/s)" if metrics.tokens_per_second else ""
    return f" {about}{metrics.tokens} tokens in {metrics.elapsed_seconds:.1f} s{pace}."


def _exactly(text: str) -> Markup:
    r"""Return ``text`` as HTML that a browser reads back as the same characters.

    A bare carriage return would be read as a line feed.

    >>> _exactly("<b>\r")
    Markup('&lt;b&gt;&#13;')
    """
    return Markup(str(escape(text)).replace("\r", "&#13;"))
