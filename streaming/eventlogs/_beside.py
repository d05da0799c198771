"""A connection of its own to the log's SQLite file, for what else is kept in it."""

import os
from collections.abc import Callable
from pathlib import Path

import apsw

BUSY_SECONDS = 5.0


class Beside:
    """Opened where it is first used, and again when another process has replaced a damaged file."""

    def __init__(self, path: Path, synchronous: str, prepare: Callable[[apsw.Connection], None]) -> None:
        """``prepare`` is given each new connection, to make its tables where they are not there."""
        self._path = path
        self._synchronous = synchronous
        self._prepare = prepare
        self._db: apsw.Connection | None = None
        self._inode = 0

    def opened(self) -> apsw.Connection:
        """Return the connection. Whatever writes with it waits up to `BUSY_SECONDS` for other writers."""
        inode = os.stat(self._path).st_ino
        if self._db is None or inode != self._inode:
            self.close()
            self._db = self._open()
            self._inode = inode
        return self._db

    def close(self) -> None:
        if self._db is not None:
            self._db.close(True)
            self._db = None

    def _open(self) -> apsw.Connection:
        db = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)  # made by the log only
        try:
            db.set_busy_timeout(int(BUSY_SECONDS * 1000))
            db.pragma("synchronous", self._synchronous)
            db.pragma("wal_autocheckpoint", 0)  # the log sees to it
            self._prepare(db)
        except BaseException:
            db.close(True)
            raise
        return db
