"""A graph is a source: what it says, in every mode, and what it is given."""

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import tool
from langgraph.func import entrypoint
from langgraph.graph import START, MessagesState, StateGraph

from examples import agent, approval
from streaming.errors import InvalidRequest, LimitExceeded, RunnableFailed
from streaming.events import (
    Done,
    Event,
    Interrupt,
    RunEvent,
    Sources,
    StateUpdate,
    Token,
    ToolCall,
    ToolResult,
    Usage,
    encode,
)
from streaming.runnables import _clients, langgraph
from streaming.settings import Settings
from streaming.sources import Source
from tests.doubles import running, text_of
from tests.graphs import Count, Echo, add_two, counting, events_of, of_kind, one_node, prompt, resume


@dataclass(frozen=True)
class KeepingSettings(Settings):
    checkpoints_url: str = ""


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    made = KeepingSettings(demo_tokens_per_second=0, checkpoints_url=f"sqlite:///{tmp_path}/checkpoints.db")
    _clients.use(made)
    yield made
    _clients._in_use.clear()
    gc.collect()


@pytest.fixture
def assistant(settings: Settings) -> Source:
    return langgraph.create(agent.agent, settings)


def done(events: list[Event]) -> Done:
    assert isinstance(events[-1], Done)
    assert len(of_kind(Done, events)) == 1
    return events[-1]


def states(events: list[Event]) -> list[tuple[str, str, int, Any]]:
    """Return mode, node, depth and data of the states told."""
    return [
        (state.mode, state.node, len(state.namespace), state.data) for state in of_kind(StateUpdate, events)
    ]


def test_a_graph_is_accepted_and_nothing_else() -> None:
    assert langgraph.accepts(agent.agent)
    assert langgraph.accepts(agent.agent.with_config(tags=["a"]))
    assert not langgraph.accepts(approval.model)


# Without modes


def test_an_agent_tells_its_calls_their_results_and_its_answer_in_order(assistant: Source) -> None:
    events = events_of(assistant, prompt("weather and time, both please"))

    kinds = [type(event) for event in events if not isinstance(event, Usage)]
    assert kinds[1:5] == [ToolCall, ToolCall, ToolResult, ToolResult]
    assert set(kinds[5:-1]) == {Token}
    calls, results = of_kind(ToolCall, events), of_kind(ToolResult, events)
    assert [(call.id, call.tool) for call in calls] == [(result.id, result.tool) for result in results]
    assert calls[0].args == {"city": "weather"}
    assert [result.failed for result in results] == [False, True]
    assert "no time zone" in results[1].result
    assert "get_weather" in text_of(events)
    assert done(events).finish_reason == "stop"
    for event in events:
        encode(event)


def test_usage_is_of_all_models_together(assistant: Source) -> None:
    events = events_of(assistant, prompt("weather"))
    told = [usage.usage for usage in of_kind(Usage, events)]

    assert len(told) == 2
    assert 0 < told[0]["total_tokens"] < told[1]["total_tokens"]
    assert done(events).usage == told[1]


def test_tokens_come_one_by_one(assistant: Source) -> None:
    assert len(of_kind(Token, events_of(assistant, prompt("long please")))) > 5


@pytest.mark.parametrize("asynchronous", [False, True])
def test_two_hundred_runs_never_mix(asynchronous: bool, settings: Settings) -> None:
    def echo(state: MessagesState) -> Any:
        return {"messages": [Echo().invoke(state["messages"])]}

    async def echo_later(state: MessagesState) -> Any:
        return {"messages": [await Echo().ainvoke(state["messages"])]}

    source = langgraph.create(one_node(one_node(echo_later if asynchronous else echo)), settings)
    heard: dict[str, list[Event]] = {}

    def ask(name: str) -> None:
        heard[name] = events_of(source, prompt(" ".join([name] * 10)))

    names = [f"run{number}" for number in range(200)]
    with running(*(lambda name=name: ask(name) for name in names)):
        pass
    assert {name: text_of(events) for name, events in heard.items()} == {
        name: f"{name} " * 10 for name in names
    }
    assert all(len(of_kind(Token, events)) == 10 for events in heard.values())


def test_a_message_that_no_model_said_is_text(settings: Settings) -> None:
    source = langgraph.create(one_node(lambda state: {"messages": [AIMessage("by hand")]}), settings)
    assert text_of(events_of(source, prompt())) == "by hand"


def test_messages_of_several_nodes_are_paragraphs(settings: Settings) -> None:
    answers = [AIMessage("one"), AIMessage("two")]
    source = langgraph.create(one_node(lambda state: {"messages": answers}), settings)
    assert text_of(events_of(source, prompt())) == "one\n\ntwo"


def test_a_node_that_repeats_its_model_is_not_heard_twice(settings: Settings) -> None:
    def repeats(state: MessagesState) -> Any:
        return {"messages": [AIMessage(approval.model.invoke(state["messages"]).text)]}

    source = langgraph.create(one_node(repeats), settings)
    assert text_of(events_of(source, prompt("ping"))) == "pong"


@pytest.mark.parametrize(
    ("output", "text"),
    [({"name": "Ana"}, '{"count":1,"name":"Ana"}'), ({"count": 2}, '{"count":2}')],
)
def test_where_nothing_was_said_the_last_state_is_the_answer(
    output: Count, text: str, settings: Settings
) -> None:
    source = langgraph.create(one_node(lambda state: output, Count), settings)
    assert text_of(events_of(source, prompt(input={"count": 1}))) == text


def test_earlier_answers_are_not_heard_again(settings: Settings) -> None:
    def echo(state: MessagesState) -> Any:
        return {"messages": [*state["messages"], AIMessage("new")]}

    said = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "old"},
        {"role": "user", "content": "b"},
    ]
    source = langgraph.create(one_node(echo), settings)
    asked = prompt()
    asked = type(asked)(asked.model, said)
    assert text_of(events_of(source, asked)) == "new"


def test_parts_of_a_call_are_told_when_it_is_complete() -> None:
    from streaming.runnables._graph_messages import MessageEvents

    def part(**fields: Any) -> AIMessageChunk:
        known = {"name": None, "args": "", "id": None, "index": 0, "type": "tool_call_chunk", **fields}
        return AIMessageChunk("", id="m", tool_call_chunks=[known])  # type: ignore[list-item]

    messages = MessageEvents()
    assert not list(messages.of(part(name="look", id="c1", args='{"a":')))
    assert not list(messages.of(part(args="1}")))
    assert not list(messages.of(part(index=1, name="bad", id="c2", args="{no")))
    assert list(messages.of(AIMessageChunk("", id="m", chunk_position="last"))) == [
        ToolCall("c1", "look", {"a": 1}, handled=True),
        ToolCall("c2", "bad", None, "{no", handled=True),
    ]
    assert not list(messages.rest())


def test_halves_of_characters_do_not_break_a_run(settings: Settings) -> None:
    source = langgraph.create(one_node(lambda state: {"messages": [AIMessage("a\ud83d")]}), settings)
    for event in events_of(source, prompt()):
        encode(event)


def test_a_huge_tool_result_is_cut(settings: Settings) -> None:
    from langchain.agents import create_agent

    @tool
    def huge() -> str:
        """Say much."""
        return "x" * 1_000_000

    events = events_of(langgraph.create(create_agent(approval.model, [huge]), settings), prompt("huge"))
    [result] = of_kind(ToolResult, events)
    assert result.truncated
    assert len(encode(result)) < 70_000


def test_what_a_retriever_found_is_told(settings: Settings) -> None:
    class Shelf(BaseRetriever):
        def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
            return [Document("about " + query, id="d1", metadata={"title": "Logs"})]

    def look(state: MessagesState) -> Any:
        return {"messages": [AIMessage(Shelf().invoke("logs")[0].page_content)]}

    events = events_of(langgraph.create(one_node(look), settings), prompt())
    [found] = of_kind(Sources, events)
    assert [(document.id, document.title, document.snippet) for document in found.documents] == [
        ("d1", "Logs", "about logs")
    ]
    assert events.index(found) < events.index(of_kind(Token, events)[0])


# Modes


def test_values_are_the_state_after_each_step_also_of_a_subgraph(settings: Settings) -> None:
    events = events_of(langgraph.create(counting(), settings), prompt(input={"count": 1}, modes=["values"]))
    assert [(depth, data["count"]) for _, _, depth, data in states(events)] == [
        (0, 1),
        (0, 2),
        (1, 2),
        (1, 3),
        (0, 3),
    ]
    assert not text_of(events)


def test_updates_say_which_node(settings: Settings) -> None:
    events = events_of(langgraph.create(counting(), settings), prompt(input={"count": 1}, modes=["updates"]))
    assert states(events) == [
        ("updates", "first", 0, {"count": 2}),
        ("updates", "node", 1, {"count": 3}),
        ("updates", "inner", 0, {"count": 3}),
    ]
    assert of_kind(StateUpdate, events)[1].namespace[0].startswith("inner:")


def test_custom_is_what_a_node_writes(settings: Settings) -> None:
    events = events_of(langgraph.create(counting(), settings), prompt(input={"count": 1}, modes=["custom"]))
    assert [(depth, data) for _, _, depth, data in states(events)] == [(0, {"seen": 1}), (1, {"seen": 2})]


def test_tasks_checkpoints_and_debug_tell_theirs(settings: Settings) -> None:
    source = langgraph.create(counting(), settings)
    for mode in ("tasks", "checkpoints", "debug"):
        events = events_of(source, prompt(input={"count": 1}, modes=[mode], thread=mode))
        assert {told for told, *_ in states(events)} == {mode}
        for event in events:
            encode(event)
        if mode != "checkpoints":
            assert {"first", "inner", "node"} <= {node for _, node, _, _ in states(events)}


def test_several_modes_at_once(settings: Settings) -> None:
    modes = ["values", "updates", "custom", "tasks", "debug", "checkpoints", "messages"]
    source = langgraph.create(counting(), settings)
    events = events_of(source, prompt(input={"count": 1}, modes=modes, thread="all"))
    assert {mode for mode, *_ in states(events)} == set(modes) - {"messages"}


def test_messages_tell_who_speaks_before_the_text(settings: Settings) -> None:
    inner = one_node(lambda state: {"messages": [approval.model.invoke(state["messages"])]})
    source = langgraph.create(one_node(inner), settings)
    events = events_of(source, prompt("ping", modes=["messages"]))

    [(mode, node, depth, data)] = states(events)
    assert (mode, node, depth) == ("messages", "node", 1)
    assert data["id"]
    assert text_of(events) == "pong"
    assert events.index(of_kind(StateUpdate, events)[0]) < events.index(of_kind(Token, events)[0])


@pytest.mark.parametrize("modes", [["sideways"], ["values", "events"]])
def test_an_unknown_mode_is_refused(modes: list[str], settings: Settings) -> None:
    with pytest.raises(InvalidRequest, match="known:") as caught:
        events_of(langgraph.create(counting(), settings), prompt(modes=modes))
    assert caught.value.param == "modes"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_events_are_langchains_own_and_end_with_the_question(asynchronous: bool, settings: Settings) -> None:
    graph = approval.graph.with_config(metadata={"async_only": True}) if asynchronous else approval.graph
    source = langgraph.create(graph, settings)
    events = events_of(source, prompt("ping", thread="t", modes=["events"]))

    told = of_kind(RunEvent, events)
    assert (told[0].event, told[-1].event) == ("on_chain_start", "on_chain_end")
    assert told[0].name == told[-1].name == "LangGraph"
    assert {"on_chat_model_start", "on_chat_model_stream", "on_chat_model_end"} <= {one.event for one in told}
    assert len(of_kind(Interrupt, events)) == 1
    assert done(events).finish_reason == "interrupt"
    assert done(events).usage

    events = events_of(source, resume("yes", "t", modes=["events"]))
    assert done(events).finish_reason == "stop"
    assert not text_of(events)


# Threads and interrupts


def test_a_thread_remembers_and_takes_only_what_is_new(settings: Settings) -> None:
    def count(state: MessagesState) -> Any:
        return {"messages": [AIMessage(" ".join(message.type for message in state["messages"]))]}

    source = langgraph.create(one_node(count), settings)
    first = prompt("a", thread="t")
    events_of(source, first)
    history = [*first.messages, {"role": "assistant", "content": "human"}, {"role": "user", "content": "b"}]
    again = type(first)("demo", history, thread="t")

    assert text_of(events_of(source, again)) == "human ai human"
    assert text_of(events_of(source, prompt("a", thread="other"))) == "human"
    assert text_of(events_of(source, prompt("a"))) == "human"


def test_a_graph_with_a_memory_of_its_own_keeps_it(settings: Settings, tmp_path: Path) -> None:
    from langgraph.checkpoint.memory import InMemorySaver

    own = InMemorySaver()
    graph = one_node(lambda state: {"messages": [AIMessage("x")]}, checkpointer=own)
    source = langgraph.create(graph, settings)
    events_of(source, prompt(thread="t"))
    assert len(list(own.list({"configurable": {"thread_id": "t"}}))) > 0
    assert not (tmp_path / "checkpoints.db").exists()
    assert text_of(events_of(source, prompt())) == "x"


def test_a_question_ends_the_run_and_its_answer_goes_on(settings: Settings) -> None:
    source = langgraph.create(approval.graph, settings)
    events = events_of(source, prompt("ping", thread="t"))
    [question] = of_kind(Interrupt, events)
    assert question.value["draft"] == "pong"
    assert done(events).finish_reason == "interrupt"

    events = events_of(source, resume("ping", "t"))
    [question] = of_kind(Interrupt, events)
    assert text_of(events) == "pong"

    events = events_of(source, resume({question.id: "yes"}, "t"))
    assert text_of(events) == "The letter was sent. ✉️"
    assert done(events).finish_reason == "stop"


def test_an_interrupt_is_told_once_whatever_the_modes(settings: Settings) -> None:
    source = langgraph.create(one_node(approval.graph), settings)
    for modes in ([], ["values"], ["updates"], ["messages", "debug", "tasks", "values"]):
        asked = prompt("ping", thread="-".join(["nested", *modes]), modes=modes)
        events = events_of(source, asked)
        assert len(of_kind(Interrupt, events)) == 1
        assert done(events).finish_reason == "interrupt"


def test_several_questions_are_answered_by_their_ids(settings: Settings) -> None:
    import operator
    from typing import Annotated, TypedDict

    from langgraph.types import interrupt

    class Answers(TypedDict):
        answers: Annotated[list[str], operator.add]

    def ask(name: str) -> Any:
        return lambda state: {"answers": [f"{name}={interrupt(name)}"]}

    builder = StateGraph(Answers)
    for name in ("a", "b"):
        builder.add_node(name, ask(name))
        builder.add_edge(START, name)
    source = langgraph.create(builder.compile(), settings)
    events = events_of(source, prompt(input={"answers": []}, thread="t"))
    ids = {question.value: question.id for question in of_kind(Interrupt, events)}
    assert set(ids) == {"a", "b"}

    for answer in ("yes", {"someone": "yes"}, None):
        with pytest.raises(InvalidRequest, match="several") as caught:
            events_of(source, resume(answer, "t"))
        assert caught.value.param == "input.resume"
    events = events_of(source, resume({ids["a"]: "x", ids["b"]: "y"}, "t"))
    assert text_of(events) == '{"answers":["a=x","b=y"]}'


def test_null_is_an_answer_too(settings: Settings) -> None:
    from langgraph.types import interrupt

    source = langgraph.create(one_node(lambda _: {"messages": [AIMessage(f"{interrupt('?')}")]}), settings)
    events_of(source, prompt(thread="t"))
    assert text_of(events_of(source, resume(None, "t"))) == "None"


def test_a_breakpoint_is_passed_without_an_answer(settings: Settings) -> None:
    source = langgraph.create(counting(interrupt_before=["inner"]), settings)
    events = events_of(source, prompt(input={"count": 1}, thread="t"))
    assert [told.value for told in of_kind(Interrupt, events)] == [{"next": ["inner"]}]
    assert done(events).finish_reason == "interrupt"

    assert text_of(events_of(source, resume(None, "t"))) == '{"count":3}'


def test_an_answer_to_nothing_is_refused(settings: Settings) -> None:
    source = langgraph.create(approval.graph, settings)
    with pytest.raises(InvalidRequest) as caught:
        events_of(source, resume("yes", "never seen"))
    assert (caught.value.param, caught.value.code) == ("input.resume", "nothing_to_resume")
    with pytest.raises(InvalidRequest) as caught:
        events_of(source, resume("yes", ""))
    assert caught.value.param == "thread"


# Input and configuration


def test_a_graph_of_one_text_is_given_the_last_thing_said(settings: Settings) -> None:
    from typing import TypedDict

    class Asked(TypedDict):
        question: str

    source = langgraph.create(one_node(lambda state: {"question": state["question"] + "!"}, Asked), settings)
    assert text_of(events_of(source, prompt("what"))) == '{"question":"what!"}'


def test_a_functional_graph_runs(settings: Settings) -> None:
    @entrypoint()
    def shout(text: str) -> str:
        return text.upper()

    source = langgraph.create(shout, settings)
    assert text_of(events_of(source, prompt("what"))) == "WHAT"


def test_a_graph_that_is_not_made_for_messages_says_so(settings: Settings) -> None:
    source = langgraph.create(counting(), settings)
    with pytest.raises(InvalidRequest, match="count, name") as caught:
        events_of(source, prompt())
    assert caught.value.param == "input"


@pytest.mark.parametrize("given", [5, "text", [], {"unknown": 1}])
def test_an_input_that_the_graph_does_not_take_is_refused(given: Any, settings: Settings) -> None:
    source = langgraph.create(counting(), settings)
    with pytest.raises(InvalidRequest) as caught:
        events_of(source, prompt(input=given))
    assert caught.value.param == "input"


@pytest.mark.parametrize("said", [5, [5], [{"role": "user"}], [{"type": "nobody", "content": "x"}], {"a": 1}])
def test_messages_that_are_none_are_refused_by_name(said: Any, settings: Settings) -> None:
    graph = StateGraph(MessagesState).add_node("end", lambda state: {}).add_edge(START, "end").compile()
    with pytest.raises(InvalidRequest) as caught:
        events_of(langgraph.create(graph, settings), prompt(input={"messages": said}))
    assert caught.value.param == "input.messages"


@pytest.mark.parametrize(
    ("config", "param"),
    [
        ({"recursion_limit": 0}, "config.recursion_limit"),
        ({"recursion_limit": True}, "config.recursion_limit"),
        ({"recursion_limit": 100_000}, "config.recursion_limit"),
        ({"tags": [1]}, "config.tags"),
        ({"metadata": "x"}, "config.metadata"),
        ({"callbacks": []}, "config.callbacks"),
        ({"configurable": {"__pregel_read": 1}}, "config.configurable.__pregel_read"),
    ],
)
def test_a_bad_configuration_names_its_field(config: Any, param: str, settings: Settings) -> None:
    with pytest.raises(InvalidRequest) as caught:
        events_of(langgraph.create(counting(), settings), prompt(input={"count": 1}, config=config))
    assert caught.value.param == param


def test_configuration_reaches_the_nodes(settings: Settings) -> None:
    from langchain_core.runnables import RunnableConfig

    seen: list[RunnableConfig] = []

    def look(state: MessagesState, config: RunnableConfig) -> None:
        seen.append(config)

    asked = {"tags": ["t"], "metadata": {"m": 1}, "configurable": {"c": 2}, "recursion_limit": 7}
    events_of(langgraph.create(one_node(look), settings), prompt(config=asked))
    [config] = seen
    assert "t" in config["tags"]
    assert config["metadata"]["m"] == 1
    assert config["configurable"]["c"] == 2
    assert config["recursion_limit"] == 7


def test_a_graph_that_never_ends_is_ended(settings: Settings) -> None:
    from langgraph.types import Command

    source = langgraph.create(one_node(lambda state: Command(goto="node")), settings)
    with pytest.raises(LimitExceeded) as caught:
        events_of(source, prompt(config={"recursion_limit": 5}))
    assert caught.value.code == "recursion_limit"


def test_what_a_node_raises_is_told_by_its_kind_alone(settings: Settings) -> None:
    def breaks(state: MessagesState) -> None:
        raise ValueError("sk-secret")

    source = langgraph.create(one_node(breaks), settings)
    with pytest.raises(RunnableFailed) as caught:
        events_of(source, prompt())
    assert "secret" not in str(caught.value)
    assert "ValueError" in str(caught.value)


def test_nothing_is_traced(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    from langchain_core.runnables import RunnableConfig

    handlers: list[str] = []

    def look(state: MessagesState, config: RunnableConfig) -> None:
        handlers.extend(type(handler).__name__ for handler in config["callbacks"].handlers)  # type: ignore

    events_of(langgraph.create(one_node(look), settings), prompt())
    assert "Watch" in handlers
    assert "LangChainTracer" not in handlers


# Asynchronous graphs


def test_a_graph_without_blocking_code_runs_all_the_same(settings: Settings) -> None:
    source = langgraph.create(counting(add_two), settings)
    assert source._is_async  # type: ignore[attr-defined]
    modes = ["updates", "custom", "values"]
    events = events_of(source, prompt(input={"count": 1}, modes=modes, thread="t"))
    assert [data for mode, _, depth, data in states(events) if mode == "updates" and not depth] == [
        {"count": 3},
        {"count": 5},
    ]
    assert text_of(events_of(source, prompt(input={"count": 1}))) == '{"count":5}'


def test_an_asynchronous_agent_remembers_and_asks(settings: Settings) -> None:
    from langgraph.types import interrupt

    async def answer(state: MessagesState) -> Any:
        said = await approval.model.ainvoke(state["messages"])
        return {"messages": [said, AIMessage(f"{interrupt('well?')} {len(state['messages'])}")]}

    source = langgraph.create(one_node(answer), settings)
    events = events_of(source, prompt("ping", thread="t"))
    assert of_kind(Interrupt, events)
    assert text_of(events) == "pong"
    assert "yes 1" in text_of(events_of(source, resume("yes", "t")))
    with pytest.raises(InvalidRequest, match="nothing waits"):
        events_of(source, resume("yes", "t"))


def test_which_graphs_are_asynchronous_is_seen_in_their_parts(settings: Settings) -> None:
    from langchain.agents import create_agent
    from langchain_core.runnables import RunnableLambda

    from streaming.runnables._graph_async import is_async_only

    @tool
    async def look() -> str:
        """Look."""
        return "seen"

    async def there(state: Any) -> str:
        return "node"

    branching = one_node(lambda state: None).builder
    branching.add_conditional_edges("node", there)

    assert not is_async_only(agent.agent)
    assert not is_async_only(approval.graph)
    assert is_async_only(create_agent(approval.model, [look]))
    assert is_async_only(one_node(create_agent(approval.model, [look])))
    assert is_async_only(branching.compile())
    assert is_async_only(RunnableLambda(there) | approval.model)
    assert is_async_only(approval.graph.with_config(metadata={"async_only": True}))
    events = events_of(langgraph.create(create_agent(approval.model, [look]), settings), prompt("look"))
    assert [result.result for result in of_kind(ToolResult, events)] == ["seen"]
    assert HumanMessage("x").type == "human"
