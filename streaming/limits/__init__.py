"""What is counted to hold somebody to a limit, and what every store of it promises.

Two things are counted, both over all workers that share the event log. How
often something happened in a while is kept in windows, for the strategies of
the `limits` library. How many of something are there now is kept as places:
each is held by a worker, and is free again when that worker is gone: at the end
of its lease, or at once where its process is seen to be no more.

How many streams of an owner run is counted by the log itself, as it creates one.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from limits.storage import Storage


class Place(NamedTuple):
    """One of the places that somebody has."""

    key: str
    most: int
    """How many there are under this key."""


class Counters(Protocol):
    """Methods block the calling greenlet only. Any may raise `StoreUnavailable`."""

    @property
    def windows(self) -> Storage:
        """For the sliding window counter. A hit is one step: two can't both be the last."""
        ...

    def take(self, places: Sequence[Place], worker_id: str) -> str:
        """Take a place under each key, or none at all; return the key that has no more, else ""."""
        ...

    def leave(self, keys: Sequence[str], worker_id: str) -> None:
        """Free a place under each key."""
        ...

    def expire(self) -> None:
        """Forget windows that are over, and places whose worker is gone."""
        ...

    def close(self) -> None: ...
