"""The examples as they are registered by default, with the demo model, through gunicorn."""

import json
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langserve import RemoteRunnable

from tests.live import loops
from tests.live.service import PATIENCE_SECONDS, EventReader, Service, Upstream, text_of, wait_until

WEATHER = "What is the weather in Oslo?"
QUESTIONS: dict[str, Any] = {
    "explain": {"topic": "cursors"},
    "docs": "How do I resume a stream?",
    "history": "I am Ana",
    "agent": {"messages": [{"role": "user", "content": WEATHER}]},
    "approval": {"messages": [{"role": "user", "content": "Invite Ana"}]},
    "tools": WEATHER,
    "support": "Where is order 1001?",
}


def environment(directory: Path) -> dict[str, str | None]:
    return {
        "RUNNABLES": None,
        "CHECKPOINTS_URL": f"sqlite:///{directory}/checkpoints.db",
        "SESSIONS_PATH": f"{directory}/sessions.db",
        "HISTORY_FILE": f"{directory}/history.db",
        "DEMO_TOKENS_PER_SECOND": "150",
    }


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A fresh service without any setting of models or runnables."""
    directory = tmp_path_factory.mktemp("runnables")
    none = {"OPENAI_API_KEY": None, "OPENAI_BASE_URL": None, "MODEL": None}
    service = Service(directory, "", environment={**environment(directory), **none})
    yield service
    service.stop()


@pytest.fixture(scope="module")
def asking(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The same, whose models are those of the upstream that follows scripts."""
    directory = tmp_path_factory.mktemp("runnables-asking")
    service = Service(directory, upstream.base_url, environment=environment(directory))
    yield service
    service.stop()


def run(service: Service, source: str, **fields: Any) -> list[dict[str, Any]]:
    """Return all native events of a run."""
    body = {"source": source, **fields}
    with EventReader(service.port).open("/streams", method="POST", body=body) as reader:
        assert reader.status == 201 or reader.status == 200, reader.read_all()
        return [event.json() for event in reader]


def kinds(events: list[dict[str, Any]]) -> set[str]:
    return {event["type"] for event in events}


def said(events: list[dict[str, Any]]) -> str:
    return "".join(event["content"] for event in events if event["type"] == "token")


# Each example


@pytest.mark.parametrize("source", QUESTIONS)
def test_every_example_streams_its_answer(demo: Service, source: str) -> None:
    events = run(demo, source, input=QUESTIONS[source])

    tokens = [event for event in events if event["type"] == "token"]
    assert len(tokens) > 10
    assert events[-1]["type"] == "done"
    assert events[0]["source"] == source


def test_answers_from_documents_tell_their_sources(demo: Service) -> None:
    events = run(demo, "docs", prompt="How do I resume a stream?")

    (sources,) = [event for event in events if event["type"] == "sources"]
    assert sources["documents"]


@pytest.mark.parametrize("source", ["agent", "tools"])
def test_tools_are_called_and_their_results_told_before_the_answer(demo: Service, source: str) -> None:
    events = run(demo, source, prompt=WEATHER)

    order = [event["type"] for event in events if event["type"] in ("tool_call", "tool_result", "token")]
    assert order[:2] == ["tool_call", "tool_result"]
    (call,) = [event for event in events if event["type"] == "tool_call"]
    assert (call["tool"], call["handled"]) == ("get_weather", True)
    assert "9" in said(events)


def test_an_agent_of_openais_sdk_calls_its_tool(demo: Service) -> None:
    events = run(demo, "support", prompt="Where is order 1001?")

    assert {"tool_call", "tool_result", "token"} <= kinds(events)


def test_an_interrupt_ends_the_run_and_the_answer_goes_on_in_its_thread(demo: Service) -> None:
    first = run(demo, "approval", prompt="Invite Ana", thread="letter-1")
    (asked,) = [event for event in first if event["type"] == "interrupt"]
    second = run(demo, "approval", input={"resume": "yes"}, thread="letter-1")

    assert first[-1]["finish_reason"] == "interrupt"
    assert asked["value"]["question"] == "Send this letter?"
    assert "The letter was sent." in said(second)
    assert second[-1]["finish_reason"] == "stop"


def test_a_thread_is_remembered_and_others_are_not_told_of_it(demo: Service) -> None:
    run(demo, "history", prompt="I am Ana", thread="ana")
    run(demo, "history", prompt="I am Bo", thread="bo")
    kept = sqlite3.connect(Path(demo.log_file).parent / "history.db")
    try:
        rows = kept.execute("SELECT thread, messages FROM turns").fetchall()
    finally:
        kept.close()

    texts = {thread: str(messages) for thread, messages in rows}
    assert "I am Ana" in texts["ana"]
    assert "Ana" not in texts["bo"]


# Modes


def test_a_graph_tells_several_of_its_modes_at_once(demo: Service) -> None:
    modes = ["values", "updates", "tasks", "checkpoints", "debug"]
    events = run(demo, "agent", prompt=WEATHER, mode=modes, thread="modes-1")

    told = {event["mode"] for event in events if event["type"] == "state"}
    assert told == set(modes)
    updates = [event for event in events if event.get("mode") == "updates"]
    assert {"model", "tools"} <= {event.get("node") for event in updates}
    assert events[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize("source", ["explain", "docs", "agent"])
def test_langchains_events_are_told_natively(demo: Service, source: str) -> None:
    events = run(demo, source, input=QUESTIONS[source], mode="events")

    told = [event for event in events if event["type"] == "event"]
    assert told[0]["event"] == "on_chain_start"
    assert told[-1]["event"] == "on_chain_end"
    assert told[0]["run_id"] == told[-1]["run_id"]
    assert "on_chat_model_stream" in {event["event"] for event in told}


# As any other run


def test_an_agent_is_polled_and_heard_in_every_dialect(demo: Service) -> None:
    stream_id = demo.create(WEATHER, source="agent")
    text, cursor, state = "", "", "running"
    while state == "running":
        polled = demo.snapshot(stream_id, f"?wait=5&after={cursor}")
        text, cursor, state = text + polled["text"], polled["cursor"], polled["state"]

    assert state == "completed"
    whole = demo.request("GET", f"/streams/{stream_id}?format=openai_completion").json()
    assert whole["choices"][0]["message"]["content"] == text
    response = demo.request("GET", f"/v1/responses/resp_{stream_id.removeprefix('st_')}").json()
    assert response["status"] == "completed"
    asked = {"model": "agent", "messages": [{"role": "user", "content": WEATHER}]}
    answer = demo.request("POST", "/v1/chat/completions", asked).json()
    assert answer["choices"][0]["message"]["content"] == text


def test_a_reader_resumes_a_run_from_its_cursor(demo: Service) -> None:
    stream_id = demo.create(None, source="explain", input={"topic": "cursors"})  # type: ignore[arg-type]
    with demo.follow(stream_id) as reader:
        seen = reader.read(20)
    with demo.follow(stream_id, after=seen[-1].id) as reader:
        rest = list(reader)

    assert rest[-1].is_last
    assert text_of([*seen, *rest]) == demo.snapshot(stream_id)["text"]


def test_runs_at_once_do_not_mix(demo: Service) -> None:
    def ask(number: int) -> tuple[int, str]:
        source = ("explain", "agent", "tools", "support", "history")[number % 5]
        return number, said(run(demo, source, prompt=f"number {number} number"))

    with ThreadPoolExecutor(10) as pool:
        for number, text in pool.map(ask, range(20)):
            assert f"number {number} number" in text
            others = [other for other in range(20) if f"number {other} number" in text]
            assert others == [number]


@pytest.mark.parametrize("source", [name for name in QUESTIONS if name != "docs"])  # it embeds first
def test_a_cancel_closes_the_connection_to_the_model_at_once(
    asking: Service, upstream: Upstream, source: str
) -> None:
    token = f"cancel-{source}"
    script = json.dumps({"token": token, "tokens": 10_000, "pace_ms": 20})
    body: dict[str, Any] = {"prompt": f"please <<{script}>>"}
    stream_id = asking.create(source=source, **body)
    upstream.wait_for_request(token)
    with asking.follow(stream_id) as reader:
        reader.read_until("status")
        began = time.time()
        receipt = asking.request("POST", f"/streams/{stream_id}/cancel").json()
        assert receipt["state"] == "cancelled", receipt
        assert time.time() - began < 1.5
        upstream.wait_for_close(token, 1.0)
        assert list(reader)[-1].json()["finish_reason"] == "cancelled"


# LangServe's own client


def remote(service: Service, name: str) -> Any:
    return RemoteRunnable(f"{service.url}/runnables/{name}")


def asked(name: str) -> Any:
    """Return the question as a user of LangChain's classes asks it."""
    question = QUESTIONS[name]
    if isinstance(question, dict) and "messages" in question:
        return {"messages": [HumanMessage(message["content"]) for message in question["messages"]]}
    return question


@pytest.mark.parametrize("name", QUESTIONS)
def test_langserves_client_invokes_batches_and_streams(demo: Service, name: str) -> None:
    runnable, question = remote(demo, name), asked(name)

    output = runnable.invoke(question)
    outputs = runnable.batch([question, question])
    chunks = list(runnable.stream(question))

    match output:
        case {"messages": [*_, AIMessage() as last]}:
            assert last.content
            assert [each["messages"][-1].content for each in outputs] == [last.content] * 2
            assert all(isinstance(chunk, dict) for chunk in chunks)
        case AIMessage():
            assert "".join(chunk.content for chunk in chunks) == output.content
        case str():
            assert outputs == [output, output]
            assert "".join(chunks) == output


@pytest.mark.parametrize("name", ["explain", "docs", "history", "agent", "approval"])
def test_langserves_client_streams_events_from_asyncio(demo: Service, name: str) -> None:
    async def ask() -> tuple[Any, list[Any], list[Any], list[Any]]:
        runnable, question = remote(demo, name), asked(name)
        output = await runnable.ainvoke(question)
        outputs = await runnable.abatch([question])
        chunks = [chunk async for chunk in runnable.astream(question)]
        events = [event async for event in runnable.astream_events(question, include_types=["chat_model"])]
        return output, outputs, chunks, events

    output, outputs, chunks, events = loops.run(ask())

    assert type(outputs[0]) is type(output)
    assert chunks
    assert events[0]["event"] == "on_chat_model_start"
    assert events[-1]["event"] == "on_chat_model_end"
    assert {event["event"].split("_")[1] for event in events} == {"chat"}


def test_langserves_client_goes_on_after_an_interrupt_by_its_thread(demo: Service) -> None:
    runnable = remote(demo, "approval")
    config = {"configurable": {"thread_id": "letter-2"}}

    first = runnable.invoke(asked("approval"), config)
    second = runnable.invoke({"resume": "no"}, config)

    assert first["__interrupt__"][0]["value"]["question"] == "Send this letter?"
    assert second["messages"][-1].content == "Nothing was sent."


def test_langserves_client_hears_of_a_run_that_was_cancelled(asking: Service, upstream: Upstream) -> None:
    script = json.dumps({"token": "langserve-cancel", "tokens": 10_000, "pace_ms": 20})
    with EventReader(asking.port).open(
        "/runnables/explain/stream", method="POST", body={"input": {"topic": f"<<{script}>>"}}
    ) as reader:
        reader.read(3)
        asking.request("POST", f"/streams/{reader.headers['stream-id']}/cancel")
        last = list(reader)[-1]

    assert last.event == "error"
    assert last.json() == {"status_code": 499, "message": "the run was cancelled"}
    wait_until(
        lambda: upstream.log("langserve-cancel")[-1]["t_closed_by_peer"],
        PATIENCE_SECONDS,
        "the upstream is closed",
    )


# Who is there


def test_everything_is_listed_and_nothing_is_sent_elsewhere(demo: Service) -> None:
    listed = [each["name"] for each in demo.request("GET", "/runnables").json()["runnables"]]
    models = [each["id"] for each in demo.request("GET", "/v1/models").json()["data"]]

    assert listed == list(QUESTIONS)
    assert models == ["demo", *QUESTIONS]
