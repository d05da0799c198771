"""Every event log, opened the way the service opens it."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from streaming import plugins
from streaming.eventlogs import EventLog

OpenLog = Callable[[], EventLog]
NewStore = Callable[[], OpenLog]


@pytest.fixture(params=plugins.names("eventlogs"))
def log_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("hiredis", reason="the Redis log needs hiredis")
    pytest.importorskip("redis", reason="its tests need redis-py, to look into the server")
    from tests.contracts.redis_server import RedisServer

    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def new_store(request: pytest.FixtureRequest, log_name: str, tmp_path: Path) -> NewStore:
    """Make an empty store; return a function that opens it, as often as workers share it."""
    numbers = count()

    def new() -> OpenLog:
        match log_name:
            case "memory":
                log = plugins.create("eventlogs", log_name, "memory://")
                return lambda: log
            case "sqlite":
                url = f"sqlite:///{tmp_path / str(next(numbers)) / 'streams.db'}"
            case "redis":
                server = request.getfixturevalue("redis_server")
                server.ask("FLUSHALL")
                url = server.url
            case _:
                pytest.fail(f"say here how to open the event log {log_name!r}")
        return lambda: plugins.create("eventlogs", log_name, url)

    return new


@pytest.fixture
def open_log(new_store: NewStore) -> Iterator[OpenLog]:
    opened: list[EventLog] = []
    store = new_store()

    def open_() -> EventLog:
        opened.append(store())
        return opened[-1]

    yield open_
    for log in opened:
        log.close()


@pytest.fixture
def log(open_log: OpenLog) -> EventLog:
    return open_log()


@pytest.fixture
def peer(open_log: OpenLog, log: EventLog) -> EventLog:
    """The same store as another worker sees it."""
    return open_log()
