"""``/openapi.json``: what this service answers to, for machines; ``/docs``: for people."""

import functools
import re
import secrets
from typing import Any

import msgspec
from flask import Blueprint, Response, render_template, request
from markupsafe import Markup, escape

from streaming.openapi.document import document
from streaming.openapi.reading import BASE, chapters, schemas_of
from streaming.settings import Settings
from streaming.streams import Streams
from streaming.web import _described

JSON_HEADERS = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("openapi", __name__)
    mark = secrets.token_hex(16)

    @functools.cache
    def described() -> dict[str, Any]:
        return document(_described.operations(), _described.service(settings))

    @functools.cache
    def encoded() -> bytes:
        return msgspec.json.encode(described()) + b"\n"

    # With a mark for each answer's own nonce: nobody else is served while the page is made.
    @functools.lru_cache(maxsize=8)
    def page(base: str) -> str:
        return render_template(
            "docs.html",
            nonce=mark,
            about=described()["info"],
            chapters=chapters(described()),
            schemas=schemas_of(described()),
            here=BASE,
            base=base,
        )

    @blueprint.get("/openapi.json")
    def show() -> Response:
        response = Response(encoded(), content_type="application/json", headers=JSON_HEADERS)
        response.add_etag()
        response.make_conditional(request)
        return response

    @blueprint.get("/docs")
    def docs() -> Response:
        nonce = secrets.token_urlsafe(16)
        html = page(request.host_url.rstrip("/")).replace(mark, nonce)
        return Response(html, headers=_headers(nonce), content_type="text/html; charset=utf-8")

    blueprint.add_app_template_filter(_prose, "prose")
    return blueprint


def _prose(text: str) -> Markup:
    """Return a description as HTML: what stands between backticks is code.

    >>> _prose("a `<b>`")
    Markup('a <code>&lt;b&gt;</code>')
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _headers(nonce: str) -> dict[str, str]:
    return {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self'; "
            "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
            "require-trusted-types-for 'script'; trusted-types 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
    }
