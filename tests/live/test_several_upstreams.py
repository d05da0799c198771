"""Several upstreams: when one fails before its first word, the next answers, and only once."""

import itertools
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.service import (
    PATIENCE_SECONDS,
    Answer,
    EventReader,
    Service,
    Upstream,
    sequence_of,
    text_of,
    times_asked,
    wait_until,
)
from tests.live.upstream import LEAK, Script, contents

KEYS = {"FIRST_KEY": "sk-first-live-key", "SECOND_KEY": "sk-second-live-key"}
# What the SDK would send to every upstream by itself.
AMBIENT = {
    "OPENAI_API_KEY": "sk-ambient-live-key",
    "OPENAI_ORG_ID": "org-ambient",
    "OPENAI_PROJECT_ID": "proj-ambient",
    "OPENAI_CUSTOM_HEADERS": "Authorization: Bearer sk-ambient-live-key\nX-Ambient: sk-ambient-live-key",
}
FILE = """
[upstreams.first]
base_url = "{first}"
key = "FIRST_KEY"
[upstreams.second]
base_url = "{second}"
key = "SECOND_KEY"
[upstreams.gone]
base_url = "http://127.0.0.1:{closed}/v1"

[models.large]
upstream = "first"
model = "org/large"
fallbacks = ["small"]
[models.small]
upstream = "second"
model = "org/small"
[models.away]
upstream = "gone"
fallbacks = ["small"]
[models.long]
upstream = "gone"
fallbacks = ["away", "large", "small"]
[models.alone]
upstream = "first"
model = "org/alone"
"""
TOKENS = 6
TEXT = "".join(contents({"tokens": TOKENS}))
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def second() -> Iterator[Upstream]:
    second = Upstream()
    yield second
    second.stop()


@pytest.fixture(scope="module")
def service(
    upstream: Upstream, second: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """One worker with several upstreams, to which it gives about a second."""
    directory = tmp_path_factory.mktemp("several")
    file = directory / "upstreams.toml"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: a connect is refused
        port = unused.getsockname()[1]
        file.write_text(FILE.format(first=upstream.base_url, second=second.base_url, closed=port))
        service = Service(
            directory,
            "http://127.0.0.1:1/v1",  # not asked: the file says who is
            environment={
                **KEYS,
                **AMBIENT,
                "UPSTREAMS": str(file),
                "MODEL": None,
                "CONNECT_TIMEOUT_SECONDS": "1",
                "FIRST_TOKEN_TIMEOUT_SECONDS": "2",
                "IDLE_TIMEOUT_SECONDS": "1",
                "UPSTREAM_RETRIES": "1",
            },
        )
        yield service
        service.stop()


@pytest.fixture
def token() -> str:
    return f"several-{next(_numbers)}"


def prompt_of(token: str, first: Script, second: Script | None = None) -> str:
    """Return a prompt that makes the two upstreams play these scripts."""
    plays = {"org/large": first, "org/alone": first, "org/small": second or {}}
    return f"please <<{json.dumps({'token': token, 'tokens': TOKENS, 'for': plays})}>>"


def statuses_of(reader: EventReader) -> list[tuple[str, str]]:
    messages = [event.json() for event in reader.events]
    return [(m["status"], m.get("model", "")) for m in messages if m["type"] == "status"]


def ask(service: Service, prompt: str, **fields: object) -> EventReader:
    """Return the reader of a whole run."""
    with service.create_and_follow(prompt, **fields) as reader:
        assert reader.status in (200, 201), bytes(reader.raw)
        reader.read_all()
    assert [event.is_last for event in reader.events] == [False] * (len(reader.events) - 1) + [True]
    sequence_of(reader.events)
    return reader


def assert_answered_by_second(reader: EventReader, first: list[Any], second: list[Any]) -> None:
    """The answer is the second upstream's, whole, once, and every request of the first is over."""
    assert text_of(reader.events) == TEXT
    assert reader.events[-1].json()["type"] == "done"
    assert reader.events[-1].json()["finish_reason"] == "stop"
    assert ("fallback", "small") in statuses_of(reader)
    assert len(second) == 1
    assert second[0]["body"]["model"] == "org/small"
    assert {entry["body"]["model"] for entry in first} <= {"org/large"}


FAULTS: dict[str, tuple[Script, int]] = {
    "500": ({"play": "status", "status": 500}, 2),
    "503": ({"play": "status", "status": 503}, 2),
    "401": ({"play": "status", "status": 401}, 1),
    "429": ({"play": "status", "status": 429}, 1),
    "429 with a long wait": ({"play": "status", "status": 429, "retry_after": 8}, 1),
    "quota": ({"play": "status", "status": 429, "code": "insufficient_quota"}, 1),
    "model not found": ({"play": "status", "status": 404, "code": "model_not_found"}, 1),
    "model not found, said inside a stream": ({"play": "stream_error", "code": "model_not_found"}, 1),
    "reset": ({"play": "reset"}, 1),
    "a page": ({"play": "html"}, 1),
    "silence before headers": ({"play": "hang"}, 1),
    "only comments": ({"play": "comments"}, 1),
    "only a role, then an error": (
        {
            "raw_chunks": [
                {"choices": [{"index": 0, "delta": {"role": "assistant"}}]},
                {"error": {"code": 500}},
            ]
        },
        2,
    ),
    "cut before the first word": ({"play": "cut"}, 2),
    "half open": ({"play": "half_open"}, 2),
}


@pytest.mark.parametrize(("fault", "requests"), FAULTS.values(), ids=FAULTS)
def test_a_fault_before_the_first_word_is_answered_by_the_next(
    service: Service, upstream: Upstream, second: Upstream, token: str, fault: Script, requests: int
) -> None:
    reader = ask(service, prompt_of(token, fault))

    assert_answered_by_second(reader, upstream.log(token), second.log(token))
    assert times_asked(upstream.log(token)) == requests
    wait_until(
        lambda: all(
            entry["finished"] or entry["t_closed_by_peer"] or entry["t_closed_by_us"]
            for entry in upstream.log(token)
        ),
        PATIENCE_SECONDS,
        "no request to the first upstream is open any more",
    )
    seen = bytes(reader.raw).decode(errors="replace") + service.log_text()
    assert LEAK not in seen
    assert not [key for key in (*KEYS.values(), AMBIENT["OPENAI_API_KEY"]) if key[3:] in seen]


def test_an_upstream_that_is_down_is_answered_by_the_next(
    service: Service, second: Upstream, token: str
) -> None:
    reader = ask(service, prompt_of(token, {}), model="away")

    assert_answered_by_second(reader, [], second.log(token))


def test_an_upstream_that_works_is_the_only_one_asked(
    service: Service, upstream: Upstream, second: Upstream, token: str
) -> None:
    reader = ask(service, prompt_of(token, {}))

    assert text_of(reader.events) == TEXT
    assert statuses_of(reader) == [("connecting", ""), ("thinking", "")]
    assert [entry["body"]["model"] for entry in upstream.log(token)] == ["org/large"]
    assert second.log(token) == []


def test_fallbacks_are_asked_one_after_the_other(
    service: Service, upstream: Upstream, second: Upstream, token: str
) -> None:
    reader = ask(service, prompt_of(token, {"play": "status", "status": 401}), model="long")

    assert_answered_by_second(reader, upstream.log(token), second.log(token))
    fallbacks = [model for status, model in statuses_of(reader) if status == "fallback"]
    assert fallbacks == ["away", "large", "small"]


@pytest.mark.parametrize(
    "mistake",
    [
        {"play": "status", "status": 400},
        {"play": "status", "status": 400, "code": "context_length_exceeded"},
        {"play": "status", "status": 422},
        {"play": "json_error", "code": "invalid_prompt"},
    ],
    ids=["400", "context", "422", "a prompt"],
)
def test_the_caller_s_own_mistake_is_not_asked_again_elsewhere(
    service: Service, second: Upstream, token: str, mistake: Script
) -> None:
    reader = ask(service, prompt_of(token, mistake))

    assert reader.events[-1].json()["error"]["type"] == "upstream_rejected"
    assert second.log(token) == []


@pytest.mark.parametrize(
    ("fault", "type"),
    [
        ({"play": "cut", "after": 2}, "upstream_truncated"),
        ({"play": "stream_error", "after": 2}, "upstream_error"),
        ({"play": "half_open", "after": 2}, "upstream_timeout"),
    ],
    ids=["cut", "error", "silence"],
)
def test_after_the_first_word_a_fault_ends_the_run_and_nobody_else_is_asked(
    service: Service, upstream: Upstream, second: Upstream, token: str, fault: Script, type: str
) -> None:
    reader = ask(service, prompt_of(token, fault))

    error = reader.events[-1].json()["error"]
    assert (error["type"], error["partial"]) == (type, True)
    assert text_of(reader.events) == "".join(contents({"tokens": 2}))
    assert len(upstream.log(token)) == 1
    assert second.log(token) == []


def test_where_all_fail_the_fault_that_may_pass_is_told(
    service: Service, upstream: Upstream, second: Upstream, token: str
) -> None:
    prompt = prompt_of(token, {"play": "status", "status": 503}, {"play": "status", "status": 401})

    error = ask(service, prompt).events[-1].json()["error"]

    assert (error["type"], error["retryable"], error["partial"]) == ("upstream_overloaded", True, False)
    assert (len(upstream.log(token)), len(second.log(token))) == (2, 1)


def test_a_resume_after_a_fallback_gives_the_rest_at_every_cursor(
    service: Service, second: Upstream, token: str
) -> None:
    whole = ask(service, prompt_of(token, {"play": "status", "status": 500}))
    stream_id = whole.headers["stream-id"]

    for place, event in enumerate(whole.events[:-1]):
        with service.follow(stream_id, after=event.id) as rest:
            rest.read_all()
        assert [e.id for e in rest.events] == [e.id for e in whole.events[place + 1 :]]
        assert text_of(whole.events[: place + 1]) + text_of(rest.events) == TEXT
    assert len(second.log(token)) == 1


def test_a_reader_that_joins_in_the_middle_of_a_fallback_sees_it_all(
    service: Service, second: Upstream, token: str
) -> None:
    prompt = prompt_of(token, {"play": "status", "status": 500}, {"pace_ms": 100})
    with service.create_and_follow(prompt) as first:
        first.read_until("token")
        with service.follow(first.headers["stream-id"]) as late:
            late.read_all()
        first.read_all()

    assert [(e.id, e.data) for e in late.events] == [(e.id, e.data) for e in first.events]
    assert ("fallback", "small") in statuses_of(late)


@pytest.mark.parametrize(
    ("first", "second_play", "where"),
    [
        ({"play": "hang"}, {}, "first"),
        ({"play": "status", "status": 500}, {"play": "hang"}, "second"),
        ({"play": "status", "status": 500}, {"play": "half_open", "after": 1}, "second"),
    ],
    ids=["in the first request", "in the fallback's", "in the fallback's answer"],
)
def test_a_cancel_closes_the_socket_it_meets(
    service: Service,
    upstream: Upstream,
    second: Upstream,
    token: str,
    first: Script,
    second_play: Script,
    where: str,
) -> None:
    asked = upstream if where == "first" else second
    stream_id = service.create(prompt_of(token, first, second_play))
    asked.wait_for_request(token)

    cancelled_at = time.monotonic()
    receipt = service.request("POST", f"/streams/{stream_id}/cancel").json()

    assert (receipt["state"], receipt["upstream"]) == ("cancelled", "closed")
    assert asked.wait_for_close(token) - cancelled_at <= 1.0
    assert len(asked.log(token)) == 1
    assert (len(second.log(token)) == 0) == (where == "first")


def test_a_client_that_leaves_during_a_fallback_ends_it(
    service: Service, second: Upstream, token: str
) -> None:
    prompt = prompt_of(token, {"play": "status", "status": 500}, {"play": "hang"})
    with service.create_and_follow(prompt, on_disconnect="cancel"):
        second.wait_for_request(token)
        left_at = time.monotonic()

    assert second.wait_for_close(token) - left_at <= 1.5


def test_a_key_goes_to_its_own_upstream_only_and_nothing_of_the_environment_to_any(
    service: Service, upstream: Upstream, second: Upstream, token: str
) -> None:
    ask(service, prompt_of(token, {"play": "status", "status": 500}))

    assert {entry["authorization"] for entry in upstream.log(token)} == {f"Bearer {KEYS['FIRST_KEY']}"}
    assert {entry["authorization"] for entry in second.log(token)} == {f"Bearer {KEYS['SECOND_KEY']}"}
    for entry in upstream.log(token) + second.log(token):
        assert "ambient" not in json.dumps(entry["headers"])


# OpenAI's dialect


def complete(service: Service, prompt: str, **fields: object) -> Answer:
    body = {"model": "large", "messages": [{"role": "user", "content": prompt}], **fields}
    return service.request("POST", "/v1/chat/completions", body)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_of_openai_s_api_is_told_who_answered_in_a_header(
    service: Service, token: str, stream: bool
) -> None:
    answer = complete(service, prompt_of(token, {"play": "status", "status": 500}), stream=stream)

    assert answer.status == 200
    assert answer.headers["stream-fallback"] == "small"
    if stream:
        assert answer.body.rstrip().endswith(b"data: [DONE]")
    else:
        assert answer.json()["choices"][0]["message"]["content"] == TEXT


@pytest.mark.parametrize("stream", [True, False])
def test_no_header_tells_of_a_fallback_that_was_not_needed(
    service: Service, token: str, stream: bool
) -> None:
    assert "stream-fallback" not in complete(service, prompt_of(token, {}), stream=stream).headers


@pytest.mark.parametrize(
    ("path", "question", "status", "code"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}, 404, "model_not_found"),
        ("/v1/responses", {"input": "hi"}, 404, "model_not_found"),
        ("/streams", {"prompt": "hi"}, 400, "unknown_model"),
    ],
    ids=["chat", "responses", "native"],
)
def test_a_model_that_is_not_in_the_file_is_refused(
    service: Service, path: str, question: dict[str, Any], status: int, code: str
) -> None:
    answer = service.request("POST", path, {"model": "org/large", **question})

    assert answer.status == status
    error = answer.json()["error"]
    assert (error["param"], error["code"]) == ("model", code)


def test_the_stream_options_of_the_caller_are_passed_on_and_the_usage_is_asked_for(
    service: Service, upstream: Upstream, token: str
) -> None:
    options = {"include_usage": False, "include_obfuscation": False}
    answer = complete(service, prompt_of(token, {}), stream=True, stream_options=options, x_new="kept")

    body = upstream.log(token)[0]["body"]
    assert answer.status == 200
    assert body["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert body["x_new"] == "kept"
    assert b'"usage":{' not in answer.body
