"""OpenAI's Responses over real sockets: what an upstream says, breaks or does not speak at all."""

import itertools
import json
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import SMALL_TIMEOUTS, StartService
from tests.live.service import (
    PATIENCE_SECONDS,
    REPOSITORY,
    SECRET_KEY,
    START_SECONDS,
    Service,
    Upstream,
    text_of,
    wait_until,
)
from tests.live.test_upstream_faults import (
    ODD_TEXT,
    TOKENS,
    Ends,
    Played,
    assert_ends,
    assert_nothing_leaks,
    assert_one_proper_end,
    bad,
    completes,
    failed,
    fails,
    idle,
    idle_late,
    limited,
    overloaded,
    rejected,
    request_is_over,
    truncated,
    truncated_late,
    words,
)
from tests.live.upstream import LEAK, Script

_numbers = itertools.count(1)


class ResponsesUpstream(Upstream):
    """``responses_upstream.py`` as a process of its own."""

    def __init__(self) -> None:
        program = [sys.executable, "-m", "tests.live.responses_upstream"]
        self._process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        assert ready, "the upstream did not print its port"
        self.port = int(self._process.stdout.readline())
        self.base_url = f"http://127.0.0.1:{self.port}/v1"


@pytest.fixture(scope="module")
def speaker() -> Iterator[ResponsesUpstream]:
    """An upstream that speaks Responses, and chat completions too."""
    upstream = ResponsesUpstream()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module")
def service(speaker: ResponsesUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One worker that knows what its upstream speaks, and gives it about a second."""
    environment = {**SMALL_TIMEOUTS, "UPSTREAM_RESPONSES": "yes"}
    running = Service(tmp_path_factory.mktemp("responses"), speaker.base_url, environment=environment)
    yield running
    running.stop()


def play(service: Service, upstream: Upstream, script: Script, **fields: Any) -> Played:
    """Create a stream with ``script``, from this source, and follow it to its end."""
    token = f"response-{next(_numbers)}"
    script = {"tokens": TOKENS, "token": token, **script}
    if "text" in script:
        del script["tokens"]
    stream_id = service.create(f"please <<{json.dumps(script)}>>", source="responses", **fields)
    with service.follow(stream_id) as reader:
        assert reader.status == 200, bytes(reader.raw)
        reader.read_all()
    played = Played(stream_id, reader, upstream.log(token))
    assert_one_proper_end(played)
    assert_nothing_leaks(played, service)
    wait_until(
        lambda: all(request_is_over(entry) for entry in upstream.log(token)),
        PATIENCE_SECONDS,
        "every upstream request is answered whole or closed after the stream's end",
    )
    return played._replace(requests=upstream.log(token))


def heard(played: Played, kind: str) -> list[dict[str, Any]]:
    return [message for event in played.reader.events if (message := event.json())["type"] == kind]


PLAYS: dict[str, tuple[Script, Ends]] = {
    # Answers.
    "plain": ({}, completes()),
    "an end without [DONE]": ({"play": "no_done"}, completes()),
    "calls": ({"play": "tools"}, completes("", reason="tool_calls")),
    "reasoning": ({"play": "reasoning"}, completes()),
    "a refusal": ({"play": "refusal"}, completes("I cannot say.")),
    "too long": ({"play": "incomplete"}, completes(reason="length")),
    "filtered": ({"play": "filtered"}, completes(reason="content_filter")),
    "log probabilities": ({"play": "logprobs"}, completes()),
    "padding": ({"play": "padded"}, completes()),
    "events and fields nobody knows": ({"play": "unknown"}, completes()),
    "one whole response": ({"play": "whole"}, completes()),
    "one byte a write": ({"play": "byte_by_byte", "tokens": 2}, completes(words(2))),
    "lines ended by CRLF": ({"play": "crlf"}, completes()),
    "comments and fields nobody knows": ({"play": "noise"}, completes()),
    "data over several lines": ({"play": "multiline"}, completes()),
    "surrogate halves in two deltas": (
        {"play": "surrogates", "tokens": 2, "after": 2},
        completes(words(2) + "\N{GRINNING FACE}"),
    ),
    "text full of line ends": ({"text": ODD_TEXT, "pieces": 9}, completes(ODD_TEXT)),
    "more after the end": ({"play": "after_end", "after": TOKENS}, completes()),
    "ended by closing": ({"framing": "close"}, completes()),
    # Before the answer.
    "status 401": ({"play": "status", "status": 401}, fails("upstream_auth", retryable=False)),
    "status 400 with a code that nobody knows": (
        {"play": "status", "status": 400, "code": f"{LEAK}-code"},
        rejected,
    ),
    "status 404": ({"play": "status", "status": 404}, rejected),
    "status 404 for an unknown model": (
        {"play": "status", "status": 404, "code": "model_not_found"},
        fails("upstream_rejected", "model_not_found", retryable=False),
    ),
    "status 405": ({"play": "status", "status": 405}, rejected),
    "status 429 with a short wait": ({"play": "status", "status": 429, "retry_after": 1}, limited),
    "status 500": ({"play": "status", "status": 500}, failed),
    "status 503": ({"play": "status", "status": 503}, overloaded),
    "redirect": ({"play": "redirect"}, bad("redirect")),
    "html": ({"play": "html"}, bad("content_type")),
    "compressed": ({"play": "gzip"}, bad("encoding")),
    "reset before headers": ({"play": "reset"}, fails("upstream_unreachable")),
    "silence before headers": ({"play": "hang"}, fails("upstream_timeout", "first_token")),
    "a whole response that failed": ({"play": "whole_failed"}, fails("upstream_rate_limited")),
    "a whole response that has not ended": ({"play": "whole_unfinished"}, bad("json")),
    # Inside the stream.
    "failed first": ({"play": "failed"}, failed),
    "failed later": ({"play": "failed", "after": 2}, fails("upstream_error", after=2)),
    "failed later, too many requests": (
        {"play": "failed", "after": 2, "code": "rate_limit_exceeded"},
        fails("upstream_rate_limited", after=2),
    ),
    "failed for a bad image": (
        {"play": "failed", "code": "image_too_large"},
        fails("upstream_rejected", "image_too_large", retryable=False),
    ),
    "error first": ({"play": "error"}, failed),
    "error later": ({"play": "error", "after": 2}, fails("upstream_error", after=2)),
    "error for a long context": (
        {"play": "error", "code": "context_length_exceeded"},
        fails("upstream_rejected", "context_length_exceeded", retryable=False),
    ),
    "not json later": ({"play": "garbage", "after": 2}, bad("json", after=2)),
    "another object than an event": ({"play": "not_chunk", "after": 2}, bad("json", after=2)),
    "a list": ({"play": "not_chunk", "after": 2, "value": [1]}, bad("json", after=2)),
    "json of depth 100": ({"play": "deep", "after": 2}, bad("json", after=2)),
    "a line over 4 MiB": ({"play": "big_line", "after": 2, "bytes": 5_000_000}, bad("too_large", after=2)),
    # Ends and silence.
    "no end, and no token": ({"play": "stop"}, truncated),
    "no end": ({"play": "neither", "tokens": 2}, truncated_late),
    "[DONE] instead of an end": ({"play": "early_done", "after": 2}, truncated_late),
    "cut first": ({"play": "cut"}, truncated),
    "cut later": ({"play": "cut", "after": 2}, truncated_late),
    "reset later": ({"play": "cut", "after": 2, "reset": True}, truncated_late),
    "begun, and silent": ({"play": "silent_thought"}, idle),
    "half open first": ({"play": "half_open"}, idle),
    "half open later": ({"play": "half_open", "after": 2}, idle_late),
    "byte drip later": ({"play": "drip_line", "after": 2}, idle_late),
    "only comments": ({"play": "comments"}, fails("upstream_timeout", "first_token")),
}


@pytest.mark.parametrize(("script", "ends"), PLAYS.values(), ids=PLAYS)
def test_a_play_of_the_upstream_ends_as_it_should(
    service: Service, speaker: ResponsesUpstream, script: Script, ends: Ends
) -> None:
    played = play(service, speaker, script)

    assert_ends(played, ends, service)
    assert {entry["authorization"] for entry in played.requests} == {f"Bearer {SECRET_KEY}"}
    assert {entry["play"].split()[0] for entry in played.requests} == {"responses"}, "chat was asked"


@pytest.mark.parametrize("play_name", ["failed", "error", "cut", "silent_thought", "stop"])
def test_a_fault_that_passes_leaves_no_trace_in_the_text(
    service: Service, speaker: ResponsesUpstream, play_name: str
) -> None:
    played = play(service, speaker, {"play": play_name, "attempts_fail": 1})

    assert_ends(played, completes()._replace(requests=2), service)


def test_calls_reasoning_and_usage_are_told(service: Service, speaker: ResponsesUpstream) -> None:
    called = play(service, speaker, {"play": "tools"})
    thought = play(service, speaker, {"play": "reasoning"})

    (call,) = heard(called, "tool_call")
    assert (call["id"], call["tool"], call["args"]) == ("call_1", "weather", {"city": "Paris", "days": 3})
    assert "".join(m["content"] for m in heard(thought, "reasoning")) == "first second in short"
    (usage,) = heard(thought, "usage")
    assert usage["usage"]["output_tokens"] == TOKENS
    assert thought.last["metrics"]["tokens"] == TOKENS
    assert "estimated" not in thought.last["metrics"]


def test_a_prompt_is_asked_in_the_upstreams_dialect(service: Service, speaker: ResponsesUpstream) -> None:
    function = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
    params = {
        "max_tokens": 50,
        "temperature": 0.5,
        "reasoning_effort": "low",
        "tools": [{"type": "function", "function": function}],
    }

    played = play(service, speaker, {}, instructions="be brief", params=params)

    (entry,) = played.requests
    prompt = entry["body"].pop("input")
    assert [item["role"] for item in prompt] == ["system", "user"]
    assert entry["body"] == {
        "model": "test-model",
        "stream": True,
        "store": False,
        "max_output_tokens": 50,
        "temperature": 0.5,
        "reasoning": {"effort": "low"},
        "tools": [{"type": "function", **function, "strict": False}],
    }


def test_a_parameter_that_responses_have_not_is_refused_before_anybody_is_asked(
    service: Service, speaker: ResponsesUpstream
) -> None:
    played = play(service, speaker, {}, params={"stop": ["x"]})

    error = played.last["error"]
    assert (error["type"], error["code"], error["param"]) == (
        "invalid_request",
        "unsupported_parameter",
        "params.stop",
    )
    assert played.requests == []


@pytest.mark.parametrize(
    "script",
    [{"play": "hang"}, {"play": "silent_thought"}, {"first_ms": 60_000}, {"play": "half_open", "after": 2}],
    ids=["before the headers", "before the first word", "before the first event", "in the middle"],
)
def test_a_cancel_closes_the_upstreams_socket(
    start_service: StartService, speaker: ResponsesUpstream, script: Script
) -> None:
    service = start_service(speaker.base_url)
    token = f"cancelled-{next(_numbers)}"
    script = {**script, "token": token, "tokens": TOKENS}
    stream_id = service.create(f"please <<{json.dumps(script)}>>", source="responses")
    speaker.wait_for_request(token)
    said = words(script.get("after", 0))
    wait_until(lambda: service.snapshot(stream_id)["text"] == said, PATIENCE_SECONDS, "it got so far")

    receipt = service.request("POST", f"/streams/{stream_id}/cancel").json()

    assert (receipt["state"], receipt["upstream"]) == ("cancelled", "closed")
    speaker.wait_for_close(token)
    assert len(speaker.log(token)) == 1
    assert service.snapshot(stream_id)["text"] == said


def test_an_upstream_without_responses_is_asked_for_chat_and_remembered(
    start_service: StartService, upstream: Upstream
) -> None:
    service = start_service(upstream.base_url)
    strays = upstream.stats()["strays"]

    first = play(service, upstream, {}, params={"max_tokens": 50, "temperature": 0.5})
    second = play(service, upstream, {"play": "tools"})

    assert_ends(first, completes(), service)
    assert_ends(second, completes("", reason="tool_calls"), service)
    assert upstream.stats()["strays"] == strays + 1, "the second run asked for a response again"
    asked = first.requests[0]["body"]
    assert asked["messages"][-1]["role"] == "user"
    assert (asked["max_tokens"], asked["temperature"]) == (50, 0.5)
    assert len(heard(first, "status")) == len({status["status"] for status in heard(first, "status")})


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, "404 page not found"),
        (404, {"error": {"message": LEAK, "code": "unknown_url"}}),
        (405, {"detail": LEAK}),
        (501, ""),
    ],
)
def test_a_missing_route_is_told_from_its_answer(
    start_service: StartService, speaker: ResponsesUpstream, status: int, said: Any
) -> None:
    service = start_service(speaker.base_url)

    played = play(service, speaker, {"missing": status, "said": said})

    assert_ends(played, completes()._replace(requests=2), service)
    assert [entry["play"] for entry in played.requests] == ["responses ok", "ok"]
    later = play(service, speaker, {})
    assert [entry["play"] for entry in later.requests] == ["ok"], "it was not remembered"


def test_a_run_that_hears_of_the_missing_route_later_than_another_is_answered_too(
    start_service: StartService, speaker: ResponsesUpstream
) -> None:
    service = start_service(speaker.base_url)
    token = f"late-{next(_numbers)}"
    script = {"token": token, "missing": 404, "missing_ms": 1500, "tokens": TOKENS}
    late = service.create(f"please <<{json.dumps(script)}>>", source="responses")
    speaker.wait_for_request(token)

    play(service, speaker, {"missing": 404})
    assert not speaker.log(token)[0]["finished"], "the other run was not the first to find out"

    with service.follow(late) as reader:
        reader.read_all()
    assert reader.events[-1].json()["type"] == "done"
    assert text_of(reader.events) == words(TOKENS)


def test_an_unknown_model_is_no_missing_route(
    start_service: StartService, speaker: ResponsesUpstream
) -> None:
    service = start_service(speaker.base_url)
    unknown = {"error": {"message": LEAK, "code": "model_not_found"}}

    played = play(service, speaker, {"missing": 404, "said": unknown})
    doubtful = play(service, speaker, {"missing": 404, "play": "status", "status": 404})
    later = play(service, speaker, {})

    assert_ends(played, fails("upstream_rejected", "model_not_found", retryable=False), service)
    assert_ends(doubtful, rejected._replace(requests=2), service)
    assert [entry["play"] for entry in later.requests] == ["responses ok"], "a wrong conclusion was drawn"


def test_an_upstream_that_speaks_responses_is_not_asked_for_chat_later(
    start_service: StartService, speaker: ResponsesUpstream
) -> None:
    service = start_service(speaker.base_url)
    play(service, speaker, {})

    played = play(service, speaker, {"missing": 404})

    assert_ends(played, rejected, service)


def test_a_fault_of_the_chat_that_was_asked_instead_is_retried(
    start_service: StartService, upstream: Upstream
) -> None:
    service = start_service(upstream.base_url, environment=SMALL_TIMEOUTS)

    played = play(service, upstream, {"play": "cut", "attempts_fail": 1})
    cut = play(service, upstream, {"play": "cut", "after": 2})

    assert_ends(played, completes()._replace(requests=2), service)
    assert_ends(cut, truncated_late, service)


FILE = """
[upstreams.speaks]
base_url = "{speaks}"
key = "FIRST_KEY"
[upstreams.chats]
base_url = "{chats}"
key = "SECOND_KEY"
[models.large]
upstream = "speaks"
fallbacks = ["small"]
[models.small]
upstream = "chats"
"""


@pytest.mark.parametrize("fault", [{"play": "failed"}, {"play": "cut"}, {"play": "silent_thought"}])
def test_a_fallback_may_speak_another_dialect(
    start_service: StartService,
    speaker: ResponsesUpstream,
    upstream: Upstream,
    tmp_path: Path,
    fault: Script,
) -> None:
    file = tmp_path / "upstreams.toml"
    file.write_text(FILE.format(speaks=speaker.base_url, chats=upstream.base_url))
    keys = {"FIRST_KEY": "sk-first-live-key", "SECOND_KEY": "sk-second-live-key"}
    more = {"UPSTREAMS": str(file), "MODEL": None, "UPSTREAM_RETRIES": "0", "IDLE_TIMEOUT_SECONDS": "1"}
    service = start_service(environment={**keys, **more})

    played = play(service, speaker, {"for": {"large": fault}})

    (first,) = played.requests
    (second,) = upstream.log(first["token"])
    assert text_of(played.reader.events) == words(TOKENS)
    assert played.last["type"] == "done"
    assert [status.get("model") for status in heard(played, "status") if status["status"] == "fallback"] == [
        "small"
    ]
    assert first["authorization"] == "Bearer sk-first-live-key"
    assert second["authorization"] == "Bearer sk-second-live-key"
    assert second["body"]["messages"][-1]["role"] == "user"


def test_the_demo_model_answers_without_a_key(start_service: StartService) -> None:
    service = start_service(environment={"OPENAI_BASE_URL": None, "OPENAI_API_KEY": None, "MODEL": None})

    with service.follow(service.create("hello", source="responses")) as reader:
        reader.read_all()

    assert reader.events[-1].json()["finish_reason"] == "stop"
    assert text_of(reader.events)


def test_the_log_can_be_followed_from_any_event(service: Service, speaker: ResponsesUpstream) -> None:
    played = play(service, speaker, {"play": "logprobs"})
    ids = [event.id for event in played.reader.events]

    for place in range(0, len(ids) - 1, 3):
        with service.follow(played.stream_id, after=ids[place]) as reader:
            reader.read_all()
        assert [event.id for event in reader.events] == ids[place + 1 :]
