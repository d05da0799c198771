"""Blocking code in a greenlet of its own, for a run that must be able to leave it behind.

Closing a framework's generator may wait until the code inside it is done. Here
it is closed by the greenlet that iterates it, while the run goes on.
"""

import contextvars
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

import gevent
from gevent.event import Event as Flag

from streaming import scope

logger = logging.getLogger(__name__)

T = TypeVar("T")
AHEAD = 64
CLEANUP_SECONDS = 0.5


def iterate(make: Callable[[], Iterable[T]], ahead: int = AHEAD) -> Generator[list[T], None, None]:
    """Yield what an iterable yields, as lists of what was ready together.

    ``make`` is called in a greenlet of its own, with the caller's context
    variables and a scope of its own. The iterable is at most ``ahead`` items
    ahead of whoever iterates here, then it waits. Raises what it raises. A stop
    of the run, or closing the generator, stops that scope: what waits there ends
    at once. Other code is waited for at most ``CLEANUP_SECONDS``, and left to
    end by itself after that: it meets the stop at its next wait.
    """
    aside = _Aside(make, ahead)
    try:
        while batch := aside.take():
            yield batch
    finally:
        aside.end()


class _Aside(Generic[T]):
    def __init__(self, make: Callable[[], Iterable[T]], ahead: int) -> None:
        self._make = make
        self._ahead = ahead
        self._scope = scope.Scope()
        self._items: deque[T] = deque()
        self._news = Flag()
        self._room = Flag()
        self._failure: BaseException | None = None
        self._greenlet = gevent.spawn(contextvars.copy_context().run, self._iterate)
        self._greenlet.link(lambda _: self._news.set())

    def take(self) -> list[T]:
        """Return what is ready, once there is something; nothing at the end."""
        while not self._items and not self._greenlet.ready():
            self._news.clear()
            with scope.current().waiting():
                self._news.wait()
        batch = list(self._items)
        self._items.clear()
        self._room.set()
        if not batch and self._failure is not None:
            raise self._failure
        return batch

    def end(self) -> None:
        if not self._greenlet.ready():
            self._scope.stop(None)
            self._room.set()
            self._greenlet.join(CLEANUP_SECONDS)
            if not self._greenlet.ready():
                logger.info("a runnable's own code still runs after its run was stopped")

    def _iterate(self) -> None:
        try:
            with scope.entered(self._scope):
                for item in self._make():
                    self._put(item)
        except BaseException as error:  # for the greenlet that iterates; nobody else would see it
            self._failure = error

    def _put(self, item: T) -> None:
        self._items.append(item)
        self._news.set()
        while len(self._items) >= self._ahead and self._scope.stopped is None:
            self._room.clear()
            self._room.wait()
        if self._scope.stopped is not None:
            raise self._scope.stopped
