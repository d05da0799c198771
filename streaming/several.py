"""Follow several streams at once: several readers, one greenlet, one wake-up."""

import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from gevent.event import Event as Flag

from streaming.errors import StreamingError
from streaming.events import Record
from streaming.reader import Reader


class Heard(NamedTuple):
    """What one of the readers has to say."""

    reader: Reader
    records: Sequence[Record] = ()
    error: StreamingError | None = None
    """What keeps this reader, and none of the others, from going on."""


class Several:
    """Readers that take turns: a long answer does not keep the others waiting.

    It holds one page of one reader at a time. Make it before its readers begin
    to watch, so that no wake-up is missed.
    """

    def __init__(self, readers: Sequence[Reader]) -> None:
        self._flag = Flag()
        self._following = set(readers)
        # In the order they were woken; all have to be looked at first.
        self._woken = dict.fromkeys(readers)
        for reader in readers:
            reader.on_wake = partial(self._wake, reader)

    @property
    def ended(self) -> bool:
        """Nothing comes any more, from none of them."""
        return not self._following

    @property
    def left(self) -> bool:
        return any(reader.left for reader in self._following)

    def drop(self, reader: Reader) -> None:
        """Follow this one no more."""
        self._following.discard(reader)
        self._woken.pop(reader, None)

    def next(self, timeout: float) -> Heard | None:
        """Return what one reader has, waiting at most ``timeout`` seconds for any of them.

        ``None`` when the time ran out, when a reader was told to leave, and after the end.
        """
        deadline = time.monotonic() + timeout
        while self._following and not self.left:
            if not self._woken:
                self._flag.clear()
                if not self._flag.wait(max(0.0, deadline - time.monotonic())):
                    return None
                continue
            reader = next(iter(self._woken))
            del self._woken[reader]
            try:
                records = reader.next(0)
            except StreamingError as error:
                self.drop(reader)
                return Heard(reader, error=error)
            if reader.ended:
                self.drop(reader)
            elif records:
                self._woken[reader] = None  # it may have more than a page
            if records:
                return Heard(reader, records)
        return None

    def _wake(self, reader: Reader) -> None:
        if reader in self._following:
            self._woken[reader] = None
            self._flag.set()
