"""A response of an upstream that speaks Responses too, as a client of ours gets it."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.live.service import Service
from tests.live.test_responses_source import ResponsesUpstream
from tests.live.test_v1_responses_sdk import MODEL, client_of, script, text_of
from tests.openai_schemas import check_event


@pytest.fixture(scope="module")
def speaker() -> Iterator[ResponsesUpstream]:
    upstream = ResponsesUpstream()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def client(speaker: ResponsesUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    environment: dict[str, str | None] = {"UPSTREAM_RESPONSES": "yes"}
    running = Service(tmp_path_factory.mktemp("passed-on"), speaker.base_url, environment=environment)
    with client_of(running) as made:
        yield made
    running.stop()


def said_by(upstream: ResponsesUpstream, ask: str) -> list[dict[str, Any]]:
    """Return what the upstream itself says to the same request."""
    with openai.OpenAI(base_url=upstream.base_url, api_key="x") as direct:
        events = direct.responses.create(model=MODEL, input=[{"role": "user", "content": ask}], stream=True)
        return [event.to_dict() for event in events]


def told(client: openai.OpenAI, ask: str, **fields: Any) -> list[dict[str, Any]]:
    return [e.to_dict() for e in client.responses.create(model=MODEL, input=ask, stream=True, **fields)]


@pytest.mark.parametrize("play", ["ok", "tools", "reasoning", "logprobs", "incomplete", "filtered"])
def test_every_event_is_the_upstream_s_but_for_what_is_ours(
    client: openai.OpenAI, speaker: ResponsesUpstream, play: str
) -> None:
    ask, _ = script(play=play, tokens=4)
    ours, theirs = told(client, ask, metadata={"a": "b"}), said_by(speaker, ask)

    ids = {event["response"]["id"] for event in ours if "response" in event}
    assert len(ids) == 1
    for event in theirs:
        if "response" in event:
            event["response"] |= {
                "id": min(ids),
                "metadata": {"a": "b"},
                "store": True,
                "background": False,
                "previous_response_id": None,
            }
    assert ours == theirs


def test_an_upstream_that_fails_in_the_middle_is_told_in_our_words(client: openai.OpenAI) -> None:
    ask, _ = script(play="failed", after=3, tokens=6, pace_ms=100)
    events = told(client, ask)

    check_event(events[-1])
    assert events[-1]["type"] == "response.failed"
    assert "quoted-by-the-upstream" not in str(events)
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == text_of(events) != ""


def test_a_turn_goes_back_without_ids_that_only_we_keep(
    client: openai.OpenAI, speaker: ResponsesUpstream
) -> None:
    first_ask, _ = script(tokens=2)
    first = client.responses.create(model=MODEL, input=first_ask)
    ask, token = script(tokens=2)
    client.responses.create(model=MODEL, input=ask, previous_response_id=first.id)

    (entry,) = speaker.log(token)
    assert "previous_response_id" not in entry["body"]
    assert entry["body"]["store"] is False
    said = {"type": "output_text", "text": first.output_text, "annotations": []}
    assert entry["body"]["input"] == [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": first_ask}]},
        {"type": "message", "role": "assistant", "content": [said]},
        {"type": "message", "role": "user", "content": ask},
    ]
