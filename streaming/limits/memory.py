"""Counters in this process's memory."""

import time
from collections import Counter
from collections.abc import Sequence

from streaming.limits import Counters, Place
from streaming.limits._windows import Clock, Windows

MANY_WINDOWS = 10_000


class MemoryWindows(Windows):
    def __init__(self, clock: Clock = time.time) -> None:
        super().__init__(clock)
        self._counts: dict[str, tuple[int, float]] = {}

    def read(self, key: str) -> tuple[int, float]:
        count, until = self._counts.get(key, (0, 0.0))
        return (count, until) if until > self.clock() else (0, 0.0)

    def add(self, key: str, amount: int, until: float) -> int:
        count, before = self.read(key)
        if len(self._counts) > MANY_WINDOWS:
            self.expire()
        self._counts[key] = (count + amount, before or until)
        return count + amount

    def clear(self, key: str) -> None:
        self._counts.pop(key, None)

    def reset(self) -> int | None:
        count = len(self._counts)
        self._counts.clear()
        return count

    def expire(self) -> None:
        now = self.clock()
        self._counts = {key: count for key, count in self._counts.items() if count[1] > now}


class MemoryCounters:
    """See `Counters`."""

    def __init__(self) -> None:
        self.windows = MemoryWindows()
        self._taken: Counter[str] = Counter()

    def take(self, places: Sequence[Place], worker_id: str) -> str:
        for key, most in places:
            if self._taken[key] >= most:
                return key
        for key, _ in places:
            self._taken[key] += 1
        return ""

    def leave(self, keys: Sequence[str], worker_id: str) -> None:
        for key in keys:
            self._taken[key] -= 1
            if self._taken[key] <= 0:
                del self._taken[key]

    def expire(self) -> None:
        self.windows.expire()

    def close(self) -> None:
        self._taken.clear()


def create(log: object) -> Counters:
    return MemoryCounters()
