"""``/sign-in`` and ``/sign-out``: the page's form for a key, with or without a script."""

import logging

from flask import Blueprint, Response, current_app, make_response, redirect, request, url_for
from limits import RateLimitItemPerMinute
from limits.storage import Storage
from markupsafe import Markup

from streaming.errors import InvalidRequest, NotAuthenticated, NotFound, PermissionDenied, StreamingError
from streaming.keyring import id_in
from streaming.limits import Counters
from streaming.principals import Principal
from streaming.settings import Settings
from streaming.streams import Streams
from streaming.web import _cookies, _csrf, _errors, _sign_in_page
from streaming.web._access import Access
from streaming.web._addresses import Attempts
from streaming.web._errors import json_response
from streaming.web._sessions import Sessions

logger = logging.getLogger(__name__)

MAX_FORM_BYTES = 8192
EVERYBODY = 20
"""How many times what one address may fail, all may together."""
BEFORE_THE_KEY = frozenset({"origin", "insecure", "too_many_attempts"})
"""Codes of what is refused whatever key comes with it: that is not looked at."""
NOTHING = "there is nothing at this address"
WRONG = "this key is not known here, or is not valid any more"


def create(streams: Streams, settings: Settings) -> Blueprint:
    blueprint = Blueprint("sign_in", __name__)
    failures = Attempts(
        "failed attempts to sign in",
        RateLimitItemPerMinute(settings.sign_in_failures_per_minute),
        RateLimitItemPerMinute(settings.sign_in_failures_per_minute * EVERYBODY),
        windows,
    )

    @blueprint.before_request
    def check() -> None:
        if not settings.signs_in:
            raise NotFound(NOTHING)

    @blueprint.get("/sign-in")
    def form() -> Response:
        return _sign_in_page.form(settings)

    @blueprint.post("/sign-in")
    def sign_in() -> Response:
        request.max_content_length = request.max_form_memory_size = MAX_FORM_BYTES
        try:
            # There is no session yet whose token could be asked for: to sign somebody in as
            # somebody else is what the origin prevents.
            _csrf.check_same_origin(request)
            if not _cookies.name_of(request, "any"):
                raise InvalidRequest(_sign_in_page.NEEDS_HTTPS, code="insecure", status=403)
            failures.check(request)
            principal = begin(request.form.get("key", "").strip())
        except StreamingError as error:
            if error.code in BEFORE_THE_KEY:
                access().refused.note(request, error, "sign_in", "")
            return _sign_in_page.refused(settings, error) if _wants_page() else _errors.refuse(error)
        logger.info(
            "signed in",
            extra={
                "owner": principal.id,
                "key_id": id_in(request.form.get("key", "").strip()),
                "address": request.remote_addr or "",
                "request_id": _errors.request_id(),
            },
        )
        if _wants_page():
            going_back = _sign_in_page.kept(request.form.get("next", ""))
            return make_response(redirect(f"{url_for('page.show')}{going_back}", 303))
        return json_response({"csrf": sessions().token(), "name": principal.name or principal.id})

    def begin(text: str) -> Principal:
        try:
            return sessions().begin(request, text)
        except PermissionDenied as error:
            access().refused.note(request, error, "sign_in", text)
            raise
        except NotAuthenticated as error:
            access().refused.note(request, error, "sign_in", text)
            failures.count(request)
            # The same words whatever is wrong with it: others would tell which keys there are.
            raise NotAuthenticated(WRONG, code="invalid_key") from None

    @blueprint.post("/sign-out")
    def sign_out() -> Response:
        # Also of who is not signed in any more: that browser is to forget as well, but not for another site.
        _csrf.check_same_origin(request)
        sessions().end(request)
        response = Response(status=204)
        if _wants_page():
            response = make_response(redirect(url_for("sign_in.form"), 303))
        # What was typed and not sent is in the browser's own storage.
        response.headers["Clear-Site-Data"] = '"storage"'
        return response

    @blueprint.errorhandler(InvalidRequest)
    def refuse(error: InvalidRequest) -> Response:
        return _sign_in_page.refusing(error) if _wants_page() else _errors.refuse(error)

    @blueprint.after_app_request
    def set_cookies(response: Response) -> Response:
        if found := current_app.extensions.get("sessions"):
            found.set_cookies(request, response)
        return response

    @blueprint.app_template_global()
    def csrf_field() -> Markup:
        """Return what every form of the page has in it; nothing where there is no session."""
        found: Sessions | None = current_app.extensions.get("sessions")
        token = found.token() if found else ""
        field = '<input type="hidden" name="csrf" value="{}" autocomplete="off">'
        return Markup(field).format(token) if token else Markup()

    return blueprint


def sessions() -> Sessions:
    found: Sessions = current_app.extensions["sessions"]
    return found


def access() -> Access:
    found: Access = current_app.extensions["access"]
    return found


def windows() -> Storage:
    """Return where failures are counted: beside the log, for all workers."""
    counters: Counters = current_app.extensions["counters"]
    return counters.windows


def _wants_page() -> bool:
    return request.accept_mimetypes["text/html"] > request.accept_mimetypes["application/json"]
