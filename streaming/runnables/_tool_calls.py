"""One call of a tool: from the model's arguments to what the model, and the readers, are told."""

import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from streaming import scope
from streaming.events import ToolCall, json_line
from streaming.runnables._functions import Function, ToolError

logger = logging.getLogger(__name__)


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
        found = _returned(call, functions)
        return _bounded(found, max_bytes)
    except ToolError as error:
        return _bounded(str(error), max_bytes)._replace(failed=True)
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
    if not inspect.isawaitable(found):
        return found
    from streaming.runnables import _bridge  # only for those who need it

    return _bridge.call(lambda: found)


def _bounded(found: Any, max_bytes: int) -> Outcome:
    if not isinstance(found, str):
        line = json_line(found)
        if len(line) <= max_bytes:
            return Outcome(msgspec.json.decode(line))
        found = line.decode()
    text = found.encode("utf-8", "replace")
    return Outcome(text[:max_bytes].decode("utf-8", "ignore"), truncated=len(text) > max_bytes)


def _raised(call: ToolCall, error: BaseException) -> Outcome:
    logger.warning("a tool failed", extra={"tool": call.tool[:100]}, exc_info=error)
    return Outcome(f"the tool failed: {type(error).__name__}", failed=True)
