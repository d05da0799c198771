"""Wait for a socket's bytes, again and again, without telling the kernel each time.

A patched socket asks first, in vain, then has the loop watch it for one event.
A stream's bytes come one block at a time, so that is two system calls too many
for each block; here the loop keeps watching.
"""

from collections.abc import Callable
from typing import Any

import gevent
from gevent.hub import Waiter

READ = 1


class Incoming:
    """A socket that one greenlet at a time reads. ``close`` it before the socket."""

    __slots__ = ("_hub", "_take", "_waiter", "_watch", "_watching")

    def __init__(self, fileno: int) -> None:
        self._hub = gevent.get_hub()
        self._watch: Any = self._hub.loop.io(fileno, READ)
        self._watching = False
        self._waiter: Waiter[None] | None = None
        self._take: Callable[[], bool] | None = None

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

    def pour(self, take: Callable[[], bool]) -> None:
        """Have the loop call ``take`` whenever a read would not block, until it returns False.

        ``take`` must not block. Blocks; what it raises is raised here. In another thread than the first
        it does nothing.
        """
        self._take = take
        try:
            self.wait()
        finally:
            self._take = None

    def interrupt(self) -> None:
        """Make the greenlet that waits here go on, at the loop's next turn."""
        self._hub.loop.run_callback(self._wake)

    def rest(self) -> None:
        """Let the loop look away until the next ``wait``."""
        if self._watching:
            self._watching = False
            self._watch.stop()

    def close(self) -> None:
        self.rest()
        self._watch.close()

    def _note(self) -> None:
        if self._waiter is None:
            self.rest()  # its reader is busy: the loop would call this in every turn
            return
        if self._take is not None:
            try:
                if self._take():
                    return
            except Exception as error:
                waiter, self._waiter = self._waiter, None
                waiter.throw(error)
                return
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.switch(None)
