"""Server-sent events in our own vocabulary: whatever the log holds, and resumable."""

from streaming.formats import Wants, WireFormat
from streaming.formats._json_events import JSONEvents


def create(wants: Wants) -> WireFormat:
    return JSONEvents("text/event-stream", wants)
