"""The service behind Flask's test client: whole, and with a source of the test's own."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from app import create_app
from streaming import plugins
from streaming.eventlogs.memory import MemoryLog
from streaming.settings import Settings
from streaming.sources import Source
from streaming.streams import Streams
from streaming.web import _errors
from tests.doubles import Heard, parse_event_stream

FAST = Settings(demo_tokens_per_second=0, eventlog_url="memory://", runnables=("none",))


class Service:
    """A running application and its client."""

    def __init__(self, app: Flask, count: Callable[[], int]) -> None:
        self.client = app.test_client()
        self.count = count
        """How many streams the log holds."""
        self.streams: Streams = app.extensions["streams"]

    def create(self, **body: Any) -> str:
        """Create a stream and return its id."""
        response = self.client.post("/streams", json={"prompt": "hello"} | body)
        assert response.status_code == 201, response.text
        stream_id: str = response.json["stream_id"]
        return stream_id

    def follow(self, path: str, **headers: str) -> list[Heard]:
        """Return every event of an event stream, read to its end."""
        response = self.client.get(path, headers={"Accept": "text/event-stream"} | headers)
        assert response.status_code == 200, response.text
        return heard(response)

    def finished(self, **body: Any) -> str:
        """Create a stream and wait for its end."""
        stream_id = self.create(**body)
        self.follow(f"/streams/{stream_id}")
        return stream_id

    def snapshot(self, stream_id: str, query: str = "") -> dict[str, Any]:
        response = self.client.get(f"/streams/{stream_id}{query}")
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json
        return found


def heard(response: TestResponse) -> list[Heard]:
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    return parse_event_stream(response.data).heard


def refused(response: TestResponse, status: int, type_: str, **fields: Any) -> dict[str, Any]:
    """Check that an answer is an error of the wire's shape with these fields; return the error."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert len(response.data) < 4096, "an error repeats what was sent"
    error: dict[str, Any] = response.json["error"]
    assert set(error) == {"message", "type", "code", "param", "retryable", "partial", "request_id"}
    assert error["type"] == type_
    assert error["message"]
    assert error["code"]
    assert error["request_id"] == response.headers["X-Request-Id"]
    assert {name: error[name] for name in fields} == fields
    return error


@pytest.fixture(params=["memory", "sqlite"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """The service as it comes, with the demo model at full speed, on each log."""
    yield from _made(request.param, tmp_path / "streams.db")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all the requests of a module that it should refuse."""
    yield from _made("sqlite", tmp_path_factory.mktemp("shared") / "streams.db")


def _made(log_name: str, path: Path) -> Iterator[Service]:
    settings = replace(FAST, eventlog_url=f"sqlite:///{path}") if log_name == "sqlite" else FAST
    app = create_app(settings)
    made = Service(app, lambda: _count(app, path))
    yield made
    _end(made.streams)


@contextmanager
def nothing_made(service: Service) -> Iterator[None]:
    """Check that no stream is made meanwhile."""
    before = service.count()
    yield
    assert service.count() == before, "half a stream was made"


def _count(app: Flask, path: Path) -> int:
    log = app.extensions["streams"]._log
    if isinstance(log, MemoryLog):
        return len(log._streams)
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        ((count,),) = db.execute("SELECT count(*) FROM streams").fetchall()
    finally:
        db.close()
    return int(count)


def _end(streams: Streams) -> None:
    streams.drain(0, 0)
    streams.close()


Compose = Callable[..., Service]


@pytest.fixture
def compose() -> Iterator[Compose]:
    """Return a function that makes a service of a source and a log of the test's own."""
    made: list[Service] = []

    def compose_(
        source: Source | Exception, log: MemoryLog | None = None, settings: Mapping[str, Any] | None = None
    ) -> Service:
        log = log or MemoryLog()
        chosen = replace(FAST, **(settings or {}))

        def load(name: str) -> Source:
            if isinstance(source, Exception):
                raise source
            return source

        app = Flask(__name__)
        app.config["MAX_CONTENT_LENGTH"] = chosen.max_body_bytes
        app.extensions["streams"] = Streams(log, load, chosen)
        _errors.register(app)
        for name in plugins.names("web"):
            app.register_blueprint(plugins.create("web", name, app.extensions["streams"], chosen))
        made.append(Service(app, lambda: len(log._streams)))
        return made[-1]

    yield compose_
    for service in made:
        _end(service.streams)
