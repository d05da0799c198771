"""Fixtures of the live tests: real processes, real sockets, real time.

Each service starts when a test first asks for it. They share one upstream.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contracts.redis_server import RedisServer

# Makes "service" and "upstream" importable in every import mode of pytest.
from tests.live.service import Service, Upstream

# Small enough to wait for, large enough not to fire on a busy machine.
SMALL_TIMEOUTS = {
    "CONNECT_TIMEOUT_SECONDS": "1",
    "FIRST_TOKEN_TIMEOUT_SECONDS": "5",
    "IDLE_TIMEOUT_SECONDS": "1",
    "UPSTREAM_RETRIES": "2",
}
SMALL_LIMITS = {
    "MAX_STREAM_BYTES": "65536",
    "MAX_STREAM_EVENTS": "300",
    "STREAM_TIMEOUT_SECONDS": "3",
}

StartService = Callable[..., Service]


@pytest.fixture(scope="session", autouse=True)
def _real_threads() -> None:
    """A patched interpreter would measure gevent's hub instead of the service."""
    monkey = sys.modules.get("gevent.monkey")
    assert not (monkey and monkey.is_module_patched("socket")), "run the live tests in their own pytest"


@pytest.fixture(scope="session")
def upstream() -> Iterator[Upstream]:
    """The upstream of every service in this run."""
    upstream = Upstream()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="session")
def service(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One worker with default settings."""
    yield from _running(Service(tmp_path_factory.mktemp("service"), upstream.base_url))


@pytest.fixture(scope="session")
def service_two_workers(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers on one event log."""
    yield from _running(Service(tmp_path_factory.mktemp("two-workers"), upstream.base_url, workers=2))


@pytest.fixture(scope="session")
def impatient_service(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One worker that gives an upstream about a second."""
    directory = tmp_path_factory.mktemp("impatient")
    yield from _running(Service(directory, upstream.base_url, environment=SMALL_TIMEOUTS))


@pytest.fixture(scope="session")
def bounded_service(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One worker that allows a stream little."""
    directory = tmp_path_factory.mktemp("bounded")
    yield from _running(Service(directory, upstream.base_url, environment=SMALL_LIMITS))


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an event log, for what holds with every store that several workers share."""
    if request.param == "redis":
        return str(request.getfixturevalue("redis_url"))
    return f"sqlite:///{tmp_path / 'streams.db'}"


@pytest.fixture
def start_service(upstream: Upstream, tmp_path: Path) -> Iterator[StartService]:
    """Start services for one test, all on one event log: ``start_service(**Service's arguments)``."""
    started: list[Service] = []

    def start(upstream_url: str = upstream.base_url, **arguments: object) -> Service:
        started.append(Service(tmp_path, upstream_url, **arguments))
        return started[-1]

    yield start
    for service in started:
        service.kill()


def _running(service: Service) -> Iterator[Service]:
    yield service
    service.stop()
