"""A reader sees every event once, wherever it was cut off."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import gevent
import pytest

from streaming.errors import (
    BadCursor,
    CursorLost,
    NotAuthenticated,
    NotFound,
    StreamExpired,
    StreamLost,
)
from streaming.eventlogs import Claim, new_stream_id
from streaming.eventlogs.memory import MemoryLog
from streaming.events import (
    START,
    Chunk,
    Cursor,
    Done,
    Event,
    Metrics,
    MetricsTick,
    Record,
    Token,
    decode,
    encode,
)
from streaming.reader import Merging, Reader, merged
from tests.doubles import all_records, new_stream

TEXT = ["Hel", "lo", " ", "wor", "ld"]


def made(log: MemoryLog, *events: Event, end: bool = False) -> Claim:
    claim = Claim(log.create(new_stream(log), [encode(Chunk(first={}))]), 1)
    for seq, event in enumerate(events, 2):
        log.append(claim, seq, [encode(event)])
    if end:
        finish(log, claim)
    return claim


def finish(log: MemoryLog, claim: Claim) -> None:
    log.append(claim, log.head(claim.stream_id).last_seq + 1, [encode(Done("stop"))], end="completed")


def tokens(*words: str) -> list[Event]:
    return [Token(word) for word in words or TEXT]


def follow(log: MemoryLog, stream_id: str, after: Cursor = START, timeout: float = 2.0) -> list[Record]:
    """Return everything up to the end."""
    found: list[Record] = []
    with Reader(log, stream_id, after) as reader:
        while not reader.ended:
            records = reader.next(timeout)
            assert records or reader.ended, "nothing came"
            found += records
    return found


def text_of(records: list[Record]) -> str:
    events = [decode(record.payload) for record in records]
    return "".join(event.content for event in events if isinstance(event, Token))


# Following


def test_a_reader_returns_what_is_stored_and_then_the_end(log: MemoryLog) -> None:
    claim = made(log, *tokens(), end=True)

    records = follow(log, claim.stream_id)

    assert records == all_records(log, claim.stream_id)
    assert text_of(records) == "Hello world"


def test_a_reader_returns_what_arrives(log: MemoryLog) -> None:
    claim = made(log)
    reading = gevent.spawn(follow, log, claim.stream_id)
    for seq, event in enumerate(tokens(), 2):
        gevent.sleep(0)
        log.append(claim, seq, [encode(event)])
    finish(log, claim)

    assert reading.get(timeout=2) == all_records(log, claim.stream_id)


def test_many_readers_all_see_the_same(log: MemoryLog) -> None:
    claim = made(log)
    readings = [gevent.spawn(follow, log, claim.stream_id) for _ in range(20)]
    gevent.idle()
    for seq in range(2, 302):
        log.append(claim, seq, [encode(Token(str(seq)))])
        if seq % 50 == 0:
            readings.append(gevent.spawn(follow, log, claim.stream_id))
            gevent.sleep(0)
    finish(log, claim)
    gevent.joinall(readings, timeout=5, raise_error=True)

    expected = all_records(log, claim.stream_id)
    assert all(reading.value == expected for reading in readings)


@pytest.mark.parametrize("cut", range(8))
def test_a_reader_cut_anywhere_sees_every_record_once(log: MemoryLog, cut: int) -> None:
    claim = made(log, *tokens(), end=True)
    whole = all_records(log, claim.stream_id)

    seen = whole[:cut]
    after = seen[-1].cursor if seen else START
    rest = follow(log, claim.stream_id, Cursor.parse(str(after)))

    assert seen + rest == whole


def test_a_reader_that_waits_in_vain_returns_nothing_after_its_time(log: MemoryLog) -> None:
    claim = made(log)
    with Reader(log, claim.stream_id, Cursor(1, 1)) as reader:
        before = time.monotonic()
        assert reader.next(0.05) == ()
        assert 0.04 < time.monotonic() - before < 1
        assert not reader.ended
        assert reader.next(0) == ()


class Restless(MemoryLog):
    """A log that keeps every watcher awake, as a notification may do for nothing."""

    @contextmanager
    def watch(self, stream_id: str, wake: Callable[[], None]) -> Iterator[None]:
        self.watched = gevent.spawn(self._disturb, wake)
        try:
            yield
        finally:
            self.watched.kill()

    def _disturb(self, wake: Callable[[], None]) -> None:
        while True:
            gevent.sleep(0.02)
            wake()


def test_a_reader_woken_for_nothing_does_not_wait_longer_for_that() -> None:
    log = Restless()
    claim = made(log)
    with Reader(log, claim.stream_id, Cursor(1, 1)) as reader:
        waiting = gevent.spawn(reader.next, 0.1)
        waiting.join(1)
        assert waiting.ready(), "every wake-up starts its time again"


def test_after_the_end_a_reader_returns_nothing_at_once(log: MemoryLog) -> None:
    claim = made(log, end=True)
    with Reader(log, claim.stream_id, START) as reader:
        assert len(reader.next(1)) == 2
        assert reader.ended
        before = time.monotonic()
        assert reader.next(60) == ()
        assert time.monotonic() - before < 1


def test_a_long_stream_comes_in_pages(log: MemoryLog) -> None:
    claim = made(log, *tokens(*map(str, range(1000))), end=True)
    with Reader(log, claim.stream_id, START) as reader:
        sizes = []
        while not reader.ended:
            sizes.append(len(reader.next(1)))

    assert sum(sizes) == 1002
    assert max(sizes) <= 256


def test_a_reader_that_leaves_stops_waiting_at_once(log: MemoryLog) -> None:
    claim = made(log)
    with Reader(log, claim.stream_id, Cursor(1, 1)) as reader:
        waiting = gevent.spawn(reader.next, 60)
        gevent.idle()
        reader.leave()
        assert waiting.get(timeout=1) == ()
        assert reader.left
        assert not reader.ended
        log.append(claim, 2, [encode(Token("more"))])
        assert reader.next(60) == ()


def test_a_reader_that_is_gone_watches_no_more() -> None:
    log = Restless()
    claim = made(log)
    with pytest.raises(RuntimeError), Reader(log, claim.stream_id, START):
        raise RuntimeError
    assert log.watched.ready()


def test_a_stream_erased_under_a_reader_says_so(log: MemoryLog) -> None:
    claim = made(log, *tokens(*map(str, range(400))), end=True)
    with Reader(log, claim.stream_id, START) as reader:
        reader.next(1)
        log.erase(claim.stream_id)
        with pytest.raises(StreamExpired):
            reader.next(1)


# Cursors: the table of the semantics


@pytest.mark.parametrize("gen", [0, 1, 7])
def test_event_zero_is_before_the_first_whatever_its_gen(log: MemoryLog, gen: int) -> None:
    claim = made(log, *tokens(), end=True)

    assert follow(log, claim.stream_id, Cursor(gen, 0)) == all_records(log, claim.stream_id)


def test_the_cursor_of_the_last_event_has_ended(log: MemoryLog) -> None:
    claim = made(log, end=True)

    reader = Reader(log, claim.stream_id, Cursor(1, 2))

    assert reader.ended


def test_the_cursor_of_the_last_event_so_far_has_not_ended(log: MemoryLog) -> None:
    claim = made(log)

    assert not Reader(log, claim.stream_id, Cursor(1, 1)).ended


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("cursor", ["1.7", "1.100", "2.1", "0.1", "2.2", "1.999999999999999999", "9.9"])
def test_a_cursor_the_log_does_not_hold_is_lost(log: MemoryLog, cursor: str, ended: bool) -> None:
    claim = made(log, *tokens("a", "b"), end=ended)

    with pytest.raises(CursorLost) as lost:
        Reader(log, claim.stream_id, Cursor.parse(cursor))

    assert lost.value.last_id == ("1.4" if ended else "1.3")


def test_after_a_take_over_each_gen_counts_for_its_own_events(log: MemoryLog) -> None:
    claim = made(log, *tokens("a", "b"))
    taken = log.take_over(claim.stream_id, "other", force=True)
    assert taken is not None
    log.append(taken, 4, [encode(Token("c"))])
    log.append(taken, 5, [encode(Done("stop"))], end="interrupted")

    for good in ("1.1", "1.2", "1.3", "2.4"):
        assert follow(log, claim.stream_id, Cursor.parse(good))[-1].seq == 5
    for lost in ("2.3", "1.4", "1.5", "2.1"):
        with pytest.raises(CursorLost) as refused:
            Reader(log, claim.stream_id, Cursor.parse(lost))
        assert refused.value.last_id == "2.5"
    assert Reader(log, claim.stream_id, Cursor(2, 5)).ended


def test_a_stream_that_is_not_there_is_refused_when_the_reader_is_made(log: MemoryLog) -> None:
    erased = made(log, end=True)
    log.erase(erased.stream_id)

    for error, stream_id in (
        (NotFound, new_stream_id(log.store_id)),
        (StreamLost, new_stream_id("a" * 8)),
        (StreamExpired, erased.stream_id),
    ):
        for cursor in (START, Cursor(1, 1)):
            with pytest.raises(error):
                Reader(log, stream_id, cursor)


def test_a_cursor_of_another_form_is_refused() -> None:
    with pytest.raises(BadCursor):
        Cursor.parse("42")


# Straight from the loop


def test_who_takes_records_straight_gets_all_that_come_while_it_waits_and_next_the_rest(
    log: MemoryLog,
) -> None:
    claim = made(log, *tokens())
    straight: list[Record] = []
    with Reader(log, claim.stream_id, START) as reader:
        first = list(reader.next(1))
        reader.straight = straight.extend
        waiting = gevent.spawn(reader.next, 5)
        gevent.sleep(0)
        for seq in range(7, 10):
            log.append(claim, seq, [encode(Token(str(seq)))])
        assert not waiting.ready()
        finish(log, claim)
        last = list(waiting.get(timeout=2))
        assert reader.ended

    assert [record.seq for record in straight] == [7, 8, 9]
    assert first + straight + last == all_records(log, claim.stream_id)


def test_a_nudged_reader_returns_with_nothing_and_misses_nothing(log: MemoryLog) -> None:
    claim = made(log, *tokens())
    straight: list[Record] = []

    def take(records: Sequence[Record]) -> None:
        straight.extend(records)
        reader.straight = None
        reader.nudge()

    with Reader(log, claim.stream_id, START) as reader:
        first = list(reader.next(1))
        reader.straight = take
        waiting = gevent.spawn(reader.next, 5)
        gevent.sleep(0)
        log.append(claim, 7, [encode(Token("seven"))])
        log.append(claim, 8, [encode(Token("eight"))])
        found = list(waiting.get(timeout=2))
        finish(log, claim)
        while not reader.ended:
            found += reader.next(1)

    assert [record.seq for record in straight] == [7]
    assert first + straight + found == all_records(log, claim.stream_id)


def test_a_reader_told_to_leave_takes_nothing_straight(log: MemoryLog) -> None:
    claim = made(log, *tokens())
    straight: list[Record] = []
    with Reader(log, claim.stream_id, START) as reader:
        reader.next(1)
        reader.straight = straight.extend
        waiting = gevent.spawn(reader.next, 5)
        gevent.sleep(0)
        reader.leave()
        log.append(claim, 7, [encode(Token("seven"))])
        waiting.get(timeout=2)

    assert straight == []


def test_a_reader_that_is_expelled_takes_nothing_straight_any_more(log: MemoryLog) -> None:
    claim = made(log, *tokens())
    straight: list[Record] = []
    with Reader(log, claim.stream_id, START) as reader:
        reader.next(1)
        reader.straight = straight.extend
        waiting = gevent.spawn(reader.next, 5)
        gevent.sleep(0)
        reader.expel(NotAuthenticated("your key was revoked", code="key_revoked"))
        log.append(claim, 7, [encode(Token("seven"))])
        with pytest.raises(NotAuthenticated):
            waiting.get(timeout=2)

    assert straight == []


# Merging


def test_merged_tokens_carry_their_count_and_the_place_of_the_last() -> None:
    records = [Record(1, seq, encode(Token(word))) for seq, word in enumerate(TEXT, 4)]

    assert merged(records, 2) == [
        Record(1, 5, encode(Token("Hello")), 2),
        Record(1, 7, encode(Token(" wor")), 2),
        Record(1, 8, encode(Token("ld"))),
    ]


def test_what_is_no_token_stays_and_keeps_its_place() -> None:
    tick = MetricsTick(Metrics(1, 1.0, 1.0))
    events = [Chunk(first={}), Token("a"), Token("b"), tick, Token("c"), Done("stop")]
    records = [Record(1, seq, encode(event)) for seq, event in enumerate(events, 1)]

    result = merged(records, 100)

    assert [decode(record.payload) for record in result] == [
        Chunk(first={}),
        Token("ab"),
        tick,
        Token("c"),
        Done("stop"),
    ]
    assert [record.seq for record in result] == [1, 3, 4, 5, 6]
    assert sum(record.events for record in result) == 6


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 1000])
def test_merging_changes_neither_the_text_nor_the_counts(log: MemoryLog, size: int) -> None:
    claim = made(log, *tokens(*map(str, range(700))), end=True)
    whole = all_records(log, claim.stream_id)
    found: list[Record] = []
    with Reader(log, claim.stream_id, START) as reader:
        merging = Merging(reader, size, 0.01)
        while not merging.ended:
            found += merging.next(1)

    assert text_of(found) == text_of(whole)
    assert sum(record.events for record in found) == len(whole)
    assert [record.seq for record in found] == sorted({record.seq for record in found})
    assert max(record.events for record in found) <= size


def test_merging_waits_for_company(log: MemoryLog) -> None:
    claim = made(log, Token("a"))
    with Reader(log, claim.stream_id, Cursor(1, 1)) as reader:
        merging = Merging(reader, 3, 5.0)
        waiting = gevent.spawn(merging.next, 10)
        gevent.idle()
        log.append(claim, 3, [encode(Token("b"))])
        gevent.idle()
        assert not waiting.ready()
        log.append(claim, 4, [encode(Token("c"))])

        assert waiting.get(timeout=1) == [Record(1, 4, encode(Token("abc")), 3)]


def test_merging_holds_nothing_back_longer_than_its_time(log: MemoryLog) -> None:
    claim = made(log)
    stop = False

    def write() -> None:
        seq = 2
        while not stop:
            log.append(claim, seq, [encode(Token("x"))])
            seq += 1
            gevent.sleep(0.01)

    writing = gevent.spawn(write)
    with Reader(log, claim.stream_id, Cursor(1, 1)) as reader:
        merging = Merging(reader, 1000, 0.1)
        before = time.monotonic()
        waiting = gevent.spawn(merging.next, 10)
        waiting.join(2)
        stop = True
        writing.join()
        assert waiting.ready(), "as long as tokens come, none is shown"
        assert time.monotonic() - before < 0.6
        assert text_of(list(waiting.value)).startswith("xxx")


@pytest.mark.parametrize("other", [Done("stop"), Chunk(whole={}), Token("x")], ids=["end", "chunk", "token"])
def test_merging_shows_the_end_at_once(log: MemoryLog, other: Event) -> None:
    claim = made(log, Token("a"), other)
    finish(log, claim)
    with Reader(log, claim.stream_id, Cursor(1, 1)) as reader:
        merging = Merging(reader, 1000, 60.0)
        before = time.monotonic()
        found: list[Record] = []
        while not merging.ended:
            found += merging.next(10)
    assert time.monotonic() - before < 1
    assert found[-1].is_a("done")


def test_merging_ends_with_its_reader(log: MemoryLog) -> None:
    claim = made(log)
    with Reader(log, claim.stream_id, Cursor(1, 1)) as reader:
        merging = Merging(reader, 10, 1.0)
        waiting = gevent.spawn(merging.next, 60)
        gevent.idle()
        reader.leave()
        assert list(waiting.get(timeout=1)) == []
        assert merging.left


def test_a_merging_reader_that_leaves_still_has_a_right_cursor(log: MemoryLog) -> None:
    claim = made(log, *tokens(*"abcdef"))
    with Reader(log, claim.stream_id, START) as reader:
        records = list(Merging(reader, 4, 0.01).next(0.05))
    finish(log, claim)

    rest = follow(log, claim.stream_id, records[-1].cursor)
    assert text_of(records) + text_of(rest) == "abcdef"


def test_a_reader_ahead_of_a_log_that_lost_its_tail_and_ended_is_told_so() -> None:
    log = MemoryLog()
    stream_id = log.create(new_stream(log, "w"), [b'{"type":"token","content":"a"}'] * 5)
    with Reader(log, stream_id, START) as reader:
        assert len(reader.next(0)) == 5
        stream = log._streams[stream_id]
        del stream.records[2:]  # what a failover of an asynchronous store does
        claim = log.take_over(stream_id, "other", force=True)
        assert claim is not None
        log.append(claim, 3, [b'{"type":"error"}'], end="interrupted")

        with pytest.raises(CursorLost) as lost:
            reader.next(0)

    assert lost.value.last_id == "2.3"
