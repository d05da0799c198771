"""How late the event loop is: what blocks it makes every stream of the worker wait."""

import time
from collections import deque
from collections.abc import Callable

import gevent

PERIOD_SECONDS = 0.25
REMEMBERED_SECONDS = 60.0


class LoopWatch:
    def __init__(self, observe: Callable[[float], None]) -> None:
        """``observe`` is told, once a period, how many seconds the loop was late."""
        self._observe = observe
        self._late: deque[tuple[float, float]] = deque()
        """When and how much, of the last minute; falling, so that the first is the worst."""
        self._watching = gevent.spawn(self._watch)

    def worst_seconds(self, within_seconds: float = REMEMBERED_SECONDS) -> float:
        """Return the most that the loop was late of late."""
        since = time.monotonic() - within_seconds
        return max((late for at, late in self._late if at >= since), default=0.0)

    def close(self) -> None:
        self._watching.kill()

    def _watch(self) -> None:
        while True:
            due = time.monotonic() + PERIOD_SECONDS
            gevent.sleep(PERIOD_SECONDS)
            now = time.monotonic()
            late = max(0.0, now - due)
            self._observe(late)
            while self._late and self._late[-1][1] <= late:
                self._late.pop()
            self._late.append((now, late))
            while self._late[0][0] < now - REMEMBERED_SECONDS:
                self._late.popleft()
