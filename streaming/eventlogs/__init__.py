"""The durable log: where streams last, and what every store promises.

1. An event is readable only after it was committed, and then for good.
2. A stream is written by one owner at a time: an append says which event it
   follows and under which ``gen``, and is refused (`Fenced`) if either is
   not, or no longer, so.
3. A terminal event is the last one, and there is one.
4. A notification may wake a reader, but only what it reads is the truth.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, Protocol

from streaming.doctor.stores import Store
from streaming.errors import RateLimited, StreamingError
from streaming.eventlogs._ids import NO_STREAM as NO_STREAM
from streaming.eventlogs._ids import new_stream_id as new_stream_id
from streaming.events import Record

State = Literal["queued", "running", "completed", "cancelled", "failed", "interrupted"]
TERMINAL: frozenset[State] = frozenset({"completed", "cancelled", "failed", "interrupted"})
Settled = Callable[["bool | StreamingError"], None]
PAGE_RECORDS = 256
PAGE_BYTES = 64 * 1024
RUNNING_RETRY_SECONDS = 5.0


class NewStream(NamedTuple):
    stream_id: str
    worker_id: str
    """Its owner."""
    request: bytes
    """What was asked, as JSON, for those who show the stream later."""
    key: str | None = None
    """What makes creating it idempotent, unique over all streams kept."""
    fingerprint: str = ""
    """Tells another request that comes with the same key."""
    owner: str = ""
    """The id of the principal whose it is."""
    most_running: int = 0
    """How many of its owner's streams may run, this one included; 0: as many as it likes."""


class Spent(NamedTuple):
    """What a run used, as it is added to the account of its owner for the day and the model."""

    day: str
    """``2026-11-21``, of UTC: when the run ended."""
    model: str
    """The one that answered."""
    tokens_in: int
    tokens_out: int
    estimated: bool
    """Not both are the upstream's own count."""
    bytes: int
    """Of the run's events, as they are in the log."""
    milliseconds: int
    cost_nano: int | None
    """In billionths of the unit prices are in; ``None`` where the model has no price."""


class Claim(NamedTuple):
    """The right to write a stream, until somebody takes it over."""

    stream_id: str
    gen: int


def end_and_numbers(end: State, spent: Spent) -> list[tuple[str, int]]:
    """Return what is added to an account when a run ends so: names of columns, and numbers."""
    return [
        (end, 1),
        ("tokens_in", spent.tokens_in),
        ("tokens_out", spent.tokens_out),
        ("estimated", int(spent.estimated)),
        ("bytes", spent.bytes),
        ("milliseconds", spent.milliseconds),
        ("cost_nano", spent.cost_nano or 0),
        ("priced", int(spent.cost_nano is not None)),
    ]


def too_many_running(most: int) -> RateLimited:
    """Return the refusal of a stream whose owner has ``most`` running."""
    return RateLimited(
        f"{most} of your runs are going on, which is the most: wait for one to end, or stop one",
        code="running",
        retry_after_seconds=RUNNING_RETRY_SECONDS,
    )


class Head(NamedTuple):
    """What is known of a stream besides its events."""

    state: State
    gen: int
    last_seq: int
    worker_id: str
    created: float
    """Seconds since 1970, for display and retention."""
    owner: str

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL


class Page(NamedTuple):
    records: Sequence[Record]
    closed: bool
    """These records reach the end of a stream that has ended."""
    more: bool = False
    """The log holds events after these already."""


class EventLog(Protocol):
    """Any method may raise `StoreUnavailable`, and one that writes `StoreFull`.

    ``head``, ``read``, ``take_over`` and ``erase`` raise `NotFound`, `StreamLost`
    (made in another store) or `StreamExpired` (erased) when there is no such
    stream; to the others it makes no difference.
    """

    @property
    def store_id(self) -> str:
        """Eight characters; part of every stream id, changed when a store is lost."""
        ...

    @property
    def is_full(self) -> bool:
        """There was no room at the last write: streams that run are ended, and no new ones taken."""
        ...

    @property
    def waiting(self) -> int:
        """How many writes of this worker wait now for their turn to be committed."""
        ...

    def create(self, stream: NewStream, payloads: Sequence[bytes]) -> str:
        """Create a running stream with its first events and return its id.

        If ``stream.key`` is taken the id is that of the stream which has it.
        Raises `IdempotencyMismatch` when that one has another fingerprint, and
        `RateLimited` when ``stream.most_running`` of its owner's run already.
        """
        ...

    def find(self, key: str) -> str | None:
        """Return the id of the stream that has ``key``."""
        ...

    def append(
        self,
        claim: Claim,
        seq: int,
        payloads: Sequence[bytes],
        end: State | None = None,
        spent: Spent | None = None,
    ) -> bool:
        """Write ``payloads`` at ``seq`` and after it, all or none; return once committed.

        With ``end`` the last payload is the terminal event and the stream gets
        that state; what it ``spent`` is added to its owner's account in the same
        step, so once. The answer says whether somebody asked to cancel. Raises
        `Fenced` when ``claim`` is not, or no longer, the right to write there.
        """
        ...

    def append_soon(self, claim: Claim, seq: int, payloads: Sequence[bytes], settled: Settled) -> bool:
        """Do as `append`, without waiting: the event loop itself may call it. Never blocks.

        ``settled`` is called in the loop with what `append` would have returned or raised, in the
        order of the appends; where one failed, those after it fail. An `append` may only follow once
        all have settled. Returns False, and does nothing, where this store has to wait.
        """
        ...

    def head(self, stream_id: str) -> Head: ...

    def request(self, stream_id: str) -> bytes:
        """Return what the stream was created with. It may be large, so `head` leaves it out."""
        ...

    def read(self, stream_id: str, after: int, limit: int = PAGE_RECORDS) -> Page:
        """Return records after event number ``after``, at most a page. Never blocks."""
        ...

    def newest(self, stream_id: str, after: int) -> Page | None:
        """Return what `read` would, if it is at hand: costs nearly nothing. Never blocks, never raises."""
        ...

    def watch(self, stream_id: str, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """Call ``wake`` soon after any event is committed to the stream, by whichever process.

        It may be called for nothing, and must not block. Watch before you read; a
        read that says there is no ``more`` need not be repeated until ``wake`` is called.
        """
        ...

    def request_cancel(self, stream_id: str) -> None:
        """Ask the owner to end the stream; it learns of it when it appends or asks."""
        ...

    def lost(self, worker_id: str, stream_ids: Sequence[str]) -> Sequence[str]:
        """Return those of ``stream_ids`` that have ended, or are not this worker's any more."""
        ...

    def cancel_requests(self, worker_id: str) -> Sequence[str]:
        """Return this worker's running streams that somebody asked to cancel."""
        ...

    def renew(self, worker_id: str, seconds: float) -> None:
        """Keep this worker alive in the eyes of others for ``seconds``."""
        ...

    def retire(self, worker_id: str) -> None:
        """Say that this worker produces nothing any more."""
        ...

    def orphans(self) -> Sequence[tuple[str, str]]:
        """Return running streams whose owner is gone, each with ``worker_lost`` or ``lease_expired``."""
        ...

    def take_over(self, stream_id: str, worker_id: str, force: bool = False) -> Claim | None:
        """Take the right to write a running stream, so that its old owner is fenced.

        Return ``None`` when it has ended, or its owner lives and ``force`` is not set.
        """
        ...

    def attend(self, stream_id: str, worker_id: str, seconds: float) -> None:
        """Note that somebody reads the stream on this worker, for at least ``seconds`` more; 0: nobody."""
        ...

    def attended(self, stream_ids: Sequence[str]) -> Collection[str]:
        """Return those of ``stream_ids`` of which any living worker noted a reader."""
        ...

    def erase(self, stream_id: str) -> None:
        """Forget an ended stream's events; its id answers `StreamExpired` from now on."""
        ...

    def expire(self, ended_before: float, erased_before: float) -> int:
        """Erase streams that ended, and forget those erased, before then (seconds since 1970).

        At most one batch; return how many, so that 0 means there is nothing left to do.
        """
        ...

    def describe(self) -> Store:
        """Return what an operator should know of the store now; also when it is away. Blocks."""
        ...

    def close(self) -> None: ...
