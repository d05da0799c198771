"""What every store of sessions promises, over each event log."""

import time
from collections.abc import Callable, Iterator

import pytest

from streaming import plugins
from streaming.eventlogs import EventLog
from streaming.sessions import SECRET_BYTES, SessionStore

Open = Callable[[EventLog], SessionStore]


@pytest.fixture
def open_store(log_name: str) -> Iterator[Open]:
    opened: list[SessionStore] = []

    def open_(log: EventLog) -> SessionStore:
        opened.append(plugins.create("sessions", log_name, log))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Open, log: EventLog) -> SessionStore:
    return open_store(log)


@pytest.fixture
def other(open_store: Open, store: SessionStore, log_name: str, peer: EventLog) -> SessionStore:
    """The same as another worker sees it."""
    return store if log_name == "memory" else open_store(peer)


def test_the_secret_is_made_once_and_every_worker_has_it(store: SessionStore, other: SessionStore) -> None:
    secret = store.read().secret
    assert len(secret) == SECRET_BYTES
    assert other.read().secret == secret == store.read().secret


def test_a_new_store_has_another_secret(new_store, log_name: str, open_store: Open) -> None:
    first, second = new_store()(), None
    try:
        secret = open_store(first).read().secret
        second = new_store()()  # on a server, what was there is gone
        assert open_store(second).read().secret != secret
    finally:
        first.close()
        if second is not None:
            second.close()


def test_what_one_worker_ended_every_worker_knows(store: SessionStore, other: SessionStore) -> None:
    assert store.read().ended == frozenset()
    store.end("one", time.time() + 60)
    other.end("two", time.time() + 60)
    assert store.read().ended == other.read().ended == {"one", "two"}


def test_a_session_is_forgotten_once_its_cookie_is_too_old_anyway(store: SessionStore) -> None:
    store.end("old", time.time() - 1)
    store.end("new", time.time() + 60)
    assert store.read().ended == {"new"}


def test_ending_a_session_twice_is_ending_it_once(store: SessionStore, other: SessionStore) -> None:
    store.end("one", time.time() + 60)
    other.end("one", time.time() + 60)
    assert store.read().ended == {"one"}
