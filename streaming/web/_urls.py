"""URLs that a request may name: of images and files, for the model's server to look at.

This service fetches none of them. Sources: RFC 2397 (data), OWASP API Security
Top 10 2023, API7 (server-side request forgery).
"""

import re
from urllib.parse import urlsplit

from streaming.errors import InvalidRequest

MAX_URL_CHARS = 4096
_IMAGE = re.compile(r"data:image/[a-z0-9.+-]{1,40}(?:;[a-z0-9=._-]{1,40})*,", re.IGNORECASE | re.ASCII)
_ODD = re.compile(r"[\x00-\x20\x7f]")


def check_image(url: str, param: str) -> None:
    """Refuse what is neither an image itself nor the web address of one. Raises `InvalidRequest`.

    How large an image may be is what a body may be.
    """
    if url[:5].lower() == "data:":
        if not _IMAGE.match(url[:200]):
            raise _wrong(param, "after data: the type of an image, then its data")
        return
    check_web(url, param)


def check_web(url: str, param: str) -> None:
    """Refuse what is not an address of the web. Raises `InvalidRequest`."""
    try:
        parts = urlsplit(url)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_web = False
    if not is_web or _ODD.search(url) or len(url) > MAX_URL_CHARS:
        raise _wrong(
            param, f"an address of up to {MAX_URL_CHARS} characters that begins with https: or http:"
        )
    if parts.username is not None or parts.password is not None:
        raise _wrong(param, "an address without a user and a password")


def _wrong(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{param}: {why}", code="wrong_address", param=param)
