"""The connection that threads have to the log's SQLite file, and the tables that they add to it."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import apsw

from streaming.errors import SettingsError
from streaming.eventlogs._beside import Beside

T = TypeVar("T")

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS thread_store (schema INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS threads (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    kind TEXT NOT NULL,
    title TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    about BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS threads_listed ON threads (owner, kind, updated DESC, id DESC);
CREATE INDEX IF NOT EXISTS threads_updated ON threads (updated);
CREATE TABLE IF NOT EXISTS thread_items (
    number INTEGER PRIMARY KEY,                  -- tells their order
    thread INTEGER NOT NULL,
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    created REAL NOT NULL,
    parent TEXT NOT NULL,
    settled INTEGER NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (thread, id)
);
CREATE INDEX IF NOT EXISTS thread_items_in_order ON thread_items (thread);
CREATE INDEX IF NOT EXISTS thread_items_unsettled ON thread_items (created) WHERE settled = 0;
"""


class Connection:
    """All of it in one thread."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._path = path
        self._beside = Beside(path, synchronous, self._prepare)

    def read(self, work: Callable[[apsw.Connection], T]) -> T:
        db = self._beside.opened()
        db.execute("BEGIN")
        try:
            return work(db)
        finally:
            db.execute("ROLLBACK")

    def write(self, work: Callable[[apsw.Connection], T]) -> T:
        db = self._beside.opened()
        db.execute("BEGIN IMMEDIATE")
        try:
            done = work(db)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return done

    def close(self) -> None:
        self._beside.close()

    def _prepare(self, db: apsw.Connection) -> None:
        if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'thread_store'").get:
            db.execute("BEGIN IMMEDIATE")
            db.execute(SCHEMA)
            if not db.execute("SELECT 1 FROM thread_store").get:
                db.execute("INSERT INTO thread_store VALUES (?)", (SCHEMA_VERSION,))
            db.execute("COMMIT")
        schema = db.execute("SELECT schema FROM thread_store").get
        if schema != SCHEMA_VERSION:
            raise SettingsError(
                f"EVENTLOG_URL: the threads in {self._path} are of another version of this service"
                f" (schema {schema}, this one has {SCHEMA_VERSION}); name another file"
            )
