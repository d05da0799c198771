"""What the demo model makes of a text: a vector, near to that of another text with the same words.

A hashed bag of words: each word adds to a few places of the vector, the signs by
its hash too. So it knows words, and nothing of what they mean. Source of the
idea: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning".
"""

import base64
import hashlib
import math
import re
import struct
import sys
import unicodedata
from array import array
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from streaming.sources._demo_completion import tokenize
from streaming.sources._demo_request import BadRequest, param_of

DIMENSIONS = 256
PLACES = 4
# Together they bound the time in which nothing else goes on in the process: half a second or so.
MAX_INPUTS = 2048
MAX_TOKENS_AN_INPUT = 8192
MAX_TOKENS = 100_000
MAX_NUMBERS = 1_000_000

# They stand in every text, and say nothing of what it is about.
COMMON = frozenset(
    "a an and are as at be but by can could did do does for from had has have he her his how i if in into is"
    " it its me my no not of on one or our she should so than that the their them then there these they this"
    " to up was we were what when where which who why will with would you your".split()
)


class EmbeddingRequest(Struct, frozen=True):
    """The body of ``POST /embeddings``; fields not listed are accepted and ignored."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1, le=4096)] = DIMENSIONS


def embed(body: bytes) -> dict[str, object]:
    """Return the answer to a request. Raises ``BadRequest``."""
    try:
        request = msgspec.json.decode(body, type=EmbeddingRequest)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error), param=param_of(str(error))) from error
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    inputs = [_words(text) for text in _inputs(request)]
    sizes = [size for size, _ in inputs]
    if max(sizes) > MAX_TOKENS_AN_INPUT:
        raise BadRequest(f"an input has more than {MAX_TOKENS_AN_INPUT} tokens", "input")
    if sum(sizes) > MAX_TOKENS or len(inputs) * request.dimensions > MAX_NUMBERS:
        raise BadRequest("this is too much for the demo model at once", "input")
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _written(vector(words, request.dimensions), request),
        }
        for index, (_, words) in enumerate(inputs)
    ]
    usage = {"prompt_tokens": sum(sizes), "total_tokens": sum(sizes)}
    return {"object": "list", "data": data, "model": request.model, "usage": usage}


def vector(words: Sequence[str], dimensions: int) -> "array[float]":
    """Return the normalised vector of a bag of words, as 32-bit floats."""
    places = [0.0] * dimensions
    # A word's being there at all says most: the tenth time adds less than the first.
    for word, times in Counter(words).items():
        for place, weight in _features(word):
            places[place % dimensions] += math.sqrt(times) * weight
    length = math.sqrt(sum(value * value for value in places))
    return array("f", [value / length for value in places] if length else [1.0, *places[1:]])


@lru_cache(maxsize=20_000)
def _features(word: str) -> list[tuple[int, float]]:
    """Return the places of a word, modulo the dimensions, and what it adds there."""
    if word.isascii():
        return _spread(_stem(word), 1.0)
    # Chinese and Japanese have no spaces, and many others endings we know nothing of.
    pairs = [word[at : at + 2] for at in range(max(1, len(word) - 1))]
    return [each for pair in pairs for each in _spread(pair, 1 / math.sqrt(len(pairs)))]


def _spread(feature: str, weight: float) -> list[tuple[int, float]]:
    # Several places each: two words that meet in one of them are not taken for the same.
    numbers = struct.unpack(f"<{PLACES}I", hashlib.blake2b(feature.encode(), digest_size=4 * PLACES).digest())
    return [(number >> 1, weight if number & 1 else -weight) for number in numbers]


def _stem(word: str) -> str:
    """Return an English word without what is usually an ending.

    >>> [_stem(word) for word in ("stream", "streams", "streaming", "stopped", "stopping", "stop")]
    ['stream', 'stream', 'stream', 'stop', 'stop', 'stop']
    """
    stem = re.sub(r"(?<=\w{3})(ing|ed|es|s|ly|er|e|ies|y)$", "", word)
    return stem[:-1] if len(stem) > 3 and stem[-1] == stem[-2] else stem


def _inputs(request: EmbeddingRequest) -> list[str | list[int]]:
    given = request.input
    if isinstance(given, str):
        texts: list[str | list[int]] = [given]
    elif all(isinstance(each, int) for each in given):
        texts = [[each for each in given if isinstance(each, int)]] if given else []
    else:
        texts = [each for each in given if not isinstance(each, int)]
        if len(texts) < len(given):
            raise BadRequest("either texts, or tokens, or lists of tokens", "input")
    if not texts or not all(texts):
        raise BadRequest("'input' cannot be empty", "input")
    if len(texts) > MAX_INPUTS:
        raise BadRequest(f"more than {MAX_INPUTS} inputs", "input")
    return texts


def _words(given: str | list[int]) -> tuple[int, list[str]]:
    """Return the number of tokens, and the words that tell what a text is about."""
    if not isinstance(given, str):
        return len(given), [str(token) for token in given]
    if len(given) > 16 * MAX_TOKENS_AN_INPUT:
        return MAX_TOKENS_AN_INPUT + 1, []
    text = unicodedata.normalize("NFKC", given).casefold()
    words = re.findall(r"\w+", text)
    telling = [word[:40] for word in words if word not in COMMON]
    return len(tokenize(given)), telling or words


def _written(numbers: "array[float]", request: EmbeddingRequest) -> list[float] | str:
    if request.encoding_format == "base64":
        if sys.byteorder == "big":
            numbers.byteswap()
        return base64.b64encode(numbers.tobytes()).decode()
    return numbers.tolist()
