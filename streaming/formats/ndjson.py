"""The native events, one a line. Source: the NDJSON specification 1.0."""

from streaming.formats import Wants, WireFormat
from streaming.formats._json_events import JSONEvents


def create(wants: Wants) -> WireFormat:
    return JSONEvents("application/x-ndjson", wants)
