"""What every store tells an operator of itself, also when it is in trouble."""

from pathlib import Path

import pytest

from streaming.eventlogs import EventLog
from streaming.eventlogs.redis import create as create_redis
from streaming.eventlogs.sqlite import create as create_sqlite
from tests.contracts.redis_server import RedisServer


def test_a_store_says_what_it_is(log: EventLog, log_name: str) -> None:
    told = log.describe()
    assert told.kind == log_name
    assert not told.unreachable
    assert not told.full


def test_sqlite_tells_of_its_disk(tmp_path: Path) -> None:
    log = create_sqlite(f"sqlite:///{tmp_path / 'log.db'}", "FULL")
    told = log.describe()
    log.close()
    assert told.version.startswith("3.")
    assert told.synchronous == "FULL"
    assert told.file_system
    assert (told.free_bytes or 0) > 0
    assert (told.log_bytes or 0) > 0


def test_redis_tells_how_it_is_set_now(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        log = create_redis(f"{server.url}")
        before = log.describe()
        server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        after = log.describe()
        server.stop()
        gone = log.describe()
        log.close()

    assert before.version
    assert (before.policy, before.persistence, before.replicas) == ("noeviction", "none", "0")
    assert (before.answer_ms or 0) > 0
    assert before.clock_ahead_seconds == pytest.approx(0, abs=1)
    assert after.policy == "allkeys-lru"
    assert gone.kind == "redis"
    assert gone.unreachable


def test_a_password_is_not_told(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        server.ask("ACL", "SETUSER", "sluice", "on", ">hidden-word", "~*", "&*", "+@all")
        log = create_redis(server.url.replace("redis://", "redis://sluice:hidden-word@"))
        told = [log.describe()]
        server.stop()
        told.append(log.describe())
        log.close()
    assert told[1].unreachable
    assert "hidden-word" not in repr(told)
