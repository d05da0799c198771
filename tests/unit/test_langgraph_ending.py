"""A graph's run ends when it is told to, wherever it is; what it remembered stays whole."""

import asyncio
import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import MessagesState

from examples import agent, approval
from streaming.errors import SettingsError, UpstreamFailure
from streaming.events import Token, ToolCall
from streaming.runnables import _checkpoints, _clients, langgraph
from streaming.settings import Settings
from tests.doubles import eventually, text_of
from tests.graphs import Followed, Tool, Upstream, events_of, of_kind, one_node, prompt
from tests.unit.test_langgraph import KeepingSettings

# Seen in two full runs, never alone: the collector complained of an asynchronous generator of the SDK, of a
# request that was cancelled. Who leaves it behind was not found.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <async_generator object Response.aiter_raw"
    ":pytest.PytestUnraisableExceptionWarning"
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    made = KeepingSettings(demo_tokens_per_second=0, checkpoints_url=f"sqlite:///{tmp_path}/checkpoints.db")
    _clients.use(made)
    yield made
    _clients._in_use.clear()
    gc.collect()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = Upstream()
    yield made
    made.close()


def asking(upstream: Upstream, asynchronous: bool) -> Any:
    model = upstream.model()

    def ask(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def ask_later(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    return one_node(one_node(ask_later if asynchronous else ask))


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("thread", ["", "t"])
def test_a_cancel_closes_the_upstream_inside_a_node_of_a_subgraph(
    asynchronous: bool, thread: str, upstream: Upstream, settings: Settings
) -> None:
    source = langgraph.create(asking(upstream, asynchronous), settings)
    run = Followed(source, prompt(thread=thread))
    eventually(lambda: text_of(run.events) == "first")
    started = time.monotonic()
    run.scope.stop(None)
    run.greenlet.join(5)
    eventually(lambda: upstream.gone == 1)

    assert time.monotonic() - started < 1
    assert run.stopped is not None
    assert run.stopped.error is None


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_hundred_cancelled_at_once_let_go_of_all(
    asynchronous: bool, upstream: Upstream, settings: Settings
) -> None:
    source = langgraph.create(asking(upstream, asynchronous), settings)
    runs = [Followed(source, prompt()) for _ in range(100)]
    eventually(lambda: upstream.asked == 100, 30)
    for run in runs:
        run.scope.stop(None)
    eventually(lambda: upstream.gone == 100)
    eventually(lambda: all(run.greenlet.ready() for run in runs))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_closing_the_events_closes_the_upstream(
    asynchronous: bool, upstream: Upstream, settings: Settings
) -> None:
    batches = langgraph.create(asking(upstream, asynchronous), settings).events(prompt())
    for batch in batches:
        if of_kind(Token, batch):
            break
    started = time.monotonic()
    batches.close()
    eventually(lambda: upstream.gone == 1)
    assert time.monotonic() - started < 1


def test_code_that_waits_for_nothing_of_ours_is_left_behind_and_goes_no_further(settings: Settings) -> None:
    work = Tool()
    run = Followed(langgraph.create(work.graph(), settings), prompt())
    work.entered.wait(5)
    started = time.monotonic()
    run.scope.stop(None)
    run.greenlet.join(5)

    assert time.monotonic() - started < 1
    assert run.greenlet.ready()
    assert not work.finished
    work.let_go.set()
    eventually(lambda: work.finished)
    time.sleep(0.05)
    assert not work.went_on


def test_code_that_was_left_behind_starts_nothing_more(settings: Settings) -> None:
    work, started = Tool(), []
    next_step = RunnableLambda(lambda _: started.append("next"))

    def node(state: MessagesState) -> None:
        work.work(state)
        next_step.invoke({})

    run = Followed(langgraph.create(one_node(node), settings), prompt())
    work.entered.wait(5)
    run.scope.stop(None)
    run.greenlet.join(5)
    work.let_go.set()
    eventually(lambda: work.finished)
    time.sleep(0.05)
    assert started == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_answer_that_is_cut_off_is_a_fault(
    asynchronous: bool, upstream: Upstream, settings: Settings
) -> None:
    upstream.cut.set()
    with pytest.raises(UpstreamFailure):
        events_of(langgraph.create(asking(upstream, asynchronous), settings), prompt())
    assert upstream.asked == 1


def test_an_asynchronous_tool_is_cancelled(settings: Settings) -> None:
    from langchain.agents import create_agent

    begun: list[str] = []
    cancelled: list[str] = []

    @tool
    async def wait() -> str:
        """Wait."""
        begun.append("yes")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append("yes")
            raise
        return "never"

    source = langgraph.create(create_agent(approval.model, [wait]), settings)
    run = Followed(source, prompt("wait"))
    eventually(lambda: begun and of_kind(ToolCall, run.events))
    run.scope.stop(None)
    run.greenlet.join(2)

    assert cancelled == ["yes"]
    assert run.stopped is not None


def test_a_thread_goes_on_after_a_run_that_was_stopped_in_a_tool(settings: Settings) -> None:
    from langchain.agents import create_agent

    work = Tool()

    @tool
    def look() -> str:
        """Look."""
        work.work(None)
        return "seen"

    graph = create_agent(approval.model, [look])
    source = langgraph.create(graph, settings)
    run = Followed(source, prompt("look", thread="t"))
    work.entered.wait(5)
    run.scope.stop(None)
    run.greenlet.join(2)
    work.let_go.set()

    answer = text_of(events_of(source, prompt("look", thread="t")))
    assert "**look** answered: seen" in answer
    kept = source._with_checkpoints(True).get_state({"configurable": {"thread_id": "t"}})  # type: ignore[attr-defined]
    told = [message for message in kept.values["messages"] if message.type == "tool"]
    assert "not carried out" in told[0].text


# Checkpoints


def test_checkpoints_that_cannot_be_kept_name_the_setting(tmp_path: Path) -> None:
    for url in ("redis://x", "sqlite:///", f"sqlite:///{tmp_path}/none/x.db", "postgresql://127.0.0.1:1/x"):
        with pytest.raises(SettingsError, match="CHECKPOINTS_URL"):
            _checkpoints.saver(url)


def test_two_hundred_threads_at_once_are_kept_apart(settings: Settings) -> None:
    def count(state: MessagesState) -> Any:
        return {"messages": [AIMessage(f"{len(state['messages'])} {state['messages'][0].text}")]}

    source = langgraph.create(one_node(count), settings)
    for turn in (1, 3):
        runs = [Followed(source, prompt(f"p{number}", thread=f"t{number}")) for number in range(200)]
        eventually(lambda runs=runs: all(run.greenlet.ready() for run in runs), 60)
        assert [text_of(run.events) for run in runs] == [f"{turn} p{number}" for number in range(200)]


WORKER = """
from gevent import monkey; monkey.patch_all()
import os, sys
import gevent
from streaming.runnables import langgraph
from tests.graphs import events_of, one_node, prompt
from tests.doubles import text_of
from tests.unit.test_langgraph import KeepingSettings
from langchain_core.messages import AIMessage

settings = KeepingSettings(checkpoints_url=sys.argv[1])
def count(state):
    return {"messages": [AIMessage(str(len(state["messages"])))]}
source = langgraph.create(one_node(count), settings)
if sys.argv[2] == "fork":
    assert text_of(events_of(source, prompt(thread="parent"))) == "1"
    children = [os.fork() for _ in range(1)]
    if children == [0]:
        assert text_of(events_of(source, prompt(thread="parent"))) == "3"
        sys.exit(0)
    assert os.waitpid(children[0], 0)[1] == 0
    assert text_of(events_of(source, prompt(thread="parent"))) == "5"
else:
    said = []
    for turn in range(5):
        said += [gevent.spawn(events_of, source, prompt(thread=f"{sys.argv[2]}-{n}")) for n in range(10)]
        gevent.joinall(said, raise_error=True)
    assert [text_of(one.value) for one in said] == [str(1 + 2 * turn) for turn in range(5) for _ in range(10)]
    again = text_of(events_of(source, prompt(thread="shared")))
    print(again)
"""


def work(url: str, name: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WORKER, url, name],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_several_workers_keep_their_threads_in_one_file(tmp_path: Path) -> None:
    workers = [work(f"sqlite:///{tmp_path}/checkpoints.db", f"w{number}") for number in range(4)]
    for worker in workers:
        _, complaints = worker.communicate(timeout=100)
        assert worker.returncode == 0, complaints


def test_a_fork_opens_the_file_for_itself(tmp_path: Path) -> None:
    worker = work(f"sqlite:///{tmp_path}/checkpoints.db", "fork")
    _, complaints = worker.communicate(timeout=60)
    assert worker.returncode == 0, complaints


def test_an_agent_holds_no_thread_for_a_run(settings: Settings) -> None:
    before = len(os.listdir("/proc/self/task"))
    source = langgraph.create(agent.agent, settings)
    runs = [Followed(source, prompt("weather")) for _ in range(50)]
    eventually(lambda: any(run.events for run in runs))
    assert len(os.listdir("/proc/self/task")) <= before
    eventually(lambda: all(run.greenlet.ready() for run in runs), 30)
