"""Wait for a socket's bytes, again and again, without telling the kernel each time.

A patched socket asks first, in vain, then has the loop watch it for one event.
A stream's bytes come one block at a time, so that is two system calls too many
for each block; here the loop keeps watching.
"""

from typing import Any

import gevent
from gevent.hub import Waiter

READ = 1


class Incoming:
    """A socket that one greenlet at a time reads. ``close`` it before the socket."""

    __slots__ = ("_hub", "_waiter", "_watch", "_watching")

    def __init__(self, fileno: int) -> None:
        self._hub = gevent.get_hub()
        self._watch: Any = self._hub.loop.io(fileno, READ)
        self._watching = False
        self._waiter: Waiter[None] | None = None

    def wait(self) -> None:
        """Return when a read would not block. Blocks; in another thread than the first it does nothing."""
        if gevent.get_hub() is not self._hub:
            return
        if not self._watching:
            self._watching = True
            self._watch.start(self._note)
        self._waiter = waiter = Waiter(self._hub)
        try:
            waiter.get()
        finally:
            self._waiter = None

    def rest(self) -> None:
        """Let the loop look away until the next ``wait``."""
        if self._watching:
            self._watching = False
            self._watch.stop()

    def close(self) -> None:
        self.rest()
        self._watch.close()

    def _note(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            self.rest()  # its reader is busy: the loop would call this in every turn
        else:
            waiter.switch(None)
