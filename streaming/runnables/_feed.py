"""Code that calls back, as a generator: it runs in a greenlet of its own, and what it tells is handed over.

The hand-over is bounded: whoever tells too much waits until it was taken. What
was told meanwhile is taken together, so it is written together.
"""

import contextvars
import logging
import sys
from collections import deque
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

import gevent
from gevent.event import Event as Flag
from gevent.monkey import get_original

from streaming import scope
from streaming.errors import RunnableFailed

logger = logging.getLogger(__name__)

T = TypeVar("T")
Tell = Callable[[T], None]

AHEAD = 256
UNWIND_SECONDS = 0.4
BUSY_SECONDS = 3.0
KILL_SECONDS = 0.4

_thread_id: Callable[[], int] = get_original("_thread", "get_ident")


def told_by(body: Callable[[Tell[T]], None], ahead: int = AHEAD) -> Generator[list[T], None, None]:
    """Run ``body``, and yield what it tells, as lists of what was ready together.

    It gets a function to tell with, which raises `scope.Stopped` once nobody
    takes any more; in other threads that function never waits. Its context
    variables are a copy of the caller's, and its scope is its own, stopped when
    the generator ends: waits for HTTP end then at once, anything else when it
    waits next. Answers that it left half read are closed. Raises what ``body`` raises.
    """
    telling = _Telling(body, ahead)
    try:
        while batch := telling.take():
            yield batch
    finally:
        telling.end()


class _Telling(Generic[T]):
    def __init__(self, body: Callable[[Tell[T]], None], ahead: int) -> None:
        self._body = body
        self._ahead = ahead
        self._told: deque[T] = deque()
        self._news = Flag()
        self._room = Flag()
        self._ended = False
        self._failure: BaseException | None = None
        self._scope = scope.Scope()
        self._thread = _thread_id()
        self._loop = gevent.get_hub().loop
        self._greenlet = gevent.spawn(contextvars.copy_context().run, self._run)

    def take(self) -> list[T]:
        """Return what was told, once there is something; nothing at the end."""
        while not self._told and not self._ended:
            self._news.clear()
            with scope.current().waiting():
                self._news.wait()
        batch = []
        while self._told:
            batch.append(self._told.popleft())
        self._room.set()
        if not batch and self._failure is not None:
            raise self._failure
        return batch

    def end(self) -> None:
        self._scope.stop(None)
        if not self._greenlet.dead:
            self._greenlet.join(UNWIND_SECONDS)
        if not self._greenlet.dead:
            # A loop that is behind may not have come to it: killed now, its cleanup would be torn apart.
            with gevent.Timeout(BUSY_SECONDS, False):
                gevent.idle()
        if not self._greenlet.dead:
            # It waits for something that is not in its scope: a sleep, a lock, a database.
            self._greenlet.kill(scope.Stopped(None), timeout=KILL_SECONDS)
        if not self._greenlet.dead:
            logger.warning("what a runnable does did not end in time after it was stopped")
        self._scope.close_held()
        self._failure = None

    def _run(self) -> None:
        try:
            with scope.entered(self._scope):
                self._body(self._tell)
        except (Exception, scope.Stopped) as error:
            self._failure = error
        except BaseException as error:
            # It must not end the worker, if that is what it wants.
            self._failure = RunnableFailed(f"the runnable raised {type(error).__name__}", code="raised")
        finally:
            self._ended = True
            self._news.set()

    def _tell(self, item: T) -> None:
        if self._scope.stopped is not None:
            if isinstance(sys.exception(), GeneratorExit | scope.Stopped):
                return  # it is being unwound already, and what is told of that is for nobody
            raise self._scope.stopped
        self._told.append(item)
        if _thread_id() != self._thread:
            self._loop.run_callback_threadsafe(self._news.set)
            return
        self._news.set()
        while len(self._told) >= self._ahead:
            self._room.clear()
            with self._scope.waiting():
                self._room.wait()
