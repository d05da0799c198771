"""End a gunicorn worker in order: its runs, its readers, its idle connections.

Told to stop, gunicorn waits for open requests until its ``graceful_timeout``
and then kills the worker: no ``finally`` runs, and streams would end without a
word. So the application ends by its own, earlier clock.
"""

from typing import Any

import gevent
from gevent.event import Event as Flag

from streaming.streams import Streams

READERS_SECONDS = 2.0
LOOK_SECONDS = 0.2


class Ending:
    """Watches for a worker's stop; to be made in the worker, after the application."""

    def __init__(self, worker: Any, streams: Streams, drain_seconds: float) -> None:
        self._worker = worker
        self._streams = streams
        self._drain_seconds = drain_seconds
        self._begun = False
        self._drained = Flag()
        self._idle: dict[_IdleTimeout, Any] = {}
        worker.timeout_ctx = lambda: _IdleTimeout(worker.cfg.keepalive, self._idle)
        self._watch = gevent.spawn(self._wait_for_stop)

    def finish(self) -> None:
        """Wait until all is drained, at once if nobody asked for a graceful stop. Blocks."""
        if not self._begun:
            self._watch.kill()
            self._drain(0.0)
        self._drained.wait(self._drain_seconds + 5)
        self._streams.close()

    def _wait_for_stop(self) -> None:
        while self._worker.alive:
            gevent.sleep(LOOK_SECONDS)
        gevent.spawn(self._close_idle)  # for as long as this process lives
        self._drain(self._drain_seconds)

    def _drain(self, seconds: float) -> None:
        self._begun = True
        try:
            self._streams.drain(seconds, READERS_SECONDS)
        finally:
            self._drained.set()

    def _close_idle(self) -> None:
        """Close connections that wait for a next request, which would hold the worker."""
        loop = gevent.get_hub().loop
        while True:
            for timeout in list(self._idle):
                loop.run_callback(self._close_if_idle, timeout)
            gevent.sleep(LOOK_SECONDS)

    def _close_if_idle(self, timeout: "_IdleTimeout") -> None:
        # Its next request may have come between the decision and this turn of the loop.
        if waiting := self._idle.get(timeout):
            waiting.throw(timeout)


class _IdleTimeout(gevent.Timeout):  # type: ignore[misc]
    """gunicorn's time-out of an idle connection, which remembers who waits in it."""

    def __init__(self, seconds: float, idle: dict["_IdleTimeout", Any]) -> None:
        super().__init__(seconds, False)
        self._idle_connections = idle

    def __enter__(self) -> "_IdleTimeout":
        self._idle_connections[self] = gevent.getcurrent()
        entered: _IdleTimeout = super().__enter__()
        return entered

    def __exit__(self, *error: Any) -> bool | None:
        self._idle_connections.pop(self, None)
        handled: bool | None = super().__exit__(*error)
        return handled
