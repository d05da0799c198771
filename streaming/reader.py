"""Follow a stream: first what is stored, then what arrives, until it has ended."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from streaming.bell import Bell
from streaming.errors import CursorLost, StreamingError
from streaming.eventlogs import EventLog
from streaming.events import Cursor, Record, Token, decode, encode


class LagProbe(Protocol):
    """Takes a sample, now and then, of how long readers take from being woken to having read."""

    lag_due: bool

    def log_lag(self, seconds: float) -> None: ...


class Reader:
    """One client's place in a stream. It holds no queue: being slow costs no memory.

    Use it as a context manager. Making one raises `NotFound`, `StreamLost`,
    `StreamExpired` or `CursorLost` when the stream cannot be continued from
    ``after``.
    """

    def __init__(self, log: EventLog, stream_id: str, after: Cursor, probe: LagProbe | None = None) -> None:
        self.stream_id = stream_id
        self.cursor = after
        self.ended = False
        """The last event was returned: nothing comes any more."""
        self.left = False
        self._expelled: StreamingError | None = None
        self.on_wake: Callable[[], None] = _nobody
        """Called whenever there may be something new, for who waits on several readers. Must not block."""
        self.straight: Callable[[Sequence[Record]], None] | None = None
        """Given records by the event loop itself while ``next`` waits for them. Must not block, nor raise."""
        self._log = log
        self._probe = probe
        self._nudged = False
        self._woken_at = 0.0
        """When, if this wake-up is the sample."""
        self._bell = Bell()
        self._bell.rung = True  # what is stored was not looked at yet
        self._check_cursor()
        self._watch = log.watch(stream_id, self._woken)

    def __enter__(self) -> Self:
        self._watch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.__exit__(kind, error, trace)
        self._bell.close()

    def next(self, timeout: float) -> Sequence[Record]:
        """Return what is ready after the last record returned, waiting at most ``timeout`` seconds.

        Empty when the time ran out, when ``leave`` was called, and after the end. Raises what
        ``expel`` was given.
        """
        deadline = time.monotonic() + timeout
        while not (self.ended or self.left):
            is_awake = not self._nudged and self._bell.wait(deadline - time.monotonic())
            self.check_admitted()
            if not is_awake:
                self._nudged = False
                self._bell.rung = True  # the next call looks for itself, whatever woke nobody
                break
            self._bell.rung = False
            page = self._log.read(self.stream_id, self.cursor.seq)
            if page.closed and not page.records and not self._is_held(self.cursor):
                # It was ended before our place by somebody else, after the log lost its tail.
                raise self._lost()
            self.ended = page.closed
            if page.more:
                self._bell.rung = True
            if self._woken_at:
                self._tell_lag()
            if page.records:
                self.cursor = page.records[-1].cursor
                return page.records
        return ()

    def tell_end_again(self) -> None:
        """Go back before the last event, if everything was read: how a stream ended is worth repeating."""
        if self.ended:
            self.cursor, self.ended = Cursor(self.cursor.gen, self.cursor.seq - 1), False
            self._bell.rung = True

    def leave(self) -> None:
        """Make ``next`` return at once, from whichever greenlet it is waiting in."""
        self.left = True
        self._woken()

    def nudge(self) -> None:
        """Make ``next`` return soon, with nothing if there is nothing. Never blocks."""
        self._nudged = True
        self._bell.ring()

    def expel(self, error: StreamingError) -> None:
        """Make ``next`` raise ``error``, from whichever greenlet it is waiting in: it may not read on."""
        self._expelled = error
        self._woken()

    def check_admitted(self) -> None:
        """Raise what ``expel`` was given."""
        if self._expelled is not None:
            raise self._expelled

    def _woken(self) -> None:
        if self._probe is not None and self._probe.lag_due:
            self._probe.lag_due = False
            self._woken_at = time.monotonic()
        elif self.straight is not None and self._bell.awaited and self._go_straight(self.straight):
            return
        self._bell.ring()
        self.on_wake()

    def _go_straight(self, give: Callable[[Sequence[Record]], None]) -> bool:
        """Give what is at hand, if that is not the stream's end and may be read; say whether it was done."""
        if self.left or self._expelled is not None:
            return False
        page = self._log.newest(self.stream_id, self.cursor.seq)
        if page is None or page.closed or page.more:
            return False
        self.cursor = page.records[-1].cursor
        give(page.records)
        return True

    def _tell_lag(self) -> None:
        woken_at, self._woken_at = self._woken_at, 0.0
        if self._probe is not None:
            self._probe.log_lag(time.monotonic() - woken_at)

    def _check_cursor(self) -> None:
        head = self._log.head(self.stream_id)
        self.ended = head.ended and self.cursor.seq == head.last_seq
        if self.cursor.seq and not self._is_held(self.cursor):
            raise self._lost()

    def _is_held(self, cursor: Cursor) -> bool:
        found = self._log.read(self.stream_id, cursor.seq - 1, limit=1).records
        return bool(found) and found[0].gen == cursor.gen

    def _lost(self) -> CursorLost:
        last_seq = self._log.head(self.stream_id).last_seq
        last = self._log.read(self.stream_id, last_seq - 1, limit=1).records
        return CursorLost(
            "the log does not hold that event any more: read again from the start",
            last_id=str(last[0].cursor) if last else "0.0",
        )


def _nobody() -> None:
    pass


class Merging:
    """A reader that joins neighbouring tokens, for clients that want fewer messages.

    It gives out a message when ``tokens`` deltas or ``seconds`` came together,
    or when anything else than a token comes.
    """

    def __init__(self, reader: Reader, tokens: int, seconds: float) -> None:
        self._reader = reader
        self._tokens = max(tokens, 1)
        self._seconds = seconds
        self._held: list[Record] = []

    @property
    def ended(self) -> bool:
        return self._reader.ended and not self._held

    @property
    def left(self) -> bool:
        return self._reader.left

    def next(self, timeout: float) -> Sequence[Record]:
        """See `Reader.next`."""
        if not self._held:
            self._held = list(self._reader.next(timeout))
            if not self._held:
                return ()
        until = time.monotonic() + self._seconds
        while len(self._held) < self._tokens and self._mergeable() and (left := until - time.monotonic()) > 0:
            self._held += self._reader.next(left)
        held, self._held = self._held, []
        return merged(held, self._tokens)

    def _mergeable(self) -> bool:
        reader = self._reader
        return not (reader.ended or reader.left) and all(
            record.is_a("token", "chunk", "metrics") for record in self._held
        )


def merged(records: Sequence[Record], tokens: int) -> Sequence[Record]:
    """Join runs of up to ``tokens`` token events into one record each.

    A merged record has the place of its last event; what a token had besides
    its text is left out.
    """
    result: list[Record] = []
    run: list[Record] = []
    for record in records:
        if record.is_a("token"):
            run.append(record)
            if len(run) == tokens:
                result.append(_joined(run))
                run = []
        else:
            if run:
                result.append(_joined(run))
                run = []
            result.append(record)
    if run:
        result.append(_joined(run))
    return result


def _joined(run: list[Record]) -> Record:
    if len(run) == 1:
        return run[0]
    text = "".join(token.content for record in run if isinstance(token := decode(record.payload), Token))
    last = run[-1]
    return Record(last.gen, last.seq, encode(Token(text)), len(run))
