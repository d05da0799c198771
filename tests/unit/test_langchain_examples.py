"""The examples that a user would copy do what they say, with the demo model."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples import chain, history, rag
from streaming.events import Done, Event, Sources, Token
from streaming.runnables import _clients
from streaming.runnables.langchain import create
from streaming.settings import Settings
from streaming.sources import Prompt
from tests.doubles import text_of

DEMO = Settings(demo_tokens_per_second=0)


@pytest.fixture(autouse=True)
def _own_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(history, "FILE", str(tmp_path / "history.db"))
    _clients.use(DEMO)


def ask(runnable: Any, text: str, thread: str = "") -> list[Event]:
    prompt = Prompt("demo", [{"role": "user", "content": text}], thread=thread)
    return [event for batch in create(runnable, DEMO).events(prompt) for event in batch]


def test_the_chain_streams_its_answer() -> None:
    events = ask(chain.chain, "cursors")

    assert text_of(events).startswith("> cursors")
    assert sum(isinstance(event, Token) for event in events) > 50
    assert isinstance(events[-1], Done)


def test_a_conversation_is_remembered_by_its_thread_alone() -> None:
    ask(history.chain, "ping", "one")
    ask(history.chain, "hello", "one")
    ask(history.chain, "ping", "two")
    ask(history.chain, "ping")

    assert [message.text[:6] for message in history.remembered("one")] == ["ping", "pong", "hello", "Hello!"]
    assert len(history.remembered("two")) == 2
    assert history.remembered("") == []


def test_the_model_is_told_what_was_said_before() -> None:
    used = []
    for _ in range(2):
        last = ask(history.chain, "ping", "one")[-1]
        assert isinstance(last, Done)
        assert last.usage
        used.append(last.usage["prompt_tokens"])

    assert used[1] == used[0] + 2  # the question and the answer before it, a token each


def test_another_process_remembers_too() -> None:
    ask(history.chain, "ping", "one")
    look = (
        "import sys; from examples import history; history.FILE = sys.argv[1];"
        "print([message.text for message in history.remembered('one')])"
    )

    said = subprocess.run(
        [sys.executable, "-c", look, history.FILE], capture_output=True, text=True, check=True
    )

    assert said.stdout.strip() == "['ping', 'pong']"


def test_a_turn_that_was_left_is_not_remembered() -> None:
    prompt = Prompt("demo", [{"role": "user", "content": "a long answer"}], thread="one")
    batches = create(history.chain, Settings(demo_tokens_per_second=50)).events(prompt)
    while not any(isinstance(event, Token) for event in next(batches)):
        pass

    batches.close()

    assert history.remembered("one") == []


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("How do I resume a stream?", "Resuming"),
        ("How can I stop a run?", "Cancelling"),
        ("Which formats are there?", "Formats"),
        ("Can several machines share a log?", "Stores"),
        ("How are my LangGraph graphs registered?", "Runnables"),
        ("Does my program for the OpenAI API work?", "OpenAI"),
    ],
)
def test_the_answer_rests_on_the_text_that_tells_it(question: str, title: str) -> None:
    events = ask(rag.chain, question)

    place, sources = next((at, event) for at, event in enumerate(events) if isinstance(event, Sources))
    assert sources.documents[0].title == title
    assert sources.documents[0].score
    assert not any(isinstance(event, Token) for event in events[:place])
    assert text_of(events).startswith(f"> {question}")
