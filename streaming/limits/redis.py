"""Counters in the Redis or Valkey server of the event log, by a connection of their own.

The windows' scripts are those of the `limits` library. Its own client is not
used: it opens a connection for each greenlet that asks, where one is enough.
"""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from limits.storage import RedisStorage, Storage
from limits.storage.base import SlidingWindowCounterSupport

from streaming.eventlogs import _redis_server
from streaming.eventlogs._redis_pipe import Pipe
from streaming.eventlogs._redis_scripts import Argument, Command, named
from streaming.eventlogs.redis import RedisLog
from streaming.limits import Counters, Place

PREFIX = "sluice:limits:"
PLACES_SECONDS = 86_400


def _text(source: str | bytes) -> str:
    return source.decode() if isinstance(source, bytes) else source


_ACQUIRE = named(_text(RedisStorage.SCRIPT_ACQUIRE_SLIDING_WINDOW))
_WINDOW = named(_text(RedisStorage.SCRIPT_SLIDING_WINDOW))
_INCREASE = named(_text(RedisStorage.SCRIPT_INCR_EXPIRE))

# KEYS: places; ARGV: the worker, then how many there are under each. Returns the number of the key that
# has no more, else 0. What workers hold whose lease is over is free.
_TAKE = named(f"""
local call, worker = redis.call, ARGV[1]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for at, key in ipairs(KEYS) do
  local taken, held = 0, call('HGETALL', key)
  for each = 1, #held, 2 do
    local lease = call('HGET', 'sluice:worker:' .. held[each], 'until')
    if lease and tonumber(lease) > now then
      taken = taken + held[each + 1]
    elseif not lease then
      call('HDEL', key, held[each])
    end
  end
  if taken >= tonumber(ARGV[at + 1]) then return at end
end
for _, key in ipairs(KEYS) do
  call('HINCRBY', key, worker, 1)
  call('PEXPIRE', key, {PLACES_SECONDS * 1000})
end
return 0
""")
_LEAVE = named("""
for _, key in ipairs(KEYS) do
  if redis.call('HINCRBY', key, ARGV[1], -1) <= 0 then redis.call('HDEL', key, ARGV[1]) end
end
return 1
""")
_SOURCES = [script.source for script in (_ACQUIRE, _WINDOW, _INCREASE, _TAKE, _LEAVE)]


class RedisWindows(Storage, SlidingWindowCounterSupport):
    """Windows by the server's clock."""

    STORAGE_SCHEME = None

    def __init__(self, counters: "RedisCounters") -> None:
        super().__init__()
        self._counters = counters

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        return ()

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return bool(self._ask(_ACQUIRE.command(_keys(key), limit, expiry, amount)))

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        before, before_ms, count, count_ms = self._ask(_WINDOW.command(_keys(key), expiry))
        return int(before or 0), max(0, before_ms) / 1000, int(count or 0), max(0, count_ms) / 1000

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        self._ask(("DEL", *_keys(key)))

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return int(self._ask(_INCREASE.command((PREFIX + key,), expiry, amount)))

    def get(self, key: str) -> int:
        return int(self._ask(("GET", PREFIX + key)) or 0)

    def get_expiry(self, key: str) -> float:
        return time.time() + float(max(0, self._ask(("PTTL", PREFIX + key)))) / 1000

    def check(self) -> bool:
        return bool(self._ask(("PING",)))

    def reset(self) -> int | None:
        raise NotImplementedError("windows are over by themselves")

    def clear(self, key: str) -> None:
        self._ask(("DEL", PREFIX + key))

    def _ask(self, command: Command) -> Any:
        return self._counters.ask(command)


class RedisCounters:
    """See `Counters`. Belongs to the process, and the event loop, that made it."""

    def __init__(self, log: RedisLog) -> None:
        self._address = log.address
        self._name = f"sluice-limits-{secrets.token_hex(4)}"
        self._opened: Pipe | None = None
        self.windows = RedisWindows(self)

    def take(self, places: Sequence[Place], worker_id: str) -> str:
        keys = tuple(f"{PREFIX}places:{place.key}" for place in places)
        full = int(self.ask(_TAKE.command(keys, worker_id, *(place.most for place in places))))
        return places[full - 1].key if full else ""

    def leave(self, keys: Sequence[str], worker_id: str) -> None:
        self.ask(_LEAVE.command(tuple(f"{PREFIX}places:{key}" for key in keys), worker_id))

    def expire(self) -> None:
        """The server does that by itself."""

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def ask(self, command: tuple[Argument, ...]) -> Any:
        if self._opened is None:
            self._opened = Pipe(self._connect)
        return self._opened.ask(command)

    def _connect(self) -> _redis_server.Connection:
        connection = _redis_server.connect(self._address, self._name)
        try:
            _redis_server.load(connection, _SOURCES)
        except BaseException:
            connection.disconnect()
            raise
        return connection


def _keys(key: str) -> tuple[str, str]:
    """Return the names of the window before and of this one."""
    return f"{PREFIX}{key}/before", f"{PREFIX}{key}"


def create(log: RedisLog) -> Counters:
    return RedisCounters(log)
