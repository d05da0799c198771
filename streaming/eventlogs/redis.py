"""An event log in a Redis or Valkey server, for workers on several machines.

Every change is one script, so it happens whole; what many streams change in one
turn of the event loop is sent together. Leases are told by the server's clock
only. A stream's entries have ids of our own, ``<seq>-0``, so the server refuses
to write an event twice.

Replication and, unless ``appendfsync always`` is set, the disk lag behind what
was answered. A server that comes back without its newest events is given them
again by their producer.

Source: https://redis.io/docs/latest/commands/xadd/ (explicit ids) and
https://redis.io/docs/latest/develop/interact/programmability/eval-intro/ (scripts).
"""

import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gevent

from streaming.doctor.stores import Store
from streaming.errors import (
    Fenced,
    IdempotencyMismatch,
    NotFound,
    StoreUnavailable,
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
    _host,
    _ids,
    _redis_server,
    end_and_numbers,
    too_many_running,
)
from streaming.eventlogs import _redis_answers as answers
from streaming.eventlogs import _redis_scripts as scripts
from streaming.eventlogs._redis_kept import Batch, Keeping, Kept, append, restore, restore_all
from streaming.eventlogs._redis_pipe import Pipe
from streaming.eventlogs._redis_scripts import Command, bell_key, log_key, meta_key, readers_key
from streaming.eventlogs._redis_watch import BLOCK_SECONDS, Watch
from streaming.events import Record

logger = logging.getLogger(__name__)

EXPIRE_BATCH = 100
READERS_BATCH = 200
CHORE_SECONDS = 2.0
"""How long a chore, which comes again, waits for the server."""
GRACE_SECONDS = 5.0
"""After the server was away: time for workers to say that they live."""
SETTLE_SECONDS = 2.0
"""After another server answers: time for workers to write again what it lacks."""

_SOURCES = [script.source for script in scripts.ALL]


class RedisLog:
    """See `EventLog`. Belongs to the process, and the event loop, that made it."""

    is_full = False
    """A server without room says so at each write."""

    def __init__(self, address: _redis_server.Address) -> None:
        self.address = address
        self._bell = secrets.token_hex(8)
        self._name = f"sluice-{self._bell}"
        self.store_id = _redis_server.open_at_start(address, self._name, _SOURCES)
        self._keeping = Keeping()
        self._abandoned: set[str] = set()
        """May be this worker's, though nothing here writes them: an answer never came."""
        self._leases: dict[str, float] = {}
        self._server = ""
        self._settled_at = float("-inf")
        self._pipe = Pipe(self._connect, address.wait_replicas)
        self._watch = Watch(self._connect_to_watch, self._pipe, self._bell, self._keeping, self._taken)

    @property
    def waiting(self) -> int:
        return self._pipe.waiting

    # For what else is kept in this server

    def ask(self, *command: scripts.Argument) -> Any:
        """Return the answer to a short command. Raises as `Pipe.ask`."""
        return self._pipe.ask(command)

    # Writing

    def create(self, stream: NewStream, payloads: Sequence[bytes]) -> str:
        if not stream.stream_id.startswith(f"st_{self.store_id}"):
            raise _replaced()
        command = scripts.CREATE.command(
            (meta_key(stream.stream_id), log_key(stream.stream_id)),
            *(self.store_id, stream.stream_id, stream.worker_id, self._bell, len(payloads)),
            *(b"\n".join(payloads), stream.key or "", stream.fingerprint, stream.request, stream.owner),
            *(stream.most_running, 0),
        )
        again = (*command[:-1], 1)
        with self._abandoning(stream.stream_id):
            answer = [b"unsure"]
            while answer == [b"unsure"]:
                if stream.key:
                    self._settle()
                answer = self._pipe.ask(command, again)
        match answer:
            case [b"made", _]:
                # Were it to be written again, it was counted already.
                self._keeping.begin(stream.stream_id, Kept(1, len(payloads), (*command[:-2], 0, 0)))
                return stream.stream_id
            case [b"found", stream_id]:
                return str(stream_id, "utf-8")
            case [b"many"]:
                raise too_many_running(stream.most_running)
            case [b"mismatch"]:
                raise IdempotencyMismatch("this key was used for another request")
            case _:
                self._check_store()
                raise _replaced()

    def find(self, key: str) -> str | None:
        stream_id = self._ask_settled(scripts.FIND.command((f"sluice:key:{key}",)))
        return None if stream_id is None else str(stream_id, "utf-8")

    def append(
        self,
        claim: Claim,
        seq: int,
        payloads: Sequence[bytes],
        end: State | None = None,
        spent: Spent | None = None,
    ) -> bool:
        stream_id, gen = claim
        account = _account(end, spent) if end and spent else ()
        batch = Batch(seq + len(payloads) - 1, len(payloads), b"\n".join(payloads), end or "", account)
        kept = self._keeping.of(stream_id, gen)
        try:
            answer = append(self._pipe, claim, batch)
            if (
                kept is not None
                and kept.last == batch.before
                and restore(self._pipe, stream_id, kept, answer)
            ):
                answer = append(self._pipe, claim, batch, again=True)
        finally:
            # Here, not in the loop: whoever is woken may look at the log at once.
            self._watch.wake(stream_id)
        if not isinstance(answer, int):
            if kept is not None:
                self._let_go(stream_id)
            raise Fenced(f"{stream_id}: owner {gen} may not write event {seq}")
        if kept is not None:
            self._keeping.add(stream_id, kept, batch)
        return bool(answer)

    def append_soon(self, claim: Claim, seq: int, payloads: Sequence[bytes], settled: Settled) -> bool:
        return False  # what follows a lost answer waits in turn

    def request_cancel(self, stream_id: str) -> None:
        self._pipe.ask(scripts.REQUEST_CANCEL.command((meta_key(stream_id),), stream_id))

    def renew(self, worker_id: str, seconds: float) -> None:
        self._keeping.drop_old()
        self._leases[worker_id] = seconds
        milliseconds = max(0, round(seconds * 1000))
        command = scripts.RENEW.command((), self.store_id, worker_id, milliseconds, *_host.this_process())
        if not self._pipe.ask(command):
            self._check_store()

    def retire(self, worker_id: str) -> None:
        self._leases.pop(worker_id, None)
        self._pipe.ask(("DEL", f"sluice:worker:{worker_id}"))

    def take_over(self, stream_id: str, worker_id: str, force: bool = False) -> Claim | None:
        owner = answers.lease(self._ask_of(stream_id, scripts.OWNER.command((meta_key(stream_id),))))
        anyway = force or stream_id in self._abandoned
        token = secrets.token_hex(8)  # tells a repetition of this take-over from another one
        command = scripts.TAKE_OVER.command(
            (meta_key(stream_id),),
            *(stream_id, worker_id, self._bell, int(anyway), owner.worker_id if owner.dead else "", token),
        )
        with self._abandoning(stream_id):
            answer = self._ask_of(stream_id, command)
        self._abandoned.discard(stream_id)
        if not answer:
            return None
        gen, last_seq = int(answer[0]), int(answer[1])
        self._keeping.begin(stream_id, Kept(gen, last_seq))
        return Claim(stream_id, gen)

    def attend(self, stream_id: str, worker_id: str, seconds: float) -> None:
        milliseconds = max(0, round(seconds * 1000))
        command = scripts.ATTEND.command(
            (meta_key(stream_id), readers_key(stream_id)), worker_id, milliseconds
        )
        self._pipe.ask(command)

    def erase(self, stream_id: str) -> None:
        command = scripts.ERASE.command((meta_key(stream_id),), stream_id, 0)
        again = (*command[:-1], 1)
        if self._ask_of(stream_id, command, again):
            self._watch.wake(stream_id)

    def expire(self, ended_before: float, erased_before: float) -> int:
        return int(self._pipe.ask(scripts.EXPIRE.command((), ended_before, erased_before, EXPIRE_BATCH)))

    # Reading

    def head(self, stream_id: str) -> Head:
        fields = ("state", "gen", "seq", "worker", "created", "owner")
        state, gen, seq, worker, created, owner = self._fields(stream_id, *fields)
        return Head(
            state.decode(), int(gen), int(seq), worker.decode(), float(created), (owner or b"").decode()
        )

    def request(self, stream_id: str) -> bytes:
        (request,) = self._fields(stream_id, "request")
        return bytes(request)

    def read(self, stream_id: str, after: int, limit: int = PAGE_RECORDS) -> Page:
        command = scripts.READ.command((meta_key(stream_id), log_key(stream_id)), after, limit, PAGE_BYTES)
        state, last, *batches = self._ask_of(stream_id, command)
        last_seq = int(last)
        self._watch.learn(stream_id, last_seq)
        records: list[Record] = []
        size = 0
        for record in answers.records(batches, after):
            size += len(record.payload)
            if records and (size > PAGE_BYTES or len(records) >= limit):
                break
            records.append(record)
        reached = records[-1].seq if records else after
        return Page(records, state.decode() in TERMINAL and reached >= last_seq, reached < last_seq)

    def newest(self, stream_id: str, after: int) -> Page | None:
        return None

    def lost(self, worker_id: str, stream_ids: Sequence[str]) -> Sequence[str]:
        if not stream_ids:
            return ()
        command = ("SMISMEMBER", f"sluice:running:{worker_id}", *stream_ids)
        mine = self._pipe.ask(command, patience_seconds=CHORE_SECONDS)
        if self._pipe.restored_seconds < GRACE_SECONDS:
            return ()  # what the server lost is being written again
        return [stream_id for stream_id, is_mine in zip(stream_ids, mine, strict=True) if not is_mine]

    def cancel_requests(self, worker_id: str) -> Sequence[str]:
        command = ("SMEMBERS", f"sluice:cancels:{worker_id}")
        return [stream_id.decode() for stream_id in self._pipe.ask(command, patience_seconds=CHORE_SECONDS)]

    def orphans(self) -> Sequence[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        owners = self._pipe.ask(scripts.OWNERS.command(()), patience_seconds=CHORE_SECONDS)
        for owner in map(answers.lease, owners):
            if why := self._why_gone(owner):
                running = scripts.RUNNING.command((f"sluice:running:{owner.worker_id}",))
                found += [(stream_id.decode(), why) for stream_id in self._pipe.ask(running)]
        return found + [(stream_id, "worker_lost") for stream_id in self._abandoned_running()]

    def attended(self, stream_ids: Sequence[str]) -> Collection[str]:
        found: set[str] = set()
        for first in range(0, len(stream_ids), READERS_BATCH):
            batch = stream_ids[first : first + READERS_BATCH]
            keys = tuple(map(readers_key, batch))
            notes = self._pipe.ask(scripts.READERS.command(keys), patience_seconds=CHORE_SECONDS)
            found |= {
                batch[place - 1]
                for place, *lease in notes
                if (worker := answers.lease(lease)).held and not worker.dead
            }
        return found

    @contextmanager
    def watch(self, stream_id: str, wake: Callable[[], None]) -> Iterator[None]:
        last_seq = self._pipe.ask(("HGET", meta_key(stream_id), "seq"))
        self._watch.enter(stream_id, wake, int(last_seq or 0))
        try:
            yield
        finally:
            self._watch.leave(stream_id, wake)

    def describe(self) -> Store:
        return _redis_server.describe(self.address, self._name)

    def close(self) -> None:
        if not self._pipe.closed:
            self._pipe.post(("DEL", bell_key(self._bell)))
        self._watch.close()
        self._pipe.close()

    # Asking

    def _fields(self, stream_id: str, *names: str) -> Any:
        """Return fields of a stream, of which the first is never missing."""
        command = ("HMGET", meta_key(stream_id), *names)
        answer = self._pipe.ask(command)
        if self._settle():
            answer = self._pipe.ask(command)
        if answer[0] is None:
            raise self._absent(stream_id)
        return answer

    def _ask_of(self, stream_id: str, command: Command, again: Command | None = None) -> Any:
        answer = self._ask_settled(command, again)
        if answer is None:
            raise self._absent(stream_id)
        return answer

    def _ask_settled(self, command: Command, again: Command | None = None) -> Any:
        """Ask; if the answer is that nothing is there, ask again once that is sure."""
        answer = self._pipe.ask(command, again)
        return self._pipe.ask(command, again) if answer is None and self._settle() else answer

    def _settle(self) -> bool:
        """Return whether it had to wait, after a fail-over, for others to write again what was lost."""
        seconds = self._settled_at - time.monotonic()
        if seconds > 0:
            gevent.sleep(seconds)
        return seconds > 0

    @contextmanager
    def _abandoning(self, stream_id: str) -> Iterator[None]:
        """If no answer comes, note that the stream may be this worker's now."""
        try:
            yield
        except StoreUnavailable:
            self._abandoned.add(stream_id)
            raise

    def _abandoned_running(self) -> Iterator[str]:
        for stream_id in list(self._abandoned):
            state, bell = self._pipe.ask(("HMGET", meta_key(stream_id), "state", "bell"))
            if state == b"running" and bell == self._bell.encode():
                yield stream_id
            else:
                self._abandoned.discard(stream_id)

    def _absent(self, stream_id: str) -> NotFound | StreamLost | StreamExpired:
        erased = self._pipe.ask(("ZSCORE", "sluice:erased", stream_id)) is not None
        self._check_store()
        return _ids.absent(stream_id, self.store_id, erased)

    # A server that is not what it was

    def _connect(self) -> _redis_server.Connection:
        connection = _redis_server.connect(self.address, self._name)
        try:
            _redis_server.load(connection, _SOURCES)
            store_id, _ = _redis_server.open_store(connection)
            server = _redis_server.run_id(connection)
        except BaseException:
            connection.disconnect()
            raise
        self._note_store(store_id)
        if self._server:
            self._watch.reconnect()
            gevent.spawn(restore_all, self._pipe, self._keeping)
            if server != self._server:
                self._settled_at = time.monotonic() + SETTLE_SECONDS
        self._server = server
        return connection

    def _connect_to_watch(self) -> _redis_server.Connection:
        return _redis_server.connect(self.address, f"{self._name}-watch", BLOCK_SECONDS)

    def _check_store(self) -> None:
        command = scripts.OPEN.command((), _ids.new_store_id(), scripts.SCHEMA_VERSION)
        self._note_store(self._pipe.ask(command)[0].decode())

    def _note_store(self, store_id: str) -> None:
        if store_id != self.store_id:
            logger.error("the event log was emptied or replaced", extra={"store_id": store_id})
            self.store_id = store_id
            self._keeping.clear()
            self._abandoned.clear()
            gevent.spawn(self._begin_anew)

    def _begin_anew(self) -> None:
        """Be known to the new store, and let readers hear that theirs is lost."""
        self._watch.wake_all()
        try:
            for worker_id, seconds in list(self._leases.items()):
                self.renew(worker_id, seconds)
        except StreamingError as error:
            logger.warning("leases were not renewed in the new store", extra={"why": str(error)})

    def _taken(self, stream_id: str) -> None:
        """Another worker says that it took a stream over."""
        self._let_go(stream_id)

    def _let_go(self, stream_id: str) -> None:
        self._keeping.drop(stream_id)
        self._watch.follow(stream_id)

    def _why_gone(self, worker: answers.Lease) -> str:
        """Return ``worker_lost``, ``lease_expired``, or "" for a worker that lives."""
        if worker.dead:
            return "worker_lost"
        if worker.held or self._pipe.restored_seconds < GRACE_SECONDS:
            return ""
        return "worker_lost" if worker.state == "none" else "lease_expired"


def _account(end: State, spent: Spent) -> tuple[str | int, ...]:
    numbers = (part for column in end_and_numbers(end, spent) if column[1] for part in column)
    return (spent.day, spent.model, *numbers)


def _replaced() -> StoreUnavailable:
    return StoreUnavailable("the event log was replaced at this moment: ask again", retry_after_seconds=1)


def create(url: str, synchronous: str = "") -> EventLog:
    """Open ``redis://host:6379/0``, or ``rediss://`` for TLS."""
    return RedisLog(_redis_server.parse(url))
