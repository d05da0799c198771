"""One call of a tool: from the model's arguments to what the model, and the readers, are told."""

import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from streaming import scope
from streaming.events import ToolCall, json_line
from streaming.runnables import _bridge
from streaming.runnables._functions import Function, ToolError
from streaming.runnables._readable import to_json

logger = logging.getLogger(__name__)

ROOM_FOR_MARKS = 1024


class Outcome(NamedTuple):
    result: Any
    """JSON."""
    failed: bool = False
    truncated: bool = False


TOO_SLOW = Outcome("the tool took too long", failed=True)


def caller(call: ToolCall, functions: Mapping[str, Function], max_bytes: int) -> Callable[[], Outcome]:
    """Return what makes the call. It raises nothing but what stops a run."""
    return functools.partial(_call, call, functions, max_bytes)


def _call(call: ToolCall, functions: Mapping[str, Function], max_bytes: int) -> Outcome:
    try:
        return bounded(_returned(call, functions), max_bytes)
    except ToolError as error:
        return bounded(str(error), max_bytes)._replace(failed=True)
    except scope.Stopped as stop:
        if scope.current().stopped:
            raise
        return _raised(call, stop.error or stop)
    # A tool that exits must not end the worker.
    except (Exception, SystemExit) as error:
        return _raised(call, error)


def _returned(call: ToolCall, functions: Mapping[str, Function]) -> Any:
    function = functions.get(call.tool)
    if function is None:
        raise ToolError(f"there is no such tool; there are: {', '.join(functions)}")
    if call.args is None:
        raise ToolError("the arguments are not a JSON object")
    found = function.call(function.checked(call.args))
    return _bridge.run(lambda: found) if inspect.isawaitable(found) else found


def bounded(found: Any, max_bytes: int) -> Outcome:
    """Return a result as JSON of at most ``max_bytes``, or the beginning of its text."""
    if isinstance(found, str):
        text = found.encode("utf-8", "replace")
    else:
        # Of what is too long the whole shape is no use to a model, and half of it is not JSON.
        value = to_json(found, 2 * max_bytes + ROOM_FOR_MARKS)
        text = json_line(value)
        if len(text) <= max_bytes:
            return Outcome(value)
    return Outcome(text[:max_bytes].decode("utf-8", "ignore"), truncated=len(text) > max_bytes)


def _raised(call: ToolCall, error: BaseException) -> Outcome:
    return Outcome(failure_told(call.tool, error), failed=True)


def failure_told(tool: str, error: BaseException) -> str:
    """Log what a tool raised, and return what the model is told of it."""
    if isinstance(error, ToolError):
        return str(error)
    logger.warning("a tool failed", extra={"tool": tool[:100]}, exc_info=error)
    return f"the tool failed: {type(error).__name__}"
