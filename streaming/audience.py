"""Who reads which stream on this worker, so that a run nobody follows can be ended."""

import time
from collections import Counter


class Audience:
    """Readers that stay, counted, and those who poll, remembered for a while."""

    def __init__(self) -> None:
        self._readers: Counter[str] = Counter()
        self._polled_until: dict[str, float] = {}

    def join(self, stream_id: str) -> None:
        self._readers[stream_id] += 1

    def leave(self, stream_id: str) -> None:
        self._readers[stream_id] -= 1
        if self._readers[stream_id] <= 0:
            del self._readers[stream_id]

    def poll(self, stream_id: str, seconds: float) -> None:
        """Count somebody as present for ``seconds`` from now."""
        now = time.monotonic()
        for other in [other for other, until in self._polled_until.items() if until < now]:
            del self._polled_until[other]
        self._polled_until[stream_id] = now + seconds

    def present(self, stream_id: str) -> bool:
        return stream_id in self._readers or self._polled_until.get(stream_id, 0.0) > time.monotonic()
