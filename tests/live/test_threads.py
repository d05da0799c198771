"""Conversations through real workers: history, other workers, a killed worker, retention."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.contracts.redis_server import RedisServer
from tests.live.conftest import StartService
from tests.live.service import PATIENCE_SECONDS, Answer, Service, Upstream, wait_until
from tests.live.upstream import Script, contents


@pytest.fixture(params=["sqlite", "redis"])
def two_workers(
    request: pytest.FixtureRequest, start_service: StartService, tmp_path: Path
) -> Iterator[Service]:
    """Two workers that share a log, in a file and in a server."""
    if request.param == "sqlite":
        yield start_service(workers=2)
        return
    with RedisServer(tmp_path / "redis", "--appendonly", "yes") as server:
        service = start_service(workers=2, environment={"EVENTLOG_URL": server.url})
        yield service
        service.kill()


def prompt(script: Script) -> str:
    return f"<<{json.dumps(script)}>>"


def finished(service: Service, text: str, thread: str, **fields: Any) -> str:
    """Ask in a thread, wait for the end, and return the stream's id."""
    stream_id = service.create(text, thread=thread, **fields)
    to_its_end(service, stream_id)
    return stream_id


def to_its_end(service: Service, stream_id: str) -> None:
    with closing(service.follow(stream_id)) as reader:
        assert list(reader)[-1].is_last


def shown(service: Service, thread: str, query: str = "") -> list[dict[str, Any]]:
    answer = service.request("GET", f"/threads/{thread}{query}")
    assert answer.status == 200, answer
    turns: list[dict[str, Any]] = answer.json()["turns"]
    return turns


def states(service: Service, thread: str) -> list[str]:
    return [turn["answer"]["state"] for turn in shown(service, thread)]


def test_the_history_of_a_thread_reaches_the_upstream_from_any_worker(
    two_workers: Service, upstream: Upstream
) -> None:
    for number in range(6):  # by turns on one worker and the other
        finished(two_workers, prompt({"tokens": 3, "token": f"h{number}"}), "talk")
    last = upstream.log("h5")[-1]
    messages = last["body"]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 5 + ["user"]
    assert all(message["content"] == "w0 w1 w2 " for message in messages[1::2])
    assert [json.loads(message["content"][2:-2])["token"] for message in messages[::2]] == [
        f"h{number}" for number in range(6)
    ]
    assert len(shown(two_workers, "talk")) == 6


def test_of_questions_at_the_same_moment_two_workers_answer_one(
    two_workers: Service, upstream: Upstream
) -> None:
    before = upstream.stats()["requests"]
    answers: list[Answer] = []

    def ask(number: int) -> None:
        body = {"prompt": prompt({"tokens": 3, "first_ms": 1500}), "thread": "race"}
        answers.append(two_workers.request("POST", "/streams", body))

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert sorted(answer.status for answer in answers) == [201] + [409] * 7
    refusals = [answer.json()["error"] for answer in answers if answer.status == 409]
    assert {(error["code"], error["param"]) for error in refusals} == {("thread_busy", "thread")}
    wait_until(
        lambda: states(two_workers, "race") == ["completed"], PATIENCE_SECONDS, "the one question is answered"
    )
    assert upstream.stats()["requests"] == before + 1


def test_a_killed_worker_leaves_its_turn_interrupted_with_its_text(
    two_workers: Service, upstream: Upstream
) -> None:
    stream_id = two_workers.create(
        prompt({"tokens": 1000, "pace_ms": 50, "token": "killed"}), thread="cut", on_disconnect="continue"
    )
    wait_until(
        lambda: len(shown(two_workers, "cut")[0]["answer"]["text"]) > 20,
        PATIENCE_SECONDS,
        "some text is there",
    )
    two_workers.kill_worker()
    wait_until(
        lambda: two_workers.is_healthy() and states(two_workers, "cut") == ["interrupted"],
        PATIENCE_SECONDS,
        "the turn is interrupted",
    )
    (turn,) = shown(two_workers, "cut")
    assert turn["stream_id"] == stream_id
    assert turn["answer"]["error"]["type"] == "interrupted"
    assert turn["answer"]["error"]["partial"]
    assert re.fullmatch(r"(w\d+ )+", turn["answer"]["text"])
    again = two_workers.request("POST", "/streams", {"thread": "cut", "replaces": stream_id})
    assert again.status == 201, again
    two_workers.request("POST", f"/streams/{again.json()['stream_id']}/cancel")
    assert shown(two_workers, "cut")[0]["versions"] == [stream_id, again.json()["stream_id"]]


def test_answers_are_kept_when_the_service_was_down_longer_than_streams_last(
    start_service: StartService,
) -> None:
    environment = {"RETENTION_SECONDS": "1"}
    service = start_service(environment=environment)
    script: Script = {"tokens": 5}
    stream_id = finished(service, prompt(script), "kept")
    service.kill()
    service = start_service(environment=environment)
    wait_until(
        lambda: service.request("GET", f"/streams/{stream_id}").status == 410,
        PATIENCE_SECONDS,
        "the log forgot the stream",
    )
    (turn,) = shown(service, "kept")
    assert (turn["answer"]["state"], turn["answer"]["text"]) == ("completed", "".join(contents(script)))


def test_an_agent_and_a_model_hear_each_other_in_one_thread(start_service: StartService) -> None:
    """Each kind of runnable is told what another one answered, and what remembers is told it once."""
    service = start_service(
        environment={"RUNNABLES": None, "OPENAI_API_KEY": None, "OPENAI_BASE_URL": None, "MODEL": None}
    )
    for source in ("chat", "agent", "support", "tools", "agent"):
        finished(service, f"I ask {source}.", "mixed", source=source)
    turns = shown(service, "mixed")
    assert [turn["source"] for turn in turns] == ["chat", "agent", "support", "tools", "agent"]
    assert [turn["answer"]["state"] for turn in turns] == ["completed"] * 5
    assert all(turn["answer"]["text"] for turn in turns)


def test_an_interrupt_and_its_answer_are_turns_of_a_thread(start_service: StartService) -> None:
    service = start_service(
        environment={"RUNNABLES": None, "OPENAI_API_KEY": None, "OPENAI_BASE_URL": None, "MODEL": None}
    )
    finished(service, "Invite Ana", "letter", source="approval")
    body = {"source": "approval", "thread": "letter", "input": {"resume": "yes"}}
    stream_id = service.request("POST", "/streams", body).json()["stream_id"]
    to_its_end(service, stream_id)
    asked, answered = shown(service, "letter")
    assert asked["answer"]["finish_reason"] == "interrupt"
    assert [event["type"] for event in asked["answer"]["events"]][-1] == "interrupt"
    assert answered["prompt"] == "yes"
    assert "The letter was sent." in answered["answer"]["text"]
