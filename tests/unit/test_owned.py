"""What belongs to one principal does not exist for another, whichever verb is tried."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streaming.conversations import AllConversations
from streaming.errors import InvalidRequest, NotFound
from streaming.eventlogs.memory import MemoryLog
from streaming.settings import Settings
from streaming.sources import Prompt
from streaming.streams import Order, Streams
from streaming.threads import Item, Thread
from streaming.threads._owned import OwnedThreads
from streaming.threads.memory import MemoryThreads
from tests.doubles import ScriptedSource, ended, says

ANA, BEN = "key_aaaaaaaa", "key_bbbbbbbb"
# For the service itself; they have no answer for who asks.
UNGUARDED = {"owner_of", "stop"}


class Asked:
    """Streams, and who asks."""

    def __init__(self) -> None:
        self.who = ANA
        self.log = MemoryLog()
        self.sources: list[ScriptedSource] = []
        self.streams = Streams(
            self.log, self._load, Settings(eventlog_url="memory://"), asking=lambda: self.who
        )

    def _load(self, name: str) -> ScriptedSource:
        self.sources.append(ScriptedSource(*says("a", "b")))
        return self.sources[-1]

    def start(self, **fields: Any) -> str:
        order = Order("chat", Prompt("demo", []), {"prompt": "x"}, owner=self.who, **fields)
        return self.streams.start(order).stream_id


@pytest.fixture
def asked() -> Iterator[Asked]:
    made = Asked()
    yield made
    made.streams.drain(0, 0)
    made.streams.close()


def verbs() -> list[str]:
    """Every public verb of streams that is given a stream's id: also those that are yet to be written."""
    found = inspect.getmembers(Streams, inspect.isfunction)
    return [
        name
        for name, verb in found
        if not name.startswith("_") and "stream_id" in inspect.signature(verb).parameters
    ]


def test_there_are_verbs_to_try() -> None:
    assert {"reader", "snapshot", "answer", "asked", "cancel", "erase"} <= set(verbs())


@pytest.mark.parametrize("verb", sorted(set(verbs()) - UNGUARDED))
@pytest.mark.parametrize("other", [BEN, ""])
def test_anothers_stream_is_as_absent_as_one_that_never_was(asked: Asked, verb: str, other: str) -> None:
    stream_id = asked.start()
    ended(asked.log, stream_id)
    tries: Callable[[str], object] = getattr(asked.streams, verb)
    asked.who = other

    with pytest.raises(NotFound) as foreign:
        tries(stream_id)
    with pytest.raises(NotFound) as unknown:
        tries(stream_id[:11] + "a" * 26)

    assert foreign.value.info() == unknown.value.info()
    assert asked.log.head(stream_id).state == "completed"


def test_anothers_stream_is_not_continued(asked: Asked) -> None:
    stream_id = asked.start()
    ended(asked.log, stream_id)
    asked.who = BEN
    with pytest.raises(NotFound):
        asked.start(continues=stream_id)


def test_two_principals_may_use_the_same_idempotency_key(asked: Asked) -> None:
    first = asked.start(key="POST /streams k1", fingerprint="1")
    asked.who = BEN
    assert asked.streams.find("POST /streams k1") is None
    second = asked.start(key="POST /streams k1", fingerprint="2")

    assert first != second
    assert asked.streams.find("POST /streams k1") == second
    asked.who = ANA
    assert asked.start(key="POST /streams k1", fingerprint="1") == first


# Threads


def thread(id_: str = "t1", owner: str = "") -> Thread:
    return Thread(id_, owner, "chat", f"of {owner}", 1.0, 1.0)


def test_two_owners_may_give_two_threads_one_name() -> None:
    store = MemoryThreads()
    ana, ben = OwnedThreads(store, ANA), OwnedThreads(store, BEN)
    ana.create(thread(owner=ANA))
    ben.create(thread(owner=BEN))
    ana.put(Item("t1", "st_1", "turn", 2.0, b"{}"))

    assert ana.get("t1") == thread(owner=ANA).__class__("t1", ANA, "chat", f"of {ANA}", 1.0, 2.0)
    assert [each.id for each in ana.items("t1")] == ["st_1"]
    assert ben.items("t1") == []
    ben.delete("t1")
    assert ana.get("t1").owner == ANA
    with pytest.raises(NotFound):
        ben.get("t1")


@pytest.mark.parametrize("owner", ["", BEN])
def test_the_name_under_which_a_thread_is_kept_opens_it_for_nobody(owner: str) -> None:
    store = MemoryThreads()
    OwnedThreads(store, ANA).create(thread(owner=ANA))
    other = OwnedThreads(store, owner)

    with pytest.raises(NotFound):
        other.get(f"{ANA}~t1")
    with pytest.raises(NotFound):
        other.items(f"{ANA}~t1")
    assert other.listed(ANA, "chat") == []


def test_owned_threads_are_listed_by_the_names_they_were_given() -> None:
    store = MemoryThreads()
    ana = OwnedThreads(store, ANA)
    for name in ("t1", "t2"):
        ana.create(thread(name, ANA))
    assert [each.id for each in ana.listed(ANA, "chat")] == ["t2", "t1"]
    assert [each.id for each in ana.listed(ANA, "chat", after="t2")] == ["t1"]


def test_conversations_of_another_are_not_there() -> None:
    log = MemoryLog()
    whole = AllConversations(MemoryThreads(), log, None, {})  # type: ignore[arg-type]
    whole.of(ANA).open("t1", ANA, "mine")
    with pytest.raises((NotFound, InvalidRequest)):
        whole.of(BEN).get("t1")
    with pytest.raises(NotFound):
        whole.of("").rename("t1", "stolen")
    assert whole.of(ANA).get("t1").title == "mine"
    log.close()
