"""The calls of one round: made together, each with its result, and what goes wrong in a tool."""

import json
from typing import Any

import gevent
import pytest
from gevent.event import Event as Flag
from pydantic import BaseModel

from streaming.events import ToolResult, encode
from streaming.runnables.tools import ToolError, ToolLoop
from tests.model_double import calls, text
from tests.tool_loops import MakeModel, add, heard, kinds, results, source

# Calls


def test_calls_of_one_round_are_made_together(model: MakeModel) -> None:
    both = [Flag(), Flag()]

    def meet(place: int) -> str:
        both[place].set()
        return "met" if both[1 - place].wait(5) else "alone"

    upstream = model(calls(("c1", "meet", '{"place": 0}'), ("c2", "meet", '{"place": 1}')), text("ok"))
    events = heard(source(ToolLoop([meet]), upstream))
    assert sorted(results(events)) == [("c1", "met", False), ("c2", "met", False)]


def test_results_are_told_as_they_come_and_to_the_model_in_the_order_of_its_calls(model: MakeModel) -> None:
    first_done = Flag()

    def wait(place: int) -> int:
        if place == 1:
            assert first_done.wait(5)
        else:
            first_done.set()
        return place

    upstream = model(calls(("c1", "wait", '{"place": 1}'), ("c2", "wait", '{"place": 2}')), text("ok"))
    events = heard(source(ToolLoop([wait]), upstream))
    assert [event.id for event in kinds(events, ToolResult)] == ["c2", "c1"]
    assert [said["tool_call_id"] for said in upstream.asked[1]["messages"][-2:]] == ["c1", "c2"]


def test_at_most_so_many_run_at_once(model: MakeModel) -> None:
    here, most = [0], [0]

    def work(n: int) -> int:
        here[0] += 1
        most[0] = max(most[0], here[0])
        gevent.sleep(0)
        here[0] -= 1
        return n

    many = calls(*((f"c{n}", "work", f'{{"n": {n}}}') for n in range(20)))
    events = heard(source(ToolLoop([work], at_once=3), model(many, text("ok"))))
    assert most == [3]
    assert sorted(result for _, result, _ in results(events)) == list(range(20))


def test_more_calls_than_anybody_means_are_not_made(model: MakeModel) -> None:
    made = []

    def work(n: int) -> None:
        made.append(n)

    many = calls(*((f"c{n}", "work", f'{{"n": {n}}}') for n in range(70)))
    upstream = model(many, text("ok"))
    events = heard(source(ToolLoop([work]), upstream))
    assert len(made) == 64
    assert len(results(events)) == 70
    assert sum(failed for *_, failed in results(events)) == 6
    assert len(upstream.asked[1]["messages"]) == 1 + 1 + 70, "every call must have its answer"


def test_async_functions_run_on_the_loop(model: MakeModel) -> None:
    async def slow_add(a: int) -> int:
        import asyncio

        await asyncio.sleep(0.01)
        return a + 1

    upstream = model(calls(("c1", "slow_add", '{"a": 1}'), ("c2", "slow_add", '{"a": 2}')), text("ok"))
    events = heard(source(ToolLoop([slow_add]), upstream))
    assert sorted(results(events)) == [("c1", 2, False), ("c2", 3, False)]


# What goes wrong in a tool is for the model to know


def test_what_a_tool_raises_is_told_by_its_name_alone(
    model: MakeModel, caplog: pytest.LogCaptureFixture
) -> None:
    def leak() -> str:
        raise ValueError("sk-secret")

    upstream = model(calls(("c1", "leak", "{}")), text("sorry"))
    events = heard(source(ToolLoop([leak]), upstream))
    assert results(events) == [("c1", "the tool failed: ValueError", True)]
    assert upstream.asked[1]["messages"][-1]["content"] == "the tool failed: ValueError"
    assert "a tool failed" in caplog.messages, "its developer must be able to find it"


def test_a_tool_can_say_what_the_model_should_know(model: MakeModel) -> None:
    def find(name: str) -> str:
        raise ToolError(f"nobody is called {name}")

    events = heard(source(ToolLoop([find]), model(calls(("c1", "find", '{"name": "X"}')), text("ok"))))
    assert results(events) == [("c1", "nobody is called X", True)]


def test_a_tool_that_exits_does_not_end_the_worker(model: MakeModel) -> None:
    def leave() -> None:
        raise SystemExit(1)

    events = heard(source(ToolLoop([leave]), model(calls(("c1", "leave", "{}")), text("ok"))))
    assert results(events) == [("c1", "the tool failed: SystemExit", True)]


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("add", '{"a": "x"}', "a: Input should be a valid integer"),
        ("add", "{}", "a: Field required"),
        ("add", '{"a": 1, "c": 2}', "c: Extra inputs are not permitted"),
        ("add", "[1]", "the arguments are not a JSON object"),
        ("add", '{"a": 1', "the arguments are not a JSON object"),
        ("subtract", "{}", "there is no such tool; there are: add"),
    ],
)
def test_a_wrong_call_is_not_made_and_the_model_is_told_why(
    model: MakeModel, name: str, arguments: str, told: str
) -> None:
    upstream = model(calls(("c1", name, arguments)), text("ok"))
    ((_, result, failed),) = results(heard(source(ToolLoop([add]), upstream)))
    assert failed
    assert result.startswith(told)
    sent = upstream.asked[1]["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert isinstance(json.loads(sent), dict), "some servers fail on arguments they cannot read"
    assert upstream.asked[1]["messages"][-1]["content"] == result


def test_a_tool_that_takes_too_long_is_given_up(model: MakeModel) -> None:
    ended = Flag()

    def sleep() -> None:
        try:
            gevent.sleep(60)
        finally:
            ended.set()

    upstream = model(calls(("c1", "sleep", "{}"), ("c2", "add", '{"a": 1}')), text("ok"))
    events = heard(source(ToolLoop([sleep, add], tool_seconds=0.1), upstream))
    assert sorted(results(events)) == [("c1", "the tool took too long", True), ("c2", 2, False)]
    assert ended.is_set(), "it still runs"


def test_a_call_without_an_id_gets_one(model: MakeModel) -> None:
    upstream = model(calls(("", "add", '{"a": 1}'), ("", "add", '{"a": 2}')), text("ok"))
    heard(source(ToolLoop([add]), upstream))
    ids = [call["id"] for call in upstream.asked[1]["messages"][1]["tool_calls"]]
    assert len(set(ids)) == 2
    assert all(ids)
    assert [said["tool_call_id"] for said in upstream.asked[1]["messages"][2:]] == ids


# Results


class City(BaseModel):
    name: str
    people: int


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("text", "text"),
        (None, "null"),
        ({"b": [1, 2.5, None]}, '{"b":[1,2.5,null]}'),
        (City(name="Brno", people=400_000), '{"name":"Brno","people":400000}'),
        ({3, 1, 2}, "[1,2,3]"),
        (float("nan"), "null"),
    ],
)
def test_whatever_a_tool_returns_is_told_as_json(model: MakeModel, returned: Any, told: str) -> None:
    def get() -> Any:
        return returned

    upstream = model(calls(("c1", "get", "{}")), text("ok"))
    heard(source(ToolLoop([get]), upstream))
    assert upstream.asked[1]["messages"][-1]["content"] == told


@pytest.mark.parametrize("returned", ["ž" * 1000, ["x" * 100] * 20, {"a": "x" * 5000}])
def test_a_result_that_is_too_long_is_cut_off_and_says_so(model: MakeModel, returned: Any) -> None:
    def get() -> Any:
        return returned

    upstream = model(calls(("c1", "get", "{}")), text("ok"))
    events = heard(source(ToolLoop([get], result_bytes=501), upstream))
    (result,) = kinds(events, ToolResult)
    assert result.truncated
    assert len(result.result.encode()) in (500, 501), "a character is cut in two, or it is not cut"
    assert upstream.asked[1]["messages"][-1]["content"] == f"{result.result}\n(cut off here)"


def test_a_cycle_a_surrogate_and_what_raises_when_it_is_read_end_no_run(model: MakeModel) -> None:
    def cycle() -> Any:
        found: list[Any] = []
        found.append(found)
        return found

    def half() -> str:
        return "\ud800"

    def odd() -> Any:
        class Odd:
            def __repr__(self) -> str:
                raise ValueError("sk-secret")

        return Odd()

    upstream = model(calls(*((name, name, "{}") for name in ("cycle", "half", "odd"))), text("ok"))
    events = heard(source(ToolLoop([cycle, half, odd]), upstream))
    assert len(results(events)) == 3
    assert [encode(event) for event in events]
    assert "sk-secret" not in str(events)
