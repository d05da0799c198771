"""An event log in one SQLite file, shared by all the workers of one machine.

Writes that arrive in one turn of the event loop are committed together, with
no timer: the first of them asks for a flush at the next turn. A commit in WAL
mode is a write without a sync, so it happens on the loop; copying the WAL into
the file does sync, and happens in a thread.

Source for the pragmas and locking: https://www.sqlite.org/wal.html
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import gevent
from gevent.hub import Waiter

from streaming.errors import (
    Fenced,
    IdempotencyMismatch,
    NotFound,
    SettingsError,
    StoreFull,
    StoreUnavailable,
    StreamExpired,
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
    State,
    _host,
    _ids,
    _storage,
)
from streaming.events import Record

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE store (id TEXT NOT NULL, schema INTEGER NOT NULL);
CREATE TABLE workers (
    id TEXT PRIMARY KEY, boot TEXT, namespace TEXT, pid INTEGER, started INTEGER, lease_until REAL
) WITHOUT ROWID;
CREATE TABLE streams (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    gen INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    worker TEXT NOT NULL,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    ended REAL,
    key TEXT,
    fingerprint TEXT NOT NULL,
    request BLOB NOT NULL
);
CREATE UNIQUE INDEX streams_key ON streams (key) WHERE key IS NOT NULL;
CREATE INDEX streams_running ON streams (worker, cancel_requested) WHERE state = 'running';
CREATE INDEX streams_ended ON streams (ended) WHERE ended IS NOT NULL;
CREATE TABLE batches (                       -- events that were appended together
    stream INTEGER NOT NULL, seq INTEGER NOT NULL,   -- of the last one
    gen INTEGER NOT NULL, count INTEGER NOT NULL, payloads BLOB NOT NULL,   -- one a line
    PRIMARY KEY (stream, seq)
) WITHOUT ROWID;
CREATE TABLE readers (stream TEXT, worker TEXT, until REAL, PRIMARY KEY (stream, worker)) WITHOUT ROWID;
CREATE TABLE erased (stream TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
"""

CHECKPOINT_PAGES = 1000
BUSY_SECONDS = 5.0
FOREIGN_COMMIT_POLL_SECONDS = 0.010
EXPIRE_BATCH = 500

Write = Callable[[apsw.Connection], Any]


class _Entry(NamedTuple):
    """A write that waits for its commit, and who waits for it."""

    write: Write
    waiter: "Waiter[Any]"


class SQLiteLog:
    """See `EventLog`. Belongs to the process, and the event loop, that made it."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._path = path
        self._synchronous = synchronous
        self._pid = os.getpid()
        self._db, self.store_id = _open_store(path, synchronous)
        self._queue: list[_Entry] = []
        self._flush_due = False
        self._busy_since = 0.0
        self._touched: set[str] = set()
        self._watchers: dict[str, set[Callable[[], None]]] = {}
        self._own: set[str] = set()
        self._last_seen: dict[str, int] = {}
        self._seen_version = self._data_version()
        self._wal_pages = 0
        self._db.set_wal_hook(self._note_wal_pages)
        self._checkpointing = False
        self._closed = False
        self._poll = gevent.spawn(self._notice_foreign_commits)

    # Writing

    def create(self, stream: NewStream, payloads: Sequence[bytes]) -> str:
        def insert(db: apsw.Connection) -> str:
            if stream.key is not None:
                for existing, fingerprint in db.execute(
                    "SELECT id, fingerprint FROM streams WHERE key = ?", (stream.key,)
                ):
                    if fingerprint != stream.fingerprint:
                        raise IdempotencyMismatch("this key was used for another request")
                    return str(existing)
            db.execute(
                "INSERT INTO streams (id, state, gen, last_seq, worker, created, key, fingerprint, request)"
                " VALUES (?, 'running', 1, ?, ?, ?, ?, ?, ?)",
                (
                    stream.stream_id,
                    len(payloads),
                    stream.worker_id,
                    time.time(),
                    stream.key,
                    stream.fingerprint,
                    stream.request,
                ),
            )
            _insert_batch(db, db.last_insert_rowid(), 1, len(payloads), payloads)
            self._own.add(stream.stream_id)
            return stream.stream_id

        return str(self._commit(insert))

    def append(self, claim: Claim, seq: int, payloads: Sequence[bytes], end: State | None = None) -> bool:
        last = seq + len(payloads) - 1

        def advance(db: apsw.Connection) -> bool:
            row: list[Any] = db.execute(
                "UPDATE streams SET last_seq = ?, state = ifnull(?, state), ended = ?"
                " WHERE id = ? AND gen = ? AND last_seq = ? AND state = 'running'"
                " RETURNING number, cancel_requested",
                (last, end, time.time() if end else None, claim.stream_id, claim.gen, seq - 1),
            ).fetchall()
            if end or not row:
                self._own.discard(claim.stream_id)
            if not row:
                raise Fenced(f"{claim.stream_id}: owner {claim.gen} may not write event {seq}")
            ((number, cancel_requested),) = row
            _insert_batch(db, number, claim.gen, last, payloads)
            self._touched.add(claim.stream_id)
            return bool(cancel_requested)

        return bool(self._commit(advance))

    def request_cancel(self, stream_id: str) -> None:
        self._commit(
            lambda db: db.execute(
                "UPDATE streams SET cancel_requested = 1 WHERE id = ? AND state = 'running'", (stream_id,)
            )
        )

    def renew(self, worker_id: str, seconds: float) -> None:
        me = _host.this_process()
        self._commit(
            lambda db: db.execute(
                "INSERT OR REPLACE INTO workers VALUES (?, ?, ?, ?, ?, ?)",
                (worker_id, *me, _host.boot_seconds() + seconds),
            )
        )

    def retire(self, worker_id: str) -> None:
        def forget(db: apsw.Connection) -> None:
            db.execute("DELETE FROM workers WHERE id = ?", (worker_id,))
            db.execute("DELETE FROM readers WHERE worker = ?", (worker_id,))

        self._commit(forget)

    def take_over(self, stream_id: str, worker_id: str, force: bool = False) -> Claim | None:
        def fence(db: apsw.Connection) -> Claim | None:
            head = self.head(stream_id)
            if head.ended or not (force or self._why_gone(head.worker_id)):
                return None
            db.execute(
                "UPDATE streams SET gen = gen + 1, worker = ? WHERE id = ? AND state = 'running'",
                (worker_id, stream_id),
            )
            return Claim(stream_id, head.gen + 1)

        claim: Claim | None = self._commit(fence)
        return claim

    def attend(self, stream_id: str, worker_id: str, seconds: float) -> None:
        def note(db: apsw.Connection) -> None:
            if seconds > 0:
                until = _host.boot_seconds() + seconds
                db.execute("INSERT OR REPLACE INTO readers VALUES (?, ?, ?)", (stream_id, worker_id, until))
            else:
                db.execute("DELETE FROM readers WHERE stream = ? AND worker = ?", (stream_id, worker_id))

        self._commit(note)

    def erase(self, stream_id: str) -> None:
        def forget(db: apsw.Connection) -> None:
            if self.head(stream_id).ended:
                _erase(db, [stream_id])
                self._touched.add(stream_id)

        self._commit(forget)

    def expire(self, ended_before: float, erased_before: float) -> int:
        def forget(db: apsw.Connection) -> int:
            old = [
                stream_id
                for (stream_id,) in db.execute(
                    "SELECT id FROM streams WHERE ended < ? LIMIT ?", (ended_before, EXPIRE_BATCH)
                )
            ]
            _erase(db, old)
            before = db.total_changes()
            db.execute(
                "DELETE FROM erased WHERE stream IN (SELECT stream FROM erased WHERE at < ? LIMIT ?)",
                (erased_before, EXPIRE_BATCH),
            )
            db.execute(
                "DELETE FROM workers WHERE lease_until < ?"
                " AND NOT EXISTS (SELECT 1 FROM streams WHERE state = 'running' AND worker = workers.id)",
                (_host.boot_seconds() - 3600,),
            )
            db.execute("DELETE FROM readers WHERE until < ?", (_host.boot_seconds(),))
            return len(old) + db.total_changes() - before

        return int(self._commit(forget))

    # Reading

    def head(self, stream_id: str) -> Head:
        for row in self._rows(
            "SELECT state, gen, last_seq, worker, created, request FROM streams WHERE id = ?", (stream_id,)
        ):
            return Head(*row)
        raise self._absent(stream_id)

    def read(self, stream_id: str, after: int, limit: int = PAGE_RECORDS) -> Page:
        head = self._rows("SELECT number, last_seq, state FROM streams WHERE id = ?", (stream_id,))
        if not head:
            raise self._absent(stream_id)
        ((number, last_seq, state),) = head
        records = self._page(number, after, limit) if after < last_seq else []
        reached = records[-1].seq if records else after
        return Page(records, state in TERMINAL and reached >= last_seq)

    def _page(self, number: int, after: int, limit: int) -> list[Record]:
        records: list[Record] = []
        size = 0
        rows: Any = self._db.execute(
            "SELECT seq, gen, count, payloads FROM batches WHERE stream = ? AND seq > ? ORDER BY seq",
            (number, after),
        )
        for seq, gen, count, payloads in rows:
            first = seq - count + 1
            skip = max(0, after + 1 - first)
            for place, payload in enumerate(payloads.split(b"\n")[skip:], first + skip):
                records.append(Record(gen, place, payload))
            size += len(payloads)
            if size >= PAGE_BYTES or len(records) >= limit:
                break
        # Left open while other code runs, it would keep the WAL from being reset.
        rows.close(True)
        return records[:limit]

    def cancel_requests(self, worker_id: str) -> Sequence[str]:
        return [
            stream_id
            for (stream_id,) in self._rows(
                "SELECT id FROM streams WHERE state = 'running' AND worker = ? AND cancel_requested = 1",
                (worker_id,),
            )
        ]

    def orphans(self) -> Sequence[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        owners = self._rows("SELECT DISTINCT worker FROM streams WHERE state = 'running'")
        for (worker_id,) in owners:
            if why := self._why_gone(worker_id):
                running = self._rows(
                    "SELECT id FROM streams WHERE state = 'running' AND worker = ?", (worker_id,)
                )
                found += [(stream_id, why) for (stream_id,) in running]
        return found

    def attended(self, stream_id: str) -> bool:
        workers = self._rows(
            "SELECT worker FROM readers WHERE stream = ? AND until > ?", (stream_id, _host.boot_seconds())
        )
        return any(not self._why_gone(worker_id) for (worker_id,) in workers)

    @contextmanager
    def watch(self, stream_id: str, wake: Callable[[], None]) -> Iterator[None]:
        watchers = self._watchers.setdefault(stream_id, set())
        watchers.add(wake)
        try:
            yield
        finally:
            watchers.discard(wake)
            if not watchers:
                del self._watchers[stream_id]
                self._last_seen.pop(stream_id, None)

    def close(self) -> None:
        if self._closed:
            return
        self._flush()
        self._closed = True
        self._poll.kill()
        self._db.close()

    def _rows(self, sql: str, bindings: Sequence[Any] = ()) -> list[Any]:
        """Return every row at once: a cursor left open while other code runs holds the WAL back."""
        return self._db.execute(sql, bindings).fetchall()

    # Group commit

    def _commit(self, write: Write) -> Any:
        if self._closed or os.getpid() != self._pid:
            raise StoreUnavailable("this event log was closed, or opened in another process")
        waiter: Waiter[Any] = Waiter()
        self._queue.append(_Entry(write, waiter))
        if not self._flush_due:
            self._flush_due = True
            gevent.get_hub().loop.run_callback(self._flush)
        return waiter.get()

    def _flush(self) -> None:
        """Commit all that is queued, then wake those who wait. Runs in the hub: never blocks."""
        self._flush_due = False
        queue, self._queue = self._queue, []
        if not queue or self._closed:
            return
        try:
            self._settle(queue)
        except apsw.BusyError:
            self._try_again(queue)

    def _settle(self, queue: list[_Entry]) -> None:
        try:
            outcomes = self._transact([entry.write for entry in queue])
        except apsw.BusyError:
            raise
        except apsw.Error as error:
            if len(queue) > 1:  # find out which of them it was
                for entry in queue:
                    self._settle([entry])
                return
            logger.exception("the event log cannot be written")
            outcomes = [_as_store_error(error)]
        self._busy_since = 0.0
        touched, self._touched = self._touched, set()
        for stream_id in touched:
            self._wake(stream_id)
        for entry, outcome in zip(queue, outcomes, strict=True):
            if isinstance(outcome, Exception):
                entry.waiter.throw(outcome)
            else:
                entry.waiter.switch(outcome)
        if self._wal_pages > CHECKPOINT_PAGES and not self._checkpointing:
            self._checkpointing = True
            gevent.spawn(self._checkpoint)

    def _transact(self, writes: list[Write]) -> list[Any]:
        """Run ``writes`` in one transaction; one that raises a `StreamingError` wrote nothing."""
        outcomes: list[Any] = []
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for write in writes:
                try:
                    outcomes.append(write(self._db))
                except (Fenced, IdempotencyMismatch, NotFound, StreamLost, StreamExpired) as refused:
                    outcomes.append(refused)
            self._db.execute("COMMIT")
        except BaseException:
            self._touched.clear()
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return outcomes

    def _try_again(self, queue: list[_Entry]) -> None:
        """Another process is writing: let this one's other greenlets run meanwhile."""
        now = time.monotonic()
        self._busy_since = self._busy_since or now
        if now - self._busy_since > BUSY_SECONDS:
            self._busy_since = 0.0
            for entry in queue:
                entry.waiter.throw(StoreUnavailable("the event log is held by another process"))
            return
        self._queue = queue + self._queue
        self._flush_due = True
        gevent.spawn_later(0.001, self._flush_from_greenlet)

    def _flush_from_greenlet(self) -> None:
        gevent.get_hub().loop.run_callback(self._flush)

    # Other processes

    def _notice_foreign_commits(self) -> None:
        """Wake readers of streams that another process writes, with one query for all of them."""
        while True:
            gevent.sleep(FOREIGN_COMMIT_POLL_SECONDS)
            foreign = self._watchers.keys() - self._own
            if not foreign:
                continue
            version = self._data_version()
            if version == self._seen_version:
                continue
            self._seen_version = version
            for stream_id, last_seq in self._last_seqs(list(foreign)):
                if self._last_seen.get(stream_id) != last_seq:
                    self._last_seen[stream_id] = last_seq
                    self._wake(stream_id)

    def _wake(self, stream_id: str) -> None:
        for wake in self._watchers.get(stream_id, ()):
            wake()

    def _last_seqs(self, stream_ids: list[str]) -> Iterator[tuple[str, int]]:
        for start in range(0, len(stream_ids), 500):
            some = stream_ids[start : start + 500]
            marks = ",".join("?" * len(some))
            yield from self._rows(f"SELECT id, last_seq FROM streams WHERE id IN ({marks})", some)

    def _data_version(self) -> int:
        return int(self._db.pragma("data_version"))

    def _why_gone(self, worker_id: str) -> str:
        """Return ``worker_lost``, ``lease_expired``, or "" for a worker that lives."""
        for boot, namespace, pid, started, lease_until in self._rows(
            "SELECT boot, namespace, pid, started, lease_until FROM workers WHERE id = ?", (worker_id,)
        ):
            if not _host.may_live(_host.Process(boot, namespace, pid, started)):
                return "worker_lost"
            return "" if lease_until > _host.boot_seconds() else "lease_expired"
        return "worker_lost"

    def _absent(self, stream_id: str) -> NotFound | StreamLost | StreamExpired:
        erased = self._rows("SELECT 1 FROM erased WHERE stream = ?", (stream_id,))
        return _ids.absent(stream_id, self.store_id, erased=bool(erased))

    # The WAL

    def _note_wal_pages(self, db: apsw.Connection, schema: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        try:
            gevent.get_hub().threadpool.apply(_checkpoint, (str(self._path), self._synchronous))
        except apsw.Error:
            logger.warning("checkpoint failed, to be tried again", exc_info=True)
        finally:
            self._checkpointing = False


def _insert_batch(
    db: apsw.Connection, number: int, gen: int, last_seq: int, payloads: Sequence[bytes]
) -> None:
    db.execute(
        "INSERT INTO batches VALUES (?, ?, ?, ?, ?)",
        (number, last_seq, gen, len(payloads), b"\n".join(payloads)),
    )


def _erase(db: apsw.Connection, stream_ids: list[str]) -> None:
    now = time.time()
    for stream_id in stream_ids:
        db.execute(
            "DELETE FROM batches WHERE stream = (SELECT number FROM streams WHERE id = ?)", (stream_id,)
        )
        db.execute("DELETE FROM streams WHERE id = ?", (stream_id,))
        db.execute("DELETE FROM readers WHERE stream = ?", (stream_id,))
        db.execute("INSERT OR REPLACE INTO erased VALUES (?, ?)", (stream_id, now))


def _as_store_error(error: apsw.Error) -> StoreFull | StoreUnavailable:
    if isinstance(error, apsw.FullError):
        return StoreFull("the disk of the event log is full")
    return StoreUnavailable("the event log cannot be written")


def _connect(path: str, synchronous: str) -> apsw.Connection:
    db = apsw.Connection(path)
    db.pragma("journal_mode", "wal")
    db.pragma("synchronous", synchronous)
    db.pragma("wal_autocheckpoint", 0)
    return db


def _checkpoint(path: str, synchronous: str) -> None:
    # Its own connection, because it runs in another thread.
    db = _connect(path, synchronous)
    try:
        db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    finally:
        db.close()


def _open_store(path: Path, synchronous: str) -> tuple[apsw.Connection, str]:
    """Open the file, or make it; return the connection and the store's id."""
    _storage.check_library(apsw.sqlite_lib_version())
    _storage.prepare(path)
    with _storage.locked(path):
        try:
            return _open_or_make(path, synchronous)
        except (apsw.NotADBError, apsw.CorruptError):
            aside = _storage.move_aside(path)
            logger.error("the event log was corrupt and was moved aside", extra={"moved_to": str(aside)})
            return _open_or_make(path, synchronous)


def _open_or_make(path: Path, synchronous: str) -> tuple[apsw.Connection, str]:
    db = apsw.Connection(str(path))
    db.set_busy_timeout(int(BUSY_SECONDS * 1000))
    try:
        db.pragma("journal_mode", "wal")
        db.pragma("synchronous", synchronous)
        db.pragma("wal_autocheckpoint", 0)
        if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'store'").fetchall():
            with db:
                db.execute(SCHEMA)
                db.execute("INSERT INTO store VALUES (?, ?)", (_ids.new_store_id(), SCHEMA_VERSION))
        ((store_id, schema),) = db.execute("SELECT id, schema FROM store").fetchall()
    except BaseException:
        db.close()
        raise
    if schema != SCHEMA_VERSION:
        db.close()
        raise SettingsError(
            f"EVENTLOG_URL: {path} was made by another version of this service (schema {schema},"
            f" this one has {SCHEMA_VERSION}); name another file"
        )
    db.set_busy_timeout(0)  # from here on, waiting must not block the loop
    return db, str(store_id)


def create(url: str, synchronous: str = "NORMAL") -> EventLog:
    """Open ``sqlite:////absolute/path`` or ``sqlite:///relative/path``."""
    path = url.removeprefix("sqlite:///")
    if not path or path == url:
        raise SettingsError(f"EVENTLOG_URL: {url!r} names no file; write sqlite:////absolute/path")
    return SQLiteLog(Path(path).absolute(), synchronous)
