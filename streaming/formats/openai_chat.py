"""OpenAI chat completions, streamed: chunks equal to the upstream's, then ``[DONE]``.

Only ``data:`` lines: with an ``id:`` beside them several SDKs take a heartbeat
for an empty event. An answer that did not end normally ends in an error object
and without ``[DONE]``, because a clean end looks like success to most clients.
"""

import re
from typing import Any

from streaming.errors import ErrorInfo
from streaming.events import Done, Error, Record, Token, decode, encode, json_line
from streaming.formats import Message, Wants, WireFormat
from streaming.formats._complete_chunks import Chunks
from streaming.openai_errors import CANCELLED, error_object

END = Message(b"[DONE]")
PLAIN_TOKEN = re.compile(rb'\{"type":"token","content":("(?:[^"\\]|\\.)*")\}')
"""A token as it stands in the log when it is nothing but text, which a chunk holds in the same letters."""
_PROBE = "\x01probe"


class ChatFormat:
    media_type = "text/event-stream"
    resumes = False
    from_start = True

    def __init__(self, wants: Wants) -> None:
        self._shows_usage = wants.usage
        self._chunks = Chunks()
        self._around_text: tuple[bytes, bytes] | None = None
        """What stands before and after the text in a chunk that holds nothing else."""

    def encode(self, record: Record) -> list[Message]:
        plain = PLAIN_TOKEN.fullmatch(record.payload) if self._chunks.between_chunks else None
        if plain is None:
            return self.encode_any(record)
        if self._around_text is None:
            said = self.encode_any(record)
            self._learn()
            return said
        before, after = self._around_text
        return [Message(b"%s%s%s" % (before, plain[1], after))]

    def _learn(self) -> None:
        """See what a plain token's chunk looks like: from the second on they differ in the text only."""
        (message,) = self.encode_any(Record(0, 0, encode(Token(_PROBE))))
        before, _, after = message.data.partition(json_line(_PROBE))
        self._around_text = before, after

    def encode_any(self, record: Record) -> list[Message]:
        """Do the same without the short cut."""
        event = decode(record.payload)
        said = [
            Message(json_line(shown)) for chunk in self._chunks.of(event) if (shown := self._shown(chunk))
        ]
        match event:
            case Error(error):
                said.append(_error(error))
            case Done("cancelled"):
                said.append(_error(CANCELLED))
            case Done():
                said.append(END)
        return said

    def _shown(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        """Leave out the usage that only this service asked for: a chunk without choices breaks clients."""
        if self._shows_usage:
            return chunk
        if not chunk["choices"] and chunk.get("usage"):
            return None
        if chunk.get("usage", 0) is None:
            del chunk["usage"]
        return chunk


def _error(info: ErrorInfo) -> Message:
    return Message(json_line({"error": error_object(info)}))


def create(wants: Wants) -> WireFormat:
    return ChatFormat(wants)
