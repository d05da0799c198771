"""Sessions in this process's memory: they are over when it ends."""

import time

from streaming.eventlogs import EventLog
from streaming.sessions import Kept, SessionStore, new_secret


class MemorySessions:
    """See `SessionStore`."""

    def __init__(self) -> None:
        self._secret = new_secret()
        self._ended: dict[str, float] = {}

    def read(self) -> Kept:
        return Kept(self._secret, frozenset(self._ended))

    def end(self, session_id: str, until: float) -> None:
        now = time.time()
        self._ended = {each: kept for each, kept in self._ended.items() if kept > now} | {session_id: until}

    def close(self) -> None:
        pass


def create(log: EventLog) -> SessionStore:
    return MemorySessions()
