"""``POST /v1/chat/completions``: what a client is told before, during and after an answer."""

import io
import json
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streaming.errors import (
    StreamingError,
    UpstreamAuth,
    UpstreamBadResponse,
    UpstreamFailure,
    UpstreamOverloaded,
    UpstreamQuota,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from streaming.eventlogs.memory import MemoryLog
from streaming.events import Done, Status, Token
from tests.chunk_streams import STREAMS
from tests.doubles import Gate, ScriptedSource, eventually, parse_event_stream
from tests.doubles import says as plainly
from tests.web.chat_answers import (
    JSON,
    MESSAGES,
    PATH,
    ask,
    chunks_of,
    data_of,
    refused,
    text_of,
    upstream_of,
)
from tests.web.conftest import Compose, Service, nothing_made

KEYED = {"Idempotency-Key": "mine"}

# What is refused


def body(**fields: Any) -> str:
    return json.dumps({"messages": MESSAGES} | fields)


def message(**fields: Any) -> str:
    return json.dumps({"messages": [{"role": "user", "content": "hello"} | fields]})


def deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


BODIES: dict[str, tuple[str | bytes, str | None]] = {
    # What JSON is not
    "nothing": ("", None),
    "not JSON": ("{messages: []}", None),
    "cut off": ('{"messages":[{"role":', None),
    "a list": ("[1]", None),
    "null": ("null", None),
    "invalid UTF-8": (b'{"messages":[{"role":"user","content":"\xff"}]}', None),
    "a lone surrogate": ('{"messages":[{"role":"user","content":"\\ud800"}]}', None),
    "NaN": ('{"messages":[{"role":"user","content":"a"}],"temperature":NaN}', None),
    "a huge integer": ('{"messages":[{"role":"user","content":"a"}],"seed":' + "9" * 5000 + "}", None),
    "too deep": ('{"messages":[{"role":"user","content":"a"}],"x":' + deep(70) + "}", None),
    "much too deep": ("[" * 100_000, None),
    "deep in a message": ('{"messages":[{"role":"user","content":"a","x":' + deep(5000) + "}]}", None),
    # Messages
    "no messages": ("{}", "messages"),
    "messages that are null": ('{"messages":null}', "messages"),
    "an empty list of messages": ('{"messages":[]}', "messages"),
    "messages that are text": ('{"messages":"hello"}', "messages"),
    "a message that is text": ('{"messages":["hello"]}', "messages[0]"),
    "too many messages": (json.dumps({"messages": MESSAGES * 1001}), "messages"),
    "too long messages": (message(content="a" * 300_000), "messages"),
    "an unknown role": (message(role="robot"), "messages[0].role"),
    "no role": ('{"messages":[{"content":"a"}]}', "messages[0].role"),
    "no content": ('{"messages":[{"role":"user"}]}', "messages[0].content"),
    "content that is a number": (message(content=5), "messages[0].content"),
    "a part that is text": (message(content=["a"]), "messages[0].content[0]"),
    "a part without its text": (message(content=[{"type": "text"}]), "messages[0].content[0].text"),
    "an image that is text": (
        message(content=[{"type": "image_url", "image_url": "x"}]),
        "messages[0].content[0].image_url.url",
    ),
    # Fields
    "a model that is a number": (body(model=4), "model"),
    "stream in words": (body(stream="yes"), "stream"),
    "stream as a number": (body(stream=1), "stream"),
    "stream options that are a number": (body(stream=True, stream_options=1), "stream_options"),
    "a usage in words": (
        body(stream=True, stream_options={"include_usage": "yes"}),
        "stream_options.include_usage",
    ),
    "stream options without a stream": (body(stream_options={"include_usage": True}), "stream_options"),
    "stream options with a stream that is false": (body(stream=False, stream_options={}), "stream_options"),
    "a temperature in words": (body(temperature="hot"), "temperature"),
    "a temperature that is true": (body(temperature=True), "temperature"),
    "a number of answers in words": (body(n="2"), "n"),
    "tokens in words": (body(max_tokens="many"), "max_tokens"),
    "completion tokens in a list": (body(max_completion_tokens=[5]), "max_completion_tokens"),
    "a stop that is a number": (body(stop=1), "stop"),
    "a stop among stops that is a number": (body(stop=["a", 1]), "stop[1]"),
    "tools that are text": (body(tools="weather"), "tools"),
    "a tool that is text": (body(tools=["weather"]), "tools[0]"),
    "a response format that is text": (body(response_format="json"), "response_format"),
    "log-probabilities as a number": (body(logprobs=1), "logprobs"),
    # Where a request goes, and in whose name
    "an upstream's address": (body(base_url="http://169.254.169.254/"), "base_url"),
    "another address": (body(api_base="http://169.254.169.254/"), "api_base"),
    "a key": (body(api_key="sk-x"), "api_key"),
    "headers": (body(extra_headers={"Authorization": "x"}), "extra_headers"),
    "a body beside the body": (body(extra_body={"model": "other"}), "extra_body"),
    "an organization": (body(organization="org-x"), "organization"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_refused_by_name_and_starts_nothing(shared: Service, name: str) -> None:
    sent, param = BODIES[name]
    with nothing_made(shared):
        response = shared.client.post(PATH, data=sent, headers=JSON)

    error = refused(response, response.status_code, "invalid_request_error", param=param, retryable=False)
    assert response.status_code in (400, 413)
    assert error["request_id"] == response.headers["X-Request-Id"]
    assert param is None or param in error["message"]
    assert "x-should-retry" not in response.headers, "no SDK would"


@pytest.mark.parametrize("model", ["gpt-9", "", "demo ", "x" * 100_000])
def test_an_unknown_model_is_not_found(shared: Service, model: str) -> None:
    with nothing_made(shared):
        response = ask(shared, model=model)

    refused(response, 404, "invalid_request_error", code="model_not_found", param="model")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "x", ""])
def test_a_body_of_another_type_is_refused(shared: Service, content_type: str) -> None:
    with nothing_made(shared):
        response = shared.client.post(PATH, data=body(), headers={"Content-Type": content_type})

    refused(response, 415, "invalid_request_error", code="content_type")


@pytest.mark.parametrize("told", [True, False], ids=["with its length", "in chunks"])
def test_a_body_that_is_too_large_is_refused(compose: Compose, told: bool) -> None:
    service = compose(ScriptedSource(*plainly("hi")), settings={"max_body_bytes": 1000})
    sent = message(content="x" * 2000).encode()
    if told:
        response = service.client.post(PATH, data=sent, headers=JSON)
    else:
        response = service.client.post(
            PATH,
            input_stream=io.BytesIO(sent),
            headers=JSON | {"Transfer-Encoding": "chunked"},
            environ_overrides={"wsgi.input_terminated": True},
        )

    refused(response, 413, "invalid_request_error", code="too_large")
    assert service.count() == 0


@pytest.mark.parametrize("key", ["", " ", "two words", "x" * 256, "é", "tab\there"])
def test_a_bad_idempotency_key_is_refused(shared: Service, key: str) -> None:
    with nothing_made(shared):
        response = ask(shared, {"Idempotency-Key": key.encode().decode("latin-1")})

    refused(response, 400, "invalid_request_error", param="Idempotency-Key")


def test_the_page_of_another_site_cannot_ask_in_its_visitors_name(shared: Service) -> None:
    with nothing_made(shared):
        response = ask(shared, {"Origin": "https://evil.example"})

    refused(response, 403, "invalid_request_error", code="origin")


def test_the_callers_request_id_is_on_answers_and_errors(shared: Service) -> None:
    good = ask(shared, {"X-Request-Id": "mine-1"})
    bad = ask(shared, {"X-Request-Id": "mine-2"}, messages=[])

    assert good.headers["X-Request-Id"] == "mine-1"
    assert bad.headers["X-Request-Id"] == bad.json["error"]["request_id"] == "mine-2"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    "messages model stream stream_options n stop tools tool_choice response_format max_tokens seed logprobs"
    " top_logprobs temperature logit_bias metadata functions reasoning_effort".split()
)
PARTS = st.dictionaries(
    st.sampled_from(["role", "content", "tool_calls", "name", "tool_call_id", "function_call"]),
    st.sampled_from(["system", "user", "assistant", "tool", "hello"]) | VALUES,
    max_size=4,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(FIELDS, VALUES, max_size=4), messages=st.none() | st.lists(PARTS, max_size=3))
def test_whatever_is_sent_is_answered_or_refused_with_a_reason(
    shared: Service, fields: dict[str, Any], messages: list[Any] | None
) -> None:
    sent = {"messages": messages or MESSAGES} | fields
    response = shared.client.post(PATH, data=json.dumps(sent), headers=JSON, buffered=True)

    assert response.status_code in (200, 400, 404, 413), response.text
    if response.status_code != 200:
        refused(response, response.status_code, "invalid_request_error")


# Before the first word


FAULTS: dict[str, tuple[StreamingError, int, str, str, str | None]] = {
    # the fault: status, type, code, x-should-retry
    "unreachable": (UpstreamUnreachable("x"), 502, "server_error", "upstream_unreachable", "true"),
    "silent": (UpstreamTimeout("x", code="first_token"), 504, "server_error", "upstream_timeout", "true"),
    "its key refused": (UpstreamAuth("x"), 502, "server_error", "upstream_auth", "false"),
    "overloaded": (UpstreamOverloaded("x"), 503, "server_error", "upstream_overloaded", "true"),
    "rate limited": (
        UpstreamRateLimited("x"), 429, "rate_limit_error", "rate_limit_exceeded", "true",
    ),
    "out of quota": (UpstreamQuota("x"), 429, "insufficient_quota", "insufficient_quota", "false"),
    "failing": (UpstreamFailure("x"), 502, "server_error", "upstream_error", "true"),
    "not an answer": (
        UpstreamBadResponse("x", code="json"), 502, "server_error", "upstream_bad_response", "false",
    ),
    "truncated": (UpstreamTruncated("x"), 502, "server_error", "upstream_truncated", "true"),
    "rejecting": (
        UpstreamRejected("x", code="context_length_exceeded"),
        400, "invalid_request_error", "context_length_exceeded", None,
    ),
    "without that model": (
        UpstreamRejected("x", code="model_not_found", status=404),
        404, "invalid_request_error", "model_not_found", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_run_that_fails_before_its_first_word_gets_a_status(
    compose: Compose, name: str, stream: bool
) -> None:
    error, status, kind, code, retry = FAULTS[name]
    service = compose(ScriptedSource([Status("thinking", 1)], error))

    response = ask(service, stream=stream)

    refused(response, status, kind, code=code)
    assert response.headers.get("x-should-retry") == retry
    assert ("Retry-After" in response.headers) == (status in (429, 503))
    where = response.headers["Content-Location"]
    assert service.snapshot(where.removeprefix("/streams/"))["state"] == "failed"


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_header_tells_which_model_answered_instead(compose: Compose, stream: bool) -> None:
    asked = [Status("thinking", 1), Status("fallback", 2, "second")], [Status("fallback", 3, "third")]

    response = ask(compose(ScriptedSource(*asked, [Status("thinking", 4)], *plainly("hi"))), stream=stream)

    assert response.status_code == 200
    assert response.headers["Stream-Fallback"] == "third"


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_no_header_tells_of_a_model_that_was_not_asked(compose: Compose, stream: bool) -> None:
    response = ask(compose(ScriptedSource([Status("retrying", 1)], *plainly("hi"))), stream=stream)

    assert response.status_code == 200
    assert "Stream-Fallback" not in response.headers


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_fault_of_our_own_is_not_told_in_detail(compose: Compose, stream: bool) -> None:
    def break_() -> None:
        raise ZeroDivisionError("secret detail")

    response = ask(compose(ScriptedSource(break_)), stream=stream)

    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.headers["x-should-retry"] == "false"


def test_a_service_that_is_full_says_when_to_come_again(compose: Compose) -> None:
    gate = Gate()
    service = compose(ScriptedSource(gate), settings={"max_streams": 1})
    service.create()

    response = ask(service, stream=True)

    refused(response, 503, "server_error", code="overloaded")
    assert response.headers["Retry-After"] == "5"
    assert response.headers["x-should-retry"] == "true"
    assert "Stream-Id" not in response.headers, "no run was made"


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_run_cancelled_before_its_answer_has_a_status_that_no_client_repeats(
    compose: Compose, stream: bool
) -> None:
    gate, log = Gate(), MemoryLog()
    service = compose(ScriptedSource(gate), log)
    asking = gevent.spawn(ask, service, stream=stream)
    assert gate.reached.wait(5)
    (stream_id,) = log._streams

    service.client.application.test_client().post(f"/streams/{stream_id}/cancel")
    response = asking.get(timeout=5)

    refused(response, 499, "invalid_request_error", code="cancelled", retryable=False)
    assert response.headers["Stream-Id"] == stream_id


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_what_the_upstream_says_of_a_refusal_reaches_who_waits(compose: Compose, stream: bool) -> None:
    slow_down = UpstreamRateLimited("slow down", retry_after_seconds=60)
    response = ask(compose(ScriptedSource(slow_down)), stream=stream)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "60")

    too_large = UpstreamRejected("no", code="context_length_exceeded", status=413)
    response = ask(compose(ScriptedSource(too_large)), stream=stream)
    assert (response.status_code, response.json["error"]["code"]) == (413, "context_length_exceeded")


def test_a_failure_behind_the_first_words_is_never_a_status(compose: Compose) -> None:
    """Else an SDK would ask again, and pay again, for words that somebody has read."""
    service = compose(ScriptedSource([Token("Hel")], UpstreamTruncated("cut off")))
    asked = service.client.post(PATH, json={"messages": MESSAGES, "stream": True}, headers=KEYED)
    eventually(lambda: service.snapshot(asked.headers["Stream-Id"])["state"] == "failed")

    # Words and failure are read in one batch now.
    again = service.client.post(PATH, json={"messages": MESSAGES, "stream": True}, headers=KEYED)

    assert again.status_code == 200
    events = parse_event_stream(again.data).heard
    assert json.loads(events[0].data)["choices"][0]["delta"]["content"] == "Hel"
    assert json.loads(events[-1].data)["error"]["code"] == "upstream_truncated"


def test_a_named_request_whose_client_is_lost_is_found_going_on(compose: Compose) -> None:
    gate = Gate()
    service = compose(ScriptedSource([Token("Hel")], gate, [Token("lo"), Done("stop")]))
    lost = service.client.post(PATH, json={"messages": MESSAGES, "stream": True}, headers=KEYED)
    next(iter(lost.response))
    lost.close()
    gate.open()

    again = service.client.post(PATH, json={"messages": MESSAGES, "stream": True}, headers=KEYED)

    assert again.headers["Idempotent-Replayed"] == "true"
    assert parse_event_stream(again.data).heard[-1].data == "[DONE]"


def test_an_answer_that_does_not_begin_within_a_heartbeat_is_opened(compose: Compose) -> None:
    gate = Gate()
    service = compose(ScriptedSource(gate, UpstreamFailure("late")), settings={"heartbeat_seconds": 0.05})

    response = service.client.post(PATH, json={"messages": MESSAGES, "stream": True})
    body_ = iter(response.response)
    beats = [next(body_) for _ in range(3)]
    gate.open()
    rest = b"".join(body_)

    assert response.status_code == 200
    assert beats == [b": hb\n"] * 3
    last = parse_event_stream(rest).heard[-1]
    assert json.loads(last.data)["error"]["code"] == "upstream_error"


def test_what_no_view_takes_is_refused_in_this_dialect_too(service: Service) -> None:
    refused(service.client.get("/v1/nothing"), 404, "invalid_request_error", code="not_found")
    refused(service.client.get(PATH), 405, "invalid_request_error", code="method")
    assert service.client.get(PATH).headers["Allow"] == "OPTIONS, POST"
    native = service.client.get("/nothing").json["error"]
    assert native["type"] == "not_found"


# After the first word


@pytest.mark.parametrize(
    "error",
    [
        UpstreamTruncated("the model's answer was cut off"),
        UpstreamTimeout("silent", code="idle"),
        UpstreamFailure("failed"),
        UpstreamBadResponse("no chunk", code="json"),
    ],
)
def test_a_failure_after_the_first_word_comes_in_band_and_no_done(
    compose: Compose, error: StreamingError
) -> None:
    gate = Gate()
    service = compose(upstream_of(STREAMS["plain"][:-1], gate, error))
    response = service.client.post(PATH, json={"messages": MESSAGES, "stream": True})
    first = next(iter(response.response))

    gate.open()
    body_ = first + b"".join(response.response)
    said = [json.loads(event.data) for event in parse_event_stream(body_).heard]

    assert text_of(said[:-1]) == "Hello"
    assert set(said[-1]) == {"error"}
    assert said[-1]["error"]["code"] == error.type
    assert said[-1]["error"]["message"] == str(error)
    assert not any(choice["finish_reason"] for one in said[:-1] for choice in one["choices"])


def test_a_whole_answer_that_fails_half_way_is_no_answer(compose: Compose) -> None:
    service = compose(ScriptedSource([Token("half an ans")], UpstreamTruncated("cut off")))

    response = ask(service)

    refused(response, 502, "server_error", code="upstream_truncated")
    assert response.headers["x-should-retry"] == "true"
    assert service.snapshot(response.headers["Stream-Id"])["text"] == "half an ans"


def test_an_answer_that_is_cancelled_half_way_ends_in_an_error(compose: Compose) -> None:
    gate = Gate()
    service = compose(ScriptedSource([Token("so far")], gate))
    response = service.client.post(PATH, json={"messages": MESSAGES, "stream": True})
    body_ = iter(response.response)
    first = next(body_)

    service.client.application.test_client().post(response.headers["Content-Location"] + "/cancel")
    said = [json.loads(event.data) for event in parse_event_stream(first + b"".join(body_)).heard]

    assert text_of(said[:-1]) == "so far"
    assert said[-1]["error"]["code"] == "cancelled"


# The same request again


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_the_same_key_joins_the_run(compose: Compose, stream: bool) -> None:
    source = upstream_of(STREAMS["plain"])
    service = compose(source)

    first, again = (ask(service, {"Idempotency-Key": "k-1"}, stream=stream) for _ in range(2))

    assert source.opened == 1
    assert again.data == first.data
    assert again.headers["Stream-Id"] == first.headers["Stream-Id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers


def test_the_same_key_joins_a_run_that_goes_on(compose: Compose) -> None:
    gate = Gate()
    source = ScriptedSource([Token("one ")], gate, [Token("two")], [Done("stop")])
    service = compose(source)
    asking = [gevent.spawn(ask, service, {"Idempotency-Key": "k"}, stream=True) for _ in range(2)]
    eventually(lambda: len(service.streams._readers) == 2)

    gate.open()

    assert [text_of(chunks_of(each.get(timeout=5))) for each in asking] == ["one two"] * 2
    assert source.opened == 1


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_the_same_key_hears_the_same_failure_and_pays_once(compose: Compose, stream: bool) -> None:
    source = ScriptedSource(UpstreamOverloaded("busy"))
    service = compose(source)

    first, again = (ask(service, {"Idempotency-Key": "k-1"}, stream=stream) for _ in range(2))

    assert (first.status_code, again.status_code) == (503, 503)
    assert again.headers["Stream-Id"] == first.headers["Stream-Id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert source.opened == 1


@pytest.mark.parametrize(
    "other",
    [
        {"messages": [{"role": "user", "content": "bye"}]},
        {"temperature": 1},
        {"stream": True},
        {"x_unknown": 1},
    ],
)
def test_the_same_key_with_another_body_is_refused(compose: Compose, other: dict[str, Any]) -> None:
    source = ScriptedSource(*plainly("hi"))
    service = compose(source)
    ask(service, {"Idempotency-Key": "k-1"})

    response = ask(service, {"Idempotency-Key": "k-1"}, **other)

    refused(response, 422, "invalid_request_error", code="idempotency_mismatch")
    assert source.opened == 1


def test_without_a_key_the_same_request_is_another_run(compose: Compose) -> None:
    source = ScriptedSource(*plainly("hi"))
    service = compose(source)

    assert ask(service).headers["Stream-Id"] != ask(service).headers["Stream-Id"]
    assert source.opened == 2


# The run behind the answer


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_the_run_can_be_followed_in_every_format(service: Service, stream: bool) -> None:
    response = ask(service, model="demo", stream=stream)
    where = response.headers["Content-Location"]
    answer = response.get_data()

    assert where == f"/streams/{response.headers['Stream-Id']}"
    text = service.snapshot(response.headers["Stream-Id"])["text"]
    followed = {name: heard_text(name, service.client.get(f"{where}?format={name}").data) for name in NAMES}
    assert followed == dict.fromkeys(NAMES, text)
    assert text
    name = "openai_chat" if stream else "openai_completion"
    assert service.client.get(f"{where}?format={name}").data.rstrip(b"\n") == answer.rstrip(b"\n")


NAMES = ["native", "simple", "text", "ndjson", "openai_chat", "openai_completion"]


def test_what_was_asked_goes_to_the_upstream_whole(compose: Compose) -> None:
    source = ScriptedSource(*plainly("hi"))
    service = compose(source)
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}

    ask(service, model="demo", temperature=0.5, tools=[tool], x_unknown={"a": [None]}, user="u", stop=None)

    (prompt,) = source.prompts
    assert (prompt.model, prompt.messages) == ("demo", MESSAGES)
    assert prompt.params == {
        "temperature": 0.5, "tools": [tool], "x_unknown": {"a": [None]}, "user": "u", "stop": None,
    }  # fmt: skip


DIALECTS: dict[str, Callable[[str], str]] = {
    "native": lambda at: f"?format=native&after={at}",
    "simple": lambda at: f"?format=simple&after={at}",
    "text": lambda at: f"?format=text&after={at}",
    "ndjson": lambda at: f"?format=ndjson&after={at}",
}


@pytest.mark.parametrize("name", DIALECTS)
def test_cut_anywhere_and_rejoined_in_another_dialect_the_text_is_the_same(
    compose: Compose, name: str
) -> None:
    service = compose(upstream_of(STREAMS["reasoning, then text"] + STREAMS["parallel calls"]))
    whole = ask(service, stream=True)
    text, where = text_of(chunks_of(whole)), whole.headers["Content-Location"]
    native = service.follow(f"{where}?format=native")

    joined = []
    for cut in range(len(native)):
        at = native[cut - 1].last_event_id if cut else "0.0"
        had = [json.loads(event.data) for event in native[:cut]]
        rest = service.client.get(f"{where}{DIALECTS[name](at)}")
        before = "".join(event["content"] for event in had if event["type"] == "token")
        joined.append(before + heard_text(name, rest.data))

    assert joined == [text] * len(native)
    assert text


def test_a_cut_off_chat_client_finds_what_it_has_at_the_start_of_the_run(compose: Compose) -> None:
    service = compose(upstream_of(STREAMS["log-probabilities"]))
    whole = ask(service, stream=True)
    said = data_of(whole)

    for cut in range(len(said)):
        again = data_of(service.client.get(whole.headers["Content-Location"] + "?format=openai_chat"))
        assert again[:cut] == said[:cut]
        assert again[cut:] == said[cut:]


def heard_text(name: str, body: bytes) -> str:
    """Return the text as a client of this format joins it."""
    if name == "openai_completion":
        return str(json.loads(body)["choices"][0]["message"]["content"])
    if name == "ndjson":
        said = [json.loads(line) for line in body.splitlines()]
    else:
        data = [event.data for event in parse_event_stream(body).heard]
        if name == "text":
            return "".join(line for line in data if line != "[DONE]")
        said = [json.loads(one) for one in data if one != "[DONE]"]
    if name == "openai_chat":
        return text_of(said)
    return "".join(one.get("content", "") for one in said if one.get("type", "token") == "token")
