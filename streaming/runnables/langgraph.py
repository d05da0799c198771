"""Compiled LangGraph graphs, those of ``create_agent`` among them.

A run of a graph is one stream. It ends at an interrupt too, with ``interrupt``
as its reason; another run in the same thread, whose ``input`` is
``{"resume": value}``, goes on from there. With a ``thread`` a graph remembers:
by its own checkpointer, else by the service's (`_checkpoints`).

A graph runs in a greenlet of its own and its nodes in others; one that has no
blocking code somewhere (`_graph_async`) runs in the worker's asyncio loop.
"""

from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import closing
from typing import Any, get_args

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import EmptyInputError, GraphRecursionError, InvalidUpdateError
from langgraph.pregel import Pregel
from langgraph.types import StateSnapshot, StreamMode

from streaming.errors import InvalidRequest, LimitExceeded, StreamingError
from streaming.events import Done, Event, Status
from streaming.runnables import _bridge, _checkpoints, _clients, _feed
from streaming.runnables._failures import failure_of
from streaming.runnables._feed import Tell
from streaming.runnables._graph_async import is_async_only
from streaming.runnables._graph_events import GraphEvents
from streaming.runnables._graph_input import Graph, config_of, input_of, resume_of, resumes
from streaming.runnables._graph_watch import Watch
from streaming.runnables._langchain_async import told_by_async
from streaming.runnables._langchain_events import tell_events, tell_events_async
from streaming.runnables._scoped import scope_http_clients
from streaming.settings import Settings
from streaming.sources import Batches, Prompt, Source

EVENTS_MODE = ("events",)
WHOLE_MODES = ("chunks", "output")
"""What ``stream()`` of the graph yields, and what ``invoke()`` returns."""
MODES = (*sorted(get_args(StreamMode)), *WHOLE_MODES, *EVENTS_MODE)


def accepts(found: object) -> bool:
    return isinstance(found, Pregel)


def remembers(found: object) -> bool:
    return True  # by a checkpointer of its own, or the service's


def create(found: Graph, settings: Settings) -> Source:
    _clients.use(settings)
    scope_http_clients()
    return GraphSource(found, settings)


class GraphSource:
    """See `Source`. Raises `InvalidRequest` for a prompt that this graph cannot be given."""

    def __init__(self, graph: Graph, settings: Settings) -> None:
        self._graph = graph
        self._checkpoints_url = settings.checkpoints_url
        self._is_async = is_async_only(graph)

    def events(self, prompt: Prompt) -> Batches:
        modes = tuple(prompt.modes)
        known = MODES[: -len(EVENTS_MODE)]
        if modes != EVENTS_MODE and (unknown := sorted(set(modes) - set(known))):
            message = (
                f"modes: none is called {unknown[0][:100]!r}; known: {', '.join(known)}, and events by itself"
            )
            raise InvalidRequest(message, param="modes", code="unknown_mode")
        run = self._prepare(prompt)
        yield [Status("thinking", 0)]
        try:
            with closing(self._follow(run, modes)) as parts:
                for ready in parts:
                    yield [event for events in ready for event in events]
        except Exception as error:
            raise run.failure_of(error) from error
        yield [*run.final(), Done(run.finish_reason, run.watch.usage)]

    def _follow(self, run: "_Run", modes: Sequence[str]) -> Generator[list[list[Event]], None, None]:
        if modes == EVENTS_MODE:
            return told_by_async(run.atell_events) if self._is_async else _feed.told_by(run.tell_events)
        return _bridge.iterate(run.aiterate) if self._is_async else _feed.told_by(run.tell)

    def _prepare(self, prompt: Prompt) -> "_Run":
        config = config_of(prompt)
        has_thread = "thread_id" in config["configurable"]
        graph = self._with_checkpoints(has_thread)
        before = self._state(graph, config) if has_thread else None
        given = resume_of(prompt, before) if resumes(prompt, graph) else input_of(prompt, graph, before)
        return _Run(graph, given, config, prompt.modes)

    def _with_checkpoints(self, has_thread: bool) -> Graph:
        """Return the graph with the checkpointer of a run: without a thread nothing is kept."""
        own = self._graph.checkpointer
        if not has_thread:
            return self._graph.copy({"checkpointer": None}) if own else self._graph
        saver = own if isinstance(own, BaseCheckpointSaver) else _checkpoints.saver(self._checkpoints_url)
        if self._is_async:
            saver = _checkpoints.for_asyncio(saver)
        return self._graph.copy({"checkpointer": saver})

    def _state(self, graph: Graph, config: RunnableConfig) -> StateSnapshot | None:
        try:
            if self._is_async:
                return _bridge.run(lambda: graph.aget_state(config))
            return graph.get_state(config)
        except StreamingError:
            raise
        except Exception as error:
            raise failure_of(error) from error


class _Run:
    """One run of a graph."""

    def __init__(self, graph: Graph, given: Any, config: RunnableConfig, modes: Sequence[str]) -> None:
        self.graph = graph
        self.given = given
        self.config = config
        self.watch = Watch()
        self._events = GraphEvents(modes, self.watch, graph)
        self._begun = False
        self._options: dict[str, Any] = {
            "config": {**config, "callbacks": [self.watch]},
            "stream_mode": self._events.streamed,
            "subgraphs": True,
        }

    def tell(self, tell: Tell[list[Event]]) -> None:
        for part in self.graph.stream(self.given, **self._options):
            self._begun = True
            if events := self._events.of(part):
                tell(events)
        if self._events.at_breakpoint:
            tell(self._events.of_state(self.graph.get_state(self.config)))

    async def aiterate(self) -> AsyncIterator[list[Event]]:
        async for part in self.graph.astream(self.given, **self._options):
            self._begun = True
            if events := self._events.of(part):
                yield events
        if self._events.at_breakpoint:
            yield self._events.of_state(await self.graph.aget_state(self.config))

    def tell_events(self, tell: Tell[list[Event]]) -> None:
        graph = self.graph.with_config(callbacks=[self.watch])
        tell_events(graph, self.given, self.config, lambda event: tell([event]))
        if "thread_id" in self.config["configurable"]:
            tell(self._events.of_state(self.graph.get_state(self.config)))

    async def atell_events(self, tell: Tell[list[Event]]) -> None:
        graph = self.graph.with_config(callbacks=[self.watch])
        await tell_events_async(graph, self.given, self.config, lambda event: tell([event]))
        if "thread_id" in self.config["configurable"]:
            tell(self._events.of_state(await self.graph.aget_state(self.config)))

    def final(self) -> list[Event]:
        return self._events.final()

    @property
    def finish_reason(self) -> str:
        return "interrupt" if self._events.interrupted else self.watch.finish_reason

    def failure_of(self, error: Exception) -> StreamingError:
        if isinstance(error, GraphRecursionError):
            return LimitExceeded("the graph took more steps than it may", code="recursion_limit")
        if isinstance(error, EmptyInputError | InvalidUpdateError) and not self._begun:
            return InvalidRequest("the graph does not take this input", param="input")
        return failure_of(error)
