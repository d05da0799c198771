"""Runnables: what users bring, each kind as a source.

``RUNNABLES="support=myapp.chains:chain"`` makes ``chain`` a value of ``source``.
What the object is decides which file of this folder serves it. To support
another kind, add a file with ``accepts(found) -> bool`` and
``create(found, settings) -> Source`` and ``MODES``, what a request may ask of it
beside text, and ``remembers(found) -> bool``, whether it keeps a thread by itself;
it may import its framework, because it is
imported only when something is registered.
"""

from typing import Any

from msgspec import Struct

from streaming.sources import Source


class Registered(Struct, frozen=True):
    """What a user registered, ready to run."""

    name: str
    kind: str
    """The file of this folder that serves it."""
    found: Any
    """The object itself."""
    source: Source
    modes: tuple[str, ...]
    """What ``mode`` may be in a request."""
    configurable: frozenset[str] | None
    """What ``config.configurable`` may have in it; ``None``: there is nothing to configure."""
    remembers: bool = False
    """It keeps what was said under the name of the thread, and is told only what is new."""
