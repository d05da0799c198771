"""What was measured from outside, through whatever stands in front of the service.

Times are milliseconds since 1970: ``sent`` by the service's clock, ``came`` by
the client's. Anything that was not measured is left out, and not judged.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

Milliseconds = Annotated[float, Meta(ge=-1e15, le=1e15)]
Seconds = Annotated[float, Meta(ge=-1e10, le=1e10)]
Count = Annotated[int, Meta(ge=0, le=100_000)]
Word = Annotated[str, Meta(max_length=300)]
Headers = Annotated[dict[Word, Word], Meta(max_length=100)]


class Ticks(Struct, frozen=True, forbid_unknown_fields=True):
    """One stream of ticks."""

    every_ms: Annotated[float, Meta(ge=1, le=60_000)]
    asked: Count
    sent: Annotated[list[Milliseconds], Meta(max_length=1000)]
    came: Annotated[list[Milliseconds], Meta(max_length=1000)]
    first_byte_ms: Milliseconds
    """From the request to the first byte of the answer's body."""
    whole: bool = True
    """The last event came, and then the end."""


class Silence(Struct, frozen=True, forbid_unknown_fields=True):
    """A stream that said something, then nothing for a while, then something again."""

    asked_seconds: Seconds
    heartbeat_seconds: Seconds
    """Between the comments that were sent meanwhile; 0 for none."""
    lasted_seconds: Seconds
    """Until the end of it, or until the connection was cut."""
    survived: bool
    heartbeats: Annotated[list[Seconds], Meta(max_length=1000)] = msgspec.field(default_factory=list)
    """When each came, in seconds from the beginning of the silence."""
    mute: bool = False
    """Not cut: nothing came any more, not even the end."""


class Seen(Struct, frozen=True):
    """What arrived at the service of a request's headers. Left out where the client could not know."""

    last_event_id: Word = ""
    idempotency_key: Word = ""
    host: Word = ""
    scheme: Word = ""
    forwarded_proto: Word = ""
    protocol: Word = ""
    """The version of HTTP in which the service was asked."""


class Tls(Struct, frozen=True, forbid_unknown_fields=True):
    version: Word
    http2: bool
    """It was offered."""
    days_left: float | None = None
    """Until the certificate expires."""


class Measured(Struct, frozen=True, forbid_unknown_fields=True):
    url: Word
    headers: Headers = msgspec.field(default_factory=dict)
    """Of the answer that carried the ticks, by their names in lower case."""
    http: Word = ""
    """The version of HTTP that the client spoke: ``1.0``, ``1.1``, ``2``, ``3``."""
    ticks: Ticks | None = None
    encoding: Word | None = None
    """``Content-Encoding`` of a stream that was asked for with ``Accept-Encoding: gzip``."""
    squeezed: Ticks | None = None
    """That stream's ticks."""
    silences: Annotated[list[Silence], Meta(max_length=20)] = msgspec.field(default_factory=list)
    heartbeat_seconds: Seconds = 10.0
    """The service's own."""
    seen: Seen | None = None
    sent_last_event_id: Word = ""
    sent_idempotency_key: Word = ""
    answer_beside_ms: Milliseconds | None = None
    """How long a short request took while a stream was open; negative: no answer in time."""
    opened_at_once: Count | None = None
    """Streams that were asked for at the same time,"""
    opened: Count = 0
    """and how many of them began."""
    websocket_status: Annotated[int, Meta(ge=0, le=999)] | None = None
    """Of the answer to an upgrade; 0: none."""
    keeps_connection: bool | None = None
    large_body_status: Annotated[int, Meta(ge=0, le=999)] | None = None
    """Of the answer to a body of `LARGE_BODY_BYTES`; 0: none."""
    clock_ahead_seconds: Seconds | None = None
    """The service's, of the client's."""
    clock_within_seconds: Seconds = 0.0
    """How far off that may be."""
    tls: Tls | None = None


LARGE_BODY_BYTES = 2 * 1024 * 1024


def read(asked: Any) -> Measured:
    """Convert decoded JSON. Raises ``msgspec.ValidationError``."""
    return msgspec.convert(asked, Measured)
