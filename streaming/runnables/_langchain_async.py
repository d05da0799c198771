"""Runnables that have asynchronous code only: found out, and run on the worker's asyncio loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any, TypeVar

from langchain_core.runnables import Runnable, RunnableBinding, RunnableGenerator, RunnableLambda
from langchain_core.tools import StructuredTool

from streaming.runnables import _bridge
from streaming.runnables._feed import AHEAD, Tell

T = TypeVar("T")


def is_async_only(runnable: Runnable[Any, Any]) -> bool:
    """Say whether some part of a runnable cannot be called without an asyncio loop.

    Parts are found in the fields of LangChain's own compositions, whatever they
    are called; those in a function's closure are not seen. What is not seen, its
    owner says: ``runnable.with_config(metadata={"async_only": True})``.
    """
    return any(_has_no_sync_code(part) for part in _parts(runnable, set()))


def told_by_async(body: Callable[[Tell[T]], Awaitable[None]]) -> Generator[list[T], None, None]:
    """Run ``body`` on the loop, and yield what it tells, as `_feed.told_by` does.

    What it is told with never waits; it is ahead by what one step of the body tells.
    """

    async def told() -> AsyncIterator[T]:
        queue: asyncio.Queue[T | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        here = asyncio.current_task()

        def tell(item: T | None) -> None:
            # A callback may come from the executor's threads.
            if _running_loop() is loop:
                queue.put_nowait(item)
            else:
                loop.call_soon_threadsafe(queue.put_nowait, item)

        async def run() -> None:
            try:
                await body(tell)
            finally:
                tell(None)

        assert here is not None
        task = asyncio.create_task(run())
        try:
            while (item := await queue.get()) is not None:
                yield item
            await task
        finally:
            task.cancel()
            await asyncio.wait([task])

    yield from _bridge.iterate(told, AHEAD)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _has_no_sync_code(part: Runnable[Any, Any]) -> bool:
    if isinstance(part, RunnableBinding) and (part.config.get("metadata") or {}).get("async_only"):
        return True
    if isinstance(part, RunnableLambda):
        return not hasattr(part, "func")
    if isinstance(part, RunnableGenerator):
        return not hasattr(part, "_transform")
    return isinstance(part, StructuredTool) and part.func is None


def _parts(found: Any, seen: set[int]) -> Iterator[Runnable[Any, Any]]:
    """Yield a runnable and all that it is made of."""
    if id(found) in seen:
        return
    seen.add(id(found))
    if isinstance(found, Runnable):
        yield found
        for name in getattr(type(found), "model_fields", ()):
            yield from _parts(getattr(found, name, None), seen)
    elif isinstance(found, dict):
        for value in found.values():
            yield from _parts(value, seen)
    elif isinstance(found, list | tuple):
        for value in found:
            yield from _parts(value, seen)
