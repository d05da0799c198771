"""What every store of threads promises."""

from collections.abc import Callable, Iterator

import pytest
from msgspec.structs import replace

from streaming import plugins
from streaming.errors import NotFound
from streaming.eventlogs import EventLog
from streaming.threads import Item, Outline, Thread, ThreadStore
from tests.doubles import running


@pytest.fixture
def open_store(open_log: Callable[[], EventLog], log_name: str) -> Iterator[Callable[[], ThreadStore]]:
    made: dict[int, ThreadStore] = {}

    def open_() -> ThreadStore:
        log = open_log()
        if id(log) not in made:
            made[id(log)] = plugins.create("threads", log_name, log)
        return made[id(log)]

    yield open_
    for store in made.values():
        store.close()


@pytest.fixture
def store(open_store: Callable[[], ThreadStore]) -> ThreadStore:
    return open_store()


@pytest.fixture
def peer_store(open_store: Callable[[], ThreadStore], store: ThreadStore) -> ThreadStore:
    """The same store as another worker sees it."""
    return open_store()


def thread(id_: str = "t1", owner: str = "ana", at: float = 1.0, kind: str = "chat") -> Thread:
    return Thread(id_, owner, kind, f"title of {id_}", at, at)


def item(id_: str, thread_id: str = "t1", at: float = 2.0, settled: bool = True, parent: str = "") -> Item:
    return Item(thread_id, id_, "turn", at, f"body of {id_}".encode(), parent, settled)


def ids(found: list[Thread] | list[Item] | list[Outline]) -> list[str]:
    return [each.id for each in found]


def test_a_thread_is_what_it_was_made_as(store: ThreadStore, peer_store: ThreadStore) -> None:
    made = Thread("t1", "ána", "chat", "тема\u2028", 1.5, 2.25, b'{"a": 1}')
    assert store.create(made) == made
    assert peer_store.get("t1") == made


def test_the_first_to_make_a_thread_has_made_it(store: ThreadStore, peer_store: ThreadStore) -> None:
    store.create(thread(owner="ana"))
    assert peer_store.create(thread(owner="ben", at=9)).owner == "ana"


@pytest.mark.parametrize("verb", ["get", "save", "put", "claim", "item"])
def test_there_is_nothing_in_an_unknown_thread(store: ThreadStore, verb: str) -> None:
    arguments = {
        "get": ("t1",),
        "save": (thread(),),
        "put": (item("a"),),
        "claim": (item("a"), ""),
        "item": ("t1", "a"),
    }
    with pytest.raises(NotFound):
        getattr(store, verb)(*arguments[verb])
    assert store.items("t1") == []
    assert store.outline("t1") == []
    assert not store.settle(item("a"))
    store.remove("t1", "a")
    store.delete("t1")


def test_a_thread_keeps_its_place_in_the_list_when_it_is_renamed(store: ThreadStore) -> None:
    store.create(thread("old", at=1))
    store.create(thread("new", at=2))
    store.save(replace(store.get("old"), title="another", about=b"[]", updated=0.5, owner="somebody"))
    assert store.get("old") == Thread("old", "ana", "chat", "another", 1, 1, b"[]")
    assert ids(store.listed("ana", "chat")) == ["new", "old"]


def test_a_list_has_an_owners_threads_of_a_kind_the_newest_first(store: ThreadStore) -> None:
    for number in range(5):
        store.create(thread(f"t{number}", at=number))
    store.create(thread("of-ben", owner="ben", at=10))
    store.create(thread("of-chatkit", kind="chatkit", at=10))
    assert ids(store.listed("ana", "chat")) == ["t4", "t3", "t2", "t1", "t0"]
    assert ids(store.listed("ben", "chat")) == ["of-ben"]
    assert ids(store.listed("ana", "chatkit")) == ["of-chatkit"]
    assert store.listed("", "chat") == []


def test_a_list_is_paged_also_where_threads_are_equally_old(store: ThreadStore) -> None:
    for number in range(7):
        store.create(thread(f"t{number}", at=number // 3))
    seen: list[str] = []
    while page := store.listed("ana", "chat", after=seen[-1] if seen else "", limit=2):
        seen += ids(page)
    assert seen == ["t6", "t5", "t4", "t3", "t2", "t1", "t0"]
    with pytest.raises(NotFound):
        store.listed("ana", "chat", after="gone")


def test_an_item_brings_its_thread_to_the_top(store: ThreadStore) -> None:
    store.create(thread("t1", at=1))
    store.create(thread("t2", at=2))
    store.put(item("a", "t1", at=3))
    assert ids(store.listed("ana", "chat")) == ["t1", "t2"]
    assert store.get("t1").updated == 3
    store.put(item("b", "t2", at=4))
    store.put(item("a", "t1", at=9))
    assert ids(store.listed("ana", "chat")) == ["t2", "t1"], "a replaced item is no news"


def test_items_stay_in_the_order_they_were_added(store: ThreadStore, peer_store: ThreadStore) -> None:
    store.create(thread())
    for name in ("b", "c", "a"):
        store.put(item(name, parent="p"))
    store.put(replace(item("b"), body=b"\x00new\xff", kind="other"))
    found = peer_store.items("t1")
    assert ids(found) == ["b", "c", "a"]
    assert found[0].body == b"\x00new\xff"
    assert found[2] == item("a", parent="p")
    assert peer_store.item("t1", "a") == found[2]
    assert peer_store.outline("t1")[0] == Outline("b", "other", 2.0, "", True)
    assert ids(peer_store.outline("t1")) == ["b", "c", "a"]


def test_items_of_two_threads_may_have_one_name(store: ThreadStore) -> None:
    store.create(thread("t1"))
    store.create(thread("t2"))
    store.put(item("a", "t1"))
    store.put(item("a", "t2"))
    store.remove("t1", "a")
    assert store.items("t1") == []
    assert ids(store.items("t2")) == ["a"]
    with pytest.raises(NotFound):
        store.item("t1", "a")


def test_a_deleted_thread_takes_its_items_along(store: ThreadStore) -> None:
    store.create(thread())
    store.put(item("a", settled=False))
    store.delete("t1")
    store.delete("t1")
    assert store.unsettled() == []
    assert store.listed("ana", "chat") == []
    store.create(thread())
    assert store.items("t1") == []
    assert store.claim(item("b"), ""), "what was not settled counts no more"


def test_one_turn_at_a_time_is_claimed(store: ThreadStore, peer_store: ThreadStore) -> None:
    store.create(thread())
    assert store.claim(item("a"), "")
    assert store.claim(item("a"), ""), "asked again, because the answer was lost"
    assert not peer_store.claim(item("b"), "a"), "the first is not settled"
    assert store.settle(item("a"))
    assert not peer_store.claim(item("b"), ""), "somebody has added one meanwhile"
    assert peer_store.claim(item("b"), "a")
    assert [each.settled for each in store.outline("t1")] == [True, False]


def test_of_many_who_claim_at_once_one_gets_it(open_store: Callable[[], ThreadStore]) -> None:
    stores = [open_store() for _ in range(3)]
    stores[0].create(thread())
    got: list[str] = []

    def claim(store: ThreadStore, name: str) -> None:
        if store.claim(item(name), ""):
            got.append(name)

    with running(
        *(lambda s=store, n=f"{i}-{j}": claim(s, n) for i, store in enumerate(stores) for j in range(8))
    ):
        pass
    assert len(got) == 1
    assert ids(stores[0].items("t1")) == got


def test_an_item_is_settled_once(store: ThreadStore, peer_store: ThreadStore) -> None:
    store.create(thread())
    store.put(item("a", settled=False, parent="p", at=5))
    assert peer_store.settle(replace(item("a"), body=b"first"))
    assert not store.settle(replace(item("a"), body=b"second"))
    assert store.items("t1") == [Item("t1", "a", "turn", 5, b"first", "p", True)]
    store.put(replace(item("a"), body=b"third"))
    assert store.item("t1", "a").body == b"third"


def test_what_is_not_settled_is_found_the_oldest_first(store: ThreadStore) -> None:
    for number in range(4):
        store.create(thread(f"t{number}"))
        store.put(item("open", f"t{number}", at=10 - number, settled=False))
        store.put(item("closed", f"t{number}"))
    assert [each.thread for each in store.unsettled()] == ["t3", "t2", "t1", "t0"]
    assert [each.thread for each in store.unsettled(limit=2, skip=1)] == ["t2", "t1"]
    assert store.unsettled()[0] == item("open", "t3", at=7, settled=False)
    store.settle(item("open", "t2"))
    store.remove("t1", "open")
    assert [each.thread for each in store.unsettled()] == ["t3", "t0"]
    store.put(item("open", "t0", at=10))
    assert [each.thread for each in store.unsettled()] == ["t3"]


def test_old_threads_are_deleted_and_newer_ones_stay(store: ThreadStore) -> None:
    for number in range(120):
        store.create(thread(f"old{number}", at=1))
    store.put(item("a", "old7", at=1, settled=False))
    store.create(thread("new", at=5))
    removed = 0
    while count := store.expire(updated_before=5):
        removed += count
    assert removed == 120
    assert ids(store.listed("ana", "chat", limit=1000)) == ["new"]
    assert store.unsettled() == []


def test_a_body_of_megabytes_comes_back_as_it_was(store: ThreadStore, peer_store: ThreadStore) -> None:
    store.create(thread())
    body = bytes(range(256)) * 40_000
    store.put(replace(item("a"), body=body))
    assert peer_store.item("t1", "a").body == body
