"""An event log in this process's memory: for tests, and for one worker that may forget."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from streaming.doctor.stores import Store
from streaming.errors import (
    Fenced,
    IdempotencyMismatch,
    NotFound,
    StreamExpired,
    StreamingError,
    StreamLost,
)
from streaming.eventlogs import (
    PAGE_BYTES,
    PAGE_RECORDS,
    TERMINAL,
    Claim,
    EventLog,
    Head,
    NewStream,
    Page,
    Settled,
    Spent,
    State,
    _ids,
    end_and_numbers,
    too_many_running,
)
from streaming.events import Record


@dataclass
class _Stream:
    new: NewStream
    worker_id: str
    created: float
    gen: int = 1
    state: State = "running"
    cancel_requested: bool = False
    ended: float = 0.0
    records: list[Record] = field(default_factory=list)
    readers: dict[str, float] = field(default_factory=dict)


class MemoryLog:
    """See `EventLog`."""

    is_full = False
    waiting = 0

    def __init__(self) -> None:
        self.store_id = _ids.new_store_id()
        self._streams: dict[str, _Stream] = {}
        self._ids_by_key: dict[str, str] = {}
        self._erased: dict[str, float] = {}
        self._leases: dict[str, float] = {}
        self._running: defaultdict[str, set[str]] = defaultdict(set)
        """The ids of an owner's running streams."""
        self._watchers: dict[str, set[Callable[[], None]]] = {}
        self.accounts: dict[tuple[str, str, str], Counter[str]] = {}
        """What ended runs used: by day, owner and model."""

    def create(self, stream: NewStream, payloads: Sequence[bytes]) -> str:
        if stream.key is not None and (existing := self._ids_by_key.get(stream.key)):
            if self._streams[existing].new.fingerprint != stream.fingerprint:
                raise IdempotencyMismatch("this key was used for another request")
            return existing
        if stream.most_running and self._running_of(stream.owner) >= stream.most_running:
            raise too_many_running(stream.most_running)
        made = _Stream(stream, stream.worker_id, time.time())
        made.records = [Record(1, seq, payload) for seq, payload in enumerate(payloads, 1)]
        self._streams[stream.stream_id] = made
        self._running[stream.owner].add(stream.stream_id)
        if stream.key is not None:
            self._ids_by_key[stream.key] = stream.stream_id
        return stream.stream_id

    def find(self, key: str) -> str | None:
        return self._ids_by_key.get(key)

    def append(
        self,
        claim: Claim,
        seq: int,
        payloads: Sequence[bytes],
        end: State | None = None,
        spent: Spent | None = None,
    ) -> bool:
        stream = self._streams.get(claim.stream_id)
        mine = stream is not None and stream.state == "running" and stream.gen == claim.gen
        if stream is None or not mine or len(stream.records) != seq - 1:
            raise Fenced(f"{claim.stream_id}: owner {claim.gen} may not write event {seq}")
        stream.records += [Record(claim.gen, place, payload) for place, payload in enumerate(payloads, seq)]
        if end is not None:
            stream.state = end
            self._end(stream.new.owner, claim.stream_id)
            stream.ended = time.time()
            if spent is not None:
                self._account(stream.new.owner, end, spent)
        self._wake(claim.stream_id)
        return stream.cancel_requested

    def append_soon(self, claim: Claim, seq: int, payloads: Sequence[bytes], settled: Settled) -> bool:
        try:
            asked_to_cancel = self.append(claim, seq, payloads)
        except StreamingError as refused:
            settled(refused)
        else:
            settled(asked_to_cancel)
        return True

    def head(self, stream_id: str) -> Head:
        stream = self._stream(stream_id)
        return Head(
            stream.state,
            stream.gen,
            len(stream.records),
            stream.worker_id,
            stream.created,
            stream.new.owner,
        )

    def request(self, stream_id: str) -> bytes:
        return self._stream(stream_id).new.request

    def read(self, stream_id: str, after: int, limit: int = PAGE_RECORDS) -> Page:
        stream = self._stream(stream_id)
        records: list[Record] = []
        size = 0
        for record in stream.records[after : after + limit]:
            size += len(record.payload)
            if records and size > PAGE_BYTES:
                break
            records.append(record)
        reached = records[-1].seq if records else after
        more = reached < len(stream.records)
        return Page(records, stream.state in TERMINAL and not more, more)

    def newest(self, stream_id: str, after: int) -> Page | None:
        stream = self._streams.get(stream_id)
        return self.read(stream_id, after) if stream and len(stream.records) > after else None

    @contextmanager
    def watch(self, stream_id: str, wake: Callable[[], None]) -> Iterator[None]:
        watchers = self._watchers.setdefault(stream_id, set())
        watchers.add(wake)
        try:
            yield
        finally:
            watchers.discard(wake)
            if not watchers:
                self._watchers.pop(stream_id, None)

    def request_cancel(self, stream_id: str) -> None:
        if stream := self._streams.get(stream_id):
            stream.cancel_requested = stream.state == "running"

    def lost(self, worker_id: str, stream_ids: Sequence[str]) -> Sequence[str]:
        return [
            stream_id
            for stream_id in stream_ids
            if not (stream := self._streams.get(stream_id))
            or stream.state != "running"
            or stream.worker_id != worker_id
        ]

    def cancel_requests(self, worker_id: str) -> Sequence[str]:
        return [
            stream_id
            for stream_id, stream in self._streams.items()
            if stream.cancel_requested and stream.state == "running" and stream.worker_id == worker_id
        ]

    def renew(self, worker_id: str, seconds: float) -> None:
        self._leases[worker_id] = time.monotonic() + seconds

    def retire(self, worker_id: str) -> None:
        self._leases.pop(worker_id, None)

    def orphans(self) -> Sequence[tuple[str, str]]:
        return [
            (stream_id, why)
            for stream_id, stream in self._streams.items()
            if stream.state == "running" and (why := self._why_gone(stream.worker_id))
        ]

    def take_over(self, stream_id: str, worker_id: str, force: bool = False) -> Claim | None:
        stream = self._stream(stream_id)
        if stream.state in TERMINAL or not (force or self._why_gone(stream.worker_id)):
            return None
        stream.gen += 1
        stream.worker_id = worker_id
        return Claim(stream_id, stream.gen)

    def attend(self, stream_id: str, worker_id: str, seconds: float) -> None:
        if stream := self._streams.get(stream_id):
            until = time.monotonic() + seconds if seconds > 0 else 0.0
            stream.readers[worker_id] = max(until, stream.readers.get(worker_id, 0.0)) if until else until

    def attended(self, stream_ids: Sequence[str]) -> Collection[str]:
        now = time.monotonic()
        return {
            stream_id
            for stream_id in stream_ids
            if (stream := self._streams.get(stream_id))
            and any(
                until > now and not self._why_gone(worker_id) for worker_id, until in stream.readers.items()
            )
        }

    def erase(self, stream_id: str) -> None:
        stream = self._stream(stream_id)
        if stream.state in TERMINAL:
            del self._streams[stream_id]
            self._ids_by_key.pop(stream.new.key or "", None)
            self._erased[stream_id] = time.time()
            self._wake(stream_id)

    def expire(self, ended_before: float, erased_before: float) -> int:
        old = [stream_id for stream_id, stream in self._streams.items() if 0 < stream.ended < ended_before]
        for stream_id in old:
            self.erase(stream_id)
        forgotten = [stream_id for stream_id, at in self._erased.items() if at < erased_before]
        for stream_id in forgotten:
            del self._erased[stream_id]
        return len(old) + len(forgotten)

    def describe(self) -> Store:
        return Store("memory")

    def close(self) -> None:
        self._streams.clear()

    def _wake(self, stream_id: str) -> None:
        for wake in self._watchers.get(stream_id, ()):
            wake()

    def _stream(self, stream_id: str) -> _Stream:
        try:
            return self._streams[stream_id]
        except KeyError:
            raise self._absent(stream_id) from None

    def _absent(self, stream_id: str) -> NotFound | StreamLost | StreamExpired:
        return _ids.absent(stream_id, self.store_id, erased=stream_id in self._erased)

    def _account(self, owner: str, end: State, spent: Spent) -> None:
        account = self.accounts.setdefault((spent.day, owner, spent.model), Counter())
        account.update(dict(end_and_numbers(end, spent)))

    def _end(self, owner: str, stream_id: str) -> None:
        self._running[owner].discard(stream_id)
        if not self._running[owner]:
            del self._running[owner]

    def _running_of(self, owner: str) -> int:
        return len(self._running.get(owner, ()))

    def _why_gone(self, worker_id: str) -> str:
        until = self._leases.get(worker_id)
        if until is None:
            return "worker_lost"
        return "" if until > time.monotonic() else "lease_expired"


def create(url: str, synchronous: str = "") -> EventLog:
    return MemoryLog()
