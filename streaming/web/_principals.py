"""Who makes this request."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from flask import g, has_app_context

from streaming.principals import OPEN, Principal

_acting: ContextVar[Principal | None] = ContextVar("acting", default=None)


def current() -> Principal:
    """Return who makes the request that is being answered."""
    acting = _acting.get()
    if acting is not None:
        return acting
    found: Principal = g.get("principal", OPEN) if has_app_context() else OPEN
    return found


def asking() -> str:
    """Return the id of who asks: what streams and threads are kept apart by."""
    return current().id


@contextmanager
def acting(principal: Principal) -> Iterator[None]:
    """Do something for a principal whose request is over, or was never Flask's."""
    token = _acting.set(principal)
    try:
        yield
    finally:
        _acting.reset(token)
