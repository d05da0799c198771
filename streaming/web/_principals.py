"""Who makes this request."""

from flask import g

from streaming.principals import OPEN, Principal


def current() -> Principal:
    """Return who makes the request that is being answered."""
    found: Principal = g.get("principal", OPEN)
    return found
