"""Drive coroutines from a greenlet: no event loop, no thread.

The library is asynchronous, but whatever it waits for is ours, and ours blocks
the greenlet. So its coroutines never really wait, and are run by asking them to
go on. Where code of ours wants to let the caller do something meanwhile, such as
write a heartbeat, it awaits ``pause()``.
"""

import types
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


class _Pause:
    pass


_PAUSE = _Pause()


@types.coroutine
def pause() -> Generator[_Pause, None, None]:
    """Let whoever drives this go on for a moment."""
    yield _PAUSE


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns. Blocks as it does; raises what it raises."""
    while True:
        try:
            _check(coroutine.send(None))
        except StopIteration as stop:
            result: T = stop.value
            return result


def iterate(items: AsyncGenerator[T, None]) -> Iterator[T | None]:
    """Yield what an asynchronous generator yields, and ``None`` at each pause.

    Left early, it can be iterated further, and should be, to its end: closing it
    does not reach generators inside it, which asyncio would finish later.
    """
    return _Driven(items)


class _Driven(Iterator[T | None]):
    """Not a generator: an exception thrown into whoever iterates must not end it."""

    def __init__(self, items: AsyncGenerator[T, None]) -> None:
        self._items = items
        self._step: Awaitable[T] | None = None

    def __next__(self) -> T | None:
        if self._step is None:
            self._step = self._items.__anext__()
        while True:
            try:
                waits: object = self._step.send(None)  # type: ignore[attr-defined]
            except StopIteration as stop:
                self._step = None
                item: T = stop.value
                return item
            except StopAsyncIteration:
                self._step = None
                raise StopIteration from None
            except BaseException:
                self._step = None  # the generator has ended, and says so when it is asked again
                raise
            if _check(waits):
                return None


def _check(waits: object) -> bool:
    """Say whether it is a pause; asyncio's ``sleep(0)`` is nothing. Anything else can't be waited for."""
    if waits is not None and waits is not _PAUSE:
        raise RuntimeError(f"this waits for an event loop, and there is none: {waits!r}")
    return waits is _PAUSE
