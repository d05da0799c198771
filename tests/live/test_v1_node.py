"""Clients in JavaScript on ``/v1/chat/completions``: the official ``openai`` package and Vercel's AI SDK.

``tests/clients_node`` holds a script for each, and their pinned versions.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import StartService
from tests.live.service import Service, Upstream
from tests.live.upstream import LEAK
from tests.live.v1 import MURMURING, SILENCES, chunks_of, messages, new_token, only_stream_of, prompt

CLIENTS = Path(__file__).resolve().parents[1] / "clients_node"
LEAVES_SECONDS = 2.0
NODE_SECONDS = 45.0
TRIP = {"city": "Paris", "days": 3}
CALLS = [
    {"name": "weather", "input": TRIP, "id": "call_1"},
    {"name": "clock", "input": {}, "id": "call_2"},
]

Use = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def node() -> str:
    """The program; these tests are never skipped, because a client that is not tried is not served."""
    found = shutil.which("node")
    assert found, "Node 18 or newer is needed: apt-get install nodejs npm, then: make node-clients"
    assert (CLIENTS / "node_modules").is_dir(), "the clients are not installed; run: make node-clients"
    return found


def script(node: str, name: str) -> Use:
    """Return what runs a script on a service and returns what it printed: ``use(service, how, …)``."""

    def use(service: Service, how: str, **asked: Any) -> dict[str, Any]:
        asked = {"base_url": f"{service.url}/v1", "how": how, **asked}
        done = subprocess.run(
            [node, f"{name}.mjs", json.dumps(asked)],
            cwd=CLIENTS,
            capture_output=True,
            text=True,
            timeout=NODE_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        printed: dict[str, Any] = json.loads(done.stdout)
        return printed

    return use


@pytest.fixture(scope="session")
def openai_js(node: str) -> Use:
    return script(node, "openai")


@pytest.fixture(scope="session")
def ai_sdk(node: str) -> Use:
    return script(node, "ai_sdk")


@pytest.fixture(scope="module")
def murmuring(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that says often that it is there, and asks its upstream once."""
    service = Service(tmp_path_factory.mktemp("murmuring"), upstream.base_url, environment=MURMURING)
    yield service
    service.stop()


# The official package


@pytest.mark.parametrize(
    "script",
    [
        {"tokens": 4},
        {"play": "tools"},
        {"play": "reasoning", "tokens": 2},
        {"play": "unknown", "tokens": 2},
        {"text": "a\nb\u2028\u0085\u2029 data: x\n\n é\N{GRINNING FACE}", "pieces": 6},
    ],
    ids=lambda script: script.get("play", "text" if "text" in script else "ok"),
)
def test_the_official_package_hears_each_chunk_as_it_was(
    service: Service, openai_js: Use, script: dict[str, Any]
) -> None:
    asked = {"messages": messages(token=new_token(), **script), "stream_options": {"include_usage": True}}

    heard = openai_js(service, "stream", body=asked)

    assert "thrown" not in heard
    assert heard["chunks"] == chunks_of(service.port, **asked)
    assert heard["headers"]["content-location"] == f"/streams/{heard['headers']['stream-id']}"


def test_the_official_package_takes_a_whole_answer(service: Service, openai_js: Use) -> None:
    got = openai_js(service, "whole", body={"messages": messages(tokens=3)})["completion"]

    assert got["object"] == "chat.completion"
    assert got["choices"][0]["message"]["content"] == "w0 w1 w2 "
    assert got["usage"]["total_tokens"] == 10


def test_the_official_packages_helper_adds_chunks_up(service: Service, openai_js: Use) -> None:
    said = openai_js(service, "helper", body={"messages": messages(tokens=3)})
    called = openai_js(service, "helper", body={"messages": messages(play="tools")})

    assert said["deltas"] == ["w0 ", "w1 ", "w2 "]
    assert said["completion"]["choices"][0]["message"]["content"] == "w0 w1 w2 "
    (choice,) = called["completion"]["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert [
        {
            "name": call["function"]["name"],
            "input": json.loads(call["function"]["arguments"]),
            "id": call["id"],
        }
        for call in choice["message"]["tool_calls"]
    ] == CALLS


def test_the_official_package_parses_structured_output(service: Service, openai_js: Use) -> None:
    got = openai_js(service, "parse", body={"messages": messages(text=json.dumps(TRIP), pieces=5)})

    assert got["completion"]["choices"][0]["message"]["parsed"] == TRIP


@pytest.mark.parametrize("how", ["stream", "helper", "whole"])
@pytest.mark.parametrize("play", ["stop", "cut", "neither"])
def test_the_official_package_throws_when_an_answer_was_cut_off(
    murmuring: Service, openai_js: Use, play: str, how: str
) -> None:
    asked = messages(play=play, tokens=4, after=2, pace_ms=100, first_ms=100)

    got = openai_js(murmuring, how, body={"messages": asked})

    assert "APIError" in got["thrown"]["names"]
    assert got["thrown"]["code"] == "upstream_truncated"
    assert got["thrown"].get("status") == (502 if how == "whole" else None)
    assert "completion" not in got


@pytest.mark.parametrize("how", ["stream", "whole"])
def test_the_official_packages_retries_under_a_key_pay_for_one_run(
    murmuring: Service, upstream: Upstream, openai_js: Use, how: str
) -> None:
    token = new_token()
    asked = {"messages": messages(play="status", status=503, token=token)}

    started = time.monotonic()
    got = openai_js(
        murmuring, how, body=asked, options={"headers": {"Idempotency-Key": token}}, max_retries=2
    )

    assert time.monotonic() - started > 1, "it did not retry, which shows nothing"
    assert (got["thrown"]["status"], got["thrown"]["code"]) == (503, "upstream_overloaded")
    assert got["thrown"]["request_id"]
    assert LEAK not in got["thrown"]["message"]
    assert len(upstream.log(token)) == 1


def test_the_official_package_does_not_repeat_a_run_that_was_cancelled(
    start_service: StartService, upstream: Upstream, openai_js: Use
) -> None:
    service = start_service()
    token = new_token()
    asked = {"messages": messages(play="hang", token=token)}

    with ThreadPoolExecutor() as aside:
        asking = aside.submit(openai_js, service, "whole", body=asked, max_retries=2)
        upstream.wait_for_request(token, 20)
        service.request("POST", f"/streams/{only_stream_of(service)}/cancel")
        got = asking.result()

    assert (got["thrown"]["status"], got["thrown"]["code"]) == (499, "cancelled")
    assert len(upstream.log(token)) == 1


def test_the_official_package_that_aborts_ends_the_upstream(
    murmuring: Service, upstream: Upstream, openai_js: Use
) -> None:
    token = new_token()

    got = openai_js(murmuring, "abort", body={"messages": messages(tokens=600, pace_ms=50, token=token)})
    left = time.monotonic()

    assert got["aborted"]
    assert upstream.wait_for_close(token) - left < LEAVES_SECONDS


def test_the_official_package_that_gives_up_a_whole_answer_ends_the_upstream(
    murmuring: Service, upstream: Upstream, openai_js: Use
) -> None:
    token = new_token()
    asked = {"messages": messages(first_ms=60_000, token=token)}

    # Long enough for the upstream to be asked, on a machine that does other things besides.
    got = openai_js(murmuring, "abort_whole", body=asked, milliseconds=3000)
    left = time.monotonic()

    assert "APIUserAbortError" in got["thrown"]["names"]
    assert upstream.wait_for_close(token) - left < LEAVES_SECONDS


# The AI SDK


@pytest.mark.parametrize("how", ["stream", "whole"])
def test_the_ai_sdk_hears_text_reasoning_and_usage(service: Service, ai_sdk: Use, how: str) -> None:
    got = ai_sdk(service, how, prompt=prompt(play="reasoning", tokens=3))
    plain = ai_sdk(service, how, prompt=prompt(tokens=3), include_usage=True)

    assert (got["text"], got["reasoning"], got["finish"]) == ("w0 w1 w2 ", "first second ", "stop")
    assert (plain["text"], plain["usage"]["totalTokens"]) == ("w0 w1 w2 ", 10)


@pytest.mark.parametrize("how", ["tools", "whole_tools"])
def test_the_ai_sdk_calls_tools(service: Service, ai_sdk: Use, how: str) -> None:
    got = ai_sdk(service, how, prompt=prompt(play="tools"))

    assert got["calls"] == CALLS
    assert got["results"] == ["sunny in Paris", "12:00"]
    assert got["finish"] == "tool-calls"


def test_the_ai_sdk_makes_objects(service: Service, upstream: Upstream, ai_sdk: Use) -> None:
    token = new_token()
    asked = prompt(text=json.dumps(TRIP), pieces=6, pace_ms=5, token=token)

    whole = ai_sdk(service, "object", prompt=asked)
    grown = ai_sdk(service, "stream_object", prompt=asked)

    assert whole["object"] == grown["object"] == TRIP
    assert len(grown["partial"]) > 1
    assert upstream.log(token)[0]["body"]["response_format"]["type"] == "json_schema"


def test_the_ai_sdk_loses_no_text_of_a_chunk_that_says_there_is_no_error(
    service: Service, ai_sdk: Use
) -> None:
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "error": None}
    chunks = [
        {**head, "choices": [{"index": 0, "delta": {"content": "a"}}]},
        {**head, "choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": "stop"}]},
    ]

    got = ai_sdk(service, "stream", prompt=prompt(raw_chunks=chunks))

    assert got["text"] == "ab"
    assert "error" not in got


@pytest.mark.parametrize("play", ["stop", "cut", "neither"])
def test_the_ai_sdk_finishes_with_an_error_when_an_answer_was_cut_off(
    murmuring: Service, ai_sdk: Use, play: str
) -> None:
    asked = prompt(play=play, tokens=4, after=2, pace_ms=100, first_ms=100)

    streamed = ai_sdk(murmuring, "stream", prompt=asked)
    whole = ai_sdk(murmuring, "whole", prompt=asked)

    assert streamed["text"].startswith("w0 w1 ")
    assert streamed["finish"] == "error"
    assert streamed["error"]["code"] == "upstream_truncated"
    assert whole["thrown"]["name"] == "AI_APICallError"
    assert whole["thrown"]["status"] == 502


def test_the_ai_sdks_retries_under_a_key_pay_for_one_run(
    murmuring: Service, upstream: Upstream, ai_sdk: Use
) -> None:
    token = new_token()
    asked = prompt(play="status", status=503, token=token)

    got = ai_sdk(murmuring, "whole", prompt=asked, headers={"Idempotency-Key": token}, max_retries=2)

    assert got["thrown"]["name"] == "AI_RetryError"
    assert len(upstream.log(token)) == 1


def test_the_ai_sdk_that_aborts_ends_the_upstream(
    murmuring: Service, upstream: Upstream, ai_sdk: Use
) -> None:
    token = new_token()

    got = ai_sdk(murmuring, "abort", prompt=prompt(tokens=600, pace_ms=50, token=token))
    left = time.monotonic()

    assert got["aborted"]
    assert upstream.wait_for_close(token) - left < LEAVES_SECONDS


# Silence


def test_heartbeats_of_a_long_silence_disturb_neither(
    murmuring: Service, openai_js: Use, ai_sdk: Use
) -> None:
    with ThreadPoolExecutor() as side_by_side:
        theirs = [
            side_by_side.submit(openai_js, murmuring, how, body={"messages": messages(**SILENCES)})
            for how in ("helper", "whole")
        ]
        others = [
            side_by_side.submit(ai_sdk, murmuring, how, prompt=prompt(**SILENCES))
            for how in ("stream", "whole")
        ]

    for each in theirs:
        assert each.result()["completion"]["choices"][0]["message"]["content"] == "w0 w1 "
    for each in others:
        assert (each.result()["text"], each.result()["finish"]) == ("w0 w1 ", "stop")
        assert "error" not in each.result()
