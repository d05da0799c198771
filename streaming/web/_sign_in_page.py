"""The page that asks for a key, and says why."""

import secrets
from typing import Any
from urllib.parse import parse_qsl, urlencode

from flask import Response, render_template, request

from streaming.errors import StreamingError
from streaming.settings import Settings
from streaming.web import _cookies

KEPT = ("thread", "turn", "edit", "stream", "after", "options")
"""What of the page's address is kept over signing in."""
NEEDS_HTTPS = "signing in needs HTTPS: over plain HTTP anybody on the way could read the key"
ENDED = (
    "You are not signed in, or no longer. What you sent was not taken: sign in, go back, and send it again."
)
BY_PROXY = (
    "Who you are is for the proxy in front of this service to say, and it did not. Sign in there, and load"
    " the page again."
)


def form(settings: Settings) -> Response:
    return _page(200, settings)


def asking(settings: Settings, was_sending: bool) -> Response:
    """Return the answer to who is not signed in; ``was_sending``: it was a form, not the page."""
    if not settings.signs_in:
        return _page(401, settings, BY_PROXY, has_form=False)
    return _page(401, settings, ENDED if was_sending else "")


def refused(settings: Settings, error: StreamingError) -> Response:
    """Return the form with what is wrong with the key."""
    return _page(error.status, settings, _sentence(error), error.retry_after_seconds, is_wrong=True)


def refusing(error: StreamingError) -> Response:
    """Return what is wrong, and a way back."""
    shown = {"is_wrong": True, "has_way_back": True}
    return _page(error.status, None, _sentence(error), error.retry_after_seconds, has_form=False, **shown)


def kept(query: str) -> str:
    """Return the part of a query that the page knows: what to go back to can be no other page.

    >>> kept("thread=t1&next=https://evil.test")
    '?thread=t1'
    """
    found = [(name, value) for name, value in parse_qsl(query.removeprefix("?")) if name in KEPT]
    return f"?{urlencode(found)}" if found else ""


def _page(
    status: int,
    settings: Settings | None,
    notice: str = "",
    wait_seconds: float | None = None,
    *,
    has_form: bool = True,
    **shown: Any,
) -> Response:
    nonce = secrets.token_urlsafe(16)
    if has_form and not _cookies.name_of(request, "any"):
        has_form, notice = False, f"{NEEDS_HTTPS[:1].upper()}{NEEDS_HTTPS[1:]}."
    going_back = (
        request.form.get("next", "") if request.method == "POST" else request.query_string.decode("latin-1")
    )
    html = render_template(
        "sign_in.html", nonce=nonce, notice=notice, has_form=has_form, next=kept(going_back), **shown
    )
    response = Response(html, status, _headers(nonce), content_type="text/html; charset=utf-8")
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if wait_seconds is not None:
        response.headers["Retry-After"] = str(max(1, round(wait_seconds)))
    return response


def _headers(nonce: str) -> dict[str, str]:
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": (
            f"default-src 'none'; style-src 'nonce-{nonce}'; img-src 'self'; form-action 'self'; "
            "base-uri 'none'; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        # Not "no-referrer": with that, a browser hides the origin of the form from us too.
        "Referrer-Policy": "same-origin",
        "Vary": "Cookie",
    }


def _sentence(error: StreamingError) -> str:
    said = str(error)
    return f"{said[:1].upper()}{said[1:]}."
