"""Asking what was registered: natively, as a model of OpenAI's dialect, and as LangServe's clients do."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnableSerializable

from streaming import plugins
from streaming.eventlogs.memory import MemoryLog
from streaming.runnables import Registered
from streaming.runnables._declared import configurable_of
from streaming.streams import Streams
from streaming.web import _errors
from tests.doubles import parse_event_stream
from tests.web.conftest import FAST, Service, refused

pytestmark = pytest.mark.usefixtures("_keeps_here")


@pytest.fixture
def _keeps_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def registered(**found: Any) -> Iterator[Service]:
    """A service with these objects, of any kind."""
    runnables = {}
    for name, each in found.items():
        for kind in ("tools", "langchain", "langgraph"):
            module = plugins.load("runnables", kind)
            if module.accepts(each):
                source = module.create(each, FAST)
                runnables[name] = Registered(
                    name, kind, each, source, tuple(module.MODES), configurable_of(each)
                )
    log = MemoryLog()
    load = {name: each.source for name, each in runnables.items()}
    load["chat"] = plugins.create("sources", "chat", FAST)
    app = Flask(__name__)
    app.extensions["streams"] = streams = Streams(log, load.__getitem__, FAST, None, runnables)
    _errors.register(app)
    for name in plugins.names("web"):
        app.register_blueprint(plugins.create("web", name, streams, FAST))
    try:
        yield Service(app, lambda: len(log._streams))
    finally:
        streams.drain(0, 0)
        streams.close()


def shout(text: str) -> Iterator[str]:
    for word in str(text).split(" "):
        yield word.upper() + " "


def echo(value: Any) -> Any:
    return {"kind": type(value).__name__, "value": value}


class Greeting(RunnableSerializable[Any, str]):
    name: str = "nobody"

    def invoke(self, input: Any, config: Any = None, **more: Any) -> str:
        return f"hello {self.name}"


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    from examples.agent import agent
    from examples.tool_loop import assistant

    prompt = ChatPromptTemplate.from_messages([("human", "{topic}")])
    named = Greeting().configurable_fields(name=ConfigurableField(id="called"))

    def fail(value: Any) -> Any:
        raise ValueError("sk-a-secret")

    with registered(
        shout=RunnableLambda(shout),
        echo=RunnableLambda(echo),
        prompt=prompt,
        named=named,
        fail=RunnableLambda(fail),
        odd=RunnableLambda(
            lambda _: {"set": {1}, "lock": threading.Lock(), "nan": float("nan"), "line": "a\u2028b"}
        ),
        agent=agent,
        tools=assistant,
    ) as service:
        yield service


def post(service: Service, path: str, **body: Any) -> Any:
    return service.client.post(path, json=body)


def events_of(response: Any) -> list[tuple[str, Any]]:
    assert response.status_code == 200, response.text
    blocks = [block.split("\n") for block in response.text.split("\n\n") if block.strip()]
    told = []
    for lines in blocks:
        fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
        told.append((fields["event"], json.loads(fields["data"]) if fields.get("data") else None))
    return told


# Natively


def test_a_runnable_is_a_source_and_takes_its_own_input(shared: Service) -> None:
    stream_id = shared.finished(prompt=None, source="shout", input="one two")

    assert shared.snapshot(stream_id)["text"] == "ONE TWO "
    assert shared.snapshot(shared.finished(source="shout", prompt="say it"))["text"] == "SAY IT "


def test_get_stream_takes_a_source_and_a_thread(shared: Service) -> None:
    response = shared.client.get("/stream?source=shout&thread=t-1&prompt=one+two")

    text = "".join(
        json.loads(each.data).get("content", "") for each in parse_event_stream(response.data).heard
    )
    assert text == "ONE TWO "
    refused(
        shared.client.get("/stream?source=shout&thread=a%20b&prompt=x"),
        400,
        "invalid_request",
        param="thread",
    )


def test_a_snapshot_holds_the_results_of_tools_and_what_was_found(shared: Service) -> None:
    stream_id = shared.finished(source="tools", prompt="What is the weather in Oslo?")
    snapshot = shared.snapshot(stream_id)

    (result,) = snapshot["tool_results"]
    assert result["tool"] == "get_weather"
    assert result["result"]["degrees"] == 9
    assert (snapshot["sources"], snapshot["interrupts"]) == ([], [])


def test_modes_of_a_graph_are_told(shared: Service) -> None:
    stream_id = shared.finished(
        source="agent", prompt="What is the weather in Oslo?", mode=["updates", "values"]
    )
    told = [json.loads(each.data) for each in shared.follow(f"/streams/{stream_id}?format=native")]

    assert {each["mode"] for each in told if each["type"] == "state"} == {"updates", "values"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"source": "shout"}, "prompt"),
        ({"source": "shout", "prompt": "a", "input": "b"}, "prompt"),
        ({"source": "shout", "input": "b", "messages": [{"role": "user", "content": "a"}]}, "prompt"),
        ({"source": "shout", "input": None}, "prompt"),
        ({"source": "shout", "input": "b", "instructions": "c"}, "instructions"),
        ({"source": "shout", "input": "b", "continues": "st_x"}, "continues"),
        ({"source": "shout", "input": "b", "model": "demo"}, "model"),
        ({"source": "shout", "input": "b", "thread": ""}, "thread"),
        ({"source": "shout", "input": "b", "thread": "a/b"}, "thread"),
        ({"source": "shout", "input": "b", "thread": "a\n"}, "thread"),
        ({"source": "shout", "input": "b", "thread": "a" * 129}, "thread"),
        ({"source": "shout", "input": "b", "thread": 7}, "thread"),
        ({"source": "shout", "input": "b", "mode": "values"}, "mode"),
        ({"source": "shout", "input": "b", "mode": ["chunks", "chunks"]}, "mode"),
        ({"source": "shout", "input": "b", "mode": ["chunks", "events"]}, "mode"),
        ({"source": "shout", "input": "b", "mode": 7}, "mode"),
        ({"source": "tools", "input": "b", "mode": "events"}, "mode"),
        ({"source": "tools", "input": "b", "config": {"tags": []}}, "config"),
        ({"source": "shout", "input": "b", "config": []}, "config"),
        ({"source": "shout", "input": "b", "config": {"callbacks": []}}, "config.callbacks"),
        ({"source": "shout", "input": "b", "config": {"tags": "a"}}, "config.tags"),
        ({"source": "shout", "input": "b", "config": {"tags": [1]}}, "config.tags"),
        ({"source": "shout", "input": "b", "config": {"metadata": []}}, "config.metadata"),
        ({"source": "shout", "input": "b", "config": {"recursion_limit": 0}}, "config.recursion_limit"),
        ({"source": "shout", "input": "b", "config": {"recursion_limit": True}}, "config.recursion_limit"),
        ({"source": "shout", "input": "b", "config": {"configurable": {"x": 1}}}, "config.configurable.x"),
        (
            {"source": "shout", "input": "b", "config": {"configurable": {"__pregel_send": 1}}},
            "config.configurable.__pregel_send",
        ),
        (
            {"source": "shout", "input": "b", "config": {"configurable": {"thread_id": "a b"}}},
            "config.configurable.thread_id",
        ),
        ({"source": "chat", "prompt": "a", "input": "b"}, "input"),
        ({"source": "chat", "prompt": "a", "thread": "b c"}, "thread"),
        ({"source": "chat", "prompt": "a", "mode": "events"}, "mode"),
        ({"source": "chat", "prompt": "a", "config": {}}, "config"),
    ],
)
def test_what_a_runnable_cannot_be_asked_is_refused_by_name(
    shared: Service, body: dict[str, Any], param: str
) -> None:
    before = shared.count()

    refused(post(shared, "/streams", **body), 400, "invalid_request", param=param)
    assert shared.count() == before


def test_an_input_has_no_more_text_than_a_prompt_may_have(shared: Service) -> None:
    long = {"a": ["x" * 100_001], "y" * 100_000: 1}

    refused(post(shared, "/streams", source="shout", input=long), 413, "invalid_request", param="input")


def test_declared_fields_may_be_configured(shared: Service) -> None:
    answer = post(
        shared, "/runnables/named/invoke", input="x", config={"configurable": {"called": "Ana", "other": 1}}
    )

    # What others around it declare is sent along, and does not count.
    assert answer.json["output"] == "hello Ana"


# As a model of OpenAI's dialect


def test_a_runnable_is_a_model_to_clients_of_openai(shared: Service) -> None:
    listed = [model["id"] for model in shared.client.get("/v1/models").json["data"]]
    answer = post(
        shared, "/v1/chat/completions", model="shout", messages=[{"role": "user", "content": "one two"}]
    )

    assert {"shout", "agent", "tools"} <= set(listed)
    assert answer.status_code == 200, answer.text
    assert answer.json["model"] == "shout"
    assert answer.json["choices"][0]["message"]["content"] == "ONE TWO "
    assert shared.client.get("/v1/models/shout").json["id"] == "shout"


def test_a_runnable_answers_a_response_and_what_came_before_it(shared: Service) -> None:
    first = post(shared, "/v1/responses", model="shout", input="one two")
    second = post(
        shared, "/v1/responses", model="shout", input="three", previous_response_id=first.json["id"]
    )

    assert first.status_code == second.status_code == 200, first.text + second.text
    assert first.json["model"] == "shout"
    assert first.json["output"][-1]["content"][0]["text"] == "ONE TWO "
    assert second.json["output"][-1]["content"][0]["text"] == "THREE "
    assert shared.client.get(f"/v1/responses/{first.json['id']}").json["status"] == "completed"


# LangServe's dialect


def test_what_is_registered_is_listed_with_its_kind_modes_and_addresses(shared: Service) -> None:
    listed = {each["name"]: each for each in shared.client.get("/runnables").json["runnables"]}

    assert (listed["shout"]["kind"], listed["agent"]["kind"], listed["tools"]["kind"]) == (
        "langchain",
        "langgraph",
        "tools",
    )
    assert {"values", "events"} <= set(listed["agent"]["modes"])
    assert "stream_events" not in listed["tools"]["links"]
    for name in listed:
        for which in ("input", "output", "config"):
            assert "title" in shared.client.get(f"/runnables/{name}/{which}_schema").json, (name, which)
    refused(shared.client.get("/runnables/nope"), 404, "not_found", code="unknown_runnable")
    refused(shared.client.get("/runnables/shout/other_schema"), 404, "not_found")


def test_invoke_answers_with_the_output_and_the_id_of_the_run(shared: Service) -> None:
    answer = post(shared, "/runnables/shout/invoke", input="one two", config={}, kwargs={})

    assert answer.json["output"] == "ONE TWO "
    run_id = answer.json["metadata"]["run_id"]
    assert answer.headers["Stream-Id"] == run_id
    assert shared.snapshot(run_id)["text"] == "ONE TWO "


def test_batch_answers_in_the_order_of_the_inputs(shared: Service) -> None:
    inputs = [f"n {number}" for number in range(40)]

    answer = post(shared, "/runnables/shout/batch", inputs=inputs).json

    assert answer["output"] == [f"N {number} " for number in range(40)]
    assert len(set(answer["metadata"]["run_ids"])) == 40
    assert [each["run_id"] for each in answer["metadata"]["responses"]] == answer["metadata"]["run_ids"]
    assert post(shared, "/runnables/shout/batch", inputs=[]).json["output"] == []


def test_one_failure_in_a_batch_is_the_answer(shared: Service) -> None:
    refused(
        post(shared, "/runnables/prompt/batch", inputs=[{"topic": "a"}, {"no": 1}]), 400, "invalid_request"
    )


def test_stream_tells_the_run_its_chunks_and_the_end(shared: Service) -> None:
    response = post(shared, "/runnables/shout/stream", input="one two")
    run_id = response.headers["Stream-Id"]

    assert events_of(response) == [
        ("metadata", {"run_id": run_id}),
        ("data", "ONE "),
        ("data", "TWO "),
        ("end", None),
    ]
    # What has no chunks of its own streams its text.
    told = events_of(post(shared, "/runnables/tools/stream", input="What is the weather in Oslo?"))
    assert "get_weather" in "".join(data for event, data in told if event == "data")


def test_stream_events_tells_langchains_own_and_filters_them(shared: Service) -> None:
    told = events_of(post(shared, "/runnables/shout/stream_events", input="one"))
    names = [data["event"] for event, data in told if event == "data"]
    some = events_of(post(shared, "/runnables/shout/stream_events", input="one", include_types=["tool"]))
    other = events_of(post(shared, "/runnables/shout/stream_events", input="one", exclude_names=["shout"]))

    assert names[0] == "on_chain_start"
    assert names[-1] == "on_chain_end"
    assert told[-1] == some[-1] == ("end", None)
    assert len(some) == len(other) == 1
    refused(post(shared, "/runnables/tools/stream_events", input="x"), 404, "invalid_request")


def test_langchains_objects_in_an_input_are_made_by_their_type(shared: Service) -> None:
    message = HumanMessage("hi").model_dump()

    def kind(value: Any) -> str:
        found: str = post(shared, "/runnables/echo/invoke", input=value).json["output"]["kind"]
        return found

    assert kind(message) == "HumanMessage"
    assert kind(AIMessage("hi").model_dump()) == "AIMessage"
    assert kind(Document("hi").model_dump()) == "Document"
    assert kind({"type": "human"}) == "dict"
    assert kind({"type": ["human"], "content": "x"}) == "dict"
    assert (
        kind({"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {"command": "x"}}) == "dict"
    )


def test_messages_come_back_as_they_went_in(shared: Service) -> None:
    output = post(shared, "/runnables/echo/invoke", input=[HumanMessage("hi", id="1").model_dump()]).json[
        "output"
    ]

    assert HumanMessage.model_validate(output["value"][0]) == HumanMessage("hi", id="1")


def test_an_output_that_json_does_not_have_becomes_readable(shared: Service) -> None:
    answer = post(shared, "/runnables/odd/invoke", input="x")

    assert answer.json["output"]["set"] == [1]
    assert answer.json["output"]["nan"] is None
    assert "lock" in answer.json["output"]["lock"].lower()
    response = post(shared, "/runnables/odd/stream", input="x")
    assert "\u2028" not in response.text
    assert events_of(response)[1][1]["line"] == "a\u2028b"


def test_a_failure_is_told_by_its_class_alone(shared: Service) -> None:
    invoked = post(shared, "/runnables/fail/invoke", input="x")
    streamed = post(shared, "/runnables/fail/stream", input="x")

    for answer in (invoked, streamed):
        refused(answer, 502, "runnable_failed")
        assert "secret" not in answer.text


def test_an_input_that_does_not_fit_is_the_callers_fault(shared: Service) -> None:
    refused(post(shared, "/runnables/prompt/invoke", input={"other": 1}), 400, "invalid_request")


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("invoke", {}, 400, "input"),
        ("invoke", {"input": None}, 400, "input"),
        ("invoke", {"input": 1, "config": []}, 400, "config"),
        ("invoke", {"input": 1, "config": {"tags": [1]}}, 400, "config.tags"),
        (
            "invoke",
            {"input": 1, "config": {"configurable": {"thread_id": "/"}}},
            400,
            "config.configurable.thread_id",
        ),
        ("invoke", {"input": 1, "kwargs": {"stop": 1}}, 400, "kwargs.stop"),
        ("batch", {"inputs": "a"}, 400, "inputs"),
        ("batch", {"inputs": [1], "config": [{}, {}]}, 400, "config"),
        ("batch", {"inputs": [1] * 101}, 413, "inputs"),
        ("stream_events", {"input": 1, "include_names": "a"}, 400, "include_names"),
    ],
)
def test_bad_requests_of_langserves_dialect_are_refused_by_name(
    shared: Service, path: str, body: dict[str, Any], status: int, param: str | None
) -> None:
    before = shared.count()

    refused(shared.client.post(f"/runnables/shout/{path}", json=body), status, "invalid_request", param=param)
    assert shared.count() == before


@pytest.mark.parametrize(
    "given", [[1], [{"content": "x"}], [{"role": "x", "content": "y"}], 7, {"messages": 3}]
)
def test_what_is_no_conversation_is_refused_by_what_wants_one(shared: Service, given: Any) -> None:
    refused(post(shared, "/runnables/tools/invoke", input=given), 400, "invalid_request")


def test_the_same_request_under_the_same_key_is_one_run(shared: Service) -> None:
    ids = {
        shared.client.post(
            "/runnables/shout/invoke", json={"input": "once"}, headers={"Idempotency-Key": "k1"}
        ).json["metadata"]["run_id"]
        for _ in range(2)
    }

    assert len(ids) == 1


def test_another_sites_page_may_not_ask(shared: Service) -> None:
    answer = shared.client.post(
        "/runnables/shout/invoke", json={"input": "x"}, headers={"Origin": "http://evil"}
    )

    refused(answer, 403, "invalid_request", code="origin")
