"""Cookies that say who somebody is: only where nobody else can read or plant them.

Over HTTPS their names begin with ``__Host-``: a browser takes such a cookie only
from this very host, whole, over HTTPS, so neither a subdomain nor a plain
connection can plant one. Over plain HTTP there are none, but on this machine's
own loopback address, which a browser holds for safe: there, without the prefix,
which would need HTTPS, and with the port in the name, since cookies do not tell
ports apart.

Source: RFC 6265bis, section 4.1.3.2, and Secure Contexts, section 3.1.
"""

import ipaddress
from urllib.parse import urlsplit

from flask import Request, Response

MAX_CHARACTERS = 1024


def name_of(request: Request, base: str) -> str:
    """Return the name of a cookie on this connection; "" where there may be none."""
    if request.is_secure:
        return f"__Host-{base}"
    return f"{base}-{_port(request)}" if is_loopback(request.host) else ""


def read(request: Request, base: str) -> str:
    """Return the cookie's value, "" for none, or for one that is too long to be ours."""
    name = name_of(request, base)
    value = request.cookies.get(name, "") if name else ""
    return value if len(value) <= MAX_CHARACTERS else ""


def write(response: Response, request: Request, base: str, value: str, max_age_seconds: int) -> None:
    """Set the cookie; an empty value takes it away."""
    if name := name_of(request, base):
        response.set_cookie(
            name,
            value,
            max_age=max_age_seconds if value else 0,
            path="/",
            httponly=True,
            samesite="Lax",
            secure=request.is_secure,
        )


def is_loopback(host: str) -> bool:
    """Say whether a ``Host`` is this machine as a browser on it calls it.

    >>> is_loopback("localhost:8000"), is_loopback("[::1]:8000"), is_loopback("10.0.0.1")
    (True, True, False)
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _port(request: Request) -> str:
    try:
        return str(urlsplit(f"//{request.host}").port or 80)
    except ValueError:
        return "80"
