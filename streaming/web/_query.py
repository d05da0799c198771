"""Read the parameters of an address. Every refusal names the one at fault.

One that is there without a value was not left out: a number, a flag, a day or one of several words is refused
when it is empty, as any other value that is none. Only a text or a cursor may be. One that is given twice is
refused too, since a proxy in front may take the other one.
"""

import re

from flask import Request

from streaming.errors import InvalidRequest

MOST_DIGITS = 18
MOST_SECONDS = 1e9
_NUMBER = re.compile(r"-?[0-9.]{1,400}([eE][+-]?[0-9]{1,9})?")


def one(request: Request, name: str) -> str | None:
    """Return a parameter as it came, ``None`` where it was left out. Raises `InvalidRequest`."""
    given = request.args.getlist(name)
    if len(given) > 1:
        raise InvalidRequest(f"{name}: given more than once", code="wrong_value", param=name)
    return given[0] if given else None


def whole(request: Request, name: str, default: int, least: int, most: int) -> int:
    """Return a whole number in these bounds. Raises `InvalidRequest`."""
    text = one(request, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS and least <= int(text) <= most):
        raise InvalidRequest(f"{name}: a whole number from {least} to {most}", code="wrong_value", param=name)
    return int(text)


def flag(request: Request, name: str) -> bool:
    """Return what is 0 or 1, False where it was left out. Raises `InvalidRequest`."""
    text = one(request, name)
    if text not in (None, "0", "1", "true", "false"):
        raise InvalidRequest(f"{name}: 0 or 1", code="wrong_value", param=name)
    return text in ("1", "true")


def seconds(request: Request, name: str, most: float) -> float:
    """Return a duration, 0 where it was left out; more than ``most`` counts as ``most``."""
    text = one(request, name)
    if text is None:
        return 0.0
    try:
        found = float(text) if _NUMBER.fullmatch(text) else -1.0
    except ValueError:
        found = -1.0
    if not 0 <= found < MOST_SECONDS:
        raise InvalidRequest(f"{name}: a number of seconds", code="wrong_value", param=name)
    return min(found, most)
