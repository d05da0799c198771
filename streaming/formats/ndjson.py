"""The native events, one a line. Source: the NDJSON specification 1.0."""

from streaming.formats import WireFormat
from streaming.formats._json_events import JSONEvents


def create(show_metrics: bool = False) -> WireFormat:
    return JSONEvents("application/x-ndjson", show_metrics)
