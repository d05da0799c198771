"""Close what a runnable yields with, in the run that asked for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def closed(chunks: Iterator[T]) -> Iterator[Iterator[T]]:
    """Close the iterator at the end, if it can be.

    Else the collector of garbage does it some time, in another run's context, and
    LangChain's chains of generators then call back into handlers that are gone.
    """
    try:
        yield chunks
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
