"""The tests' upstream does what its scripts say: what depends on it rests on this."""

import json
import socket

import openai
import pytest

from tests.live.service import EventReader, Upstream, request
from tests.live.upstream import contents


@pytest.fixture
def client(upstream: Upstream):
    with openai.OpenAI(base_url=upstream.base_url, api_key="sk-test", max_retries=0) as client:
        yield client


def asked(script: dict[str, object], **fields: object) -> dict[str, object]:
    """Return the body of a chat request with ``script``."""
    message = {"role": "user", "content": f"hi <<{json.dumps(script)}>>"}
    return {"model": "test-model", "messages": [message], **fields}


def open_stream(upstream: Upstream, script: dict[str, object]) -> EventReader:
    path = "/v1/chat/completions"
    return EventReader(upstream.port).open(path, method="POST", body=asked(script, stream=True))


def test_the_sdk_reads_a_stream_and_its_usage(client: openai.OpenAI, upstream: Upstream) -> None:
    body = asked({"token": "sdk", "tokens": 5}, stream_options={"include_usage": True})

    chunks = list(client.chat.completions.create(stream=True, **body))

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    (entry,) = upstream.log("sdk")
    assert text == entry["sent_text"] == "".join(contents({"tokens": 5}))
    assert chunks[-1].usage.completion_tokens == 5
    assert (entry["authorization"], entry["finished"], entry["sent_tokens"]) == ("Bearer sk-test", True, 5)
    assert entry["t_received"] <= entry["t_headers_sent"] <= entry["t_first_token"] <= entry["t_last_token"]


def test_the_sdk_reads_a_whole_answer_and_the_models(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**asked({"tokens": 3}))

    assert answer.choices[0].message.content == "w0 w1 w2 "
    assert [model.id for model in client.models.list()] == ["test-model"]


def test_a_status_quotes_the_key(client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError, match="sk-test"):
        client.chat.completions.create(**asked({"play": "status", "status": 401}))


def test_no_more_tokens_pass_a_gate_than_were_let_through(upstream: Upstream) -> None:
    with open_stream(upstream, {"tokens": 6, "gate": "held", "token": "held"}) as reader:
        reader.read(1)  # the role
        assert upstream.log("held")[0]["sent_tokens"] == 0
        upstream.let("held", 2)
        reader.read(2)
        upstream.let("held", 1)
        assert upstream.log("held")[0]["sent_tokens"] == 2
        upstream.let("held")
        reader.read_all()

    deltas = [json.loads(event.data)["choices"][0]["delta"] for event in reader.events[:-1]]
    assert "".join(delta.get("content", "") for delta in deltas) == "".join(contents({"tokens": 6}))


def test_a_fault_can_pass(client: openai.OpenAI, upstream: Upstream) -> None:
    body = asked({"play": "status", "status": 500, "token": "passes", "attempts_fail": 1, "tokens": 1})

    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(**body)

    assert client.chat.completions.create(**body).choices[0].message.content == "w0 "
    assert [entry["play"] for entry in upstream.log("passes")] == ["status", "ok"]


@pytest.mark.parametrize("script", [{"play": "hang"}, {"first_ms": 60000}, {"play": "half_open", "after": 2}])
def test_a_close_is_seen_while_the_upstream_is_silent(upstream: Upstream, script: dict[str, object]) -> None:
    token = json.dumps(script).translate(str.maketrans('"{}:, ', "------"))
    with socket.create_connection(("127.0.0.1", upstream.port)) as peer:
        body = json.dumps(asked({**script, "token": token}, stream=True)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        peer.sendall(head.encode() + body)
        upstream.wait_for_request(token)
        assert upstream.log(token)[0]["t_closed_by_peer"] is None

    upstream.wait_for_close(token)
    assert not upstream.log(token)[0]["finished"]


@pytest.mark.parametrize("style", ["noise", "bom", "cr", "crlf", "no_space", "multiline", "byte_by_byte"])
def test_a_style_changes_bytes_and_not_events(upstream: Upstream, style: str) -> None:
    with open_stream(upstream, {"play": style, "tokens": 4}) as reader:
        reader.read_all()

    *chunks, done = [event.data for event in reader.events]
    assert done == b"[DONE]"
    deltas = [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == "w0 w1 w2 w3 "
    assert reader.whole


def test_a_cut_connection_ends_in_the_middle_of_an_event(upstream: Upstream) -> None:
    with open_stream(upstream, {"play": "cut", "after": 2, "token": "cut"}) as reader:
        reader.read_all()

    assert not reader.whole
    assert bytes(reader.body).rpartition(b"\n\n")[2].startswith(b"data: {")
    assert upstream.log("cut")[0]["t_closed_by_us"]


def test_requests_of_one_connection_have_its_number(client: openai.OpenAI, upstream: Upstream) -> None:
    for _ in range(2):
        client.chat.completions.create(**asked({"token": "kept", "tokens": 1}))

    first, second = upstream.log("kept")
    assert first["connection"] == second["connection"]


def test_a_reset_forgets(upstream: Upstream) -> None:
    request(upstream.port, "POST", "/v1/chat/completions", asked({"token": "gone", "tokens": 1}))
    assert upstream.log("gone")

    upstream.reset()

    assert upstream.log("gone") == []
    assert upstream.stats()["requests"] == 0
