"""A loop of tool calls on a bare model: ask it, run the tools it calls, tell it their results, ask again.

For a tool loop without a framework:

    def get_weather(city: str) -> str:
        "The weather in a city, now."
        return "sunny"

    assistant = ToolLoop([get_weather], instructions="Be brief.")

A run is one answer: the text of all rounds, the finish reason of the last, and
the usage of all. A reader of a dialect without tool results, as OpenAI's, is
told no tool calls: they are answered here, and its client must not answer them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from streaming import plugins
from streaming.errors import SettingsError
from streaming.runnables._functions import Function, ToolError
from streaming.runnables._scoped import scope_http_clients
from streaming.runnables._tool_loop import Loop, ToolLoopSource
from streaming.settings import Settings
from streaming.sources import Source

__all__ = ["ToolError", "ToolLoop", "accepts", "create"]

MODES = ()
API = Literal["chat", "responses"]


class ToolLoop:
    """A model and the Python functions it may call.

    A function's name, docstring and type hints are what the model is told of
    it. Functions run in greenlets: what they wait for, network or ``sleep``,
    holds up nobody, and what they compute holds up everybody. An ``async def``
    runs on the worker's asyncio loop. What a function returns is told to the
    model as JSON, or as it is when it is a text. Of what it raises the model and
    the readers are told the name, and of a `ToolError` its message.
    """

    def __init__(
        self,
        tools: Sequence[Callable[..., Any]],
        *,
        model: str | None = None,
        instructions: str = "",
        api: API = "chat",
        rounds: int = 8,
        result_bytes: int = 64 * 1024,
        tool_seconds: float = 60.0,
        at_once: int = 16,
    ) -> None:
        """Raise `SettingsError` for what cannot be used.

        ``model``: default ``MODEL``. ``rounds``: how often the model is asked, at
        most. ``result_bytes``: of a tool's result, what is longer is cut off.
        ``tool_seconds``: for each call. ``at_once``: how many calls run together.
        """
        if api not in get_args(API):
            raise SettingsError(f"ToolLoop: api {api!r} is neither chat nor responses")
        limits = {"rounds": rounds, "result_bytes": result_bytes, "tool_seconds": tool_seconds}
        for name, number in {**limits, "at_once": at_once}.items():
            if not number > 0:
                raise SettingsError(f"ToolLoop: {name} {number} is not above 0")
        functions = [Function(tool) for tool in tools]
        self.functions = {function.name: function for function in functions}
        if len(self.functions) < len(functions):
            raise SettingsError("ToolLoop: two tools have the same name")
        self.model = model
        self.instructions = instructions
        self.api = api
        self.rounds = rounds
        self.result_bytes = result_bytes
        self.tool_seconds = tool_seconds
        self.at_once = at_once


def accepts(found: object) -> bool:
    return isinstance(found, ToolLoop)


def remembers(found: object) -> bool:
    return False


def create(found: ToolLoop, settings: Settings) -> Source:
    scope_http_clients()  # those of the tools
    loop = Loop(
        functions=found.functions,
        model=found.model or settings.default_model,
        instructions=found.instructions,
        speaks_responses=found.api == "responses",
        rounds=found.rounds,
        result_bytes=found.result_bytes,
        tool_seconds=found.tool_seconds,
        at_once=found.at_once,
    )
    return ToolLoopSource(loop, plugins.create("sources", found.api, settings))
