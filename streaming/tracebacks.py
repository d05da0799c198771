"""An exception as the log shows it: where it was raised and what kind it is, but not its words.

The words of an exception often quote what could not be used: a prompt, a body,
a key. Shown are those that are this service's own, or that the interpreter
makes of names in the code.
"""

import errno
import traceback
from collections.abc import Iterator

from streaming.errors import StreamingError

LEFT_OUT = "(its text is left out: LOG_EXCEPTIONS=full shows it)"
MOST_CAUSES = 8
_OF_THE_CODE = (AttributeError, NameError, ImportError, RecursionError, MemoryError, ZeroDivisionError)


def shown(error: BaseException, full: bool = False) -> str:
    """Return the traceback of ``error`` and of what caused it, last line last; with its words if ``full``."""
    if full:
        return "".join(traceback.format_exception(error)).rstrip("\n")
    parts = [_one(each) for each in _chain(error)]
    return "\nwhich led to\n".join(reversed(parts))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen and len(seen) < MOST_CAUSES:
        seen.add(id(each))
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)


def _one(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    lines = "".join(traceback.format_tb(error.__traceback__, limit=-20)).rstrip("\n")
    words = _words(error)
    inner = ""
    if isinstance(error, BaseExceptionGroup):
        inner = "".join(f"\n  in it: {_one(each)}" for each in error.exceptions[:MOST_CAUSES])
    return f"{lines}\n{name}: {words}{inner}".lstrip("\n")


def _words(error: BaseException) -> str:
    if isinstance(error, StreamingError) or type(error) in _OF_THE_CODE:
        return str(error)
    if isinstance(error, OSError) and error.errno:
        return f"{errno.errorcode.get(error.errno, error.errno)} {error.strerror}"
    return LEFT_OUT
