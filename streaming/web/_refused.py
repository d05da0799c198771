"""Who was not let in: counted each time, and written to the log as often as is of use.

A line never holds what was shown, since it may be a key with one letter wrong. It
has the id of a key that is well-formed, which is no secret, and where it came from.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from flask import Request

from streaming.errors import StreamingError
from streaming.keyring import id_in
from streaming.metrics import Metrics
from streaming.web._errors import request_id

logger = logging.getLogger(__name__)

WINDOW_SECONDS = 60.0
LINES_PER_WINDOW = 10
"""Of one kind, by each worker: a flood of guesses is no flood of lines."""

At = Literal["request", "sign_in"]


@dataclass
class _Written:
    until: float
    lines: int = 0
    left_out: int = 0


class RefusalLog:
    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._written: dict[tuple[str, str], _Written] = {}

    def note(
        self, request: Request, error: StreamingError, at: At = "request", shown: str | None = None
    ) -> None:
        """Count a refusal, and write it down if there were not many like it in the last minute.

        ``shown`` is what might be a key, where that is not in the header.
        """
        self.count(at, error.code)
        left_out = self._room(at, error.code)
        if left_out is None:
            return
        said = {
            "at": at,
            "why": error.code,
            "key_id": id_in(key_in(request) if shown is None else shown),
            "address": request.remote_addr or "",
            "method": request.method,
            "route": request.url_rule.rule if request.url_rule else "none",
            "request_id": request_id(),
            "left_out": left_out or None,
        }
        # Whoever opens the page and has not signed in shows nothing: that is how most begin.
        level = logging.INFO if error.code == "no_key" else logging.WARNING
        logger.log(level, "access refused", extra=said)

    def count(self, at: str, why: str, many: int = 1) -> None:
        self._metrics.refused(at, why, many)

    def _room(self, at: str, why: str) -> int | None:
        """Return how many of this kind were left out since the last line; ``None`` to leave out this one too.

        There are as many kinds as codes of errors in this service: few.
        """
        now = self._clock()
        written = self._written.setdefault((at, why), _Written(now + WINDOW_SECONDS))
        if now >= written.until:
            written.until, written.lines = now + WINDOW_SECONDS, 0
        if written.lines >= LINES_PER_WINDOW:
            written.left_out += 1
            return None
        written.lines += 1
        left_out, written.left_out = written.left_out, 0
        return left_out


def key_in(request: Request) -> str:
    """Return what is sent as a bearer token, "" where nothing is."""
    kind, _, text = request.headers.get("Authorization", "").partition(" ")
    return text.strip() if kind.lower() == "bearer" else ""
