"""The events as JSON, byte for byte as the log holds them.

What only other dialects or curious readers need (the upstream's chunks without
text, ticks of the metrics) is passed over; the next message's ``n`` says how
many events of the log it stands for.
"""

from streaming.events import Record
from streaming.formats import Message, Wants


class JSONEvents:
    from_start = False

    def __init__(self, media_type: str, wants: Wants) -> None:
        self.media_type = media_type
        self.resumes = media_type == "text/event-stream"
        self._hidden = ("chunk", "response") if wants.metrics else ("chunk", "response", "metrics")
        self._passed_over = 0

    def encode(self, record: Record) -> tuple[Message, ...]:
        count = record.events + self._passed_over
        if record.is_a(*self._hidden):
            self._passed_over = count
            return ()
        self._passed_over = 0
        payload = record.payload if count == 1 else b'%s,"n":%d}' % (record.payload[:-1], count)
        return (Message(payload, str(record.cursor)),)
