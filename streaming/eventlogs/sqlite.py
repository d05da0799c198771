"""An event log in one SQLite file, shared by all the workers of one machine."""

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import apsw
import gevent

from streaming.doctor.stores import Store
from streaming.errors import (
    Fenced,
    IdempotencyMismatch,
    NotFound,
    SettingsError,
    StoreFull,
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
    end_and_numbers,
    too_many_running,
)
from streaming.eventlogs._group_commit import GroupCommit
from streaming.eventlogs._sqlite_file import StoreFile
from streaming.eventlogs._tails import Tails
from streaming.events import Record

FOREIGN_COMMIT_POLL_SECONDS = 0.010
LOOK_AROUND_SECONDS = 1.0
EXPIRE_BATCH = 500
GRACE_SECONDS = 5.0
T = TypeVar("T")

_LAST_SEQ = "(SELECT max(seq) FROM batches WHERE stream = number)"
_COUNTED = (
    "completed cancelled failed interrupted tokens_in tokens_out estimated bytes milliseconds"
    " cost_nano priced".split()
)
_ADD_TO_ACCOUNT = (
    f"INSERT INTO usage VALUES ({', '.join('?' * (3 + len(_COUNTED)))}) ON CONFLICT DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in _COUNTED)
)


class SQLiteLog:
    """See `EventLog`. Belongs to the process, and the event loop, that made it."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._forks = _host.forks
        self._tails = Tails()
        self._own: set[str] = set()
        self._last_seen: dict[str, int] = {}
        self._lease: tuple[str, float] | None = None
        self._renewed_at = _host.boot_seconds()
        self._leases_count_from = 0.0
        self.path = path
        self.synchronous = synchronous
        self._file = StoreFile(path, synchronous, self._begin_anew)
        self._commits = GroupCommit(self._file)
        self._seen_version = self._data_version()
        self._poll = gevent.spawn(self._notice_others)

    @property
    def store_id(self) -> str:
        return self._file.store_id

    @property
    def waiting(self) -> int:
        return self._commits.waiting

    # For what else is kept in this file

    @property
    def is_full(self) -> bool:
        """The disk was full at the last write: nothing new is to be written."""
        return self._file.full

    def note_full(self) -> None:
        self._file.drop_ballast()

    def replace(self) -> None:
        """The file was found damaged: move it aside and begin a new one. Blocks."""
        self._file.replace()

    def rows(self, sql: str, bindings: Sequence[Any] = ()) -> list[Any]:
        """Return every row of a short query; it holds up the loop."""
        return self._file.rows(sql, bindings)

    def write(self, write: Callable[[apsw.Connection], T]) -> T:
        """Run a short ``write`` in a transaction, with what else is written; return once committed."""
        done: T = self._write(write)
        return done

    # Writing

    def create(self, stream: NewStream, payloads: Sequence[bytes]) -> str:
        def insert(db: apsw.Connection) -> str:
            found: list[Any] = []
            if stream.key is not None:
                found = db.execute(
                    "SELECT id, fingerprint FROM streams WHERE key = ?", (stream.key,)
                ).fetchall()
            for existing, fingerprint in found:
                if fingerprint != stream.fingerprint:
                    raise IdempotencyMismatch("this key was used for another request")
                return str(existing)
            if not stream.stream_id.startswith(f"st_{self.store_id}"):
                raise StoreUnavailable("the event log was replaced at this moment: ask again")
            if self._file.full:
                raise StoreFull("the disk of the event log is full", retry_after_seconds=60)
            if stream.most_running and _running_of(db, stream.owner) >= stream.most_running:
                raise too_many_running(stream.most_running)
            db.execute(
                "INSERT INTO streams"
                " (id, state, gen, worker, created, key, fingerprint, owner)"
                " VALUES (?, 'running', 1, ?, ?, ?, ?, ?)",
                (
                    stream.stream_id,
                    stream.worker_id,
                    time.time(),
                    stream.key,
                    stream.fingerprint,
                    stream.owner,
                ),
            )
            number = db.last_insert_rowid()
            db.execute("INSERT INTO requests VALUES (?, ?)", (number, stream.request))
            _insert_batch(db, number, 1, len(payloads), payloads)
            self._own.add(stream.stream_id)
            return stream.stream_id

        return str(self._write(insert))

    def append(
        self,
        claim: Claim,
        seq: int,
        payloads: Sequence[bytes],
        end: State | None = None,
        spent: Spent | None = None,
    ) -> bool:
        return bool(self._write(*self._appending(claim, seq, payloads, end, spent)))

    def append_soon(self, claim: Claim, seq: int, payloads: Sequence[bytes], settled: Settled) -> bool:
        if self._forks != _host.forks:
            return False
        return self._commits.soon(*self._appending(claim, seq, payloads, None, None), settled)

    def _appending(
        self, claim: Claim, seq: int, payloads: Sequence[bytes], end: State | None, spent: Spent | None
    ) -> tuple[Callable[[apsw.Connection], bool], Callable[[], None]]:
        """Return what writes it, and what tells of it once it is committed."""
        stream_id, gen = claim
        last = seq + len(payloads) - 1

        def advance(db: apsw.Connection) -> bool:
            row: list[Any] = db.execute(
                f"SELECT number, cancel_requested, owner, {_LAST_SEQ} FROM streams"
                " WHERE id = ? AND gen = ? AND state = 'running'",
                (stream_id, gen),
            ).fetchall()
            number, cancel_requested, owner, last_seq = row[0] if row else (0, 0, "", -1)
            fenced = last_seq != seq - 1
            if end or fenced:
                self._own.discard(stream_id)
            if fenced:
                raise Fenced(f"{stream_id}: owner {gen} may not write event {seq}")
            if end:
                db.execute(
                    "UPDATE streams SET state = ?, ended = ? WHERE number = ?", (end, time.time(), number)
                )
            _insert_batch(db, number, gen, last, payloads)
            if end and spent is not None:
                _account(db, owner, end, spent)
            return bool(cancel_requested)

        def tell() -> None:
            self._tails.committed(stream_id, gen, seq, payloads, closed=end is not None)

        return advance, tell

    def request_cancel(self, stream_id: str) -> None:
        self._write(
            lambda db: db.execute(
                "UPDATE streams SET cancel_requested = 1 WHERE id = ? AND state = 'running'", (stream_id,)
            )
        )

    def renew(self, worker_id: str, seconds: float) -> None:
        self._lease = (worker_id, seconds)
        self._write(lambda db: _renew(db, worker_id, seconds))
        now = _host.boot_seconds()
        if now - self._renewed_at > seconds:
            # Nobody could renew while the file was held: the others come to it just now.
            self._leases_count_from = now + GRACE_SECONDS
        self._renewed_at = now

    def retire(self, worker_id: str) -> None:
        def forget(db: apsw.Connection) -> None:
            db.execute("DELETE FROM workers WHERE id = ?", (worker_id,))
            db.execute("DELETE FROM readers WHERE worker = ?", (worker_id,))

        self._lease = None
        self._write(forget)

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

        claim: Claim | None = self._write(fence)
        return claim

    def attend(self, stream_id: str, worker_id: str, seconds: float) -> None:
        def note(db: apsw.Connection) -> None:
            if seconds > 0:
                until = _host.boot_seconds() + seconds
                db.execute(
                    "INSERT INTO readers VALUES (?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET until = max(until, excluded.until)",
                    (stream_id, worker_id, until),
                )
            else:
                db.execute("DELETE FROM readers WHERE stream = ? AND worker = ?", (stream_id, worker_id))

        self._write(note)

    def erase(self, stream_id: str) -> None:
        def forget(db: apsw.Connection) -> None:
            if self.head(stream_id).ended:
                _erase(db, [stream_id])

        def tell() -> None:
            self._tails.forget([stream_id])
            self._tails.wake(stream_id)

        self._write(forget, tell)

    def expire(self, ended_before: float, erased_before: float) -> int:
        def forget(db: apsw.Connection) -> int:
            old: list[Any] = db.execute(
                "SELECT id FROM streams WHERE ended < ? LIMIT ?", (ended_before, EXPIRE_BATCH)
            ).fetchall()
            _erase(db, [stream_id for (stream_id,) in old])
            before = db.total_changes()
            db.execute(
                "DELETE FROM erased WHERE stream IN (SELECT stream FROM erased WHERE at < ? LIMIT ?)",
                (erased_before, EXPIRE_BATCH),
            )
            forgotten = db.total_changes() - before
            db.execute(
                "DELETE FROM workers WHERE lease_until < ?"
                " AND NOT EXISTS (SELECT 1 FROM streams WHERE state = 'running' AND worker = workers.id)",
                (_host.boot_seconds() - 3600,),
            )
            db.execute("DELETE FROM readers WHERE until < ?", (_host.boot_seconds(),))
            return len(old) + forgotten

        return int(self._write(forget))

    # Reading

    def head(self, stream_id: str) -> Head:
        for row in self._file.rows(
            f"SELECT state, gen, {_LAST_SEQ}, worker, created, owner FROM streams WHERE id = ?",
            (stream_id,),
        ):
            return Head(*row)
        raise self._absent(stream_id)

    def request(self, stream_id: str) -> bytes:
        for (request,) in self._file.rows(
            "SELECT request FROM requests WHERE stream = (SELECT number FROM streams WHERE id = ?)",
            (stream_id,),
        ):
            return bytes(request)
        raise self._absent(stream_id)

    def read(self, stream_id: str, after: int, limit: int = PAGE_RECORDS) -> Page:
        if page := self._tails.page(stream_id, after, limit):
            return page
        head = self._file.rows(f"SELECT number, {_LAST_SEQ}, state FROM streams WHERE id = ?", (stream_id,))
        if not head:
            raise self._absent(stream_id)
        ((number, last_seq, state),) = head
        with self._file.translated_errors():
            records = self._page(number, after, last_seq, limit) if after < last_seq else []
        reached = records[-1].seq if records else after
        return Page(records, state in TERMINAL and reached >= last_seq, reached < last_seq)

    def newest(self, stream_id: str, after: int) -> Page | None:
        return self._tails.page(stream_id, after, PAGE_RECORDS)

    def find(self, key: str) -> str | None:
        found = self._file.rows("SELECT id FROM streams WHERE key = ?", (key,))
        return str(found[0][0]) if found else None

    def lost(self, worker_id: str, stream_ids: Sequence[str]) -> Sequence[str]:
        mine = self._file.rows("SELECT id FROM streams WHERE state = 'running' AND worker = ?", (worker_id,))
        return list(set(stream_ids).difference(stream_id for (stream_id,) in mine))

    def cancel_requests(self, worker_id: str) -> Sequence[str]:
        return [
            stream_id
            for (stream_id,) in self._file.rows(
                "SELECT id FROM streams WHERE state = 'running' AND worker = ? AND cancel_requested = 1",
                (worker_id,),
            )
        ]

    def orphans(self) -> Sequence[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        for (worker_id,) in self._file.rows("SELECT DISTINCT worker FROM streams WHERE state = 'running'"):
            if why := self._why_gone(worker_id):
                running = self._file.rows(
                    "SELECT id FROM streams WHERE state = 'running' AND worker = ?", (worker_id,)
                )
                found += [(stream_id, why) for (stream_id,) in running]
        return found

    def attended(self, stream_ids: Sequence[str]) -> Collection[str]:
        if not stream_ids:
            return ()
        notes = self._file.rows(
            "SELECT stream, worker FROM readers"
            " WHERE until > ? AND stream IN (SELECT value FROM json_each(?))",
            (_host.boot_seconds(), json.dumps(stream_ids)),
        )
        gone = {worker_id: self._why_gone(worker_id) for worker_id in {worker for _, worker in notes}}
        return {stream_id for stream_id, worker_id in notes if not gone[worker_id]}

    @contextmanager
    def watch(self, stream_id: str, wake: Callable[[], None]) -> Iterator[None]:
        try:
            with self._tails.watch(stream_id, wake):
                yield
        finally:
            if stream_id not in self._tails:
                self._last_seen.pop(stream_id, None)

    def describe(self) -> Store:
        return self._file.describe()

    def close(self) -> None:
        self._commits.close()
        self._poll.kill()
        self._file.db.close()

    # Inside

    def _write(self, write: Callable[[apsw.Connection], Any], then: Callable[[], None] | None = None) -> Any:
        if self._forks != _host.forks:
            raise StoreUnavailable("this event log was opened in another process")
        return self._commits.run(write, then)

    def _page(self, number: int, after: int, last_seq: int, limit: int) -> list[Record]:
        # Not past last_seq: another process may have committed more since it was read.
        records: list[Record] = []
        size = 0
        rows: Any = self._file.db.execute(
            "SELECT seq, gen, count, payloads FROM batches"
            " WHERE stream = ? AND seq > ? AND seq <= ? ORDER BY seq",
            (number, after, last_seq),
        )
        for seq, gen, count, payloads in rows:
            first = seq - count + 1
            skip = max(0, after + 1 - first)
            for place, payload in enumerate(payloads.split(b"\n")[skip:], first + skip):
                size += len(payload)
                if records and (size > PAGE_BYTES or len(records) >= limit):
                    # Left open while other code runs, it would keep the WAL from being reset.
                    rows.close(True)
                    return records
                records.append(Record(gen, place, payload))
        return records

    def _why_gone(self, worker_id: str) -> str:
        """Return ``worker_lost``, ``lease_expired``, or "" for a worker that lives."""
        for boot, namespace, pid, started, lease_until in self._file.rows(
            "SELECT boot, namespace, pid, started, lease_until FROM workers WHERE id = ?", (worker_id,)
        ):
            if not _host.may_live(_host.Process(boot, namespace, pid, started)):
                return "worker_lost"
            now = _host.boot_seconds()
            return "" if lease_until > now or self._is_doubtful(worker_id, now) else "lease_expired"
        return "worker_lost"

    def _is_doubtful(self, worker_id: str, now: float) -> bool:
        """Say whether another worker's lease may have run out because nobody could renew."""
        if self._lease is None or self._lease[0] == worker_id:
            return False
        return now < self._leases_count_from or now - self._renewed_at > self._lease[1]

    def _absent(self, stream_id: str) -> NotFound | StreamLost | StreamExpired:
        erased = self._file.rows("SELECT 1 FROM erased WHERE stream = ?", (stream_id,))
        return _ids.absent(stream_id, self.store_id, erased=bool(erased))

    # Other processes

    def _notice_others(self) -> None:
        """Wake readers of streams that another process writes, with one query for all of them."""
        look_around_at = 0.0
        while True:
            gevent.sleep(FOREIGN_COMMIT_POLL_SECONDS)
            now = time.monotonic()
            try:
                if now >= look_around_at:
                    look_around_at = now + LOOK_AROUND_SECONDS
                    self._look_around()
                elif foreign := set(self._tails) - self._own:
                    version = self._data_version()
                    if version != self._seen_version:
                        self._seen_version = version
                        self._wake_readers_of(foreign)
            except (StreamingError, apsw.BusyError, OSError):
                continue  # it was logged; readers look for themselves now and then

    def _look_around(self) -> None:
        """What is rare: our own streams were taken over, or the whole file was replaced."""
        if self._file.is_elsewhere():
            self._file.replace()
        if self._file.full:
            self._file.load_ballast()
        self._wake_readers_of(self._tails)

    def _wake_readers_of(self, stream_ids: Iterable[str]) -> None:
        for stream_id, last_seq in self._last_seqs(list(stream_ids)):
            if self._last_seen.get(stream_id) != last_seq:
                self._last_seen[stream_id] = last_seq
                self._tails.wake(stream_id)

    def _last_seqs(self, stream_ids: list[str]) -> Iterator[tuple[str, int]]:
        for start in range(0, len(stream_ids), 500):
            some = stream_ids[start : start + 500]
            marks = ",".join("?" * len(some))
            sql = f"SELECT id, {_LAST_SEQ} FROM streams WHERE id IN ({marks})"
            yield from self._file.rows(sql, some)

    def _data_version(self) -> int:
        ((version,),) = self._file.rows("PRAGMA data_version")
        return int(version)

    def _begin_anew(self) -> None:
        """The file was replaced: be known to the new one, and let readers hear that theirs is lost."""
        self._own.clear()
        if self._lease is not None:
            _renew(self._file.db, *self._lease)
        self._tails.forget(self._tails)
        for stream_id in self._tails:
            self._tails.wake(stream_id)


def _renew(db: apsw.Connection, worker_id: str, seconds: float) -> None:
    lease_until = _host.boot_seconds() + seconds
    db.execute(
        "INSERT OR REPLACE INTO workers VALUES (?, ?, ?, ?, ?, ?)",
        (worker_id, *_host.this_process(), lease_until),
    )


def _insert_batch(
    db: apsw.Connection, number: int, gen: int, last_seq: int, payloads: Sequence[bytes]
) -> None:
    db.execute(
        "INSERT INTO batches VALUES (?, ?, ?, ?, ?)",
        (number, last_seq, gen, len(payloads), b"\n".join(payloads)),
    )


def _running_of(db: apsw.Connection, owner: str) -> int:
    running = "SELECT count(*) FROM streams WHERE state = 'running' AND owner != '' AND owner = ?"
    rows: list[Any] = db.execute(running, (owner,)).fetchall()
    return int(rows[0][0])


def _account(db: apsw.Connection, owner: str, end: State, spent: Spent) -> None:
    numbers = dict(end_and_numbers(end, spent))
    row = (spent.day, owner, spent.model, *(numbers.get(name, 0) for name in _COUNTED))
    db.execute(_ADD_TO_ACCOUNT, row)


def _erase(db: apsw.Connection, stream_ids: list[str]) -> None:
    now = time.time()
    for stream_id in stream_ids:
        for table in ("batches", "requests"):
            db.execute(
                f"DELETE FROM {table} WHERE stream = (SELECT number FROM streams WHERE id = ?)", (stream_id,)
            )
        db.execute("DELETE FROM streams WHERE id = ?", (stream_id,))
        db.execute("DELETE FROM readers WHERE stream = ?", (stream_id,))
        db.execute("INSERT OR REPLACE INTO erased VALUES (?, ?)", (stream_id, now))


def create(url: str, synchronous: str = "NORMAL") -> EventLog:
    """Open ``sqlite:////absolute/path`` or ``sqlite:///relative/path``."""
    path = url.removeprefix("sqlite:///")
    if not path or path == url:
        raise SettingsError(f"EVENTLOG_URL: {url!r} names no file; write sqlite:////absolute/path")
    return SQLiteLog(Path(path).absolute(), synchronous)
