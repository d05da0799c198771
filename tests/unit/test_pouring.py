"""A run whose tokens the event loop writes leaves the log that any other run leaves."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.hub import Waiter

from streaming import producer, scope
from streaming.errors import LimitExceeded
from streaming.eventlogs import Claim, EventLog
from streaming.eventlogs.memory import MemoryLog
from streaming.events import Done, Error, Event, MetricsTick, Start, Token, encode
from streaming.observers import Nobody, RunFacts
from streaming.producer import Producers
from streaming.sources import Batches, Flow, Prompt, Source
from tests.doubles import (
    PROMPT,
    ScriptedSource,
    UnsteadyLog,
    all_events,
    all_records,
    ended,
    eventually,
    new_stream,
    says,
    text_of,
)
from tests.unit.conftest import LIMITS, MakeProducers

WORDS = [f"word {i} " for i in range(40)]


class PouringSource:
    """Says words: the first as a batch, the others from the loop as long as they are taken, one a turn."""

    def __init__(self, words: list[str], before: dict[int, Callable[[], object]] | None = None) -> None:
        self.poured = 0
        self._before = before or {}
        """What is done in the loop before a word is given."""
        self._left = list(words)
        self._waiter: Waiter[None] | None = None

    def events(self, prompt: Prompt) -> Batches:
        while self._left:
            yield [Token(self._left.pop(0))]
            yield Flow(self._pour, self._wake)
        yield [Done("stop")]

    def _pour(self, take: Callable[[Token], bool]) -> None:
        loop = gevent.get_hub().loop

        def turn() -> None:
            if self._waiter is None:
                return
            if self._left:
                self._before.pop(len(self._left), lambda: None)()
            if self._left and take(Token(self._left[0])):
                self._left.pop(0)
                self.poured += 1
                loop.run_callback(turn)
            else:
                self._wake()

        with scope.current().waiting():
            self._waiter = Waiter()
            loop.run_callback(turn)
            try:
                self._waiter.get()
            finally:
                self._waiter = None

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            gevent.get_hub().loop.run_callback(waiter.switch, None)


@pytest.fixture(params=["memory", "sqlite"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        yield MemoryLog()
        return
    from streaming.eventlogs import sqlite

    made = sqlite.create(f"sqlite:///{tmp_path}/log.db", "NORMAL")
    yield made
    made.close()


def begin(producers: Producers, log: EventLog, source: Source, **options: Any) -> str:
    stream_id = log.create(new_stream(log, producers.worker_id), [encode(Start("st", "chat", "demo", 0))])
    facts = RunFacts(stream_id, "owner", "chat", "demo")
    producers.start(Claim(stream_id, 1), 1, source, PROMPT, "continue", facts=facts, **options)
    return stream_id


def last_of(log: EventLog, stream_id: str) -> Done | Error:
    """Return the last event, after checking that it tells the truth about those before."""
    ended(log, stream_id)
    last = all_events(log, stream_id)[-1]
    assert isinstance(last, Done | Error)
    assert last.last_seq == len(all_records(log, stream_id)) == log.head(stream_id).last_seq
    said = text_of(all_events(log, stream_id))
    assert last.text_sha256 == hashlib.sha256(said.encode()).hexdigest()
    return last


def tokens_of(log: EventLog, stream_id: str) -> list[str]:
    return [event.content for event in all_events(log, stream_id) if isinstance(event, Token)]


def test_what_the_loop_writes_is_what_a_producer_writes(
    make_producers: MakeProducers, log: MemoryLog
) -> None:
    producers, source = make_producers(on=log), PouringSource(WORDS)
    poured = begin(producers, log, source)
    plain = begin(producers, log, ScriptedSource(*says(*WORDS)))

    last, other = last_of(log, poured), last_of(log, plain)

    assert source.poured > len(WORDS) // 2
    assert tokens_of(log, poured) == tokens_of(log, plain) == WORDS
    assert isinstance(last, Done)
    assert (last.finish_reason, last.last_seq) == ("stop", other.last_seq)
    assert last.metrics is not None
    assert other.metrics is not None
    assert last.metrics.tokens == other.metrics.tokens


def test_a_tick_of_the_metrics_is_written_in_between(
    make_producers: MakeProducers, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.tally.METRICS_SECONDS", 0.0)
    stream_id = begin(make_producers(on=log), log, PouringSource(WORDS))

    last_of(log, stream_id)

    assert tokens_of(log, stream_id) == WORDS
    assert sum(isinstance(event, MetricsTick) for event in all_events(log, stream_id)) > len(WORDS) // 4


def test_a_cancel_in_the_middle_ends_it_with_what_was_written(
    make_producers: MakeProducers, log: MemoryLog
) -> None:
    producers = make_producers(on=log)
    stream_id = ""
    source = PouringSource(WORDS, {20: lambda: producers._running[stream_id].scope.stop(None)})
    stream_id = begin(producers, log, source)

    last = last_of(log, stream_id)

    assert isinstance(last, Done)
    assert last.finish_reason == "cancelled"
    said = tokens_of(log, stream_id)
    assert said == WORDS[: len(said)]
    assert 19 <= len(said) <= 22


def test_who_asks_the_log_to_cancel_is_heard_by_an_append_of_the_loop(
    make_producers: MakeProducers, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer, "TICK_SECONDS", 60.0)
    stream_id = ""
    words = WORDS * 100
    source = PouringSource(words, {3950: lambda: gevent.spawn(log.request_cancel, stream_id)})
    stream_id = begin(make_producers(on=log), log, source)

    last = last_of(log, stream_id)
    assert isinstance(last, Done)
    assert last.finish_reason == "cancelled"
    said = tokens_of(log, stream_id)
    assert 40 < len(said) < len(words)


def test_an_owner_who_lost_the_stream_writes_nothing_more(
    make_producers: MakeProducers, log: MemoryLog
) -> None:
    producers, other = make_producers(on=log), make_producers(on=log)
    stream_id = ""
    source = PouringSource(WORDS, {20: lambda: gevent.spawn(other.take_over, stream_id, None, True)})
    stream_id = begin(producers, log, source)

    last_of(log, stream_id)

    eventually(lambda: len(producers) == 0)
    assert all_events(log, stream_id)[-1].finish_reason == "cancelled"  # type: ignore[union-attr]
    said = tokens_of(log, stream_id)
    assert said == WORDS[: len(said)]


@pytest.mark.parametrize("limits", [{"events": 20}, {"bytes": 1500}])
def test_limits_hold_for_what_the_loop_writes(
    make_producers: MakeProducers, log: MemoryLog, limits: dict[str, int]
) -> None:
    stream_id = begin(make_producers(replace(LIMITS, **limits), on=log), log, PouringSource(WORDS))

    last = last_of(log, stream_id)

    assert isinstance(last, Error)
    assert last.error.type == LimitExceeded.type
    assert last.error.partial
    said = tokens_of(log, stream_id)
    assert 5 < len(said) < len(WORDS)
    assert said == WORDS[: len(said)]


def test_a_store_that_goes_away_ends_the_run_with_what_it_holds(make_producers: MakeProducers) -> None:
    log = UnsteadyLog()
    source = PouringSource(WORDS, {20: lambda: log.broken.add("append")})
    stream_id = begin(make_producers(on=log), log, source)
    eventually(lambda: log.refused)
    log.broken.clear()

    last = last_of(log, stream_id)

    assert isinstance(last, Error)
    assert tokens_of(log, stream_id) == WORDS[:20]


def test_an_observer_that_breaks_ends_this_run_and_no_other(
    log: MemoryLog, make_producers: MakeProducers
) -> None:
    class Broken(Nobody):
        heard = 0

        def event(self, run: RunFacts, count: int, size_bytes: int, seconds: float) -> None:
            self.heard += 1
            if self.heard == 10:
                raise RuntimeError("a bug")

    producers = make_producers(on=log)
    producers._observer = Broken()
    broken = begin(producers, log, PouringSource(WORDS))
    whole = begin(producers, log, PouringSource(WORDS))

    ends = {type(last_of(log, broken)), type(last_of(log, whole))}

    assert ends == {Done, Error}


def test_a_flow_means_nothing_to_who_only_iterates() -> None:
    def iterate() -> list[Event]:
        return [event for batch in PouringSource(WORDS).events(PROMPT) for event in batch]

    assert text_of(iterate()) == "".join(WORDS)
