"""Close what a runnable yields with, in the run that asked for it."""

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from streaming import scope

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


def keep_stops_quiet() -> None:
    """Print nothing where a forgotten generator meets the stop of its run; again is the same as once.

    Of parallel branches LangChain closes none, and one that the collector closes
    reads its input to the end first: in a run that was stopped that raises, with
    nobody to hear it, and would be a traceback in the log for each cancel.
    """
    shown = sys.unraisablehook
    if getattr(shown, "keeps_stops_quiet", False):
        return

    @functools.wraps(shown)
    def hook(unraisable: "sys.UnraisableHookArgs", /) -> None:
        if not isinstance(unraisable.exc_value, scope.Stopped):
            shown(unraisable)

    hook.keeps_stops_quiet = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook
