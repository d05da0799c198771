"""LangChain's runnables: models, chains, retrievers, tools; whatever has ``stream``, but for graphs.

Register one, and its runs are streamed, kept, cancelled and observed like any
other. A run asks ``stream()`` in a greenlet of its own; the text is what that
yields (`_langchain_text`), and everything else what a callback handler hears
(`_langchain_handler`). With ``events`` as its mode a run tells LangChain's own
StreamEvents instead (`_langchain_events`). A runnable that has asynchronous code
only runs on the worker's asyncio loop.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from streaming.errors import InvalidRequest, RunnableFailed
from streaming.events import Done, Event, StateUpdate
from streaming.runnables import _clients, _feed
from streaming.runnables._failures import failure_of
from streaming.runnables._feed import Tell
from streaming.runnables._langchain_async import is_async_only, told_by_async
from streaming.runnables._langchain_closing import closed, keep_stops_quiet
from streaming.runnables._langchain_events import tell_events, tell_events_async
from streaming.runnables._langchain_handler import AnswerHandler
from streaming.runnables._langchain_input import Configurations, Inputs
from streaming.runnables._langchain_text import Answer
from streaming.runnables._readable import to_json
from streaming.runnables._scoped import scope_http_clients
from streaming.settings import Settings
from streaming.sources import Batches, Prompt, Source

MODES = ("chunks", "output", "events")
"""What ``stream()`` yields and ``invoke()`` returns, told besides the text; or StreamEvents."""
PARTS = {"chunks": "chunk", "output": "output"}
MAX_CHUNK_BYTES = 1024 * 1024


class LangChainSource:
    """See `Source`."""

    def __init__(self, runnable: Runnable[Any, Any]) -> None:
        self._runnable = runnable
        self._inputs = Inputs(runnable)
        self._configurations = Configurations(runnable)
        self._is_async = is_async_only(runnable)

    def events(self, prompt: Prompt) -> Batches:
        modes = tuple(prompt.modes)
        mode = modes[0] if modes else ""
        if len(modes) > 1 or (mode and mode not in MODES):
            raise InvalidRequest(
                f"modes: for this runnable one of {', '.join(MODES)}", code="unknown_mode", param="modes"
            )
        value = self._inputs.input_of(prompt)
        config = self._configurations.config_of(prompt)
        try:
            yield from self._events(value, config) if mode == "events" else self._answer(value, config, mode)
        except Exception as error:
            failure = failure_of(error)
            if isinstance(failure, RunnableFailed) and (misfit := self._inputs.misfit(value)):
                raise misfit from None
            raise failure from None

    def _answer(self, value: Any, config: RunnableConfig, mode: str) -> Batches:
        handler: AnswerHandler | None = None

        def configured(tell: Tell[Event]) -> tuple[AnswerHandler, RunnableConfig]:
            nonlocal handler
            handler = AnswerHandler(tell)
            return handler, {**config, "callbacks": [handler]}

        def tell_part(chunk: Any, tell: Tell[Event]) -> None:
            if mode:
                tell(StateUpdate(PARTS[mode], to_json(chunk, MAX_CHUNK_BYTES)))

        def run(tell: Tell[Event]) -> None:
            handler, with_handler = configured(tell)
            answer = Answer()
            with closed(self._parts(value, with_handler, mode)) as chunks:
                for chunk in chunks:
                    tell_part(chunk, tell)
                    _tell_all(answer.add(chunk), handler, tell)
            _tell_all(answer.end(), handler, tell)

        async def run_async(tell: Tell[Event]) -> None:
            handler, with_handler = configured(tell)
            answer = Answer()
            async for chunk in self._aparts(value, with_handler, mode):
                tell_part(chunk, tell)
                _tell_all(answer.add(chunk), handler, tell)
            _tell_all(answer.end(), handler, tell)

        yield from told_by_async(run_async) if self._is_async else _feed.told_by(run)
        assert handler is not None
        yield [Done(handler.finish_reason, handler.usage.sum)]

    def _parts(self, value: Any, config: RunnableConfig, mode: str) -> Iterator[Any]:
        if mode == "output":
            # Not all that is yielded adds up to this.
            return iter([self._runnable.invoke(value, config)])
        return self._runnable.stream(value, config)

    def _aparts(self, value: Any, config: RunnableConfig, mode: str) -> AsyncIterator[Any]:
        if mode == "output":
            return _one(self._runnable.ainvoke(value, config))
        return self._runnable.astream(value, config)

    def _events(self, value: Any, config: RunnableConfig) -> Batches:
        def run(tell: Tell[Event]) -> None:
            tell_events(self._runnable, value, config, tell)

        async def run_async(tell: Tell[Event]) -> None:
            await tell_events_async(self._runnable, value, config, tell)

        yield from told_by_async(run_async) if self._is_async else _feed.told_by(run)
        yield [Done("stop")]


async def _one(coming: Awaitable[Any]) -> AsyncIterator[Any]:
    yield await coming


def _tell_all(events: Iterable[Event], handler: AnswerHandler, tell: Tell[Event]) -> None:
    """Tell the answer's text, unless a model spoke for the chain."""
    for event in events:
        if not handler.spoke:
            tell(event)


def accepts(found: object) -> bool:
    return isinstance(found, Runnable) and not _is_graph(found)


def remembers(found: Any) -> bool:
    """Say whether it declares sessions, as ``RunnableWithMessageHistory`` does."""
    return any(spec.id == "session_id" for spec in found.config_specs)


def create(found: Any, settings: Settings) -> Source:
    _clients.use(settings)
    scope_http_clients()
    keep_stops_quiet()
    return LangChainSource(found)


def _is_graph(found: object) -> bool:
    pregel = sys.modules.get("langgraph.pregel")  # a graph can only be there if this was imported
    return pregel is not None and isinstance(found, pregel.Pregel)
