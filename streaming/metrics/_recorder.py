"""One worker's numbers. What is paid for every batch is a few additions to cells whose places are known."""

import functools
import logging
import os
import platform
import resource
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import gevent

from streaming.errors import StreamingError
from streaming.metrics import _directory
from streaming.metrics._cells import Cells, Entry
from streaming.metrics._exposition import added_up, written
from streaming.metrics._loop import LoopWatch
from streaming.metrics._names import ALL, BEAT, BY_NAME
from streaming.observers import Nobody, RunEnd, RunFacts
from streaming.tokens import completion_tokens, given_tokens

logger = logging.getLogger(__name__)

OTHER = "other"
LOOK_SECONDS = 1.0
LAG_SAMPLE_SECONDS = 0.1
STATES = ("completed", "cancelled", "failed", "interrupted")
REFUSALS = frozenset(
    "no_key invalid_key key_expired key_revoked session_ended auth_not_set not_the_proxy invalid_user"
    " forbidden origin csrf insecure too_many_attempts".split()
)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics(Nobody):
    """An `Observer`, and what else counts in this process."""

    def __init__(
        self,
        sources: Collection[str] = (),
        models: Collection[str] = (),
        store: str = "memory",
        version: str = "",
        directory: str = "",
    ) -> None:
        """Keep the cells in ``directory``, where the other workers' are; without one, show this process only.

        ``sources`` and ``models`` are the labels there may be: whatever else is asked for is ``other``.
        """
        self._directory = directory
        self._cells = _open(directory)
        self._values = self._cells.values
        self._sources = frozenset(sources)
        self._models = frozenset(models)
        self._store = store
        self._gauges: dict[str, Callable[[], float]] = {}
        self._last_at: dict[RunFacts, float] = {}
        """When the last batch of each run was committed."""
        self._routes: dict[tuple[str, str, int], int] = {}
        self._events = self._cells.place("sluice_events_total")
        self._bytes = self._cells.place("sluice_event_bytes_total")
        self._gaps = self._histogram("sluice_token_gap_seconds")
        self._commits = self._histogram("sluice_store_commit_seconds", store)
        self._lags = self._histogram("sluice_log_lag_seconds")
        self.lag_due = False
        """A reader that is woken now is to say how late it read: see `Reader`."""
        self._loop_lags = self._histogram("sluice_loop_lag_seconds")
        self._beat = self._cells.place(BEAT)
        self.loop = LoopWatch(self._turned)
        self._pages = resource.getpagesize()
        for metric in ALL:
            if not metric.labels and metric.kind != "histogram":
                self._cells.place(metric.name)  # shown as 0 before anything happens
        self._set("sluice_build_info", 1.0, version, platform.python_version(), store)
        self._set("sluice_workers", 1.0)
        self._chores = [gevent.spawn(self._refresh_often), gevent.spawn(self._sample_lag)]

    # Runs: see `Observer`

    def started(self, run: RunFacts) -> None:
        self._add("sluice_streams_started_total", 1, self._source(run))
        self._last_at[run] = 0.0

    def event(self, run: RunFacts, count: int, size_bytes: int, seconds: float) -> None:
        values = self._values
        values[self._events] += count
        values[self._bytes] += size_bytes
        self._commits(seconds)
        now = time.monotonic()
        if last_at := self._last_at[run]:
            self._gaps(now - last_at)
        self._last_at[run] = now

    def first_token(self, run: RunFacts, seconds: float) -> None:
        self._histogram("sluice_first_token_seconds", self._model(run.model))(seconds)

    def ended(self, run: RunFacts, end: RunEnd) -> None:
        self._last_at.pop(run, None)
        if end.state == "fenced":
            self._add("sluice_store_fenced_total")
            return
        source, model = self._source(run), self._model(run.model)
        self._add("sluice_streams_ended_total", 1, source, end.state if end.state in STATES else OTHER)
        self._histogram("sluice_stream_seconds", source)(end.seconds)
        if run.taken_over:
            self._add("sluice_streams_taken_over_total")
        if end.error_type:
            self._add("sluice_errors_total", 1, _error_type(end.error_type))
        self._add("sluice_upstream_retries_total", end.tally.retries)
        self._add("sluice_upstream_fallbacks_total", end.tally.fallbacks)
        self._count_tokens(end, model)

    def store_failed(self, code: str) -> None:
        self._add("sluice_store_errors_total", 1, code if code in ("store_full",) else "store_unavailable")

    # What others tell

    def log_lag(self, seconds: float) -> None:
        """A reader read ``seconds`` after it was woken; asked for by ``lag_due``."""
        self._lags(seconds)

    def answered(self, method: str, route: str, status: int) -> None:
        """A request was answered; ``route`` is a pattern of the application, not what was asked for."""
        key = (method, route, status)
        place = self._routes.get(key)
        if place is None:
            labels = (method if method in METHODS else OTHER, route, str(status))
            place = self._routes[key] = self._cells.place("sluice_http_requests_total", labels)
        self._values[place] += 1

    def refused(self, at: str, why: str, many: int = 1) -> None:
        """Somebody was not let in, or not any more: ``why`` is the code of the error they were told."""
        self._add("sluice_access_refused_total", many, at, why if why in REFUSALS else OTHER)

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """Show as the gauge ``name`` what ``read`` returns, which must not block."""
        assert BY_NAME[name].kind == "gauge"
        self._gauges[name] = read

    # What is shown

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """Return what all workers counted, and its media type; ``accept`` is the header of the request."""
        self._refresh()
        everybody: Iterable[tuple[bool, list[Entry]]] = [(True, list(self._cells.entries()))]
        if self._directory:
            everybody = _directory.everybody(self._directory)
        return written(added_up(everybody), accept)

    def value(self, name: str, *labels: str) -> float:
        """Return one number of this worker."""
        place = self._cells.place(name, labels)
        return self._values[place]

    def close(self) -> None:
        gevent.killall(self._chores)
        self.loop.close()

    # Inside

    def _count_tokens(self, end: RunEnd, model: str) -> None:
        given, counted = given_tokens(end.tally.usage), completion_tokens(end.tally.usage)
        if given:
            self._add("sluice_tokens_total", given, "in", model, "upstream")
        if counted is not None:
            self._add("sluice_tokens_total", counted, "out", model, "upstream")
        elif metrics := end.tally.metrics(None):
            self._add("sluice_tokens_total", metrics.tokens, "out", model, "estimate")

    def _refresh_often(self) -> None:
        while True:
            self._refresh()
            gevent.sleep(LOOK_SECONDS)

    def _refresh(self) -> None:
        """Write down what is the case now rather than counted, for whichever worker is asked."""
        for name, read in self._gauges.items():
            self._set(name, read())
        self._set("sluice_loop_lag_worst_seconds", self.loop.worst_seconds())
        self._set("sluice_cpu_seconds_total", time.process_time())
        self._set("sluice_resident_bytes", _resident_pages() * self._pages)
        self._set("sluice_open_descriptors", _open_descriptors())

    def _turned(self, late_seconds: float) -> None:
        self._loop_lags(late_seconds)
        self._values[self._beat] = time.monotonic()

    def _sample_lag(self) -> None:
        while True:
            gevent.sleep(LAG_SAMPLE_SECONDS)
            self.lag_due = True

    def _add(self, name: str, amount: float = 1, *labels: str) -> None:
        self._values[self._cells.place(name, labels)] += amount

    def _set(self, name: str, value: float, *labels: str) -> None:
        self._values[self._cells.place(name, labels)] = value

    def _histogram(self, name: str, *labels: str) -> Callable[[float], None]:
        """Return what puts a number of seconds into its bucket."""
        bounds = BY_NAME[name].bounds
        first = self._cells.place(name, labels, len(bounds) + 2)
        total = first + len(bounds) + 1
        values = self._values

        def observe(seconds: float) -> None:
            values[first + bisect_left(bounds, seconds)] += 1
            values[total] += seconds

        return observe

    def _source(self, run: RunFacts) -> str:
        return run.source if run.source in self._sources else OTHER

    def _model(self, model: str) -> str:
        return model if model in self._models else OTHER


def _open(directory: str) -> Cells:
    if directory:
        try:
            return Cells(_directory.path_of_this_process(directory))
        except OSError as error:
            why = {"directory": directory, "error": error.strerror}
            logger.warning("this worker's metrics are not shared with the others", extra=why)
    return Cells()


def _error_type(error_type: str) -> str:
    return error_type if error_type in _error_types() else OTHER


@functools.cache
def _error_types() -> frozenset[str]:
    return frozenset(kind.type for kind in _all_of(StreamingError))


def _all_of(kind: type[StreamingError]) -> list[type[StreamingError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in _all_of(child))]


def _resident_pages() -> int:
    """Source: proc(5), ``/proc/[pid]/statm``."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1])
    except OSError:
        return 0


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
