"""Keys in the SQLite file of the event log, in a table that is added to it.

Read on the event loop: one row by its primary key takes microseconds. A file that
was damaged, and replaced, takes its keys with it: then nobody is let in, and keys
have to be made anew.
"""

import json
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import apsw

from streaming.errors import StoreFull, StoreUnavailable
from streaming.eventlogs._beside import Beside
from streaming.eventlogs.sqlite import SQLiteLog
from streaming.keys import Key, KeyStore, decode, encode

T = TypeVar("T")

SCHEMA = "CREATE TABLE IF NOT EXISTS api_keys (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID"


class SQLiteKeys:
    """See `KeyStore`. Belongs to the process that made it."""

    def __init__(self, log: SQLiteLog) -> None:
        self._beside = Beside(log.path, log.synchronous, _prepare)

    def find(self, key_id: str) -> Key | None:
        sql = "SELECT body FROM api_keys WHERE id = ?"
        rows: list[Any] = self._apply(lambda db: db.execute(sql, (key_id,)).fetchall())
        return decode(rows[0][0]) if rows else None

    def find_several(self, key_ids: Collection[str]) -> dict[str, Key]:
        sql = "SELECT body FROM api_keys WHERE id IN (SELECT value FROM json_each(?))"
        asked = json.dumps(list(key_ids))
        rows: list[Any] = self._apply(lambda db: db.execute(sql, (asked,)).fetchall())
        return {key.id: key for key in (decode(body) for (body,) in rows)}

    def all(self) -> list[Key]:
        rows: list[Any] = self._apply(lambda db: db.execute("SELECT body FROM api_keys").fetchall())
        return sorted((decode(body) for (body,) in rows), key=lambda key: (key.created, key.id))

    def swap(self, before: Key | None, after: Key) -> bool:
        def write(db: apsw.Connection) -> bool:
            if before is None:
                done = db.execute(
                    "INSERT INTO api_keys VALUES (?, ?) ON CONFLICT (id) DO NOTHING RETURNING 1",
                    (after.id, encode(after)),
                )
            else:
                done = db.execute(
                    "UPDATE api_keys SET body = ? WHERE id = ? AND body = ? RETURNING 1",
                    (encode(after), after.id, encode(before)),
                )
            return bool(done.fetchall())

        return self._apply(write)

    def close(self) -> None:
        self._beside.close()

    def _apply(self, work: Callable[[apsw.Connection], T]) -> T:
        try:
            return work(self._beside.opened())
        except apsw.FullError:
            raise StoreFull("the disk of the event log is full", retry_after_seconds=60) from None
        except (apsw.Error, apsw.ConnectionClosedError, OSError) as error:
            raise StoreUnavailable(f"keys cannot be read or written: {type(error).__name__}") from None


def _prepare(db: apsw.Connection) -> None:
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'api_keys'").get:
        db.execute(SCHEMA)


def create(log: SQLiteLog) -> KeyStore:
    return SQLiteKeys(log)
