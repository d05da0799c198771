"""A bell wakes who waits, at once or in time, and never by itself."""

import time

import gevent
import pytest

from streaming.bell import Bell


def test_who_waits_is_woken_at_once() -> None:
    bell = Bell()
    waiting = gevent.spawn(bell.wait, 5)
    gevent.sleep(0)
    began = time.monotonic()
    bell.ring()
    assert waiting.get(timeout=1) is True
    assert time.monotonic() - began < 0.5


def test_one_that_was_rung_before_is_heard() -> None:
    bell = Bell()
    bell.ring()
    assert bell.wait(5) is True


@pytest.mark.parametrize("seconds", [0, -1])
def test_no_time_is_no_wait(seconds: float) -> None:
    assert Bell().wait(seconds) is False


def test_each_wait_has_its_own_time_though_they_share_a_timer() -> None:
    bell = Bell()
    gevent.spawn_later(0.02, bell.ring)
    assert bell.wait(0.1) is True
    bell.rung = False
    began = time.monotonic()
    assert bell.wait(0.3) is False  # the timer of the first wait comes in the middle of this one
    assert 0.29 < time.monotonic() - began < 1
    began = time.monotonic()
    assert bell.wait(0.05) is False  # a shorter one than before
    assert 0.04 < time.monotonic() - began < 0.3


def test_a_wait_that_is_torn_apart_leaves_nothing_behind() -> None:
    bell = Bell()
    waiting = gevent.spawn(bell.wait, 5)
    gevent.sleep(0)
    bell.ring()  # the greenlet is about to be woken, and is killed first
    waiting.kill()
    bell.rung = False
    later = gevent.spawn(gevent.sleep, 0.05)
    gevent.sleep(0.01)
    assert not later.ready()
    assert bell.wait(0.05) is False


def test_a_closed_bell_has_no_timer() -> None:
    bell = Bell()
    assert bell.wait(0.01) is False
    gevent.spawn_later(0.01, bell.ring)
    assert bell.wait(60) is True
    before = gevent.get_hub().loop.activecnt
    bell.close()
    assert gevent.get_hub().loop.activecnt == before - 1
