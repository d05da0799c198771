"""Reach a run wherever it waits: cancel it, or end a wait that takes too long.

A framework may move a run's upstream call into greenlets of its own, so killing
the run's greenlet is not enough. Each wait for something outside happens inside
``scope.waiting()``; whoever stops the run throws `Stopped` into just those
greenlets. Code that is not waiting, such as an append, is never torn apart: it
meets the stop at its next wait.
"""

import contextvars
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import gevent
from greenlet import getcurrent, greenlet

from streaming.errors import StreamingError

logger = logging.getLogger(__name__)


class Stopped(BaseException):
    """The run must end here; ``error`` says why, and is ``None`` for a cancel.

    A ``BaseException``, so that no SDK's retry loop takes it for a fault.
    """

    def __init__(self, error: StreamingError | None) -> None:
        super().__init__(error)
        self.error = error


class Closable(Protocol):
    def close(self) -> None: ...


class Scope:
    """One run's waits. Not for several threads: it belongs to one worker's loop."""

    def __init__(self, ends_at: float = math.inf, ends_with: StreamingError | None = None) -> None:
        self.stopped: Stopped | None = None
        self.waiters: set[greenlet] = set()
        self.held: set[Closable] = set()
        """Open answers, each from its head until it is closed or read to its end."""
        self._ends_at = ends_at
        self._ends_with = ends_with
        self._expected_by = math.inf
        self._late: StreamingError | None = None

    def expect(self, seconds: float, late: StreamingError) -> None:
        """From now on, a wait still going on after ``seconds`` ends with ``late``."""
        self._expected_by = time.monotonic() + seconds
        self._late = late

    def relax(self) -> None:
        """Take the last ``expect`` back."""
        self._expected_by = math.inf

    def check_deadlines(self, now: float) -> None:
        """End what is overdue at ``now`` (``time.monotonic``). To be called a few times a second."""
        if now >= self._ends_at:
            self.stop(self._ends_with)
        elif now >= self._expected_by and self.waiters:
            self._throw(Stopped(self._late))

    def stop(self, error: StreamingError | None) -> None:
        """End every wait of this run, now and from now on. The first reason given stands."""
        if self.stopped is None:
            self.stopped = Stopped(error)
            self._throw(self.stopped)

    def waiting(self) -> "_Wait":
        """Return a context manager that marks the calling greenlet as waiting.

        Entering it raises `Stopped` at once if the run was stopped.
        """
        return _Wait(self)

    def close_held(self) -> None:
        """Close answers that were left half read, by a framework that forgot a generator. Raises nothing."""
        while self.held:
            try:
                self.held.pop().close()
            except Exception:
                logger.warning("an answer could not be closed", exc_info=True)

    def sleep(self, seconds: float) -> None:
        with self.waiting():
            gevent.sleep(seconds)

    def _throw(self, stop: Stopped) -> None:
        loop = gevent.get_hub().loop
        for waiter in self.waiters:
            loop.run_callback(self._throw_into, waiter, stop)

    def _throw_into(self, waiter: greenlet, stop: Stopped) -> None:
        # Its wait may have ended between the decision and this turn of the loop.
        if waiter in self.waiters and waiter is not getcurrent():
            if stop is not self.stopped:
                self._expected_by = math.inf
            waiter.throw(stop)


class _Wait:
    """A class, because a wait happens for every block that an upstream sends."""

    __slots__ = ("_scope", "_waiter")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._waiter = getcurrent()

    def __enter__(self) -> None:
        if self._scope.stopped is not None:
            raise self._scope.stopped
        self._scope.waiters.add(self._waiter)

    def __exit__(self, *_: object) -> None:
        self._scope.waiters.discard(self._waiter)


_current: contextvars.ContextVar[Scope] = contextvars.ContextVar("scope")


def current() -> Scope:
    """Return the scope of the run this code works for; outside of a run, one that never ends."""
    try:
        return _current.get()
    except LookupError:
        return Scope()


@contextmanager
def entered(scope: Scope) -> Iterator[Scope]:
    """Make ``scope`` the current one, also for greenlets that copy this context."""
    token = _current.set(scope)
    try:
        yield scope
    finally:
        _current.reset(token)
