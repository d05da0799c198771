"""Threads: conversations that outlast the runs in them, and what every store of them promises.

A thread is a title and items in the order in which they were added. What an
item holds is known to whoever added it; the store knows whether it is settled.
A turn whose answer is still to come is not.

1. What was written is there for every worker once the call returned.
2. At most one item of a thread is claimed and not settled: see ``claim``.
3. A settled item is never settled again, so the first to do it wins.

A store is in the same database as the event log, and shares its fate: a file
that was damaged, or a server that was emptied, takes both.
"""

from typing import Protocol

from msgspec import Struct


class Thread(Struct, frozen=True):
    id: str
    """1 to 128 of A-Z, a-z, 0-9, dot, underscore, colon and hyphen; unique over all kinds."""
    owner: str
    """Who sees it in a list; "" for nobody in particular."""
    kind: str
    """``chat`` or ``chatkit``: whose it is to show."""
    title: str
    created: float
    """Seconds since 1970, as ``updated`` is."""
    updated: float
    about: bytes = b"{}"
    """JSON of the kind's own."""


class Item(Struct, frozen=True):
    thread: str
    id: str
    """Unique in the thread."""
    kind: str
    """``turn``, or one of ChatKit's."""
    created: float
    body: bytes
    parent: str = ""
    """The item it follows; "" for none, or where there is no tree."""
    settled: bool = True
    """``False`` for a turn whose answer is not kept here yet."""


class Outline(Struct, frozen=True):
    """An item without its body."""

    id: str
    kind: str
    created: float
    parent: str
    settled: bool


class Threads(Protocol):
    """What is done with threads by their ids. Methods block the calling greenlet only.

    Any may raise `StoreUnavailable`, and one that writes `StoreFull`.
    """

    def create(self, thread: Thread) -> Thread:
        """Return the thread, or the one that has its id already."""
        ...

    def get(self, thread_id: str) -> Thread:
        """Raises `NotFound`."""
        ...

    def save(self, thread: Thread) -> None:
        """Write title and about, and ``updated`` if that is later. Raises `NotFound`."""
        ...

    def listed(self, owner: str, kind: str, after: str = "", limit: int = 50) -> list[Thread]:
        """Return an owner's threads, the last updated first; ``after``: the last one that was seen.

        Raises `NotFound` when that one is gone.
        """
        ...

    def delete(self, thread_id: str) -> None:
        """Forget the thread and its items, if it is there."""
        ...

    def put(self, item: Item) -> None:
        """Add an item at the end, or replace it at its place. Raises `NotFound` for an unknown thread.

        An item that is added makes its thread the last updated one.
        """
        ...

    def claim(self, item: Item, newest: str) -> bool:
        """Add an item that is not settled, if ``newest`` is the id of the last one and all are settled.

        ``newest`` is "" for a thread without items. Answers whether it was added; that it was
        also for an item that is there already. Raises `NotFound` for an unknown thread.
        """
        ...

    def settle(self, item: Item) -> bool:
        """Replace the body of an item that is not settled, and settle it; say whether that was so."""
        ...

    def item(self, thread_id: str, item_id: str) -> Item:
        """Raises `NotFound`."""
        ...

    def items(self, thread_id: str) -> list[Item]:
        """Return a thread's items in order; none for an unknown thread."""
        ...

    def outline(self, thread_id: str) -> list[Outline]:
        """Return the same without the bodies, which may be large."""
        ...

    def remove(self, thread_id: str, item_id: str) -> None:
        """Forget one item, if it is there."""
        ...


class ThreadStore(Threads, Protocol):
    """All the threads there are, and what is done with the whole of them."""

    def unsettled(self, limit: int = 100, skip: int = 0) -> list[Item]:
        """Return items of all threads that are not settled, the oldest first, after ``skip`` of them."""
        ...

    def expire(self, updated_before: float) -> int:
        """Delete threads that were last updated before then (seconds since 1970).

        At most one batch; return how many, so that 0 means there is nothing left to do.
        """
        ...

    def close(self) -> None: ...
