"""Tell whether a LangChain or LangGraph object can only be run asynchronously.

By its parts, without running it: a node, tool or step that has a coroutine and
no function, a checkpointer that only has the asynchronous half. What cannot be
seen, as a method that raises ``NotImplementedError``, its owner says:
``graph.with_config(metadata={"async_only": True})``.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda
from langchain_core.tools import BaseTool, StructuredTool, Tool
from langgraph._internal._runnable import RunnableCallable
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel

MARK = "async_only"
# Where LangChain's own combinations keep their parts.
PARTS = (
    "bound steps first middle last mapper runnable fallbacks default branches steps__ "
    "_tools_by_name retriever llm writers"
).split()
MAX_PARTS = 10_000


def is_async_only(found: Any) -> bool:
    """Return whether ``found`` has a part with nothing to call but a coroutine."""
    if ((getattr(found, "config", None) or {}).get("metadata") or {}).get(MARK):
        return True
    seen: set[int] = set()
    left = [found]
    while left and len(seen) < MAX_PARTS:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if _lacks_blocking_code(part):
            return True
        left += _parts(part)
    return False


def _lacks_blocking_code(part: Any) -> bool:
    match part:
        case RunnableCallable():
            return part.func is None
        case RunnableLambda():
            return not hasattr(part, "func")
        case RunnableGenerator():
            return not hasattr(part, "_transform")
        case StructuredTool() | Tool():
            return part.func is None and part.coroutine is not None
        case BaseChatModel():
            return _raises(part, "_generate")
        case BaseCheckpointSaver():
            kind = type(part)
            return kind.put is BaseCheckpointSaver.put and kind.aput is not BaseCheckpointSaver.aput
    return False


def _raises(part: Any, name: str) -> bool:
    """Return whether a method does nothing but raise ``NotImplementedError``."""
    code = getattr(getattr(type(part), name), "__code__", None)
    return code is not None and code.co_names == ("NotImplementedError",)


def _parts(part: Any) -> Iterator[Any]:
    if isinstance(part, Pregel):
        yield from part.nodes.values()
        yield part.checkpointer
        builder = getattr(part, "builder", None)
        for branches in getattr(builder, "branches", {}).values():
            yield from (branch.path for branch in branches.values())
        return
    if isinstance(part, ToolNode):
        yield from part.tools_by_name.values()
        return
    if not isinstance(part, Runnable | BaseTool) and not hasattr(part, "bound"):
        return
    for name in PARTS:
        yield from _flat(getattr(part, name, None))


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple):
        for item in value:
            yield from item if isinstance(item, tuple) else (item,)
    elif value is not None:
        yield value
