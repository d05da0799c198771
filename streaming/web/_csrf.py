"""What a request must show that is believed for its cookie alone: that our own page sent it.

A browser adds the cookie to what any page makes it send. So whatever changes
something, and what opens a connection that can, has to come from a page of this
origin by its own headers; and a form, which any page can send, has to hold a
token that only our page knew.

Source: Fetch Metadata Request Headers, section 2.4, and Fetch, section 3.2 (``Origin``).
"""

from flask import Request

from streaming.errors import InvalidRequest

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
FORMS = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
"""What another site's form can send, without a question beforehand."""
FIELD = "csrf"
RUNNING_GETS = frozenset({"stream.ask"})
"""Endpoints where a GET starts a run."""


def changes(request: Request) -> bool:
    """Say whether the request could change something, or opens a connection that could."""
    upgrades = "websocket" in request.headers.get("Upgrade", "").lower()
    return request.method not in SAFE_METHODS or upgrades or request.endpoint in RUNNING_GETS


def is_form(request: Request) -> bool:
    return request.method not in SAFE_METHODS and request.mimetype in FORMS


def check_same_origin(request: Request) -> None:
    """Refuse what does not say that it comes from this origin.

    Stricter than `_bodies.check_origin`: silence is no permission, and of ``Origin`` the
    scheme counts too. An address that somebody typed, or that another program opened,
    starts nothing. Raises `InvalidRequest`.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    ours = origin is None or origin == request.host_url.rstrip("/")
    if site is None:
        ours = ours and origin is not None
    else:
        # A form that is sent again by hand is "none", and has an Origin.
        ours = ours and (site == "same-origin" or (site == "none" and origin is not None))
    if not ours:
        raise InvalidRequest("this was not sent by a page of this service", code="origin", status=403)


def refuse_form() -> InvalidRequest:
    return InvalidRequest(
        "this form is of another session: load the page again", code="csrf", param=FIELD, status=403
    )
