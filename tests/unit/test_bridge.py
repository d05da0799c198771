"""Asynchronous code reaches blocking callers whole, in order, and lets go when it is told to."""

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import closing
from pathlib import Path

import gevent
import pytest
from gevent.event import Event as Flag

from streaming import scope
from streaming.errors import StreamingError
from streaming.runnables import _bridge, _loop_thread
from streaming.scope import Scope, Stopped
from tests.doubles import eventually, running

WHO = contextvars.ContextVar("who", default="nobody")


class Letters:
    """An async generator that tells what became of it."""

    def __init__(self, count: int, pause_seconds: float = 0.0, cleanup_seconds: float = 0.0) -> None:
        self.yielded = 0
        self.cancelled = False
        self.closed = False
        self._count = count
        self._pause_seconds = pause_seconds
        self._cleanup_seconds = cleanup_seconds

    async def __call__(self) -> AsyncIterator[str]:
        try:
            for place in range(self._count):
                self.yielded += 1
                yield f"{WHO.get()}{place}"
                await asyncio.sleep(self._pause_seconds)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            if self._cleanup_seconds:
                await asyncio.sleep(self._cleanup_seconds)
            self.closed = True


@pytest.fixture(autouse=True)
def quiet_end() -> Iterator[None]:
    yield
    gc.collect()


def all_of(letters: Letters, **options: int) -> list[str]:
    return [item for batch in _bridge.iterate(letters, **options) for item in batch]


def test_items_come_in_order_and_whole() -> None:
    letters = Letters(1000)
    assert all_of(letters) == [f"nobody{place}" for place in range(1000)]
    assert letters.closed


def test_what_is_ready_together_comes_together() -> None:
    batches = list(_bridge.iterate(Letters(1000)))
    assert len(batches) < 500
    assert max(map(len, batches)) <= _bridge.AHEAD + 1


def test_an_iterator_that_has_to_be_awaited_first_is() -> None:
    async def make() -> AsyncIterator[str]:
        await asyncio.sleep(0)
        return Letters(2)()

    assert [item for batch in _bridge.iterate(make) for item in batch] == ["nobody0", "nobody1"]


def test_two_hundred_at_once_keep_their_context_apart() -> None:
    heard: dict[str, list[str]] = {}

    def follow(name: str) -> None:
        WHO.set(name)
        heard[name] = all_of(Letters(20, pause_seconds=0.001))

    threads_before = len(os.listdir("/proc/self/task"))
    names = [f"run{number}-" for number in range(200)]
    with running(*(lambda name=name: follow(name) for name in names)):
        eventually(lambda: len(heard) > 20, 20)
        assert len(os.listdir("/proc/self/task")) <= threads_before + 1

    assert heard == {name: [f"{name}{place}" for place in range(20)] for name in names}


def waits_for_its_reader(batches: Generator[list[str], None, None]) -> bool:
    """Say whether the iterator in the loop's thread has come as far as it may, and stands still."""
    crossing = batches.gi_frame.f_locals["crossing"]
    room = crossing._room
    return len(crossing._items) >= crossing._ahead and room is not None and not room.done()


def test_an_iterator_waits_for_a_slow_reader() -> None:
    letters = Letters(1000)
    with closing(_bridge.iterate(letters, ahead=4)) as batches:
        next(batches)
        eventually(lambda: waits_for_its_reader(batches))
        seen = letters.yielded
        assert seen <= 10
        gevent.sleep(0.05)
        assert letters.yielded == seen
        for _ in range(5):
            next(batches)
        assert letters.yielded > seen


def test_an_iterator_closed_while_it_waits_for_its_reader_meets_the_cancel() -> None:
    letters = Letters(1000)
    batches = _bridge.iterate(letters, ahead=4)
    next(batches)
    eventually(lambda: waits_for_its_reader(batches))
    batches.close()

    assert letters.cancelled
    assert letters.closed


def test_a_generator_closed_early_has_cleaned_up() -> None:
    letters = Letters(1000, pause_seconds=60, cleanup_seconds=0.05)
    batches = _bridge.iterate(letters)
    assert next(batches) == ["nobody0"]
    started = time.monotonic()
    batches.close()

    assert letters.cancelled
    assert letters.closed
    assert time.monotonic() - started < 1.0


def test_cleanup_that_takes_for_ever_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    letters = Letters(1000, pause_seconds=60, cleanup_seconds=60)
    batches = _bridge.iterate(letters)
    next(batches)
    started = time.monotonic()
    batches.close()

    assert time.monotonic() - started < _bridge.CLEANUP_SECONDS + 1
    assert "did not end in time" in caplog.text
    assert not letters.closed


def test_a_stopped_run_cancels_what_it_waits_for() -> None:
    letters = Letters(1000, pause_seconds=60)
    run = Scope()
    heard: list[str] = []

    def follow() -> None:
        with scope.entered(run):
            heard.extend(all_of(letters))

    greenlet = gevent.spawn(follow)
    eventually(lambda: letters.yielded == 1 and run.waiters)
    run.stop(None)
    greenlet.join(1)

    assert isinstance(greenlet.exception, Stopped)
    assert letters.cancelled
    assert letters.closed


def test_a_run_that_was_stopped_before_does_not_wait() -> None:
    letters = Letters(3)
    run = Scope()
    run.stop(None)
    with scope.entered(run), pytest.raises(Stopped):
        all_of(letters)


def test_what_comes_before_an_exception_is_heard_and_then_the_exception() -> None:
    async def breaks() -> AsyncIterator[str]:
        yield "before"
        raise ValueError("broken")

    batches = _bridge.iterate(breaks)
    assert next(batches) == ["before"]
    with pytest.raises(ValueError, match="broken"):
        next(batches)


def test_an_exception_before_the_first_item_is_raised() -> None:
    def breaks() -> AsyncIterator[str]:
        raise ValueError("broken at once")

    with pytest.raises(ValueError, match="broken at once"):
        list(_bridge.iterate(breaks))


def test_code_that_cancels_itself_is_an_error_and_not_the_end() -> None:
    async def gives_up() -> AsyncIterator[str]:
        yield "before"
        raise asyncio.CancelledError

    with pytest.raises(StreamingError, match="from inside"):
        list(_bridge.iterate(gives_up))


def test_an_exit_in_a_task_ends_neither_the_loop_nor_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    async def leaves() -> AsyncIterator[str]:
        async def leave() -> None:
            sys.exit(3)

        yield "before"
        await asyncio.create_task(leave())

    with pytest.raises(SystemExit):
        list(_bridge.iterate(leaves))
    assert all_of(Letters(2)) == ["nobody0", "nobody1"]


def test_a_coroutine_is_called() -> None:
    async def answer() -> int:
        await asyncio.sleep(0.001)
        return 42

    async def fails() -> int:
        raise KeyError("no")

    assert _bridge.run(answer) == 42
    with pytest.raises(KeyError):
        _bridge.run(fails)


def test_a_coroutine_that_was_called_is_never_cancelled_when_it_has_answered() -> None:
    cancelled: list[bool] = []

    async def answer() -> int:
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda task: cancelled.append(task.cancelled()))
        return 1

    assert [_bridge.run(answer) for _ in range(200)] == [1] * 200
    eventually(lambda: len(cancelled) == 200)
    assert not any(cancelled)


def test_others_run_while_one_waits() -> None:
    async def takes_long() -> None:
        await asyncio.sleep(0.2)

    turns = 0

    def count() -> None:
        nonlocal turns
        for _ in range(50):
            gevent.sleep(0.001)
            turns += 1

    with running(count):
        _bridge.run(takes_long)
        assert turns > 10


def test_blocking_functions_run_in_the_worker_with_their_context_and_side_by_side() -> None:
    main = gevent.get_hub()

    def blocks() -> tuple[str, bool]:
        time.sleep(0.2)
        return WHO.get(), gevent.get_hub() is main

    async def many() -> list[tuple[str, bool]]:
        return await asyncio.gather(*(asyncio.to_thread(blocks) for _ in range(100)))

    WHO.set("me")
    started = time.monotonic()
    assert _bridge.run(many) == [("me", True)] * 100
    assert time.monotonic() - started < 5
    WHO.set("nobody")


def test_what_a_blocking_function_raises_is_raised() -> None:
    def ends() -> None:
        raise StopIteration

    def breaks() -> None:
        raise ValueError("broken")

    async def call(function: object) -> None:
        await asyncio.get_running_loop().run_in_executor(None, function)

    with pytest.raises(ValueError, match="broken"):
        _bridge.run(lambda: call(breaks))
    with pytest.raises(RuntimeError, match="StopIteration"):
        _bridge.run(lambda: call(ends))


def test_a_stop_reaches_what_a_blocking_function_waits_for() -> None:
    ended = Flag()
    entered = Flag()

    def fetch() -> None:
        try:
            with scope.current().waiting():
                entered.set()
                gevent.sleep(60)
        finally:
            ended.set()

    async def fetches() -> AsyncIterator[str]:
        yield "before"
        await asyncio.to_thread(fetch)

    batches = _bridge.iterate(fetches)
    next(batches)
    entered.wait(5)
    batches.close()

    assert ended.wait(1)


def test_code_in_the_loops_thread_is_never_thrown_into() -> None:
    run = Scope()

    async def waits_in_the_loop() -> str:
        with scope.current().waiting():
            await asyncio.sleep(0)
            return f"{len(run.waiters)}"

    with scope.entered(run):
        assert _bridge.run(waits_in_the_loop) in ("0", "1")  # only the caller waits


def test_threads_of_asynchronous_libraries_work_in_the_loops_thread() -> None:
    async def answer() -> str:
        loop, answered = asyncio.get_running_loop(), asyncio.Event()
        threading.Thread(target=lambda: loop.call_soon_threadsafe(answered.set), daemon=True).start()
        await asyncio.wait_for(answered.wait(), 5)
        return "done"

    assert _bridge.run(answer) == "done"


def test_a_new_loop_is_started_after_the_last_one_was_closed() -> None:
    letters = Letters(1000, pause_seconds=60)
    batches = _bridge.iterate(letters)
    next(batches)
    first = _loop_thread.running_loop()
    threads = len(os.listdir("/proc/self/task"))
    _loop_thread.close()
    eventually(lambda: len(os.listdir("/proc/self/task")) < threads)

    assert letters.closed
    with pytest.raises(StreamingError, match="from inside"):
        next(batches)
    assert all_of(Letters(1)) == ["nobody0"]
    assert _loop_thread.running_loop() is not first


@pytest.mark.parametrize("ending", ["", "os.kill(os.getpid(), signal.SIGTERM)", "fork()"])
def test_a_process_ends_at_once_whatever_the_loop_does(ending: str) -> None:
    code = f"""
from gevent import monkey; monkey.patch_all()
import asyncio, gevent, os, signal, sys, time
from streaming.runnables import _bridge
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
async def forever():
    yield 1
    await asyncio.sleep(1000)
def fork():
    child = os.fork()
    if child == 0:
        assert next(_bridge.iterate(forever)) == [1]
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
items = _bridge.iterate(forever)
assert next(items) == [1]
async def stuck():
    yield 1
    await asyncio.to_thread(lambda: time.sleep(1000))
more = _bridge.iterate(stuck)
next(more)
{ending}
"""
    root = Path(__file__).parents[2]
    started = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", code], cwd=root, timeout=20, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "Error" not in ended.stderr, ended.stderr
    assert time.monotonic() - started < 10
