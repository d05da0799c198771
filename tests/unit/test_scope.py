"""A run is stopped where it waits, and nowhere else."""

import contextvars
import time
from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event as Flag

from streaming import scope
from streaming.errors import LimitExceeded, UpstreamTimeout
from streaming.scope import Scope, Stopped
from tests.doubles import eventually

LATE = UpstreamTimeout("too late", code="idle")
OVER = LimitExceeded("too long", code="duration")


class Waiter:
    """A greenlet that waits inside a scope, and what became of it."""

    def __init__(self, run: Scope, times: int = 1) -> None:
        self.waits = 0
        self.stopped: Stopped | None = None
        self.open = Flag()
        self._run = run
        self._times = times
        self.greenlet = gevent.spawn(self._wait)

    def _wait(self) -> None:
        try:
            for _ in range(self._times):
                with self._run.waiting():
                    self.waits += 1
                    self.open.wait()
                self.open.clear()
        except Stopped as stop:
            self.stopped = stop

    @property
    def is_waiting(self) -> bool:
        return self.waits > 0

    def ended(self) -> bool:
        return bool(self.greenlet.ready())


@pytest.fixture
def run() -> Scope:
    return Scope()


@pytest.fixture
def waiter(run: Scope) -> Iterator[Waiter]:
    made = Waiter(run)
    eventually(lambda: made.is_waiting)
    yield made
    made.greenlet.kill()


def test_a_stop_ends_a_wait(run: Scope, waiter: Waiter) -> None:
    run.stop(OVER)

    eventually(waiter.ended)
    assert waiter.stopped is run.stopped
    assert waiter.stopped is not None
    assert waiter.stopped.error is OVER


def test_a_cancel_is_a_stop_without_an_error(run: Scope, waiter: Waiter) -> None:
    run.stop(None)

    eventually(waiter.ended)
    assert waiter.stopped is not None
    assert waiter.stopped.error is None


def test_a_stopped_run_waits_no_more(run: Scope) -> None:
    run.stop(None)

    with pytest.raises(Stopped), run.waiting():
        pytest.fail("the wait began")
    with pytest.raises(Stopped):
        run.sleep(0)


def test_the_first_reason_stands(run: Scope, waiter: Waiter) -> None:
    run.stop(OVER)
    run.stop(None)

    eventually(waiter.ended)
    assert waiter.stopped is not None
    assert waiter.stopped.error is OVER


def test_a_stop_reaches_every_greenlet_that_waits(run: Scope) -> None:
    waiters = [Waiter(run) for _ in range(5)]
    other = Waiter(Scope())
    eventually(lambda: all(waiter.is_waiting for waiter in [*waiters, other]))

    run.stop(None)

    eventually(lambda: all(waiter.ended() for waiter in waiters))
    assert all(waiter.stopped for waiter in waiters)
    gevent.idle()
    assert not other.ended()
    other.greenlet.kill()


def test_a_greenlet_that_is_not_waiting_goes_on_until_its_next_wait(run: Scope) -> None:
    busy, done = Flag(), []

    def work() -> None:
        with run.waiting():
            pass
        busy.wait()  # such as a commit: not to be torn apart
        done.append("the work")
        with run.waiting():
            done.append("another wait")

    greenlet = gevent.spawn(work)
    gevent.idle()
    run.stop(None)
    gevent.idle()
    assert not greenlet.ready()
    busy.set()
    greenlet.join(1)

    assert done == ["the work"]
    assert isinstance(greenlet.exception, Stopped)


def test_a_stop_never_lands_outside_of_a_wait(run: Scope) -> None:
    torn: list[str] = []
    rounds = 0

    def work() -> None:
        nonlocal rounds
        while True:
            with run.waiting():
                gevent.sleep(0)
            try:
                gevent.sleep(0)
                rounds += 1
            except Stopped:
                torn.append("outside of a wait")

    for turns in range(40):
        run = Scope()
        greenlets = [gevent.spawn(work) for _ in range(3)]
        for _ in range(turns):
            gevent.sleep(0)
        run.stop(None)
        gevent.joinall(greenlets, timeout=2)
        assert all(isinstance(greenlet.exception, Stopped) for greenlet in greenlets)
    assert torn == []
    assert rounds > 0


def test_a_wait_that_ends_before_the_stop_arrives_is_left_alone(run: Scope) -> None:
    waiter = Waiter(run)
    eventually(lambda: waiter.is_waiting)

    waiter.open.set()
    gevent.sleep(0)
    run.stop(None)

    waiter.greenlet.join(1)
    assert waiter.ended()


def test_a_run_can_be_stopped_from_inside_its_own_wait(run: Scope) -> None:
    def stop_oneself() -> str:
        with run.waiting():
            run.stop(None)
            return "went on"

    greenlet = gevent.spawn(stop_oneself)
    greenlet.join(1)

    assert greenlet.value == "went on"
    with pytest.raises(Stopped), run.waiting():
        pass


def test_a_wait_after_which_nothing_waits_is_forgotten(run: Scope) -> None:
    with run.waiting():
        pass
    run.stop(None)
    gevent.idle()  # nothing is thrown into this greenlet


def test_nothing_ends_before_its_time(run: Scope, waiter: Waiter) -> None:
    run.expect(10, LATE)
    run.check_deadlines(time.monotonic() + 9.9)

    gevent.idle()
    assert not waiter.ended()


def test_a_wait_that_is_late_ends_and_the_run_goes_on(run: Scope, waiter: Waiter) -> None:
    run.expect(10, LATE)
    run.check_deadlines(time.monotonic() + 10)

    eventually(waiter.ended)
    assert waiter.stopped is not None
    assert waiter.stopped.error is LATE
    assert run.stopped is None
    with run.waiting():
        pass


def test_what_is_no_longer_expected_is_never_late(run: Scope, waiter: Waiter) -> None:
    run.expect(10, LATE)
    run.relax()
    run.check_deadlines(time.monotonic() + 1000)

    gevent.idle()
    assert not waiter.ended()


def test_a_new_expectation_replaces_the_last(run: Scope, waiter: Waiter) -> None:
    run.expect(10, LATE)
    run.expect(100, OVER)
    run.check_deadlines(time.monotonic() + 50)
    gevent.idle()
    assert not waiter.ended()

    run.check_deadlines(time.monotonic() + 101)
    eventually(waiter.ended)
    assert waiter.stopped is not None
    assert waiter.stopped.error is OVER


def test_an_expectation_that_ran_out_while_nothing_waited_ends_the_next_wait(run: Scope) -> None:
    run.expect(10, LATE)
    run.check_deadlines(time.monotonic() + 11)  # the run is busy with a slow commit

    waiter = Waiter(run)
    eventually(lambda: waiter.is_waiting or waiter.ended())
    run.check_deadlines(time.monotonic() + 12)

    eventually(waiter.ended, 1)
    assert waiter.stopped is not None
    assert waiter.stopped.error is LATE


def test_the_end_of_a_run_stops_it_for_good() -> None:
    run = Scope(ends_at=100.0, ends_with=OVER)
    waiter = Waiter(run)
    eventually(lambda: waiter.is_waiting)
    run.check_deadlines(99.9)
    gevent.idle()
    assert not waiter.ended()

    run.check_deadlines(100.0)
    run.check_deadlines(101.0)

    eventually(waiter.ended)
    assert run.stopped is waiter.stopped
    assert run.stopped is not None
    assert run.stopped.error is OVER


def test_a_run_without_an_end_has_none() -> None:
    run = Scope()
    run.check_deadlines(1e18)
    assert run.stopped is None


def test_sleeping_is_waiting(run: Scope) -> None:
    greenlet = gevent.spawn(run.sleep, 60)
    gevent.idle()
    run.stop(None)
    greenlet.join(1)

    assert isinstance(greenlet.exception, Stopped)


def test_code_of_a_run_finds_its_scope_also_in_greenlets_that_copy_its_context(run: Scope) -> None:
    found: list[Scope] = []
    with scope.entered(run) as entered:
        assert entered is run
        assert scope.current() is run
        context = contextvars.copy_context()
        gevent.spawn(context.run, lambda: found.append(scope.current())).join()
        with scope.entered(Scope()) as inner:
            assert scope.current() is inner
        assert scope.current() is run

    assert found == [run]
    assert scope.current() is not run


def test_outside_of_a_run_nothing_is_ever_stopped() -> None:
    with scope.current().waiting():
        gevent.sleep(0)
    assert scope.current().stopped is None


def test_a_stop_is_no_exception_that_a_retry_loop_catches() -> None:
    assert not issubclass(Stopped, Exception)
