"""What every event log promises, said of each of them."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import apsw
import gevent
import pytest
from gevent.event import Event as Flag

from streaming.errors import (
    Fenced,
    IdempotencyMismatch,
    NotFound,
    RateLimited,
    StreamExpired,
    StreamingError,
    StreamLost,
)
from streaming.eventlogs import PAGE_BYTES, PAGE_RECORDS, TERMINAL, Claim, EventLog, new_stream_id
from streaming.events import Record
from tests.doubles import all_records, eventually, new_stream, running

# From a commit by one worker until a reader of another is woken: the poll is every 10 ms.
FOREIGN_WAKE_SECONDS = 0.25


def created(log: EventLog, *payloads: bytes, worker_id: str = "worker", **fields: Any) -> Claim:
    """Create a stream of a worker that lives, and return the right to write it."""
    log.renew(worker_id, 60)
    stream_id = log.create(new_stream(log, worker_id, **fields), payloads or (b"first",))
    return Claim(stream_id, 1)


def ended(log: EventLog, *payloads: bytes) -> Claim:
    claim = created(log, *payloads)
    log.append(claim, len(payloads or (b"first",)) + 1, [b"end"], end="completed")
    return claim


def payloads_of(log: EventLog, stream_id: str) -> list[bytes]:
    return [record.payload for record in all_records(log, stream_id)]


# Create


def test_a_new_stream_runs_and_holds_its_first_events(log: EventLog) -> None:
    before = time.time()
    stream = new_stream(log)
    stream_id = log.create(stream, [b"one", b"two"])

    assert stream_id == stream.stream_id
    head = log.head(stream_id)
    assert head._replace(created=0.0) == ("running", 1, 2, "worker", 0.0, "")
    assert before - 1 <= head.created <= time.time() + 1
    assert not head.ended
    assert log.read(stream_id, 0) == ([Record(1, 1, b"one"), Record(1, 2, b"two")], False, False)


def test_the_same_key_gives_the_stream_it_made_before(log: EventLog) -> None:
    first = created(log, b"first", key="key", fingerprint="same")

    again = log.create(new_stream(log, key="key", fingerprint="same"), [b"second"])

    assert again == first.stream_id
    assert payloads_of(log, again) == [b"first"]


def test_a_key_is_refused_for_another_request_and_makes_nothing(log: EventLog) -> None:
    first = created(log, key="key", fingerprint="one")
    other = new_stream(log, key="key", fingerprint="other")

    with pytest.raises(IdempotencyMismatch):
        log.create(other, [b"second"])

    with pytest.raises(NotFound):
        log.head(other.stream_id)
    assert payloads_of(log, first.stream_id) == [b"first"]


def test_a_stream_is_its_owner_s_on_every_worker(log: EventLog, peer: EventLog) -> None:
    claim = created(log, owner="key_1")

    assert log.head(claim.stream_id).owner == peer.head(claim.stream_id).owner == "key_1"


def test_streams_without_a_key_are_all_different(log: EventLog) -> None:
    ids = {log.create(new_stream(log, fingerprint="same"), [b"first"]) for _ in range(5)}

    assert len(ids) == 5


def test_a_key_outlives_the_end_of_its_stream(log: EventLog) -> None:
    claim = created(log, key="key", fingerprint="f")
    log.append(claim, 2, [b"end"], end="completed")

    assert log.create(new_stream(log, key="key", fingerprint="f"), [b"x"]) == claim.stream_id


def test_the_request_is_kept_as_it_was(log: EventLog, peer: EventLog) -> None:
    request = bytes(range(256)) * 10_000
    stream_id = log.create(new_stream(log)._replace(request=request), [b"first"])

    assert log.request(stream_id) == peer.request(stream_id) == request
    with pytest.raises(NotFound):
        log.request(new_stream(log).stream_id)


def test_the_stream_of_a_key_is_found_until_it_is_erased(log: EventLog, peer: EventLog) -> None:
    assert log.find("key") is None
    claim = created(log, key="key", fingerprint="f")
    created(log)
    assert (log.find("key"), peer.find("key"), log.find("other"), log.find("")) == (
        claim.stream_id,
        claim.stream_id,
        None,
        None,
    )

    log.append(claim, 2, [b"end"], end="completed")
    assert peer.find("key") == claim.stream_id
    peer.erase(claim.stream_id)
    assert log.find("key") is None


def test_creators_at_the_same_time_with_one_key_share_one_stream(log: EventLog, peer: EventLog) -> None:
    news = [new_stream(log, f"worker {n}", key="key", fingerprint="f") for n in range(20)]

    jobs = [gevent.spawn((log, peer)[n % 2].create, new, [b"first"]) for n, new in enumerate(news)]
    gevent.joinall(jobs, timeout=10, raise_error=True)

    (winner,) = {job.value for job in jobs}
    assert log.head(winner).last_seq == 1
    for new in news:
        if new.stream_id != winner:
            with pytest.raises(NotFound):
                log.head(new.stream_id)


# Append


def test_events_are_read_in_the_order_they_were_appended(log: EventLog) -> None:
    claim = created(log)
    expected = [b"first"]
    for size in (1, 3, 1, 7, 2):
        payloads = [b"%d of %d" % (place, size) for place in range(size)]
        assert log.append(claim, len(expected) + 1, payloads) is False
        expected += payloads

    records = all_records(log, claim.stream_id)
    assert [record.payload for record in records] == expected
    assert [record.seq for record in records] == list(range(1, len(expected) + 1))
    assert {record.gen for record in records} == {1}
    assert log.head(claim.stream_id).last_seq == len(expected)


@pytest.mark.parametrize("seq", [0, 1, 2, 4, 5, 10**15])
def test_an_append_that_does_not_follow_the_last_event_is_refused_whole(log: EventLog, seq: int) -> None:
    claim = created(log, b"one", b"two")

    with pytest.raises(Fenced):
        log.append(claim, seq, [b"three", b"four"])

    assert payloads_of(log, claim.stream_id) == [b"one", b"two"]
    assert log.head(claim.stream_id).last_seq == 2


@pytest.mark.parametrize("gen", [0, 2, 7])
def test_an_append_with_another_gen_is_refused(log: EventLog, gen: int) -> None:
    claim = created(log)

    with pytest.raises(Fenced):
        log.append(claim._replace(gen=gen), 2, [b"second"])

    assert payloads_of(log, claim.stream_id) == [b"first"]


def test_an_append_that_is_repeated_changes_nothing(log: EventLog) -> None:
    claim = created(log)
    log.append(claim, 2, [b"second", b"third"])

    with pytest.raises(Fenced):
        log.append(claim, 2, [b"second", b"third"])

    assert payloads_of(log, claim.stream_id) == [b"first", b"second", b"third"]


def test_of_appends_at_the_same_place_one_wins(log: EventLog, peer: EventLog) -> None:
    claim = created(log)

    jobs = [gevent.spawn((log, peer)[n % 2].append, claim, 2, [b"by %d" % n]) for n in range(20)]
    gevent.joinall(jobs, timeout=10)

    (winner,) = [n for n, job in enumerate(jobs) if job.successful()]
    assert all(isinstance(job.exception, Fenced) for job in jobs if not job.successful())
    assert payloads_of(log, claim.stream_id) == [b"first", b"by %d" % winner]


def test_an_append_to_one_stream_refused_beside_others_takes_none_of_them_along(log: EventLog) -> None:
    good, bad = created(log), created(log)

    jobs = [
        gevent.spawn(log.append, good, 2, [b"second"]),
        gevent.spawn(log.append, bad, 9, [b"ninth"]),
        gevent.spawn(log.append, created(log), 2, [b"second"]),
    ]
    gevent.joinall(jobs, timeout=10)

    assert [job.successful() for job in jobs] == [True, False, True]
    assert payloads_of(log, good.stream_id) == [b"first", b"second"]


@pytest.mark.parametrize("payload", [b"", b"\0", b" ", b"\xff\xfe", b"x" * 200_000, "ü\u2028".encode()])
def test_payloads_come_back_as_they_were(log: EventLog, payload: bytes) -> None:
    claim = created(log)
    log.append(claim, 2, [payload, b"x", payload])

    assert payloads_of(log, claim.stream_id) == [b"first", payload, b"x", payload]


# Append from the loop


def pours(log: EventLog) -> bool:
    """Say whether the store takes appends from the loop."""
    claim = created(log)
    settled: list[Any] = []
    taken = log.append_soon(claim, 2, [b"two"], settled.append)
    eventually(lambda: settled or not taken)
    assert payloads_of(log, claim.stream_id) == ([b"first", b"two"] if taken else [b"first"])
    return taken


def test_an_append_from_the_loop_settles_in_order_and_is_read_as_any_other(log: EventLog) -> None:
    if not pours(log):
        return  # `pours` has seen that nothing was written
    claim = created(log)
    settled: list[tuple[int, Any]] = []
    seen: list[int] = []

    def in_the_loop() -> None:
        for seq in range(2, 12):
            payload = b"%d" % seq
            assert log.append_soon(
                claim, seq, [payload], lambda outcome, seq=seq: settled.append((seq, outcome))
            )

    with log.watch(claim.stream_id, lambda: seen.append(len(settled))):
        gevent.get_hub().loop.run_callback(in_the_loop)
        eventually(lambda: len(settled) == 10)

    assert settled == [(seq, False) for seq in range(2, 12)]
    assert seen, "nobody was woken"
    log.append(claim, 12, [b"12"])
    assert payloads_of(log, claim.stream_id) == [b"first", *(b"%d" % seq for seq in range(2, 13))]


def test_an_append_from_the_loop_is_told_of_a_cancel_and_of_a_fence(log: EventLog) -> None:
    if not pours(log):
        return
    claim = created(log)
    settled: list[Any] = []
    log.request_cancel(claim.stream_id)
    log.append_soon(claim, 2, [b"two"], settled.append)
    eventually(lambda: settled)
    assert settled == [True]

    for seq in (3, 5, 6, 4):  # 4 is missing when 5 and 6 come
        log.append_soon(claim, seq, [b"%d" % seq], settled.append)
    eventually(lambda: len(settled) == 5)

    assert [type(outcome) for outcome in settled] == [bool, bool, Fenced, Fenced, bool]
    assert payloads_of(log, claim.stream_id) == [b"first", b"two", b"3", b"4"]


def test_the_newest_events_are_at_hand_or_not_but_never_others(log: EventLog) -> None:
    claim = created(log)
    assert log.newest(new_stream_id("nostore0"), 0) is None
    with log.watch(claim.stream_id, lambda: None):
        for seq in range(2, 40):
            log.append(claim, seq, [b"%d" % seq])
            for after in range(seq + 1):
                page = log.newest(claim.stream_id, after)
                assert page is None or page == log.read(claim.stream_id, after)
        log.append(claim, 40, [b"end"], end="completed")
        page = log.newest(claim.stream_id, 39)
        assert page is None or (page.closed and page.records == [Record(1, 40, b"end")])


# The end


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_an_ended_stream_keeps_its_state_and_takes_nothing_more(log: EventLog, state: Any) -> None:
    claim = created(log)
    log.append(claim, 2, [b"last words", b"end"], end=state)

    head = log.head(claim.stream_id)
    assert head.ended
    assert head.state == state
    for attempt in (3, 2):
        for end in (None, "failed"):
            with pytest.raises(Fenced):
                log.append(claim, attempt, [b"more"], end=end)
    assert log.take_over(claim.stream_id, "other", force=True) is None
    log.request_cancel(claim.stream_id)
    assert log.head(claim.stream_id) == head
    assert payloads_of(log, claim.stream_id) == [b"first", b"last words", b"end"]


def test_of_several_ends_one_wins(log: EventLog, peer: EventLog) -> None:
    claim = created(log)

    jobs = [
        gevent.spawn((log, peer)[n % 2].append, claim, 2, [b"%d" % n], state)
        for n, state in enumerate(sorted(TERMINAL) * 3)
    ]
    gevent.joinall(jobs, timeout=10)

    (winner,) = [n for n, job in enumerate(jobs) if job.successful()]
    assert log.head(claim.stream_id).state == (sorted(TERMINAL) * 3)[winner]
    assert payloads_of(log, claim.stream_id) == [b"first", b"%d" % winner]


# Read


def test_a_stream_can_be_read_from_anywhere_also_from_inside_a_batch(log: EventLog) -> None:
    claim = created(log, b"1", b"2", b"3")
    log.append(claim, 4, [b"4", b"5", b"6", b"7"])
    log.append(claim, 8, [b"8"])
    log.append(claim, 9, [b"9", b"10"], end="completed")
    whole = all_records(log, claim.stream_id)

    for after in range(11):
        for limit in (1, 2, 3, 4, 256):
            page = log.read(claim.stream_id, after, limit)
            assert page.records == whole[after : after + limit]
            assert page.closed == (after + limit >= 10)


def test_a_page_of_a_stream_that_runs_is_never_closed(log: EventLog) -> None:
    claim = created(log, b"1", b"2")

    assert [log.read(claim.stream_id, after).closed for after in range(4)] == [False] * 4


@pytest.mark.parametrize("after", [3, 4, 1000, 10**17])
def test_after_the_last_event_an_ended_stream_is_empty_and_closed(log: EventLog, after: int) -> None:
    claim = ended(log, b"1", b"2")

    assert log.read(claim.stream_id, after) == ([], True, False)


@pytest.mark.parametrize("batch", [1, 50, 1000])
def test_a_page_holds_at_most_so_many_records(log: EventLog, batch: int) -> None:
    claim = created(log)
    for seq in range(2, 1002, batch):
        log.append(claim, seq, [b"x"] * batch)

    assert len(log.read(claim.stream_id, 0).records) == PAGE_RECORDS
    assert len(log.read(claim.stream_id, 300).records) == PAGE_RECORDS
    assert len(all_records(log, claim.stream_id)) == 1001


@pytest.mark.parametrize("batch", [1, 5, 200])
def test_a_page_stops_at_its_limit_of_bytes(log: EventLog, batch: int) -> None:
    claim = created(log)
    for seq in range(2, 202, batch):
        log.append(claim, seq, [b"x" * 4000] * batch)

    for after in (0, 1, 7, 150):
        records = log.read(claim.stream_id, after).records
        size = sum(len(record.payload) for record in records)
        assert PAGE_BYTES - 8000 <= size <= PAGE_BYTES + 4000
    assert len(all_records(log, claim.stream_id)) == 201


def test_an_event_larger_than_a_page_is_read_alone(log: EventLog) -> None:
    claim = created(log)
    large = b"x" * (PAGE_BYTES * 3)
    log.append(claim, 2, [large])
    log.append(claim, 3, [b"third"])

    assert [record.payload for record in log.read(claim.stream_id, 1).records] == [large]
    assert payloads_of(log, claim.stream_id) == [b"first", large, b"third"]


def test_a_peer_reads_what_was_committed(log: EventLog, peer: EventLog) -> None:
    claim = created(log)
    for seq in range(2, 30):
        log.append(claim, seq, [b"%d" % seq])
        assert peer.read(claim.stream_id, seq - 1).records == [Record(1, seq, b"%d" % seq)]
    log.append(claim, 30, [b"end"], end="failed")
    assert peer.read(claim.stream_id, 29) == ([Record(1, 30, b"end")], True, False)
    assert peer.head(claim.stream_id) == log.head(claim.stream_id)


# Watch


def test_a_watcher_is_woken_after_the_commit(log: EventLog) -> None:
    claim = created(log)
    seen: list[int] = []

    def look() -> None:
        seen.append(log.head(claim.stream_id).last_seq)

    with log.watch(claim.stream_id, look):
        for seq in range(2, 6):
            log.append(claim, seq, [b"x"])
            assert seen[-1] == seq
        log.append(claim, 6, [b"end"], end="completed")
        assert seen[-1] == 6


def test_a_watcher_that_left_is_not_woken(log: EventLog) -> None:
    claim = created(log)
    woken: list[str] = []

    with log.watch(claim.stream_id, lambda: woken.append("one")):
        with log.watch(claim.stream_id, lambda: woken.append("two")):
            log.append(claim, 2, [b"x"])
        one, two = woken.count("one"), woken.count("two")
        log.append(claim, 3, [b"x"])
        assert woken.count("one") > one
        assert woken.count("two") == two
        one = woken.count("one")
    log.append(claim, 4, [b"x"])

    assert (woken.count("one"), woken.count("two")) == (one, two)
    assert two > 0


def test_watchers_of_one_stream_are_all_woken_even_when_one_leaves_at_that(log: EventLog) -> None:
    claim = created(log)
    woken: list[int] = []
    watches: list[Any] = []

    def wake(number: int) -> Callable[[], None]:
        def woke() -> None:
            woken.append(number)

        return woke

    for number in range(5):
        watches.append(log.watch(claim.stream_id, wake(number)))
        watches[-1].__enter__()
    log.append(claim, 2, [b"x"])
    for watch in watches:
        watch.__exit__(None, None, None)

    assert sorted(woken) == [0, 1, 2, 3, 4]


def test_a_reader_that_watches_before_it_reads_misses_nothing(log: EventLog, peer: EventLog) -> None:
    claim = created(peer)
    total = 400

    def write() -> None:
        for seq in range(2, total + 1):
            peer.append(claim, seq, [b"%d" % seq], end="completed" if seq == total else None)
            if seq % 7 == 0:
                gevent.sleep(0)

    def follow() -> list[int]:
        flag = Flag()
        seqs: list[int] = []
        with log.watch(claim.stream_id, flag.set):
            while True:
                flag.clear()
                page = log.read(claim.stream_id, len(seqs))
                seqs += [record.seq for record in page.records]
                if page.closed:
                    return seqs
                if not page.records:
                    assert flag.wait(5), f"not woken for event {len(seqs) + 1}"

    readers = [gevent.spawn(follow) for _ in range(5)]
    writer = gevent.spawn(write)
    gevent.joinall([*readers, writer], timeout=20, raise_error=True)

    assert [reader.value for reader in readers] == [list(range(1, total + 1))] * 5


def test_a_commit_of_another_worker_wakes_within_its_time(log: EventLog, peer: EventLog) -> None:
    claim = created(log)
    waits = []
    flag = Flag()
    with peer.watch(claim.stream_id, flag.set):
        for seq in range(2, 42):
            flag.clear()
            log.append(claim, seq, [b"x"], end="completed" if seq == 41 else None)
            before = time.monotonic()
            assert flag.wait(2), f"not woken for event {seq}"
            waits.append(time.monotonic() - before)
            assert peer.head(claim.stream_id).last_seq == seq

    print(
        f"woken after {statistics.median(waits) * 1000:.2f} ms (median), {max(waits) * 1000:.2f} ms at most"
    )
    assert max(waits) < FOREIGN_WAKE_SECONDS


def test_an_owner_that_was_fenced_hears_of_the_new_owners_events(log: EventLog, peer: EventLog) -> None:
    claim = created(log)
    peer.renew("other", 60)
    flag = Flag()
    with log.watch(claim.stream_id, flag.set):
        taken = peer.take_over(claim.stream_id, "other", force=True)
        assert taken is not None
        peer.append(taken, 2, [b"end"], end="interrupted")
        assert flag.wait(2), "a reader beside the old owner was not woken"


# Cancel


def test_the_owner_learns_of_a_cancel_when_it_appends_or_asks(log: EventLog, peer: EventLog) -> None:
    claim, other = created(log), created(log)
    assert list(log.cancel_requests("worker")) == []

    peer.request_cancel(claim.stream_id)
    peer.request_cancel(claim.stream_id)

    assert list(log.cancel_requests("worker")) == [claim.stream_id]
    assert list(log.cancel_requests("somebody else")) == []
    assert log.append(claim, 2, [b"x"]) is True
    assert log.append(other, 2, [b"x"]) is False
    assert log.append(claim, 3, [b"end"], end="cancelled") is True
    assert list(log.cancel_requests("worker")) == []


def test_a_cancel_of_an_ended_stream_asks_nobody(log: EventLog) -> None:
    claim = ended(log)

    log.request_cancel(claim.stream_id)

    assert list(log.cancel_requests("worker")) == []
    assert log.head(claim.stream_id).state == "completed"


def test_a_cancel_reaches_the_new_owner(log: EventLog) -> None:
    claim = created(log)
    log.renew("new", 60)
    log.request_cancel(claim.stream_id)
    log.take_over(claim.stream_id, "new", force=True)

    assert list(log.cancel_requests("new")) == [claim.stream_id]
    assert list(log.cancel_requests("worker")) == []


# Leases and taking over


def test_a_worker_that_renews_keeps_its_streams(log: EventLog, peer: EventLog) -> None:
    claim = created(log)
    for _ in range(5):
        log.renew("worker", 0.2)
        gevent.sleep(0.05)
        assert list(peer.orphans()) == []
        assert peer.take_over(claim.stream_id, "other") is None


def test_a_worker_that_does_not_renew_loses_its_streams(log: EventLog, peer: EventLog) -> None:
    claim, finished = created(log), ended(log)
    log.renew("worker", 0.05)

    orphans = eventually(peer.orphans, 2)

    assert list(orphans) == [(claim.stream_id, "lease_expired")]
    peer.renew("other", 60)
    assert peer.take_over(claim.stream_id, "other") == Claim(claim.stream_id, 2)
    assert peer.take_over(finished.stream_id, "other") is None
    assert list(log.orphans()) == []
    head = log.head(claim.stream_id)
    assert (head.state, head.gen, head.worker_id, head.last_seq) == ("running", 2, "other", 1)


def test_streams_of_a_worker_that_retired_or_never_was_are_orphans(log: EventLog, peer: EventLog) -> None:
    retired = created(log, worker_id="retired")
    unknown = log.create(new_stream(log, "unknown"), [b"first"])
    alive = created(log, worker_id="alive")

    log.retire("retired")

    assert sorted(peer.orphans()) == sorted([(retired.stream_id, "worker_lost"), (unknown, "worker_lost")])
    assert peer.take_over(alive.stream_id, "other") is None


def test_a_lease_renewed_late_counts_again(log: EventLog) -> None:
    claim = created(log)
    log.renew("worker", 0.01)
    eventually(log.orphans, 2)

    log.renew("worker", 60)

    assert list(log.orphans()) == []
    assert log.take_over(claim.stream_id, "other") is None
    log.append(claim, 2, [b"x"])


def test_after_a_take_over_the_old_owner_is_fenced_and_the_new_one_writes(
    log: EventLog, peer: EventLog
) -> None:
    claim = created(log, b"one", b"two")
    peer.renew("other", 60)
    taken = peer.take_over(claim.stream_id, "other", force=True)
    assert taken == Claim(claim.stream_id, 2)

    for end in (None, "completed"):
        with pytest.raises(Fenced):
            log.append(claim, 3, [b"late"], end=end)
    peer.append(taken, 3, [b"three"])
    peer.append(taken, 4, [b"end"], end="interrupted")

    assert log.read(claim.stream_id, 0).records == [
        Record(1, 1, b"one"),
        Record(1, 2, b"two"),
        Record(2, 3, b"three"),
        Record(2, 4, b"end"),
    ]


def test_of_many_who_take_over_an_orphan_one_gets_it(log: EventLog, peer: EventLog) -> None:
    stream_id = log.create(new_stream(log, "gone"), [b"first"])
    for number in range(20):
        log.renew(f"worker {number}", 60)

    jobs = [
        gevent.spawn((log, peer)[number % 2].take_over, stream_id, f"worker {number}") for number in range(20)
    ]
    gevent.joinall(jobs, timeout=10, raise_error=True)

    (claim,) = [job.value for job in jobs if job.value is not None]
    assert claim == Claim(stream_id, 2)
    log.append(claim, 2, [b"end"], end="interrupted")


def test_of_many_who_take_over_by_force_the_last_may_write(log: EventLog, peer: EventLog) -> None:
    claim = created(log)

    jobs = [
        gevent.spawn((log, peer)[number % 2].take_over, claim.stream_id, f"worker {number}", True)
        for number in range(10)
    ]
    gevent.joinall(jobs, timeout=10, raise_error=True)

    claims = [job.value for job in jobs]
    assert sorted(taken.gen for taken in claims) == list(range(2, 12))
    assert log.head(claim.stream_id).gen == 11
    for taken in claims:
        if taken.gen < 11:
            with pytest.raises(Fenced):
                log.append(taken, 2, [b"x"])
    log.append(Claim(claim.stream_id, 11), 2, [b"x"])


def test_a_worker_learns_which_of_its_streams_are_not_its_own_any_more(log: EventLog, peer: EventLog) -> None:
    runs, taken, over, gone = created(log), created(log), ended(log), ended(log)
    log.erase(gone.stream_id)
    peer.renew("other", 60)
    ids = [claim.stream_id for claim in (runs, taken, over, gone)]
    assert sorted(log.lost("worker", ids)) == sorted(ids[2:])

    peer.take_over(taken.stream_id, "other", force=True)

    assert sorted(log.lost("worker", ids)) == sorted(ids[1:])
    assert sorted(log.lost("other", ids)) == sorted([ids[0], *ids[2:]])
    assert list(log.lost("worker", [])) == []
    assert list(log.lost("worker", [new_stream_id(log.store_id)])) != []


# Who reads where


def test_a_reader_noted_by_a_worker_is_known_to_all(log: EventLog, peer: EventLog) -> None:
    claim, other = created(log), created(log)
    peer.renew("reading", 60)
    assert not log.attended([claim.stream_id])

    peer.attend(claim.stream_id, "reading", 60)

    assert log.attended([claim.stream_id])
    assert not log.attended([other.stream_id])
    peer.attend(claim.stream_id, "reading", 0)
    assert not log.attended([claim.stream_id])


def test_of_many_streams_those_with_a_reader_are_told(log: EventLog) -> None:
    ids = [created(log).stream_id for _ in range(450)]
    read = set(ids[::3])
    for stream_id in read:
        log.attend(stream_id, "worker", 60)

    assert set(log.attended(ids)) == read
    assert set(log.attended([])) == set()
    assert set(log.attended(["st_unknown", ids[0]])) == {ids[0]}


def test_a_note_of_a_reader_fades(log: EventLog) -> None:
    claim = created(log)
    log.attend(claim.stream_id, "worker", 0.05)
    assert log.attended([claim.stream_id])

    eventually(lambda: not log.attended([claim.stream_id]), 2)


def test_a_second_note_never_shortens_the_first(log: EventLog) -> None:
    claim = created(log)
    log.attend(claim.stream_id, "worker", 60)
    log.attend(claim.stream_id, "worker", 0.01)
    gevent.sleep(0.05)

    assert log.attended([claim.stream_id])
    log.attend(claim.stream_id, "worker", 0)
    assert not log.attended([claim.stream_id])


def test_as_long_as_one_worker_has_a_reader_the_stream_is_attended(log: EventLog) -> None:
    claim = created(log, worker_id="one")
    log.renew("two", 60)
    log.attend(claim.stream_id, "one", 60)
    log.attend(claim.stream_id, "two", 60)

    log.attend(claim.stream_id, "one", 0)
    assert log.attended([claim.stream_id])

    log.attend(claim.stream_id, "two", 0)
    assert not log.attended([claim.stream_id])


def test_the_readers_of_a_worker_that_is_gone_do_not_count(log: EventLog) -> None:
    claim = created(log)
    for name, leave in (("retired", log.retire), ("expired", lambda name: log.renew(name, 0.0))):
        log.renew(name, 60)
        log.attend(claim.stream_id, name, 60)
        assert log.attended([claim.stream_id])
        leave(name)
        assert not log.attended([claim.stream_id]), name


# Erase and expire


def test_an_erased_stream_answers_that_it_expired(log: EventLog, peer: EventLog) -> None:
    claim = ended(log)

    log.erase(claim.stream_id)

    for handle in (log, peer):
        with pytest.raises(StreamExpired):
            handle.head(claim.stream_id)
        with pytest.raises(StreamExpired):
            handle.request(claim.stream_id)
        with pytest.raises(StreamExpired):
            handle.read(claim.stream_id, 0)
        with pytest.raises(StreamExpired):
            handle.erase(claim.stream_id)


def test_a_running_stream_is_not_erased(log: EventLog) -> None:
    claim = created(log)

    log.erase(claim.stream_id)

    assert payloads_of(log, claim.stream_id) == [b"first"]
    log.append(claim, 2, [b"second"])


def test_the_key_of_an_erased_stream_can_be_used_again(log: EventLog) -> None:
    claim = created(log, key="key", fingerprint="f")
    log.append(claim, 2, [b"end"], end="completed")
    log.erase(claim.stream_id)

    again = log.create(new_stream(log, key="key", fingerprint="other"), [b"x"])

    assert again != claim.stream_id


def test_a_watcher_of_an_erased_stream_is_woken(log: EventLog) -> None:
    claim = ended(log)
    flag = Flag()
    with log.watch(claim.stream_id, flag.set):
        log.erase(claim.stream_id)
        assert flag.wait(FOREIGN_WAKE_SECONDS)


def test_what_ended_long_ago_expires_and_is_forgotten_later(log: EventLog) -> None:
    old, runs = ended(log), created(log)
    gevent.sleep(0.01)
    between = time.time()
    gevent.sleep(0.01)
    fresh = ended(log)

    assert log.expire(ended_before=between, erased_before=0) == 1
    assert log.expire(ended_before=between, erased_before=0) == 0
    with pytest.raises(StreamExpired):
        log.head(old.stream_id)
    assert log.head(runs.stream_id).state == "running"
    assert log.head(fresh.stream_id).state == "completed"

    assert log.expire(ended_before=between, erased_before=time.time() + 1) == 1
    assert log.expire(ended_before=between, erased_before=time.time() + 1) == 0
    with pytest.raises(NotFound) as refused:
        log.head(old.stream_id)
    assert type(refused.value) is NotFound


def test_everything_old_expires_in_the_end(log: EventLog) -> None:
    streams = [ended(log) for _ in range(30)]

    rounds = 0
    while log.expire(time.time() + 1, 0):
        rounds += 1
        assert rounds < 100

    for claim in streams:
        with pytest.raises(StreamExpired):
            log.head(claim.stream_id)


# Streams that are not there


USES: dict[str, Callable[[EventLog, str], object]] = {
    "head": lambda log, stream_id: log.head(stream_id),
    "read": lambda log, stream_id: log.read(stream_id, 0),
    "read from a place": lambda log, stream_id: log.read(stream_id, 5, limit=1),
    "take_over": lambda log, stream_id: log.take_over(stream_id, "worker", force=True),
    "erase": lambda log, stream_id: log.erase(stream_id),
}


def answers(log: EventLog, stream_id: str) -> dict[str, type[Exception] | None]:
    """Return which error each use of the stream raises."""
    found: dict[str, type[Exception] | None] = {}
    for name, use in USES.items():
        try:
            use(log, stream_id)
        except (StreamingError, apsw.Error) as error:
            found[name] = type(error)
        else:
            found[name] = None
    return found


def all_raise(error: type[Exception]) -> dict[str, type[Exception] | None]:
    return dict.fromkeys(USES, error)


def test_a_stream_nobody_made_is_not_found(log: EventLog) -> None:
    assert answers(log, new_stream_id(log.store_id)) == all_raise(NotFound)


@pytest.mark.parametrize(
    "stream_id",
    ["", "x", "st_", "st_AAAAAAAA" + "a" * 26, "st_" + "a" * 33, "../etc", "a\0b", "st_" + "a" * 5000, "é"],
)
@pytest.mark.parametrize("use", ["head", "read", "read from a place", "take_over", "erase"])
def test_what_is_no_stream_id_is_not_found(log: EventLog, use: str, stream_id: str) -> None:
    with pytest.raises(NotFound):
        USES[use](log, stream_id)


def test_a_stream_of_another_store_is_lost(log: EventLog) -> None:
    elsewhere = new_stream_id("a" * 8 if log.store_id != "a" * 8 else "b" * 8)

    assert answers(log, elsewhere) == all_raise(StreamLost)


def test_an_erased_stream_answers_so_to_every_use(log: EventLog) -> None:
    claim = ended(log)
    log.erase(claim.stream_id)

    assert answers(log, claim.stream_id) == all_raise(StreamExpired)


def test_to_everything_else_a_stream_that_is_not_there_makes_no_difference(log: EventLog) -> None:
    claim = ended(log)
    log.erase(claim.stream_id)
    elsewhere = new_stream_id("a" * 8 if log.store_id != "a" * 8 else "b" * 8)

    for stream_id in (claim.stream_id, new_stream_id(log.store_id), elsewhere, ""):
        with pytest.raises(Fenced):
            log.append(Claim(stream_id, 1), 3, [b"x"])
        log.request_cancel(stream_id)
        assert list(log.cancel_requests("worker")) == []
        assert not log.attended([stream_id])
        log.attend(stream_id, "worker", 0)
        with log.watch(stream_id, lambda: None):
            pass
    with pytest.raises(StreamExpired):
        log.head(claim.stream_id)


def test_ids_name_their_store_and_cannot_be_guessed(log: EventLog, peer: EventLog) -> None:
    assert peer.store_id == log.store_id
    ids = [new_stream_id(log.store_id) for _ in range(1000)]

    assert len(set(ids)) == 1000
    assert {stream_id[:11] for stream_id in ids} == {f"st_{log.store_id}"}
    assert {len(stream_id) for stream_id in ids} == {37}


# Whose streams they are, and what they used


def test_an_owner_has_no_more_streams_running_than_it_may(log: EventLog, peer: EventLog) -> None:
    first = log.create(new_stream(log, owner="key_a", most_running=2), [b"first"])
    peer.create(new_stream(peer, owner="key_a", most_running=2), [b"first"])

    with pytest.raises(RateLimited) as refused:
        log.create(new_stream(log, owner="key_a", most_running=2), [b"first"])
    assert refused.value.code == "running"
    assert refused.value.retry_after_seconds
    peer.create(new_stream(peer, owner="key_b", most_running=2), [b"first"])

    log.append(Claim(first, 1), 2, [b"end"], end="completed")
    peer.create(new_stream(peer, owner="key_a", most_running=2), [b"first"])


def test_an_equal_create_joins_though_its_owner_may_start_no_more(log: EventLog, peer: EventLog) -> None:
    first = log.create(new_stream(log, owner="a", most_running=1, key="k", fingerprint="f"), [b"first"])
    again = new_stream(peer, owner="a", most_running=1, key="k", fingerprint="f")
    assert peer.create(again, [b"first"]) == first


def test_a_stream_that_was_taken_over_is_its_owners_until_it_ends(log: EventLog, peer: EventLog) -> None:
    stream_id = log.create(new_stream(log, owner="a", most_running=1), [b"first"])
    claim = peer.take_over(stream_id, "another", force=True)
    assert claim
    with pytest.raises(RateLimited):
        log.create(new_stream(log, owner="a", most_running=1), [b"first"])
    peer.append(claim, 2, [b"end"], end="interrupted")
    log.create(new_stream(log, owner="a", most_running=1), [b"first"])


def test_of_many_creates_at_once_exactly_as_many_succeed_as_may(log: EventLog, peer: EventLog) -> None:
    made, refused = [], []

    def create(on: EventLog) -> None:
        try:
            made.append(on.create(new_stream(on, owner="a", most_running=7), [b"first"]))
        except RateLimited as error:
            refused.append(error)

    with running(*(lambda on=on: create(on) for on in (log, peer) * 25)):
        pass
    assert (len(made), len(refused)) == (7, 43)
