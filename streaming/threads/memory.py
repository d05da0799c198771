"""Threads in this process's memory, beside a log that is there too."""

from dataclasses import dataclass, field

from msgspec.structs import replace

from streaming.errors import NotFound
from streaming.threads import Item, Outline, Thread, ThreadStore


@dataclass
class _Kept:
    thread: Thread
    items: dict[str, Item] = field(default_factory=dict)


class MemoryThreads:
    """See `ThreadStore`."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def create(self, thread: Thread) -> Thread:
        return self._kept.setdefault(thread.id, _Kept(thread)).thread

    def get(self, thread_id: str) -> Thread:
        return self._of(thread_id).thread

    def save(self, thread: Thread) -> None:
        kept = self._of(thread.id)
        updated = max(thread.updated, kept.thread.updated)
        kept.thread = replace(kept.thread, title=thread.title, about=thread.about, updated=updated)

    def listed(self, owner: str, kind: str, after: str = "", limit: int = 50) -> list[Thread]:
        theirs = [
            kept.thread
            for kept in self._kept.values()
            if kept.thread.owner == owner and kept.thread.kind == kind
        ]
        theirs.sort(key=_age, reverse=True)
        if after:
            seen = _age(self.get(after))
            theirs = [thread for thread in theirs if _age(thread) < seen]
        return theirs[:limit]

    def delete(self, thread_id: str) -> None:
        self._kept.pop(thread_id, None)

    def put(self, item: Item) -> None:
        kept = self._of(item.thread)
        if item.id not in kept.items:
            updated = max(item.created, kept.thread.updated)
            kept.thread = replace(kept.thread, updated=updated)
        kept.items[item.id] = item

    def claim(self, item: Item, newest: str) -> bool:
        items = self._of(item.thread).items
        if item.id in items:
            return True
        last = next(reversed(items), "")
        if last != newest or not all(each.settled for each in items.values()):
            return False
        self.put(replace(item, settled=False))
        return True

    def settle(self, item: Item) -> bool:
        items = self._kept[item.thread].items if item.thread in self._kept else {}
        before = items.get(item.id)
        if before is None or before.settled:
            return False
        items[item.id] = replace(before, body=item.body, settled=True)
        return True

    def item(self, thread_id: str, item_id: str) -> Item:
        try:
            return self._of(thread_id).items[item_id]
        except KeyError:
            raise NotFound("no such item in this thread") from None

    def items(self, thread_id: str) -> list[Item]:
        return list(self._kept[thread_id].items.values()) if thread_id in self._kept else []

    def outline(self, thread_id: str) -> list[Outline]:
        return [
            Outline(item.id, item.kind, item.created, item.parent, item.settled)
            for item in self.items(thread_id)
        ]

    def remove(self, thread_id: str, item_id: str) -> None:
        if kept := self._kept.get(thread_id):
            kept.items.pop(item_id, None)

    def unsettled(self, limit: int = 100, skip: int = 0) -> list[Item]:
        found = [item for kept in self._kept.values() for item in kept.items.values() if not item.settled]
        found.sort(key=lambda item: item.created)
        return found[skip : skip + limit]

    def expire(self, updated_before: float) -> int:
        old = [thread_id for thread_id, kept in self._kept.items() if kept.thread.updated < updated_before]
        for thread_id in old:
            self.delete(thread_id)
        return len(old)

    def close(self) -> None:
        self._kept.clear()

    def _of(self, thread_id: str) -> _Kept:
        try:
            return self._kept[thread_id]
        except KeyError:
            raise NotFound("no such thread") from None


def _age(thread: Thread) -> tuple[float, str]:
    return thread.updated, thread.id


def create(log: object) -> ThreadStore:
    return MemoryThreads()
