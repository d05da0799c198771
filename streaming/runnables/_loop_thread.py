"""One real thread with one asyncio loop for each worker, for code that only exists as async.

One loop for all runs, because a client that is kept for many requests belongs
to the loop that first used it; a thread of its own, because a loop inside the
worker's hub would stop every other greenlet. It is started by whoever needs it
first, in the process that needs it: after a fork there is a new one.

What such code hands to "a thread" (``asyncio.to_thread``, synchronous tools and
nodes) runs as a greenlet of the worker's hub. Synchronous clients live there: a
connection that gevent opened in one thread cannot be awaited in another.
"""

import asyncio
import atexit
import contextvars
import functools
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, TypeVarTuple

import gevent
from gevent import monkey
from gevent.event import Event as Flag
from gevent.lock import Semaphore

logger = logging.getLogger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CLOSE_SECONDS = 2.0


class Loop(asyncio.SelectorEventLoop):
    """An asyncio loop whose default executor is the greenlets of ``hub``."""

    def __init__(self, hub: Any) -> None:
        super().__init__()
        self.hub = hub
        self.pid = os.getpid()
        self.closing = False
        self.ended = Flag()

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        if executor is not None:
            return super().run_in_executor(executor, func, *args)
        future: asyncio.Future[T] = self.create_future()
        work = functools.partial(contextvars.copy_context().run, func, *args)
        self.tell_hub(gevent.spawn, self._work, work, future)
        return future

    def tell_hub(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call ``function`` in the worker's hub, where it must not block. For this loop's thread."""
        self.hub.loop.run_callback_threadsafe(function, *arguments)

    def _work(self, work: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = work()
        except StopIteration as stop:
            error = RuntimeError("a StopIteration left a function")  # a future cannot hold one
            error.__cause__ = stop
        except BaseException as raised:  # whoever awaits it is to meet it, a stop of the run included
            error = raised
        with suppress(RuntimeError):  # the loop was closed meanwhile
            self.call_soon_threadsafe(_settle, future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


_loop: Loop | None = None
_starting = Semaphore()


def running_loop() -> Loop:
    """Return this process's loop; start it, and its thread, if there is none yet."""
    global _loop
    if _loop is None:
        with _starting:
            if _loop is None:
                _loop = _start()
    return _loop


def close(seconds: float = CLOSE_SECONDS) -> None:
    """Cancel what runs in the loop and end its thread, if there is one. Blocks at most ``seconds``."""
    global _loop
    loop, _loop = _loop, None
    if loop is not None:
        loop.closing = True
        loop.call_soon_threadsafe(loop.stop)
        with awaited(loop.hub):
            ended = loop.ended.wait(seconds)
        if not ended:
            logger.warning("the asyncio thread did not end in time")


@contextmanager
def awaited(hub: Any) -> Iterator[None]:
    """Keep the hub waiting meanwhile, which otherwise takes itself for deadlocked: it knows no threads."""
    watcher = hub.loop.async_()
    watcher.start(lambda: None)
    try:
        yield
    finally:
        watcher.stop()
        watcher.close()


def _start() -> Loop:
    hub = gevent.get_hub()
    started = Flag()
    made: list[Loop | Exception] = []

    def live() -> None:
        try:
            loop = Loop(hub)
        except Exception as error:
            made.append(error)
            hub.loop.run_callback_threadsafe(started.set)
            return
        made.append(loop)
        loop.call_soon(loop.tell_hub, started.set)
        try:
            _run(loop)
        finally:
            gevent.get_hub().destroy(destroy_loop=True)
            # The very last: a thread that still has to do at the end of its process may crash it.
            loop.tell_hub(loop.ended.set)

    monkey.get_original("_thread", "start_new_thread")(live, ())
    with awaited(hub):
        started.wait()
    if isinstance(made[0], Exception):
        raise made[0]
    return made[0]


def _run(loop: Loop) -> None:
    while not loop.closing:
        try:
            loop.run_forever()
        except BaseException:
            # SystemExit leaves a loop through its task; all other runs still need the loop.
            logger.exception("the asyncio loop was left by an exception")
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.call_later(CLOSE_SECONDS / 2, loop.stop)
    with suppress(RuntimeError):  # stopped before all had ended
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    # Tasks that took too long are left as they are: the process ends.
    with suppress(RuntimeError):
        loop.close()


def _forget() -> None:
    global _loop, _starting
    _loop, _starting = None, Semaphore()


os.register_at_fork(after_in_child=_forget)
atexit.register(close)
