"""OpenAI's Python SDK on ``/v1/responses`` over real sockets, with two workers on one log."""

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.live import loops
from tests.live.service import PATIENCE_SECONDS, Service, Upstream, wait_until
from tests.openai_schemas import check, check_event

MODEL = "test-model"
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "strict": False,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TEXT = "response.output_text.delta"
FAST_DEMO: dict[str, str | None] = {"OPENAI_BASE_URL": None, "OPENAI_API_KEY": None, "MODEL": None}

_numbers = itertools.count(1)


class Trip(BaseModel):
    city: str
    days: int


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers with the demo model."""
    directory = tmp_path_factory.mktemp("demo")
    service = Service(directory, "", workers=2, environment={**FAST_DEMO, "DEMO_TOKENS_PER_SECOND": "400"})
    yield service
    service.stop()


def client_of(service: Service, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key="unused", timeout=30, max_retries=0, **options)


@pytest.fixture
def client(demo: Service) -> Iterator[openai.OpenAI]:
    with client_of(demo) as made:
        yield made


@pytest.fixture
def scripted(service_two_workers: Service) -> Iterator[openai.OpenAI]:
    """A client of a service whose upstream plays scripts, and has only chat completions."""
    with client_of(service_two_workers) as made:
        yield made


def script(**keys: Any) -> tuple[str, str]:
    """Return a prompt that makes the upstream play this, and the name it logs it under."""
    token = f"responses-{next(_numbers)}"
    return f"<<{json.dumps({'token': token, **keys})}>>", token


def as_sent(events: Sequence[Any]) -> list[dict[str, Any]]:
    """Return events as they were on the wire, each checked against OpenAI's schema."""
    bodies = [event.to_dict() for event in events]
    for body in bodies:
        check_event(body)
    return bodies


def text_of(bodies: Sequence[dict[str, Any]]) -> str:
    return "".join(body["delta"] for body in bodies if body["type"] == TEXT)


# Whole and streamed


def test_a_whole_response_has_its_text_and_usage(client: openai.OpenAI) -> None:
    response = client.responses.create(
        model="demo", input="ping", instructions="Be brief.", metadata={"a": "b"}
    )

    check("Response", response.to_dict())
    assert response.status == "completed"
    assert response.output_text == "pong"
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0
    assert (response.instructions, response.metadata) == ("Be brief.", {"a": "b"})


def test_a_stream_has_numbered_events_that_add_up_to_the_response(client: openai.OpenAI) -> None:
    with client.responses.create(model="demo", input="hello", stream=True) as stream:
        assert stream.response.headers["Stream-Id"].startswith("st_")
        events = list(stream)

    bodies = as_sent(events)
    assert [body["sequence_number"] for body in bodies] == list(range(len(bodies)))
    assert bodies[0]["type"] == "response.created"
    assert bodies[-1]["type"] == "response.completed"
    final = events[-1].response
    assert final.output_text == text_of(bodies) != ""
    assert client.responses.retrieve(final.id).to_dict() == final.to_dict()


def test_the_stream_helper_returns_the_final_response(client: openai.OpenAI) -> None:
    with client.responses.stream(model="demo", input="hello") as stream:
        text = "".join(event.delta for event in stream if event.type == TEXT)
        final = stream.get_final_response()

    assert final.output_text == text != ""


def test_the_asynchronous_client_hears_the_same(demo: Service) -> None:
    async def ask() -> tuple[str, str, str]:
        async with openai.AsyncOpenAI(base_url=f"{demo.url}/v1", api_key="x", max_retries=0) as client:
            whole = await client.responses.create(model="demo", input="hello")
            stream = await client.responses.create(model="demo", input="hello", stream=True)
            said = [event.delta async for event in stream if event.type == TEXT]
            async with client.responses.stream(model="demo", input="hello") as helped:
                final = await helped.get_final_response()
            return whole.output_text, "".join(said), final.output_text

    whole, said, final = loops.run(ask())
    assert whole == said == final != ""


def test_an_answer_is_parsed_into_a_type(client: openai.OpenAI) -> None:
    whole = client.responses.parse(model="demo", input="a trip to Paris", text_format=Trip)
    with client.responses.stream(model="demo", input="a trip to Paris", text_format=Trip) as stream:
        streamed = stream.get_final_response()

    assert isinstance(whole.output_parsed, Trip)
    assert streamed.output_parsed == whole.output_parsed


def test_reasoning_and_text_are_items_of_their_own(scripted: openai.OpenAI) -> None:
    ask, _ = script(play="reasoning")
    events = as_sent(list(scripted.responses.create(model=MODEL, input=ask, stream=True)))

    final = events[-1]["response"]
    assert [item["type"] for item in final["output"]] == ["reasoning", "message"]
    said = "".join(body["delta"] for body in events if body["type"] == "response.reasoning_text.delta")
    assert final["output"][0]["content"][0]["text"] == said != ""


# Tools, and turn after turn


def test_a_tool_is_called_and_its_result_answered(client: openai.OpenAI) -> None:
    with client.responses.stream(
        model="demo", input="what is the weather?", tools=[TOOL], store=True
    ) as stream:
        said = "".join(
            event.delta for event in stream if event.type == "response.function_call_arguments.delta"
        )
        first = stream.get_final_response()
    (call,) = first.output
    assert call.type == "function_call"
    assert (call.name, call.arguments) == ("weather", said)
    assert json.loads(said)

    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "rain, 7 degrees"}
    second = client.responses.create(
        model="demo", previous_response_id=first.id, input=[result], tools=[TOOL]
    )

    assert "rain, 7 degrees" in second.output_text
    assert second.previous_response_id == first.id


def test_each_turn_tells_the_model_all_turns_before_it(
    scripted: openai.OpenAI, service_two_workers: Service, upstream: Upstream
) -> None:
    previous: Any = openai.omit
    prompts, tokens, said = [], [], []
    for _ in range(4):
        ask, token = script(tokens=2)
        response = scripted.responses.create(model=MODEL, input=ask, previous_response_id=previous)
        previous = response.id
        prompts.append(ask)
        tokens.append(token)
        said.append(response.output_text)

    (request,) = [entry for entry in upstream.log(tokens[-1]) if "messages" in entry["body"]]
    told = [(message["role"], message["content"]) for message in request["body"]["messages"]]
    turns = [(("user", ask), ("assistant", answer)) for ask, answer in zip(prompts, said, strict=True)]
    assert told == [message for turn in turns for message in turn][:-1]
    listed = list(scripted.responses.input_items.list(previous, order="asc", limit=2))
    assert len(listed) == 7, "the SDK pages through all of them"
    assert len({item.id for item in listed}) == 7


def test_output_items_can_be_sent_back_by_the_client_itself(client: openai.OpenAI) -> None:
    first = client.responses.create(model="demo", input="ping", store=False)
    history: Any = [{"role": "user", "content": "ping"}, *(item.to_dict() for item in first.output)]

    second = client.responses.create(model="demo", input=[*history, {"role": "user", "content": "ping"}])

    assert second.output_text == "pong"


# Background, and coming back


def test_a_background_response_is_polled_to_its_end(scripted: openai.OpenAI) -> None:
    ask, _ = script(tokens=10, pace_ms=50)
    begun = scripted.responses.create(model=MODEL, input=ask, background=True)
    assert (begun.status, begun.background) == ("in_progress", True)

    def ended() -> Any:
        found = scripted.responses.retrieve(begun.id)
        check("Response", found.to_dict())
        return found if found.status != "in_progress" else None

    response = wait_until(ended, PATIENCE_SECONDS, "the response ends")
    assert response.status == "completed"
    assert response.output_text.split() == [f"w{number}" for number in range(10)]


@pytest.mark.parametrize("heard", [1, 4, 9])
def test_a_stream_that_was_lost_is_gone_on_with_without_a_hole(demo: Service, heard: int) -> None:
    with client_of(demo) as client:
        with client.responses.create(model="demo", input="hello", background=True, stream=True) as stream:
            before = list(itertools.islice(stream, heard))
        response_id = before[0].response.id

    rests = []
    for _ in range(4):  # connections of their own: on either worker
        with client_of(demo) as client:
            rest = client.responses.retrieve(
                response_id, stream=True, starting_after=before[-1].sequence_number
            )
            rests.append(as_sent(list(rest)))
    joined = as_sent(before) + rests[0]
    assert all(rest == rests[0] for rest in rests)
    assert [body["sequence_number"] for body in joined] == list(range(len(joined)))
    with client_of(demo) as client:
        assert text_of(joined) == client.responses.retrieve(response_id).output_text != ""


def test_the_stream_helper_comes_back_to_a_response(client: openai.OpenAI) -> None:
    begun = client.responses.create(model="demo", input="hello", background=True)

    with client.responses.stream(response_id=begun.id, starting_after=3) as stream:
        numbers = [event.sequence_number for event in stream]
        final = stream.get_final_response()

    assert numbers[0] == 4
    assert final.output_text == client.responses.retrieve(begun.id).output_text != ""


def test_a_background_response_is_cancelled_from_any_worker(
    service_two_workers: Service, upstream: Upstream
) -> None:
    ask, token = script(tokens=1000, pace_ms=50)
    with client_of(service_two_workers) as client:
        begun = client.responses.create(model=MODEL, input=ask, background=True)
    upstream.wait_for_request(token)
    for _ in range(4):
        with client_of(service_two_workers) as client:
            cancelled = client.responses.cancel(begun.id)
            assert cancelled.status == "cancelled"
            check("Response", cancelled.to_dict())

    upstream.wait_for_close(token)
    with client_of(service_two_workers) as client:
        client.responses.delete(begun.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(begun.id)


# Ends that are no successes


def test_a_reader_of_a_cancelled_response_gets_no_final_response(scripted: openai.OpenAI) -> None:
    ask, _ = script(tokens=1000, pace_ms=50)
    with scripted.responses.stream(model=MODEL, input=ask) as stream:
        for event in stream:
            if event.type == TEXT:
                break
        scripted.responses.cancel(f"resp_{stream._response.headers['Stream-Id'].removeprefix('st_')}")
        rest = list(stream)
        with pytest.raises(RuntimeError, match="Didn't receive"):
            stream.get_final_response()

    assert rest[-1].type == "response.failed"
    assert rest[-1].response.status == "cancelled"
    assert rest[-1].response.output_text


def test_an_answer_that_is_cut_off_is_no_success(scripted: openai.OpenAI) -> None:
    ask, _ = script(play="cut", after=3, tokens=6, pace_ms=100)
    events = as_sent(list(scripted.responses.create(model=MODEL, input=ask, stream=True)))

    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["type"] == "upstream_truncated"
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == text_of(events) != ""
    with pytest.raises(openai.InternalServerError):
        scripted.responses.create(model=MODEL, input=ask)


def test_a_client_that_leaves_a_whole_answer_ends_the_run(
    service_two_workers: Service, upstream: Upstream
) -> None:
    ask, token = script(play="hang")
    with client_of(service_two_workers) as client, pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=1).responses.create(model=MODEL, input=ask)
    left = time.monotonic()

    assert upstream.wait_for_close(token) - left < 2


def test_refusals_are_the_sdk_s_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_" + "a" * 34)
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="demo", input="hi", previous_response_id="resp_nobody")
    assert (refused.value.code, refused.value.param) == (
        "previous_response_not_found",
        "previous_response_id",
    )
    with pytest.raises(openai.BadRequestError) as unknown:
        client.responses.create(model="demo", input="hi", tools=[{"type": "web_search"}])
    assert unknown.value.param == "tools[0].type"
