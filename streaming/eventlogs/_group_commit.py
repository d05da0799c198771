"""Group commit: what arrives in one turn of the event loop is committed together.

The first write asks for a flush at the loop's next turn; less than a
millisecond after a commit, when that has passed. So somebody alone does not
wait, and a busy worker does not commit for each chunk. A commit in
WAL mode is a write without a sync, so it happens on the loop; copying the WAL
into the file does sync, and happens in a thread.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import apsw
import gevent
from gevent.hub import Waiter

from streaming.errors import StoreUnavailable, StreamingError
from streaming.eventlogs import Settled
from streaming.eventlogs._sqlite_file import StoreFile

logger = logging.getLogger(__name__)

BUSY_SECONDS = 5.0
BUSY_PAUSE_SECONDS = 0.001
FEWEST_ATTEMPTS = 200
PAUSE_SECONDS = 0.001
"""From one commit to the next."""
CHECKPOINT_PAGES = 1000
CHECKPOINT_PAUSE_SECONDS = 0.5
# Somebody who always writes keeps a checkpoint from reaching the end of the WAL,
# so from this size on writes wait for it.
LONGEST_WAL_PAGES = 8000

Write = Callable[[apsw.Connection], Any]


class _Teller:
    """A `Waiter` of which nobody has to wait."""

    __slots__ = ("switch",)

    def __init__(self, settled: Settled) -> None:
        self.switch: Callable[[Any], None] = settled

    def throw(self, error: Exception) -> None:
        if not isinstance(error, StreamingError):
            error = StoreUnavailable("a write to the event log broke")
        self.switch(error)


class _Entry(NamedTuple):
    """A write that waits for its commit, what is to be told then, and who waits for it."""

    write: Write
    then: Callable[[], None] | None
    waiter: "Waiter[Any] | _Teller"


class GroupCommit:
    def __init__(self, file: StoreFile) -> None:
        self._file = file
        self._queue: list[_Entry] = []
        self._flush_due = False
        self._flushed_at = 0.0
        self._timer: Any = None
        self._busy_since = 0.0
        self._busy_attempts = 0
        self._wal_pages = 0
        self._checkpointing = False
        self._next_checkpoint = 0.0
        self._closed = False
        file.set_wal_hook(self._note_wal_pages)

    @property
    def waiting(self) -> int:
        """How many writes wait for their commit."""
        return len(self._queue)

    def run(self, write: Write, then: Callable[[], None] | None = None) -> Any:
        """Run ``write`` in a transaction and return what it returned, once that is committed.

        ``then`` is called in between, unless ``write`` raised; it must not block.
        Blocks the calling greenlet. A `StreamingError` it raises is raised
        here, and must mean that it wrote nothing.
        """
        if self._closed:
            raise StoreUnavailable("this event log was closed")
        waiter: Waiter[Any] = Waiter()
        self._queue.append(_Entry(write, then, waiter))
        self._ask_for_flush()
        return waiter.get()

    def soon(self, write: Write, then: Callable[[], None], settled: Settled) -> bool:
        """Do as ``run``, and call ``settled`` with what it would have returned or raised. Never blocks.

        Returns False, and does nothing, when this log was closed.
        """
        if self._closed:
            return False
        self._queue.append(_Entry(write, then, _Teller(settled)))
        self._ask_for_flush()
        return True

    def close(self) -> None:
        """Commit what is queued; refuse what comes after."""
        if not self._closed:
            self.run(lambda db: None)
            self._closed = True

    def _ask_for_flush(self) -> None:
        if self._flush_due:
            return
        self._flush_due = True
        loop = gevent.get_hub().loop
        left = self._flushed_at + PAUSE_SECONDS - time.monotonic()
        if left <= 0:
            loop.run_callback(self._flush)
        else:
            self._timer = loop.timer(left)
            self._timer.start(self._flush)

    def _flush(self) -> None:
        """Commit all that is queued, then wake those who wait. Runs in the hub: never blocks."""
        self._flush_due = False
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        if self._checkpointing and self._wal_pages > LONGEST_WAL_PAGES:
            return  # the checkpoint asks again when it is done
        queue, self._queue = self._queue, []
        if not queue:
            return
        self._flushed_at = time.monotonic()
        try:
            self._settle(queue)
        except apsw.BusyError:
            self._try_again(queue)

    def _settle(self, queue: list[_Entry]) -> None:
        try:
            outcomes = self._transact([entry.write for entry in queue])
        except apsw.BusyError:
            raise
        except Exception as error:
            if len(queue) > 1:  # find out which of them it was
                for place, entry in enumerate(queue):
                    try:
                        self._settle([entry])
                    except apsw.BusyError:
                        self._try_again(queue[place:])
                        return
                return
            if not isinstance(error, StreamingError):
                logger.exception("a write to the event log broke")
            outcomes = [error]
        self._busy_since = 0.0
        self._busy_attempts = 0
        for entry, outcome in zip(queue, outcomes, strict=True):
            if entry.then is not None and not isinstance(outcome, Exception):
                entry.then()
        for entry, outcome in zip(queue, outcomes, strict=True):
            if isinstance(outcome, Exception):
                entry.waiter.throw(outcome)
            else:
                entry.waiter.switch(outcome)
        due = self._wal_pages > CHECKPOINT_PAGES and time.monotonic() >= self._next_checkpoint
        if due and not self._checkpointing:
            self._checkpointing = True
            gevent.spawn(self._checkpoint)

    def _transact(self, writes: list[Write]) -> list[Any]:
        outcomes: list[Any] = []
        with self._file.translated_errors():
            db = self._file.db
            db.execute("BEGIN IMMEDIATE")
            try:
                for write in writes:
                    try:
                        outcomes.append(write(db))
                    except StreamingError as refused:
                        outcomes.append(refused)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        return outcomes

    def _try_again(self, queue: list[_Entry]) -> None:
        """Another process is writing: let this one's other greenlets run meanwhile."""
        now = time.monotonic()
        self._busy_since = self._busy_since or now
        self._busy_attempts += 1
        # Counted too, because the clock also goes on while this process does not.
        if now - self._busy_since > BUSY_SECONDS and self._busy_attempts > FEWEST_ATTEMPTS:
            self._busy_since = 0.0
            self._busy_attempts = 0
            for entry in queue:
                entry.waiter.throw(StoreUnavailable("the event log is held by another process"))
            return
        self._queue = queue + self._queue
        self._flush_due = True
        gevent.spawn_later(BUSY_PAUSE_SECONDS, gevent.get_hub().loop.run_callback, self._flush)

    def _note_wal_pages(self, pages: int) -> None:
        self._wal_pages = pages

    def _checkpoint(self) -> None:
        done = False
        try:
            done = gevent.get_hub().threadpool.apply(self._file.checkpoint)
        except apsw.Error:
            logger.warning("a checkpoint failed, to be tried again", exc_info=True)
        finally:
            self._checkpointing = False
            self._next_checkpoint = 0.0 if done else time.monotonic() + CHECKPOINT_PAUSE_SECONDS
            self._ask_for_flush()
