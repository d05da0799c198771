"""What sessions share, in the SQLite file of the event log.

It is asked for every few seconds at most, so each call opens the file and closes
it again, in a thread: a file that was replaced meanwhile is no special case.
"""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import apsw
import gevent

from streaming.errors import StoreFull, StoreUnavailable
from streaming.eventlogs.sqlite import SQLiteLog
from streaming.sessions import Kept, SessionStore, new_secret

T = TypeVar("T")

BUSY_SECONDS = 5.0
SCHEMA = """
CREATE TABLE IF NOT EXISTS session_secret (one INTEGER PRIMARY KEY CHECK (one = 1), secret BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS sessions_ended (id TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
"""


class SQLiteSessions:
    """See `SessionStore`. Belongs to the process, and the event loop, that made it."""

    def __init__(self, log: SQLiteLog) -> None:
        self._log = log
        self._closed = False

    def read(self) -> Kept:
        return self._apply(_read)

    def end(self, session_id: str, until: float) -> None:
        def insert(db: apsw.Connection) -> None:
            _prepare(db)
            with db:
                db.execute("DELETE FROM sessions_ended WHERE until < ?", (time.time(),))
                db.execute("INSERT OR REPLACE INTO sessions_ended VALUES (?, ?)", (session_id, until))

        self._apply(insert)

    def close(self) -> None:
        self._closed = True

    def _apply(self, work: Callable[[apsw.Connection], T]) -> T:
        if self._closed:
            raise StoreUnavailable("this event log was closed")
        # An exception that crosses the pool would be printed.
        outcome: T | Exception = gevent.get_hub().threadpool.apply(self._caught, (work,))
        if isinstance(outcome, apsw.FullError):
            raise StoreFull("the disk of the event log is full", retry_after_seconds=60)
        if isinstance(outcome, Exception):
            raise StoreUnavailable(f"sessions cannot be read or written: {type(outcome).__name__}")
        return outcome

    def _caught(self, work: Callable[[apsw.Connection], T]) -> T | Exception:
        try:
            db = apsw.Connection(str(self._log.path), flags=apsw.SQLITE_OPEN_READWRITE)
            try:
                db.set_busy_timeout(int(BUSY_SECONDS * 1000))
                db.pragma("synchronous", self._log.synchronous)
                db.pragma("wal_autocheckpoint", 0)  # the log sees to it
                return work(db)
            finally:
                db.close(True)
        except Exception as error:
            return error


def _read(db: apsw.Connection) -> Kept:
    made = db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'session_secret'").get
    secret: Any = db.execute("SELECT secret FROM session_secret").get if made else None
    if secret is None:
        secret = _prepare(db)
    ended: list[Any] = db.execute("SELECT id FROM sessions_ended WHERE until >= ?", (time.time(),)).fetchall()
    return Kept(bytes(secret), frozenset(session_id for (session_id,) in ended))


def _prepare(db: apsw.Connection) -> bytes:
    """Make the tables and the secret where they are not there; return the secret."""
    db.execute("BEGIN IMMEDIATE")
    try:
        db.execute(SCHEMA)
        db.execute("INSERT OR IGNORE INTO session_secret VALUES (1, ?)", (new_secret(),))
        secret: Any = db.execute("SELECT secret FROM session_secret").get
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return bytes(secret)


def create(log: SQLiteLog) -> SessionStore:
    return SQLiteSessions(log)
