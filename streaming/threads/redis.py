"""Threads in the Redis or Valkey server of the event log, by a connection of their own.

An answer or an image may have megabytes, which events should not queue behind.
Asking again after an answer was lost does no harm: each script finds out whether
it was done. What a server loses in a fail-over is not written again.
"""

import secrets
from typing import Any

import msgspec

from streaming.errors import NotFound
from streaming.eventlogs import _redis_server
from streaming.eventlogs._redis_pipe import Pipe
from streaming.eventlogs._redis_scripts import Argument, Script
from streaming.eventlogs.redis import RedisLog
from streaming.threads import Item, Outline, Thread, ThreadStore
from streaming.threads import _redis_scripts as scripts

EXPIRE_BATCH = 50
_SOURCES = [script.source for script in scripts.ALL]


class _Facts(msgspec.Struct, frozen=True, array_like=True):
    kind: str
    created: float
    parent: str


class RedisThreads:
    """See `ThreadStore`. Belongs to the process, and the event loop, that made it."""

    def __init__(self, log: RedisLog) -> None:
        self._address = log.address
        self._name = f"sluice-threads-{secrets.token_hex(4)}"
        self._opened: Pipe | None = None

    def create(self, thread: Thread) -> Thread:
        row = self._ask(
            scripts.CREATE,
            *(thread.id, thread.owner, thread.kind, thread.title),
            *(repr(thread.created), repr(thread.updated), thread.about),
        )
        return _thread(thread.id, row)

    def get(self, thread_id: str) -> Thread:
        fields = ("owner", "kind", "title", "created", "updated", "about")
        return _thread(thread_id, self._pipe.ask(("HMGET", f"sluice:thread:{thread_id}", *fields)))

    def save(self, thread: Thread) -> None:
        if not self._ask(scripts.SAVE, thread.id, thread.title, repr(thread.updated), thread.about):
            raise _no_thread()

    def listed(self, owner: str, kind: str, after: str = "", limit: int = 50) -> list[Thread]:
        found = self._ask(scripts.LISTED, owner, kind, after, limit)
        if found is None:
            raise _no_thread()
        return [_thread(thread_id.decode(), row) for thread_id, *row in found]

    def delete(self, thread_id: str) -> None:
        self._ask(scripts.DELETE, thread_id)

    def put(self, item: Item) -> None:
        if not self._ask(
            scripts.PUT, item.thread, item.id, repr(item.created), _facts(item), item.body, int(item.settled)
        ):
            raise _no_thread()

    def claim(self, item: Item, newest: str) -> bool:
        done = self._ask(
            scripts.CLAIM, item.thread, item.id, repr(item.created), _facts(item), item.body, newest
        )
        if not done:
            raise _no_thread()
        return bool(done == 1)

    def settle(self, item: Item) -> bool:
        return bool(self._ask(scripts.SETTLE, item.thread, item.id, item.body))

    def item(self, thread_id: str, item_id: str) -> Item:
        for row in self._ask(scripts.ITEMS, thread_id, "bodies", item_id):
            return _item(thread_id, row)
        raise NotFound("no such item in this thread")

    def items(self, thread_id: str) -> list[Item]:
        return [_item(thread_id, row) for row in self._ask(scripts.ITEMS, thread_id, "bodies", "")]

    def outline(self, thread_id: str) -> list[Outline]:
        rows = self._ask(scripts.ITEMS, thread_id, "", "")
        items = [_item(thread_id, row) for row in rows]
        return [Outline(item.id, item.kind, item.created, item.parent, item.settled) for item in items]

    def remove(self, thread_id: str, item_id: str) -> None:
        self._ask(scripts.REMOVE, thread_id, item_id)

    def unsettled(self, limit: int = 100, skip: int = 0) -> list[Item]:
        found: list[Item] = []
        for name in self._pipe.ask(("ZRANGE", "sluice:unsettled", skip, skip + limit - 1)):
            thread_id, _, item_id = name.decode().partition(" ")
            try:
                found.append(self.item(thread_id, item_id))
            except NotFound:  # removed meanwhile
                continue
        return found

    def expire(self, updated_before: float) -> int:
        return int(self._ask(scripts.EXPIRE, repr(updated_before), EXPIRE_BATCH))

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    # Inside

    @property
    def _pipe(self) -> Pipe:
        if self._opened is None:
            self._opened = Pipe(self._connect)
        return self._opened

    def _ask(self, script: Script, *arguments: Argument) -> Any:
        return self._pipe.ask(script.command((), *arguments))

    def _connect(self) -> _redis_server.Connection:
        connection = _redis_server.connect(self._address, self._name)
        try:
            _redis_server.load(connection, _SOURCES)
        except BaseException:
            connection.disconnect()
            raise
        return connection


def _facts(item: Item) -> bytes:
    return msgspec.json.encode(_Facts(item.kind, item.created, item.parent))


def _item(thread_id: str, row: list[Any]) -> Item:
    item_id, facts, body, is_open = row
    known = msgspec.json.decode(facts, type=_Facts)
    return Item(
        thread_id, item_id.decode(), known.kind, known.created, body, known.parent, settled=not is_open
    )


def _thread(thread_id: str, row: list[bytes | None]) -> Thread:
    owner, kind, title, created, updated, about = row
    if owner is None or kind is None or title is None or created is None or updated is None:
        raise _no_thread()
    return Thread(
        thread_id, owner.decode(), kind.decode(), title.decode(), float(created), float(updated), about or b""
    )


def _no_thread() -> NotFound:
    return NotFound("no such thread")


def create(log: RedisLog) -> ThreadStore:
    return RedisThreads(log)
