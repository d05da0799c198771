"""``/healthz`` and ``/readyz`` tell the truth: each thing that can be wrong is made wrong here."""

import threading
from pathlib import Path
from typing import Any

import gevent
import pytest

from streaming import readiness
from streaming.eventlogs.sqlite import SQLiteLog
from streaming.readiness import Readiness
from tests.contracts.redis_server import RedisServer
from tests.doubles import Gate, ScriptedSource, UnsteadyLog, eventually, says
from tests.web.conftest import FAST, Compose, Service, _made, refused


@pytest.fixture(autouse=True)
def _look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "KEPT_SECONDS", 0.0)


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Any:
    yield from _made("sqlite", tmp_path / "streams.db")


def ready(service: Service) -> int:
    return service.client.get("/readyz").status_code


def test_a_worker_that_works_is_healthy_and_ready(service: Service) -> None:
    assert service.client.get("/healthz").json == {"status": "ok"}
    assert service.client.get("/readyz").json == {"status": "ok", "running": 0}


def test_a_store_that_can_be_read_and_not_written_is_not_ready(compose: Compose) -> None:
    log = UnsteadyLog()
    service = compose(ScriptedSource(*says("hi")), log)
    log.broken = {"renew"}
    refused(service.client.get("/readyz"), 503, "store_unavailable")
    assert service.client.get("/healthz").status_code == 200, "a restart would not help"
    log.broken = set()
    assert ready(service) == 200


def test_a_full_disk_is_told_by_name_until_there_is_room(on_sqlite: Service) -> None:
    log = on_sqlite.streams._log
    assert isinstance(log, SQLiteLog)
    log._file.drop_ballast()
    refused(on_sqlite.client.get("/readyz"), 503, "store_full")
    eventually(lambda: ready(on_sqlite) == 200, 5)


def test_a_file_that_became_read_only_is_not_ready(on_sqlite: Service) -> None:
    log = on_sqlite.streams._log
    assert isinstance(log, SQLiteLog)
    log._file.db.pragma("query_only", True)
    refused(on_sqlite.client.get("/readyz"), 503, "store_unavailable")
    log._file.db.pragma("query_only", False)
    assert ready(on_sqlite) == 200


def test_a_redis_that_hangs_or_is_gone_is_not_ready_and_is_so_again_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "PATIENCE_SECONDS", 0.3)
    from dataclasses import replace

    from app import create_app

    with RedisServer(tmp_path) as server:
        app = create_app(replace(FAST, eventlog_url=server.url))
        service = Service(app, lambda: 0)
        try:
            eventually(lambda: ready(service) == 200)
            with server.frozen():
                error = refused(service.client.get("/readyz"), 503, "store_unavailable")
                assert error["code"] == "store_slow"
                assert service.client.get("/healthz").status_code == 200
            eventually(lambda: ready(service) == 200, 5)
            server.stop()
            refused(service.client.get("/readyz"), 503, "store_unavailable")
            server.start()
            eventually(lambda: ready(service) == 200, 10)
        finally:
            service.streams.drain(0, 0)
            service.streams.close()


def test_a_worker_without_room_says_so(compose: Compose) -> None:
    gate = Gate()
    service = compose(ScriptedSource(gate, *says("hi")), settings={"max_streams": 1})
    service.create()
    assert refused(service.client.get("/readyz"), 503, "overloaded")["code"] == "streams"
    gate.open()
    eventually(lambda: ready(service) == 200)


def test_a_worker_that_drains_says_so(service: Service) -> None:
    service.streams.drain(0, 0)
    assert refused(service.client.get("/readyz"), 503, "overloaded")["code"] == "draining"
    assert service.client.get("/healthz").status_code == 200


def test_a_loop_that_was_blocked_is_neither_healthy_nor_ready(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = service.client.application.extensions["metrics"]
    monkeypatch.setattr(metrics.loop, "worst_seconds", lambda within=0.0: 5.5)
    for path in ("/healthz", "/readyz"):
        assert refused(service.client.get(path), 503, "overloaded")["code"] == "loop_lag"


# Asking the store


def test_many_who_ask_cost_one_write_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "KEPT_SECONDS", 60.0)
    writes: list[int] = []
    asked = Readiness(lambda: writes.append(1))
    for _ in range(100):
        asked.check_store()
    assert len(writes) == 1


def test_who_asks_while_it_is_asked_waits_for_the_same_answer() -> None:
    gate = threading.Event()
    writes: list[int] = []

    def write() -> None:
        writes.append(1)
        gate.wait()

    asked = Readiness(write)
    waiting = [gevent.spawn(asked.check_store) for _ in range(20)]
    eventually(lambda: writes)
    gate.set()
    gevent.joinall(waiting, raise_error=True)
    assert len(writes) == 1
