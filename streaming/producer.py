"""Producers: the greenlets that drain sources into the event log.

A run ends in one of three ways, and each writes the stream's last event: the
source is exhausted, it fails, or its scope is stopped (cancel, time-out,
shutdown). A producer that cannot write it any more, because its process was
killed, lost its lease or its right to write, leaves that to whoever takes the
stream over.
"""

import contextvars
import logging
import math
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

import gevent
import msgspec
from gevent.event import Event as Flag
from gevent.pool import Pool

from streaming import scope, tokens, traces
from streaming.audience import Audience
from streaming.errors import (
    Fenced,
    Interrupted,
    LimitExceeded,
    NotFound,
    Overloaded,
    StoreFull,
    StoreUnavailable,
    StreamExpired,
    StreamingError,
    StreamLost,
)
from streaming.eventlogs import Claim, EventLog, Settled, State
from streaming.events import (
    Done,
    Error,
    Event,
    MetricsTick,
    Start,
    Token,
    decode,
    encode,
)
from streaming.observers import Nobody, Observer, RunEnd, RunFacts
from streaming.pouring import Pouring
from streaming.sources import Flow, Prompt, Source
from streaming.spending import spent_by
from streaming.tally import Tally
from streaming.upstreams import Price

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.25
LOST_TICKS = 4
SWEEP_SECONDS = 2.0
COUNTED = ("token", "reasoning", "usage", "status")
STOP_SECONDS = 2.0
"""What a run has for its last event when it is stopped."""

T = TypeVar("T")
OnDisconnect = Literal["grace", "cancel", "continue"]


@dataclass(frozen=True)
class Limits:
    """Of one stream, unless said otherwise."""

    streams: int
    """Running in this worker."""
    bytes: int
    events: int
    seconds: float
    grace_seconds: float
    """Without a reader, until the stream is cancelled."""
    lease_seconds: float


@dataclass
class Run:
    """One stream being produced here."""

    claim: Claim
    seq: int
    """Of the last event written."""
    scope: scope.Scope
    on_disconnect: OnDisconnect
    tally: Tally
    facts: RunFacts
    asked: Sequence[Any] = ()
    """The messages, or the items of a response's input."""
    ended: Flag = field(default_factory=Flag)
    bytes: int = 0
    began: bool = False
    """Its first token is in the log."""
    fenced: bool = False
    """Its end could not be written, because somebody else has written one."""
    tick: MetricsTick | None = None
    """To be written with the next batch."""
    pours: bool = True
    """The store can take tokens from the event loop."""
    unattended_since: float = math.inf
    had_reader: bool = False


class Unended(NamedTuple):
    """A stream whose end is to be written as soon as the store takes it."""

    claim: Claim
    last: Done | Error
    facts: RunFacts | None = None
    """Of a run of this worker; another's are found in the log."""


class Producers:
    """Own every producer greenlet of this worker, and its lease."""

    def __init__(
        self,
        log: EventLog,
        audience: Audience,
        limits: Limits,
        observer: Observer | None = None,
        prices: Mapping[str, Price] = MappingProxyType({}),
    ) -> None:
        self.worker_id = secrets.token_hex(8)
        self._observer = observer or Nobody()
        self._log = log
        self._audience = audience
        self._limits = limits
        self._prices = prices
        self._pool = Pool()
        self._reserved = 0
        self._running: dict[str, Run] = {}
        self._unended: dict[str, Unended] = {}
        self._untold: set[RunFacts] = set()
        """Runs of this worker of whose end the observer was not told yet."""
        self._accepting = True
        log.renew(self.worker_id, limits.lease_seconds)
        self.sweep()
        self._chores = [
            gevent.spawn(self._keep_lease),
            gevent.spawn(self._watch_runs),
            gevent.spawn(self._sweep),
        ]

    def __len__(self) -> int:
        return len(self._running)

    def check_room(self) -> None:
        """Raise `Overloaded` if another run cannot be started."""
        if not self._accepting:
            raise Overloaded("this worker is stopping", code="draining", retry_after_seconds=1)
        if len(self._running) + self._reserved >= self._limits.streams:
            raise Overloaded("too many streams are running", code="streams", retry_after_seconds=5)

    def check_store(self) -> None:
        """Raise `StoreUnavailable` or `StoreFull` if the store takes nothing new. Writes to it: blocks."""
        self._log.orphans()
        self._log.renew(self.worker_id, self._limits.lease_seconds)
        if self._log.is_full:
            raise StoreFull("the store is full", retry_after_seconds=60)

    @contextmanager
    def room(self) -> Iterator[None]:
        """Hold the room for a run that is about to be started. Raises as ``check_room``."""
        self.check_room()
        self._reserved += 1
        try:
            yield
        finally:
            self._reserved -= 1

    def start(
        self,
        claim: Claim,
        seq: int,
        source: Source,
        prompt: Prompt,
        on_disconnect: OnDisconnect = "grace",
        seconds: float | None = None,
        facts: RunFacts | None = None,
    ) -> None:
        """Produce from here on; the log holds the stream's first ``seq`` events."""
        facts = facts or RunFacts(claim.stream_id, model=prompt.model)
        seconds = min(seconds or self._limits.seconds, self._limits.seconds)
        late = LimitExceeded(f"the run took longer than {seconds:g} seconds", code="duration")
        run = Run(
            claim,
            seq,
            scope.Scope(time.monotonic() + seconds, late),
            on_disconnect,
            Tally(prompt.model),
            facts,
            _shown_to_model(prompt),
        )
        run.tally.start()
        self._running[claim.stream_id] = run
        self._untold.add(facts)
        self._observer.started(facts)
        context = contextvars.copy_context()
        if facts.trace is not None:
            context.run(traces.enter, facts.trace)
        self._pool.start(self._pool.greenlet_class(context.run, self._produce, run, source, prompt))

    def is_running(self, stream_id: str) -> bool:
        return stream_id in self._running

    def cancel(self, stream_id: str, timeout: float) -> bool:
        """Stop a run of this worker; return whether it had ended, upstream closed, within ``timeout``.

        Returns ``False`` at once for a run that is not this worker's.
        """
        run = self._running.get(stream_id)
        if run is None:
            return False
        run.scope.stop(None)
        return bool(run.ended.wait(timeout))

    def take_over(self, stream_id: str, error: StreamingError | None, force: bool = False) -> bool:
        """End a stream whose owner is gone, or with ``force`` one that does not react.

        ``error`` is what its readers are told; ``None`` says that it was
        cancelled. Returns whether it was this call that ended it.
        """
        claim = self._log.take_over(stream_id, self.worker_id, force)
        if claim is None:
            return False
        last = Done("cancelled") if error is None else Error(error.info())
        return self._end_as_logged(Unended(claim, last)) is not None

    def sweep(self) -> None:
        """End the streams of workers that are gone, and those whose end could not be written before."""
        for unended in list(self._unended.values()):
            self._end_as_logged(unended)
        for stream_id, why in self._log.orphans():
            gone = Interrupted("the worker that produced this answer is gone", code=why)
            if _try(self.take_over, stream_id, gone):
                logger.warning("stream taken over", extra={"stream_id": stream_id, "why": why})

    def shutdown(self, grace_seconds: float) -> None:
        """Start no more runs; let those here end for ``grace_seconds``, then end them as ``interrupted``."""
        self._accepting = False
        self._pool.join(timeout=grace_seconds)
        for run in list(self._running.values()):
            run.scope.stop(Interrupted("the service was restarted", code="shutdown"))
        self._pool.join(timeout=STOP_SECONDS)

    def close(self) -> None:
        """Let go of the lease. What still runs is for other workers to take over."""
        gevent.killall(self._chores)
        _try(self._log.retire, self.worker_id)

    # A run

    def _produce(self, run: Run, source: Source, prompt: Prompt) -> None:
        last: Done | Error | None = None
        try:
            with scope.entered(run.scope), closing(source.events(prompt)) as batches:
                for batch in batches:
                    if last is not None:
                        continue
                    if not isinstance(batch, Flow):
                        last = self._write(run, batch)
                    elif run.pours and run.tick is None:
                        self._pour(run, batch)
            if last is None:
                raise Interrupted("the source ended without saying so", code="source")
        except Fenced:
            logger.warning("the stream was ended or taken over", extra={"stream_id": run.claim.stream_id})
        except scope.Stopped as stop:
            if last is None and not isinstance(stop.error, Fenced):
                last = (
                    Done("cancelled", run.tally.usage)
                    if stop.error is None
                    else self._failed(run, stop.error)
                )
                self._end(run, last)
        except StreamingError as error:
            if isinstance(error, StoreUnavailable | StoreFull):
                self._observer.store_failed(error.code)
            if last is None:
                last = self._failed(run, error)
                self._end(run, last)
        except Exception:
            logger.exception("the source broke", extra={"stream_id": run.claim.stream_id})
            if last is None:
                last = self._failed(run, StreamingError("something went wrong in this service"))
                self._end(run, last)
        finally:
            self._running.pop(run.claim.stream_id, None)
            self._audience.forget(run.claim.stream_id)
            run.ended.set()
            if run.claim.stream_id not in self._unended:
                self._tell_end(run, last)

    def _tell_end(self, run: Run, last: Done | Error | None) -> None:
        if not run.facts.taken_over and run.facts not in self._untold:
            return
        self._untold.discard(run.facts)
        end = _end_of(run, last)
        _log_end(run, end)
        self._observer.ended(run.facts, end)

    def _write(self, run: Run, batch: Sequence[Event]) -> Done | Error | None:
        """Append one batch; return the terminal event if it is in it."""
        last = batch[-1] if batch else None
        events = batch[:-1] if isinstance(last, Done) else batch
        payloads = [encode(event) for event in events]
        if run.tick is not None:
            payloads.append(encode(run.tick))
        if payloads:
            size_bytes = self._check_size(run, payloads)
            asked_at = time.monotonic()
            cancelled = self._log.append(run.claim, run.seq + 1, payloads)
            run.seq += len(payloads)
            run.tick = None
            self._note_written(run, events, len(payloads), size_bytes, time.monotonic() - asked_at)
            if cancelled and not isinstance(last, Done):
                run.scope.stop(None)
        if isinstance(last, Done):
            self._end(run, last)
            return last
        return None

    def _pour(self, run: Run, flow: Flow) -> None:
        """Let the loop append what ``flow`` gives, until it gives something else than a plain token."""
        log, limits = self._log, self._limits

        def append(payload: bytes, settled: Settled) -> bool:
            full = run.seq >= limits.events or run.bytes + len(payload) > limits.bytes
            if full or run.tick is not None:
                return False
            run.seq += 1
            run.bytes += len(payload)
            run.pours = log.append_soon(run.claim, run.seq, (payload,), settled)
            if run.pours:
                return True
            run.seq -= 1
            run.bytes -= len(payload)
            return False

        def written(tokens: Sequence[Token], size_bytes: int, seconds: float, cancelled: bool) -> None:
            self._note_written(run, tokens, 1, size_bytes, seconds)
            if cancelled:
                run.scope.stop(None)

        pouring = Pouring(flow, append, written)
        try:
            pouring.pour()
        finally:
            run.seq -= pouring.unwritten
        if pouring.error is not None:
            raise pouring.error

    def _note_written(
        self, run: Run, events: Sequence[Event], count: int, size_bytes: int, seconds: float
    ) -> None:
        """Count what is in the log now, and tell of it."""
        run.tick = run.tally.add(events) or run.tick
        self._observer.event(run.facts, count, size_bytes, seconds)
        if not run.began and run.tally.first_token_ms is not None:
            run.began = True
            self._observer.first_token(run.facts, run.tally.first_token_ms / 1000)

    def _check_size(self, run: Run, payloads: Sequence[bytes]) -> int:
        size_bytes = sum(map(len, payloads))
        run.bytes += size_bytes
        if run.seq + len(payloads) > self._limits.events:
            raise LimitExceeded(f"the answer has more than {self._limits.events} events", code="events")
        if run.bytes > self._limits.bytes:
            raise LimitExceeded(f"the answer has more than {self._limits.bytes} bytes", code="bytes")
        return size_bytes

    def _failed(self, run: Run, error: StreamingError) -> Error:
        info = error.info(partial=run.tally.has_text, request_id=run.facts.request_id)
        status = error.status if error.status != type(error).status else 0
        return Error(info, status, error.retry_after_seconds, run.tally.usage)

    def _end(self, run: Run, last: Done | Error) -> None:
        """Write the terminal event; when the store refuses it, the sweeper tries again."""
        try:
            self._append_end(run, last)
        except Fenced:
            # Or an append of ours was written, and not answered.
            mine = self._is_mine(run.claim)
            if mine:
                self._end_as_logged(Unended(run.claim, last, run.facts))
            run.fenced = not mine
        except StreamingError as error:
            self._note_unended(Unended(run.claim, last, run.facts), error)

    def _end_as_logged(self, unended: Unended) -> Run | None:
        """End a stream of which only the log knows how far it got; return the run if it was ended here.

        If that cannot be done now, the sweeper tries again.
        """
        claim, last, facts = unended
        self._unended[claim.stream_id] = unended
        try:
            run = self._as_logged(claim, facts)
            if isinstance(last, Error):
                error = msgspec.structs.replace(last.error, partial=run.tally.has_text)
                last = msgspec.structs.replace(last, error=error)
            self._append_end(run, last)
        except (Fenced, NotFound, StreamExpired, StreamLost):
            self._unended.pop(claim.stream_id, None)
            if facts is not None:
                lost = Run(claim, 0, scope.Scope(), "continue", Tally(), facts, fenced=True)
                self._tell_end(lost, None)
            return None
        except StreamingError as failure:
            self._note_unended(unended, failure)
            return None
        self._unended.pop(claim.stream_id, None)
        self._tell_end(run, last)
        return run

    def _note_unended(self, unended: Unended, failure: StreamingError) -> None:
        stream_id = unended.claim.stream_id
        logger.warning("a stream's end was not written", extra={"stream_id": stream_id, "why": failure.code})
        self._observer.store_failed(failure.code)
        self._unended[stream_id] = unended

    def _append_end(self, run: Run, last: Done | Error) -> None:
        seq = run.seq + 1
        said = msgspec.structs.replace(
            last,
            done=True,
            metrics=run.tally.last_metrics(last, run.asked),
            last_seq=seq,
            text_sha256=run.tally.text_sha256(),
        )
        began = run.facts.began
        spent = spent_by(
            said, run.tally, self._prices, run.facts.model, run.asked, run.bytes, time.monotonic() - began
        )
        self._log.append(run.claim, seq, [encode(said)], _state(last), spent)
        run.seq = seq

    def _is_mine(self, claim: Claim) -> bool:
        try:
            head = self._log.head(claim.stream_id)
        except StreamingError:
            return False
        return not head.ended and head.gen == claim.gen

    def _as_logged(self, claim: Claim, facts: RunFacts | None) -> Run:
        """Return the run as far as it is in the log; ``facts`` where it was this worker's."""
        tally, seq, size_bytes = Tally(), 0, 0
        begun: Event | None = None
        while records := self._log.read(claim.stream_id, seq).records:
            if records[0].is_a("start"):
                begun = decode(records[0].payload)
            tally.add([decode(record.payload) for record in records if record.is_a(*COUNTED)])
            size_bytes += sum(len(record.payload) for record in records)
            seq = records[-1].seq
        asked: Sequence[Any] = ()
        if facts is None:
            head = self._log.head(claim.stream_id)
            facts = RunFacts(claim.stream_id, head.owner, taken_over=True)
            asked = _shown_of(self._log.request(claim.stream_id))
            if isinstance(begun, Start):
                facts.source, facts.model = begun.source, begun.model
                facts.began = time.monotonic() - max(0.0, time.time() - begun.created)
        return Run(claim, seq, scope.Scope(), "continue", tally, facts, asked, bytes=size_bytes)

    # Chores

    def _keep_lease(self) -> None:
        # On this loop on purpose: a loop that is stuck must lose its lease.
        while True:
            gevent.sleep(self._limits.lease_seconds / 4)
            _try(self._log.renew, self.worker_id, self._limits.lease_seconds)

    def _watch_runs(self) -> None:
        """Meet deadlines, requests to cancel from other workers, and streams nobody reads."""
        tick = 0
        while True:
            gevent.sleep(TICK_SECONDS)
            if not self._running:
                continue
            for stream_id in _try(self._log.cancel_requests, self.worker_id) or ():
                self._stop(stream_id, None)
            tick += 1
            if tick % LOST_TICKS == 0:
                for stream_id in _try(self._log.lost, self.worker_id, list(self._running)) or ():
                    self._stop(stream_id, Fenced("the stream was taken over while this worker stood still"))
            now = time.monotonic()
            runs = list(self._running.values())
            elsewhere = self._attended_elsewhere([run for run in runs if run.on_disconnect != "continue"])
            for run in runs:
                run.scope.check_deadlines(now)
                self._check_audience(run, now, elsewhere)

    def _attended_elsewhere(self, runs: Sequence[Run]) -> Collection[str]:
        """Return those that somebody may read on another worker, of those that nobody reads here."""
        unread = [id for run in runs if not self._audience.present(id := run.claim.stream_id)]
        attended = _try(self._log.attended, unread) if unread else ()
        # A store that cannot tell is no reason to end a run.
        return unread if attended is None else attended

    def _stop(self, stream_id: str, error: StreamingError | None) -> None:
        if run := self._running.get(stream_id):
            run.scope.stop(error)

    def _check_audience(self, run: Run, now: float, elsewhere: Collection[str]) -> None:
        stream_id = run.claim.stream_id
        if run.on_disconnect == "continue":
            return
        if self._audience.present(stream_id) or stream_id in elsewhere:
            run.had_reader = True
            run.unattended_since = math.inf
            return
        since = min(run.unattended_since, now)
        run.unattended_since = max(since, self._audience.last_polled(stream_id))
        grace = 0.0 if run.on_disconnect == "cancel" and run.had_reader else self._limits.grace_seconds
        if now - run.unattended_since >= grace:
            logger.info("stream abandoned by its readers", extra={"stream_id": stream_id})
            run.scope.stop(None)

    def left(self, stream_id: str) -> None:
        """A reader of this worker left: do not wait for the next look at who is there."""
        run = self._running.get(stream_id)
        if run is not None:
            run.had_reader = True
            self._check_audience(run, time.monotonic(), self._attended_elsewhere([run]))

    def _sweep(self) -> None:
        while True:
            gevent.sleep(SWEEP_SECONDS * (0.75 + secrets.randbelow(50) / 100))
            _try(self.sweep)


def _shown_to_model(prompt: Prompt) -> list[Any]:
    asked = prompt.response or {"input": prompt.messages, "tools": prompt.params.get("tools")}
    return [each for name in ("input", "tools") if isinstance(part := asked.get(name), list) for each in part]


def _shown_of(request: bytes) -> list[Any]:
    """Return what the log still knows of the messages of a run: the last one, as it is shown."""
    try:
        return [{"content": msgspec.json.decode(request)["prompt"]}]
    except (msgspec.DecodeError, KeyError, TypeError):
        return []


def _state(last: Done | Error) -> State:
    if isinstance(last, Done):
        return "cancelled" if last.finish_reason == "cancelled" else "completed"
    return "interrupted" if last.error.type == Interrupted.type else "failed"


def _end_of(run: Run, last: Done | Error | None) -> RunEnd:
    seconds = time.monotonic() - run.facts.began
    if last is None or run.fenced:
        return RunEnd("fenced", run.tally, "fenced", "fenced", "fenced", run.seq, run.bytes, seconds)
    kind, code, reason = "", "", ""
    if isinstance(last, Error):
        kind, code = last.error.type, last.error.code
    else:
        reason = last.finish_reason
    return RunEnd(_state(last), run.tally, kind, code, reason, run.seq, run.bytes, seconds)


def _log_end(run: Run, end: RunEnd) -> None:
    facts, tally = run.facts, run.tally
    metrics = tally.metrics(tally.usage)
    first_ms = tally.first_token_ms
    logger.info(
        "stream ended",
        extra={
            "stream_id": facts.stream_id,
            "state": end.state,
            "outcome": end.finish_reason or f"{end.error_type}/{end.error_code}",
            "seconds": round(end.seconds, 3),
            "first_token_seconds": None if first_ms is None else round(first_ms / 1000, 3),
            "tokens_in": tokens.given_tokens(tally.usage),
            "tokens_out": metrics.tokens if metrics else tokens.completion_tokens(tally.usage),
            "records": end.events,
            "bytes": end.bytes,
            **facts.for_log(),
        },
    )


def _try(chore: Callable[..., T], *arguments: Any) -> T | None:
    """Run a chore that will be tried again; a store that fails must not end the greenlet."""
    try:
        return chore(*arguments)
    except StreamingError as error:
        logger.warning(
            "a chore failed, to be tried again", extra={"chore": chore.__name__, "why": str(error)}
        )
        return None
