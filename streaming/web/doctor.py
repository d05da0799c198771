"""``/doctor``: what is wrong on the way to this service, and with how it was started."""

import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import msgspec
from flask import Blueprint, Response, render_template, request
from gevent.event import Event as Flag

from streaming import sse
from streaming.doctor import judging, measured, service
from streaming.doctor.findings import Finding, worst_first
from streaming.errors import InvalidRequest, StreamingError
from streaming.settings import Settings
from streaming.shapes import refuse as refuse_shape
from streaming.streams import Streams
from streaming.web import _bodies, _principals, _rights, _service_facts, _ticks
from streaming.web._errors import json_response, request_id
from streaming.web._responses import HEADERS, noticing

TICKS_ID = "doctor"
"""In the header of every stream of ticks, to see whether it comes through."""


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("doctor", __name__)
    floor = _ticks.Floor()
    _service_facts.watch()

    @blueprint.get("/doctor")
    def page() -> Response:
        nonce = secrets.token_urlsafe(16)
        findings, refusal = [], ""
        if _may_see_service():
            try:
                findings = _findings_of(_service_facts.facts_of(request, streams, settings))
            except StreamingError as error:
                refusal = error.info().message
        html = render_template(
            "doctor.html",
            nonce=nonce,
            findings=findings,
            refusal=refusal,
            may_see_service=_may_see_service(),
            heartbeat_seconds=settings.heartbeat_seconds,
        )
        return Response(html, headers=_page_headers(nonce), content_type="text/html; charset=utf-8")

    @blueprint.get("/doctor/ticks")
    def ticks() -> Response:
        _bodies.check_origin(request)
        plan = _ticks.Plan.of(request, settings.heartbeat_seconds)
        greeting = {
            "heartbeat_seconds": settings.heartbeat_seconds,
            "seen": _ticks.seen_of(request),
        }
        floor.enter()
        gone = Flag()
        watched = _rights.watched(lambda error: gone.set())
        response = Response(body(request.environ, plan, greeting, gone, watched), headers=HEADERS)
        response.call_on_close(floor.leave)
        response.headers["Stream-Id"] = TICKS_ID
        response.content_type = sse.CONTENT_TYPE
        return response

    def body(
        environ: dict[str, Any],
        plan: _ticks.Plan,
        greeting: dict[str, Any],
        gone: Flag,
        watched: AbstractContextManager[None],
    ) -> Iterator[bytes]:
        with (
            streams.hosting(gone.set),
            noticing(environ, gone.set, settings),
            watched,
        ):
            yield from _ticks.frames(plan, greeting, gone)

    @blueprint.get("/doctor/service")
    def of_service() -> Response:
        if not _may_see_service():
            raise InvalidRequest("this is for the service's operator", code="forbidden", status=403)
        facts = _service_facts.facts_of(request, streams, settings)
        return json_response({"facts": facts, "findings": _findings_of(facts)})

    @blueprint.post("/doctor/findings")
    def judge() -> Response:
        _bodies.check_origin(request)
        asked = _bodies.read_json(request, settings)
        try:
            told = measured.read(asked)
        except msgspec.ValidationError as error:
            refuse_shape(error)
        return json_response({"findings": judging.judge(told), "request_id": request_id()})

    return blueprint


def _may_see_service() -> bool:
    """It tells of versions, paths and limits: nothing for everybody."""
    return "admin" in _principals.current().scopes


def _findings_of(facts: service.Facts) -> list[Finding]:
    return worst_first(service.judge(facts))


def _page_headers(nonce: str) -> dict[str, str]:
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
            "require-trusted-types-for 'script'; trusted-types 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
    }
