"""Windows kept by a clock: the part of a storage of the `limits` library that memory and SQLite share."""

import time
from abc import abstractmethod
from collections.abc import Callable
from math import floor

from limits.storage import Storage
from limits.storage.base import SlidingWindowCounterSupport, TimestampedSlidingWindow

Clock = Callable[[], float]


class Windows(Storage, SlidingWindowCounterSupport, TimestampedSlidingWindow):
    """A window's key ends in its number, so a new one begins without anybody doing something."""

    STORAGE_SCHEME = None

    def __init__(self, clock: Clock = time.time) -> None:
        super().__init__()
        self.clock = clock

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        return ()  # what a store raises is said in our own words already

    @abstractmethod
    def read(self, key: str) -> tuple[int, float]:
        """Return a count and when it is over, ``(0, 0)`` if it is."""

    @abstractmethod
    def add(self, key: str, amount: int, until: float) -> int:
        """Add to a count, which begins at 0 if it was over; return it."""

    @abstractmethod
    def clear(self, key: str) -> None:
        """Forget a count."""

    # Sliding windows

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        previous_count, previous_ttl, count, _ = self.get_sliding_window(key, expiry)
        if floor(previous_count * previous_ttl / expiry + count) + amount > limit:
            return False
        self.add(self._keys(key, expiry)[1], amount, self.clock() + 2 * expiry)
        return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        now = self.clock()
        previous, current = self._keys(key, expiry)
        left = expiry - now % expiry
        before = self.read(previous)[0]
        return before, left if before else 0.0, self.read(current)[0], left + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        for each in self._keys(key, expiry):
            self.clear(each)

    def _keys(self, key: str, expiry: int) -> tuple[str, str]:
        return self.sliding_window_keys(key, expiry, self.clock())

    # Fixed windows

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return self.add(key, amount, self.clock() + expiry)

    def get(self, key: str) -> int:
        return self.read(key)[0]

    def get_expiry(self, key: str) -> float:
        return self.read(key)[1] or self.clock()

    def check(self) -> bool:
        return True
