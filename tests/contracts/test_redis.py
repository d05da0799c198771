"""What only the log in a Redis server must stand: a server that goes away, forgets, or is another one."""

import logging
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event as Flag
from gevent.server import StreamServer

from streaming.errors import Fenced, NotFound, SettingsError, StoreFull, StoreUnavailable, StreamLost
from streaming.eventlogs import Claim, _redis_pipe, _redis_server, redis
from streaming.eventlogs import _redis_scripts as scripts
from streaming.eventlogs._redis_scripts import Script
from streaming.eventlogs.redis import RedisLog
from streaming.events import Record
from tests.contracts.redis_server import RedisServer
from tests.doubles import all_records, eventually, new_stream

REPOSITORY = Path(__file__).parents[2]
OpenLog = Callable[..., RedisLog]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def open_log(server: RedisServer) -> Iterator[OpenLog]:
    opened: list[RedisLog] = []

    def open_(url: str = "") -> RedisLog:
        opened.append(RedisLog(_redis_server.parse(url or server.url)))
        return opened[-1]

    yield open_
    for log in opened:
        log.close()


@pytest.fixture
def log(open_log: OpenLog) -> RedisLog:
    return open_log()


@pytest.fixture
def proxy(server: RedisServer) -> Iterator["Proxy"]:
    with Proxy(server.port) as proxy:
        yield proxy


def created(log: RedisLog, *payloads: bytes, worker_id: str = "worker", **fields: Any) -> Claim:
    log.renew(worker_id, 60)
    return Claim(log.create(new_stream(log, worker_id, **fields), payloads or (b"first",)), 1)


def numbers(log: RedisLog, stream_id: str) -> list[int]:
    """Return the numbers that `write` wrote, after checking that no event is missing or twice."""
    records = all_records(log, stream_id)
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    return [int(record.payload) for record in records[1:]]


def write(log: RedisLog, claim: Claim, numbers: range) -> None:
    """Append event ``n`` + 1 for each number ``n``."""
    for number in numbers:
        log.append(claim, number + 1, [b"%d" % number])


# Start


@pytest.mark.parametrize(
    "url",
    [
        "redis:",
        "redis://",
        "redis:///0",
        "redis://localhost:port",
        "redis://localhost/streams",
        "redis://localhost/0?wait_replicas=some",
        "redis://localhost/0?no_such_option=1",
        "http://localhost",
    ],
)
def test_a_url_that_names_no_server_is_refused_by_name(url: str) -> None:
    with pytest.raises(SettingsError, match="EVENTLOG_URL"):
        redis.create(url)


def test_a_password_is_not_shown(server: RedisServer) -> None:
    address = _redis_server.parse("redis://user:secret@localhost:1234/0")

    assert address.shown == "localhost:1234"
    with pytest.raises(SettingsError) as refused:
        redis.create(server.url.replace("127", "user:secret@127"))
    assert "secret" not in str(refused.value)
    assert "refuses the user or the password" in str(refused.value)


def test_a_server_that_is_not_there_is_waited_for_and_then_refused(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_redis_server, "START_SECONDS", 0.5)
    server.stop()
    with pytest.raises(SettingsError, match="EVENTLOG_URL: cannot connect to 127"):
        redis.create(server.url)

    opening = gevent.spawn(redis.create, server.url)
    gevent.sleep(0.1)
    server.start()
    opening.get(timeout=5).close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_may_evict_streams_is_refused_with_what_to_set(
    server: RedisServer, policy: str
) -> None:
    server.ask("CONFIG", "SET", "maxmemory-policy", policy)

    with pytest.raises(SettingsError, match=f"EVENTLOG_URL.*{policy}.*set maxmemory-policy noeviction"):
        redis.create(server.url)


@pytest.mark.parametrize(
    ("version", "fine"), [("6.2.14", False), ("7.0.0", True), ("10.1", True), ("", True)]
)
def test_a_server_that_is_too_old_is_refused(version: str, fine: bool) -> None:
    address = _redis_server.parse("redis://localhost")
    if fine:
        _redis_server._check_version(version, address)
    else:
        with pytest.raises(SettingsError, match=f"{version}; Redis or Valkey 7"):
            _redis_server._check_version(version, address)


def test_a_replica_is_refused(server: RedisServer, tmp_path: Path) -> None:
    with _replica_of(server, tmp_path) as replica, pytest.raises(SettingsError, match="name its primary"):
        redis.create(replica.url)


def test_the_user_needs_no_right_to_see_the_configuration(
    server: RedisServer, open_log: OpenLog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.ask(
        "ACL", "SETUSER", "limited", "on", ">secret", "~sluice:*", "+@all", "-@admin", "-@dangerous", "+info"
    )

    log = open_log(server.url.replace("127", "limited:secret@127"))

    claim = created(log)
    log.append(claim, 2, [b"end"], end="completed")
    assert log.head(claim.stream_id).state == "completed"
    assert "event log opened" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"), [(("--appendonly", "yes"), "AOF"), (("--save", "60 1"), "RDB"), ((), "none")]
)
def test_it_is_said_what_survives_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: tuple[str, ...], said: str
) -> None:
    caplog.set_level(logging.INFO)
    with RedisServer(tmp_path, *options) as server:
        redis.create(server.url).close()

    (persistence,) = [record.persistence for record in caplog.records if hasattr(record, "persistence")]
    assert str(persistence).startswith(said)


def test_a_store_of_another_version_is_refused_by_name(server: RedisServer, open_log: OpenLog) -> None:
    open_log().close()
    server.ask("HSET", "sluice:store", "schema", "999")

    with pytest.raises(SettingsError, match=r"EVENTLOG_URL.*schema 999"):
        open_log()


def test_nothing_in_the_server_lives_for_ever_but_what_names_the_store(
    server: RedisServer, log: RedisLog
) -> None:
    running, ended = created(log, key="key"), created(log)
    log.append(ended, 2, [b"end"], end="completed")
    log.attend(running.stream_id, "worker", 60)

    kept = {key.decode() for key in server.ask("KEYS", "*") if server.ask("TTL", key) == -1}

    assert kept == {"sluice:store", "sluice:owners", "sluice:running:worker", "sluice:ended"}


# The server forgets everything


def test_after_the_server_was_emptied_old_streams_are_lost_and_new_ones_work(
    server: RedisServer, open_log: OpenLog
) -> None:
    log, peer = open_log(), open_log()
    claim = created(log)
    old_id = log.store_id
    woken = Flag()
    with peer.watch(claim.stream_id, woken.set):
        server.ask("FLUSHALL")
        for handle in (log, peer):
            with pytest.raises(StreamLost):
                handle.read(claim.stream_id, 0)
        assert woken.wait(2)

    with pytest.raises(Fenced):
        log.append(claim, 2, [b"second"])
    assert log.store_id == peer.store_id != old_id
    again = created(log)
    assert peer.head(again.stream_id).last_seq == 1
    with pytest.raises(NotFound):
        peer.head(new_stream(log).stream_id)


def test_a_worker_that_creates_in_an_emptied_server_is_told_to_ask_again_and_keeps_its_lease(
    server: RedisServer, open_log: OpenLog
) -> None:
    log, peer = open_log(), open_log()
    log.renew("worker", 60)
    server.ask("FLUSHALL")

    with pytest.raises(StoreUnavailable, match="ask again"):
        log.create(new_stream(log), [b"first"])
    log.create(new_stream(log), [b"first"])

    assert list(peer.orphans()) == []


def test_a_renewed_lease_notices_that_the_server_was_emptied(server: RedisServer, log: RedisLog) -> None:
    old_id = log.store_id
    log.renew("worker", 60)
    server.ask("FLUSHALL")

    log.renew("worker", 60)

    assert log.store_id != old_id
    eventually(lambda: server.ask("EXISTS", "sluice:worker:worker"))


# The connection or the server goes away


def test_appends_go_on_over_a_restart_of_the_server_without_loss_or_repeat(
    server: RedisServer, open_log: OpenLog
) -> None:
    log, peer = open_log(), open_log()
    claim = created(log)
    writer = gevent.spawn(write, log, claim, range(1, 1500))
    follower = gevent.spawn(_follow, peer, claim.stream_id, 1500)

    def last_seq() -> int:
        return int(server.ask("HGET", f"sluice:{{{claim.stream_id}}}:meta", "seq"))

    for _ in range(2):
        seq = last_seq()
        eventually(lambda: last_seq() > seq + 50)  # noqa: B023
        server.stop()
        gevent.sleep(0.1)
        server.start()
    gevent.joinall([writer, follower], timeout=30, raise_error=True)

    assert numbers(peer, claim.stream_id) == list(range(1, 1500))
    assert follower.value == list(range(1, 1501))


def test_connections_that_are_cut_cost_no_event_and_repeat_none(
    server: RedisServer, open_log: OpenLog
) -> None:
    log, peer = open_log(), open_log()
    claims = [created(log) for _ in range(10)]
    jobs = [gevent.spawn(write, log, claim, range(1, 150)) for claim in claims]
    jobs += [gevent.spawn(_follow, peer, claim.stream_id, 150) for claim in claims]

    while not all(job.ready() for job in jobs):
        server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        gevent.sleep(0.01)
        gevent.joinall(jobs, timeout=0.01, raise_error=True)

    for claim in claims:
        assert numbers(peer, claim.stream_id) == list(range(1, 150))


CHANGES: dict[str, tuple[Script, Callable[[RedisLog, Claim], object]]] = {
    "append": (scripts.APPEND, lambda log, claim: log.append(claim, 2, [b"second", b"third"])),
    "end": (scripts.APPEND, lambda log, claim: log.append(claim, 2, [b"end"], end="completed")),
    "take over": (scripts.TAKE_OVER, lambda log, claim: log.take_over(claim.stream_id, "worker", force=True)),
    "cancel": (scripts.REQUEST_CANCEL, lambda log, claim: log.request_cancel(claim.stream_id)),
    "create": (scripts.CREATE, lambda log, claim: log.create(new_stream(log, key="key"), [b"first"])),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_whose_answer_was_lost_is_made_once_and_succeeds(
    server: RedisServer, open_log: OpenLog, proxy: "Proxy", change: str
) -> None:
    plain, log = open_log(), open_log(proxy.url)
    claim, expected = created(log), created(plain)
    script, make = CHANGES[change]
    answer = make(plain, expected)
    before = server.ask("DBSIZE")

    proxy.swallow_answers(to=script)
    asking = gevent.spawn(make, log, claim)
    assert proxy.swallowed.wait(5), "the server did not answer"
    proxy.cut()
    found = asking.get(timeout=5)

    if change == "create":
        assert found == log.find("key") == plain.find("key")
        assert server.ask("DBSIZE") == before
    else:
        assert str(found).replace(claim.stream_id, expected.stream_id) == str(answer)
        assert plain.head(claim.stream_id)[:3] == plain.head(expected.stream_id)[:3]
    assert len(all_records(plain, claim.stream_id)) == len(all_records(plain, expected.stream_id))


def test_an_erased_streams_lost_answer_is_no_error(open_log: OpenLog, proxy: "Proxy") -> None:
    log = open_log(proxy.url)
    claim = created(log)
    log.append(claim, 2, [b"end"], end="completed")

    proxy.swallow_answers(to=scripts.ERASE)
    asking = gevent.spawn(log.erase, claim.stream_id)
    assert proxy.swallowed.wait(5)
    proxy.cut()

    asking.get(timeout=5)


def test_a_server_away_for_too_long_is_unavailable_and_is_found_again(
    server: RedisServer, log: RedisLog
) -> None:
    log._pipe.patience_seconds = 0.5
    claim = created(log)
    server.stop()

    jobs = [gevent.spawn(log.append, claim, 2, [b"second"]), gevent.spawn(log.read, claim.stream_id, 0)]
    gevent.joinall(jobs, timeout=3)
    assert [type(job.exception) for job in jobs] == [StoreUnavailable] * 2

    server.start()
    log._pipe.patience_seconds = 10
    log.append(claim, 2, [b"second"])
    assert len(all_records(log, claim.stream_id)) == 2


def test_a_server_that_hangs_is_given_up_and_the_loop_goes_on(
    server: RedisServer, open_log: OpenLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_redis_server, "ANSWER_SECONDS", 0.3)
    log = open_log()
    claim = created(log)
    log._pipe.patience_seconds = 1
    with server.frozen():
        begun = time.monotonic()
        writer = gevent.spawn(log.append, claim, 2, [b"second"])
        gevent.joinall([writer], timeout=10)
        assert type(writer.exception) is StoreUnavailable
        assert time.monotonic() - begun < 4

    assert log.head(claim.stream_id).gen == 1


def test_a_stream_nobody_knows_whether_it_was_made_is_ended_by_the_next_sweep(
    open_log: OpenLog, proxy: "Proxy"
) -> None:
    log, peer = open_log(proxy.url), open_log()
    log.renew("worker", 60)
    log._pipe.patience_seconds = 0.3
    new = new_stream(log)
    proxy.swallow_answers(to=scripts.CREATE)
    creating = gevent.spawn(log.create, new, [b"first"])
    assert proxy.swallowed.wait(5)
    proxy.refuse()
    proxy.cut()
    with pytest.raises(StoreUnavailable):
        creating.get(timeout=5)
    proxy.accept()
    log._pipe.patience_seconds = 10

    assert peer.head(new.stream_id).state == "running"
    assert list(peer.orphans()) == []
    assert (new.stream_id, "worker_lost") in log.orphans()
    claim = log.take_over(new.stream_id, "worker")
    assert claim == Claim(new.stream_id, 2)
    log.append(claim, 2, [b"end"], end="interrupted")
    assert list(log.orphans()) == []


def test_an_owner_that_does_not_know_where_it_stands_can_look_and_go_on(
    open_log: OpenLog, proxy: "Proxy"
) -> None:
    log = open_log(proxy.url)
    claim = created(log)
    log._pipe.patience_seconds = 0.3
    proxy.swallow_answers(to=scripts.APPEND)
    appending = gevent.spawn(log.append, claim, 2, [b"second"])
    assert proxy.swallowed.wait(5)
    proxy.refuse()
    proxy.cut()
    with pytest.raises(StoreUnavailable):
        appending.get(timeout=5)
    proxy.accept()
    log._pipe.patience_seconds = 10

    with pytest.raises(Fenced):  # it was written
        log.append(claim, 2, [b"end"], end="failed")

    head = log.head(claim.stream_id)
    assert (head.state, head.gen, head.last_seq) == ("running", 1, 2)
    log.append(claim, 3, [b"end"], end="failed")


def test_a_full_server_refuses_to_write_and_goes_on_when_there_is_room(
    server: RedisServer, log: RedisLog
) -> None:
    claim = created(log)
    server.ask("CONFIG", "SET", "maxmemory", "1mb")

    with pytest.raises(StoreFull):
        log.append(claim, 2, [b"second"])
    with pytest.raises(StoreFull):
        log.create(new_stream(log), [b"first"])
    assert log.read(claim.stream_id, 0).records == [Record(1, 1, b"first")]

    server.ask("CONFIG", "SET", "maxmemory", "0")
    log.append(claim, 2, [b"second"])


def test_scripts_the_server_forgot_are_loaded_again(server: RedisServer, log: RedisLog) -> None:
    claim = created(log)
    server.ask("SCRIPT", "FLUSH")

    log.append(claim, 2, [b"second"])
    assert len(all_records(log, claim.stream_id)) == 2


def test_after_the_server_was_away_workers_have_time_to_say_that_they_live(
    server: RedisServer, log: RedisLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.renew("other", 0.2)
    stream_id = log.create(new_stream(log, "other"), [b"first"])
    server.stop()
    gevent.sleep(0.3)
    server.start()
    assert log.head(stream_id).state == "running"

    assert list(log.orphans()) == []
    monkeypatch.setattr(redis, "GRACE_SECONDS", 0.0)
    assert list(log.orphans()) == [(stream_id, "lease_expired")]


# The server comes back without the newest events


def test_events_the_server_lost_are_written_again_before_the_next(
    server: RedisServer, open_log: OpenLog
) -> None:
    log, peer = open_log(), open_log()
    claim = created(log)
    write(log, claim, range(1, 20))
    with _rolled_back(server):
        write(log, claim, range(20, 40))
        log.append(claim, 41, [b"40", b"41"])
        whole = all_records(peer, claim.stream_id)
    assert peer.head(claim.stream_id).last_seq == 20

    write(log, claim, range(42, 50))

    assert numbers(peer, claim.stream_id) == list(range(1, 50))
    assert all_records(peer, claim.stream_id)[: len(whole)] == whole


def test_a_stream_the_server_lost_altogether_is_made_again(server: RedisServer, open_log: OpenLog) -> None:
    log, peer = open_log(), open_log()
    with _rolled_back(server):
        claim = created(log, key="key", fingerprint="f")
        write(log, claim, range(1, 5))
    with pytest.raises(NotFound):
        peer.head(claim.stream_id)

    write(log, claim, range(5, 9))

    assert numbers(peer, claim.stream_id) == list(range(1, 9))
    assert peer.create(new_stream(peer, key="key", fingerprint="f"), [b"x"]) == claim.stream_id


def test_an_end_the_server_lost_is_written_again_as_soon_as_it_is_back(
    server: RedisServer, open_log: OpenLog
) -> None:
    log, peer = open_log(), open_log()
    claim = created(log)
    with _rolled_back(server):
        write(log, claim, range(1, 5))
        log.append(claim, 6, [b"5"], end="completed")
    assert peer.head(claim.stream_id).state == "running"

    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    log.renew("worker", 60)

    eventually(lambda: peer.head(claim.stream_id).state == "completed")
    assert numbers(peer, claim.stream_id) == list(range(1, 6))


def test_a_failover_that_lost_the_newest_events_costs_none(
    server: RedisServer, open_log: OpenLog, proxy: "Proxy", tmp_path: Path
) -> None:
    log, peer = open_log(proxy.url), open_log(proxy.url)
    claim = created(log)
    write(log, claim, range(1, 50))
    with _replica_of(server, tmp_path) as replica:
        replica.ask("REPLICAOF", "NO", "ONE")
        follower = gevent.spawn(_follow, peer, claim.stream_id, 120)
        write(log, claim, range(50, 80))
        eventually(lambda: peer.head(claim.stream_id).last_seq == 80)
        assert replica.ask("HGET", f"sluice:{{{claim.stream_id}}}:meta", "seq") == b"50"

        proxy.port = replica.port
        proxy.cut()
        write(log, claim, range(80, 120))

        assert numbers(peer, claim.stream_id) == list(range(1, 120))
        assert follower.get(timeout=10) == list(range(1, 121))
        log.close()
        peer.close()


@pytest.mark.parametrize("asked", ["before", "after"])
def test_after_a_failover_nothing_is_called_absent_before_others_could_write_it_again(
    server: RedisServer, open_log: OpenLog, proxy: "Proxy", tmp_path: Path, asked: str
) -> None:
    with Proxy(server.port) as slow, _replica_of(server, tmp_path) as replica:
        log, peer = open_log(slow.url), open_log(proxy.url)
        known = created(log)
        write(peer, created(peer), range(1, 3))
        eventually(lambda: replica.ask("EXISTS", f"sluice:{{{known.stream_id}}}:meta"))
        replica.ask("REPLICAOF", "NO", "ONE")
        claim = created(log, key="key", fingerprint="f")
        write(log, claim, range(1, 5))
        write(log, known, range(1, 5))

        def ask() -> list[Any]:
            return [
                gevent.spawn(peer.head, claim.stream_id),
                gevent.spawn(peer.head, known.stream_id),
                gevent.spawn(numbers, peer, claim.stream_id),
                gevent.spawn(peer.find, "key"),
                gevent.spawn(peer.create, new_stream(peer, key="key", fingerprint="f"), [b"x"]),
            ]

        with server.frozen():
            jobs = ask() if asked == "before" else []
            gevent.sleep(0.1)
            proxy.port = replica.port
            proxy.cut()
            peer.renew("peer", 60)
        jobs = jobs or ask()
        gevent.sleep(0.5)
        assert replica.ask("EXISTS", f"sluice:{{{claim.stream_id}}}:meta") == 0
        slow.port = replica.port
        slow.cut()
        log.renew("worker", 60)  # whatever its worker says next, it finds the other server

        gevent.joinall(jobs, timeout=10, raise_error=True)
        head, known_head, seen, found, joined = (job.value for job in jobs)
        assert head.last_seq == known_head.last_seq == 5
        assert seen == [1, 2, 3, 4]
        assert found == joined == claim.stream_id
        log.close()
        peer.close()


def test_an_old_primary_that_became_a_replica_is_left(
    server: RedisServer, open_log: OpenLog, proxy: "Proxy", tmp_path: Path
) -> None:
    log = open_log(proxy.url)
    claim = created(log)
    with _replica_of(server, tmp_path) as replica:
        replica.ask("REPLICAOF", "NO", "ONE")
        server.ask("REPLICAOF", "127.0.0.1", replica.port)
        appending = gevent.spawn(log.append, claim, 2, [b"second"])
        gevent.sleep(0.2)
        assert not appending.ready()

        proxy.port = replica.port
        appending.get(timeout=5)
        assert replica.ask("HGET", f"sluice:{{{claim.stream_id}}}:meta", "seq") == b"2"
        log.close()


def test_what_is_kept_for_that_does_not_grow_without_end(
    log: RedisLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    from streaming.eventlogs import _redis_kept

    monkeypatch.setattr(_redis_kept, "KEPT_BYTES", 10_000)
    monkeypatch.setattr(_redis_kept, "ENDED_SECONDS", 0.0)
    claim = created(log)
    for seq in range(2, 50):
        log.append(claim, seq, [b"x" * 1000])
    kept = log._keeping.of(claim.stream_id, 1)
    assert kept is not None
    assert len(kept.after(40)) == 9
    assert kept.after(20) == []

    log.append(claim, 50, [b"end"], end="completed")
    log.renew("worker", 60)
    assert list(log._keeping) == []


def test_a_stream_the_server_lost_is_not_given_up_before_it_is_written_again(
    server: RedisServer, log: RedisLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _rolled_back(server):
        claim = created(log)
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    assert list(log.lost("worker", [claim.stream_id])) == []
    eventually(lambda: server.ask("EXISTS", f"sluice:{{{claim.stream_id}}}:meta"))
    monkeypatch.setattr(redis, "GRACE_SECONDS", 0.0)
    assert list(log.lost("worker", [claim.stream_id])) == []


# Replicas


def test_the_end_of_a_stream_waits_for_a_replica_where_that_is_asked_for(
    server: RedisServer, open_log: OpenLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_redis_pipe, "WAIT_MILLISECONDS", 5000)
    log = open_log(f"{server.url}?wait_replicas=1")
    with _replica_of(server, tmp_path) as replica:
        for _ in range(20):
            claim = created(log)
            log.append(claim, 2, [b"end"], end="completed")
            assert replica.ask("HGET", f"sluice:{{{claim.stream_id}}}:meta", "state") == b"completed"


def test_without_a_replica_only_the_first_end_waits_for_one(server: RedisServer, open_log: OpenLog) -> None:
    log = open_log(f"{server.url}?wait_replicas=1")
    claims = [created(log) for _ in range(20)]
    begun = time.monotonic()

    for claim in claims:
        log.append(claim, 2, [b"end"], end="completed")

    assert 0.1 <= time.monotonic() - begun < 0.5


# Traffic


def test_many_followed_streams_take_two_connections_of_a_worker(
    server: RedisServer, open_log: OpenLog
) -> None:
    log, peer = open_log(), open_log()
    claims = [created(log) for _ in range(200)]
    flags = [Flag() for _ in claims]
    with ExitStack() as watches:
        for claim, flag in zip(claims, flags, strict=True):
            watches.enter_context(peer.watch(claim.stream_id, flag.set))
        jobs = [gevent.spawn(log.append, claim, 2, [b"x"]) for claim in claims]
        gevent.joinall(jobs, timeout=5, raise_error=True)

        assert all(flag.wait(2) for flag in flags)
        assert len(server.clients()) <= 3  # one of them is the writer's


def test_a_commit_of_another_worker_wakes_within_milliseconds(
    open_log: OpenLog, record_property: Callable[[str, object], None]
) -> None:
    log, peer = open_log(), open_log()
    claim = created(log)
    waits = []
    flag = Flag()
    with peer.watch(claim.stream_id, flag.set):
        for seq in range(2, 102):
            gevent.sleep(0.002)
            flag.clear()
            begun = time.monotonic()
            log.append(claim, seq, [b"x"])
            assert flag.wait(2), f"not woken for event {seq}"
            waits.append(time.monotonic() - begun)

    record_property("median_wake_milliseconds", round(statistics.median(waits) * 1000, 2))
    assert statistics.median(waits) < 0.01


def test_a_new_watcher_hears_at_once_beside_others_that_wait(open_log: OpenLog) -> None:
    log, peer = open_log(), open_log()
    with ExitStack() as watches:
        for _ in range(20):
            claim = created(log)
            flag = Flag()
            watches.enter_context(peer.watch(claim.stream_id, flag.set))
            gevent.sleep(0.01)
            log.append(claim, 2, [b"x"])
            assert flag.wait(0.5)


def test_a_worker_that_follows_only_its_own_streams_or_none_is_silent(
    server: RedisServer, log: RedisLog
) -> None:
    claim = created(log)
    woken: list[int] = []
    with log.watch(claim.stream_id, lambda: woken.append(1)):
        gevent.sleep(0.1)
        before = _commands(server)
        gevent.sleep(0.5)
        assert _commands(server) - before <= 1, "only the question itself"
        log.append(claim, 2, [b"x"])
        assert _commands(server, "xread") <= 1
    assert woken


def test_what_is_asked_in_one_turn_of_the_loop_is_sent_together(server: RedisServer, log: RedisLog) -> None:
    claims = [created(log) for _ in range(50)]
    before = _reads(server)

    jobs = [gevent.spawn(log.append, claim, 2, [b"second"]) for claim in claims]
    gevent.joinall(jobs, timeout=5, raise_error=True)

    assert _reads(server) - before <= 3


def test_a_long_history_is_not_followed_one_event_at_a_time(server: RedisServer, open_log: OpenLog) -> None:
    log, peer = open_log(), open_log()
    claim = created(log)
    with peer.watch(claim.stream_id, lambda: None):
        gevent.sleep(0.05)
        for seq in range(2, 402):
            log.append(claim, seq, [b"x"])
        all_records(peer, claim.stream_id)
        gevent.sleep(0.05)
        before = _commands(server, "xread")
        gevent.sleep(0.3)
        assert _commands(server, "xread") - before <= 1


# Processes


WRITER = """
from gevent import monkey; monkey.patch_all()
import sys
from streaming.eventlogs import Claim, NewStream, new_stream_id
from streaming.eventlogs.redis import create

log = create(sys.argv[1])
log.renew("writer", 60)
claim = Claim(log.create(NewStream(new_stream_id(log.store_id), "writer", b"{}"), [b"0"]), 1)
print(claim.stream_id, flush=True)
seq = 1
while True:
    log.append(claim, seq + 1, [b"%d" % (seq + i) for i in range(3)])
    seq += 3
    print(seq, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 300])
def test_the_streams_of_a_process_that_was_killed_are_taken_over_at_once_on_its_host(
    server: RedisServer, log: RedisLog, acknowledged: int
) -> None:
    log.renew("worker", 60)
    writer = _python(WRITER, server.url)
    assert writer.stdout is not None
    stream_id = writer.stdout.readline().strip()
    for _ in range(acknowledged):
        line = writer.stdout.readline()
    assert list(log.orphans()) == []
    writer.send_signal(signal.SIGKILL)
    rest = writer.stdout.read().split("\n")
    writer.wait(10)
    killed = time.monotonic()

    assert list(eventually(log.orphans, 4)) == [(stream_id, "worker_lost")]
    claim = log.take_over(stream_id, "worker")
    assert claim is not None
    assert time.monotonic() - killed < 1, "its lease would have lasted a minute"
    last_acknowledged = int(rest[-2] if len(rest) > 1 else line)
    written = numbers(log, stream_id)
    assert len(written) + 1 >= last_acknowledged
    assert written == list(range(1, len(written) + 1))
    assert len(written) % 3 == 0, "a batch is torn"
    log.append(claim, len(written) + 2, [b"end"], end="interrupted")


def test_a_process_of_another_host_is_judged_by_its_lease_alone(server: RedisServer, log: RedisLog) -> None:
    claim = created(log)
    server.ask("HSET", "sluice:worker:worker", "boot", "another", "pid", "1", "started", "1")

    assert list(log.orphans()) == []
    assert log.take_over(claim.stream_id, "other") is None
    server.ask("HSET", "sluice:worker:worker", "until", "1")
    assert list(log.orphans()) == [(claim.stream_id, "lease_expired")]
    assert log.take_over(claim.stream_id, "other") is not None


def test_openers_at_once_agree_on_one_store(server: RedisServer) -> None:
    openers = [gevent.spawn(redis.create, server.url) for _ in range(8)]
    gevent.joinall(openers, timeout=10, raise_error=True)

    assert len({opener.value.store_id for opener in openers}) == 1
    for opener in openers:
        opener.value.close()


def test_another_process_reads_what_is_committed_here_while_it_goes_on(
    server: RedisServer, log: RedisLog
) -> None:
    claim = created(log)
    script = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import sys\n"
        "from streaming.eventlogs.redis import create\n"
        "from streaming.reader import Reader\n"
        "from streaming.events import START\n"
        "log = create(sys.argv[1])\n"
        "print('open', flush=True)\n"
        "with Reader(log, sys.argv[2], START) as reader:\n"
        "    while not reader.ended:\n"
        "        for record in reader.next(10): print(record.seq, flush=True)\n"
    )
    reader = _python(script, server.url, claim.stream_id)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "open\n"
    for seq in range(2, 200):
        log.append(claim, seq, [b"x"])
    log.append(claim, 200, [b"end"], end="completed")

    out, _ = reader.communicate(timeout=20)
    assert out.split() == [str(seq) for seq in range(1, 201)]


def test_a_closed_log_refuses_everything_in_its_own_words(log: RedisLog) -> None:
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


def test_closing_waits_for_what_is_being_written(server: RedisServer, open_log: OpenLog) -> None:
    log = open_log()
    claim = created(log)
    writer = gevent.spawn(log.append, claim, 2, [b"second"])
    gevent.sleep(0)

    log.close()

    gevent.joinall([writer], timeout=2, raise_error=True)
    assert len(all_records(open_log(), claim.stream_id)) == 2
    eventually(lambda: len(server.clients()) == 1)


def test_closing_does_not_wait_for_a_server_that_is_away(server: RedisServer, log: RedisLog) -> None:
    claim = created(log)
    server.stop()
    writer = gevent.spawn(log.append, claim, 2, [b"second"])
    gevent.sleep(0.1)

    begun = time.monotonic()
    log.close()

    assert time.monotonic() - begun < 1.5
    gevent.joinall([writer], timeout=1)
    assert type(writer.exception) is StoreUnavailable


def test_a_log_does_not_survive_a_fork(log: RedisLog) -> None:
    log._pipe._pid += 1  # what a child that inherited it would see

    with pytest.raises(StoreUnavailable, match="another process"):
        log.renew("worker", 1)
    log._pipe._pid -= 1


class Proxy:
    """Stands between a log and its server, and can keep the server's answers to itself."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.swallowed = Flag()
        self._swallowing: bytes | None = None
        self._swallows = False
        self._refuses = False
        self._sockets: set[Any] = set()
        self._listener = StreamServer(("127.0.0.1", 0), self._pass_on)

    def __enter__(self) -> "Proxy":
        self._listener.start()
        self.url = f"redis://127.0.0.1:{self._listener.server_port}/0"
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._listener.stop()

    def swallow_answers(self, to: Script) -> None:
        """From when ``to`` is run until the connections are cut, pass on what is asked but no answer."""
        self.swallowed.clear()
        self._swallowing = to.sha.encode()

    def cut(self) -> None:
        self._swallowing = None
        self._swallows = False
        for end in list(self._sockets):
            end.close()

    def refuse(self) -> None:
        self._refuses = True

    def accept(self) -> None:
        self._refuses = False

    def _pass_on(self, client: Any, address: Any) -> None:
        if self._refuses:
            client.close()
            return
        with socket.create_connection(("127.0.0.1", self.port)) as server, client:
            self._sockets |= {client, server}
            ways = [gevent.spawn(self._copy, client, server), gevent.spawn(self._copy, server, client, True)]
            gevent.joinall(ways, count=1)
            gevent.killall(ways)
            self._sockets -= {client, server}

    def _copy(self, source: Any, target: Any, answers: bool = False) -> None:
        try:
            while block := source.recv(65536):
                if answers and self._swallows:
                    self.swallowed.set()
                    continue
                if not answers and self._swallowing is not None:
                    self._swallows = self._swallows or self._swallowing in block
                target.sendall(block)
        except OSError:
            return


def _follow(log: RedisLog, stream_id: str, total: int) -> list[int]:
    """Read as a reader does until ``total`` events are there; return their numbers."""
    flag = Flag()
    seqs: list[int] = []
    with log.watch(stream_id, flag.set):
        while len(seqs) < total:
            flag.clear()
            records = log.read(stream_id, len(seqs)).records
            seqs += [record.seq for record in records]
            if not records:
                assert flag.wait(5), f"not woken for event {len(seqs) + 1}"
    return seqs


@contextmanager
def _rolled_back(server: RedisServer) -> Iterator[None]:
    """Make the server forget whatever is written meanwhile."""
    before = {key: server.ask("DUMP", key) for key in server.ask("KEYS", "*")}
    lives = {key: max(0, server.ask("PTTL", key)) for key in before}
    yield
    for key in set(server.ask("KEYS", "*")) - before.keys():
        server.ask("DEL", key)
    for key, value in before.items():
        server.ask("RESTORE", key, lives[key], value, "REPLACE")


@contextmanager
def _replica_of(server: RedisServer, folder: Path) -> Iterator[RedisServer]:
    (folder / "replica").mkdir()
    with RedisServer(folder / "replica", "--replicaof", f"127.0.0.1 {server.port}") as replica:
        eventually(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"), 20)
        yield replica


def _commands(server: RedisServer, name: str = "") -> int:
    if not name:
        return _fact(server.ask("INFO", "stats"), "total_commands_processed")
    calls = f"cmdstat_{name}:calls="
    return sum(
        int(line.removeprefix(calls).partition(",")[0])
        for line in server.ask("INFO", "commandstats").decode().splitlines()
        if line.startswith(calls)
    )


def _reads(server: RedisServer) -> int:
    return _fact(server.ask("INFO", "stats"), "total_reads_processed")


def _fact(info: bytes, name: str) -> int:
    (value,) = [line.partition(":")[2] for line in info.decode().splitlines() if line.startswith(f"{name}:")]
    return int(value)


def _python(script: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
