"""Which other sites' pages may use the API: those of an exact list, none by default.

No credentials: a page of another origin shows a key, and no cookie of ours goes
with what it asks. Source: Fetch Standard, section 3.2 ("CORS protocol").
"""

import re

from flask import Flask, Response, g, request

from streaming.settings import Settings

METHODS = "GET, HEAD, POST, PATCH, DELETE"
EXPOSED = (
    "Stream-Id, Content-Location, Location, X-Request-Id, Retry-After, Idempotent-Replayed, Stream-Fallback, "
    "x-should-retry, WWW-Authenticate"
)
PREFLIGHT_SECONDS = 600
_HEADERS = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,1000}")


def register(app: Flask, settings: Settings) -> None:
    """Answer what browsers ask beforehand, and say on every answer who may read it."""
    if not settings.cors_origins:
        return
    allowed = frozenset(settings.cors_origins)

    @app.before_request
    def look() -> Response | None:
        origin = request.headers.get("Origin", "")
        if origin not in allowed:
            return None
        g.cors_origin = origin
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return _preflight()
        return None

    @app.after_request
    def allow(response: Response) -> Response:
        response.vary.add("Origin")
        if origin := g.get("cors_origin"):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = EXPOSED
            # What browsers were told to keep to this origin is for that one too.
            response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
        return response


def _preflight() -> Response:
    response = Response(status=204)
    response.headers["Access-Control-Allow-Methods"] = METHODS
    asked = request.headers.get("Access-Control-Request-Headers", "")
    if _HEADERS.fullmatch(asked):  # any: clients of OpenAI's API send a dozen of their own
        response.headers["Access-Control-Allow-Headers"] = asked
    response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
    response.vary.add("Access-Control-Request-Headers")
    return response
