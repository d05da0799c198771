"""Whatever is sent, the answer is a clear refusal or a stream; never a half of one."""

import io
import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streaming.errors import StoreUnavailable, UpstreamRateLimited
from tests.doubles import ScriptedSource, UnsteadyLog, says
from tests.web.conftest import Compose, Service, nothing_made, refused

JSON = {"Content-Type": "application/json"}
PROMPT = '"prompt":"hello"'


def deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def message(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hello"} | fields]}


BODIES: dict[str, tuple[str | bytes, str | None]] = {
    # What JSON is not
    "nothing": ("", None),
    "blanks": (" \n ", None),
    "not JSON": ("{prompt: hello}", None),
    "cut off": ('{"prompt":"hel', None),
    "two objects": ('{"prompt":"a"}{"prompt":"b"}', None),
    "a list": ("[1]", None),
    "a string": ('"hello"', None),
    "a number": ("1", None),
    "null": ("null", None),
    "invalid UTF-8": (b'{"prompt":"\xff"}', None),
    "invalid UTF-8 in a name": (b'{"\xff":1}', None),
    "UTF-16": ('{"prompt":"hello"}'.encode("utf-16"), None),
    "a lone surrogate": ('{"prompt":"\\ud800"}', None),
    "a control character": ('{"prompt":"a\nb"}', None),
    "NaN": ('{"prompt":"a","params":{"temperature":NaN}}', None),
    "Infinity": ('{"prompt":"a","timeout_seconds":Infinity}', None),
    "too deep": ('{"prompt":"a","params":{"metadata":' + deep(70) + "}}", None),
    "much too deep": ("[" * 100_000, None),
    "deep in a message": ('{"messages":[{"role":"user","content":"a","x":' + deep(5000) + "}]}", None),
    # Fields
    "an unknown field": ('{"prompt":"a","promt":"b"}', "promt"),
    "an unknown parameter": ('{"prompt":"a","params":{"temprature":1}}', "params.temprature"),
    "a very long unknown field": ('{"prompt":"a","' + "x" * 100_000 + '":1}', "x" * 100_000),
    "no prompt": ("{}", "prompt"),
    "an empty prompt": ('{"prompt":""}', "prompt"),
    "a blank prompt": ('{"prompt":" \\n\\t"}', "prompt"),
    "a prompt and messages": ('{"prompt":"a","messages":[{"role":"user","content":"b"}]}', "prompt"),
    "a prompt that is a number": ('{"prompt":1}', "prompt"),
    "a prompt that is a list": ('{"prompt":["a"]}', "prompt"),
    "a prompt that is too long": ('{"prompt":"' + "x" * 200_001 + '"}', "prompt"),
    "an unknown model": ('{"prompt":"a","model":"gpt-9"}', "model"),
    "an empty model": ('{"prompt":"a","model":""}', "model"),
    "a very long model": ('{"prompt":"a","model":"' + "x" * 100_000 + '"}', "model"),
    "an unknown source": ('{"prompt":"a","source":"nobody"}', "source"),
    "a helper as a source": ('{"prompt":"a","source":"_demo"}', "source"),
    "a path as a source": ('{"prompt":"a","source":"../eventlogs/memory"}', "source"),
    "a very long source": ('{"prompt":"a","source":"' + "x" * 100_000 + '"}', "source"),
    "an unknown policy": ('{"prompt":"a","on_disconnect":"never"}', "on_disconnect"),
    "no time": ('{"prompt":"a","timeout_seconds":0}', "timeout_seconds"),
    "negative time": ('{"prompt":"a","timeout_seconds":-1}', "timeout_seconds"),
    "a time in words": ('{"prompt":"a","timeout_seconds":"long"}', "timeout_seconds"),
    "a bad message id": ('{"prompt":"a","message_id":"two words"}', "message_id"),
    "an empty message id": ('{"prompt":"a","message_id":""}', "message_id"),
    "a very long message id": ('{"prompt":"a","message_id":"' + "x" * 256 + '"}', "message_id"),
    "a message id with a newline": ('{"prompt":"a","message_id":"x\\n"}', "message_id"),
    "instructions that are a list": ('{"prompt":"a","instructions":[]}', "instructions"),
    "params that are a list": ('{"prompt":"a","params":[]}', "params"),
    # Messages
    "no messages": ('{"messages":[]}', "messages"),
    "messages that are an object": ('{"messages":{}}', "messages"),
    "too many messages": (
        json.dumps({"messages": [{"role": "user", "content": "a"}] * 1001}),
        "messages",
    ),
    "too long messages": (json.dumps({"messages": [{"role": "user", "content": "a" * 300_000}]}), "messages"),
    "an unknown role": (json.dumps(message(role="robot")), "messages[0].role"),
    "a role that is a number": (json.dumps(message(role=1)), "messages[0].role"),
    "no role": ('{"messages":[{"content":"a"}]}', "messages[0].role"),
    "no content": ('{"messages":[{"role":"user"}]}', "messages[0].content"),
    "content that is null": (json.dumps(message(content=None)), "messages[0].content"),
    "content that is a number": (json.dumps(message(content=5)), "messages[0].content"),
    "a part that is a string": (json.dumps(message(content=["a"])), "messages[0].content[0]"),
    "a part without a type": (json.dumps(message(content=[{"text": "a"}])), "messages[0].content[0]"),
    "a part without its text": (
        json.dumps(message(content=[{"type": "text"}])),
        "messages[0].content[0].text",
    ),
    "an image without a URL": (
        json.dumps(message(content=[{"type": "text", "text": "a"}, {"type": "image_url"}])),
        "messages[0].content[1].image_url.url",
    ),
    "an image that is a string": (
        json.dumps(message(content=[{"type": "image_url", "image_url": "x"}])),
        "messages[0].content[0].image_url.url",
    ),
    # Parameters
    "too hot": ('{"prompt":"a","params":{"temperature":2.1}}', "params.temperature"),
    "too cold": ('{"prompt":"a","params":{"temperature":-0.1}}', "params.temperature"),
    "hot beyond numbers": ('{"prompt":"a","params":{"temperature":1e400}}', None),
    "top_p": ('{"prompt":"a","params":{"top_p":1.01}}', "params.top_p"),
    "top_logprobs": ('{"prompt":"a","params":{"top_logprobs":21}}', "params.top_logprobs"),
    "a presence penalty": ('{"prompt":"a","params":{"presence_penalty":3}}', "params.presence_penalty"),
    "a frequency penalty": ('{"prompt":"a","params":{"frequency_penalty":-3}}', "params.frequency_penalty"),
    "no tokens": ('{"prompt":"a","params":{"max_tokens":0}}', "params.max_tokens"),
    "half a token": ('{"prompt":"a","params":{"max_tokens":1.5}}', "params.max_tokens"),
    "tokens in words": (
        '{"prompt":"a","params":{"max_completion_tokens":"5"}}',
        "params.max_completion_tokens",
    ),
    "a huge seed": ('{"prompt":"a","params":{"seed":' + "9" * 5000 + "}}", None),
    "several answers": ('{"prompt":"a","params":{"n":2}}', "params.n"),
    "a tool that is a string": ('{"prompt":"a","params":{"tools":["x"]}}', "params.tools[0]"),
    "a stop that is a number": ('{"prompt":"a","params":{"stop":1}}', "params.stop"),
}


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_refused_by_name_and_starts_nothing(shared: Service, name: str, accept: str) -> None:
    with nothing_made(shared):
        body, param = BODIES[name]

        response = shared.client.post("/streams", data=body, headers=JSON | {"Accept": accept})

        assert 400 <= response.status_code < 500, response.text
        error = refused(response, response.status_code, "invalid_request", retryable=False)
        if param is not None and len(param) < 1000:
            assert error["param"] == param


@pytest.mark.parametrize(
    "params",
    [
        '"seed":123456789012345678901234567890',
        '"max_tokens":1e1',
        '"seed":-9223372036854775809',
        '"metadata":{"a":"\\u0000"}',
        '"logit_bias":{"50256":-100}',
    ],
)
def test_odd_but_possible_parameters_never_break_the_service(service: Service, params: str) -> None:
    body = f'{{"prompt":"a","params":{{{params}}}}}'
    response = service.client.post("/streams", data=body, headers=JSON)

    assert response.status_code in (201, 400), response.text
    assert service.count() == (response.status_code == 201)


@pytest.mark.parametrize("body", ['{"prompt":"a","prompt":"b"}', '{"prompt":1,"prompt":"b"}'])
def test_a_name_given_twice_never_breaks_the_service(service: Service, body: str) -> None:
    response = service.client.post("/streams", data=body, headers=JSON)

    assert response.status_code in (201, 400)
    assert service.count() == (response.status_code == 201)


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/json",
        "x",
        "",
    ],
)
def test_a_body_of_another_type_is_refused(shared: Service, content_type: str) -> None:
    with nothing_made(shared):
        response = shared.client.post(
            "/streams", data='{"prompt":"hello"}', headers={"Content-Type": content_type}
        )

        refused(response, 415, "invalid_request", code="content_type")


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
def test_json_is_taken_with_or_without_a_charset(service: Service, content_type: str) -> None:
    headers = {"Content-Type": content_type}

    assert service.client.post("/streams", data='{"prompt":"hello"}', headers=headers).status_code == 201


@pytest.mark.parametrize(
    ("headers", "ours"),
    [
        ({}, True),
        ({"Origin": "http://localhost"}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, True),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "http://localhost.evil.example"}, False),
        ({"Origin": "http://localhost:1"}, False),
        ({"Origin": "null"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}, False),
        ({"Sec-Fetch-Site": "nonsense"}, False),
    ],
)
def test_the_page_of_another_site_cannot_ask_in_its_visitors_name(
    service: Service, headers: dict[str, str], ours: bool
) -> None:
    posted = service.client.post("/streams", json={"prompt": "hello"}, headers=headers)
    asked = service.client.get("/stream?prompt=hello", headers=headers, buffered=True)

    if ours:
        assert (posted.status_code, asked.status_code) == (201, 200)
    else:
        refused(posted, 403, "invalid_request", code="origin")
        refused(asked, 403, "invalid_request", code="origin")
    assert service.count() == 2 * ours


def test_a_form_is_refused(shared: Service) -> None:
    with nothing_made(shared):
        response = shared.client.post("/streams", data={"prompt": "hello"})

        refused(response, 415, "invalid_request")


@pytest.mark.parametrize("told", [True, False], ids=["with its length", "in chunks"])
def test_a_body_that_is_too_large_is_refused(compose: Compose, told: bool) -> None:
    service = compose(ScriptedSource(*says("hi")), settings={"max_body_bytes": 1000})
    body = json.dumps({"prompt": "x" * 2000}).encode()
    if told:
        response = service.client.post("/streams", data=body, headers=JSON)
    else:
        response = service.client.post(
            "/streams",
            input_stream=io.BytesIO(body),
            headers=JSON | {"Transfer-Encoding": "chunked"},
            environ_overrides={"wsgi.input_terminated": True},
        )

    refused(response, 413, "invalid_request")
    assert service.count() == 0


@pytest.mark.parametrize("key", ["", " ", "two words", "x" * 256, "é", "tab\there"])
def test_a_bad_idempotency_key_is_refused(shared: Service, key: str) -> None:
    with nothing_made(shared):
        response = shared.client.post(
            "/streams", json={"prompt": "hello"}, headers={"Idempotency-Key": key.encode().decode("latin-1")}
        )

        refused(response, 400, "invalid_request", param="Idempotency-Key")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("format=xml", "format"),
        ("format=native&metrics=2", "metrics"),
        ("format=native&buffer_tokens=x", "buffer_tokens"),
        ("format=native&buffer_ms=-1", "buffer_ms"),
        ("format=text&buffer_ms=5001", "buffer_ms"),
    ],
)
def test_a_bad_reader_parameter_is_refused_before_the_run_is_started(
    shared: Service, query: str, param: str
) -> None:
    with nothing_made(shared):
        response = shared.client.post(
            f"/streams?{query}", json={"prompt": "hello"}, headers={"Accept": "text/event-stream"}
        )

        refused(response, 400, "invalid_request", param=param)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("wait=soon", "wait"),
        ("wait=-1", "wait"),
        ("wait=nan", "wait"),
        ("wait=1e400", "wait"),
        ("wait=" + "9" * 400, "wait"),
        ("format=xml", "format"),
        ("format=native&buffer_tokens=x", "buffer_tokens"),
        ("format=native&metrics=x", "metrics"),
    ],
)
def test_a_bad_query_of_a_stream_is_refused_by_name(shared: Service, query: str, param: str) -> None:
    stream_id = shared.create()

    refused(shared.client.get(f"/streams/{stream_id}?{query}"), 400, "invalid_request", param=param)


# Addresses and methods


@pytest.mark.parametrize(
    "path", ["/nothing", "/streams/", "/streams/a/b", "/streams/a/cancel/x", "/%00", "/é"]
)
def test_an_unknown_address_is_not_found_in_json(shared: Service, path: str) -> None:
    refused(shared.client.get(path), 404, "not_found", param=None)


@pytest.mark.parametrize("path", ["//streams/x", "/streams//x", "/streams/x//cancel"])
def test_an_address_with_double_slashes_is_answered_in_json(shared: Service, path: str) -> None:
    response = shared.client.get("http://localhost" + path)

    if response.status_code != 204 and not 200 <= response.status_code < 300:
        assert response.headers["Content-Type"] == "application/json", response.text
        assert response.json["error"]["request_id"] == response.headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/streams", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("DELETE", "/streams", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("POST", "/stream?prompt=hello", {"GET", "HEAD", "OPTIONS"}),
        ("POST", "/streams/x", {"DELETE", "GET", "HEAD", "OPTIONS"}),
        ("PATCH", "/streams/x", {"DELETE", "GET", "HEAD", "OPTIONS"}),
        ("GET", "/streams/x/cancel", {"OPTIONS", "POST"}),
        ("BREW", "/streams", {"OPTIONS", "POST"}),
    ],
)
def test_a_wrong_method_is_refused_and_told_the_right_ones(
    shared: Service, method: str, path: str, allowed: set[str]
) -> None:
    with nothing_made(shared):
        response = shared.client.open(path, method=method)

        refused(response, 405, "invalid_request")
        assert {name.strip() for name in response.headers["Allow"].split(",")} >= allowed - {
            "HEAD",
            "OPTIONS",
        }


def test_a_head_request_to_a_stream_has_no_body(shared: Service) -> None:
    stream_id = shared.finished()
    for accept in ("application/json", "text/event-stream"):
        response = shared.client.head(f"/streams/{stream_id}", headers={"Accept": accept})
        assert (response.status_code, response.data) == (200, b"")


# What every answer has


@pytest.mark.parametrize("given_id", ["req_abc", "A-1.b_2", "x" * 64])
def test_a_harmless_request_id_is_kept(shared: Service, given_id: str) -> None:
    for path in ("/streams/x", "/healthz"):
        response = shared.client.get(path, headers={"X-Request-Id": given_id})
        assert response.headers["X-Request-Id"] == given_id
    assert shared.client.get("/x", headers={"X-Request-Id": given_id}).json["error"]["request_id"] == given_id


@pytest.mark.parametrize("given_id", ["", "x" * 65, "a b", "<script>", "a,b", "é", "a;b"])
def test_another_request_id_is_replaced(shared: Service, given_id: str) -> None:
    response = shared.client.get("/x", headers={"X-Request-Id": given_id.encode().decode("latin-1")})

    assert response.headers["X-Request-Id"].startswith("req_")
    assert response.json["error"]["request_id"] == response.headers["X-Request-Id"]


def test_every_request_has_another_id(shared: Service) -> None:
    assert len({shared.client.get("/healthz").headers["X-Request-Id"] for _ in range(5)}) == 5


def test_the_request_id_of_a_run_is_in_its_failure(compose: Compose) -> None:
    service = compose(ScriptedSource(UpstreamRateLimited("slow down", code="rpm")))
    response = service.client.post(
        "/streams",
        json={"prompt": "a"},
        headers={"X-Request-Id": "req_of_mine", "Accept": "text/event-stream"},
    )

    last = json.loads(response.data.split(b"data: ")[-1])
    assert last["error"]["request_id"] == "req_of_mine"
    assert (last["error"]["type"], last["error"]["code"]) == ("upstream_rate_limited", "rpm")


def test_a_bug_is_answered_without_its_words(compose: Compose, caplog: pytest.LogCaptureFixture) -> None:
    service = compose(RuntimeError("secret sk-123"))

    response = service.client.post("/streams", json={"prompt": "hello"})

    refused(response, 500, "internal_error", retryable=False)
    assert b"sk-123" not in response.data
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.__dict__["request_id"] == response.headers["X-Request-Id"]


def test_a_store_that_is_away_is_unavailable(compose: Compose) -> None:
    log = UnsteadyLog()
    service = compose(ScriptedSource(*says("hi")), log)
    stream_id = service.finished()
    log.broken = {"create", "head", "read", "orphans"}

    refused(service.client.post("/streams", json={"prompt": "a"}), 503, "store_unavailable", retryable=True)
    refused(service.client.get(f"/streams/{stream_id}"), 503, "store_unavailable", retryable=True)
    refused(service.client.post(f"/streams/{stream_id}/cancel"), 503, "store_unavailable")
    refused(service.client.delete(f"/streams/{stream_id}"), 503, "store_unavailable")
    refused(service.client.get("/readyz"), 503, "store_unavailable")
    assert service.client.get("/healthz").status_code == 200
    log.broken = set()
    assert service.client.get("/readyz").status_code == 200


def test_a_refusal_that_is_temporary_says_when_to_come_back(compose: Compose) -> None:
    log = UnsteadyLog()
    service = compose(StoreUnavailable("away"), log)

    response = service.client.post("/streams", json={"prompt": "a"})

    refused(response, 503, "store_unavailable")
    assert int(response.headers["Retry-After"]) >= 1


# Time


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 65 + b'"' + b'\\"' * 15_000,
        b"{" * 65 + b'"' + b"\\" * 30_000,
        b'["' * 15_000,
        b'{"prompt":"' + b"[" * 100 + b'\\"' * 15_000,
        b'{"a":' * 15_000,
    ],
    ids=["escaped quotes", "backslashes", "quotes", "in a string", "names"],
)
def test_no_body_holds_the_worker_for_long(shared: Service, body: bytes) -> None:
    before = time.monotonic()
    response = shared.client.post("/streams", data=body, headers=JSON)

    assert time.monotonic() - before < 0.5
    assert 400 <= response.status_code < 500


# Anything at all

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from([2**63, -(2**63) - 1, 10**40, 0.1, "hello", "user", "chat", "demo", "\u2028", "\0"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PARAMETERS = st.dictionaries(
    st.sampled_from(
        "temperature top_p max_tokens n stop seed presence_penalty logit_bias logprobs top_logprobs tools"
        " tool_choice response_format metadata user".split()
    ),
    VALUES,
    max_size=4,
)
PARTS = st.fixed_dictionaries(
    {},
    optional={"type": st.sampled_from(["text", "image_url"]) | VALUES, "text": VALUES, "image_url": VALUES},
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "assistant", "system", "tool"]) | VALUES,
            "content": st.text(max_size=10) | st.lists(PARTS | VALUES, max_size=3) | VALUES,
            "tool_calls": VALUES,
            "name": VALUES,
        },
    )
    | VALUES,
    max_size=3,
)
CREATES = st.fixed_dictionaries(
    {},
    optional={
        "prompt": st.text(max_size=20) | VALUES,
        "messages": MESSAGES,
        "params": PARAMETERS | VALUES,
        "source": st.just("chat") | VALUES,
        "model": st.just("demo") | VALUES,
        "instructions": st.text(max_size=5) | VALUES,
        "on_disconnect": st.sampled_from(["grace", "cancel", "continue"]) | VALUES,
        "timeout_seconds": st.floats(0, 10) | VALUES,
        "message_id": VALUES,
    },
)
AT_RANDOM = settings(deadline=None, database=None, max_examples=250, suppress_health_check=list(HealthCheck))


def check_answer(service: Service, body: bytes) -> None:
    before = service.count()
    response = service.client.post("/streams", data=body, headers=JSON)

    made = service.count() - before
    if response.status_code in (200, 201):
        assert made == (response.status_code == 201)
        assert response.json["stream_id"]
    else:
        assert 400 <= response.status_code < 500, (body, response.text)
        assert response.json["error"]["message"]
        assert made == 0


def test_any_json_makes_one_stream_or_none(compose: Compose) -> None:
    service = compose(ScriptedSource(*says("hi")))

    @AT_RANDOM
    @given(CREATES | VALUES)
    def anything(body: Any) -> None:
        check_answer(service, json.dumps(body).encode())

    anything()


def test_any_bytes_make_one_stream_or_none(compose: Compose) -> None:
    service = compose(ScriptedSource(*says("hi")))
    good = b'{"messages":[{"role":"user","content":[{"type":"text","text":"h\xc3\xa9"}]}],"params":{"n":1}}'

    @AT_RANDOM
    @given(
        st.integers(0, len(good)), st.integers(0, 5), st.binary(max_size=4) | st.sampled_from([b"[", b'"'])
    )
    def anything(place: int, cut: int, put: bytes) -> None:
        check_answer(service, good[:place] + put + good[place + cut :])

    anything()


def test_any_query_is_answered(compose: Compose) -> None:
    service = compose(ScriptedSource(*says("hi")))
    stream_id = service.finished()
    names = st.sampled_from(
        ["format", "after", "wait", "metrics", "buffer_tokens", "buffer_ms", "prompt", "message_id", "model"]
    )
    values = st.text(max_size=8) | st.sampled_from(["native", "1.2", "0", "1", "simple", "demo", "nan"])

    @AT_RANDOM
    @given(st.dictionaries(names, values, max_size=4), st.text(max_size=6))
    def anything(query: dict[str, str], last_event_id: str) -> None:
        headers = {
            "Last-Event-ID": last_event_id.encode().decode("latin-1").translate(dict.fromkeys(b"\r\n"))
        }
        query.pop("wait", None)
        for path in (f"/streams/{stream_id}", "/stream"):
            before = service.count()
            response = service.client.get(path, query_string=query, headers=headers, buffered=True)
            assert response.status_code < 500, response.text
            if response.status_code >= 400:
                assert response.json["error"]["message"]
                assert service.count() == before

    anything()
