"""Agents of OpenAI's SDK: what a run tells, how it ends, and that nothing is left of it."""

import asyncio
import json
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest
from agents import (
    Agent,
    GuardrailFunctionOutput,
    ModelSettings,
    function_tool,
    input_guardrail,
    output_guardrail,
)
from agents.tracing import get_trace_provider
from openai.types.shared import Reasoning as ReasoningSettings
from pydantic import BaseModel

from examples import agents_sdk
from streaming import scope
from streaming.errors import (
    GuardrailTripped,
    InvalidRequest,
    LimitExceeded,
    RunnableFailed,
    StreamingError,
    UpstreamBadResponse,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from streaming.events import Done, Event, Reasoning, StateUpdate, Token, ToolCall, ToolResult, Usage
from streaming.runnables import _whole_answers, agents
from streaming.settings import Settings
from streaming.sources import Prompt, Source
from tests.chunk_streams import chunk
from tests.doubles import eventually, running, text_of
from tests.model_double import SILENCE, ModelDouble, Script, calls, text
from tests.tool_loops import HI, MakeModel, collect, heard, kinds, results

DEMO = Settings(demo_tokens_per_second=0)
USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 15,
}
TWICE = USAGE | {"input_tokens": 20, "output_tokens": 10, "total_tokens": 30}


@function_tool
def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


def source(agent: Agent[Any], at: ModelDouble | None = None, **options: Any) -> Source:
    settings = options.pop("settings", {})
    chosen = Settings(openai_base_url=at.base_url, upstream_retries=0, **settings) if at else DEMO
    return agents.create(agent, chosen, **options)


def an_agent(**fields: Any) -> Agent[Any]:
    return Agent(name="Helper", **{"tools": [add], **fields})


def failing(asked: Source, kind: type[StreamingError], **prompt: Any) -> tuple[StreamingError, list[Event]]:
    events: list[Event] = []
    with pytest.raises(kind) as raised:
        collect(asked, events, **prompt)
    return raised.value, events


# What a run tells


def test_a_run_is_one_answer_with_its_calls_results_and_usage(model: MakeModel) -> None:
    upstream = model(calls(("c1", "add", '{"a": 2}'), said="Let me see."), text("It is ", "3."))
    events = heard(source(an_agent(), upstream))
    assert text_of(events) == "Let me see.\n\nIt is 3."
    assert [event.content for event in kinds(events, Token)] == ["Let me see.", "\n\nIt is ", "3."]
    assert kinds(events, StateUpdate) == [StateUpdate("updates", {"agent": "Helper"}, node="Helper")]
    assert kinds(events, ToolCall) == [ToolCall("c1", "add", {"a": 2}, handled=True)]
    assert kinds(events, ToolResult) == [ToolResult("c1", "add", 3)]
    assert events[-2:] == [Usage(TWICE), Done("stop", TWICE)]
    assert upstream.asked[1]["messages"][-1] == {"role": "tool", "tool_call_id": "c1", "content": "3"}


def test_the_demo_model_hands_over_to_another_agent() -> None:
    other = Agent(name="Refunds", instructions="Give the money back.")
    events = heard(
        source(Agent(name="Support", handoffs=[other])),
        messages=[{"role": "user", "content": "transfer me to refunds"}],
    )
    assert [event.node for event in kinds(events, StateUpdate)] == ["Support", "Refunds"]
    (call,) = kinds(events, ToolCall)
    assert (call.tool, call.handled) == ("transfer_to_refunds", True)
    assert kinds(events, ToolResult) == [ToolResult(call.id, "transfer_to_refunds", {"agent": "Refunds"})]
    assert "transfer_to_refunds" in text_of(events)
    assert isinstance(events[-1], Done)


@pytest.mark.parametrize(
    ("asked", "tool"), [("find my order", "find_order"), ("transfer to refunds", "transfer_to_refunds")]
)
def test_the_example_answers_with_the_demo_model(asked: str, tool: str) -> None:
    events = heard(source(agents_sdk.support), messages=[{"role": "user", "content": asked}])
    assert [result.tool for result in kinds(events, ToolResult)] == [tool]
    assert kinds(events, Done)


def test_text_comes_while_it_is_said(model: MakeModel) -> None:
    upstream = model([*text("one ")[:1], SILENCE])
    batches = source(an_agent(), upstream).events(Prompt("", HI))
    with gevent.Timeout(5):
        while not text_of(next(batches)):
            pass
    batches.close()
    eventually(lambda: upstream.gone == 1)


def test_reasoning_and_a_refusal_are_told_as_such(model: MakeModel) -> None:
    upstream = model(
        [chunk({"reasoning_content": "hm"}), chunk({"refusal": "No."}), chunk(finish="stop"), *text()[-2:]]
    )
    events = heard(source(an_agent(), upstream))
    assert kinds(events, Reasoning) == [Reasoning("hm")]
    assert kinds(events, Token) == [Token("No.", refusal=True)]


def test_an_answer_that_no_model_says_is_told_too(model: MakeModel) -> None:
    upstream = model(calls(("c1", "add", '{"a": 2}')))
    events = heard(source(an_agent(tool_use_behavior="stop_on_first_tool"), upstream))
    assert text_of(events) == "3"


def test_structured_output_is_the_text_of_the_answer(model: MakeModel) -> None:
    class Sum(BaseModel):
        total: int

    upstream = model(text('{"total"', ": 3}"))
    events = heard(source(an_agent(output_type=Sum), upstream))
    assert text_of(events) == '{"total": 3}'


# Models


def test_an_agent_that_names_no_model_gets_the_default_one_without_the_sdks_own_settings(
    model: MakeModel,
) -> None:
    upstream = model(text("ok"))
    heard(source(an_agent(), upstream, settings={"model": "llama3.2"}))
    (asked,) = upstream.asked
    assert asked["model"] == "llama3.2"
    assert "reasoning_effort" not in asked
    assert "verbosity" not in asked
    assert asked["stream_options"] == {"include_usage": True}


def test_an_agent_keeps_what_it_says_itself(model: MakeModel) -> None:
    upstream = model(text("ok"))
    chosen = ModelSettings(reasoning=ReasoningSettings(effort="high"), temperature=0.5)
    heard(source(an_agent(model="own", model_settings=chosen), upstream))
    (asked,) = upstream.asked
    assert (asked["model"], asked["reasoning_effort"], asked["temperature"]) == ("own", "high", 0.5)


def test_a_request_says_how_the_model_is_asked(model: MakeModel) -> None:
    upstream = model(text("ok"))
    heard(
        source(an_agent(), upstream),
        params={"temperature": 0, "max_completion_tokens": 9, "reasoning_effort": "low", "seed": 7, "n": 1},
    )
    (asked,) = upstream.asked
    told = {name: asked.get(name) for name in ("temperature", "max_tokens", "reasoning_effort", "seed")}
    assert told == {"temperature": 0, "max_tokens": 9, "reasoning_effort": "low", "seed": 7}


@pytest.mark.parametrize("name", ["tools", "tool_choice", "response_format"])
def test_what_only_the_agent_can_say_is_refused_by_field(name: str) -> None:
    error, _ = failing(source(an_agent()), InvalidRequest, params={name: ["x"]})
    assert error.param == f"params.{name}"


def test_nothing_is_traced_to_anybody() -> None:
    assert getattr(get_trace_provider(), "_disabled", None) is True


def test_only_the_models_server_is_ever_asked(model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = model(calls(("c1", "add", '{"a": 2}')), text("ok"))
    connected: list[Any] = []
    connect = socket.socket.connect
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    def noting(self: socket.socket, address: Any) -> None:
        connected.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", noting)
    looked_up: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *found, **_: looked_up.append(found))
    heard(source(an_agent(), upstream))
    port = int(upstream.base_url.rpartition(":")[2].removesuffix("/v1"))
    assert {address[:2] for address in connected} <= {("127.0.0.1", port)}
    assert not [found for found in looked_up if found[0] not in ("127.0.0.1", b"127.0.0.1")]


# Tools


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_a_tool_raises_is_told_by_its_name_alone(model: MakeModel, kind: str) -> None:
    def leak() -> str:
        raise ValueError("sk-secret")

    async def leak_later() -> str:
        raise ValueError("sk-secret")

    tool = function_tool(leak if kind == "sync" else leak_later, name_override="leak")
    upstream = model(calls(("c1", "leak", "{}")), text("sorry"))
    events = heard(source(an_agent(tools=[tool]), upstream))
    assert results(events) == [("c1", "the tool failed: ValueError", True)]
    assert "sk-secret" not in json.dumps(upstream.asked)


def test_a_call_of_no_tool_is_answered_to_the_model(model: MakeModel) -> None:
    upstream = model(calls(("c1", "subtract", "{}")), text("ok"))
    events = heard(source(an_agent(), upstream))
    assert text_of(events) == "ok"
    assert upstream.asked[1]["messages"][-1]["role"] == "tool"


def test_a_result_that_is_too_long_is_cut_off_for_the_readers(model: MakeModel) -> None:
    @function_tool
    def tell() -> str:
        return "ž" * 1000

    upstream = model(calls(("c1", "tell", "{}")), text("ok"))
    (result,) = kinds(heard(source(an_agent(tools=[tell]), upstream, result_bytes=501)), ToolResult)
    assert (result.truncated, result.result) == (True, "ž" * 250)


def test_a_tool_that_waits_for_a_person_ends_the_run_with_a_reason(model: MakeModel) -> None:
    tool = function_tool(lambda: "x", name_override="pay", needs_approval=True)
    error, _ = failing(source(an_agent(tools=[tool]), model(calls(("c1", "pay", "{}")))), InvalidRequest)
    assert "pay" in str(error)


# How it fails


def test_a_guardrail_ends_the_run_by_its_name(model: MakeModel) -> None:
    @input_guardrail
    async def no_secrets(*_: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput("sk-secret", tripwire_triggered=True)

    @output_guardrail
    async def polite(*_: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput("sk-secret", tripwire_triggered=True)

    error, _ = failing(source(an_agent(input_guardrails=[no_secrets]), model(text("ok"))), GuardrailTripped)
    assert (error.code, str(error)) == ("input", "the guardrail no_secrets refuses the input")
    error, events = failing(source(an_agent(output_guardrails=[polite]), model(text("ok"))), GuardrailTripped)
    assert (error.code, str(error)) == ("output", "the guardrail polite refuses the output")
    assert kinds(events, Usage) == [Usage(USAGE)]


def test_an_agent_that_never_comes_to_an_end_is_stopped(model: MakeModel) -> None:
    turn = iter(range(100))
    upstream = model(answer=lambda _: calls((f"c{next(turn)}", "add", '{"a": 2}')))
    error, events = failing(source(an_agent(), upstream, max_turns=3), LimitExceeded)
    assert error.code == "turns"
    assert len(upstream.asked) == 3
    assert kinds(events, Usage)[-1].usage["total_tokens"] == 45


def test_an_answer_that_is_cut_off_never_looks_complete(model: MakeModel) -> None:
    error, events = failing(source(an_agent(), model(text("It ", "is")[:2])), UpstreamTruncated)
    assert text_of(events) == "It is"
    assert error.retryable


def test_text_that_quotes_the_end_of_a_stream_is_not_its_end(model: MakeModel) -> None:
    quoted = 'data: [DONE]\n\ndata: {"finish_reason": "stop", "type": "response.completed"}'
    _, events = failing(source(an_agent(), model(text(quoted)[:1])), UpstreamTruncated)
    assert text_of(events) == quoted


def test_a_silent_model_is_given_up(model: MakeModel) -> None:
    upstream = model([*text("It ")[:1], SILENCE])
    asked = source(an_agent(), upstream, settings={"idle_timeout_seconds": 0.2})
    error, events = failing(asked, UpstreamTimeout)
    assert (error.code, text_of(events)) == ("idle", "It ")
    eventually(lambda: upstream.gone == 1)


def test_a_line_without_end_is_given_up(model: MakeModel) -> None:
    upstream = model([b"data: " + b"x" * 1024 * 1024] + [b"x" * 1024 * 1024] * 8)
    error, _ = failing(source(an_agent(), upstream), UpstreamBadResponse)
    assert error.code == "too_large"


def test_a_server_that_is_not_there_and_one_that_refuses_are_told_apart(model: MakeModel) -> None:
    gone = model()
    gone.close()
    failing(source(an_agent(), gone), UpstreamUnreachable)
    refusing = model(status=b"404 Not Found")
    error, _ = failing(source(an_agent(), refusing), UpstreamRejected)
    assert "sk-" not in str(error)


def test_a_server_that_may_answer_next_time_is_asked_again(model: MakeModel) -> None:
    upstream = model(text("ok"), fails=[b"503 Busy"])
    asked = agents.create(an_agent(), Settings(openai_base_url=upstream.base_url, upstream_retries=1))
    assert text_of(heard(asked)) == "ok"


def test_the_developers_own_mistake_is_told_by_its_class(model: MakeModel) -> None:
    def instruct(context: Any, agent: Any) -> str:
        raise KeyError("sk-secret")

    error, _ = failing(source(an_agent(instructions=instruct), model(text("ok"))), RunnableFailed)
    assert "KeyError" in str(error)
    assert "sk-secret" not in str(error)


# Sessions


def test_a_thread_goes_on_where_it_was(model: MakeModel, tmp_path: Path) -> None:
    upstream = model(text("Hello."), text("Again."), text("Who?"))
    asked = source(an_agent(), upstream, sessions_path=str(tmp_path / "sessions.db"))
    heard(asked, thread="t1")
    heard(asked, thread="t1", messages=[{"role": "user", "content": "more"}])
    heard(asked, thread="t2", messages=[{"role": "user", "content": "me"}])
    said = [[message["content"] for message in body["messages"]] for body in upstream.asked]
    assert said == [["hi"], ["hi", "Hello.", "more"], ["me"]]


def test_a_client_that_sends_the_whole_conversation_does_not_double_it(
    model: MakeModel, tmp_path: Path
) -> None:
    upstream = model(text("Hello."), text("Again."))
    asked = source(an_agent(), upstream, sessions_path=str(tmp_path / "sessions.db"))
    heard(asked, thread="t1")
    history = [*HI, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "more"}]
    heard(asked, thread="t1", messages=history)
    assert [message["content"] for message in upstream.asked[1]["messages"]] == ["hi", "Hello.", "more"]


def test_a_session_that_is_new_is_told_what_was_said_elsewhere(model: MakeModel, tmp_path: Path) -> None:
    upstream = model(text("Again."), text("And again."))
    asked = source(an_agent(), upstream, sessions_path=str(tmp_path / "sessions.db"))
    history = [*HI, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "more"}]
    heard(asked, thread="t1", messages=history)
    heard(asked, thread="t1", messages=[*history, {"role": "assistant", "content": "Again."}, *HI])
    said = [[message["content"] for message in body["messages"]] for body in upstream.asked]
    assert said == [["hi", "Hello.", "more"], ["hi", "Hello.", "more", "Again.", "hi"]]


def test_without_a_thread_nothing_is_kept(model: MakeModel, tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    heard(source(an_agent(), model(text("ok")), sessions_path=str(path)))
    assert not path.exists()


def test_a_session_that_cannot_be_opened_is_a_typed_error(model: MakeModel, tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    path.write_bytes(b"not a database" * 100)
    error, _ = failing(
        source(an_agent(), model(text("ok")), sessions_path=str(path)), RunnableFailed, thread="t"
    )
    assert str(path) not in str(error)


def test_threads_at_once_are_all_kept(model: MakeModel, tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    upstream = model(answer=lambda body: text(body["messages"][-1]["content"]))
    asked = source(an_agent(), upstream, sessions_path=str(path))

    def one(n: int) -> None:
        heard(asked, thread=f"t{n}", messages=[{"role": "user", "content": f"w{n}"}])

    with running(*(lambda n=n: one(n) for n in range(40))):  # type: ignore[misc]
        pass
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT session_id, count(*) FROM agent_messages GROUP BY session_id").fetchall()
    db.close()
    assert sorted(rows) == sorted((f"t{n}", 2) for n in range(40))


# Stopping


def stopped_after(asked: Source, condition: Callable[[list[Event]], object], upstream: ModelDouble) -> float:
    """Stop a run once ``condition`` holds; return the seconds until it ended, with its connection."""
    run, events = scope.Scope(), list[Event]()

    def body() -> None:
        with scope.entered(run), pytest.raises(scope.Stopped):
            collect(asked, events)

    with running(body) as (greenlet,):
        eventually(lambda: condition(events))
        began = time.monotonic()
        run.stop(None)
        greenlet.join(5)
        assert greenlet.ready()
    return time.monotonic() - began


def test_a_cancel_closes_the_upstreams_socket_before_the_run_has_ended(model: MakeModel) -> None:
    upstream = model([*text("It ")[:1], SILENCE])
    assert stopped_after(source(an_agent(), upstream), text_of, upstream) < 1
    eventually(lambda: upstream.gone == 1, 0.5)


def test_a_stream_that_closes_slowly_is_waited_for(model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    close = _whole_answers._Watched.aclose

    async def close_slowly(self: Any) -> None:
        await asyncio.sleep(0.1)
        await close(self)
        closed.append(True)

    monkeypatch.setattr(_whole_answers._Watched, "aclose", close_slowly)
    upstream = model([*text("It ")[:1], SILENCE])
    stopped_after(source(an_agent(), upstream), text_of, upstream)
    assert closed, "a receipt would say closed, and it was not"


def test_a_run_that_nobody_takes_further_is_left_at_once(model: MakeModel) -> None:
    upstream = model([*text(*(f"w{n} " for n in range(500)))[:500], SILENCE])
    batches = source(an_agent(), upstream).events(Prompt("", HI))
    while not text_of(next(batches)):
        pass
    gevent.sleep(0.3)  # so that it waits for whoever iterates
    began = time.monotonic()
    batches.close()
    assert time.monotonic() - began < 0.9
    eventually(lambda: upstream.gone == 1, 0.5)


def test_a_cancel_reaches_a_model_that_has_not_begun_to_answer(model: MakeModel) -> None:
    upstream = model([SILENCE])
    assert stopped_after(source(an_agent(), upstream), lambda _: upstream.asked, upstream) < 1
    eventually(lambda: upstream.gone == 1, 0.5)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_cancel_reaches_a_tool_where_it_waits(model: MakeModel, kind: str) -> None:
    begun, ended = [0], [0]

    def wait() -> str:
        begun[0] += 1
        try:
            scope.current().sleep(60)
        finally:
            ended[0] += 1
        return ""

    async def wait_there() -> str:
        begun[0] += 1
        try:
            await asyncio.sleep(60)
        finally:
            ended[0] += 1
        return ""

    tool = function_tool(wait if kind == "sync" else wait_there, name_override="wait")
    upstream = model(calls(("c1", "wait", "{}")))
    assert stopped_after(source(an_agent(tools=[tool]), upstream), lambda _: begun == [1], upstream) < 1
    eventually(lambda: ended == [1], 1)


def test_200_runs_at_once_do_not_mix(model: MakeModel) -> None:
    @function_tool
    async def echo(word: str) -> str:
        await asyncio.sleep(0.01)
        return word

    def answer(body: dict[str, Any]) -> Script:
        word = body["messages"][0]["content"]
        if body["messages"][-1]["role"] == "tool":
            return text(word, "=", body["messages"][-1]["content"])
        return calls(("c1", "echo", json.dumps({"word": word})))

    asked = source(an_agent(tools=[echo]), model(answer=answer))
    said: dict[int, str] = {}

    def one(n: int) -> None:
        said[n] = text_of(heard(asked, messages=[{"role": "user", "content": f"w{n}"}]))

    with running(*(lambda n=n: one(n) for n in range(200))):  # type: ignore[misc]
        pass
    assert said == {n: f"w{n}=w{n}" for n in range(200)}


def test_more_streams_than_a_client_has_by_default_are_open_at_once(model: MakeModel) -> None:
    upstream = model(answer=lambda _: [*text("It ")[:1], SILENCE])
    asked = source(an_agent(), upstream)
    runs = [scope.Scope() for _ in range(150)]

    def one(run: scope.Scope) -> None:
        with scope.entered(run), pytest.raises(scope.Stopped):
            collect(asked, [])

    with running(*(lambda run=run: one(run) for run in runs)):  # type: ignore[misc]
        try:
            eventually(lambda: len(upstream.asked) == 150, 20)
        finally:
            for run in runs:
                run.stop(None)
    eventually(lambda: upstream.gone == 150)


def test_only_agents_are_taken() -> None:
    assert agents.accepts(an_agent())
    assert not agents.accepts(add)
