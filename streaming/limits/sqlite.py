"""Counters in the SQLite file of the event log, written with what else is committed in that turn."""

import time
from collections.abc import Sequence
from math import floor
from typing import Any

import apsw

from streaming.eventlogs import _host
from streaming.eventlogs.sqlite import SQLiteLog
from streaming.limits import Counters, Place
from streaming.limits._windows import Clock, Windows

MANY_REFUSED = 10_000
_ADD = (
    "INSERT INTO windows VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET"
    " count = CASE WHEN until > ? THEN count ELSE 0 END + excluded.count,"
    " until = CASE WHEN until > ? THEN until ELSE excluded.until END RETURNING count"
)
# Boot seconds of another boot would compare with ours, and mean nothing.
_HELD = (
    "SELECT count, boot, namespace, pid, started FROM places JOIN workers ON workers.id = places.worker"
    " WHERE places.key = ? AND workers.lease_until > ? AND workers.boot = ?"
)


class SQLiteWindows(Windows):
    def __init__(self, log: SQLiteLog, clock: Clock = time.time) -> None:
        super().__init__(clock)
        self._log = log
        self._refused: set[str] = set()

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        def acquire(db: apsw.Connection) -> bool:
            now = self.clock()
            previous, current = self.sliding_window_keys(key, expiry, now)
            counts: list[Any] = db.execute(
                "SELECT key, count FROM windows WHERE key IN (?, ?)", (previous, current)
            ).fetchall()
            before, count = (dict(counts).get(each, 0) for each in (previous, current))
            if floor(before * (1 - now / expiry % 1) + count) + amount > limit:
                return False
            db.execute(_ADD, (current, amount, now + 2 * expiry, now, now)).fetchall()
            return True

        if key in self._refused:
            # Whoever is refused and asks again, and again, makes nobody write.
            before, left, count, _ = self.get_sliding_window(key, expiry)
            if floor(before * left / expiry + count) + amount > limit:
                return False
            self._refused.discard(key)
        acquired = self._log.write(acquire)
        if not acquired:
            if len(self._refused) >= MANY_REFUSED:
                self._refused.clear()
            self._refused.add(key)
        return acquired

    def read(self, key: str) -> tuple[int, float]:
        rows = self._log.rows(
            "SELECT count, until FROM windows WHERE key = ? AND until > ?", (key, self.clock())
        )
        return rows[0] if rows else (0, 0.0)

    def add(self, key: str, amount: int, until: float) -> int:
        now = self.clock()
        rows: list[Any] = self._log.write(
            lambda db: db.execute(_ADD, (key, amount, until, now, now)).fetchall()
        )
        return int(rows[0][0])

    def clear(self, key: str) -> None:
        self._log.write(lambda db: db.execute("DELETE FROM windows WHERE key = ?", (key,)))

    def reset(self) -> int | None:
        self._log.write(lambda db: db.execute("DELETE FROM windows"))
        return None


class SQLiteCounters:
    """See `Counters`."""

    def __init__(self, log: SQLiteLog) -> None:
        self._log = log
        self._boot = _host.this_process().boot
        self.windows = SQLiteWindows(log)

    def take(self, places: Sequence[Place], worker_id: str) -> str:
        def take(db: apsw.Connection) -> str:
            for key, most in places:
                held: list[Any] = db.execute(_HELD, (key, _host.boot_seconds(), self._boot)).fetchall()
                if sum(count for count, *_ in held) >= most and _of_the_living(held) >= most:
                    return key
            for key, _ in places:
                db.execute(
                    "INSERT INTO places VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
                    (key, worker_id),
                )
            return ""

        return self._log.write(take)

    def leave(self, keys: Sequence[str], worker_id: str) -> None:
        def leave(db: apsw.Connection) -> None:
            for key in keys:
                db.execute(
                    "UPDATE places SET count = count - 1 WHERE key = ? AND worker = ?", (key, worker_id)
                )
                db.execute("DELETE FROM places WHERE key = ? AND worker = ? AND count <= 0", (key, worker_id))

        self._log.write(leave)

    def expire(self) -> None:
        def forget(db: apsw.Connection) -> None:
            db.execute("DELETE FROM windows WHERE until < ?", (self.windows.clock(),))
            db.execute("DELETE FROM places WHERE worker NOT IN (SELECT id FROM workers)")

        self._log.write(forget)

    def close(self) -> None:
        """The file is the log's."""


def _of_the_living(held: list[Any]) -> int:
    """Return how many places are not those of a process that is known to be gone, whatever its lease."""
    return sum(count for count, *process in held if _host.may_live(_host.Process(*process)))


def create(log: SQLiteLog) -> Counters:
    return SQLiteCounters(log)
