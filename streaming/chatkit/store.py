"""The library's store, over ours: threads, and the items in them.

A message of the user is kept as it is. An answer is kept as a turn, the run that
made it, and its items are made of what the run said (`telling`): of the log while
it has it, of the turn itself later. So an answer nobody waited for is whole when
the thread is loaded, and a worker's death loses nothing. What is said about an
item of a turn afterwards, that a question was answered, or that it is removed, is
a mark beside it.
"""

import secrets
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
from chatkit.store import Store, StoreItemType
from chatkit.types import Attachment, Page, ThreadItem, ThreadMetadata
from pydantic import TypeAdapter

from streaming.answers import Answer
from streaming.chatkit.telling import Telling, tail_of
from streaming.chatkit.visits import Visit
from streaming.conversations import Conversations
from streaming.errors import Interrupted, InvalidRequest, NotFound, StreamExpired, StreamLost
from streaming.events import Done, Error, Event
from streaming.streams import Streams
from streaming.threads import Item, Thread, Threads
from streaming.turns import KIND as TURN
from streaming.turns import Turn, item_of

KIND = "chatkit"
MARK, FEEDBACK = "mark", "feedback"
MOST_OF_A_PAGE = 100
MOST_THREADS = 1000
"""That are looked through for a list from the oldest on."""
REMOVED = b""

_item_type: TypeAdapter[ThreadItem] = TypeAdapter(ThreadItem)
_PREFIXES: dict[StoreItemType, str] = {
    "thread": "thr",
    "message": "msg",
    "tool_call": "tc",
    "workflow": "wf",
    "task": "tsk",
    "attachment": "atc",
    "sdk_hidden_context": "shcx",
}


class ThreadsAndItems(Store[Visit]):
    """Its methods block, and never wait for an event loop. They raise `NotFound`."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    @property
    def _conversations(self) -> Conversations:
        """Those of who asks, in this request."""
        return self._streams.threads

    @property
    def _threads(self) -> Threads:
        return self._conversations.store

    # Ids are all that protects a thread: the library's own have 32 bits.

    def generate_thread_id(self, context: Visit) -> str:
        return _new_id("thread")

    def generate_item_id(self, item_type: StoreItemType, thread: ThreadMetadata, context: Visit) -> str:
        return _new_id(item_type)

    # Threads

    async def load_thread(self, thread_id: str, context: Visit) -> ThreadMetadata:
        return _metadata(self._thread(thread_id))

    async def save_thread(self, thread: ThreadMetadata, context: Visit) -> None:
        now = time.time()
        thread.created_at = thread.created_at.astimezone(UTC)  # the library's is the server's local time
        created = thread.created_at.timestamp()
        about = thread.model_dump_json().encode()
        new = Thread(thread.id, context.owner, KIND, thread.title or "", created, now, about)
        found = self._threads.create(new)
        if found != new:
            _check_kind(found)
            self._threads.save(msgspec.structs.replace(new, owner=found.owner))

    async def load_threads(
        self, limit: int, after: str | None, order: str, context: Visit
    ) -> Page[ThreadMetadata]:
        limit = max(1, min(limit, MOST_OF_A_PAGE))
        if order == "desc":
            found = self._threads.listed(context.owner, KIND, after or "", limit + 1)
        else:
            found = self._from_oldest(context.owner)
            found = found[_place_after([each.id for each in found], after) :]
        return _page([_metadata(each) for each in found], limit)

    async def delete_thread(self, thread_id: str, context: Visit) -> None:
        self._thread(thread_id)
        for item in self._threads.items(thread_id):
            if item.kind == TURN:
                with suppress(NotFound, StreamExpired, StreamLost):
                    self._streams.erase(item.id)
        self._threads.delete(thread_id)

    # Items

    async def load_thread_items(
        self, thread_id: str, after: str | None, limit: int, order: str, context: Visit
    ) -> Page[ThreadItem]:
        found = self.all_items(thread_id)
        if order == "desc":
            found.reverse()
        found = found[_place_after([each.id for each in found], after) :]
        return _page(found, max(1, min(limit, MOST_OF_A_PAGE)))

    async def load_item(self, thread_id: str, item_id: str, context: Visit) -> ThreadItem:
        for item in self.all_items(thread_id):
            if item.id == item_id:
                return item
        raise _no_item(item_id)

    async def add_thread_item(self, thread_id: str, item: ThreadItem, context: Visit) -> None:
        if context.stream_id and tail_of(context.stream_id) in item.id:
            return  # the log has it, and the turn says so
        item.created_at = item.created_at.astimezone(UTC)
        self._put(thread_id, item.id, item.type, _item_type.dump_json(item))

    async def save_item(self, thread_id: str, item: ThreadItem, context: Visit) -> None:
        kind = item.type if self._has(thread_id, item.id) else MARK
        self._put(thread_id, item.id, kind, _item_type.dump_json(item))

    async def delete_thread_item(self, thread_id: str, item_id: str, context: Visit) -> None:
        for item in self._threads.items(thread_id):
            if item.kind == TURN and tail_of(item.id) in item_id:
                self._remove_of_turn(item, item_id)
                return
        self._threads.remove(thread_id, item_id)

    def all_items(self, thread_id: str) -> list[ThreadItem]:
        """Return what a thread holds, oldest first, hidden items too."""
        self._thread(thread_id)
        stored = self._threads.items(thread_id)
        marks = {item.id: item.body for item in stored if item.kind == MARK}
        found: list[ThreadItem] = []
        for item in stored:
            if item.kind == TURN:
                for each in self._items_of(item):
                    if each.id not in marks:
                        found.append(each)
                    elif marks[each.id] != REMOVED:
                        found.append(_item_type.validate_json(marks[each.id]))
            elif item.kind not in (MARK, FEEDBACK):
                found.append(_item_type.validate_json(item.body))
        return found

    def count(self, thread_id: str) -> int:
        return len(self._threads.outline(thread_id))

    # Turns

    def claim_turn(self, thread_id: str, turn: Turn) -> bool:
        """Add the turn of a run under way; say whether none other is."""
        outline = self._threads.outline(thread_id)
        return self._threads.claim(item_of(turn, thread_id), outline[-1].id if outline else "")

    def last_turn(self, thread_id: str) -> Turn | None:
        """Return the newest answer; what is there of it, if its run goes on. Raises `NotFound`."""
        self._thread(thread_id)
        turns = [each.id for each in self._threads.outline(thread_id) if each.kind == TURN]
        return self._conversations.turn(thread_id, turns[-1]) if turns else None

    def keep(self, thread_id: str, stream_id: str) -> None:
        """Keep what a run that has ended said, so that it outlives the log."""
        self._conversations.turn(thread_id, stream_id)

    def mark_feedback(self, thread_id: str, item_id: str, kind: str) -> None:
        self._put(thread_id, f"fb_{item_id}", FEEDBACK, msgspec.json.encode({"item": item_id, "kind": kind}))

    def feedback(self, thread_id: str) -> dict[str, str]:
        """Return what was said about items, by their ids."""
        stored = self._threads.items(thread_id)
        said = [msgspec.json.decode(item.body) for item in stored if item.kind == FEEDBACK]
        return {each["item"]: each["kind"] for each in said}

    # Attachments: there are none, and `server` refuses them in words.

    async def save_attachment(self, attachment: Attachment, context: Visit) -> None:
        raise no_attachments()

    async def load_attachment(self, attachment_id: str, context: Visit) -> Attachment:
        raise no_attachments()

    async def delete_attachment(self, attachment_id: str, context: Visit) -> None:
        raise no_attachments()

    # Private

    def _thread(self, thread_id: str) -> Thread:
        found = self._threads.get(thread_id)
        _check_kind(found)
        return found

    def _from_oldest(self, owner: str) -> list[Thread]:
        found: list[Thread] = []
        while len(found) < MOST_THREADS:
            more = self._threads.listed(owner, KIND, found[-1].id if found else "", MOST_OF_A_PAGE)
            found += more
            if len(more) < MOST_OF_A_PAGE:
                break
        found.reverse()
        return found

    def _put(self, thread_id: str, item_id: str, kind: str, body: bytes) -> None:
        self._threads.put(Item(thread_id, item_id, kind, time.time(), body))

    def _has(self, thread_id: str, item_id: str) -> bool:
        try:
            return self._threads.item(thread_id, item_id).kind != MARK
        except NotFound:
            return False

    def _items_of(self, item: Item) -> list[ThreadItem]:
        telling = Telling(item.thread, item.id, datetime.fromtimestamp(item.created, UTC))
        answer = self._conversations.turn(item.thread, item.id).answer
        if answer is not None:
            telling.tell([*answer.events, *_end_of(answer)])
        return telling.items

    def _remove_of_turn(self, turn: Item, item_id: str) -> None:
        self._put(turn.thread, item_id, MARK, REMOVED)
        removed = {each.id for each in self._threads.items(turn.thread) if each.body == REMOVED}
        mine = {each.id for each in self._items_of(turn)}
        if mine <= removed:
            for each in mine:
                self._threads.remove(turn.thread, each)
            self._threads.remove(turn.thread, turn.id)


def _check_kind(thread: Thread) -> None:
    if thread.kind != KIND:
        raise NotFound("there is no such thread", param="thread_id")


def _metadata(thread: Thread) -> ThreadMetadata:
    found = ThreadMetadata.model_validate_json(thread.about)
    found.title = thread.title or None
    return found


def _page(found: list[Any], limit: int) -> Page[Any]:
    """Return the first ``limit`` as a page; its ``after`` leads to the next one, if there is one."""
    has_more = len(found) > limit
    return Page(data=found[:limit], has_more=has_more, after=found[limit - 1].id if has_more else None)


def _place_after(ids: list[str], after: str | None) -> int:
    if not after:
        return 0
    if after not in ids:
        raise InvalidRequest("after: there is no such item in this list", code="wrong_value", param="after")
    return ids.index(after) + 1


def _new_id(kind: StoreItemType) -> str:
    return f"{_PREFIXES[kind]}_{secrets.token_hex(16)}"


def _no_item(item_id: str) -> NotFound:
    return NotFound("there is no such item in this thread", param="item_id")


def no_attachments() -> InvalidRequest:
    return InvalidRequest(
        "files cannot be attached here: this service keeps none", code="no_attachments", param="attachments"
    )


def _end_of(answer: Answer) -> list[Event]:
    """Return the event that ended a run, as far as items are made of it."""
    if answer.state == "running":
        return []
    if answer.finish_reason is not None:
        return [Done(answer.finish_reason)]
    return [Error(answer.error or Interrupted("the answer broke off").info(partial=True))]
