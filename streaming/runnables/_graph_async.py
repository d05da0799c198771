"""Tell whether a graph can only be run asynchronously.

By its parts, without running it: a node, a choice of edges, a tool or a step of
a chain that has a coroutine and no function; a model or a checkpointer that has
the asynchronous half alone. What cannot be seen, as an ``awrap_model_call``
without its blocking twin, its owner says:
``graph.with_config(metadata={"async_only": True})``.
"""

from collections.abc import Iterable
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from langchain_core.tools import Tool
from langgraph._internal._runnable import RunnableCallable, RunnableSeq
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.prebuilt import ToolNode
from langgraph.pregel import Pregel
from langgraph.pregel._read import PregelNode

from streaming.runnables._langchain_async import _has_no_sync_code
from streaming.runnables._langchain_async import _parts as _langchain_parts


def is_async_only(found: Any) -> bool:
    """Return whether ``found``, a graph or what one is made of, has a part with nothing but a coroutine."""
    seen: set[int] = set()
    left = [found]
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if _has_only_a_coroutine(part):
            return True
        left += _parts(part)
    return False


def _has_only_a_coroutine(part: Any) -> bool:
    match part:
        case Pregel():
            return bool(((part.config or {}).get("metadata") or {}).get("async_only"))
        case RunnableCallable():
            return part.func is None
        case Tool():
            return part.func is None and part.coroutine is not None
        case BaseChatModel():
            return _only_refuses(type(part)._generate)
        case BaseCheckpointSaver():
            kind = type(part)
            return kind.put is BaseCheckpointSaver.put and kind.aput is not BaseCheckpointSaver.aput
        case Runnable():
            return _has_no_sync_code(part)
    return False


def _only_refuses(method: Any) -> bool:
    """Return whether a method, which it had to have, does nothing but raise ``NotImplementedError``."""
    code = getattr(method, "__code__", None)
    return code is not None and code.co_names == ("NotImplementedError",)


def _parts(part: Any) -> Iterable[Any]:
    match part:
        case Pregel():
            branches = getattr(getattr(part, "builder", None), "branches", {})
            paths = [branch.path for named in branches.values() for branch in named.values()]
            return [*part.nodes.values(), part.checkpointer, *paths]
        case PregelNode():
            return [part.bound, *part.writers]
        case RunnableSeq():
            return part.steps
        case ToolNode():
            return part.tools_by_name.values()
        case Runnable():
            return _langchain_parts(part, set())
    return ()
