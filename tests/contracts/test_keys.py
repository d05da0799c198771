"""What every store of keys promises."""

from collections.abc import Callable, Iterator

import pytest
from msgspec.structs import replace

from streaming import plugins
from streaming.eventlogs import EventLog
from streaming.keyring import Keyring, make
from streaming.keys import Key, KeyStore
from tests.doubles import running


@pytest.fixture
def open_store(open_log: Callable[[], EventLog], log_name: str) -> Iterator[Callable[[], KeyStore]]:
    made: dict[int, KeyStore] = {}

    def open_() -> KeyStore:
        log = open_log()
        if id(log) not in made:
            made[id(log)] = plugins.create("keys", log_name, log)
        return made[id(log)]

    yield open_
    for store in made.values():
        store.close()


@pytest.fixture
def store(open_store: Callable[[], KeyStore]) -> KeyStore:
    return open_store()


@pytest.fixture
def peer_store(open_store: Callable[[], KeyStore], store: KeyStore) -> KeyStore:
    """The same store as another worker sees it."""
    return open_store()


def key(key_id: str = "4f2a9c01", **fields: object) -> Key:
    return replace(Key(key_id, "ab" * 32, ("run",), 1.5), **fields)


def test_a_key_is_kept_as_it_was_made(store: KeyStore, peer_store: KeyStore) -> None:
    whole = key(
        name="Ána \u2028",
        expires=1795281398.7852106,
        owner="key_00000000",
        limits={"runs": 3, "cost": 0.25, "models": ["a", "b"]},
        previous_hash="cd" * 32,
        previous_until=2.25,
    )

    assert store.swap(None, whole)

    assert peer_store.find("4f2a9c01") == whole
    assert peer_store.all() == [whole]


def test_a_key_that_is_not_there_is_not_found(store: KeyStore) -> None:
    assert store.find("4f2a9c01") is None
    assert store.all() == []


def test_several_are_found_at_once_and_only_those_that_are_there(
    store: KeyStore, peer_store: KeyStore
) -> None:
    first, second, third = key("aaaaaaaa"), key("bbbbbbbb", revoked=3.0), key("cccccccc")
    for each in (first, second, third):
        store.swap(None, each)

    found = peer_store.find_several({"bbbbbbbb", "aaaaaaaa", "zzzzzzzz"})

    assert found == {"aaaaaaaa": first, "bbbbbbbb": second}
    assert peer_store.find_several([]) == {}


def test_the_second_key_of_an_id_is_not_kept(store: KeyStore, peer_store: KeyStore) -> None:
    assert store.swap(None, key())
    assert not peer_store.swap(None, key(hash="ef" * 32))
    assert store.find("4f2a9c01") == key()


def test_a_change_is_made_to_what_was_read_and_to_nothing_else(store: KeyStore, peer_store: KeyStore) -> None:
    store.swap(None, key())

    assert store.swap(key(), key(revoked=5.0))
    assert not peer_store.swap(key(), key(name="too late"))

    assert store.find("4f2a9c01") == key(revoked=5.0)


def test_what_is_not_there_is_not_changed(store: KeyStore) -> None:
    assert not store.swap(key(), key(revoked=5.0))
    assert store.find("4f2a9c01") is None


def test_keys_are_listed_by_age_whatever_their_state(store: KeyStore) -> None:
    kept = [
        key("bbbbbbbb", created=1.0),
        key("aaaaaaaa", created=2.0, revoked=3.0),
        key("cccccccc", created=9.0),
    ]
    for each in reversed(kept):
        store.swap(None, each)

    assert store.all() == kept


def test_two_who_change_a_key_at_once_both_succeed(store: KeyStore, peer_store: KeyStore) -> None:
    keyring, peer = Keyring(store), Keyring(peer_store)
    issued = keyring.issue(["run"])

    with running(lambda: keyring.rotate(issued.key.id, 60.0), lambda: peer.revoke(issued.key.id)):
        pass

    found = store.find(issued.key.id)
    assert found is not None
    assert found.revoked is not None


def test_no_store_holds_a_key(store: KeyStore) -> None:
    issued = make(["run"])
    store.swap(None, issued.key)

    assert issued.text not in str(store.all())
    assert issued.text.rpartition("-")[2] not in str(store.all())
