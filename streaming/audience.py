"""Who reads which stream on this worker, so that a run nobody follows can be ended."""

import math
import time
from collections import Counter

MANY_POLLED = 1000
LONG_AGO_SECONDS = 600.0


class Audience:
    """Readers that stay, counted, and when somebody polled last."""

    def __init__(self) -> None:
        self._readers: Counter[str] = Counter()
        self._polled: dict[str, float] = {}

    def join(self, stream_id: str) -> None:
        self._readers[stream_id] += 1

    def leave(self, stream_id: str) -> None:
        self._readers[stream_id] -= 1
        if self._readers[stream_id] <= 0:
            del self._readers[stream_id]

    def poll(self, stream_id: str) -> None:
        now = time.monotonic()
        if len(self._polled) > MANY_POLLED:
            self._polled = {other: at for other, at in self._polled.items() if now - at < LONG_AGO_SECONDS}
        self._polled[stream_id] = now

    def forget(self, stream_id: str) -> None:
        """To be called when the stream has ended."""
        self._polled.pop(stream_id, None)

    def present(self, stream_id: str) -> bool:
        return stream_id in self._readers

    def last_polled(self, stream_id: str) -> float:
        """Return when (``time.monotonic``); minus infinity for never."""
        return self._polled.get(stream_id, -math.inf)
