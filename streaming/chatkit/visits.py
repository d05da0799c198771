"""One request of ChatKit's protocol: who asks, how, and whether they are still there."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from streaming.producer import OnDisconnect
from streaming.reader import Reader
from streaming.streams import Order


class Question(NamedTuple):
    """What a run is to answer."""

    thread_id: str
    source: str
    model: str | None
    messages: list[dict[str, Any]]
    resume: Any = None
    """With ``resumes``: what a waiting graph is answered."""
    resumes: bool = False
    memory: str = ""
    """The name of a runnable's own memory of this thread."""


class Visit:
    """What the library hands on to the store and the server, as its *context*."""

    def __init__(
        self,
        owner: str,
        make_order: Callable[[Question], Order],
        source: str = "chat",
        on_disconnect: OnDisconnect = "cancel",
    ) -> None:
        self.owner = owner
        self.make_order = make_order
        """Checks a question against the limits of this service. Raises `InvalidRequest`."""
        self.source = source
        """Of threads that are begun by this request."""
        self.on_disconnect = on_disconnect
        self.left = False
        self.stream_id = ""
        """The run this request started."""
        self._reader: Reader | None = None

    @property
    def may_stop(self) -> bool:
        """Leaving is stopping: the protocol's stop button just closes the connection."""
        return self.on_disconnect == "cancel"

    def leave(self) -> None:
        """Say that the client has gone; from any greenlet, as often as one likes."""
        self.left = True
        if self._reader is not None:
            self._reader.leave()

    def check_present(self) -> None:
        """Raise ``CancelledError``, which is how the library hears of it, when the client has gone."""
        if self.left:
            raise asyncio.CancelledError

    @contextmanager
    def following(self, reader: Reader) -> Iterator[None]:
        """Let ``leave`` reach the reader meanwhile."""
        self._reader = reader
        if self.left:
            reader.leave()
        try:
            yield
        finally:
            self._reader = None
