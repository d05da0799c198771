"""Keys in the Redis or Valkey server of the event log: the hash ``sluice:keys``."""

import secrets
from collections.abc import Collection
from typing import Any

from streaming.eventlogs import _redis_server
from streaming.eventlogs._redis_pipe import Pipe
from streaming.eventlogs._redis_scripts import named
from streaming.eventlogs.redis import RedisLog
from streaming.keys import Key, KeyStore, decode, encode

# Answers 1 also when the change is there already: an answer may have been lost, and the question asked again.
SWAP = named("""
local id, before, after = unpack(ARGV)
local found = redis.call('HGET', 'sluice:keys', id) or ''
if found == before then redis.call('HSET', 'sluice:keys', id, after) end
return (found == before or found == after) and 1 or 0
""")


class RedisKeys:
    """See `KeyStore`. Belongs to the process, and the event loop, that made it."""

    def __init__(self, log: RedisLog) -> None:
        self._address = log.address
        self._name = f"sluice-keys-{secrets.token_hex(4)}"
        self._opened: Pipe | None = None

    def find(self, key_id: str) -> Key | None:
        body = self._pipe.ask(("HGET", "sluice:keys", key_id))
        return None if body is None else decode(body)

    def find_several(self, key_ids: Collection[str]) -> dict[str, Key]:
        if not key_ids:
            return {}
        bodies: list[Any] = self._pipe.ask(("HMGET", "sluice:keys", *key_ids))
        return {key.id: key for key in (decode(body) for body in bodies if body is not None)}

    def all(self) -> list[Key]:
        found: list[Any] = self._pipe.ask(("HVALS", "sluice:keys"))
        return sorted(map(decode, found), key=lambda key: (key.created, key.id))

    def swap(self, before: Key | None, after: Key) -> bool:
        held = b"" if before is None else encode(before)
        return bool(self._pipe.ask(SWAP.command((), after.id, held, encode(after))))

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    @property
    def _pipe(self) -> Pipe:
        if self._opened is None:
            self._opened = Pipe(self._connect)
        return self._opened

    def _connect(self) -> _redis_server.Connection:
        connection = _redis_server.connect(self._address, self._name)
        try:
            _redis_server.load(connection, [SWAP.source])
        except BaseException:
            connection.disconnect()
            raise
        return connection


def create(log: RedisLog) -> KeyStore:
    return RedisKeys(log)
