"""Wake readers when another worker commits: one blocking read for all streams followed here.

A stream that this worker produces is not among them: its own commits wake its
readers directly. Each worker also has a *bell*, one more stream in the same
read: it is rung when the set of streams changed, and by whoever takes a stream
over from this worker.

Source: https://redis.io/docs/latest/commands/xread/, "Blocking for data".
"""

import logging
import random
from collections.abc import Callable, Container
from typing import Any

import gevent
import redis
from gevent.event import Event as Flag

from streaming.eventlogs._redis_pipe import Pipe
from streaming.eventlogs._redis_scripts import RING, bell_key, log_key, meta_key
from streaming.eventlogs._redis_server import LOST, Connection, ask

logger = logging.getLogger(__name__)

BLOCK_SECONDS = 5.0
REST_SECONDS = 0.0005
REST_SECONDS_PER_STREAM = 10e-6
"""Between two reads: their cost, to both sides, grows with the number of streams."""
LONGEST_PAUSE_SECONDS = 1.0

Wake = Callable[[], None]


class Watch:
    def __init__(
        self,
        connect: Callable[[], Connection],
        pipe: Pipe,
        bell: str,
        own: Container[str],
        taken: Callable[[str], None],
    ) -> None:
        """``connect`` returns a connection whose answers may take ``BLOCK_SECONDS``.

        ``own`` are the streams produced here; ``taken`` is told when somebody takes one of them over.
        """
        self._connect = connect
        self._pipe = pipe
        self._bell = bell
        self._own = own
        self._taken = taken
        self._watchers: dict[str, set[Wake]] = {}
        self._seen: dict[str, int] = {}
        """Of each watched stream, the last event that readers here were woken for or have read."""
        self._wanted = Flag()
        self._connection: Connection | None = None
        self._bell_at = "0-0"
        self._reading: Container[str] | None = None
        """What the read that is under way is about."""
        self._rung = False
        self._lost = False
        self._stopped = False
        gevent.spawn(self._follow)

    def enter(self, stream_id: str, wake: Wake, last_seq: int) -> None:
        """Call ``wake`` for what comes after ``last_seq``."""
        self._watchers.setdefault(stream_id, set()).add(wake)
        self._seen.setdefault(stream_id, last_seq)
        self._wanted.set()
        self._include(stream_id)

    def leave(self, stream_id: str, wake: Wake) -> None:
        watchers = self._watchers.get(stream_id, set())
        watchers.discard(wake)
        if not watchers:
            self._watchers.pop(stream_id, None)
            self._seen.pop(stream_id, None)
        if not self._watchers:
            self._wanted.clear()

    def wake(self, stream_id: str) -> None:
        for wake in tuple(self._watchers.get(stream_id, ())):
            wake()

    def wake_all(self) -> None:
        for stream_id in list(self._watchers):
            self.wake(stream_id)

    def learn(self, stream_id: str, last_seq: int) -> None:
        """Somebody here read that the stream reaches to ``last_seq``."""
        if last_seq > self._seen.get(stream_id, last_seq):
            self._seen[stream_id] = last_seq
            if stream_id not in self._own:
                # The blocking read goes on after it, so others who wait must hear of it now.
                self.wake(stream_id)

    def follow(self, stream_id: str) -> None:
        """A stream is not produced here any more."""
        if stream_id in self._watchers:
            self.wake(stream_id)
            self._include(stream_id)

    def reconnect(self) -> None:
        """Connect again, and look what was missed meanwhile: the server may be another one now."""
        self._lost = True
        self._hang_up()

    def close(self) -> None:
        # The greenlet ends by itself: killed while it connects, it would leave a socket open.
        self._stopped = True
        self._wanted.set()
        self._hang_up()

    def _include(self, stream_id: str) -> None:
        if self._reading is None or self._rung or stream_id in self._own or stream_id in self._reading:
            return
        self._rung = True
        self._pipe.post(RING.command((), self._bell))

    def _follow(self) -> None:
        failures = 0
        while True:
            self._wanted.wait()
            if self._stopped:
                break
            try:
                self._read(self._connection or self._begin())
                failures = 0
            except (*LOST, redis.RedisError) as error:
                self.reconnect()
                failures += 1
                if failures == 2:  # the first is a connection that was closed, and happens
                    logger.warning("cannot follow the event log", extra={"why": str(error)})
                if failures > 1:
                    pause = min(LONGEST_PAUSE_SECONDS, 0.05 * 2**failures)
                    gevent.sleep(pause * random.uniform(0.5, 1.0))
            except Exception:
                logger.exception("following the event log broke")
                self.reconnect()
                gevent.sleep(LONGEST_PAUSE_SECONDS)
        self._hang_up()

    def _begin(self) -> Connection:
        connection = self._connection = self._connect()
        if self._lost:
            self._catch_up(connection)
        return connection

    def _catch_up(self, connection: Connection) -> None:
        # The server may have lost the newest events and rings, so look at the streams themselves.
        newest = ask(connection, "XREVRANGE", bell_key(self._bell), "+", "-", "COUNT", 1)
        self._bell_at = newest[0][0].decode() if newest else "0-0"
        for stream_id in list(self._watchers):
            last_seq, bell = ask(connection, "HMGET", meta_key(stream_id), "seq", "bell")
            if stream_id in self._own and bell is not None and bell.decode() != self._bell:
                self._taken(stream_id)
            if stream_id in self._watchers:
                self._seen[stream_id] = int(last_seq or 0)
        self._lost = False
        self.wake_all()

    def _read(self, connection: Connection) -> None:
        """Wait until something was committed, or the bell rings, and wake whom it concerns."""
        stream_ids = [stream_id for stream_id in self._watchers if stream_id not in self._own]
        ids_by_key = {log_key(stream_id): stream_id for stream_id in stream_ids}
        places = [f"{self._seen[stream_id]}-0" for stream_id in stream_ids]
        bell = bell_key(self._bell)
        self._reading = frozenset(stream_ids)
        try:
            found = ask(
                connection,
                *("XREAD", "COUNT", 1, "BLOCK", int(BLOCK_SECONDS * 1000), "STREAMS"),
                *(bell, *ids_by_key, self._bell_at, *places),
            )
        finally:
            self._reading = None
            self._rung = False
        for key, entries in found or ():
            place, fields = entries[-1]
            if key.decode() == bell:
                self._hear(place, fields)
            else:
                stream_id = ids_by_key[key.decode()]
                if stream_id in self._watchers:
                    self._seen[stream_id] = max(self._seen[stream_id], int(place[:-2]))
                    self.wake(stream_id)
        gevent.sleep(REST_SECONDS + REST_SECONDS_PER_STREAM * len(stream_ids))

    def _hear(self, place: bytes, fields: list[Any]) -> None:
        self._bell_at = place.decode()
        if stream_id := fields[1].decode():
            self._taken(stream_id)

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
