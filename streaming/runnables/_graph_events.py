"""What a graph streams, in any of LangGraph's modes, as events."""

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langgraph.types import StateSnapshot

from streaming.events import Event, Interrupt, StateUpdate, Token, Usage, json_line
from streaming.runnables._graph_input import Graph
from streaming.runnables._graph_messages import MessageEvents
from streaming.runnables._graph_watch import Watch
from streaming.runnables._readable import _whole, to_json

STATE_BYTES = 256 * 1024
WHOLE_BYTES = 1024 * 1024
INTERRUPTS = "__interrupt__"
ANSWER_FIELDS = ("answer", "output", "response", "result", "text")

Part = tuple[tuple[str, ...], str, Any]
"""A namespace, a mode, and what is told there."""


class GraphEvents:
    """Translates one run, in order.

    Without modes: text, tool calls, results and interrupts. With modes: what
    they tell as a `StateUpdate`; ``messages`` tells the text as it does without
    modes, and before it, whenever another node speaks, which one. ``chunks``
    and ``output`` tell besides the text what the graph itself yields or returns.
    """

    def __init__(self, modes: Sequence[str], watch: Watch, graph: Graph) -> None:
        self.interrupted = False
        self.at_breakpoint = False
        self._shown = frozenset(modes) - {"chunks", "output"}
        own = graph.stream_mode
        self._chunk_modes = () if "chunks" not in modes else (own,) if isinstance(own, str) else tuple(own)
        self._output_channels = graph.output_channels if "output" in modes else None
        self._watch = watch
        self._messages = MessageEvents()
        self._speaker: tuple[object, ...] = ()
        self._interrupts: set[str] = set()
        self._waiting: list[Any] = []
        self._last: Any = None
        self._usage: dict[str, Any] | None = None

    @property
    def streamed(self) -> list[str]:
        """The modes to ask LangGraph for. Interrupts are told by updates."""
        shown = {*self._shown, "updates"} if self._shown else {"messages", "updates", "values"}
        return sorted(shown | {*self._chunk_modes} | ({"values"} if self._output_channels else set()))

    def of(self, part: Part) -> list[Event]:
        namespace, mode, told = part
        found = [*self._found(), *self._of(list(map(_whole, namespace)), mode, told)]
        if mode in self._chunk_modes and not namespace:
            chunk = told if len(self._chunk_modes) == 1 else [mode, told]
            found.append(StateUpdate("chunk", to_json(chunk, WHOLE_BYTES)))
        if self._watch.usage is not self._usage:
            self._usage = self._watch.usage
            found.append(Usage(self._usage or {}))
        return found

    def of_state(self, state: StateSnapshot) -> list[Event]:
        """Tell where a graph waits in its thread; at a breakpoint, before which nodes."""
        if not state.next:
            return []
        return list(self._of_interrupts(state.interrupts)) or [Interrupt("", {"next": list(state.next)})]

    def final(self) -> list[Event]:
        """Return what is still to be told after the last part: the answer, where nothing was said."""
        found = [*self._found(), *self._messages.rest()]
        is_silent = not self._shown and not self._messages.has_text and not self.interrupted
        if is_silent and (text := _answer(self._last)):
            found.append(Token(_whole(text)))
        if self._output_channels:
            found.append(StateUpdate("output", to_json(self._output(self._output_channels), WHOLE_BYTES)))
        return found

    def _output(self, channels: str | Sequence[str]) -> Any:
        """Return what ``invoke()`` would."""
        if not isinstance(self._last, dict):
            return self._last
        if isinstance(channels, str):
            return self._last.get(channels, self._last)
        output = {name: self._last[name] for name in channels if name in self._last}
        return output | ({INTERRUPTS: self._waiting} if self._waiting else {})

    def _found(self) -> list[Event]:
        found: list[Event] = [*self._watch.sources]
        self._watch.sources.clear()
        return found

    def _of(self, namespace: list[str], mode: str, told: Any) -> Iterator[Event]:
        if mode == "messages":
            yield from self._of_message(namespace, *told)
            return
        if mode == "values" and not namespace:
            self._last = told
        if mode == "updates" and isinstance(told, dict):
            yield from self._of_updates(namespace, told)
        elif mode in self._shown:
            node = _node(told) if mode in ("tasks", "debug") else ""
            yield StateUpdate(mode, to_json(told, STATE_BYTES), node, namespace)

    def _of_message(self, namespace: list[str], message: Any, about: dict[str, Any]) -> Iterator[Event]:
        if not isinstance(message, BaseMessage):
            return
        found = list(self._messages.of(message))
        node = _whole(str(about.get("langgraph_node", "")))
        speaker = (node, *namespace, message.id)
        if found and "messages" in self._shown and speaker != self._speaker:
            self._speaker = speaker
            data = {"id": message.id, "step": about.get("langgraph_step"), "tags": about.get("tags")}
            yield StateUpdate("messages", to_json(data), node, namespace)
        yield from found

    def _of_updates(self, namespace: list[str], told: dict[str, Any]) -> Iterator[Event]:
        for node, update in told.items():
            if node == INTERRUPTS:
                yield from self._of_interrupts(update)
            elif "updates" in self._shown:
                yield StateUpdate("updates", to_json(update, STATE_BYTES), _whole(node), namespace)

    def _of_interrupts(self, told: Sequence[Any]) -> Iterator[Event]:
        self.interrupted = True
        self.at_breakpoint = not told and not self._interrupts
        for interrupt in told:
            # A subgraph's is told again by the graphs around it.
            if interrupt.id not in self._interrupts:
                self._interrupts.add(interrupt.id)
                self._waiting.append(interrupt)
                yield Interrupt(interrupt.id, to_json(interrupt.value, STATE_BYTES))


def _node(told: Any) -> str:
    """Return the node that a task, or what debug tells of one, is about."""
    task = told.get("payload", told) if isinstance(told, dict) else {}
    return _whole(str(task.get("name", ""))) if isinstance(task, dict) else ""


def _answer(values: Any) -> str:
    """Return the text of a final state: its last message, else its answer, else all of it as JSON."""
    messages = values.get("messages") if isinstance(values, dict) else getattr(values, "messages", None)
    last = messages[-1] if isinstance(messages, list) and messages else values
    if isinstance(last, BaseMessage):
        return str(last.text) if isinstance(last, AIMessage) else ""
    if isinstance(last, dict):
        named = (last[name] for name in ANSWER_FIELDS if isinstance(last.get(name), str))
        last = next(named, last)
    if last is None or isinstance(last, str):
        return last or ""
    return json_line(to_json(last, STATE_BYTES)).decode()
