"""Text and an end, for pages of six lines: ``{"content": …, "done": false}``."""

from streaming.events import Done, Error, Record, Start, Token, decode, json_line
from streaming.formats import Message, Wants, WireFormat


class SimpleFormat:
    media_type = "text/event-stream"
    resumes = True
    from_start = False

    def encode(self, record: Record) -> tuple[Message, ...]:
        match decode(record.payload):
            case Start():
                # Says at once that the stream is open, before the model has said anything.
                said: dict[str, object] = {"content": "", "done": False}
            case Token(content):
                said = {"content": content, "done": False}
            case Done(reason):
                said = {"done": True, "finish_reason": reason}
            case Error(error):
                said = {"error": error, "done": True}
            case _:
                return ()
        return (Message(json_line(said), str(record.cursor)),)


def create(wants: Wants) -> WireFormat:
    return SimpleFormat()
