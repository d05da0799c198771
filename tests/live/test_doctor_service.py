"""The doctor and services that were started wrongly, on purpose: what they tell, and what shows."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.contracts.redis_server import RedisServer
from tests.live.conftest import StartService
from tests.live.service import REPOSITORY, free_port, request, wait_until
from tests.live.test_doctor import doctor

# gevent is put in place by gunicorn's worker only, after the application, and all it imports.
LATE = """
import ssl, urllib3.util.ssl_
import openai
"""

# Every second the loop stands still for 1.3 s: Python's own sleep, which gevent has not replaced here.
BLOCKING = """
from gevent import monkey
monkey.patch_all()

def post_worker_init(worker):
    import gevent
    sleep = monkey.get_original("time", "sleep")

    def block():
        while True:
            gevent.sleep(1.0)
            sleep(1.3)

    gevent.spawn(block)
"""


@contextlib.contextmanager
def gunicorn(folder: Path, configuration: str, *options: str) -> Iterator[str]:
    """Start the service with a configuration of the test's own; yields its address."""
    (folder / "conf.py").write_text(configuration + "\ncontrol_socket_disable = True\n")
    port = free_port()
    environment = {**os.environ, "EVENTLOG_URL": f"sqlite:///{folder / 'log.db'}", "RUNNABLES": "none"}
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "-c", str(folder / "conf.py")),
            *("-b", f"127.0.0.1:{port}", *options, "wsgi:app"),
        ],
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with contextlib.suppress(OSError, http.client.HTTPException):
            return request(port, "GET", "/healthz", timeout_seconds=5).status == 200
        return False

    try:
        wait_until(answers, 30, "the service answers")
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
        log.close()


def test_gevent_put_in_place_too_late_is_found(tmp_path: Path) -> None:
    with gunicorn(tmp_path, LATE, "-k", "streaming.gevent_worker.LeanGeventWorker", "--preload") as url:
        report = doctor(url, silence=1)

    assert report.status == 1
    assert report.findings["patched_late"]["level"] == "fault", report.printed
    assert "monkey.patch_all()" in report.settings("patched_late", "gunicorn")
    assert report.findings["preload"]["level"] == "fault"
    assert report.settings("preload", "gunicorn").startswith("preload_app = False")


def test_a_worker_that_is_not_gevent_s_is_found(tmp_path: Path) -> None:
    with gunicorn(tmp_path, "", "-k", "sync") as url:
        report = doctor(url, silence=1)

    assert report.status == 1
    # Seen from outside, without the service's help,
    assert report.findings["one_at_a_time"]["level"] == "fault", report.printed
    assert "LeanGeventWorker" in report.settings("one_at_a_time", "gunicorn")
    # and told by the service.
    assert report.findings["worker_class"]["level"] == "fault"
    assert "sync" in report.findings["worker_class"]["measured"]
    assert report.findings["not_patched"]["level"] == "fault"


def test_a_worker_whose_loop_stands_still_is_found(tmp_path: Path) -> None:
    with gunicorn(tmp_path, BLOCKING, "-k", "streaming.gevent_worker.LeanGeventWorker") as url:
        report = doctor(url, silence=3)

    assert report.findings["blocked"]["level"] in ("fault", "warning"), report.printed
    assert report.findings["loop"]["level"] == "fault", report.printed
    assert "threadpool" in report.settings("loop", "your runnables")


def test_a_stop_that_is_too_short_and_workers_that_are_replaced_are_found(tmp_path: Path) -> None:
    options = ("-k", "streaming.gevent_worker.LeanGeventWorker", "--max-requests", "1000000")
    patched = "from gevent import monkey\nmonkey.patch_all()\n"
    with gunicorn(tmp_path, patched, *options, "--graceful-timeout", "10", "--keep-alive", "2") as url:
        report = doctor(url, silence=1)

    bad = report.bad
    assert bad == {"graceful_timeout": "warning", "max_requests": "warning", "keepalive": "note"}
    assert report.settings("graceful_timeout", "gunicorn") == "graceful_timeout = 25"
    assert report.status == 0


def test_memory_for_several_workers_is_a_fault(start_service: StartService) -> None:
    service = start_service(workers=2, environment={"EVENTLOG_URL": "memory://"})
    report = doctor(service.url, silence=1)
    assert report.bad == {"memory_store": "fault"}, report.printed
    assert "redis://" in report.settings("memory_store", "this service")


def test_a_redis_that_was_set_to_evict_is_found(start_service: StartService, tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        service = start_service(environment={"EVENTLOG_URL": server.url})
        assert server.ask("CONFIG", "SET", "appendonly", "yes")
        before = doctor(service.url, silence=1)
        server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        server.ask("CONFIG", "SET", "appendonly", "no")
        server.ask("CONFIG", "SET", "save", "")
        after = doctor(service.url, silence=1)
        service.kill()

    assert before.bad == {}, before.printed
    assert "noeviction" in before.findings["store"]["measured"]
    assert after.bad == {"redis_policy": "fault", "redis_persistence": "warning"}, after.printed
    assert after.settings("redis_policy", "Redis") == "maxmemory-policy noeviction"
    assert after.settings("redis_persistence", "Redis") == "appendonly yes"
