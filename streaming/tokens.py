"""How many tokens a text has, where no upstream says so.

Tiktoken counts where its tables are on this machine. Anywhere else it is an
estimate: one token for four bytes of UTF-8, and at least one for each delta.
That is a quarter of a token for a Latin letter, half a one for a Greek or
Cyrillic letter, three quarters for a Chinese or Japanese character and one for
an emoji; and it adds up delta by delta, without a look at the letters.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import gevent
from gevent.lock import Semaphore
from msgspec import json

from streaming import token_tables
from streaming.token_tables import Tables

BYTES_A_TOKEN = 4
# Longer texts are counted by their beginning: 0.1 s of a thread, not minutes.
MAX_COUNTED_CHARS = 200_000
# Cut, because what takes tiktoken long, or breaks it, is one piece without end: spaces, say.
PIECE_CHARS = 4096
# Up to here, counting takes less than a millisecond, and a thread is not worth its while.
SHORT_CHARS = 1000

# Source: OpenAI cookbook, "How to count tokens with tiktoken": each message, and the answer's beginning.
MESSAGE_TOKENS = 3
ANSWER_TOKENS = 3
# Source: OpenAI guide "Images and vision": low detail, and a square of 1024 pixels at high detail.
IMAGE_TOKENS = {"low": 85}
IMAGE_TOKENS_OTHERWISE = 765

_SHOWN = frozenset(
    "content text refusal name description arguments output input summary tool_calls function".split()
)
"""The fields of messages, items and tools whose text a model is shown."""
_IMAGES = ("image_url", "input_image")

_tables: Tables | None = None
_loading = Semaphore()


class Count(NamedTuple):
    tokens: int
    by: Literal["tiktoken", "estimate"]


def estimate(size_bytes: int, deltas: int = 0) -> int:
    """Return about how many tokens ``size_bytes`` of UTF-8 are that came in so many ``deltas``.

    >>> estimate(len("Hello, world!")), estimate(13, deltas=4), estimate(0)
    (4, 4, 0)
    """
    return max(deltas, -(-size_bytes // BYTES_A_TOKEN))


def can_count(model: str) -> bool:
    """Say whether `count` can do better than estimate. Costs next to nothing."""
    return _all().has(token_tables.table_of(model))


def count(text: str, model: str = "") -> Count:
    """Return the tokens of ``text`` for ``model``.

    Waits, while the loop goes on, for a thread: 0.4 s the first time. Texts over
    `MAX_COUNTED_CHARS` are counted up to there, and the rest by its length.
    """
    name = token_tables.table_of(model)
    if not text or not _all().has(name):
        return Count(estimate(len(text.encode(errors="replace"))), "estimate")
    beginning = text[:MAX_COUNTED_CHARS]
    counted = _in_thread(name, beginning)
    if counted is None:
        return Count(estimate(len(text.encode(errors="replace"))), "estimate")
    return Count(round(counted * len(text) / len(beginning)), "tiktoken")


def prompt_tokens(asked: Sequence[Any], model: str = "") -> int:
    """Return about how many tokens messages or items are. Waits as `count` does."""
    texts = "\n".join(_texts(asked))
    return count(texts, model).tokens + sum(_extras(asked)) + (ANSWER_TOKENS if asked else 0)


def given_tokens(usage: Mapping[str, Any] | None) -> int | None:
    """Return the upstream's count of what it was asked; ``None`` where it has none.

    >>> given_tokens({"input_tokens": 3}), given_tokens({"prompt_tokens": True})
    (3, None)
    """
    return _counted(usage, "prompt_tokens", "input_tokens")


def quick_estimate(asked: Sequence[Any]) -> int:
    """Return about how many tokens messages or items are, without a thread."""
    return estimate(sum(map(len, _texts(asked)))) + sum(_extras(asked))


def completion_tokens(usage: Mapping[str, Any] | None) -> int | None:
    """Return the upstream's count of an answer, in whichever dialect; ``None`` where it has none.

    >>> completion_tokens({"output_tokens": 7}), completion_tokens({"completion_tokens": None})
    (7, None)
    """
    return _counted(usage, "completion_tokens", "output_tokens")


def _counted(usage: Mapping[str, Any] | None, *names: str) -> int | None:
    for name in names:
        said = (usage or {}).get(name)
        if isinstance(said, int) and not isinstance(said, bool) and said >= 0:
            return said
    return None


def _all() -> Tables:
    global _tables
    if _tables is None:
        _tables = Tables(token_tables.cache_directory())
    return _tables


def _in_thread(name: str, text: str) -> int | None:
    tables = _all()
    if tables.is_loaded(name) and len(text) <= SHORT_CHARS:
        return _count(tables, name, text)
    threads = gevent.get_hub().threadpool
    with _loading:  # of greenlets: a lock between real threads would be one of the loop's, too
        if not tables.is_loaded(name):
            threads.apply(tables.load, (name,))
    counted: int | None = threads.apply(_count, (tables, name, text))
    return counted


def _count(tables: Tables, name: str, text: str) -> int | None:
    encoding = tables.load(name)
    if encoding is None:
        return None
    pieces = (text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS))
    return sum(len(encoding.encode_ordinary(piece)) for piece in pieces)


def _texts(value: Any) -> Iterator[str]:
    """Yield what a model is shown of messages or items; not the bytes of images."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, dict) and value.get("type") not in _IMAGES:
        for name in _SHOWN & value.keys():
            yield from _texts(value[name])
        if schema := value.get("parameters"):
            yield json.encode(schema).decode()


def _extras(asked: Sequence[Any]) -> Iterator[int]:
    """Yield the tokens of what is not text: the frame of each message, images."""
    for message in asked:
        if not isinstance(message, dict):
            continue
        yield MESSAGE_TOKENS
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") in _IMAGES:
                image = part.get("image_url")
                detail = (image if isinstance(image, dict) else part).get("detail")
                yield IMAGE_TOKENS.get(str(detail), IMAGE_TOKENS_OTHERWISE)
