"""Windows by a clock that stands still until it is moved."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from limits import RateLimitItemPerMinute
from limits.strategies import SlidingWindowCounterRateLimiter

from streaming.eventlogs.sqlite import SQLiteLog
from streaming.limits._windows import Windows
from streaming.limits.memory import MANY_WINDOWS, MemoryWindows
from streaming.limits.sqlite import SQLiteWindows

START = 1_700_000_040.0  # a minute begins


class Clock:
    now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["memory", "sqlite"])
def windows(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Windows]:
    if request.param == "memory":
        yield MemoryWindows(Clock())
        return
    log = SQLiteLog(tmp_path / "streams.db", "NORMAL")
    yield SQLiteWindows(log, Clock())
    log.close()


def taken(limiter: SlidingWindowCounterRateLimiter, item: RateLimitItemPerMinute, tries: int = 100) -> int:
    return sum(limiter.hit(item, "x") for _ in range(tries))


def test_what_the_minute_before_used_counts_as_far_as_it_reaches_into_the_last_sixty_seconds(
    windows: Windows,
) -> None:
    clock = windows.clock
    limiter, item = SlidingWindowCounterRateLimiter(windows), RateLimitItemPerMinute(30)
    assert START % 60 == 0
    clock.now = START + 59
    assert taken(limiter, item) == 30
    clock.now = START + 60  # a fixed window would let 30 more in
    assert taken(limiter, item) == 0
    clock.now = START + 90
    assert taken(limiter, item) == 15
    clock.now = START + 119
    assert taken(limiter, item) == 15
    clock.now = START + 240
    assert taken(limiter, item) == 30


def test_the_time_until_something_is_free_is_told(windows: Windows) -> None:
    clock = windows.clock
    limiter, item = SlidingWindowCounterRateLimiter(windows), RateLimitItemPerMinute(30)
    assert limiter.get_window_stats(item, "x").remaining == 30
    taken(limiter, item)
    clock.now = START + 61
    assert limiter.get_window_stats(item, "x").remaining == 1
    assert limiter.hit(item, "x")
    assert limiter.get_window_stats(item, "x").remaining == 0
    assert windows.get_sliding_window(item.key_for("x"), 60) == (30, 59, 1, 119)
    assert limiter.get_window_stats(item, "other").remaining == 30


def test_more_at_once_than_there_is_takes_nothing(windows: Windows) -> None:
    limiter, item = SlidingWindowCounterRateLimiter(windows), RateLimitItemPerMinute(30)
    assert not limiter.hit(item, "x", cost=31)
    assert limiter.hit(item, "x", cost=30)
    assert not limiter.hit(item, "x")


def test_a_fixed_window_ends(windows: Windows) -> None:
    assert windows.incr("x", 60) == 1
    assert windows.incr("x", 60, 2) == 3
    assert windows.get("x") == 3
    assert windows.get_expiry("x") == START + 60
    windows.clock.now = START + 61
    assert windows.get("x") == 0
    assert windows.incr("x", 60) == 1
    assert windows.check()
    windows.reset()
    assert windows.get("x") == 0
    assert windows.get_expiry("x") == START + 61


def test_memory_does_not_keep_windows_for_ever() -> None:
    windows = MemoryWindows(Clock())
    for number in range(MANY_WINDOWS + 1):
        windows.incr(str(number), 1)
    windows.clock.now = START + 2
    windows.incr("another", 1)
    assert len(windows._counts) == 1
