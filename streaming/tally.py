"""What a run has said so far: its text's digest, its tokens and their pace."""

import hashlib
import time
from collections.abc import Sequence
from typing import Any

from msgspec import json

from streaming import tokens
from streaming.errors import Interrupted
from streaming.events import (
    Done,
    Error,
    Event,
    Metrics,
    MetricsTick,
    Reasoning,
    Status,
    Token,
    ToolCall,
    Usage,
)

METRICS_SECONDS = 2.0
SHORTEST_RATE_SECONDS = 0.1


class Tally:
    """What a run has said so far, for its last event."""

    def __init__(self, model: str = "") -> None:
        self.usage: dict[str, object] | None = None
        self._model = model
        self._deltas = 0
        self._size_bytes = 0
        # Kept only where it can be counted: it is half of what a waiting run holds.
        self._said = bytearray() if tokens.can_count(model) else None
        self._started: float | None = None
        self._first_token_ms: float | None = None
        self._next_tick = 0.0
        self._text = hashlib.sha256()
        self.has_text = False
        self.model = model
        """The one that answers, as far as that was said."""
        self.retries = 0
        self.fallbacks = 0

    @property
    def first_token_ms(self) -> float | None:
        """Since the start, once there was one."""
        return self._first_token_ms

    def start(self) -> None:
        """Begin to take the time; without it there are counts, but no metrics."""
        self._started = time.monotonic()

    def add(self, batch: Sequence[Event]) -> MetricsTick | None:
        """Count a batch; return a tick of the live metrics when one is due."""
        counted = False
        for event in batch:
            if isinstance(event, Token):
                content = event.content.encode()
                self._text.update(content)
                self._count(content)
                counted = self.has_text = True
            elif isinstance(event, Reasoning):
                self._count(event.content.encode())
                counted = True
            elif isinstance(event, ToolCall):
                self._count(_call(event), deltas=0)
            elif isinstance(event, Usage):
                self.usage = event.usage
            elif isinstance(event, Status):
                self.retries += event.status == "retrying"
                self.fallbacks += event.status == "fallback"
                self.model = event.model or self.model
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
        return self._metrics(tokens.completion_tokens(usage))

    def last_metrics(self, last: Done | Error, asked: Sequence[Any] = ()) -> Metrics | None:
        """Return the metrics of a run that was ``asked`` these messages or items, and ends with ``last``.

        Where the upstream did not count, and this process can, it waits for
        that: milliseconds, but 0.4 s the first time. A worker that stops ends
        thousands of runs in 2 s and does not wait.
        """
        counted = tokens.completion_tokens(last.usage)
        hurried = isinstance(last, Error) and last.error.type == Interrupted.type
        if counted is not None or self._started is None or hurried:
            return self._metrics(counted)
        ended = time.monotonic()
        given = tokens.prompt_tokens(asked, self._model) if asked else None
        if self._said is not None:
            said, self._said = self._said, None
            counted = tokens.count(said.decode(), self._model).tokens
        return self._metrics(counted, estimated=True, now=ended, given=given)

    def _metrics(
        self,
        counted: int | None,
        estimated: bool = False,
        now: float | None = None,
        given: int | None = None,
    ) -> Metrics | None:
        if self._started is None:
            return None
        elapsed = (now or time.monotonic()) - self._started
        count = tokens.estimate(self._size_bytes, self._deltas) if counted is None else counted
        writing = elapsed - (self._first_token_ms or 0) / 1000
        return Metrics(
            count,
            round(elapsed, 3),
            round((count - 1) / writing, 1) if count > 1 and writing >= SHORTEST_RATE_SECONDS else None,
            self._first_token_ms,
            given,
            estimated=estimated or counted is None,
        )

    @property
    def has_said(self) -> bool:
        """Whether there was a word, a thought or a call."""
        return self._size_bytes > 0

    @property
    def estimated_tokens(self) -> int:
        """About how many were said, for a run whose time was not taken."""
        return tokens.estimate(self._size_bytes, self._deltas)

    def text_sha256(self) -> str:
        return self._text.hexdigest()

    def _count(self, content: bytes, deltas: int = 1) -> None:
        self._deltas += deltas
        self._size_bytes += len(content)
        if self._said is not None:
            self._said += content


def _call(event: ToolCall) -> bytes:
    arguments = event.args_text if event.args is None else event.args
    return event.tool.encode() + (
        arguments.encode() if isinstance(arguments, str) else json.encode(arguments)
    )
