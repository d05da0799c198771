"""Several jobs at once, each in a greenlet of its own and with a time of its own, for one run."""

import contextvars
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

import gevent
from gevent.queue import Empty, SimpleQueue

from streaming import scope

STOP_SECONDS = 1.0
T = TypeVar("T")


def as_they_finish(
    jobs: Sequence[Callable[[], T]], at_once: int, seconds: float, late: T
) -> Generator[tuple[int, T], None, None]:
    """Yield the place of each job and what it returned, in the order in which they finish.

    One that takes longer than ``seconds`` is killed, and ``late`` stands for
    what it would have returned. When the run is stopped, or this is closed, all
    are killed where they wait; code that never waits is met at its next wait.
    """
    run = scope.current()
    finished: SimpleQueue[tuple[int, T]] = SimpleQueue()
    waiting = deque(enumerate(jobs))
    running: dict[int, tuple[gevent.Greenlet, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                place, job = waiting.popleft()
                started = gevent.spawn(contextvars.copy_context().run, _report, finished, place, job)
                running[place] = started, time.monotonic() + seconds
            first = min(running, key=lambda place: running[place][1])
            greenlet, due = running[first]
            try:
                with run.waiting():
                    place, outcome = finished.get(timeout=max(0.0, due - time.monotonic()))
            except Empty:
                greenlet.kill(block=False)
                place, outcome = first, late
            if running.pop(place, None):  # else it was late, and has been told so
                yield place, outcome
    finally:
        gevent.killall([greenlet for greenlet, _ in running.values()], timeout=STOP_SECONDS)


def _report(finished: "SimpleQueue[tuple[int, T]]", place: int, job: Callable[[], T]) -> None:
    finished.put((place, job()))
