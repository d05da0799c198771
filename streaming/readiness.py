"""Whether this worker can take work: asked of the parts that do it, at most once a second."""

import time
from collections.abc import Callable

import gevent

from streaming.errors import Overloaded, StoreUnavailable, StreamingError

KEPT_SECONDS = 1.0
PATIENCE_SECONDS = 2.0
LAG_WITHIN_SECONDS = 10.0


class Readiness:
    def __init__(self, check_store: Callable[[], None]) -> None:
        """``check_store`` writes to the store, and may block; it raises a `StreamingError`."""
        self._check_store = check_store
        self._good_until = 0.0
        self._checking: gevent.Greenlet | None = None

    def check_store(self) -> None:
        """Raise `StoreUnavailable` or `StoreFull` if the store takes no write, or is slower than 2 s.

        That it does is believed for a second, however many ask; who asks meanwhile waits for the same answer.
        """
        if time.monotonic() < self._good_until:
            return
        if self._checking is None:
            self._checking = gevent.spawn(self._look)
        checking = self._checking
        checking.join(PATIENCE_SECONDS)
        if not checking.ready():
            # It goes on, so that a store that hangs is not asked again and again.
            raise StoreUnavailable("the store does not answer", code="store_slow", retry_after_seconds=5)
        failure = checking.get(block=False)
        if failure is not None:
            raise failure

    def _look(self) -> StreamingError | None:
        try:
            self._check_store()
        except StreamingError as error:
            return error
        else:
            self._good_until = time.monotonic() + KEPT_SECONDS
            return None
        finally:
            self._checking = None


def check_loop(worst_seconds: float, most_seconds: float) -> None:
    """Raise `Overloaded` if the event loop was later than it may be."""
    if worst_seconds > most_seconds:
        raise Overloaded(
            f"the event loop was blocked for {worst_seconds:.1f} seconds",
            code="loop_lag",
            retry_after_seconds=LAG_WITHIN_SECONDS,
        )
