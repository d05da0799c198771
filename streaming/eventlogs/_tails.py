"""The newest events of streams that are followed here, as they were committed.

A reader that keeps up finds what woke it without a query, and five hundred
readers of one stream find the same records. Whoever is further behind reads
the store.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from streaming.eventlogs import Page
from streaming.events import Record

MOST_RECORDS = 16


class _Followed:
    __slots__ = ("closed", "tail", "wakes")

    def __init__(self) -> None:
        self.wakes: set[Callable[[], None]] = set()
        self.tail: list[Record] = []
        self.closed = False


class Tails:
    """Who follows which stream, and what they are about to read."""

    def __init__(self) -> None:
        self._followed: dict[str, _Followed] = {}

    def __contains__(self, stream_id: object) -> bool:
        return stream_id in self._followed

    def __iter__(self) -> Iterator[str]:
        """Return the streams that are followed."""
        return iter(list(self._followed))

    @contextmanager
    def watch(self, stream_id: str, wake: Callable[[], None]) -> Iterator[None]:
        """See `EventLog.watch`."""
        followed = self._followed.setdefault(stream_id, _Followed())
        followed.wakes.add(wake)
        try:
            yield
        finally:
            followed.wakes.discard(wake)
            if not followed.wakes and self._followed.get(stream_id) is followed:
                del self._followed[stream_id]

    def wake(self, stream_id: str) -> None:
        if followed := self._followed.get(stream_id):
            for wake in tuple(followed.wakes):
                wake()

    def committed(self, stream_id: str, gen: int, seq: int, payloads: Sequence[bytes], closed: bool) -> None:
        """Note what was committed at ``seq`` and after it, and wake who follows."""
        followed = self._followed.get(stream_id)
        if followed is None:
            return
        tail = followed.tail
        if tail and tail[-1].seq != seq - 1:
            tail.clear()
        tail += [Record(gen, place, payload) for place, payload in enumerate(payloads, seq)]
        if len(tail) > MOST_RECORDS:
            del tail[:-MOST_RECORDS]
        followed.closed = closed
        for wake in tuple(followed.wakes):
            wake()

    def page(self, stream_id: str, after: int, limit: int) -> Page | None:
        """Return what comes after ``after`` if all of it is here, and there is any."""
        followed = self._followed.get(stream_id)
        if followed is None or not followed.tail:
            return None
        tail = followed.tail
        skip = after + 1 - tail[0].seq
        if not 0 <= skip < len(tail) or len(tail) - skip > limit:
            return None
        return Page(tail[skip:], followed.closed)

    def forget(self, stream_ids: Iterable[str]) -> None:
        """Forget events, not who follows: the store holds others now, or none."""
        for stream_id in stream_ids:
            if followed := self._followed.get(stream_id):
                followed.tail.clear()
                followed.closed = False
