"""One principal's threads in a store that all share: by their names, so that no check can be forgotten.

A thread's id is kept with its owner's before it. Another's thread is therefore
not there, whatever is done with its id, and takes no longer to be not there.
"""

from msgspec.structs import replace

from streaming.errors import NotFound
from streaming.threads import Item, Outline, Thread, Threads

MARK = "~"
"""In no id that a client may give a thread."""


class OwnedThreads:
    """See `Threads`."""

    def __init__(self, store: Threads, owner: str) -> None:
        """``owner`` is "" in the open mode, where ids are kept as they are."""
        self._store = store
        self._before = f"{owner}{MARK}" if owner else ""

    def create(self, thread: Thread) -> Thread:
        return self._shown(self._store.create(replace(thread, id=self._kept(thread.id))))

    def get(self, thread_id: str) -> Thread:
        return self._shown(self._store.get(self._kept(thread_id)))

    def save(self, thread: Thread) -> None:
        self._store.save(replace(thread, id=self._kept(thread.id)))

    def listed(self, owner: str, kind: str, after: str = "", limit: int = 50) -> list[Thread]:
        after = self._kept(after) if after else ""
        found = self._store.listed(owner, kind, after, limit)
        return [self._shown(each) for each in found if self._is_here(each.id)]

    def delete(self, thread_id: str) -> None:
        self._store.delete(self._kept(thread_id))

    def put(self, item: Item) -> None:
        self._store.put(self._item_kept(item))

    def claim(self, item: Item, newest: str) -> bool:
        return self._store.claim(self._item_kept(item), newest)

    def settle(self, item: Item) -> bool:
        return self._store.settle(self._item_kept(item))

    def item(self, thread_id: str, item_id: str) -> Item:
        return replace(self._store.item(self._kept(thread_id), item_id), thread=thread_id)

    def items(self, thread_id: str) -> list[Item]:
        return [replace(each, thread=thread_id) for each in self._store.items(self._kept(thread_id))]

    def outline(self, thread_id: str) -> list[Outline]:
        return self._store.outline(self._kept(thread_id))

    def remove(self, thread_id: str, item_id: str) -> None:
        self._store.remove(self._kept(thread_id), item_id)

    def _kept(self, thread_id: str) -> str:
        if MARK in thread_id:
            raise NotFound("no such thread")
        return self._before + thread_id

    def _shown(self, thread: Thread) -> Thread:
        return replace(thread, id=thread.id.removeprefix(self._before))

    def _item_kept(self, item: Item) -> Item:
        return replace(item, thread=self._kept(item.thread))

    def _is_here(self, kept_id: str) -> bool:
        return kept_id.startswith(self._before) if self._before else MARK not in kept_id
