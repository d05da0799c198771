"""Several readers on one greenlet: each event once and in its stream's order, nobody kept waiting."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import gevent
import pytest

from streaming.errors import CursorLost, StreamingError
from streaming.eventlogs import Claim
from streaming.eventlogs.memory import MemoryLog
from streaming.events import START, Done, Token, decode, encode
from streaming.reader import Reader
from streaming.several import Several
from tests.doubles import new_stream, running


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


def begun(log: MemoryLog, words: int = 0) -> Claim:
    claim = Claim(log.create(new_stream(log), [encode(Token("first "))]), 1)
    add(log, claim, words)
    return claim


def add(log: MemoryLog, claim: Claim, words: int, end: bool = False) -> None:
    seq = log.head(claim.stream_id).last_seq + 1
    payloads = [encode(Token(f"w{place} ")) for place in range(seq, seq + words)]
    if end:
        payloads.append(encode(Done("stop")))
    log.append(claim, seq, payloads, end="completed" if end else None)


@contextmanager
def following(log: MemoryLog, *claims: Claim) -> Iterator[tuple[Several, list[Reader]]]:
    readers = [Reader(log, claim.stream_id, START) for claim in claims]
    several = Several(readers)
    with ExitStack() as opened:
        for reader in readers:
            opened.enter_context(reader)
        yield several, readers


def read_all(several: Several) -> dict[str, list[int]]:
    """Return the places of each stream's events, read until all have ended."""
    found: dict[str, list[int]] = defaultdict(list)
    while not several.ended:
        heard = several.next(2)
        assert heard, "nothing came"
        assert heard.error is None
        found[heard.reader.stream_id] += [record.seq for record in heard.records]
    return found


def test_every_stream_is_read_once_and_in_order_while_all_are_written(log: MemoryLog) -> None:
    claims = [begun(log) for _ in range(5)]

    def write(claim: Claim) -> None:
        for _ in range(40):
            add(log, claim, 3)
            gevent.sleep(0)
        add(log, claim, 0, end=True)

    with following(log, *claims) as (several, _), running(*[lambda c=claim: write(c) for claim in claims]):
        found = read_all(several)

    assert found == {claim.stream_id: list(range(1, 123)) for claim in claims}


def test_a_long_answer_does_not_keep_a_short_one_waiting(log: MemoryLog) -> None:
    long, short = begun(log, 5000), begun(log, 1)

    with following(log, long, short) as (several, readers):
        turns = [several.next(1) for _ in range(3)]

    assert [turn.reader for turn in turns if turn] == [readers[0], readers[1], readers[0]]
    assert all(turn and len(turn.records) <= 256 for turn in turns)


def test_silence_takes_as_long_as_was_said_and_a_wake_up_ends_it(log: MemoryLog) -> None:
    claim = begun(log)

    with following(log, claim) as (several, _):
        assert several.next(0)
        assert several.next(0.01) is None
        with running(lambda: add(log, claim, 1)):
            heard = several.next(5)

    assert heard
    assert [decode(record.payload) for record in heard.records] == [Token("w2 ")]


def test_a_stream_that_cannot_be_read_is_named_and_the_others_go_on(log: MemoryLog) -> None:
    broken, whole = begun(log), begun(log)
    add(log, whole, 0, end=True)

    with following(log, broken, whole) as (several, readers):

        def fail(timeout: float) -> None:
            raise CursorLost("gone", last_id="0.0")

        readers[0].next = fail  # type: ignore[method-assign,assignment]
        heard = [several.next(1), several.next(1)]

    assert isinstance(heard[0] and heard[0].error, StreamingError)
    assert heard[0].reader is readers[0]
    assert heard[1] is not None
    assert heard[1].reader is readers[1]
    assert several.ended


def test_who_is_told_to_leave_leaves_at_once(log: MemoryLog) -> None:
    with following(log, begun(log), begun(log)) as (several, readers):
        while several.next(0):
            pass
        with running(readers[1].leave):
            assert several.next(30) is None
        assert several.left
        assert not several.ended


def test_one_that_is_dropped_says_nothing_more(log: MemoryLog) -> None:
    dropped, kept = begun(log, 3), begun(log)

    with following(log, dropped, kept) as (several, readers):
        several.drop(readers[0])
        add(log, dropped, 3)
        add(log, kept, 0, end=True)
        found = read_all(several)

    assert list(found) == [kept.stream_id]
