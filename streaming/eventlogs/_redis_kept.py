"""What this worker wrote to its streams, kept so that it can be written again.

Replication is asynchronous: after a failover the server may have lost the
newest events. Their producer still has them.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from streaming.errors import StoreUnavailable
from streaming.eventlogs import Claim
from streaming.eventlogs._redis_pipe import Pipe
from streaming.eventlogs._redis_scripts import APPEND, Command, log_key, meta_key

logger = logging.getLogger(__name__)

KEPT_BYTES = 8 * 1024 * 1024
ENDED_SECONDS = 30.0
"""How much longer the events of an ended stream are kept."""


class Batch(NamedTuple):
    """Events appended together."""

    last: int
    """The number of the last one."""
    events: int
    """How many."""
    payloads: bytes
    """One a line."""
    end: str = ""
    spent: tuple[str | int, ...] = ()
    """Day, model, then names and numbers to be added to the owner's account."""

    @property
    def before(self) -> int:
        return self.last - self.events


class Kept:
    """The newest batches of one stream, at most ``KEPT_BYTES`` of them."""

    def __init__(self, gen: int, last: int, create: Command | None = None) -> None:
        """``last`` is the number of the stream's last event; ``create`` is what made the stream."""
        self.gen = gen
        self.first = last + 1
        """The number of the first event that is not in ``create``."""
        self.last = last
        self.create = create
        self._batches: deque[Batch] = deque()
        self._bytes = sum(len(part) for part in create or () if isinstance(part, bytes))

    def add(self, batch: Batch) -> None:
        self.last = batch.last
        self._batches.append(batch)
        self._bytes += len(batch.payloads)
        while self._bytes > KEPT_BYTES and self._batches:
            self.create = None
            self._bytes -= len(self._batches.popleft().payloads)

    def after(self, seq: int) -> list[Batch]:
        """Return the batches after event ``seq``; none unless they are all there."""
        found = [batch for batch in self._batches if batch.last > seq]
        return found if found and found[0].before == seq else []


class Keeping:
    """The streams this worker produces, and those that ended here a moment ago."""

    def __init__(self) -> None:
        self._running: dict[str, Kept] = {}
        self._ended: deque[tuple[float, str, Kept]] = deque()

    def __contains__(self, stream_id: object) -> bool:
        """Say whether the stream is produced here."""
        return stream_id in self._running

    def __iter__(self) -> Iterator[tuple[str, Kept]]:
        yield from list(self._running.items())
        yield from [(stream_id, kept) for _, stream_id, kept in self._ended]

    def begin(self, stream_id: str, kept: Kept) -> None:
        self._running[stream_id] = kept

    def of(self, stream_id: str, gen: int) -> Kept | None:
        kept = self._running.get(stream_id)
        return kept if kept is not None and kept.gen == gen else None

    def add(self, stream_id: str, kept: Kept, batch: Batch) -> None:
        kept.add(batch)
        if batch.end and stream_id in self._running:
            del self._running[stream_id]
            self._ended.append((time.monotonic(), stream_id, kept))

    def drop(self, stream_id: str) -> None:
        self._running.pop(stream_id, None)

    def drop_old(self) -> None:
        while self._ended and self._ended[0][0] < time.monotonic() - ENDED_SECONDS:
            self._ended.popleft()

    def clear(self) -> None:
        self._running.clear()
        self._ended.clear()


def append(pipe: Pipe, claim: Claim, batch: Batch, again: bool = False) -> Any:
    """Return whether a cancel was asked for, 0 or 1; anything else says why nothing was written."""
    stream_id, gen = claim
    keys = (meta_key(stream_id), log_key(stream_id))
    said = (stream_id, gen, batch.before, batch.last, batch.events, batch.payloads, batch.end)
    first = APPEND.command(keys, *said, int(again), *batch.spent)
    return pipe.ask(first, APPEND.command(keys, *said, 1, *batch.spent), durable=bool(batch.end))


def restore(pipe: Pipe, stream_id: str, kept: Kept, answer: Any) -> bool:
    """Write again what the server lost, as its ``answer`` to an append tells; return whether it did."""
    match answer:
        case None if kept.create is not None and pipe.ask(kept.create)[0] == b"made":
            missing = kept.after(kept.first - 1)
        case [b"behind", seq]:
            missing = kept.after(int(seq))
        case _:
            return False
    for batch in missing:
        append(pipe, Claim(stream_id, kept.gen), batch, again=True)
    logger.warning(
        "events the server had lost were written again",
        extra={"stream_id": stream_id, "batches": len(missing)},
    )
    return True


def restore_all(pipe: Pipe, keeping: Keeping) -> None:
    """Look at every stream that is kept, and restore it if the server lost something."""
    try:
        for stream_id, kept in keeping:
            gen, seq = pipe.ask(("HMGET", meta_key(stream_id), "gen", "seq"))
            if gen is None:
                restore(pipe, stream_id, kept, None)
            elif int(gen) == kept.gen and int(seq) < kept.last:
                restore(pipe, stream_id, kept, [b"behind", seq])
    except StoreUnavailable as error:
        logger.warning("lost events were not restored", extra={"why": str(error)})
