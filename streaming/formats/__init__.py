"""Wire formats: how a client wants to hear a stream.

To add one, add a file with ``create() -> WireFormat``; its name is the value of
``?format=``, and the contract tests cover it at once.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from streaming.events import Record


class Message(NamedTuple):
    data: bytes
    """Whole; the transport does the framing."""
    id: str = ""


class WireFormat(Protocol):
    """One reader's view of a stream; made anew for each connection."""

    media_type: str

    def encode(self, record: Record) -> Iterable[Message]:
        """Return what this reader is told about ``record``, which may be nothing.

        Records come in order, from wherever the reader starts; each is shown once.
        """
        ...
