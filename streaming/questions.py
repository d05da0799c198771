"""What is asked of upstreams besides runs: one question, one whole answer, nothing in the log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import gevent

from streaming import scope
from streaming.errors import (
    Cancelled,
    Interrupted,
    NotFound,
    Overloaded,
    StreamingError,
    UpstreamTimeout,
)
from streaming.sources import Relay

LOOK_SECONDS = 0.05


class Question(NamedTuple):
    relay: Relay
    scope: scope.Scope

    def leave(self, error: StreamingError | None = None) -> None:
        """Take it back: nobody waits for the answer any more, or only for ``error``."""
        self.scope.stop(error)


class Questions:
    """Own the scope of every question that is open in this worker."""

    def __init__(self, relay: Relay | None, most: int) -> None:
        self._relay = relay
        self._most = most
        self._open: set[scope.Scope] = set()
        self._accepting = True

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def asking(self, seconds: float) -> Iterator[Question]:
        """Let a question be asked inside; it ends after ``seconds``, wherever it waits then.

        Raises what ended it early: `UpstreamTimeout`, `Interrupted` when this worker
        stops, `Cancelled` when it was left. Raises `Overloaded` with too many open.
        """
        if self._relay is None:
            raise NotFound("there is no upstream to ask here")
        if not self._accepting:
            raise Overloaded("this worker is stopping", code="draining", retry_after_seconds=1)
        if len(self._open) >= self._most:
            raise Overloaded("too many questions are open", code="questions", retry_after_seconds=5)
        asked = scope.Scope()
        late = UpstreamTimeout(f"the model's server did not answer in {seconds:g} seconds", code="answer")
        timer = gevent.get_hub().loop.timer(seconds)
        timer.start(asked.stop, late)
        self._open.add(asked)
        try:
            with scope.entered(asked):
                yield Question(self._relay, asked)
        except scope.Stopped as stop:
            raise stop.error or Cancelled("the question was left") from None
        finally:
            timer.close()
            self._open.discard(asked)

    def refuse(self) -> None:
        """Take no more."""
        self._accepting = False

    def end(self, seconds: float) -> None:
        """Let those that are open be answered for ``seconds``, then end them."""
        self.refuse()
        deadline = time.monotonic() + seconds
        while self._open and time.monotonic() < deadline:
            gevent.sleep(LOOK_SECONDS)
        for asked in list(self._open):
            asked.stop(Interrupted("the service was restarted", code="shutdown"))
