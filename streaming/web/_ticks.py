"""A stream that asks no model: ticks and silences by the clock, to try the way to a client."""

import time
from collections.abc import Iterator
from typing import Any

import msgspec
from flask import Request
from gevent.event import Event as Flag
from msgspec import Struct

from streaming import sse
from streaming.errors import InvalidRequest, Overloaded
from streaming.web import _bodies, _query

MOST_AT_ONCE = 64
"""In one worker."""
MOST_TICKS = 200
MOST_EVERY_MS = 5000
MOST_TICKING_SECONDS = 60.0
MOST_SILENCE_SECONDS = 600.0
LEAST_HEARTBEAT_SECONDS = 0.2
MAX_SHOWN_CHARS = 300


class Plan(Struct, frozen=True):
    """A greeting, the silence, then so many ticks, and the end."""

    count: int
    every_seconds: float
    silence_seconds: float
    heartbeat_seconds: float
    """Between two comments of the silence; 0: none."""

    @classmethod
    def of(cls, request: Request, heartbeat_seconds: float) -> "Plan":
        """Read ``?count=&every_ms=&silence_s=&heartbeat=``. Raises `InvalidRequest`.

        ``heartbeat=1`` sends them as event streams do, each ``heartbeat_seconds``;
        ``heartbeat_s`` at a pace of its own.
        """
        for name in request.args:
            if name not in ("count", "every_ms", "silence_s", "heartbeat", "heartbeat_s"):
                raise _bodies.unknown_field(name)
        count = _query.whole(request, "count", 20, 0, MOST_TICKS)
        every = _query.whole(request, "every_ms", 100, 1, MOST_EVERY_MS) / 1000
        if count * every > MOST_TICKING_SECONDS:
            raise InvalidRequest(
                f"count: with every_ms, more than {MOST_TICKING_SECONDS:g} s",
                code="wrong_value",
                param="count",
            )
        silence = _query.seconds(request, "silence_s", MOST_SILENCE_SECONDS)
        pace = _query.seconds(request, "heartbeat_s", MOST_SILENCE_SECONDS)
        if _query.flag(request, "heartbeat") and not pace:
            pace = heartbeat_seconds
        return cls(count, every, silence, max(pace, LEAST_HEARTBEAT_SECONDS) if pace else 0.0)


class Floor:
    """Who ticks in this worker now: bounded, since each costs a connection and a greenlet."""

    def __init__(self) -> None:
        self._ticking = 0

    def enter(self) -> None:
        """Raises `Overloaded`."""
        if self._ticking >= MOST_AT_ONCE:
            raise Overloaded("too many are being examined here", code="doctor", retry_after_seconds=5)
        self._ticking += 1

    def leave(self) -> None:
        self._ticking -= 1


def frames(plan: Plan, greeting: dict[str, Any], gone: Flag) -> Iterator[bytes]:
    """Give out the stream by the clock, until its end or until ``gone``."""
    yield _frame("hello", **greeting)
    begun = time.monotonic()
    if plan.heartbeat_seconds:
        beats = int(plan.silence_seconds / plan.heartbeat_seconds)
        for beat in range(1, beats + 1):
            if _wait_until(begun + beat * plan.heartbeat_seconds, gone):
                return
            yield sse.HEARTBEAT
    begun += plan.silence_seconds
    for number in range(1, plan.count + 1):
        # By the clock, not from the last one: a worker that was late shows it.
        if _wait_until(begun + number * plan.every_seconds, gone):
            return
        yield _frame("tick", n=number)
    if not _wait_until(begun, gone):
        yield _frame("done", done=True, n=plan.count)


def seen_of(request: Request) -> dict[str, str]:
    """Return what arrived of the headers that proxies change; never a cookie or a key."""
    headers = request.headers
    seen = {
        "last_event_id": headers.get("Last-Event-ID", ""),
        "idempotency_key": headers.get("Idempotency-Key", ""),
        "host": request.host,
        "scheme": request.scheme,
        "forwarded_proto": headers.get("X-Forwarded-Proto", ""),
        "protocol": request.environ.get("SERVER_PROTOCOL", ""),
    }
    return {name: value[:MAX_SHOWN_CHARS] for name, value in seen.items()}


def _wait_until(at: float, gone: Flag) -> bool:
    """Return whether the client had gone, or has to."""
    left = at - time.monotonic()
    return bool(gone.wait(left)) if left > 0 else gone.is_set()


def _frame(type_: str, **fields: Any) -> bytes:
    return sse.frame(msgspec.json.encode({"type": type_, "at": round(time.time() * 1000, 3), **fields}))
