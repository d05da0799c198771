"""Events told without asyncio are those that ``astream_events`` tells of the same objects."""

import re
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManagerForRetrieverRun, dispatch_custom_event
from langchain_core.documents import Document
from langchain_core.language_models import FakeListLLM
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    Runnable,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.tools import tool

from streaming.errors import RunnableFailed
from streaming.events import Done, Event, RunEvent, decode, encode
from streaming.models import chat_model
from streaming.runnables import _bridge, _clients
from streaming.runnables._langchain_events import MAX_DATA_BYTES
from streaming.runnables._readable import to_json
from streaming.runnables.langchain import LangChainSource
from streaming.settings import Settings
from streaming.sources import Prompt

SETTINGS = Settings(demo_tokens_per_second=0)
QUESTION = {"question": "how does it stream?"}


@pytest.fixture(autouse=True)
def _demo_model() -> None:
    _clients.use(SETTINGS)


class Shelf(BaseRetriever):
    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document("a log", metadata={"n": 1}), Document(f"about {query}")]


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


def model() -> Runnable[Any, Any]:
    return chat_model()


def chain() -> Runnable[Any, Any]:
    return ChatPromptTemplate.from_messages([("human", "{question}")]) | chat_model() | StrOutputParser()


def configured() -> Runnable[Any, Any]:
    return chain().with_config(run_name="named", tags=["one"], metadata={"k": "v"})


def rag() -> Runnable[Any, Any]:
    prompt = ChatPromptTemplate.from_template("{context} {question}")
    return {"context": Shelf(), "question": RunnablePassthrough()} | prompt | chat_model() | StrOutputParser()


def agent() -> Runnable[Any, Any]:
    return create_agent(chat_model(), [weather])


def custom() -> Runnable[Any, Any]:
    def work(value: Any, config: Any) -> str:
        dispatch_custom_event("progress", {"done": 1}, config=config)
        return str(value)

    return RunnableLambda(work)


def generated() -> Runnable[Any, Any]:
    def each(values: Iterator[Any]) -> Iterator[str]:
        for value in values:
            yield f"{value}"
            yield "!"

    async def aeach(values: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for value in values:
            yield f"{value}"
            yield "!"

    return RunnableGenerator(each, aeach) | StrOutputParser()


def invoked() -> Runnable[Any, Any]:
    inner = chain()

    def call(value: Any, config: Any) -> str:
        return str(inner.invoke(value, config))

    async def acall(value: Any, config: Any) -> str:
        return str(await inner.ainvoke(value, config))

    return RunnableLambda(call, acall)


def completed() -> Runnable[Any, Any]:
    return ChatPromptTemplate.from_template("{question}") | FakeListLLM(responses=["as text"])


def as_json() -> Runnable[Any, Any]:
    return chat_model().bind(response_format={"type": "json_object"}) | JsonOutputParser()


CASES: dict[str, tuple[Any, Any]] = {
    "model": (model, "hello"),
    "chain": (chain, QUESTION),
    "configured": (configured, QUESTION),
    "agent": (agent, {"messages": [("user", "what is the weather?")]}),
    "tool": (lambda: weather, {"city": "Brno"}),
    "retriever": (Shelf, "logs"),
    "custom": (custom, "x"),
    "generated": (generated, "x"),
    "invoked": (invoked, QUESTION),
    "completed": (completed, QUESTION),
    "as_json": (as_json, "hello"),
    "fallback": (lambda: RunnableLambda(_fail).with_fallbacks([chain()]), QUESTION),
}


def _fail(_: Any) -> str:
    raise ValueError("no")


def told(runnable: Runnable[Any, Any], value: Any) -> list[RunEvent]:
    prompt = Prompt("demo", [], input=value, modes=["events"])
    events: list[Event] = [event for batch in LangChainSource(runnable).events(prompt) for event in batch]
    assert [decode(encode(event)) for event in events] == events  # each can be kept
    assert events.pop() == Done("stop")
    assert all(isinstance(event, RunEvent) for event in events)
    return events  # type: ignore[return-value]


def told_by_langchain(runnable: Runnable[Any, Any], value: Any) -> list[RunEvent]:
    async def collect() -> list[RunEvent]:
        return [
            RunEvent(
                event["event"],
                event["name"],
                event["run_id"],
                list(event["parent_ids"]),
                list(event["tags"]),
                to_json(event["metadata"]),
                to_json(event["data"], MAX_DATA_BYTES),
            )
            async for event in runnable.astream_events(value, version="v2")
        ]

    return _bridge.run(collect)


def as_text(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def normalised(events: list[RunEvent]) -> list[Any]:
    """Give ids their number of appearance instead."""
    known: dict[str, str] = {}
    numbered = [
        IDS.sub(lambda found: known.setdefault(found[0], f"id-{len(known)}"), as_text(event))
        for event in events
    ]
    assert known
    return numbered


@pytest.mark.parametrize("name", CASES)
def test_the_events_are_equal_to_those_of_langchain(name: str) -> None:
    make, value = CASES[name]

    ours, theirs = normalised(told(make(), value)), normalised(told_by_langchain(make(), value))

    assert ours == theirs


def side_by_side() -> Runnable[Any, Any]:
    return RunnableParallel(one=chain(), two=chain() | (lambda text: text.upper()))


def assigned() -> Runnable[Any, Any]:
    """RAG that keeps what it found: what is assigned runs beside the rest."""
    prompt = ChatPromptTemplate.from_template("{context} {question}")
    found = RunnablePassthrough.assign(context=(lambda asked: asked["question"]) | Shelf())
    return found | RunnablePassthrough.assign(answer=prompt | chat_model() | StrOutputParser())


def by_place(events: list[RunEvent]) -> dict[tuple[str, ...], list[str]]:
    """Return the events of each part of a runnable, in their order: a part is told by what is around it."""
    names = {event.run_id: " ".join([event.name, *event.tags]) for event in events}
    found: dict[tuple[str, ...], list[str]] = {}
    for event in events:
        place = (*(names[parent] for parent in event.parent_ids), names[event.run_id])
        found.setdefault(place, []).append(IDS.sub("", as_text((event.event, event.data, event.metadata))))
    return found


def around_branches(events: list[RunEvent]) -> list[RunEvent]:
    """Leave out what happens in branches, and the chunks that come out of the first of them first."""
    inside = {event.run_id for event in events if any(tag.startswith("map:key:") for tag in event.tags)}
    return [
        event
        for event in events
        if not inside & {event.run_id, *event.parent_ids}
        and (event.event, event.name[:16]) != ("on_chain_stream", "RunnableParallel")
    ]


def test_the_order_around_the_branches_of_rag_is_that_of_langchain() -> None:
    ours, theirs = told(rag(), "how?"), told_by_langchain(rag(), "how?")

    assert normalised(around_branches(ours)) == normalised(around_branches(theirs))
    assert {"on_retriever_end", "on_prompt_end", "on_chat_model_stream"} <= {event.event for event in ours}


@pytest.mark.parametrize(("make", "value"), [(rag, "how?"), (side_by_side, QUESTION), (assigned, QUESTION)])
def test_within_each_part_the_order_is_that_of_langchain(make: Any, value: Any) -> None:
    ours, theirs = by_place(told(make(), value)), by_place(told_by_langchain(make(), value))

    assert ours.keys() == theirs.keys()
    for place in ours:
        if place[-1].startswith("RunnableParallel"):
            assert sorted(ours[place]) == sorted(theirs[place])  # what comes first of two branches
        else:
            assert ours[place] == theirs[place]


def test_what_a_tool_raises_is_told_by_its_class() -> None:
    @tool
    def breaks(key: str) -> str:
        """Break."""
        raise PermissionError(f"{key} is refused")

    prompt = Prompt("demo", [], input={"key": "sk-secret"}, modes=["events"])
    events: list[Any] = []

    def take_all() -> None:
        for batch in LangChainSource(breaks).events(prompt):
            events.extend(batch)

    with pytest.raises(RunnableFailed, match="PermissionError"):
        take_all()

    assert [event.event for event in events] == ["on_tool_start", "on_tool_error"]
    assert events[-1].data["error"] == "PermissionError"


def test_no_thread_is_left_of_a_run() -> None:
    told(chain(), QUESTION)
    before = threading.active_count()

    for _ in range(5):
        told(chain(), QUESTION)

    assert threading.active_count() == before
