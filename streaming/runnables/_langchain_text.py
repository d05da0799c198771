"""Which text of a runnable is its answer: what it yields, told as it comes.

A chain's own output is the only thing that is right for all chains: a parser
may change what a model said, and a chain may ask one model to phrase the
question for another. Three exceptions make it stream, or readable:

- a model tagged ``answer`` speaks for the chain: its tokens are the text, even
  where the chain calls it by ``invoke``;
- of a dict that is yielded key by key, ``answer`` or ``output`` is the text;
- what is not text in the end is told as JSON.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables.utils import AddableDict

from streaming.events import Event, Token, json_line
from streaming.runnables._readable import to_json

ANSWER_KEYS = ("answer", "output")
MAX_JSON_BYTES = 1024 * 1024


class Pieces:
    """Text that comes in pieces; halves of a character are joined, one that stays alone becomes U+FFFD."""

    def __init__(self) -> None:
        self._half = ""

    def add(self, piece: str) -> str:
        piece = str(piece)  # LangChain's texts are of a kind of their own, which has no JSON
        if not self._half and piece.isascii():
            return piece
        text = self._half + piece
        self._half = text[-1] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return _whole(text.removesuffix(self._half) if self._half else text)

    def end(self) -> str:
        half, self._half = self._half, ""
        return _whole(half)


class Answer:
    """The text of one run, made of the chunks that its runnable yields."""

    def __init__(self) -> None:
        self._pieces = Pieces()
        self._has_text = False
        self._whole: Any = None
        self._has_whole = False

    def add(self, chunk: Any) -> Iterator[Event]:
        text = _text_of(chunk)
        if text is None:
            self._add_whole(chunk)
            return
        self._has_text = True
        if text := self._pieces.add(text):
            yield Token(text)

    def end(self) -> Iterator[Event]:
        if text := self._pieces.end():
            yield Token(text)
        if not self._has_text and self._whole is not None:
            yield Token(json_line(to_json(self._whole, MAX_JSON_BYTES)).decode())

    def _add_whole(self, chunk: Any) -> None:
        """Add up as LangChain does: what cannot be added is more complete than what came before."""
        if self._has_whole:
            with suppress(TypeError):
                chunk = self._whole + chunk
        self._whole = chunk
        self._has_whole = True


def text_of(message: BaseMessage) -> str:
    return str(message.text)


def _text_of(chunk: Any) -> str | None:
    """Return the text of a chunk; ``None`` where it is not text."""
    if isinstance(chunk, str):
        return chunk
    if isinstance(chunk, BaseMessage):
        return text_of(chunk)
    if isinstance(chunk, AddableDict):
        for key in ANSWER_KEYS:
            if isinstance(chunk.get(key), str | BaseMessage):
                return _text_of(chunk[key])
    return None


def _whole(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
