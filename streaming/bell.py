"""Wake one greenlet, many times: an event whose waits share a timer.

gevent's own makes a time-out for each wait and tells its waiters a turn of the
loop later. A reader waits once for every chunk, and nearly never until its
time-out.
"""

import math
import time
from typing import Any

import gevent
from gevent.hub import Waiter


class Bell:
    """Rung by anybody on this loop, heard by one greenlet."""

    __slots__ = ("_armed_for", "_due", "_timer", "_waiter", "rung")

    def __init__(self) -> None:
        self.rung = False
        """Stays so until the listener sets it to ``False``."""
        self._waiter: Waiter[None] | None = None
        self._timer: Any = None
        self._armed_for = math.inf
        self._due = math.inf

    @property
    def awaited(self) -> bool:
        """Somebody waits, whom nobody has woken yet."""
        return self._waiter is not None

    def ring(self) -> None:
        """Wake who waits, or the next one who would. Never blocks."""
        self.rung = True
        self._wake()

    def wait(self, seconds: float) -> bool:
        """Return once it was rung, or after ``seconds``; say whether it was rung. Blocks."""
        if self.rung or seconds <= 0:
            return self.rung
        self._due = time.monotonic() + seconds
        if self._due < self._armed_for:
            self._arm(seconds)
        self._waiter = Waiter()
        try:
            self._waiter.get()
        finally:
            self._waiter = None
        return self.rung

    def close(self) -> None:
        """Let go of the timer. Nobody may wait any more."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
            self._armed_for = math.inf

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            gevent.get_hub().loop.run_callback(waiter.switch, None)

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
        self._armed_for = time.monotonic() + seconds
        self._timer = gevent.get_hub().loop.timer(seconds)
        self._timer.start(self._on_time)

    def _on_time(self) -> None:
        self._armed_for = math.inf
        left = self._due - time.monotonic()
        if self._waiter is None:
            return
        if left > 0:
            self._arm(left)  # waits that began since then end later
        else:
            self._wake()
