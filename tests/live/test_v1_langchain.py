"""LangChain's ChatOpenAI on ``/v1/chat/completions`` over real sockets.

It takes no ``reasoning_content`` of any server, by its own documentation; here
it must not be disturbed by it either.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import add
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from tests.live.service import Service, Upstream
from tests.live.v1 import MODEL, MURMURING, SILENCES, new_token, prompt

LEAVES_SECONDS = 2.0
Stream = Callable[..., list[AIMessageChunk]]
Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Trip(BaseModel):
    """A trip to a city."""

    city: str
    days: int


class weather(BaseModel):
    """Says what the weather is."""

    city: str
    days: int


def model_of(service: Service, **options: Any) -> ChatOpenAI:
    given: dict[str, Any] = {
        "base_url": f"{service.url}/v1",
        "api_key": "unused",
        "model": MODEL,
        "max_retries": 0,
        "timeout": 30,
        "use_responses_api": False,
    }
    return ChatOpenAI(**given | options)


def streamed(model: Any, asked: Any, leave_after: int = 10**9) -> list[AIMessageChunk]:
    heard: list[AIMessageChunk] = []
    stream = model.stream(asked)
    for chunk in stream:
        heard.append(chunk)
        if len(heard) >= leave_after:
            break
    stream.close()
    return heard


async def streamed_async(model: Any, asked: Any, leave_after: int = 10**9) -> list[AIMessageChunk]:
    heard: list[AIMessageChunk] = []
    stream: AsyncIterator[AIMessageChunk] = model.astream(asked)
    async for chunk in stream:
        heard.append(chunk)
        if len(heard) >= leave_after:
            break
    await stream.aclose()  # type: ignore[attr-defined]
    return heard


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Return what runs a coroutine on a loop that goes on, as an application's does.

    It is one for all tests, since LangChain keeps its connections for all models.
    """
    with asyncio.Runner() as runner, ThreadPoolExecutor(1) as aside:
        loop = runner.get_loop()
        aside.submit(loop.run_forever)
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result()
        loop.call_soon_threadsafe(loop.stop)


@pytest.fixture(params=["stream", "astream"])
def stream(request: pytest.FixtureRequest, run: Run) -> Stream:
    """Return what reads a model's stream."""
    if request.param == "stream":
        return streamed
    return lambda *asked, **how: run(streamed_async(*asked, **how))


@pytest.fixture(params=["invoke", "ainvoke"])
def invoke(request: pytest.FixtureRequest, run: Run) -> Callable[[Any, Any], Any]:
    """Return what asks a model for a whole answer."""
    if request.param == "invoke":
        return lambda model, asked: model.invoke(asked)
    return lambda model, asked: run(model.ainvoke(asked))


@pytest.fixture(scope="module")
def murmuring(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that says often that it is there, and asks its upstream once."""
    service = Service(tmp_path_factory.mktemp("murmuring"), upstream.base_url, environment=MURMURING)
    yield service
    service.stop()


def whole(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    return reduce(add, chunks)


def test_an_answer_is_streamed_piece_by_piece(service: Service, stream: Stream) -> None:
    chunks = stream(model_of(service), prompt(tokens=4))

    assert [chunk.content for chunk in chunks if chunk.content] == ["w0 ", "w1 ", "w2 ", "w3 "]
    assert whole(chunks).response_metadata["finish_reason"] == "stop"
    assert whole(chunks).usage_metadata is None, "nobody asked for it"
    assert chunks[-1].chunk_position == "last"


def test_usage_comes_on_request(service: Service, stream: Stream) -> None:
    usage = whole(stream(model_of(service, stream_usage=True), prompt(tokens=4))).usage_metadata

    assert usage is not None
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (7, 4, 11)


def test_an_answer_is_whole(service: Service, invoke: Callable[[Any, Any], AIMessage]) -> None:
    answer = invoke(model_of(service), prompt(tokens=3))

    assert answer.content == "w0 w1 w2 "
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] == 10


def test_tool_calls_are_complete_streamed(service: Service, stream: Stream) -> None:
    model = model_of(service).bind_tools([weather])

    check_calls(whole(stream(model, prompt(play="tools"))))


def test_tool_calls_are_complete_whole(service: Service, invoke: Callable[[Any, Any], AIMessage]) -> None:
    check_calls(invoke(model_of(service).bind_tools([weather]), prompt(play="tools")))


def check_calls(answer: AIMessage) -> None:
    assert [(call["id"], call["name"], call["args"]) for call in answer.tool_calls] == [
        ("call_1", "weather", {"city": "Paris", "days": 3}),
        ("call_2", "clock", {}),
    ]
    assert answer.invalid_tool_calls == []
    assert answer.response_metadata["finish_reason"] == "tool_calls"


def test_a_conversation_with_tool_results_reaches_the_upstream(service: Service, upstream: Upstream) -> None:
    @tool
    def look(city: str) -> str:
        """Look at a city."""
        return f"sunny in {city}"

    token = new_token()
    asked = prompt(tokens=2, token=token)
    call = {"id": "call_1", "name": "look", "args": {"city": "Köln"}, "type": "tool_call"}
    messages: list[Any] = [
        ("system", "Be short."),
        ("user", asked),
        AIMessage("", tool_calls=[call]),
        ToolMessage(look.invoke({"city": "Köln"}), tool_call_id="call_1"),
    ]

    model_of(service).bind_tools([look]).invoke(messages)

    (sent,) = upstream.log(token)
    assert [message["role"] for message in sent["body"]["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
    ]
    assert sent["body"]["messages"][3]["content"] == "sunny in Köln"
    assert sent["body"]["tools"][0]["function"]["name"] == "look"


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_structured_output_is_an_object(
    service: Service, upstream: Upstream, method: Any, invoke: Callable[[Any, Any], Trip]
) -> None:
    token = new_token()
    model = model_of(service).with_structured_output(Trip, method=method)

    trip = invoke(model, prompt(text='{"city": "Paris", "days": 3}', pieces=5, token=token))

    assert trip == Trip(city="Paris", days=3)
    assert upstream.log(token)[0]["body"]["response_format"]["type"] in ("json_schema", "json_object")


def test_structured_output_by_a_tool_is_an_object(
    service: Service, invoke: Callable[[Any, Any], weather]
) -> None:
    model = model_of(service).with_structured_output(weather, method="function_calling")

    assert invoke(model, prompt(play="tools")) == weather(city="Paris", days=3)


def test_structured_output_grows_while_it_is_streamed(service: Service, stream: Stream) -> None:
    model = model_of(service).with_structured_output(Trip.model_json_schema(), method="json_schema")

    grown: list[Any] = stream(model, prompt(text='{"city": "Paris", "days": 3}', pieces=7, pace_ms=5))

    assert grown[-1] == {"city": "Paris", "days": 3}
    assert len(grown) > 2


def test_reasoning_is_no_part_of_the_text(service: Service, stream: Stream) -> None:
    answer = whole(stream(model_of(service), prompt(play="reasoning", tokens=2)))

    assert answer.content == "w0 w1 "


def test_a_long_silence_with_heartbeats_disturbs_nothing(murmuring: Service, run: Run) -> None:
    model, asked = model_of(murmuring), prompt(**SILENCES)

    with ThreadPoolExecutor() as side_by_side:
        answers = [
            side_by_side.submit(way)
            for way in (
                lambda: whole(streamed(model, asked)),
                lambda: whole(run(streamed_async(model, asked))),
                lambda: model.invoke(asked),
            )
        ]

    assert [answer.result().content for answer in answers] == ["w0 w1 "] * 3


@pytest.mark.parametrize("play", ["stop", "cut", "neither", "stream_error"])
def test_an_answer_that_was_cut_off_is_an_error(murmuring: Service, stream: Stream, play: str) -> None:
    asked = prompt(play=play, tokens=4, after=2, pace_ms=100, first_ms=100)

    with pytest.raises(openai.APIError):
        stream(model_of(murmuring), asked)
    with pytest.raises(openai.InternalServerError):
        model_of(murmuring).invoke(asked)


def test_its_retries_under_a_key_pay_for_one_run(murmuring: Service, upstream: Upstream) -> None:
    token = new_token()
    model = model_of(murmuring, max_retries=2, default_headers={"Idempotency-Key": token})

    with pytest.raises(openai.InternalServerError):
        model.invoke(prompt(play="status", status=503, token=token))

    assert len(upstream.log(token)) == 1


def test_leaving_a_stream_ends_the_upstream(murmuring: Service, upstream: Upstream, stream: Stream) -> None:
    token = new_token()

    stream(model_of(murmuring), prompt(tokens=600, pace_ms=50, token=token), leave_after=3)
    left = time.monotonic()

    assert upstream.wait_for_close(token) - left < LEAVES_SECONDS


def test_giving_up_a_whole_answer_ends_the_upstream(
    murmuring: Service, upstream: Upstream, invoke: Callable[[Any, Any], AIMessage]
) -> None:
    token = new_token()

    with pytest.raises(openai.APITimeoutError):
        invoke(model_of(murmuring, timeout=1), prompt(first_ms=30_000, token=token))
    left = time.monotonic()

    assert upstream.wait_for_close(token) - left < LEAVES_SECONDS
