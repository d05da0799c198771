"""Tokens on their way from a source into the log: the event loop writes them, and their producer sleeps."""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gevent.hub import Waiter

from streaming.errors import StreamingError
from streaming.eventlogs import Settled
from streaming.events import Token, encode
from streaming.sources import Flow

logger = logging.getLogger(__name__)

MOST_UNSETTLED = 64
"""Tokens of one run whose commit is awaited; with more the source has to wait for the store."""


class _Unsettled(NamedTuple):
    token: Token
    size_bytes: int
    asked_at: float


class Pouring:
    """One time that a flow is poured into the log.

    ``append`` is asked for each token's payload, with its ``settled``, and says whether it will be
    written; ``written`` is told of each that was, in order.
    """

    def __init__(
        self,
        flow: Flow,
        append: Callable[[bytes, Settled], bool],
        written: Callable[[Sequence[Token], int, float, bool], None],
    ) -> None:
        self.error: StreamingError | None = None
        """Why what came last was not written."""
        self.unwritten = 0
        """How many tokens were taken and, because of an error, not written."""
        self._flow = flow
        self._append = append
        self._written = written
        self._unsettled: deque[_Unsettled] = deque()
        self._waiter: Waiter[None] | None = None

    def pour(self) -> None:
        """Write what the flow gives, until its iteration has to go on. Blocks until all is settled.

        Raises what waiting for the source does; ``error`` is to be looked at in any case.
        """
        try:
            self._flow.pour(self._take)
        finally:
            while self._unsettled:  # whatever is written next says what is in the log
                self._waiter = Waiter()
                self._waiter.get()

    def _take(self, token: Token) -> bool:
        if self.error is not None or len(self._unsettled) >= MOST_UNSETTLED:
            return False
        payload = encode(token)
        self._unsettled.append(_Unsettled(token, len(payload), time.monotonic()))
        if not self._append(payload, self._settled):
            self._unsettled.pop()
            return False
        return True

    def _settled(self, outcome: bool | StreamingError) -> None:
        token, size_bytes, asked_at = self._unsettled.popleft()
        if isinstance(outcome, StreamingError):
            self.error = self.error or outcome
            self.unwritten += 1
            self._flow.interrupt()
        else:
            try:
                self._written((token,), size_bytes, time.monotonic() - asked_at, outcome)
            except Exception:  # of an observer; others' commits are being told of at this moment
                logger.exception("telling of a token broke")
                self.error = StreamingError("something went wrong in this service")
                self._flow.interrupt()
        if self._waiter is not None and not self._unsettled:
            waiter, self._waiter = self._waiter, None
            waiter.switch(None)
