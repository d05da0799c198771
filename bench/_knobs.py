"""How a measurement tells the upstream what to answer: a few knobs in the prompt itself.

The prompt is the one thing that every server under test passes on unchanged.
"""

import re

from msgspec import Struct

_KNOBS = re.compile(rb"#c=(\d+),d=(\d+),f=(\d+),s=(\d+)#")


class Knobs(Struct, frozen=True):
    """What one answer is like."""

    chunks: int = 100
    delay_us: int = 0
    """From one chunk to the next; 0: as fast as the reader takes them."""
    first_us: int = 0
    """From the request to the first chunk."""
    chunk_chars: int = 0
    """The least length of a chunk's text. A marker takes some 25."""

    def __str__(self) -> str:
        return f"#c={self.chunks},d={self.delay_us},f={self.first_us},s={self.chunk_chars}#"


def read_knobs(body: bytes) -> Knobs:
    """Return the knobs somewhere in a request, or the defaults.

    >>> read_knobs(b'{"messages": [{"content": "Hello #c=3,d=50000,f=0,s=0#"}]}').chunks
    3
    """
    found = _KNOBS.search(body)
    return Knobs(*map(int, found.groups())) if found else Knobs()
