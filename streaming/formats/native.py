"""Server-sent events in our own vocabulary: whatever the log holds, and resumable."""

from streaming.formats import WireFormat
from streaming.formats._json_events import JSONEvents


def create(show_metrics: bool = False) -> WireFormat:
    return JSONEvents("text/event-stream", show_metrics)
