"""What every store of counters promises."""

from collections.abc import Callable, Iterator

import pytest
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

from streaming import plugins
from streaming.eventlogs import EventLog
from streaming.limits import Counters, Place
from tests.doubles import eventually, running

OpenCounters = Callable[[EventLog], Counters]


@pytest.fixture
def open_counters(log_name: str) -> Iterator[OpenCounters]:
    made: dict[int, Counters] = {}

    def open_(log: EventLog) -> Counters:
        if id(log) not in made:
            made[id(log)] = plugins.create("limits", log_name, log)
        return made[id(log)]

    yield open_
    for counters in made.values():
        counters.close()


@pytest.fixture
def counters(log: EventLog, open_counters: OpenCounters) -> Counters:
    log.renew("w1", 10)
    return open_counters(log)


@pytest.fixture
def peer_counters(peer: EventLog, counters: Counters, open_counters: OpenCounters) -> Counters:
    """The same counters as another worker has them."""
    peer.renew("w2", 10)
    return open_counters(peer)


# Windows


def test_as_many_hits_succeed_in_a_window_as_it_allows_over_all_workers(
    counters: Counters, peer_counters: Counters
) -> None:
    item = RateLimitItemPerMinute(7)
    workers = [SlidingWindowCounterRateLimiter(each.windows) for each in (counters, peer_counters)]
    answers: list[bool] = []

    def hit(at: int) -> None:
        answers.append(workers[at % 2].hit(item, "creates", "key_a"))

    with running(*(lambda at=at: hit(at) for at in range(50))):
        pass
    assert answers.count(True) == 7
    assert workers[0].get_window_stats(item, "creates", "key_a").remaining == 0
    assert workers[1].hit(item, "creates", "key_b")
    assert workers[0].get_window_stats(item, "creates", "key_b").remaining == 6


def test_a_window_opens_again_as_time_passes(counters: Counters) -> None:
    limiter = SlidingWindowCounterRateLimiter(counters.windows)
    item = RateLimitItemPerSecond(2)
    assert [limiter.hit(item, "polls") for _ in range(3)] == [True, True, False]
    assert eventually(lambda: limiter.hit(item, "polls"))


def test_windows_serve_the_librarys_other_strategy_too(counters: Counters) -> None:
    limiter = FixedWindowRateLimiter(counters.windows)
    item = RateLimitItemPerMinute(2)
    assert [limiter.hit(item, "x") for _ in range(3)] == [True, True, False]
    limiter.clear(item, "x")
    assert limiter.hit(item, "x")


def test_a_window_that_is_cleared_is_empty(counters: Counters) -> None:
    limiter = SlidingWindowCounterRateLimiter(counters.windows)
    item = RateLimitItemPerMinute(1)
    assert limiter.hit(item, "x")
    limiter.clear(item, "x")
    assert limiter.hit(item, "x")
    counters.expire()
    assert not limiter.hit(item, "x")


# Places


def test_places_are_taken_until_there_are_no_more_and_are_free_again(
    counters: Counters, peer_counters: Counters
) -> None:
    place = Place("readers of key_a", 2)
    assert counters.take([place], "w1") == ""
    assert peer_counters.take([place], "w2") == ""
    assert counters.take([place], "w1") == place.key
    peer_counters.leave([place.key], "w2")
    assert counters.take([place], "w1") == ""
    assert peer_counters.take([Place("readers of key_b", 2)], "w2") == ""


def test_of_several_places_all_are_taken_or_none(counters: Counters) -> None:
    stream, all_ = Place("readers of st_1", 1), Place("readers of key_a", 5)
    assert counters.take([stream, all_], "w1") == ""
    for _ in range(3):
        assert counters.take([stream, all_], "w1") == stream.key
    assert counters.take([all_._replace(most=2)], "w1") == "", "a refusal took a place"
    assert counters.take([all_._replace(most=2)], "w1") == all_.key


def test_of_many_at_once_exactly_as_many_get_a_place_as_there_are(
    counters: Counters, peer_counters: Counters
) -> None:
    place = Place("readers of key_a", 9)
    answers: list[str] = []

    def take(at: int) -> None:
        answers.append((counters, peer_counters)[at % 2].take([place], f"w{at % 2 + 1}"))

    with running(*(lambda at=at: take(at) for at in range(40))):
        pass
    assert answers.count("") == 9


def test_the_places_of_a_worker_that_is_gone_are_free(
    peer: EventLog, counters: Counters, peer_counters: Counters, log_name: str
) -> None:
    if log_name == "memory":
        pytest.skip("its only worker takes its counters along")
    place = Place("readers of key_a", 1)
    assert peer_counters.take([place], "w2") == ""
    assert counters.take([place], "w1") == place.key
    peer.renew("w2", 0)
    assert counters.take([place], "w1") == ""
    counters.leave([place.key], "w1")
    peer.retire("w2")
    counters.expire()
    assert counters.take([place], "w1") == ""
