"""LangChain's runnables: models, chains, retrievers, tools; whatever has ``stream``, but for graphs.

Register one, and its runs are streamed, kept, cancelled and observed like any
other. A run asks ``stream()`` in a greenlet of its own; the text is what that
yields (`_langchain_text`), and everything else what a callback handler hears
(`_langchain_handler`). With ``events`` as its mode a run tells LangChain's own
StreamEvents instead (`_langchain_events`). A runnable that has asynchronous code
only runs on the worker's asyncio loop.
"""

import sys
from collections.abc import Iterable
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from streaming.errors import InvalidRequest
from streaming.events import Done, Event
from streaming.runnables import _clients, _feed
from streaming.runnables._failures import failure_of
from streaming.runnables._feed import Tell
from streaming.runnables._langchain_async import is_async_only, told_by_async
from streaming.runnables._langchain_closing import closed, keep_stops_quiet
from streaming.runnables._langchain_events import tell_events, tell_events_async
from streaming.runnables._langchain_handler import AnswerHandler
from streaming.runnables._langchain_input import Configurations, Inputs
from streaming.runnables._langchain_text import Answer
from streaming.runnables._scoped import scope_http_clients
from streaming.settings import Settings
from streaming.sources import Batches, Prompt, Source

EVENTS_MODE = ("events",)


class LangChainSource:
    """See `Source`."""

    def __init__(self, runnable: Runnable[Any, Any]) -> None:
        self._runnable = runnable
        self._inputs = Inputs(runnable)
        self._configurations = Configurations(runnable)
        self._is_async = is_async_only(runnable)

    def events(self, prompt: Prompt) -> Batches:
        modes = tuple(prompt.modes)
        if modes not in ((), EVENTS_MODE):
            raise InvalidRequest(
                "modes: this runnable has only the mode events", code="unknown_mode", param="modes"
            )
        value = self._inputs.input_of(prompt)
        config = self._configurations.config_of(prompt)
        try:
            yield from self._events(value, config) if modes else self._answer(value, config)
        except Exception as error:
            raise failure_of(error) from None

    def _answer(self, value: Any, config: RunnableConfig) -> Batches:
        handler: AnswerHandler | None = None

        def configured(tell: Tell[Event]) -> tuple[AnswerHandler, RunnableConfig]:
            nonlocal handler
            handler = AnswerHandler(tell)
            return handler, {**config, "callbacks": [handler]}

        def run(tell: Tell[Event]) -> None:
            handler, with_handler = configured(tell)
            answer = Answer()
            with closed(self._runnable.stream(value, with_handler)) as chunks:
                for chunk in chunks:
                    _tell_all(answer.add(chunk), handler, tell)
            _tell_all(answer.end(), handler, tell)

        async def run_async(tell: Tell[Event]) -> None:
            handler, with_handler = configured(tell)
            answer = Answer()
            async for chunk in self._runnable.astream(value, with_handler):
                _tell_all(answer.add(chunk), handler, tell)
            _tell_all(answer.end(), handler, tell)

        yield from told_by_async(run_async) if self._is_async else _feed.told_by(run)
        assert handler is not None
        yield [Done(handler.finish_reason, handler.usage.sum)]

    def _events(self, value: Any, config: RunnableConfig) -> Batches:
        def run(tell: Tell[Event]) -> None:
            tell_events(self._runnable, value, config, tell)

        async def run_async(tell: Tell[Event]) -> None:
            await tell_events_async(self._runnable, value, config, tell)

        yield from told_by_async(run_async) if self._is_async else _feed.told_by(run)
        yield [Done("stop")]


def _tell_all(events: Iterable[Event], handler: AnswerHandler, tell: Tell[Event]) -> None:
    """Tell the answer's text, unless a model spoke for the chain."""
    for event in events:
        if not handler.spoke:
            tell(event)


def accepts(found: object) -> bool:
    return isinstance(found, Runnable) and not _is_graph(found)


def create(found: Any, settings: Settings) -> Source:
    _clients.use(settings)
    scope_http_clients()
    keep_stops_quiet()
    return LangChainSource(found)


def _is_graph(found: object) -> bool:
    pregel = sys.modules.get("langgraph.pregel")  # a graph can only be there if this was imported
    return pregel is not None and isinstance(found, pregel.Pregel)
