"""What only the log in a file must stand: restarts, kills, damage, other processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import apsw
import gevent
import pytest

from streaming.errors import (
    Fenced,
    RateLimited,
    SettingsError,
    StoreFull,
    StoreUnavailable,
    StreamingError,
    StreamLost,
)
from streaming.eventlogs import Claim, _group_commit, _storage, sqlite
from streaming.eventlogs.sqlite import SQLiteLog
from tests.doubles import all_records, eventually, new_stream

REPOSITORY = Path(__file__).parents[2]
OpenFile = Callable[..., SQLiteLog]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "streams.db"


@pytest.fixture
def open_file(path: Path) -> Iterator[OpenFile]:
    opened: list[SQLiteLog] = []

    def open_(at: Path = path, synchronous: str = "NORMAL") -> SQLiteLog:
        opened.append(SQLiteLog(at, synchronous))
        return opened[-1]

    yield open_
    for log in opened:
        log.close()


def created(log: SQLiteLog, payloads: list[bytes] | None = None) -> Claim:
    log.renew("worker", 60)
    return Claim(log.create(new_stream(log), payloads or [b"first"]), 1)


def commits_in_wal(path: Path) -> int:
    """Count the transactions in the WAL. Source: https://www.sqlite.org/fileformat2.html, section 4."""
    wal = Path(f"{path}-wal").read_bytes()
    page_bytes = int.from_bytes(wal[8:12], "big")
    salt = wal[16:24]
    count = 0
    for start in range(32, len(wal), 24 + page_bytes):
        head = wal[start : start + 24]
        if head[8:16] != salt:
            break  # of an earlier round
        count += head[4:8] != b"\0\0\0\0"
    return count


# Restarts


@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
def test_what_was_written_is_there_after_a_restart(open_file: OpenFile, synchronous: str) -> None:
    log = open_file(synchronous=synchronous)
    claim = created(log, [b"one", b"two"])
    log.append(claim, 3, [b"three"])
    head, records = log.head(claim.stream_id), all_records(log, claim.stream_id)
    log.close()

    again = open_file(synchronous=synchronous)

    assert again.store_id == log.store_id
    assert again.head(claim.stream_id) == head
    assert all_records(again, claim.stream_id) == records
    again.append(claim, 4, [b"end"], end="completed")


def test_several_openers_at_once_agree_on_one_store(path: Path) -> None:
    script = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import sys, pathlib\n"
        "from streaming.eventlogs.sqlite import SQLiteLog\n"
        "print(SQLiteLog(pathlib.Path(sys.argv[1]), 'NORMAL').store_id)\n"
    )
    openers = [_python(script, str(path)) for _ in range(4)]

    answers = {opener.communicate(timeout=30)[0] for opener in openers}

    assert [opener.returncode for opener in openers] == [0] * 4
    assert len(answers) == 1


def test_an_existing_store_can_be_opened_while_another_process_writes(
    open_file: OpenFile, path: Path
) -> None:
    first = open_file()
    with _write_locked(path):
        assert open_file().store_id == first.store_id


def test_a_closed_log_refuses_everything_in_its_own_words(open_file: OpenFile) -> None:
    log = open_file()
    claim = created(log)
    log.close()
    log.close()

    uses: list[Callable[[], object]] = [
        lambda: log.append(claim, 2, [b"x"]),
        lambda: log.create(new_stream(log), [b"x"]),
        lambda: log.head(claim.stream_id),
        lambda: log.read(claim.stream_id, 0),
        lambda: log.orphans(),
        lambda: log.cancel_requests("worker"),
        lambda: log.attended([claim.stream_id]),
    ]
    for use in uses:
        with pytest.raises(StoreUnavailable):
            use()


def test_closing_waits_for_what_is_being_written(open_file: OpenFile) -> None:
    log = open_file()
    claim = created(log)
    writer = gevent.spawn(log.append, claim, 2, [b"second"])
    gevent.sleep(0)  # it has asked for a commit, which comes in the loop's next turn

    log.close()

    gevent.joinall([writer], timeout=2)
    assert writer.ready(), "the writer waits for ever"
    again = open_file()
    written = [record.payload for record in all_records(again, claim.stream_id)]
    assert written == ([b"first", b"second"] if writer.successful() else [b"first"])


def test_a_log_does_not_survive_a_fork(open_file: OpenFile) -> None:
    log = open_file()
    child = os.fork()
    if child == 0:
        try:
            log.renew("worker", 1)
        except StoreUnavailable as error:
            os._exit(42 if "another process" in str(error) else 1)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


# Kills


WRITER = """
from gevent import monkey; monkey.patch_all()
import sys, pathlib
from streaming.eventlogs import Claim, NewStream, new_stream_id
from streaming.eventlogs.sqlite import SQLiteLog

log = SQLiteLog(pathlib.Path(sys.argv[1]), "NORMAL")
log.renew("writer", 60)
claim = Claim(log.create(NewStream(new_stream_id(log.store_id), "writer", b"{}"), [b"event 1"]), 1)
print(claim.stream_id, flush=True)
seq = 2
while True:
    log.append(claim, seq, [b"event %d " % (seq + i) + b"x" * 300 for i in range(3)])
    seq += 3
    print(seq - 1, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 40, 700])
def test_after_a_kill_everything_acknowledged_is_there_and_nothing_is_torn(
    open_file: OpenFile, path: Path, acknowledged: int
) -> None:
    writer = _python(WRITER, str(path))
    assert writer.stdout is not None
    stream_id = writer.stdout.readline().strip()
    for _ in range(acknowledged):
        line = writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    rest = writer.stdout.read().split("\n")
    last_acknowledged = int(rest[-2] if len(rest) > 1 else line)
    writer.wait(10)

    log = open_file()
    records = all_records(log, stream_id)
    assert len(records) >= last_acknowledged >= acknowledged * 3
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert [int(record.payload.split()[1]) for record in records] == [record.seq for record in records]
    assert len(records) % 3 == 1, "a batch is torn"
    assert log.head(stream_id).last_seq == len(records)
    assert list(log.orphans()) == [(stream_id, "worker_lost")], "its lease would have lasted a minute"


def test_another_process_reads_what_is_committed_here_while_it_goes_on(
    open_file: OpenFile, path: Path
) -> None:
    log = open_file()
    claim = created(log)
    script = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import sys, pathlib, gevent.event\n"
        "from streaming.eventlogs.sqlite import SQLiteLog\n"
        "from streaming.reader import Reader\n"
        "from streaming.events import START\n"
        "log = SQLiteLog(pathlib.Path(sys.argv[1]), 'NORMAL')\n"
        "print('open', flush=True)\n"
        "with Reader(log, sys.argv[2], START) as reader:\n"
        "    while not reader.ended:\n"
        "        for record in reader.next(10): print(record.seq, flush=True)\n"
    )
    reader = _python(script, str(path), claim.stream_id)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "open\n"
    for seq in range(2, 200):
        log.append(claim, seq, [b"x"])
    log.append(claim, 200, [b"end"], end="completed")

    out, _ = reader.communicate(timeout=20)
    assert out.split() == [str(seq) for seq in range(1, 201)]


# Damage


@pytest.mark.parametrize("damage", [b"this is not a database" * 500, b"SQLite format 3\0" + b"\xff" * 9000])
def test_a_file_that_is_no_store_is_moved_aside_and_a_new_one_made(
    open_file: OpenFile, path: Path, damage: bytes
) -> None:
    old = open_file()
    claim = created(old)
    old.close()
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    path.write_bytes(damage)

    log = open_file()

    assert log.store_id != old.store_id
    with pytest.raises(StreamLost):
        log.read(claim.stream_id, 0)
    (aside,) = path.parent.glob("streams.db.damaged-*[0-9]")
    assert aside.read_bytes() == damage
    log.append(created(log), 2, [b"works"])


def test_a_store_moved_aside_twice_keeps_both(open_file: OpenFile, path: Path) -> None:
    for damage in (b"first damage" * 500, b"second damage" * 500):
        path.write_bytes(damage)
        open_file().close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)

    kept = {aside.read_bytes()[:12] for aside in path.parent.glob("streams.db.damaged-*")}
    assert kept == {b"first damage", b"second damag"}


FINDS: dict[str, Callable[[SQLiteLog, Claim], object]] = {
    "read": lambda log, claim: log.read(claim.stream_id, 0),
    "head": lambda log, claim: log.head(claim.stream_id),
    "orphans": lambda log, claim: log.orphans(),
    "append": lambda log, claim: log.append(claim, 21, [b"more"]),
    "create": lambda log, claim: log.create(new_stream(log), [b"first"]),
    "take_over": lambda log, claim: log.take_over(claim.stream_id, "other", force=True),
    "erase": lambda log, claim: log.erase(claim.stream_id),
}


@pytest.mark.parametrize("use", FINDS)
def test_a_store_found_damaged_later_is_replaced_and_its_streams_are_lost(
    open_file: OpenFile, path: Path, use: str
) -> None:
    old = open_file()
    claims = [created(old, [b"x" * 3000] * 20) for _ in range(20)]
    old.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: 4096 * 2] + b"\xaa" * (len(whole) - 4096 * 2))

    log, peer = open_file(), open_file()
    store_id = log.store_id

    with pytest.raises(StoreUnavailable):
        FINDS[use](log, claims[0])
    assert log.store_id != store_id
    for claim in claims:
        with pytest.raises(StreamLost):
            log.read(claim.stream_id, 0)
    again = created(log)
    log.append(again, 2, [b"works"])
    eventually(lambda: _holds(peer, again.stream_id), 5)
    assert peer.store_id == log.store_id
    assert list(path.parent.glob("streams.db.damaged-*[0-9]"))


def _holds(log: SQLiteLog, stream_id: str) -> bool:
    try:
        return log.head(stream_id).last_seq == 2
    except StreamingError:
        return False


def test_a_store_of_another_version_is_refused_by_name(open_file: OpenFile, path: Path) -> None:
    open_file().close()
    db = apsw.Connection(str(path))
    db.execute("UPDATE store SET schema = 999")
    db.close()

    with pytest.raises(SettingsError, match=r"EVENTLOG_URL.*schema 999"):
        open_file()


def test_a_store_of_the_version_before_is_brought_up_to_date(open_file: OpenFile, path: Path) -> None:
    log = open_file()
    claim = created(log)
    log.close()
    db = apsw.Connection(str(path))
    db.execute("DROP INDEX streams_of_owner")
    db.execute("DROP TABLE usage; DROP TABLE windows; DROP TABLE places")
    db.execute("ALTER TABLE streams DROP COLUMN owner")
    db.execute("ALTER TABLE streams ADD COLUMN request BLOB NOT NULL DEFAULT x'7b7d'")
    db.execute("ALTER TABLE streams ADD COLUMN last_seq INTEGER NOT NULL DEFAULT 1")
    db.execute("DROP TABLE requests")
    db.execute("UPDATE store SET schema = 1")
    db.close()

    log = open_file()

    assert log.head(claim.stream_id).owner == ""
    assert log.request(claim.stream_id) == b"{}"
    log.append(claim, log.head(claim.stream_id).last_seq + 1, [b"more"])
    new = log.create(new_stream(log, owner="somebody"), [b"first"])
    assert log.head(new).owner == "somebody"
    with pytest.raises(RateLimited):
        log.create(new_stream(log, owner="somebody", most_running=1), [b"first"])


def test_an_event_costs_the_same_whatever_the_request_was(open_file: OpenFile) -> None:
    log = open_file()

    def least_seconds(request: bytes) -> float:
        stream = new_stream(log, owner="somebody")._replace(request=request)
        claim = Claim(log.create(stream, [b"first"]), 1)

        def append_and_look(seq: int) -> None:
            log.append(claim, seq, [b"a token"])
            assert log.head(claim.stream_id).last_seq == seq

        return min(_seconds_of(partial(append_and_look, seq)) for seq in range(2, 12))

    assert least_seconds(b"x" * 20_000_000) < 10 * least_seconds(b"x")


def _seconds_of(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


# The machine


@pytest.mark.parametrize("kind", sorted(_storage.NETWORK_FILE_SYSTEMS))
def test_a_network_file_system_is_told_from_a_local_one(tmp_path: Path, kind: str) -> None:
    shared = tmp_path / "shared folder"
    (shared / "deep" / "local").mkdir(parents=True)
    (tmp_path / "shared folder2").mkdir()
    mounts = tmp_path / "mounts"
    escaped = str(shared).replace(" ", "\\040")
    mounts.write_text(
        "proc /proc proc rw 0 0\n"
        "/dev/sda1 / ext4 rw 0 0\n"
        f"server:/export {escaped} {kind} rw 0 0\n"
        f"/dev/sdb1 {escaped}/deep/local xfs rw 0 0\n"
    )

    assert _storage.file_system(shared, mounts) == kind
    assert _storage.file_system(shared / "deep", mounts) == kind
    assert _storage.file_system(shared / "deep" / "local", mounts) == "xfs"
    assert _storage.file_system(tmp_path / "shared folder2", mounts) == "ext4"
    assert _storage.file_system(tmp_path, mounts) == "ext4"


def test_of_two_mounts_at_one_place_the_later_counts(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/sda1 / ext4 rw 0 0\noverlay / overlay rw 0 0\n")

    assert _storage.file_system(tmp_path, mounts) == "overlay"


def test_a_system_without_a_list_of_mounts_is_taken_as_local(tmp_path: Path) -> None:
    assert _storage.file_system(tmp_path, tmp_path / "nothing here") == ""


def test_a_store_on_a_network_file_system_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_storage, "file_system", lambda folder: "nfs4")

    with pytest.raises(SettingsError, match=r"EVENTLOG_URL.*network file system \(nfs4\)"):
        _storage.prepare(tmp_path / "streams.db")


def test_a_place_that_cannot_hold_a_store_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for bad in (tmp_path / "file" / "streams.db", tmp_path / "folder"):
        with pytest.raises(SettingsError, match="EVENTLOG_URL"):
            _storage.prepare(bad)


def test_the_folder_of_a_store_is_made(open_file: OpenFile, tmp_path: Path) -> None:
    open_file(tmp_path / "new" / "deep" / "streams.db")

    assert (tmp_path / "new" / "deep" / "streams.db").exists()


@pytest.mark.parametrize(
    ("version", "fine"),
    [
        ("3.7.0", False),
        ("3.40.1", False),
        ("3.44.5", False),
        ("3.44.6", True),
        ("3.44.9", True),
        ("3.45.0", False),
        ("3.50.6", False),
        ("3.50.7", True),
        ("3.51.0", False),
        ("3.51.2", False),
        ("3.51.3", True),
        ("3.52.0", True),
        ("4.0.0", True),
    ],
)
def test_a_library_that_can_corrupt_a_log_is_refused(version: str, fine: bool) -> None:
    if fine:
        _storage.check_library(version)
    else:
        with pytest.raises(SettingsError, match=f"SQLite {version}"):
            _storage.check_library(version)


@pytest.mark.parametrize("url", ["sqlite:", "sqlite://", "sqlite:///", "sqlite://host", "sqlite"])
def test_a_url_without_a_file_is_refused_by_name(url: str) -> None:
    with pytest.raises(SettingsError, match="EVENTLOG_URL"):
        sqlite.create(url)


# Commits


def test_writes_of_one_turn_of_the_loop_are_committed_together(open_file: OpenFile, path: Path) -> None:
    log = open_file()
    claims = [created(log) for _ in range(50)]
    before = commits_in_wal(path)

    jobs = [gevent.spawn(log.append, claim, 2, [b"second"]) for claim in claims]
    gevent.joinall(jobs, timeout=10, raise_error=True)

    assert commits_in_wal(path) - before == 1


def test_writers_that_go_on_share_their_commits(open_file: OpenFile, path: Path) -> None:
    log = open_file()
    claims = [created(log) for _ in range(50)]
    before = commits_in_wal(path)

    def write(claim: Claim) -> None:
        for seq in range(2, 12):
            log.append(claim, seq, [b"x"])

    jobs = [gevent.spawn(write, claim) for claim in claims]
    gevent.joinall(jobs, timeout=10, raise_error=True)

    assert commits_in_wal(path) - before <= 20, "500 appends"


@pytest.mark.parametrize(
    ("writers", "pause", "most_mebibytes"),
    [pytest.param(50, 0.02, 24, id="at the pace of models"), pytest.param(20, 0.0, 64, id="at full speed")],
)
def test_the_wal_stays_small_while_somebody_reads(
    open_file: OpenFile, path: Path, writers: int, pause: float, most_mebibytes: int
) -> None:
    log = open_file()
    appends = 20_000 if not pause else 4_000
    claims = [created(log) for _ in range(writers)]
    largest = 0
    done = False

    def write(claim: Claim) -> None:
        for seq in range(2, appends // writers + 2):
            log.append(claim, seq, [b"x" * 1000])
            if pause:
                gevent.sleep(pause)

    def read() -> None:
        while not done:
            for claim in claims[:5]:
                all_records(log, claim.stream_id)
                gevent.sleep(0.001)

    def measure() -> None:
        nonlocal largest
        while not done:
            largest = max(largest, os.path.getsize(f"{path}-wal"))
            gevent.sleep(0.005)

    others = [gevent.spawn(read), gevent.spawn(measure)]
    gevent.joinall([gevent.spawn(write, claim) for claim in claims], timeout=60, raise_error=True)
    done = True
    gevent.joinall(others, timeout=10, raise_error=True)

    assert 0 < largest < most_mebibytes << 20, f"the WAL grew to {largest >> 20} MiB"


# Another process holds the lock


def test_while_another_process_writes_the_loop_goes_on_and_the_append_succeeds_later(
    open_file: OpenFile, path: Path
) -> None:
    log = open_file()
    claim = created(log)
    turns = 0

    def count() -> None:
        nonlocal turns
        while True:
            gevent.sleep(0.002)
            turns += 1

    counter = gevent.spawn(count)
    with _write_locked(path):
        writer = gevent.spawn(log.append, claim, 2, [b"second"])
        eventually(lambda: turns >= 50)
        assert not writer.ready()
        assert log.read(claim.stream_id, 0).records[-1].seq == 1, "reading goes on"
    writer.get(timeout=2)
    counter.kill()

    assert log.head(claim.stream_id).last_seq == 2


def test_a_store_held_for_too_long_is_unavailable_and_recovers(
    open_file: OpenFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_group_commit, "BUSY_SECONDS", 0.2)
    log = open_file()
    claim = created(log)
    with _write_locked(path):
        jobs = [gevent.spawn(log.append, claim, 2, [b"%d" % n]) for n in range(3)]
        gevent.joinall(jobs, timeout=3)
        assert [type(job.exception) for job in jobs] == [StoreUnavailable] * 3

    log.append(claim, 2, [b"second"])
    with pytest.raises(Fenced):
        log.append(claim, 2, [b"again"])


def test_a_write_that_cannot_be_stored_fails_alone(open_file: OpenFile) -> None:
    log = open_file()
    good = created(log)
    taken = new_stream(log)
    log.create(taken, [b"first"])

    jobs = [
        gevent.spawn(log.append, good, 2, [b"second"]),
        gevent.spawn(log.create, taken, [b"the same id again"]),
        gevent.spawn(log.create, new_stream(log), [b"fine"]),
    ]
    gevent.joinall(jobs, timeout=5)

    assert [job.successful() for job in jobs] == [True, False, True]
    assert isinstance(jobs[1].exception, StoreUnavailable)
    assert log.head(good.stream_id).last_seq == 2


class _write_locked:
    """Hold the file's write lock, as another process that is writing does."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._db = apsw.Connection(str(self._path))
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, *_: object) -> None:
        self._db.execute("ROLLBACK")
        self._db.close()


def _python(script: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


# A full disk


def test_a_full_disk_still_takes_the_ends_of_streams(open_file: OpenFile, path: Path) -> None:
    log = open_file()
    ballast = path.with_name(f"{path.name}-ballast")
    assert ballast.stat().st_size == 4 * 1024 * 1024
    stream_id = log.create(new_stream(log, "w"), [b"1"])
    _allow_more_pages(log, 4)  # as a disk with so much left

    with pytest.raises(StoreFull):
        log.append(Claim(stream_id, 1), 2, [b"x" * 40_000])
    _allow_more_pages(log, 1000)  # what the ballast gave back

    assert not ballast.exists()
    with pytest.raises(StoreFull):
        log.create(new_stream(log, "w"), [b"1"])
    log.append(Claim(stream_id, 1), 2, [b"the end"], end="failed")
    assert log.read(stream_id, 1).records[0].payload == b"the end"
    eventually(ballast.exists, 3)
    log.create(new_stream(log, "w"), [b"1"])


def _allow_more_pages(log: SQLiteLog, pages: int) -> None:
    db = log._file.db
    db.pragma("max_page_count", db.pragma("page_count") + pages)


def test_a_page_never_goes_past_the_head_it_was_read_with(
    open_file: OpenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, other = open_file(), open_file()
    stream_id = log.create(new_stream(log, "w"), [b"1"])
    rows = log._file.rows

    def rows_and_then_another_commits(sql: str, bindings: tuple[object, ...] = ()) -> list[object]:
        found = rows(sql, bindings)
        monkeypatch.setattr(log._file, "rows", rows)
        other.append(Claim(stream_id, 1), 2, [b"the end"], end="completed")
        return found

    monkeypatch.setattr(log._file, "rows", rows_and_then_another_commits)
    first = log.read(stream_id, 0)
    second = log.read(stream_id, first.records[-1].seq)

    assert [record.payload for record in first.records] == [b"1"]
    assert not first.closed
    assert [record.payload for record in second.records] == [b"the end"]
    assert second.closed


def test_a_log_that_was_held_by_somebody_gives_the_others_time_to_renew(
    open_file: OpenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("streaming.eventlogs._host.boot_seconds", lambda: now[0])
    log, other = open_file(), open_file()
    log.renew("w1", 10)
    other.renew("w2", 10)
    stream_id = other.create(new_stream(other, "w2"), [b"1"])

    now[0] += 12  # in which nobody could write
    assert log.orphans() == []
    log.renew("w1", 10)
    assert log.orphans() == []
    now[0] += 6  # w2 has had its time, and is late indeed

    assert log.orphans() == [(stream_id, "lease_expired")]
