"""What is told of runs: of each one start, its batches, its first token, and one end."""

from collections.abc import Iterator
from typing import Any

import pytest

from streaming import producer
from streaming.audience import Audience
from streaming.errors import Interrupted, StoreUnavailable, UpstreamUnreachable
from streaming.eventlogs import Claim, EventLog
from streaming.eventlogs.memory import MemoryLog
from streaming.events import Done, Start, Status, Token, encode
from streaming.observers import Nobody, RunEnd, RunFacts, told_to
from streaming.producer import Producers
from tests.doubles import (
    PROMPT,
    ForgetfulLog,
    Gate,
    ScriptedSource,
    UnsteadyLog,
    eventually,
    new_stream,
    says,
)
from tests.unit.conftest import LIMITS


class Noted(Nobody):
    """Keeps all that it is told."""

    def __init__(self) -> None:
        self.runs: list[RunFacts] = []
        self.batches: list[tuple[RunFacts, int, int, float]] = []
        self.first: list[tuple[RunFacts, float]] = []
        self.ends: list[tuple[RunFacts, RunEnd]] = []
        self.failures: list[str] = []

    def started(self, run: RunFacts) -> None:
        self.runs.append(run)

    def event(self, run: RunFacts, count: int, size_bytes: int, seconds: float) -> None:
        self.batches.append((run, count, size_bytes, seconds))

    def first_token(self, run: RunFacts, seconds: float) -> None:
        self.first.append((run, seconds))

    def ended(self, run: RunFacts, end: RunEnd) -> None:
        self.ends.append((run, end))

    def store_failed(self, code: str) -> None:
        self.failures.append(code)


class Worker:
    """A worker on a log, and what its observer was told."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.noted = Noted()
        self.producers = Producers(log, Audience(), LIMITS, self.noted)

    def begin(self, source: ScriptedSource) -> str:
        new = new_stream(self.log, self.producers.worker_id, owner="key_1")
        stream_id = self.log.create(new, [encode(Start(new.stream_id, "chat", "small", 0))])
        facts = RunFacts(stream_id, "key_1", "chat", "small", "req_1")
        self.producers.start(Claim(stream_id, 1), 1, source, PROMPT, "continue", facts=facts)
        return stream_id


@pytest.fixture(autouse=True)
def _quick_chores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(producer, "SWEEP_SECONDS", 0.05)


@pytest.fixture
def worker_on() -> Iterator[Any]:
    made: list[Worker] = []

    def make(log: EventLog) -> Worker:
        made.append(Worker(log))
        return made[-1]

    yield make
    for worker in made:
        if isinstance(worker.log, UnsteadyLog):
            worker.log.broken.clear()
        worker.producers.shutdown(0)
        worker.producers.close()


def test_of_a_run_its_start_its_batches_its_first_token_and_its_end_are_told(worker_on: Any) -> None:
    worker = worker_on(MemoryLog())
    stream_id = worker.begin(ScriptedSource([Status("retrying", 1)], *says("some", " words")))
    noted = worker.noted
    eventually(lambda: noted.ends)

    (run,) = noted.runs
    assert (run.stream_id, run.owner, run.source, run.model) == (stream_id, "key_1", "chat", "small")
    ((ended, end),) = noted.ends
    assert ended is run
    assert (end.state, end.finish_reason, end.error_type) == ("completed", "stop", "")
    assert end.events == worker.log.head(stream_id).last_seq
    assert end.tally.retries == 1
    assert end.bytes == sum(size for _, _, size, _ in noted.batches) > 0
    assert all(batch[0] is run and batch[3] >= 0 for batch in noted.batches)
    ((first, seconds),) = noted.first
    assert first is run
    assert 0 <= seconds < 5


def test_a_run_that_fails_is_told_with_the_type_of_its_error(worker_on: Any) -> None:
    worker = worker_on(MemoryLog())
    worker.begin(ScriptedSource(UpstreamUnreachable("not there")))
    eventually(lambda: worker.noted.ends)

    ((_, end),) = worker.noted.ends
    assert (end.state, end.error_type) == ("failed", "upstream_unreachable")
    assert worker.noted.first == []


def test_a_run_whose_worker_is_gone_is_told_by_the_one_that_ends_it(worker_on: Any) -> None:
    log = MemoryLog()
    new = new_stream(log, "a worker that is gone", owner="key_1")
    stream_id = log.create(new, [encode(Start(new.stream_id, "chat", "small", 0))])
    worker = worker_on(log)
    eventually(lambda: worker.noted.ends)

    ((run, end),) = worker.noted.ends
    assert (run.stream_id, run.owner, run.source, run.model) == (stream_id, "key_1", "chat", "small")
    assert run.taken_over
    assert (end.state, end.error_code) == ("interrupted", "worker_lost")


def test_a_run_taken_over_from_a_living_worker_is_told_once_as_ended_and_once_as_fenced(
    worker_on: Any,
) -> None:
    log = MemoryLog()
    owner, other = worker_on(log), worker_on(log)
    gate = Gate()
    stream_id = owner.begin(ScriptedSource([Token("so far")], gate, [Token("too late")], [Done("stop")]))
    gate.reached.wait(2)
    assert other.producers.take_over(stream_id, Interrupted("gone", code="worker_lost"), force=True)
    gate.open()

    eventually(lambda: owner.noted.ends)
    assert [end.state for _, end in owner.noted.ends] == ["fenced"]
    assert [end.state for _, end in other.noted.ends] == ["interrupted"]
    assert other.noted.ends[0][0].owner == "key_1"


def test_an_end_that_is_written_later_is_told_then_and_once(worker_on: Any) -> None:
    log = UnsteadyLog()
    worker = worker_on(log)
    log.broken.add("append")
    stream_id = worker.begin(ScriptedSource(*says("lost")))
    eventually(lambda: len(worker.producers) == 0)
    assert worker.noted.ends == []
    assert set(worker.noted.failures) == {StoreUnavailable.type}

    log.broken.clear()
    eventually(lambda: log.head(stream_id).ended)
    eventually(lambda: worker.noted.ends)
    ((run, end),) = worker.noted.ends
    assert run is worker.noted.runs[0]
    assert end.state == "failed"


def test_an_end_that_was_written_and_not_answered_is_told_once(worker_on: Any) -> None:
    log = ForgetfulLog()
    worker = worker_on(log)
    log.lost_answers = 1
    stream_id = worker.begin(ScriptedSource(*says("a", "b")))
    eventually(lambda: log.head(stream_id).ended)
    eventually(lambda: worker.noted.ends)
    worker.producers.sweep()
    assert len(worker.noted.ends) == 1


def test_an_observer_that_breaks_keeps_no_other_from_being_told(
    worker_on: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Nobody):
        def started(self, run: RunFacts) -> None:
            raise RuntimeError("broken")

        def ended(self, run: RunFacts, end: RunEnd) -> None:
            raise RuntimeError("broken")

    noted = Noted()
    worker = worker_on(MemoryLog())
    worker.producers._observer = told_to(Broken(), noted)
    stream_id = worker.begin(ScriptedSource(*says("a")))
    eventually(lambda: noted.ends)
    assert worker.log.head(stream_id).state == "completed"
    assert sum(record.message == "an observer broke" for record in caplog.records) == 2
