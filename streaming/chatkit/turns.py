"""The answers of a thread: what their runs said, from the log while it has it, kept in the thread later."""

import logging
from collections.abc import Sequence
from contextlib import suppress

from streaming.errors import NotFound, StreamExpired, StreamLost
from streaming.events import Event
from streaming.streams import Streams
from streaming.threads import Item, Turn

logger = logging.getLogger(__name__)


class Turns:
    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def of(self, item: Item) -> Turn:
        """Return a turn; if its run has ended, with the answer, which is kept from then on."""
        return self._streams.threads.settled(item)

    def events(self, item: Item) -> Sequence[Event]:
        """Return what a turn's run has said, or has said so far."""
        turn = self.of(item)
        answer = turn.answer or self._streams.answer(turn.stream_id)
        return answer.events

    def erase(self, stream_id: str) -> None:
        """Stop a run and forget its text."""
        with suppress(NotFound, StreamExpired, StreamLost):
            self._streams.erase(stream_id)
