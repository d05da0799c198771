"""Asynchronous code for callers that block: async iterators as generators, coroutines as calls.

The code runs in the worker's one asyncio loop (`_loop_thread`); what it yields
is handed to the greenlet that iterates here, in batches of what was ready.
"""

import asyncio
import contextvars
import inspect
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any, Generic, TypeVar

import gevent
from gevent.event import Event as Flag

from streaming import scope
from streaming.errors import StreamingError
from streaming.runnables._loop_thread import Loop, awaited, running_loop

logger = logging.getLogger(__name__)

T = TypeVar("T")
MakeIterator = Callable[[], AsyncIterator[T] | Awaitable[AsyncIterator[T]]]

AHEAD = 64
CLEANUP_SECONDS = 1.0


def iterate(make: MakeIterator[T], ahead: int = AHEAD) -> Generator[list[T], None, None]:
    """Yield what an async iterator yields, as lists of what was ready together.

    ``make`` is called inside the loop, with the caller's context variables. The
    iterator is at most ``ahead`` items ahead of whoever iterates here, then it
    waits. Raises what it raises. Waiting is part of the run's scope: a stop, or
    closing the generator, cancels the iterator's task, waits for its cleanup at
    most ``CLEANUP_SECONDS``, and leaves it to itself after that.
    """
    crossing = _Crossing(make, ahead)
    with awaited(crossing.hub):
        try:
            while batch := crossing.take():
                yield batch
        finally:
            crossing.end()


def run(make: Callable[[], Awaitable[T]]) -> T:
    """Return what an awaitable returns. Blocks; raises and stops as `iterate`."""

    async def once() -> AsyncIterator[T]:
        yield await make()

    # To the end, and not just to the item: what is closed before that has to be cancelled.
    [result] = [item for batch in iterate(once) for item in batch]
    return result


class _Reach(scope.Scope):
    """The scope of what an asynchronous run does in the worker's hub.

    Code in the loop's thread is stopped by cancelling its task: nothing may be
    thrown into a greenlet of another thread.
    """

    def __init__(self, hub: Any) -> None:
        super().__init__()
        self._hub = hub

    def waiting(self) -> scope._Wait:
        if gevent.get_hub() is self._hub:
            return super().waiting()
        if self.stopped is not None:
            raise self.stopped
        return scope.Scope().waiting()


class _Crossing(Generic[T]):
    """One iterator on its way from the loop's thread to a greenlet.

    ``_items`` is filled there and emptied here. Each side looks at it once more
    after it said that it waits, so no wake-up is lost without a lock.
    """

    def __init__(self, make: MakeIterator[T], ahead: int) -> None:
        self._make = make
        self._ahead = ahead
        self._items: deque[T] = deque()
        self._ended = False
        self._failure: BaseException | None = None
        self._news = Flag()
        self._told = False
        self._room: asyncio.Future[None] | None = None
        self._stopping = False
        self._loop: Loop = running_loop()
        self.hub = self._loop.hub
        self._reach = _Reach(self.hub)
        self._loop.call_soon_threadsafe(self._start, contextvars.copy_context())

    # In the greenlet that iterates

    def take(self) -> list[T]:
        """Return what is ready, once there is something; nothing at the end."""
        run = scope.current()
        if run.stopped is not None:
            raise run.stopped
        while not self._items and not self._ended:
            self._news.clear()
            if not self._items and not self._ended:
                with run.waiting():
                    self._news.wait()
        batch = []
        while self._items:
            batch.append(self._items.popleft())
        if self._room is not None:
            self._call(self._make_room)
        if not batch and self._failure is not None:
            raise self._failure
        return batch

    def end(self) -> None:
        if self._ended or self._loop.pid != os.getpid():
            return
        self._stopping = True
        self._reach.stop(None)
        self._call(self._cancel)
        with gevent.Timeout(CLEANUP_SECONDS, False):
            while not self._ended:
                self._news.clear()
                if not self._ended:
                    self._news.wait()
            return
        logger.warning("asynchronous code did not end in time after it was cancelled")

    def _call(self, function: Callable[..., object]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the worker ends, and the loop has
            self._ended = True

    # In the loop's thread

    def _start(self, context: contextvars.Context) -> None:
        self._task = self._loop.create_task(self._pump(), context=context)
        # Not at the end of the task's own code: a task that is cancelled early never gets there.
        self._task.add_done_callback(self._finish)

    def _cancel(self) -> None:
        self._task.cancel()

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def _pump(self) -> None:
        with scope.entered(self._reach):
            made = self._make()
            items = await made if inspect.isawaitable(made) else made
            try:
                async for item in items:
                    if self._stopping:
                        break
                    self._items.append(item)
                    self._tell()
                    if len(self._items) >= self._ahead:
                        await self._wait_for_room(items)
            finally:
                if hasattr(items, "aclose"):
                    await items.aclose()

    async def _wait_for_room(self, items: AsyncIterator[T]) -> None:
        self._room = self._loop.create_future()
        try:
            if len(self._items) >= self._ahead:
                await self._room
        except asyncio.CancelledError as cancelled:
            # Its own code has not met the cancel, and may have something to do about it.
            if hasattr(items, "athrow"):
                with suppress(StopAsyncIteration):
                    await items.athrow(cancelled)
            raise
        finally:
            self._room = None

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._loop.tell_hub(self._hear)

    def _finish(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            self._failure = StreamingError("the run was cancelled from inside", code="cancelled_inside")
        else:
            self._failure = task.exception()
        if self._stopping and isinstance(self._failure, Exception) and not task.cancelled():
            logger.warning("asynchronous code failed when it was cancelled", exc_info=self._failure)
        self._ended = True
        self._loop.tell_hub(self._hear)

    # In the hub

    def _hear(self) -> None:
        self._told = False
        self._news.set()
