"""Graphs for the tests, an upstream that never finishes, and what a run of a graph says."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, TypedDict, TypeVar

import gevent
from gevent.event import Event as Flag
from gevent.server import StreamServer
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph

from streaming import scope
from streaming.events import Event
from streaming.scope import Scope, Stopped
from streaming.sources import Prompt, Source

E = TypeVar("E")

CHUNK = (
    b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"role":"assistant","content":"first"},"finish_reason":null}]}\n\n'
)


def prompt(text: str = "hello", **fields: Any) -> Prompt:
    return Prompt("demo", [{"role": "user", "content": text}], **fields)


def resume(answer: Any, thread: str, **fields: Any) -> Prompt:
    return Prompt("demo", [], input={"resume": answer}, thread=thread, **fields)


def events_of(source: Source, asked: Prompt) -> list[Event]:
    return [event for batch in source.events(asked) for event in batch]


def of_kind(kind: type[E], events: Sequence[object]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


class Followed:
    """A run in a greenlet and a scope of its own, as a producer has it."""

    def __init__(self, source: Source, asked: Prompt) -> None:
        self.scope = Scope()
        self.events: list[Event] = []
        self.stopped: Stopped | None = None
        self.greenlet = gevent.spawn(self._follow, source, asked)

    def _follow(self, source: Source, asked: Prompt) -> None:
        try:
            with scope.entered(self.scope), contextlib.closing(source.events(asked)) as batches:
                for batch in batches:
                    self.events += batch
        except Stopped as stop:
            self.stopped = stop


class Upstream:
    """A chat model that says one word and then nothing, until its client is gone.

    With ``cut`` it ends there, in order, but without having said that it has.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.gone = 0
        self.cut = Flag()
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def model(self) -> ChatOpenAI:
        return ChatOpenAI(model="m", base_url=self.url, api_key="none", max_retries=0)  # type: ignore[arg-type]

    def close(self) -> None:
        self._server.stop(timeout=0.1)

    def _serve(self, connection: socket.socket, _: Any) -> None:
        connection.recv(65536)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(head + b"%x\r\n%s\r\n" % (len(CHUNK), CHUNK))
        self.asked += 1
        if self.cut.is_set():
            connection.sendall(b"0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while connection.recv(65536):
                pass
        self.gone += 1


class Echo(BaseChatModel):
    """A model that says again what it heard last, word by word."""

    @property
    def _llm_type(self) -> str:
        return "echo"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(messages[-1].text))])

    def _stream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        for word in messages[-1].text.split():
            yield ChatGenerationChunk(message=AIMessageChunk(f"{word} "))
            time.sleep(0.01)

    async def _astream(
        self, messages: list[BaseMessage], *_: Any, **__: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for word in messages[-1].text.split():
            yield ChatGenerationChunk(message=AIMessageChunk(f"{word} "))
            await asyncio.sleep(0.01)


# Graphs


class Count(TypedDict, total=False):
    count: int
    name: str


def one_node(node: Any, state: type[Any] = MessagesState, **options: Any) -> Any:
    return StateGraph(state).add_node("node", node).add_edge(START, "node").compile(**options)


def add_one(state: Count) -> Count:
    get_stream_writer()({"seen": state["count"]})
    return {"count": state["count"] + 1}


async def add_two(state: Count) -> Count:
    get_stream_writer()({"seen": state["count"]})
    await asyncio.sleep(0)
    return {"count": state["count"] + 2}


def counting(step: Any = add_one, **options: Any) -> Any:
    """A graph with a subgraph: each of them counts once."""
    inner = one_node(step, Count)
    return (
        StateGraph(Count)
        .add_node("first", step)
        .add_node("inner", inner)
        .add_edge(START, "first")
        .add_edge("first", "inner")
        .compile(**options)
    )


class Tool:
    """A node in the middle of code that waits for nothing that a stop reaches, until it is let go."""

    def __init__(self) -> None:
        self.entered = Flag()
        self.let_go = Flag()
        self.finished = False
        self.went_on = False

    def work(self, _: Any) -> None:
        self.entered.set()
        self.let_go.wait(30)
        self.finished = True

    def go_on(self, _: Any, config: RunnableConfig) -> None:
        self.went_on = True

    def graph(self) -> Any:
        return (
            StateGraph(MessagesState)
            .add_node("work", self.work)
            .add_node("go_on", self.go_on)
            .add_edge(START, "work")
            .add_edge("work", "go_on")
            .add_edge("go_on", END)
            .compile()
        )
