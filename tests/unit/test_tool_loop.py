"""A model and the functions it may call: rounds, results, faults, and what a reader is told."""

import json
import time
from collections.abc import Callable
from typing import Any, Literal

import gevent
import pytest
from gevent.event import Event as Flag

from examples import tool_loop
from streaming import scope
from streaming.errors import InvalidRequest, LimitExceeded, UpstreamTruncated
from streaming.eventlogs import Claim
from streaming.eventlogs.memory import MemoryLog
from streaming.events import Done, Event, Reasoning, Record, Start, ToolCall, ToolResult, Usage, encode
from streaming.formats import Wants
from streaming.formats.openai_chat import ChatFormat
from streaming.producer import Producers
from streaming.runnables.tools import ToolLoop
from streaming.sources import Prompt, Source
from tests.chunk_streams import chunk
from tests.doubles import all_events, ended, eventually, new_stream, running, text_of
from tests.model_double import SILENCE, USAGE, Script, calls, text
from tests.tool_loops import HI, MakeModel, add, collect, heard, kinds, source


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_the_demo_model_calls_two_tools_and_answers_with_their_results(
    api: Literal["chat", "responses"],
) -> None:
    def get_weather(city: str) -> dict[str, Any]:
        return {"city": city, "sunny": True}

    def get_time(zone: str) -> str:
        return "noon"

    events = heard(
        source(ToolLoop([get_weather, get_time], api=api)),
        messages=[{"role": "user", "content": "both weather and time"}],
    )
    assert {call.tool for call in kinds(events, ToolCall)} == {"get_weather", "get_time"}
    assert {result.tool for result in kinds(events, ToolResult)} == {"get_weather", "get_time"}
    assert '**get_weather** answered: {"city":"' in text_of(events)
    assert "**get_time** answered: noon" in text_of(events)
    assert isinstance(events[-1], Done)
    assert events[-1].finish_reason == "stop"


def test_the_example_answers_with_the_demo_model() -> None:
    events = heard(
        source(tool_loop.assistant),
        messages=[{"role": "user", "content": "both the weather and the time"}],
    )
    assert {result.tool for result in kinds(events, ToolResult)} == {"get_weather", "get_time"}
    assert kinds(events, Done)


def test_a_run_is_one_answer_with_the_text_and_the_usage_of_all_its_rounds(model: MakeModel) -> None:
    upstream = model(calls(("c1", "add", '{"a": 2}'), said="Let me see."), text("It is ", "3."))
    events = heard(source(ToolLoop([add]), upstream))
    assert text_of(events) == "Let me see.\n\nIt is 3."
    assert kinds(events, ToolCall) == [ToolCall("c1", "add", {"a": 2}, handled=True)]
    assert kinds(events, ToolResult) == [ToolResult("c1", "add", 3)]
    both = {name: 2 * count for name, count in USAGE.items()}
    assert kinds(events, Usage) == [Usage(both)]
    assert kinds(events, Done) == [Done("stop", both)]


def test_the_model_is_told_what_it_said_and_what_came_of_it(model: MakeModel) -> None:
    upstream = model(calls(("c1", "add", '{"a": 2, "b": 2}'), ("c2", "add", '{"a": 1}')), text("4"))
    heard(source(ToolLoop([add], instructions="Be brief."), upstream), params={"tool_choice": "required"})
    first, second = upstream.asked
    assert first["messages"] == [{"role": "system", "content": "Be brief."}, *HI]
    assert first["tool_choice"] == "required"
    assert "tool_choice" not in second, "the model would call tools for ever"
    assert first["tools"] == second["tools"]
    assert second["messages"][2:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":2,"b":2}'}},
                {"id": "c2", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "4"},
        {"role": "tool", "tool_call_id": "c2", "content": "2"},
    ]


def test_a_client_of_openai_hears_one_answer_without_calls_it_would_have_to_make(model: MakeModel) -> None:
    upstream = model(calls(("c1", "add", '{"a": 2}'), said="Let me see."), text("It is 3."))
    format_ = ChatFormat(Wants(usage=True))
    events = [Start("st_1", "tools", "m", 0), *heard(source(ToolLoop([add]), upstream))]
    told = [
        message.data
        for seq, event in enumerate(events, 1)
        for message in format_.encode(Record(1, seq, encode(event)))
    ]
    assert told[-1] == b"[DONE]"
    chunks = [json.loads(data) for data in told[:-1]]
    deltas = [choice["delta"] for each in chunks for choice in each["choices"]]
    assert not any("tool_calls" in delta for delta in deltas)
    assert "".join(delta.get("content") or "" for delta in deltas) == "Let me see.\n\nIt is 3."
    reasons = [choice["finish_reason"] for each in chunks for choice in each["choices"]]
    assert [reason for reason in reasons if reason] == ["stop"]
    assert [each["usage"]["total_tokens"] for each in chunks if each.get("usage")] == [30]


def test_reasoning_goes_back_to_the_server_that_has_it(model: MakeModel) -> None:
    thinks = chunk({"reasoning_content": "hm"})
    upstream = model([thinks, *calls(("c1", "add", '{"a": 2}'))], text("3"))
    events = heard(source(ToolLoop([add]), upstream))
    assert kinds(events, Reasoning) == [Reasoning("hm")]
    assert upstream.asked[1]["messages"][1]["reasoning_content"] == "hm"


@pytest.mark.parametrize("first", [True, False])
def test_what_a_server_has_beside_a_call_goes_back_to_it(model: MakeModel, first: bool) -> None:
    signed = {"extra_content": {"google": {"thought_signature": "xyz"}}}
    function = {"name": "add", "arguments": '{"a": 2}'}
    call = chunk(
        {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": function} | signed]}
    )
    upstream = model([*([] if first else [chunk({"role": "assistant"})]), call, *text()], text("3"))
    heard(source(ToolLoop([add]), upstream))
    (sent,) = upstream.asked[1]["messages"][1]["tool_calls"]
    assert sent["extra_content"] == signed["extra_content"]
    assert sent["id"] == "c1"


@pytest.mark.parametrize(
    "odd",
    [
        {**chunk(), "choices": [{"index": 1, "delta": "x"}, {"index": 2}]},
        {**chunk(), "choices": [{"index": 1, "delta": {"tool_calls": ["x", {"id": 7, "a": 1}]}}]},
        {**chunk(), "choices": [], "usage": {"total_tokens": 2**63 - 1, "x": [1], "prompt_tokens": "x"}},
    ],
)
def test_a_server_that_lies_ends_no_run_with_a_fault_of_ours(model: MakeModel, odd: dict[str, Any]) -> None:
    upstream = model([odd, *calls(("c1", "add", '{"a": 2}'))[:-2], odd], [odd, *text("3")[:-2], odd])
    events = heard(source(ToolLoop([add]), upstream))
    assert [encode(event) for event in events]
    assert text_of(events) == "3"


def test_a_model_that_never_stops_calling_is_stopped(model: MakeModel) -> None:
    upstream = model(answer=lambda _: calls(("c1", "add", '{"a": 2}')))
    events: list[Event] = []
    with pytest.raises(LimitExceeded, match="round 3") as raised:
        collect(source(ToolLoop([add], rounds=3), upstream), events)
    assert raised.value.code == "rounds"
    assert len(upstream.asked) == 3
    assert len(kinds(events, ToolResult)) == 2, "the last calls were for nothing"
    assert kinds(events, Usage)[-1].usage["total_tokens"] == 45, "what was used must be told"
    assert len({call.id for call in kinds(events, ToolCall)}) == 2, "two calls have one id"


def test_calls_that_were_cut_off_are_not_made(model: MakeModel) -> None:
    upstream = model(calls(("c1", "add", '{"a": 2'), finish="length"))
    events = heard(source(ToolLoop([add]), upstream))
    assert not kinds(events, ToolCall, ToolResult)
    assert kinds(events, Done)[0].finish_reason == "length"


def test_an_answer_that_is_cut_off_in_a_later_round_fails_the_run(model: MakeModel) -> None:
    upstream = model(calls(("c1", "add", '{"a": 2}')), text("It is")[:1])
    events: list[Event] = []
    with pytest.raises(UpstreamTruncated):
        collect(source(ToolLoop([add]), upstream), events)
    assert text_of(events) == "It is"
    assert kinds(events, Usage) == [Usage(USAGE)]


@pytest.mark.parametrize("params", [{"tools": [{"type": "function"}]}, {"n": 2}])
def test_a_request_with_tools_of_its_own_is_refused_by_field(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as raised:
        heard(source(ToolLoop([add])), params=params)
    assert raised.value.param == f"params.{next(iter(params))}"


@pytest.mark.parametrize("given", ["hi", HI, {"messages": HI}])
def test_an_input_is_a_text_or_messages(model: MakeModel, given: Any) -> None:
    upstream = model(text("hello"))
    heard(source(ToolLoop([add]), upstream), messages=[], input=given)
    assert upstream.asked[0]["messages"] == HI


@pytest.mark.parametrize("given", [7, [], ["hi"]])
def test_another_input_is_refused(given: Any) -> None:
    with pytest.raises(InvalidRequest, match="input"):
        heard(source(ToolLoop([add])), messages=[], input=given)


# Stopping


def run_until(asked: Source, run: scope.Scope, events: list[Event]) -> Callable[[], None]:
    def body() -> None:
        with scope.entered(run), pytest.raises(scope.Stopped):
            collect(asked, events)

    return body


def test_a_cancel_closes_the_upstreams_socket_at_once(model: MakeModel) -> None:
    upstream = model(calls(("c1", "add", '{"a": 1}')), [*text("It ")[:1], SILENCE])
    run, events = scope.Scope(), list[Event]()
    with running(run_until(source(ToolLoop([add]), upstream), run, events)):
        eventually(lambda: text_of(events) == "It ")
        stopped = time.monotonic()
        run.stop(None)
        eventually(lambda: upstream.gone == 1)
    assert time.monotonic() - stopped < 1
    assert kinds(events, Usage) == [Usage(USAGE)], "the first round is paid for"


def test_a_cancel_ends_tools_where_they_wait(model: MakeModel) -> None:
    begun, ended = [0], [0]

    def sleep() -> None:
        begun[0] += 1
        try:
            gevent.sleep(60)
        finally:
            ended[0] += 1

    async def sleep_there() -> None:
        import asyncio

        begun[0] += 1
        try:
            await asyncio.sleep(60)
        finally:
            ended[0] += 1

    upstream = model(calls(("c1", "sleep", "{}"), ("c2", "sleep_there", "{}")))
    run, events = scope.Scope(), list[Event]()
    with running(run_until(source(ToolLoop([sleep, sleep_there]), upstream), run, events)):
        eventually(lambda: begun == [2])
        stopped = time.monotonic()
        run.stop(None)
        eventually(lambda: ended == [2])
    assert time.monotonic() - stopped < 1
    assert not kinds(events, ToolResult)


def test_a_tool_may_take_longer_than_the_model_may_be_silent(model: MakeModel) -> None:
    def work() -> str:
        gevent.sleep(1.0)
        return "done"

    def check_deadlines() -> None:
        while not kinds(events, Done):
            run.check_deadlines(time.monotonic())
            gevent.sleep(0.01)

    def listen() -> None:
        with scope.entered(run):
            collect(source(ToolLoop([work]), upstream), events)

    upstream = model(calls(("c1", "work", "{}")), text("ok"))
    run, events = scope.Scope(), list[Event]()
    with running(listen, check_deadlines):
        pass
    assert [result.result for result in kinds(events, ToolResult)] == ["done"]


def test_a_run_that_is_left_early_leaves_nothing_behind(model: MakeModel) -> None:
    ended = Flag()

    def sleep() -> None:
        try:
            gevent.sleep(60)
        finally:
            ended.set()

    def quick() -> str:
        return "ok"

    events = source(
        ToolLoop([sleep, quick]), model(calls(("c1", "sleep", "{}"), ("c2", "quick", "{}")))
    ).events(Prompt("", HI))
    for batch in events:
        if kinds(batch, ToolResult):
            break
    events.close()
    assert ended.is_set()


def test_200_runs_at_once_do_not_mix(model: MakeModel) -> None:
    def echo(word: str) -> str:
        gevent.sleep(0.01)
        return word

    def answer(body: dict[str, Any]) -> Script:
        word = body["messages"][0]["content"]
        if body["messages"][-1]["role"] == "tool":
            return text(word, "=", body["messages"][-1]["content"])
        return calls(("c1", "echo", json.dumps({"word": word})))

    asked = source(ToolLoop([echo]), model(answer=answer))
    said: dict[int, str] = {}

    def one(n: int) -> None:
        said[n] = text_of(heard(asked, messages=[{"role": "user", "content": f"w{n}"}]))

    with running(*(lambda n=n: one(n) for n in range(200))):  # type: ignore[misc]
        pass
    assert said == {n: f"w{n}=w{n}" for n in range(200)}


def test_a_cancelled_run_says_in_the_log_what_it_used(
    model: MakeModel, producers: Producers, log: MemoryLog
) -> None:
    upstream = model(calls(("c1", "add", '{"a": 1}')), [*text("It ")[:1], SILENCE])
    stream_id = log.create(new_stream(log, producers.worker_id), [encode(Start("st", "tools", "m", 0))])
    asked = source(ToolLoop([add]), upstream)
    producers.start(Claim(stream_id, 1), 1, asked, Prompt("", HI), "continue")
    eventually(lambda: text_of(all_events(log, stream_id)))
    producers.cancel(stream_id, timeout=2)
    assert ended(log, stream_id) == "cancelled"
    last = all_events(log, stream_id)[-1]
    assert isinstance(last, Done)
    assert (last.finish_reason, last.usage) == ("cancelled", USAGE)


# Responses


def item(said: dict[str, Any]) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": 0, "item": said}


def completed(*output: dict[str, Any]) -> dict[str, Any]:
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    return {"type": "response.completed", "response": {"output": list(output), "usage": usage}}


def test_a_server_of_responses_is_sent_its_own_items_back(model: MakeModel) -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "add", "arguments": '{"a": 2}'}
    sealed = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "xyz"}
    unsealed = {"type": "reasoning", "id": "rs_2", "summary": []}
    says_3 = {"type": "response.output_text.delta", "item_id": "m", "delta": "3"}
    upstream = model(
        [*(item(each) for each in (sealed, unsealed, call)), completed(call)],
        [says_3, completed()],
    )
    events = heard(source(ToolLoop([add], api="responses"), upstream), params={"reasoning_effort": "low"})
    assert upstream.paths == ["/v1/responses"] * 2
    assert text_of(events) == "3"
    assert kinds(events, ToolResult) == [ToolResult("c1", "add", 3)]
    assert kinds(events, Done)[0].usage["total_tokens"] == 30
    first, second = upstream.asked
    assert first["include"] == ["reasoning.encrypted_content"]
    assert second["input"][: len(first["input"])] == first["input"]
    assert second["input"][len(first["input"]) :] == [
        sealed,
        {**call, "arguments": '{"a":2}'},
        {"type": "function_call_output", "call_id": "c1", "output": "3"},
    ]


def test_a_call_that_the_models_server_made_is_not_made_again(model: MakeModel) -> None:
    made = {"type": "mcp_call", "id": "mcp_1", "name": "add", "arguments": '{"a": 2}', "output": "3"}
    upstream = model([item(made), completed(made)])
    events = heard(source(ToolLoop([add], api="responses"), upstream))
    assert kinds(events, ToolCall) == [ToolCall("mcp_1", "add", {"a": 2}, handled=True)]
    assert not kinds(events, ToolResult)
    assert kinds(events, Done)[0].finish_reason == "stop"
