"""Threads in the SQLite file of the event log, by a connection of their own in a thread.

An answer or an image may have megabytes. Read and written in a thread, they
hold up neither the loop nor, longer than one transaction, the log's commits; and
where a commit syncs (``SQLITE_SYNCHRONOUS=FULL``), it does so in that thread.
The tables are added to a file that has none; a service that does not know them
can go on using it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import apsw
from gevent.threadpool import ThreadPool

from streaming.errors import NotFound, StoreFull, StoreUnavailable
from streaming.eventlogs.sqlite import SQLiteLog
from streaming.threads import Item, Outline, Thread, ThreadStore
from streaming.threads._sqlite_connection import Connection

T = TypeVar("T")

EXPIRE_BATCH = 50

_THREAD = "id, owner, kind, title, created, updated, about"
_ITEM = "t.id, i.id, i.kind, i.created, i.body, i.parent, i.settled"
_ITEMS = f"SELECT {_ITEM} FROM thread_items i JOIN threads t ON t.number = i.thread"


class SQLiteThreads:
    """See `ThreadStore`. Belongs to the process, and the event loop, that made it."""

    def __init__(self, log: SQLiteLog) -> None:
        self._log = log
        self._connection = Connection(log.path, log.synchronous)
        self._thread = ThreadPool(1)  # one: a connection is not for two at once
        self._closed = False

    def create(self, thread: Thread) -> Thread:
        def insert(db: apsw.Connection) -> Thread:
            db.execute(
                f"INSERT INTO threads ({_THREAD}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                (
                    thread.id,
                    thread.owner,
                    thread.kind,
                    thread.title,
                    thread.created,
                    thread.updated,
                    thread.about,
                ),
            )
            return _thread(db, thread.id)

        return self._write(insert)

    def get(self, thread_id: str) -> Thread:
        return self._read(lambda db: _thread(db, thread_id))

    def save(self, thread: Thread) -> None:
        def update(db: apsw.Connection) -> None:
            db.execute(
                "UPDATE threads SET title = ?, about = ?, updated = max(updated, ?) WHERE number = ?",
                (thread.title, thread.about, thread.updated, _number(db, thread.id)),
            )

        self._write(update)

    def listed(self, owner: str, kind: str, after: str = "", limit: int = 50) -> list[Thread]:
        def select(db: apsw.Connection) -> list[Thread]:
            where = "owner = ? AND kind = ?"
            bindings: list[str | float] = [owner, kind]
            if after:
                seen = _thread(db, after)
                where += " AND (updated, id) < (?, ?)"
                bindings += [seen.updated, seen.id]
            found: list[Any] = db.execute(
                f"SELECT {_THREAD} FROM threads WHERE {where} ORDER BY updated DESC, id DESC LIMIT ?",
                (*bindings, limit),
            ).fetchall()
            return [Thread(*row) for row in found]

        return self._read(select)

    def delete(self, thread_id: str) -> None:
        self._write(lambda db: _delete(db, "id = ?", (thread_id,)), frees=True)

    def put(self, item: Item) -> None:
        self._write(lambda db: _put(db, _number(db, item.thread), item))

    def claim(self, item: Item, newest: str) -> bool:
        def insert(db: apsw.Connection) -> bool:
            thread = _number(db, item.thread)
            if db.execute("SELECT 1 FROM thread_items WHERE thread = ? AND id = ?", (thread, item.id)).get:
                return True
            last = db.execute(
                "SELECT id FROM thread_items WHERE thread = ? ORDER BY number DESC LIMIT 1", (thread,)
            ).get
            open_one = db.execute(
                "SELECT 1 FROM thread_items WHERE thread = ? AND settled = 0 LIMIT 1", (thread,)
            ).get
            if (last or "") != newest or open_one:
                return False
            _put(db, thread, item, settled=False)
            return True

        return self._write(insert)

    def settle(self, item: Item) -> bool:
        def update(db: apsw.Connection) -> bool:
            return bool(
                db.execute(
                    "UPDATE thread_items SET body = ?, settled = 1"
                    " WHERE thread = (SELECT number FROM threads WHERE id = ?) AND id = ? AND settled = 0"
                    " RETURNING 1",
                    (item.body, item.thread, item.id),
                ).fetchall()
            )

        return self._write(update)

    def item(self, thread_id: str, item_id: str) -> Item:
        found = self._items("WHERE t.id = ? AND i.id = ?", (thread_id, item_id))
        if not found:
            raise NotFound("no such item in this thread")
        return found[0]

    def items(self, thread_id: str) -> list[Item]:
        return self._items("WHERE t.id = ? ORDER BY i.number", (thread_id,))

    def outline(self, thread_id: str) -> list[Outline]:
        rows: list[Any] = self._read(
            lambda db: db.execute(
                "SELECT id, kind, created, parent, settled FROM thread_items"
                " WHERE thread = (SELECT number FROM threads WHERE id = ?) ORDER BY number",
                (thread_id,),
            ).fetchall()
        )
        return [Outline(row[0], row[1], row[2], row[3], bool(row[4])) for row in rows]

    def remove(self, thread_id: str, item_id: str) -> None:
        self._write(
            lambda db: db.execute(
                "DELETE FROM thread_items"
                " WHERE thread = (SELECT number FROM threads WHERE id = ?) AND id = ?",
                (thread_id, item_id),
            )
        )

    def unsettled(self, limit: int = 100, skip: int = 0) -> list[Item]:
        return self._items("WHERE i.settled = 0 ORDER BY i.created LIMIT ? OFFSET ?", (limit, skip))

    def expire(self, updated_before: float) -> int:
        old = "number IN (SELECT number FROM threads WHERE updated < ? LIMIT ?)"
        return self._write(lambda db: _delete(db, old, (updated_before, EXPIRE_BATCH)), frees=True)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._thread.apply(self._connection.close)
            self._thread.kill()

    # Inside

    def _items(self, where: str, bindings: tuple[Any, ...]) -> list[Item]:
        rows: list[Any] = self._read(lambda db: db.execute(f"{_ITEMS} {where}", bindings).fetchall())
        return [Item(row[0], row[1], row[2], row[3], row[4], row[5], bool(row[6])) for row in rows]

    def _read(self, work: Callable[[apsw.Connection], T]) -> T:
        return self._apply(lambda: self._connection.read(work))

    def _write(self, work: Callable[[apsw.Connection], T], frees: bool = False) -> T:
        if self._log.is_full and not frees:
            raise StoreFull("the disk of the event log is full", retry_after_seconds=60)
        return self._apply(lambda: self._connection.write(work))

    def _apply(self, run: Callable[[], T]) -> T:
        if self._closed:
            raise StoreUnavailable("this event log was closed")
        store_id = self._log.store_id
        try:
            outcome: T | _Raised = self._thread.apply(_caught, (run,))
            if isinstance(outcome, _Raised):
                raise outcome.error
            return outcome
        except (apsw.CorruptError, apsw.NotADBError):
            if self._log.store_id == store_id:
                self._log.replace()
            raise StoreUnavailable("the event log was damaged, and was replaced") from None
        except apsw.FullError:
            self._log.note_full()
            raise StoreFull("the disk of the event log is full", retry_after_seconds=60) from None
        except (apsw.Error, apsw.ConnectionClosedError, OSError) as error:
            raise StoreUnavailable(f"threads cannot be read or written: {type(error).__name__}") from None


class _Raised(NamedTuple):
    error: Exception


def _caught(run: Callable[[], T]) -> T | _Raised:
    """Run it; return what it raised, which the pool would print."""
    try:
        return run()
    except Exception as error:
        return _Raised(error)


def _number(db: apsw.Connection, thread_id: str) -> int:
    number = db.execute("SELECT number FROM threads WHERE id = ?", (thread_id,)).get
    if number is None:
        raise NotFound("no such thread")
    return int(number)


def _thread(db: apsw.Connection, thread_id: str) -> Thread:
    row: Any = db.execute(f"SELECT {_THREAD} FROM threads WHERE id = ?", (thread_id,)).fetchone()
    if row is None:
        raise NotFound("no such thread")
    return Thread(*row)


def _put(db: apsw.Connection, thread: int, item: Item, settled: bool | None = None) -> None:
    replaced = db.execute(
        "UPDATE thread_items SET kind = ?, created = ?, parent = ?, settled = ?, body = ?"
        " WHERE thread = ? AND id = ? RETURNING 1",
        (item.kind, item.created, item.parent, item.settled, item.body, thread, item.id),
    ).fetchall()
    if not replaced:
        db.execute(
            "INSERT INTO thread_items (thread, id, kind, created, parent, settled, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                thread,
                item.id,
                item.kind,
                item.created,
                item.parent,
                item.settled if settled is None else settled,
                item.body,
            ),
        )
        db.execute("UPDATE threads SET updated = max(updated, ?) WHERE number = ?", (item.created, thread))


def _delete(db: apsw.Connection, where: str, bindings: tuple[Any, ...]) -> int:
    numbers = [number for (number,) in db.execute(f"SELECT number FROM threads WHERE {where}", bindings)]
    for number in numbers:
        db.execute("DELETE FROM thread_items WHERE thread = ?", (number,))
        db.execute("DELETE FROM threads WHERE number = ?", (number,))
    return len(numbers)


def create(log: SQLiteLog) -> ThreadStore:
    return SQLiteThreads(log)
