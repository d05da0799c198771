"""The services that fuzz tests ask, and parts of them, each opened once for many cases."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from streaming.eventlogs.memory import MemoryLog
from streaming.runnables import Registered
from streaming.settings import Settings
from streaming.streams import Streams
from tests.doubles import ScriptedSource


@contextmanager
def open_app(**settings: Any) -> Iterator[Flask]:
    """A service with the demo model at full speed, that keeps nothing."""
    app = create_app(
        Settings(demo_tokens_per_second=0, eventlog_url="memory://", **{"runnables": ("none",), **settings})
    )
    app.logger.disabled = True
    try:
        yield app
    finally:
        app.extensions["streams"].drain(0, 0)
        app.extensions["streams"].close()


@contextmanager
def _client() -> Iterator[FlaskClient]:
    with open_app() as app:
        yield app.test_client()


class Kitchen(NamedTuple):
    """Where orders are read and nothing is made of them."""

    app: Flask
    settings: Settings
    streams: Streams


@contextmanager
def open_kitchen() -> Iterator[Kitchen]:
    settings = Settings(demo_tokens_per_second=0, eventlog_url="memory://", runnables=("none",))
    source = ScriptedSource()
    modes = ("output", "chunks", "events", "values")
    registered = {
        "modal": Registered("modal", "x", None, source, modes, frozenset({"thread_id", "called"})),
        "plain": Registered("plain", "x", None, source, (), None),
    }
    streams = Streams(MemoryLog(), lambda name: source, settings, None, registered)
    yield Kitchen(Flask(__name__), settings, streams)
    streams.drain(0, 0)
    streams.close()


PLACES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "app": open_app,
    "client": _client,
    "kitchen": open_kitchen,
}
"""What checks need besides what they are given, by the name it has there."""


def fixture_of(name: str) -> Any:
    """Return the fixture that opens a place, once for a module."""

    def opened() -> Iterator[Any]:
        with PLACES[name]() as place:
            yield place

    return pytest.fixture(scope="module", name=name)(opened)
