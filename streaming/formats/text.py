"""The text itself, ended by ``[DONE]``; any other end is said in a JSON object instead.

An event's data may hold several lines. A line ends at LF, CR or CRLF in this
grammar and arrives as LF, so a carriage return of the model becomes a newline.
"""

from streaming.errors import ErrorInfo
from streaming.events import Done, Error, Record, Token, decode, json_line
from streaming.formats import Message, Wants, WireFormat

END = b"[DONE]"
_CANCELLED = ErrorInfo("the run was cancelled", "cancelled", "cancelled", partial=True)


class TextFormat:
    media_type = "text/event-stream"
    resumes = True
    from_start = False

    def encode(self, record: Record) -> tuple[Message, ...]:
        id = str(record.cursor)
        match decode(record.payload):
            case Token(content) if content.encode() == END:
                # Said by the model, it must not end the stream.
                return Message(END[:-1]), Message(END[-1:], id)
            case Token(content) if content:
                return (Message(content.encode(), id),)
            case Done("cancelled"):
                return (Message(json_line({"error": _CANCELLED}), id),)
            case Done():
                return (Message(END, id),)
            case Error(error):
                return (Message(json_line({"error": error}), id),)
            case _:
                return ()


def create(wants: Wants) -> WireFormat:
    return TextFormat()
