"""A run always ends, once, and its last event says how."""

import contextvars
import hashlib
import logging
from dataclasses import replace
from typing import Any

import gevent
import pytest

from streaming import producer, scope
from streaming.audience import Audience
from streaming.errors import Interrupted, Overloaded, UpstreamRateLimited
from streaming.eventlogs import Claim, EventLog
from streaming.eventlogs.memory import MemoryLog
from streaming.events import (
    Chunk,
    Done,
    Error,
    Event,
    MetricsTick,
    Reasoning,
    Start,
    Token,
    Usage,
    encode,
)
from streaming.observers import RunFacts
from streaming.producer import Limits, Producers
from streaming.scope import Scope
from tests.doubles import (
    PROMPT,
    ForgetfulLog,
    Gate,
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


@pytest.fixture(autouse=True)
def _quick_chores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(producer, "SWEEP_SECONDS", 0.05)


def begin(
    producers: Producers,
    log: EventLog,
    source: ScriptedSource,
    policy: Any = "continue",
    request_id: str | None = None,
    **options: Any,
) -> str:
    """Create a stream of this worker and start it."""
    stream_id = log.create(new_stream(log, producers.worker_id), [encode(Start("st", "chat", "demo", 0))])
    facts = RunFacts(stream_id, "owner", "chat", "demo", request_id)
    producers.start(Claim(stream_id, 1), 1, source, PROMPT, policy, facts=facts, **options)
    return stream_id


def last_of(log: EventLog, stream_id: str) -> Done | Error:
    """Wait for the end of the stream; return its last event after checking what all of them promise."""
    ended(log, stream_id)
    records = all_records(log, stream_id)
    *others, last = all_events(log, stream_id)
    assert isinstance(last, Done | Error)
    assert not any(isinstance(event, Done | Error) for event in others)
    assert last.done is True
    assert last.last_seq == len(records) == log.head(stream_id).last_seq
    text = text_of(all_events(log, stream_id))
    assert last.text_sha256 == hashlib.sha256(text.encode()).hexdigest(), "not the text in the log"
    if isinstance(last, Error):
        assert last.error.partial == bool(text)
    return last


def finished(producers: Producers) -> bool:
    return len(producers) == 0


# Ends


def test_a_run_that_finishes_is_completed(producers: Producers, log: MemoryLog) -> None:
    source = ScriptedSource([Token("Hel"), Token("lo")], [Token(" world")], [Done("stop")])

    stream_id = begin(producers, log, source)

    last = last_of(log, stream_id)
    assert isinstance(last, Done)
    assert last.finish_reason == "stop"
    assert log.head(stream_id).state == "completed"
    events = [event for event in all_events(log, stream_id) if not isinstance(event, MetricsTick)]
    assert events[1:-1] == [Token("Hel"), Token("lo"), Token(" world")]
    assert last.metrics is not None
    assert last.metrics.tokens == 3
    assert last.metrics.estimated
    eventually(lambda: finished(producers))
    assert source.closed == 1


def test_the_end_can_come_in_the_batch_of_the_last_words(producers: Producers, log: MemoryLog) -> None:
    usage = {"completion_tokens": 7}
    source = ScriptedSource([Token("all"), Usage(usage), Done("length", usage)])

    last = last_of(log, begin(producers, log, source))

    assert isinstance(last, Done)
    assert last.finish_reason == "length"
    assert last.usage == usage
    assert last.metrics is not None
    assert (last.metrics.tokens, last.metrics.estimated) == (7, False)


def test_a_source_that_fails_ends_the_stream_with_its_error(producers: Producers, log: MemoryLog) -> None:
    failure = UpstreamRateLimited("slow down", code="rpm")
    source = ScriptedSource([Token("some")], failure)

    stream_id = begin(producers, log, source, request_id="req_1")

    last = last_of(log, stream_id)
    assert isinstance(last, Error)
    assert last.error == failure.info(partial=True, request_id="req_1")
    assert log.head(stream_id).state == "failed"
    assert source.closed == 1


def test_a_source_that_fails_at_once_is_not_partial(producers: Producers, log: MemoryLog) -> None:
    last = last_of(log, begin(producers, log, ScriptedSource(UpstreamRateLimited("slow down"))))

    assert isinstance(last, Error)
    assert last.error.partial is False


def test_a_source_with_a_bug_ends_the_stream_without_its_words(
    producers: Producers, log: MemoryLog, caplog: pytest.LogCaptureFixture
) -> None:
    source = ScriptedSource([Token("some")], RuntimeError("secret sk-123"))

    last = last_of(log, begin(producers, log, source))

    assert isinstance(last, Error)
    assert (last.error.type, last.error.retryable) == ("internal_error", False)
    assert "sk-123" not in last.error.message
    assert [record.message for record in caplog.records if record.exc_info] == ["the source broke"]


def test_a_source_that_stops_without_saying_so_is_never_completed(
    producers: Producers, log: MemoryLog
) -> None:
    stream_id = begin(producers, log, ScriptedSource([Token("some")]))

    assert isinstance(last_of(log, stream_id), Error)
    assert log.head(stream_id).state in ("failed", "interrupted")


def test_a_source_without_any_step_is_never_completed(producers: Producers, log: MemoryLog) -> None:
    stream_id = begin(producers, log, ScriptedSource())

    assert isinstance(last_of(log, stream_id), Error)


def test_what_a_source_says_after_its_end_is_ignored(producers: Producers, log: MemoryLog) -> None:
    source = ScriptedSource([Token("text")], [Done("stop")], [Token("more")], RuntimeError("late"))

    stream_id = begin(producers, log, source)

    assert isinstance(last_of(log, stream_id), Done)
    eventually(lambda: finished(producers))
    assert text_of(all_events(log, stream_id)) == "text"


@pytest.mark.parametrize(
    "unwritable",
    [
        Token("\ud800"),
        Usage({"tokens": "\udfff"}),
        Usage({"tokens": object()}),
        Done("stop", {"tokens": "\ud800"}),
        Done("\ud800"),
        Chunk(first={"\udc00": 1}),
    ],
    ids=repr,
)
def test_an_event_that_cannot_be_written_ends_the_stream(
    producers: Producers, log: MemoryLog, unwritable: Event
) -> None:
    stream_id = begin(producers, log, ScriptedSource([Token("some")], [unwritable], [Done("stop")]))

    assert isinstance(last_of(log, stream_id), Error)
    assert log.head(stream_id).state == "failed"


def test_an_empty_batch_harms_nobody(producers: Producers, log: MemoryLog) -> None:
    stream_id = begin(producers, log, ScriptedSource([], [Token("text")], [], [Done("stop")]))

    assert isinstance(last_of(log, stream_id), Done)
    assert text_of(all_events(log, stream_id)) == "text"


def test_the_words_of_the_log_name_the_outcome_and_no_text(
    producers: Producers, log: MemoryLog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    stream_id = begin(producers, log, ScriptedSource(*says("secret words")), request_id="req_1")
    last_of(log, stream_id)
    eventually(lambda: finished(producers))

    (record,) = [record for record in caplog.records if record.message == "stream ended"]
    assert record.__dict__["outcome"] == "stop"
    assert record.__dict__["stream_id"] == stream_id
    assert record.__dict__["request_id"] == "req_1"
    assert record.__dict__["records"] == log.head(stream_id).last_seq
    assert "secret" not in str([record.__dict__ for record in caplog.records])


# Metrics


def test_reasoning_counts_as_tokens_but_not_as_text(producers: Producers, log: MemoryLog) -> None:
    source = ScriptedSource([Reasoning("hmm")], [Token("text")], [Done("stop")])

    last = last_of(log, begin(producers, log, source))

    assert last.metrics is not None
    assert last.metrics.tokens == 2
    assert last.metrics.time_to_first_token_ms is not None


def test_live_metrics_come_between_the_tokens(
    producers: Producers, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.tally.METRICS_SECONDS", 0.0)
    stream_id = begin(producers, log, ScriptedSource(*says("a", "b", "c")))

    last_of(log, stream_id)
    ticks = [event for event in all_events(log, stream_id) if isinstance(event, MetricsTick)]
    assert [tick.metrics.tokens for tick in ticks] == [1, 2, 3]


# Cancel


def test_a_cancel_ends_a_wait_and_closes_the_upstream(producers: Producers, log: MemoryLog) -> None:
    gate = Gate()
    source = ScriptedSource([Token("so far")], gate, [Done("stop")])
    stream_id = begin(producers, log, source)
    gate.reached.wait(2)

    assert producers.cancel(stream_id, timeout=2) is True

    assert source.closed == 1
    last = last_of(log, stream_id)
    assert isinstance(last, Done)
    assert last.finish_reason == "cancelled"
    assert log.head(stream_id).state == "cancelled"
    assert text_of(all_events(log, stream_id)) == "so far"


def test_a_cancel_keeps_the_usage_known_so_far(producers: Producers, log: MemoryLog) -> None:
    gate = Gate()
    stream_id = begin(producers, log, ScriptedSource([Usage({"completion_tokens": 3})], gate))
    gate.reached.wait(2)

    producers.cancel(stream_id, timeout=2)

    assert last_of(log, stream_id).usage == {"completion_tokens": 3}


def test_a_cancel_before_the_run_began_ends_it(producers: Producers, log: MemoryLog) -> None:
    source = ScriptedSource(Gate(), [Done("stop")])
    stream_id = begin(producers, log, source)

    assert producers.cancel(stream_id, timeout=2) is True

    assert log.head(stream_id).state == "cancelled"
    assert source.closed == source.opened


def test_a_cancel_of_a_run_elsewhere_says_so_at_once(producers: Producers) -> None:
    assert producers.cancel("st_elsewhere", timeout=60) is False


def test_a_cancel_that_comes_after_the_end_changes_nothing(producers: Producers, log: MemoryLog) -> None:
    stream_id = begin(producers, log, ScriptedSource(*says("text")))
    last_of(log, stream_id)
    eventually(lambda: finished(producers))

    assert producers.cancel(stream_id, timeout=1) is False

    assert log.head(stream_id).state == "completed"


def test_a_run_that_ended_and_still_closes_its_upstream_keeps_its_state(
    producers: Producers, log: MemoryLog
) -> None:
    gate = Gate()
    source = ScriptedSource([Token("text")], [Done("stop")], gate)
    stream_id = begin(producers, log, source)
    gate.reached.wait(2)

    assert producers.cancel(stream_id, timeout=2) is True

    assert isinstance(last_of(log, stream_id), Done)
    assert log.head(stream_id).state == "completed"


def test_another_worker_cancels_through_the_log(producers: Producers, log: MemoryLog) -> None:
    gate = Gate()
    stream_id = begin(producers, log, ScriptedSource(gate))
    gate.reached.wait(2)

    log.request_cancel(stream_id)

    assert ended(log, stream_id, 1) == "cancelled"


def test_a_run_that_never_waits_is_cancelled_by_what_its_append_says(
    producers: Producers, log: MemoryLog
) -> None:
    source = ScriptedSource(*([Token(str(n))] for n in range(5)), 0.0, [Done("stop")])
    stream_id = begin(producers, log, source)
    log.request_cancel(stream_id)

    assert ended(log, stream_id) == "cancelled"


# Limits


def test_a_run_ends_with_its_time(make_producers: MakeProducers, log: MemoryLog) -> None:
    producers = make_producers(replace(LIMITS, seconds=0.05))
    source = ScriptedSource([Token("so far")], Gate())

    last = last_of(log, begin(producers, log, source))

    assert isinstance(last, Error)
    assert (last.error.type, last.error.code) == ("limit_exceeded", "duration")
    assert source.closed == 1


def test_a_request_may_ask_for_less_time_but_not_for_more(
    make_producers: MakeProducers, log: MemoryLog
) -> None:
    producers = make_producers(replace(LIMITS, seconds=0.2))

    less = begin(producers, log, ScriptedSource(Gate()), seconds=0.05)
    more = begin(producers, log, ScriptedSource(Gate()), seconds=3600.0)

    assert ended(log, less) == "failed"
    assert not log.head(more).ended
    assert ended(log, more) == "failed"


def test_a_run_ends_at_its_limit_of_events(make_producers: MakeProducers, log: MemoryLog) -> None:
    producers = make_producers(replace(LIMITS, events=50))
    source = ScriptedSource(*([Token("x")] for _ in range(100)))

    stream_id = begin(producers, log, source)

    last = last_of(log, stream_id)
    assert isinstance(last, Error)
    assert (last.error.type, last.error.code) == ("limit_exceeded", "events")
    assert log.head(stream_id).last_seq <= 51
    assert source.closed == 1


def test_a_run_ends_at_its_limit_of_bytes(make_producers: MakeProducers, log: MemoryLog) -> None:
    producers = make_producers(replace(LIMITS, bytes=10_000))
    source = ScriptedSource(*([Token("x" * 900)] for _ in range(100)))

    stream_id = begin(producers, log, source)

    last = last_of(log, stream_id)
    assert isinstance(last, Error)
    assert (last.error.type, last.error.code) == ("limit_exceeded", "bytes")
    assert sum(len(record.payload) for record in all_records(log, stream_id)) < 12_000


def test_one_batch_over_the_limit_is_refused_whole(make_producers: MakeProducers, log: MemoryLog) -> None:
    producers = make_producers(replace(LIMITS, events=50))
    stream_id = begin(producers, log, ScriptedSource([Token("fits")], [Token("x")] * 100))

    assert isinstance(last_of(log, stream_id), Error)
    assert text_of(all_events(log, stream_id)) == "fits"


def test_a_worker_takes_only_so_many_runs(make_producers: MakeProducers, log: MemoryLog) -> None:
    producers = make_producers(replace(LIMITS, streams=2))
    gates = [Gate(), Gate()]
    for gate in gates:
        producers.check_room()
        begin(producers, log, ScriptedSource(gate, [Done("stop")]))

    with pytest.raises(Overloaded) as refused:
        producers.check_room()
    assert refused.value.retry_after_seconds

    gates[0].open()
    eventually(lambda: len(producers) == 1)
    producers.check_room()


# Fenced, and a store that fails


def test_a_run_that_was_taken_over_stops_and_writes_nothing(
    make_producers: MakeProducers, log: MemoryLog
) -> None:
    old, new = make_producers(), make_producers()
    gate = Gate()
    source = ScriptedSource([Token("so far")], gate, [Token("too late")], [Done("stop")])
    stream_id = begin(old, log, source)
    gate.reached.wait(2)

    assert new.take_over(stream_id, Interrupted("gone", code="worker_lost"), force=True)
    gate.open()

    eventually(lambda: finished(old))
    assert source.closed == 1
    last = last_of(log, stream_id)
    assert isinstance(last, Error)
    assert (last.error.type, last.error.code) == ("interrupted", "worker_lost")
    assert log.head(stream_id).state == "interrupted"
    assert all_records(log, stream_id)[-1].gen == 2


def test_a_run_that_was_taken_over_closes_its_upstream_also_while_that_is_silent(
    make_producers: MakeProducers, log: MemoryLog
) -> None:
    old, new = make_producers(), make_producers()
    gate = Gate()
    source = ScriptedSource([Token("so far")], gate, [Done("stop")])
    stream_id = begin(old, log, source)
    gate.reached.wait(2)

    new.take_over(stream_id, Interrupted("gone", code="worker_lost"), force=True)

    eventually(lambda: source.closed == 1, 2)
    eventually(lambda: finished(old))
    assert isinstance(last_of(log, stream_id), Error)


def test_streams_of_a_worker_that_lost_its_lease_are_interrupted(
    make_producers: MakeProducers, log: MemoryLog
) -> None:
    wedged = make_producers(replace(LIMITS, lease_seconds=0.05))
    gate = Gate()
    source = ScriptedSource([Token("so far")], gate, [Token("too late")], [Done("stop")])
    stream_id = begin(wedged, log, source)
    gate.reached.wait(2)
    make_producers()

    gevent.killall(wedged._chores)  # its loop hangs: it renews nothing, and its run goes on

    assert ended(log, stream_id, 2) == "interrupted"
    gate.open()
    eventually(lambda: finished(wedged))
    last = last_of(log, stream_id)
    assert isinstance(last, Error)
    assert (last.error.code, last.error.retryable, last.error.partial) == ("lease_expired", True, True)
    assert text_of(all_events(log, stream_id)) == "so far"


def test_a_worker_that_renews_its_lease_keeps_its_runs(make_producers: MakeProducers, log: MemoryLog) -> None:
    slow = make_producers(replace(LIMITS, lease_seconds=0.2))
    make_producers()
    gate = Gate()
    stream_id = begin(slow, log, ScriptedSource(gate, [Done("stop")]))

    gevent.sleep(0.5)  # two leases and several sweeps
    gate.open()

    assert ended(log, stream_id) == "completed"


def test_streams_left_by_a_worker_are_ended_before_the_next_one_is_ready(
    make_producers: MakeProducers, log: MemoryLog
) -> None:
    left = log.create(new_stream(log, "gone"), [encode(Start("st", "chat", "demo", 0)), encode(Token("hi"))])

    make_producers()

    assert log.head(left).state == "interrupted"
    last = last_of(log, left)
    assert isinstance(last, Error)
    assert last.error.retryable


def test_a_cancel_that_the_owner_does_not_hear_is_written_by_the_canceller(
    make_producers: MakeProducers, log: MemoryLog
) -> None:
    owner, canceller = make_producers(), make_producers()
    gate = Gate()
    stream_id = begin(owner, log, ScriptedSource([Token("so far")], gate))
    gate.reached.wait(2)

    assert canceller.take_over(stream_id, None, force=True)
    assert canceller.take_over(stream_id, None, force=True) is False

    assert isinstance(last_of(log, stream_id), Done)
    assert log.head(stream_id).state == "cancelled"


def test_when_the_store_refuses_an_append_the_upstream_is_closed(
    make_producers: MakeProducers, unsteady_log: UnsteadyLog
) -> None:
    producers = make_producers(on=unsteady_log)
    gate = Gate()
    source = ScriptedSource([Token("so far")], gate, [Token("lost")], [Done("stop")])
    stream_id = begin(producers, unsteady_log, source)
    gate.reached.wait(2)
    unsteady_log.broken = {"append"}
    gate.open()

    eventually(lambda: source.closed == 1)
    eventually(lambda: finished(producers))
    unsteady_log.broken = set()

    assert ended(unsteady_log, stream_id, 3) in ("failed", "interrupted"), "it runs for ever"
    assert text_of(all_events(unsteady_log, stream_id)) == "so far"


def test_a_cancel_while_the_store_is_away_is_still_written_later(
    make_producers: MakeProducers, unsteady_log: UnsteadyLog
) -> None:
    producers = make_producers(on=unsteady_log)
    gate = Gate()
    stream_id = begin(producers, unsteady_log, ScriptedSource(gate))
    gate.reached.wait(2)
    unsteady_log.broken = {"append"}
    producers.cancel(stream_id, timeout=1)
    unsteady_log.broken = set()

    assert ended(unsteady_log, stream_id, 3) in ("cancelled", "interrupted")


@pytest.mark.parametrize("method", ["append", "read"])
def test_a_take_over_that_could_not_be_finished_is_tried_again(
    make_producers: MakeProducers, unsteady_log: UnsteadyLog, method: str
) -> None:
    make_producers(on=unsteady_log)
    unsteady_log.broken = {method}
    stream_id = unsteady_log.create(
        new_stream(unsteady_log, "gone"), [encode(Start("st", "chat", "demo", 0))]
    )
    eventually(lambda: unsteady_log.refused)
    unsteady_log.broken = set()

    assert ended(unsteady_log, stream_id, 3) == "interrupted"


@pytest.mark.parametrize("lost_answers", [1, 2, 3])
def test_an_append_that_was_written_and_not_answered_does_not_leave_the_stream_running(
    make_producers: MakeProducers, lost_answers: int
) -> None:
    log = ForgetfulLog()
    producers = make_producers(on=log)
    gate = Gate()
    stream_id = begin(producers, log, ScriptedSource([Token("a")], gate, [Token("b")], [Done("stop")]))
    gate.reached.wait(2)
    log.lost_answers = lost_answers
    gate.open()

    last_of(log, stream_id)
    eventually(lambda: finished(producers))


def test_a_stream_that_cannot_be_read_keeps_no_other_from_being_ended(
    make_producers: MakeProducers, log: MemoryLog
) -> None:
    odd = log.create(new_stream(log, "gone"), [b'{"type":"of another version"}'])
    good = log.create(new_stream(log, "gone"), [encode(Start("st", "chat", "demo", 0))])

    make_producers()

    assert ended(log, good, 2) == "interrupted"
    assert ended(log, odd, 2) == "interrupted"


@pytest.mark.parametrize("method", ["attended", "cancel_requests", "renew", "orphans"])
def test_a_store_that_fails_for_a_while_stops_no_chore(
    make_producers: MakeProducers, unsteady_log: UnsteadyLog, method: str
) -> None:
    producers = make_producers(replace(LIMITS, lease_seconds=0.1), on=unsteady_log)
    gate = Gate()
    stream_id = begin(producers, unsteady_log, ScriptedSource(gate), policy="grace")
    gate.reached.wait(2)

    unsteady_log.broken = {method}
    eventually(lambda: unsteady_log.refused)
    unsteady_log.broken = set()
    gevent.sleep(0.03)
    unsteady_log.request_cancel(stream_id)

    assert ended(unsteady_log, stream_id, 2) in ("cancelled", "interrupted")
    orphan = unsteady_log.create(new_stream(unsteady_log, "gone"), [encode(Start("st", "chat", "demo", 0))])
    assert ended(unsteady_log, orphan, 2) == "interrupted"


def test_a_stream_erased_while_its_upstream_is_closed_stops_no_chore(
    producers: Producers, log: MemoryLog
) -> None:
    lingering, waiting = Gate(), Gate()
    stream_id = begin(producers, log, ScriptedSource([Done("stop")], lingering), policy="grace")
    lingering.reached.wait(2)
    log.erase(stream_id)
    gevent.sleep(0.05)  # some rounds of looking at who reads

    other = begin(producers, log, ScriptedSource(waiting))
    waiting.reached.wait(2)
    log.request_cancel(other)

    assert ended(log, other, 2) == "cancelled"


# Streams nobody reads


def abandoned(limits: Limits) -> Limits:
    return replace(limits, grace_seconds=0.15)


def test_a_stream_nobody_reads_is_cancelled_after_its_grace(
    make_producers: MakeProducers, log: MemoryLog
) -> None:
    producers = make_producers(abandoned(LIMITS))
    source = ScriptedSource([Token("so far")], Gate())
    stream_id = begin(producers, log, source, policy="grace")

    gevent.sleep(0.08)
    assert not log.head(stream_id).ended
    assert ended(log, stream_id, 2) == "cancelled"
    assert source.closed == 1


def test_a_stream_with_a_reader_goes_on(
    make_producers: MakeProducers, log: MemoryLog, audience: Audience
) -> None:
    producers = make_producers(abandoned(LIMITS))
    stream_id = begin(producers, log, ScriptedSource(Gate()), policy="grace")
    audience.join(stream_id)
    gevent.sleep(0.4)
    assert not log.head(stream_id).ended

    audience.leave(stream_id)
    producers.left(stream_id)
    assert not log.head(stream_id).ended
    assert ended(log, stream_id, 2) == "cancelled"


def test_a_reader_that_comes_back_in_time_saves_the_run(
    make_producers: MakeProducers, log: MemoryLog, audience: Audience
) -> None:
    producers = make_producers(abandoned(LIMITS))
    gate = Gate()
    stream_id = begin(producers, log, ScriptedSource(gate, [Done("stop")]), policy="grace")
    for _ in range(4):
        audience.join(stream_id)
        gevent.sleep(0.03)
        audience.leave(stream_id)
        producers.left(stream_id)
        gevent.sleep(0.08)
    gate.open()

    assert ended(log, stream_id) == "completed"


def test_the_grace_counts_from_the_last_poll(
    make_producers: MakeProducers, log: MemoryLog, audience: Audience
) -> None:
    producers = make_producers(replace(LIMITS, grace_seconds=0.3))
    stream_id = begin(producers, log, ScriptedSource(Gate()), policy="grace")
    for _ in range(4):
        gevent.sleep(0.15)
        assert not log.head(stream_id).ended
        audience.poll(stream_id)

    gevent.sleep(0.2)
    assert not log.head(stream_id).ended
    gevent.sleep(0.25)
    assert log.head(stream_id).state == "cancelled"


def test_a_reader_on_another_worker_counts(make_producers: MakeProducers, log: MemoryLog) -> None:
    producers, other = make_producers(abandoned(LIMITS)), make_producers(heard_by=Audience())
    stream_id = begin(producers, log, ScriptedSource(Gate()), policy="grace")
    log.attend(stream_id, other.worker_id, 60)
    gevent.sleep(0.4)
    assert not log.head(stream_id).ended

    log.attend(stream_id, other.worker_id, 0)
    assert ended(log, stream_id, 2) == "cancelled"


def test_under_cancel_the_last_reader_that_leaves_ends_the_run_at_once(
    producers: Producers, log: MemoryLog, audience: Audience
) -> None:
    gate = Gate()
    source = ScriptedSource(gate)  # before the first token
    stream_id = begin(producers, log, source, policy="cancel")
    gate.reached.wait(2)
    audience.join(stream_id)
    audience.join(stream_id)
    audience.leave(stream_id)
    producers.left(stream_id)
    gevent.sleep(0.05)
    assert not log.head(stream_id).ended

    audience.leave(stream_id)
    producers.left(stream_id)

    assert ended(log, stream_id, 1) == "cancelled"
    assert source.closed == 1


def test_under_cancel_a_run_waits_for_its_first_reader(make_producers: MakeProducers, log: MemoryLog) -> None:
    producers = make_producers(abandoned(LIMITS))
    stream_id = begin(producers, log, ScriptedSource(Gate()), policy="cancel")

    gevent.sleep(0.08)
    assert not log.head(stream_id).ended
    assert ended(log, stream_id, 2) == "cancelled"


def test_under_continue_nobody_needs_to_read(make_producers: MakeProducers, log: MemoryLog) -> None:
    producers = make_producers(replace(LIMITS, grace_seconds=0.0))
    gate = Gate()
    stream_id = begin(producers, log, ScriptedSource(gate, [Done("stop")]), policy="continue")
    gevent.sleep(0.1)
    gate.open()

    assert ended(log, stream_id) == "completed"


# Shutdown


def test_a_worker_that_stops_lets_runs_end_and_interrupts_the_rest(
    producers: Producers, log: MemoryLog
) -> None:
    soon, never = Gate(), Gate()
    ends = begin(producers, log, ScriptedSource(soon, [Done("stop")]))
    stays = begin(producers, log, ScriptedSource([Token("so far")], never))
    never.reached.wait(2)

    stopping = gevent.spawn(producers.shutdown, 0.2)
    gevent.sleep(0.02)
    with pytest.raises(Overloaded) as refused:
        producers.check_room()
    assert (refused.value.code, refused.value.retry_after_seconds) == ("draining", 1)
    soon.open()
    stopping.get(timeout=3)

    assert log.head(ends).state == "completed"
    assert log.head(stays).state == "interrupted"
    last = last_of(log, stays)
    assert isinstance(last, Error)
    assert (last.error.code, last.error.retryable, last.error.partial) == ("shutdown", True, True)


def test_a_worker_that_is_closed_leaves_no_lease_behind(producers: Producers, log: MemoryLog) -> None:
    producers.shutdown(0)
    producers.close()

    left = log.create(new_stream(log, producers.worker_id), [b"first"])
    assert list(log.orphans()) == [(left, "worker_lost")]


def test_a_run_that_does_not_react_is_left_to_others(
    make_producers: MakeProducers, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = gevent.event.Event()
    producers, other = make_producers(), make_producers()
    stream_id = begin(producers, log, ScriptedSource(stuck.wait, [Done("stop")]))
    gevent.idle()
    monkeypatch.setattr(producer, "STOP_SECONDS", 0.05)

    producers.shutdown(0)
    producers.close()

    assert ended(log, stream_id, 2) == "interrupted"
    stuck.set()
    eventually(lambda: finished(producers))
    assert other.is_running(stream_id) is False


# What a run carries


NAME: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody")


def test_a_run_sees_the_context_of_its_request_and_only_that(producers: Producers, log: MemoryLog) -> None:
    seen: dict[str, str] = {}
    scopes: set[int] = set()
    gates: dict[str, Gate] = {}

    def note(name: str) -> ScriptedSource:
        gates[name] = Gate()

        def look() -> None:
            seen[name] = NAME.get()
            scopes.add(id(scope.current()))

        return ScriptedSource(gates[name], look, [Done("stop")])

    token = NAME.set("")
    ids = []
    for name in ("ada", "grace", "joan"):
        NAME.set(name)
        ids.append(begin(producers, log, note(name)))
    NAME.reset(token)
    for gate in reversed(gates.values()):
        gate.open()

    for stream_id in ids:
        ended(log, stream_id)
    assert seen == {"ada": "ada", "grace": "grace", "joan": "joan"}
    assert len(scopes) == 3
    assert NAME.get() == "nobody"
    assert isinstance(scope.current(), Scope)


def test_the_prompt_reaches_the_source(producers: Producers, log: MemoryLog) -> None:
    source = ScriptedSource([Done("stop")])

    last_of(log, begin(producers, log, source))

    assert source.prompts == [PROMPT]
