"""LangServe's ``/stream``: the id of the run, the chunks of its output, and ``end`` or ``error``."""

from streaming.events import Done, Error, Record, Start, decode, json_line
from streaming.formats import Message, Wants, WireFormat
from streaming.formats._langserve import CANCELLED, END, failure, part_of, tells_apart


class ChunksFormat:
    media_type = "text/event-stream"
    resumes = False
    from_start = True

    def __init__(self, wants: Wants) -> None:
        self._apart = tells_apart(wants)

    def encode(self, record: Record) -> tuple[Message, ...]:
        match event := decode(record.payload):
            case Start(stream_id):
                return (Message(json_line({"run_id": stream_id}), event="metadata"),)
            case Error() as last:
                return (failure(last),)
            case Done("cancelled"):
                return (CANCELLED,)
            case Done():
                return (END,)
        return tuple(Message(json_line(part), event="data") for part in part_of(event, self._apart, "chunk"))


def create(wants: Wants) -> WireFormat:
    return ChunksFormat(wants)
