"""Who is told of runs besides their readers: metrics, accounts, traces.

An observer hears of a run when it starts, once for every batch that was
committed, and exactly once when it has ended in the log. What it does for a
batch is paid for by every chunk: add to a number, look up nothing by name.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from streaming.eventlogs import State
from streaming.tally import Tally
from streaming.traces import Trace

logger = logging.getLogger(__name__)

LONGEST_MODEL = 100
"""In the log: the name may be whatever a caller says."""

EndState = State | Literal["fenced"]


@dataclass(eq=False, slots=True)
class RunFacts:
    """What is known of a run when it starts. Never what was asked, nor what is said.

    Equal only to itself, so that it can be the key of what an observer keeps of a run.
    """

    stream_id: str
    owner: str = ""
    """The id of the principal whose it is."""
    source: str = ""
    model: str = ""
    """As it was asked for: from outside, so not to be trusted as a label."""
    request_id: str | None = None
    trace: Trace | None = None
    began: float = field(default_factory=time.monotonic)
    taken_over: bool = False
    """It was started by another worker, and ended here: `Observer.started` was not called for it."""

    def for_log(self) -> dict[str, str | None]:
        """Return what the log says of it at its start and at its end."""
        return {
            "source": self.source,
            "model": self.model[:LONGEST_MODEL],
            "owner": self.owner,
            "request_id": self.request_id,
            "trace_id": self.trace.trace_id if self.trace else None,
        }


@dataclass(frozen=True, slots=True)
class RunEnd:
    state: EndState
    """``fenced``: this worker lost the stream, and whoever has it tells how it ended."""
    tally: Tally
    error_type: str = ""
    error_code: str = ""
    finish_reason: str = ""
    """Of a run that did not fail; ``fenced`` with that state."""
    events: int = 0
    bytes: int = 0
    """Of all events as they are in the log, the last one left out."""
    seconds: float = 0.0


class Observer(Protocol):
    """What is called in the producer's greenlet. Only ``ended`` may block, and only shortly."""

    def started(self, run: RunFacts) -> None: ...

    def event(self, run: RunFacts, count: int, size_bytes: int, seconds: float) -> None:
        """A batch of ``count`` events was committed, which took ``seconds``."""
        ...

    def first_token(self, run: RunFacts, seconds: float) -> None:
        """The first word is in the log, ``seconds`` after the run began."""
        ...

    def ended(self, run: RunFacts, end: RunEnd) -> None:
        """The run's last event is in the log, or belongs to another worker (``fenced``).

        Exactly once for each stream over all workers, apart from ``fenced``; also for runs
        whose worker died, told by the worker that ended them (``run.taken_over``).
        """
        ...

    def store_failed(self, code: str) -> None:
        """The store refused an append or a create, for a while or because it is full."""
        ...


class Nobody:
    """The observer where there is none, and a base for those who want to hear only some of it."""

    def started(self, run: RunFacts) -> None:
        pass

    def event(self, run: RunFacts, count: int, size_bytes: int, seconds: float) -> None:
        pass

    def first_token(self, run: RunFacts, seconds: float) -> None:
        pass

    def ended(self, run: RunFacts, end: RunEnd) -> None:
        pass

    def store_failed(self, code: str) -> None:
        pass


class Several:
    """Tells each of several observers. One that breaks keeps no other from being told, and ends no run."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        # Most observers have nothing to do for a batch: those are not called for it.
        self._of_events = tuple(each.event for each in observers if not _is_deaf_to_events(each))

    def started(self, run: RunFacts) -> None:
        for observer in self._observers:
            try:
                observer.started(run)
            except Exception:
                _note_broken(observer)

    def event(self, run: RunFacts, count: int, size_bytes: int, seconds: float) -> None:
        for event in self._of_events:
            event(run, count, size_bytes, seconds)

    def first_token(self, run: RunFacts, seconds: float) -> None:
        for observer in self._observers:
            try:
                observer.first_token(run, seconds)
            except Exception:
                _note_broken(observer)

    def ended(self, run: RunFacts, end: RunEnd) -> None:
        for observer in self._observers:
            try:
                observer.ended(run, end)
            except Exception:
                _note_broken(observer)

    def store_failed(self, code: str) -> None:
        for observer in self._observers:
            try:
                observer.store_failed(code)
            except Exception:
                _note_broken(observer)


def told_to(*observers: Observer) -> Observer:
    """Return one observer for all of these."""
    return Several(observers) if observers else Nobody()


def _is_deaf_to_events(observer: Observer) -> bool:
    return getattr(type(observer), "event", None) is Nobody.event


def _note_broken(observer: Observer) -> None:
    logger.exception("an observer broke", extra={"observer": type(observer).__name__})
