"""The store that ChatKit's library is given, over each of ours."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from chatkit.types import HiddenContextItem, ThreadItem, ThreadMetadata, UserMessageItem
from pydantic import TypeAdapter

from streaming import plugins
from streaming.chatkit.driving import run
from streaming.chatkit.store import ThreadsAndItems
from streaming.chatkit.visits import Visit
from streaming.conversations import Conversations
from streaming.errors import InvalidRequest, NotFound, StreamExpired
from streaming.eventlogs import Claim, EventLog
from streaming.events import Done, Event, Interrupt, Reasoning, Start, Token, encode
from streaming.histories import Room
from streaming.turns import Turn
from tests.doubles import new_stream

item_type: TypeAdapter[ThreadItem] = TypeAdapter(ThreadItem)


class Kept:
    """As much of the service as the store asks for: where threads are, and how a stream is erased."""

    def __init__(self, log: EventLog, log_name: str) -> None:
        self.log = log
        store = plugins.create("threads", log_name, log)
        self.threads = Conversations(store, log, Room(10_000, 1_000_000, 100), {})

    def erase(self, stream_id: str) -> None:
        self.log.erase(stream_id)

    def ran(self, *events: Event, ended: bool = True) -> str:
        """Return the id of a stream with these events."""
        new = new_stream(self.log)
        stream_id = self.log.create(new, [encode(Start(new.stream_id, "chat", "m", 1))])
        payloads = [encode(event) for event in events]
        self.log.append(Claim(stream_id, 1), 2, payloads, "completed" if ended else None)
        return stream_id


@pytest.fixture
def kept(open_log: Callable[[], EventLog], log_name: str) -> Iterator[Kept]:
    kept = Kept(open_log(), log_name)
    yield kept
    kept.threads.store.close()


@pytest.fixture
def store(kept: Kept) -> ThreadsAndItems:
    return ThreadsAndItems(kept)  # type: ignore[arg-type]


def visit(owner: str = "ana") -> Visit:
    def make_order(_: Any) -> Any:
        raise AssertionError("nothing is asked here")

    return Visit(owner, make_order)


VISIT = visit()


def made(store: ThreadsAndItems, title: str = "", owner: str = "ana") -> str:
    context = visit(owner)
    thread_id = store.generate_thread_id(context)
    thread = ThreadMetadata(id=thread_id, title=title or None, created_at=datetime.now())
    run(store.save_thread(thread, context))
    return thread_id


def user(thread_id: str, id_: str) -> UserMessageItem:
    return UserMessageItem(
        id=id_, thread_id=thread_id, created_at=datetime.now(), content=[], inference_options={}
    )


def said(store: ThreadsAndItems, thread_id: str, *ids: str) -> None:
    for each in ids:
        run(store.add_thread_item(thread_id, user(thread_id, each), VISIT))


def page(store: ThreadsAndItems, thread_id: str, **asked: Any) -> Any:
    wanted = {"after": None, "limit": 10, "order": "asc"} | asked
    return run(store.load_thread_items(thread_id, **wanted, context=VISIT))


def ids(found: list[Any]) -> list[str]:
    return [each.id for each in found]


def turn(stream_id: str) -> Turn:
    return Turn(stream_id, "", "chat", "m", "", time.time())


def test_a_thread_is_loaded_as_it_was_saved(store: ThreadsAndItems) -> None:
    thread_id = made(store, "тема")
    found = run(store.load_thread(thread_id, VISIT))
    assert (found.id, found.title) == (thread_id, "тема")
    assert found.created_at.utcoffset() == UTC.utcoffset(None)
    found.title, found.metadata = "other", {"source": "agent"}
    run(store.save_thread(found, VISIT))
    assert run(store.load_thread(thread_id, VISIT)) == found


def test_what_is_not_there_is_not_found(store: ThreadsAndItems, kept: Kept) -> None:
    thread_id = made(store)
    kept.threads.open("of-the-page", "ana")
    for unknown in ("nope", "of-the-page", "", "x" * 1000):
        with pytest.raises(NotFound):
            run(store.load_thread(unknown, VISIT))
        with pytest.raises(NotFound):
            page(store, unknown)
        with pytest.raises(NotFound):
            run(store.delete_thread(unknown, VISIT))
    with pytest.raises(NotFound):
        run(store.load_item(thread_id, "nope", VISIT))


def test_threads_are_listed_to_their_owner_in_pages_either_way(store: ThreadsAndItems) -> None:
    mine = [made(store) for _ in range(5)]
    made(store, owner="ben")
    newest = ids(run(store.load_threads(10, None, "desc", VISIT)).data)
    assert set(newest) == set(mine)
    for order, expected in (("desc", newest), ("asc", newest[::-1])):
        after, seen = None, []
        for _ in range(3):
            found = run(store.load_threads(2, after, order, VISIT))
            seen += ids(found.data)
            after = found.after
        assert (seen, found.has_more, after) == (expected, False, None)
        assert not run(store.load_threads(5, None, order, VISIT)).has_more


def test_items_come_in_order_and_in_pages_either_way(store: ThreadsAndItems) -> None:
    thread_id = made(store)
    said(store, thread_id, "a", "b", "c", "d", "e")
    for order, expected in (("asc", list("abcde")), ("desc", list("edcba"))):
        first = page(store, thread_id, limit=3, order=order)
        assert (ids(first.data), first.has_more) == (expected[:3], True)
        rest = page(store, thread_id, limit=3, order=order, after=first.after)
        assert (ids(rest.data), rest.has_more, rest.after) == (expected[3:], False, None)
        whole = page(store, thread_id, limit=5, order=order)
        assert (ids(whole.data), whole.has_more, whole.after) == (expected, False, None)
    with pytest.raises(InvalidRequest):
        page(store, thread_id, after="nope")


def test_an_item_is_replaced_at_its_place_and_removed(store: ThreadsAndItems) -> None:
    thread_id = made(store)
    said(store, thread_id, "a", "b", "c")
    changed = user(thread_id, "b")
    changed.quoted_text = "new"
    run(store.save_item(thread_id, changed, VISIT))
    assert ids(page(store, thread_id).data) == ["a", "b", "c"]
    found = run(store.load_item(thread_id, "b", VISIT))
    assert isinstance(found, UserMessageItem)
    assert found.quoted_text == "new"
    run(store.delete_thread_item(thread_id, "b", VISIT))
    run(store.delete_thread_item(thread_id, "b", VISIT))
    assert ids(page(store, thread_id).data) == ["a", "c"]


def test_a_hidden_item_is_kept_for_the_server(store: ThreadsAndItems) -> None:
    thread_id = made(store)
    hidden = HiddenContextItem(id="h", thread_id=thread_id, created_at=datetime.now(UTC), content={"a": 1})
    run(store.add_thread_item(thread_id, hidden, VISIT))
    assert store.all_items(thread_id) == [hidden]


def test_an_answer_is_found_while_it_is_written_when_it_has_ended_and_when_the_log_has_lost_it(
    store: ThreadsAndItems, kept: Kept
) -> None:
    thread_id = made(store)
    said(store, thread_id, "a")
    running = kept.ran(Reasoning("hm"), Token("par"), Token("tial"), ended=False)
    assert store.claim_turn(thread_id, turn(running))
    _, work, message = store.all_items(thread_id)
    assert (work.type, message.content[0].text) == ("workflow", "partial")  # type: ignore[union-attr]
    assert not store.claim_turn(thread_id, turn(kept.ran(Token("x")))), "two answers at once"

    kept.log.append(Claim(running, 1), 5, [encode(Token(" and whole")), encode(Done("stop"))], "completed")
    whole = store.all_items(thread_id)
    assert whole[2].content[0].text == "partial and whole"  # type: ignore[union-attr]
    kept.log.erase(running)
    assert store.all_items(thread_id) == whole


def test_the_items_of_an_answer_are_removed_one_by_one_and_then_it_is_gone(
    store: ThreadsAndItems, kept: Kept
) -> None:
    thread_id = made(store)
    stream_id = kept.ran(Reasoning("hm"), Token("a"), Done("stop"))
    store.claim_turn(thread_id, turn(stream_id))
    work, message = store.all_items(thread_id)
    run(store.delete_thread_item(thread_id, message.id, VISIT))
    assert ids(store.all_items(thread_id)) == [work.id]
    run(store.delete_thread_item(thread_id, work.id, VISIT))
    assert store.all_items(thread_id) == []
    assert kept.threads.store.items(thread_id) == []


def test_an_answered_question_stays_answered(store: ThreadsAndItems, kept: Kept) -> None:
    thread_id = made(store)
    store.claim_turn(thread_id, turn(kept.ran(Interrupt("i", "Sure?"), Done("interrupt"))))
    (asked,) = store.all_items(thread_id)
    answered = asked.model_copy(update={"status": "answered"})
    run(store.save_item(thread_id, answered, VISIT))
    assert store.all_items(thread_id) == [answered]


def test_feedback_is_kept_and_is_no_item(store: ThreadsAndItems) -> None:
    thread_id = made(store)
    said(store, thread_id, "a")
    store.mark_feedback(thread_id, "a", "positive")
    store.mark_feedback(thread_id, "a", "negative")
    assert store.feedback(thread_id) == {"a": "negative"}
    assert ids(store.all_items(thread_id)) == ["a"]


def test_a_deleted_thread_takes_its_items_and_its_texts(store: ThreadsAndItems, kept: Kept) -> None:
    thread_id = made(store)
    stream_id = kept.ran(Token("a"), Done("stop"))
    store.claim_turn(thread_id, turn(stream_id))
    run(store.delete_thread(thread_id, VISIT))
    with pytest.raises(NotFound):
        run(store.load_thread(thread_id, VISIT))
    with pytest.raises(StreamExpired):
        kept.log.head(stream_id)
