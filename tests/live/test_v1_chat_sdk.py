"""OpenAI's Python SDK, both of its clients, on ``/v1/chat/completions`` over real sockets."""

import abc
import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import openai
import pytest
from pydantic import BaseModel

from tests.live import loops
from tests.live.conftest import StartService
from tests.live.service import EventReader, Service, Upstream, text_of
from tests.live.upstream import LEAK
from tests.live.v1 import MODEL, MURMURING, SILENCES, chunks_of, messages, new_token, only_stream_of, prompt

LEAVES_SECONDS = 2.0
"""How long the upstream may still be busy after its client has left."""


class Trip(BaseModel):
    city: str
    days: int


TRIP = '{"city": "Paris", "days": 3}'
TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}


class Heard(NamedTuple):
    """What a client got before it ended, one way or the other."""

    chunks: list[dict[str, Any]]
    headers: dict[str, str]
    error: openai.APIError | None = None

    @property
    def text(self) -> str:
        choices = [choice for chunk in self.chunks for choice in chunk["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


class Client(abc.ABC):
    """One way of using the SDK; each call is a client of its own."""

    def __init__(self, service: Service, **options: Any) -> None:
        self._options: dict[str, Any] = {
            "base_url": f"{service.url}/v1",
            "api_key": "unused",
            "max_retries": 0,
            "timeout": 30,
        } | options

    @abc.abstractmethod
    def stream(self, leave_after: float = float("inf"), **body: Any) -> Heard:
        """Read a stream to its end, or leave after so many chunks."""

    @abc.abstractmethod
    def whole(self, **body: Any) -> dict[str, Any]: ...

    @abc.abstractmethod
    def helper(self, **body: Any) -> tuple[list[str], Any]:
        """Return the events' types and the final completion of the ``.stream()`` helper."""

    @abc.abstractmethod
    def parse(self, **body: Any) -> Any: ...


class SyncClient(Client):
    @contextlib.contextmanager
    def _completions(self) -> Iterator[Any]:
        with openai.OpenAI(**self._options) as client:
            yield client.chat.completions

    def stream(self, leave_after: float = float("inf"), **body: Any) -> Heard:
        heard = Heard([], {})
        try:
            with (
                self._completions() as completions,
                completions.create(model=MODEL, stream=True, **body) as stream,
            ):
                heard.headers.update(stream.response.headers)
                for chunk in stream:
                    heard.chunks.append(chunk.to_dict())
                    if len(heard.chunks) >= leave_after:
                        break
        except openai.APIError as error:
            return heard._replace(error=error)
        return heard

    def whole(self, **body: Any) -> dict[str, Any]:
        with self._completions() as completions:
            found: dict[str, Any] = completions.create(model=MODEL, **body).to_dict()
        return found

    def helper(self, **body: Any) -> tuple[list[str], Any]:
        with self._completions() as completions, completions.stream(model=MODEL, **body) as stream:
            types = [event.type for event in stream]
            return types, stream.get_final_completion()

    def parse(self, **body: Any) -> Any:
        with self._completions() as completions:
            return completions.parse(model=MODEL, **body)


class AsyncClient(Client):
    @contextlib.asynccontextmanager
    async def _completions(self) -> AsyncIterator[Any]:
        async with openai.AsyncOpenAI(**self._options) as client:
            yield client.chat.completions

    def stream(self, leave_after: float = float("inf"), **body: Any) -> Heard:
        heard = Heard([], {})

        async def read() -> None:
            async with (
                self._completions() as completions,
                await completions.create(model=MODEL, stream=True, **body) as stream,
            ):
                heard.headers.update(stream.response.headers)
                async for chunk in stream:
                    heard.chunks.append(chunk.to_dict())
                    if len(heard.chunks) >= leave_after:
                        break

        try:
            loops.run(read())
        except openai.APIError as error:
            return heard._replace(error=error)
        return heard

    def whole(self, **body: Any) -> dict[str, Any]:
        async def ask() -> dict[str, Any]:
            async with self._completions() as completions:
                found: dict[str, Any] = (await completions.create(model=MODEL, **body)).to_dict()
                return found

        return loops.run(ask())

    def helper(self, **body: Any) -> tuple[list[str], Any]:
        async def ask() -> tuple[list[str], Any]:
            async with (
                self._completions() as completions,
                completions.stream(model=MODEL, **body) as stream,
            ):
                types = [event.type async for event in stream]
                return types, await stream.get_final_completion()

        return loops.run(ask())

    def parse(self, **body: Any) -> Any:
        async def ask() -> Any:
            async with self._completions() as completions:
                return await completions.parse(model=MODEL, **body)

        return loops.run(ask())


@pytest.fixture(params=[SyncClient, AsyncClient], ids=["sync", "async"])
def use(request: pytest.FixtureRequest) -> Callable[..., Client]:
    """Return what makes a client: ``use(service, **options)``."""
    kind: Callable[..., Client] = request.param
    return kind


# What it says


@pytest.mark.parametrize(
    "script",
    [
        {"tokens": 5},
        {"play": "tools"},
        {"play": "reasoning", "tokens": 3},
        {"play": "logprobs", "tokens": 3},
        {"play": "unknown", "tokens": 3},
        {"play": "two_choices", "tokens": 3},
        {"text": "a\nb\u2028\u0085\u2029 data: x\n\n é\N{GRINNING FACE}", "pieces": 6},
    ],
    ids=lambda script: script.get("play", "text" if "text" in script else "ok"),
)
def test_the_sdk_hears_each_chunk_as_it_was(
    service: Service, use: Callable[..., Client], script: dict[str, Any]
) -> None:
    asked = {"messages": messages(token=new_token(), **script), "stream_options": {"include_usage": True}}

    heard = use(service).stream(**asked)

    assert heard.error is None
    assert heard.chunks == chunks_of(service.port, **asked)


def test_a_whole_answer_is_a_completion(service: Service, use: Callable[..., Client]) -> None:
    whole = use(service).whole(messages=messages(tokens=3))

    assert whole["object"] == "chat.completion"
    (choice,) = whole["choices"]
    assert choice["message"]["content"] == "w0 w1 w2 "
    assert choice["finish_reason"] == "stop"
    assert whole["usage"]["total_tokens"] == 10


def test_tool_calls_are_complete_streamed_and_whole(service: Service, use: Callable[..., Client]) -> None:
    asked = {"messages": messages(play="tools"), "tools": [TOOL]}

    types, final = use(service).helper(**asked)
    whole = use(service).whole(**asked)

    expected = [("call_1", "weather", {"city": "Paris", "days": 3}), ("call_2", "clock", {})]
    (choice,) = final.choices
    calls = [
        (call.id, call.function.name, json.loads(call.function.arguments))
        for call in choice.message.tool_calls
    ]
    assert calls == expected
    assert types.count("tool_calls.function.arguments.done") == 2
    assert choice.finish_reason == whole["choices"][0]["finish_reason"] == "tool_calls"
    assert [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in whole["choices"][0]["message"]["tool_calls"]
    ] == expected


def test_structured_output_is_parsed_streamed_and_whole(service: Service, use: Callable[..., Client]) -> None:
    asked = {"messages": messages(text=TRIP, pieces=7), "response_format": Trip}

    parsed = use(service).parse(**asked).choices[0].message.parsed
    types, final = use(service).helper(**asked)

    assert parsed == final.choices[0].message.parsed == Trip(city="Paris", days=3)
    assert types.count("content.done") == 1


def test_a_refusal_is_a_refusal(service: Service, use: Callable[..., Client]) -> None:
    asked = {"messages": messages(play="refusal"), "response_format": Trip}

    message = use(service).parse(**asked).choices[0].message
    types, final = use(service).helper(**asked)

    assert (message.refusal, message.parsed) == ("I cannot say.", None)
    assert final.choices[0].message.refusal == "I cannot say."
    assert "refusal.done" in types


def test_reasoning_is_where_clients_look_for_it(service: Service, use: Callable[..., Client]) -> None:
    asked = {"messages": messages(play="reasoning", tokens=2)}

    heard = use(service).stream(**asked)
    whole = use(service).whole(**asked)

    deltas = [choice["delta"] for chunk in heard.chunks for choice in chunk["choices"]]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "first second "
    assert heard.text == "w0 w1 "
    assert whole["choices"][0]["message"]["reasoning_content"] == "first second "


def test_several_answers_and_log_probabilities_add_up(service: Service, use: Callable[..., Client]) -> None:
    two = use(service).whole(messages=messages(play="two_choices", tokens=2), n=2)
    logged = use(service).whole(messages=messages(play="logprobs", tokens=3), logprobs=True)

    assert [(one["message"]["content"], one["finish_reason"]) for one in two["choices"]] == [
        ("w0 w1 ", "stop"),
        ("W0 W1 ", "length"),
    ]
    tokens = [one["token"] for one in logged["choices"][0]["logprobs"]["content"]]
    assert tokens == ["w0 ", "w1 ", "w2 "]


# Silence


@pytest.fixture(scope="module")
def murmuring(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that says often that it is there."""
    service = Service(tmp_path_factory.mktemp("murmuring"), upstream.base_url, environment=MURMURING)
    yield service
    service.stop()


def test_heartbeats_of_a_long_silence_disturb_nothing(murmuring: Service, use: Callable[..., Client]) -> None:
    asked = {"messages": messages(**SILENCES)}
    client = use(murmuring)

    with ThreadPoolExecutor() as side_by_side:
        streamed = side_by_side.submit(client.stream, **asked)
        whole = side_by_side.submit(client.whole, **asked)
        helped = side_by_side.submit(client.helper, **asked)

    assert (streamed.result().error, streamed.result().text) == (None, "w0 w1 ")
    assert whole.result()["choices"][0]["message"]["content"] == "w0 w1 "
    assert helped.result()[1].choices[0].message.content == "w0 w1 "


def test_an_error_after_heartbeats_is_an_error(murmuring: Service, use: Callable[..., Client]) -> None:
    heard = use(murmuring).stream(messages=messages(play="status", status=500, headers_ms=1500))

    assert heard.headers, "the answer was opened while the upstream was silent"
    assert heard.error is not None
    assert heard.error.code == "upstream_error"


# Failures


@pytest.mark.parametrize(
    "script",
    [
        {"play": "stop"},
        {"play": "cut"},
        {"play": "neither"},
        {"play": "stream_error"},
        {"play": "garbage"},
        {"play": "half_open"},
    ],
    ids=lambda script: script["play"],
)
def test_an_answer_that_was_cut_off_is_an_error_and_no_success(
    impatient_service: Service, use: Callable[..., Client], script: dict[str, Any]
) -> None:
    client = use(impatient_service)
    asked = messages(**{"tokens": 4, "after": 2, "pace_ms": 100, "first_ms": 100} | script)

    heard = client.stream(messages=asked)

    assert heard.text.startswith("w0 w1 ")
    assert heard.error is not None
    assert type(heard.error) is openai.APIError
    assert LEAK not in str(heard.error.body)
    with pytest.raises(openai.InternalServerError):
        client.whole(messages=asked)
    with pytest.raises(openai.APIError):
        client.helper(messages=asked)


@pytest.mark.parametrize(
    ("script", "kind", "code"),
    [
        (
            {"status": 400, "code": "context_length_exceeded"},
            openai.BadRequestError,
            "context_length_exceeded",
        ),
        ({"status": 401}, openai.InternalServerError, "upstream_auth"),
        ({"status": 404, "code": "model_not_found"}, openai.NotFoundError, "model_not_found"),
        ({"status": 429}, openai.RateLimitError, "rate_limit_exceeded"),
        ({"status": 429, "code": "insufficient_quota"}, openai.RateLimitError, "insufficient_quota"),
        ({"status": 500}, openai.InternalServerError, "upstream_error"),
        ({"status": 503}, openai.InternalServerError, "upstream_overloaded"),
    ],
    ids=str,
)
def test_a_refusing_upstream_is_the_error_that_clients_catch(
    impatient_service: Service,
    use: Callable[..., Client],
    script: dict[str, Any],
    kind: type[openai.APIStatusError],
    code: str,
) -> None:
    client = use(impatient_service)
    asked = messages(play="status", **script)

    heard = client.stream(messages=asked)
    with pytest.raises(kind) as whole:
        client.whole(messages=asked)

    assert isinstance(heard.error, kind)
    for error in (heard.error, whole.value):
        assert error.code == code
        assert error.request_id
        assert error.response.headers["stream-id"]
        assert LEAK not in str(error)


def test_a_bad_request_names_its_field(service: Service, use: Callable[..., Client]) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        use(service).whole(messages=[{"role": "robot", "content": "x"}])

    assert refused.value.param == "messages[0].role"


# The same request again


@pytest.fixture(scope="module")
def hasty(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks its upstream once."""
    service = Service(
        tmp_path_factory.mktemp("hasty"), upstream.base_url, environment={"UPSTREAM_RETRIES": "0"}
    )
    yield service
    service.stop()


def test_the_sdks_retries_under_a_key_pay_for_one_run(
    hasty: Service, upstream: Upstream, use: Callable[..., Client]
) -> None:
    token = new_token()
    asked = {
        "messages": messages(play="status", status=503, token=token),
        "extra_headers": {"Idempotency-Key": token},
    }

    started = time.monotonic()
    heard = use(hasty, max_retries=openai.DEFAULT_MAX_RETRIES).stream(**asked)

    assert time.monotonic() - started > 1, "it did not retry, which shows nothing"
    assert isinstance(heard.error, openai.InternalServerError)
    assert heard.error.response.headers["idempotent-replayed"] == "true"
    assert len(upstream.log(token)) == 1


def test_without_a_key_each_retry_is_a_run_and_may_succeed(
    hasty: Service, upstream: Upstream, use: Callable[..., Client]
) -> None:
    token = new_token()
    asked = messages(play="status", status=503, attempts_fail=1, tokens=2, token=token)

    heard = use(hasty, max_retries=openai.DEFAULT_MAX_RETRIES).stream(messages=asked)

    assert (heard.error, heard.text) == (None, "w0 w1 ")
    assert len(upstream.log(token)) == 2


def test_a_service_that_was_full_is_asked_again_and_starts_one_run(
    start_service: StartService, upstream: Upstream, use: Callable[..., Client]
) -> None:
    service = start_service(environment={"MAX_STREAMS": "1"})
    token = new_token()
    service.create(prompt(tokens=20, pace_ms=100))

    heard = use(service, max_retries=openai.DEFAULT_MAX_RETRIES).stream(
        messages=messages(tokens=2, token=token), extra_headers={"Idempotency-Key": token}
    )

    assert (heard.error, heard.text) == (None, "w0 w1 ")
    assert len(upstream.log(token)) == 1


def test_equal_requests_at_once_on_two_workers_are_one_run(
    service_two_workers: Service, upstream: Upstream
) -> None:
    token = new_token()
    asked = {
        "messages": messages(tokens=10, pace_ms=50, token=token),
        "extra_headers": {"Idempotency-Key": token},
    }
    client = SyncClient(service_two_workers)
    with ThreadPoolExecutor(6) as side_by_side:
        heard = list(side_by_side.map(lambda _: client.stream(**asked), range(6)))

    assert len({one.headers["stream-id"] for one in heard}) == 1
    assert {one.text for one in heard} == {"".join(f"w{i} " for i in range(10))}
    assert len(upstream.log(token)) == 1


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_run_that_somebody_cancelled_is_not_asked_for_again(
    start_service: StartService, upstream: Upstream, use: Callable[..., Client], stream: bool
) -> None:
    service = start_service()
    token = new_token()
    client = use(service, max_retries=openai.DEFAULT_MAX_RETRIES)
    asked = messages(play="hang", token=token)

    with ThreadPoolExecutor() as aside:
        asking = aside.submit(client.stream if stream else client.whole, messages=asked)
        upstream.wait_for_request(token)
        service.request("POST", f"/streams/{only_stream_of(service)}/cancel")
        error = asking.result().error if stream else asking.exception()

    assert isinstance(error, openai.APIStatusError)
    assert error.status_code == 499
    assert error.code == "cancelled"
    assert len(upstream.log(token)) == 1


# Leaving


@pytest.mark.parametrize(
    "script",
    [{"play": "hang"}, {"first_ms": 30_000}, {"tokens": 600, "pace_ms": 50}],
    ids=["before the upstream answers", "before the first token", "in the middle"],
)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_client_that_gives_up_ends_the_upstream(
    hasty: Service, upstream: Upstream, use: Callable[..., Client], script: dict[str, Any], stream: bool
) -> None:
    token = new_token()
    client = use(hasty, timeout=1)
    asked = messages(token=token, **script)

    if stream and "tokens" in script:
        heard = client.stream(leave_after=3, messages=asked)
        assert heard.error is None
    elif stream:
        assert isinstance(client.stream(messages=asked).error, openai.APITimeoutError)
    else:
        with pytest.raises(openai.APITimeoutError):
            client.whole(messages=asked)
    left = time.monotonic()

    assert upstream.wait_for_close(token) - left < LEAVES_SECONDS


def test_a_task_that_is_cancelled_ends_the_upstream(hasty: Service, upstream: Upstream) -> None:
    token = new_token()

    async def ask_and_be_cancelled() -> None:
        async with openai.AsyncOpenAI(base_url=f"{hasty.url}/v1", api_key="unused") as client:
            asked = messages(token=token, first_ms=30_000)
            task = asyncio.create_task(client.chat.completions.create(model=MODEL, messages=asked))
            await asyncio.to_thread(upstream.wait_for_request, token)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    loops.run(ask_and_be_cancelled())
    left = time.monotonic()

    assert upstream.wait_for_close(token) - left < LEAVES_SECONDS
    assert len(upstream.log(token)) == 1


# The run behind the answer


@pytest.mark.parametrize("leave_after", [1, 4, 9])
def test_a_run_is_gone_on_with_in_another_dialect(
    service: Service, upstream: Upstream, leave_after: int
) -> None:
    token = new_token()
    tokens = 20
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="unused") as client:
        stream = client.chat.completions.create(
            model=MODEL, messages=messages(tokens=tokens, pace_ms=50, token=token), stream=True
        )
        # Without another reader the run would end when this one leaves.
        with service.follow(stream.response.headers["stream-id"]) as follower:
            follower.read(1)
            said = list(itertools.islice(stream, leave_after))
            stream.close()
            follower.read_all()

    text = text_of(follower.events)
    assert text == "".join(f"w{i} " for i in range(tokens))
    assert text.startswith("".join(chunk.choices[0].delta.content or "" for chunk in said))
    assert follower.events[-1].json()["finish_reason"] == "stop"
    assert len(upstream.log(token)) == 1


def test_a_run_that_another_dialect_started_is_chunks_too(service: Service) -> None:
    stream_id = service.create(prompt(tokens=5, pace_ms=20))
    with EventReader(service.port).open(f"/streams/{stream_id}?format=openai_chat") as reader:
        said = [event.data.decode() for event in reader]

    assert said[-1] == "[DONE]"
    deltas = [choice["delta"] for one in said[:-1] for choice in json.loads(one)["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "w0 w1 w2 w3 w4 "
