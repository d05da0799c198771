"""Wire formats: how a client wants to hear a stream.

To add one, add a file with ``create(wants) -> WireFormat``; its name is the value
of ``?format=``, and the contract tests cover it at once.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

from msgspec import Struct

from streaming.events import Record


class Wants(Struct, frozen=True):
    """What a reader asked for besides the format; each takes what it knows."""

    metrics: bool = False
    """Live metrics in the stream."""
    usage: bool = False
    """OpenAI's chat dialect: a chunk with the usage before the end."""
    starting_after: int = -1
    """OpenAI's Responses dialect: the ``sequence_number`` of the last event the reader has."""
    request: dict[str, Any] = {}
    """What the run was asked, as its order said it."""


class Message(NamedTuple):
    data: bytes
    """Whole; the transport does the framing."""
    id: str = ""
    event: str = ""
    """Its name, in dialects that name their events."""


class WireFormat(Protocol):
    """One reader's view of a stream; made anew for each connection."""

    media_type: str
    resumes: bool
    """Its clients come back by themselves with the last id, as `EventSource` does."""
    from_start: bool
    """It must be told the stream from its first record, and has no ids to continue from."""

    def encode(self, record: Record) -> Iterable[Message]:
        """Return what this reader is told about ``record``, which may be nothing.

        Records come in order, from wherever the reader starts; each is shown once.
        """
        ...
