"""What sessions share, in the Redis or Valkey server of the event log.

Keys: ``sluice:sessions:secret``, and ``sluice:sessions:ended``, a sorted set of
sessions by when they may be forgotten.
"""

import secrets
import time

from streaming.eventlogs import _redis_server
from streaming.eventlogs._redis_pipe import Pipe
from streaming.eventlogs.redis import RedisLog
from streaming.sessions import Kept, SessionStore, new_secret

SECRET = "sluice:sessions:secret"
ENDED = "sluice:sessions:ended"


class RedisSessions:
    """See `SessionStore`. Belongs to the process, and the event loop, that made it."""

    def __init__(self, log: RedisLog) -> None:
        self._address = log.address
        self._name = f"sluice-sessions-{secrets.token_hex(4)}"
        self._opened: Pipe | None = None

    def read(self) -> Kept:
        secret = self._pipe.ask(("GET", SECRET))
        if secret is None:
            self._pipe.ask(("SET", SECRET, new_secret(), "NX"), durable=True)
            secret = self._pipe.ask(("GET", SECRET))
        ended = self._pipe.ask(("ZRANGEBYSCORE", ENDED, repr(time.time()), "+inf"))
        return Kept(bytes(secret), frozenset(each.decode() for each in ended))

    def end(self, session_id: str, until: float) -> None:
        self._pipe.ask(("ZADD", ENDED, repr(until), session_id), durable=True)
        self._pipe.ask(("ZREMRANGEBYSCORE", ENDED, "-inf", f"({time.time()!r}"))

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    @property
    def _pipe(self) -> Pipe:
        if self._opened is None:
            self._opened = Pipe(lambda: _redis_server.connect(self._address, self._name))
        return self._opened


def create(log: RedisLog) -> SessionStore:
    return RedisSessions(log)
