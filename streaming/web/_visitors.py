"""Who a visitor of the page is: a random number in a cookie, until there is a sign-in.

It tells one browser's conversations from another's in a list. It is no
permission: who knows a thread's id may read it.
"""

import re
import secrets

from flask import Request, Response

from streaming.web import _principals

COOKIE = "visitor"
KEPT_SECONDS = 365 * 86_400


def owner_of(request: Request) -> str:
    """Return who asks; in the open mode the browser, "" for a client without the cookie, as curl."""
    if owner := _principals.asking():
        return owner
    visitor = request.cookies.get(COOKIE, "")
    return visitor if re.fullmatch(r"[0-9a-f]{32}", visitor) else ""


def new_visitor() -> str:
    return secrets.token_hex(16)


def remember(response: Response, request: Request, visitor: str) -> None:
    """Give a browser its cookie, or keep it for longer. Only the page does, and only in the open mode."""
    if _principals.asking():
        return
    response.set_cookie(
        COOKIE,
        visitor,
        max_age=KEPT_SECONDS,
        httponly=True,
        samesite="Lax",
        secure=request.is_secure,
    )
