"""What a run has said so far: its text's digest, its tokens and their pace."""

import hashlib
import time
from collections.abc import Sequence

from streaming.events import Event, Metrics, MetricsTick, Reasoning, Token, Usage

METRICS_SECONDS = 2.0
SHORTEST_RATE_SECONDS = 0.1


class Tally:
    """What a run has said so far, for its last event."""

    def __init__(self) -> None:
        self.usage: dict[str, object] | None = None
        self._tokens = 0
        self._started: float | None = None
        self._first_token_ms: float | None = None
        self._next_tick = 0.0
        self._text = hashlib.sha256()
        self.has_text = False

    def start(self) -> None:
        """Begin to take the time; without it there are counts, but no metrics."""
        self._started = time.monotonic()

    def add(self, batch: Sequence[Event]) -> MetricsTick | None:
        """Count a batch; return a tick of the live metrics when one is due."""
        counted = False
        for event in batch:
            if isinstance(event, Token):
                self._text.update(event.content.encode())
                self._tokens += 1
                counted = self.has_text = True
            elif isinstance(event, Reasoning):
                self._tokens += 1
                counted = True
            elif isinstance(event, Usage):
                self.usage = event.usage
        if not counted or self._started is None:
            return None
        now = time.monotonic()
        if self._first_token_ms is None:
            self._first_token_ms = round((now - self._started) * 1000, 1)
        if now < self._next_tick:
            return None
        self._next_tick = now + METRICS_SECONDS
        metrics = self.metrics(None)
        return MetricsTick(metrics) if metrics else None

    def metrics(self, usage: dict[str, object] | None) -> Metrics | None:
        """Return the metrics so far, with the upstream's count of tokens where there is one."""
        if self._started is None:
            return None
        elapsed = time.monotonic() - self._started
        count = _said_tokens(usage or {})
        tokens = self._tokens if count is None else count
        writing = elapsed - (self._first_token_ms or 0) / 1000
        return Metrics(
            tokens,
            round(elapsed, 3),
            round((tokens - 1) / writing, 1) if tokens > 1 and writing >= SHORTEST_RATE_SECONDS else None,
            self._first_token_ms,
            estimated=count is None,
        )

    def text_sha256(self) -> str:
        return self._text.hexdigest()


def _said_tokens(usage: dict[str, object]) -> int | None:
    """Return the upstream's count: chat completions and Responses have each their name for it."""
    for name in ("completion_tokens", "output_tokens"):
        count = usage.get(name)
        if type(count) is int:  # true is no count
            return count
    return None
