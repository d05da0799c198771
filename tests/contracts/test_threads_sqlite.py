"""What only threads in the log's file must stand: files without them, damage, replacement, a full disk."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import gevent
import pytest
from msgspec.structs import replace

from streaming.errors import NotFound, SettingsError, StoreFull, StoreUnavailable
from streaming.eventlogs import Claim
from streaming.eventlogs.sqlite import SQLiteLog
from streaming.threads import Item, Thread
from streaming.threads.sqlite import SQLiteThreads
from tests.doubles import all_records, new_stream, running

Open = Callable[[], tuple[SQLiteLog, SQLiteThreads]]
THREAD = Thread("t1", "ana", "chat", "title", 1.0, 1.0)
ITEM = Item("t1", "a", "turn", 2.0, b"body")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "streams.db"


@pytest.fixture
def open_both(path: Path) -> Iterator[Open]:
    opened: list[tuple[SQLiteLog, SQLiteThreads]] = []

    def open_() -> tuple[SQLiteLog, SQLiteThreads]:
        log = SQLiteLog(path, "NORMAL")
        opened.append((log, SQLiteThreads(log)))
        return opened[-1]

    yield open_
    for log, threads in opened:
        threads.close()
        log.close()


def test_a_file_made_before_there_were_threads_is_given_their_tables(path: Path, open_both: Open) -> None:
    log = SQLiteLog(path, "NORMAL")
    log.renew("worker", 60)
    stream_id = log.create(new_stream(log), [b"first"])
    log.close()
    assert _tables(path).isdisjoint({"threads", "thread_items"})

    log, threads = open_both()
    threads.create(THREAD)
    assert threads.get("t1") == THREAD
    assert [record.payload for record in all_records(log, stream_id)] == [b"first"]
    _, again = open_both()
    assert again.get("t1") == THREAD


def test_threads_are_there_after_a_restart(open_both: Open) -> None:
    log, threads = open_both()
    threads.create(THREAD)
    threads.put(ITEM)
    threads.close()
    log.close()
    assert open_both()[1].items("t1") == [ITEM]


def test_threads_of_another_version_are_not_touched(path: Path, open_both: Open) -> None:
    open_both()[1].create(THREAD)
    db = apsw.Connection(str(path))
    db.execute("UPDATE thread_store SET schema = 99")
    db.close()
    with pytest.raises(SettingsError, match="another version"):
        open_both()[1].get("t1")


def test_a_file_that_another_worker_replaced_is_opened_anew(path: Path, open_both: Open) -> None:
    log, threads = open_both()
    _, peer = open_both()
    threads.create(THREAD)
    assert peer.get("t1") == THREAD
    log.replace()
    with pytest.raises(NotFound):
        peer.get("t1")
    peer.create(replace(THREAD, title="new"))
    assert threads.get("t1").title == "new"


def test_a_damaged_file_is_moved_aside_and_threads_go_on_in_a_new_one(path: Path, open_both: Open) -> None:
    log, threads = open_both()
    threads.create(THREAD)
    threads.put(replace(ITEM, body=b"x" * 100_000))
    threads.close()
    log.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: 4096 * 2] + b"\xaa" * (len(whole) - 4096 * 2))

    log, threads = open_both()
    store_id = log.store_id
    with pytest.raises(StoreUnavailable):
        threads.item("t1", "a")
    assert log.store_id != store_id
    assert [each for each in path.parent.iterdir() if "damaged" in each.name]
    threads.create(THREAD)
    assert threads.items("t1") == []


def test_nothing_is_added_while_the_disk_is_full(open_both: Open) -> None:
    log, threads = open_both()
    threads.create(THREAD)
    log.note_full()
    with pytest.raises(StoreFull):
        threads.put(ITEM)
    assert threads.get("t1") == THREAD, "reading goes on"
    threads.delete("t1")  # what frees room is done
    with pytest.raises(NotFound):
        threads.get("t1")


def test_large_items_do_not_hold_up_the_loop(open_both: Open) -> None:
    log, threads = open_both()
    log.renew("worker", 60)
    claim = Claim(log.create(new_stream(log), [b"first"]), 1)
    threads.create(THREAD)
    body = os.urandom(4_000_000)
    slowest_append, slowest_turn = 0.0, 0.0

    def write() -> None:
        for number in range(15):
            threads.put(replace(ITEM, id=f"i{number}", body=body))

    def turn_the_loop() -> None:
        nonlocal slowest_turn
        for _ in range(300):
            before = time.monotonic()
            gevent.sleep(0)
            slowest_turn = max(slowest_turn, time.monotonic() - before)

    def append() -> None:
        nonlocal slowest_append
        for seq in range(2, 302):
            before = time.monotonic()
            log.append(claim, seq, [b"more"])
            slowest_append = max(slowest_append, time.monotonic() - before)

    with running(write, append, turn_the_loop):
        pass
    assert len(threads.outline("t1")) == 15
    assert slowest_append < 1.0, "an append waited for more than one large write"
    assert slowest_turn < 0.5


def _tables(path: Path) -> set[str]:
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return {name for (name,) in db.execute("SELECT name FROM sqlite_schema").fetchall()}
    finally:
        db.close()
