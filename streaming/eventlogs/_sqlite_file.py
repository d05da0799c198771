"""The file of an SQLite store: made, opened, found damaged, replaced, found full.

Source for the pragmas and locking: https://www.sqlite.org/wal.html
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from streaming.doctor.stores import Store
from streaming.errors import SettingsError, StoreFull, StoreUnavailable
from streaming.eventlogs import _ids, _storage

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 4
_LIMITS = """
CREATE INDEX streams_of_owner ON streams (owner) WHERE state = 'running' AND owner != '';
CREATE TABLE usage (                         -- of a day, an owner and a model, since both began
    day TEXT NOT NULL, owner TEXT NOT NULL, model TEXT NOT NULL,
    completed INTEGER NOT NULL, cancelled INTEGER NOT NULL, failed INTEGER NOT NULL,
    interrupted INTEGER NOT NULL,
    tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, estimated INTEGER NOT NULL,
    bytes INTEGER NOT NULL, milliseconds INTEGER NOT NULL,
    cost_nano INTEGER NOT NULL, priced INTEGER NOT NULL,
    PRIMARY KEY (day, owner, model)
) WITHOUT ROWID;
CREATE TABLE windows (key TEXT PRIMARY KEY, count INTEGER NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE places (key TEXT, worker TEXT, count INTEGER NOT NULL, PRIMARY KEY (key, worker)) WITHOUT ROWID;
"""
SCHEMA = f"""
CREATE TABLE store (id TEXT NOT NULL, schema INTEGER NOT NULL);
CREATE TABLE workers (
    id TEXT PRIMARY KEY, boot TEXT, namespace TEXT, pid INTEGER, started INTEGER, lease_until REAL
) WITHOUT ROWID;
CREATE TABLE streams (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    gen INTEGER NOT NULL,
    worker TEXT NOT NULL,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    ended REAL,
    key TEXT,
    fingerprint TEXT NOT NULL,
    owner TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX streams_key ON streams (key) WHERE key IS NOT NULL;
CREATE INDEX streams_running ON streams (worker, cancel_requested) WHERE state = 'running';
CREATE INDEX streams_ended ON streams (ended) WHERE ended IS NOT NULL;
CREATE TABLE requests (stream INTEGER PRIMARY KEY, request BLOB NOT NULL);
CREATE TABLE batches (                       -- events that were appended together
    stream INTEGER NOT NULL, seq INTEGER NOT NULL,   -- of the last one
    gen INTEGER NOT NULL, count INTEGER NOT NULL, payloads BLOB NOT NULL,   -- one a line
    PRIMARY KEY (stream, seq)
) WITHOUT ROWID;
CREATE TABLE readers (stream TEXT, worker TEXT, until REAL, PRIMARY KEY (stream, worker)) WITHOUT ROWID;
CREATE TABLE erased (stream TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
{_LIMITS}"""
UPGRADES = {
    1: "ALTER TABLE streams ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
    2: _LIMITS,
    # SQLite reads and writes a row as a whole, so a large request made every event expensive.
    3: (
        "CREATE TABLE requests (stream INTEGER PRIMARY KEY, request BLOB NOT NULL);"
        "INSERT INTO requests SELECT number, request FROM streams;"
        "ALTER TABLE streams DROP COLUMN request;"
        "ALTER TABLE streams DROP COLUMN last_seq"
    ),
}
"""What makes a file of that schema one of the next."""
OPENING_BUSY_SECONDS = 5.0
KEPT_WAL_BYTES = 4 * 1024 * 1024
BALLAST_BYTES = 4 * 1024 * 1024


class StoreFile:
    """An open store. ``db`` and ``store_id`` change when a damaged file is replaced."""

    def __init__(self, path: Path, synchronous: str, replaced: Callable[[], None]) -> None:
        """Open the file at ``path``, or make it; ``replaced`` is called after each replacement."""
        self._path = path
        self._synchronous = synchronous
        self._replaced = replaced
        self._wal_hook: Callable[[int], None] = lambda pages: None
        self.full = False
        """The disk was full at the last write: only the ends of streams are written."""
        _storage.check_library(apsw.sqlite_lib_version())
        _storage.prepare(path)
        with _storage.locked(path):
            try:
                self._open()
            except (apsw.NotADBError, apsw.CorruptError):
                self._move_aside()
                self._open()
        self.load_ballast()

    def rows(self, sql: str, bindings: Sequence[Any] = ()) -> list[Any]:
        """Return every row at once: a cursor left open while other code runs holds the WAL back."""
        with self.translated_errors():
            return self.db.execute(sql, bindings).fetchall()

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Raise a `StreamingError` for a database's error; replace a file that is damaged."""
        try:
            yield
        except apsw.BusyError:
            raise
        except (apsw.CorruptError, apsw.NotADBError):
            self.replace()
            raise StoreUnavailable("the event log was damaged, and was replaced") from None
        except apsw.FullError:
            self.drop_ballast()
            raise StoreFull("the disk of the event log is full") from None
        except (apsw.Error, apsw.ConnectionClosedError) as error:
            logger.error("the event log failed", extra={"error": f"{type(error).__name__}: {error}"})
            raise StoreUnavailable("the event log cannot be used") from None

    def set_wal_hook(self, hook: Callable[[int], None]) -> None:
        """Call ``hook`` after each commit with the pages that are in the WAL."""
        self._wal_hook = hook

    def is_elsewhere(self) -> bool:
        """Say whether another process has moved this file aside, and made a new one."""
        try:
            return os.stat(self._path).st_ino != self._inode
        except OSError:
            return True

    def replace(self) -> None:
        """Continue with a new file, under a new store id; the old one is kept beside it. Blocks."""
        with _storage.locked(self._path):
            self.db.close(True)
            if not self.is_elsewhere():
                self._move_aside()
            self._open()
        self._replaced()

    def checkpoint(self) -> bool:
        """Copy the WAL into the file; return ``False`` if another process is doing so.

        Blocks: to be called in another thread, hence its own connection.
        """
        db = apsw.Connection(str(self._path))
        try:
            self._configure(db)
            db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            return False
        else:
            return True
        finally:
            db.close()

    def drop_ballast(self) -> None:
        """Free some disk, so that the streams that run can be ended in the log."""
        self.full = True
        self._ballast.unlink(missing_ok=True)

    def load_ballast(self) -> None:
        """Reserve that disk, again, if there is enough."""
        try:
            with open(self._ballast, "wb") as ballast:
                os.posix_fallocate(ballast.fileno(), 0, BALLAST_BYTES)
            self.full = False
        except OSError:
            self.drop_ballast()

    def describe(self) -> Store:
        free_bytes: int | None = None
        log_bytes: int | None = None
        try:
            disk = os.statvfs(self._path.parent)
            free_bytes, log_bytes = disk.f_bavail * disk.f_frsize, os.stat(self._path).st_size
        except OSError:
            pass  # it is told without them
        return Store(
            "sqlite",
            version=apsw.sqlite_lib_version(),
            synchronous=self._synchronous,
            file_system=_storage.file_system(self._path.parent),
            free_bytes=free_bytes,
            log_bytes=log_bytes,
            full=self.full,
        )

    @property
    def _ballast(self) -> Path:
        return self._path.with_name(f"{self._path.name}-ballast")

    def _move_aside(self) -> None:
        aside = _storage.move_aside(self._path)
        logger.error("the event log was damaged, and was moved aside", extra={"moved_to": str(aside)})

    def _open(self) -> None:
        db = apsw.Connection(str(self._path))
        db.set_busy_timeout(int(OPENING_BUSY_SECONDS * 1000))
        try:
            self._configure(db)
            if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'store'").fetchall():
                with db:
                    db.execute(SCHEMA)
                    db.execute("INSERT INTO store VALUES (?, ?)", (_ids.new_store_id(), SCHEMA_VERSION))
            found: list[Any] = db.execute("SELECT id, schema FROM store").fetchall()
            ((store_id, schema),) = found
            for older in range(schema, SCHEMA_VERSION):
                with db:
                    db.execute(UPGRADES[older])
                    db.execute("UPDATE store SET schema = ?", (older + 1,))
                schema = older + 1
            if schema != SCHEMA_VERSION:
                raise SettingsError(
                    f"EVENTLOG_URL: {self._path} was made by another version of this service (schema"
                    f" {schema}, this one has {SCHEMA_VERSION}); name another file"
                )
        except BaseException:
            db.close()
            raise
        db.set_busy_timeout(0)  # from here on, waiting must not block the loop
        db.set_wal_hook(self._note_wal)
        self.db = db
        self.store_id = str(store_id)
        self._inode = os.stat(self._path).st_ino

    def _configure(self, db: apsw.Connection) -> None:
        db.pragma("journal_mode", "wal")
        db.pragma("synchronous", self._synchronous)
        db.pragma("wal_autocheckpoint", 0)
        db.pragma("journal_size_limit", KEPT_WAL_BYTES)

    def _note_wal(self, db: apsw.Connection, schema: str, pages: int) -> int:
        self._wal_hook(pages)
        return apsw.SQLITE_OK
