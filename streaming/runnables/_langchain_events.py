"""LangChain's StreamEvents, version 2, without asyncio.

``Runnable.stream_events`` has no synchronous version 2. This handler hears and
tells what that of ``astream_events`` does, in the same order but between
parallel branches. What is told is readable JSON (`_readable`), made at once.

Source: langchain_core.tracers.event_stream, version 1.7.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import GenerationChunk, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from langchain_core.utils.uuid import uuid7

from streaming.events import Event, RunEvent
from streaming.runnables._feed import Tell
from streaming.runnables._langchain_closing import closed
from streaming.runnables._readable import to_json

MAX_DATA_BYTES = 256 * 1024
# How LangGraph marks what it runs as a node.
NODE_TAG = "graph:step:"

T = TypeVar("T")


def tell_events(runnable: Runnable[Any, Any], value: Any, config: RunnableConfig, tell: Tell[Event]) -> None:
    """Run ``runnable`` to its end, telling its events. Raises what it raises."""
    config = ensure_config(config)
    run_id = config.get("run_id") or uuid7()
    handler = _EventsHandler(run_id, value, tell)
    with_handler: RunnableConfig = {**config, "run_id": run_id, "callbacks": [handler]}
    with closed(runnable.stream(value, with_handler)) as chunks:
        for _ in handler.tap_output_iter(run_id, chunks):
            pass


async def tell_events_async(
    runnable: Runnable[Any, Any], value: Any, config: RunnableConfig, tell: Tell[Event]
) -> None:
    """The like for a runnable that has asynchronous code only: LangChain's own events."""
    async for event in runnable.astream_events(value, config, version="v2"):
        tell(
            RunEvent(
                event["event"],
                event["name"],
                event["run_id"],
                list(event["parent_ids"]),
                list(event["tags"]),
                to_json(event["metadata"]),
                _data(event["data"]),
            )
        )


class _Run(NamedTuple):
    """One run of a part of the runnable."""

    kind: str
    name: str
    tags: list[str]
    metadata: dict[str, Any]
    input: Any = None
    tool_call_id: str | None = None


class _EventsHandler(BaseCallbackHandler, _StreamingCallbackHandler[Any]):
    run_inline = True

    def __init__(self, root: UUID, value: Any, tell: Tell[Event]) -> None:
        self._root = root
        self._value = value
        self._tell = tell
        self._is_first = True
        self._runs: dict[UUID, _Run] = {}
        self._parents: dict[UUID, UUID | None] = {}
        self._tapped: set[UUID] = set()

    # Outputs on their way from one part to the next

    def tap_output_iter(self, run_id: UUID, output: Iterator[T]) -> Iterator[T]:
        """Tell what a part yields, unless somebody nearer to it does."""
        is_ours = run_id not in self._tapped
        self._tapped.add(run_id)
        run: _Run | None = None
        for place, chunk in enumerate(output):
            if place == 0:
                run = self._runs.get(run_id)
            if is_ours and run is not None:
                self._tell_event("stream", run_id, run, {"chunk": chunk})
            yield chunk

    def tap_output_aiter(self, run_id: UUID, output: AsyncIterator[T]) -> AsyncIterator[T]:
        return output  # nothing here runs on a loop

    # Models

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        **more: Any,
    ) -> None:
        asked = {"messages": messages}
        self._start("chat_model", serialized, run_id, {"input": asked}, asked, more)

    def on_llm_start(
        self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, **more: Any
    ) -> None:
        asked = {"prompts": prompts}
        self._start("llm", serialized, run_id, {"input": asked}, asked, more)

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **more: Any) -> None:
        run = self._runs.get(run_id)
        if run is None or run_id in self._tapped:
            return
        if run.kind == "chat_model":
            said = AIMessageChunk(content=token) if chunk is None else chunk.message
        else:
            said = GenerationChunk(text=token if isinstance(token, str) else "") if chunk is None else chunk
        self._tell_event("stream", run_id, run, {"chunk": said})

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **more: Any) -> None:
        if (run := self._runs.pop(run_id, None)) is None:
            return
        output: Any
        if run.kind == "chat_model":
            said = (each for several in response.generations for each in several)
            output = next((getattr(each, "message", {}) for each in said), {})
        else:
            generations = [
                [
                    {"text": each.text, "generation_info": each.generation_info, "type": each.type}
                    for each in several
                ]
                for several in response.generations
            ]
            output = {"generations": generations, "llm_output": response.llm_output}
        self._tell_event("end", run_id, run, {"output": output, "input": run.input})

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        self._runs.pop(run_id, None)

    # Chains, prompts, parsers, nodes

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: Any,
        *,
        run_id: UUID,
        run_type: str | None = None,
        **more: Any,
    ) -> None:
        # LangChain's word for an input that is still on its way.
        known = inputs != {"input": ""}
        data = {"input": inputs} if known else {}
        self._start(run_type or "chain", serialized, run_id, data, inputs if known else None, more)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, inputs: Any = None, **more: Any) -> None:
        if (run := self._runs.pop(run_id, None)) is None:
            return
        if run_id not in self._tapped and any(tag.startswith(NODE_TAG) for tag in run.tags):
            # A node is streamed by an asynchronous graph, and called by a synchronous one.
            self._tell_event("stream", run_id, run, {"chunk": outputs})
        # Empty inputs count as none, as they do there.
        self._tell_event("end", run_id, run, {"output": outputs, "input": inputs or run.input or {}})

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        self._runs.pop(run_id, None)

    # Tools and retrievers

    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        inputs: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        self._start("tool", serialized, run_id, {"input": inputs or {}}, inputs, more)

    def on_tool_end(self, output: Any, *, run_id: UUID, **more: Any) -> None:
        if run := self._runs.pop(run_id, None):
            self._tell_event("end", run_id, run, {"output": output, "input": run.input})

    def on_tool_error(
        self, error: BaseException, *, run_id: UUID, tool_call_id: str | None = None, **more: Any
    ) -> None:
        if run := self._runs.pop(run_id, None):
            call_id = tool_call_id or run.tool_call_id
            self._tell_event(
                "error", run_id, run, {"error": error, "input": run.input, "tool_call_id": call_id}
            )

    def on_retriever_start(
        self, serialized: dict[str, Any], query: str, *, run_id: UUID, **more: Any
    ) -> None:
        asked = {"query": query}
        self._start("retriever", serialized, run_id, {"input": asked}, asked, more)

    def on_retriever_end(self, documents: Sequence[Document], *, run_id: UUID, **more: Any) -> None:
        if run := self._runs.pop(run_id, None):
            self._tell_event("end", run_id, run, {"output": documents, "input": run.input})

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **more: Any) -> None:
        self._runs.pop(run_id, None)

    def on_custom_event(
        self,
        name: str,
        data: Any,
        *,
        run_id: UUID,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        # Its data is whatever its author likes, and ours always a dict.
        found = _data(data) if isinstance(data, dict) else {"data": to_json(data, MAX_DATA_BYTES)}
        self._tell(
            RunEvent(
                "on_custom_event",
                name,
                str(run_id),
                self._ancestors(run_id),
                to_json(tags or []),
                to_json(metadata or {}),
                found,
            )
        )

    # All of them

    def _start(
        self,
        kind: str,
        serialized: dict[str, Any] | None,
        run_id: UUID,
        data: dict[str, Any],
        asked: Any,
        more: dict[str, Any],
    ) -> None:
        run = _Run(
            kind,
            _name(more.get("name"), serialized),
            more.get("tags") or [],
            more.get("metadata") or {},
            asked,
            more.get("tool_call_id"),
        )
        self._runs[run_id] = run
        self._parents[run_id] = more.get("parent_run_id")
        self._tell_event("start", run_id, run, data)

    def _tell_event(self, what: str, run_id: UUID, run: _Run, data: dict[str, Any]) -> None:
        if self._is_first:
            # The first part may know its input only when all of that has come.
            self._is_first = False
            self._root = run_id
            data = {**data, "input": self._value}
        elif run_id == self._root and what == "end":
            data = {name: value for name, value in data.items() if name != "input"}
        self._tell(
            RunEvent(
                f"on_{run.kind}_{what}",
                run.name,
                str(run_id),
                self._ancestors(run_id),
                to_json(run.tags),
                to_json(run.metadata),
                _data(data),
            )
        )

    def _ancestors(self, run_id: UUID) -> list[str]:
        """Return the ids of the runs around it, outermost first."""
        found: list[str] = []
        parent = self._parents.get(run_id)
        while parent is not None and str(parent) not in found:
            found.append(str(parent))
            parent = self._parents.get(parent)
        return found[::-1]


def _data(data: Any) -> dict[str, Any]:
    found = to_json(data, MAX_DATA_BYTES)
    return found if isinstance(found, dict) else {"data": found}


def _name(name: str | None, serialized: dict[str, Any] | None) -> str:
    if name is not None:
        return str(name)
    if serialized is not None and "name" in serialized:
        return str(serialized["name"])
    if serialized is not None and "id" in serialized:
        return str(serialized["id"][-1])
    return "Unnamed"
