"""The text itself, ended by ``[DONE]``; a failure is said in a JSON object instead.

An event's data may hold several lines. A line ends at LF, CR or CRLF in this
grammar and arrives as LF, so a carriage return of the model becomes a newline.
"""

from msgspec.json import encode as to_json

from streaming.events import Done, Error, Record, Token, decode
from streaming.formats import Message, WireFormat


class TextFormat:
    media_type = "text/event-stream"

    def encode(self, record: Record) -> tuple[Message, ...]:
        match decode(record.payload):
            case Token(content) if content:
                data = content.encode()
            case Done():
                data = b"[DONE]"
            case Error(error):
                data = to_json({"error": error})
            case _:
                return ()
        return (Message(data, str(record.cursor)),)


def create(show_metrics: bool = False) -> WireFormat:
    return TextFormat()
