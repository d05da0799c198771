"""Embeddings pass through: the same body there, the same answer back, and every fault by its name."""

import base64
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from streaming.settings import Settings
from streaming.sources import _relay
from tests.doubles import eventually
from tests.web.conftest import Service
from tests.web.upstream import KEY, LEAK, Answer, Upstream, answer, refusal, service_on, upstream_of

ANSWER = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.1, -2.5e-3, 1, 1e-40]}],
    "model": "its-own-name",
    "usage": {"prompt_tokens": 2, "total_tokens": 2, "x_vendor": [None, {"deep": "日本"}]},
    "x_more": True,
}
GOOD = answer(ANSWER)
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with upstream_of(GOOD) as made:
        yield made


@pytest.fixture
def service(upstream: Upstream) -> Iterator[Service]:
    with service_on(upstream) as made:
        yield made


def embed(service: Service, **body: Any) -> TestResponse:
    return service.client.post("/v1/embeddings", json={"model": "m", "input": "hello"} | body)


def refused(response: TestResponse, status: int, code: str, param: str | None = None) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json["error"]
    assert set(error) == {"message", "type", "param", "code", "retryable", "request_id"}
    assert (error["code"], error["param"]) == (code, param)
    assert error["request_id"] == response.headers["X-Request-Id"]
    assert LEAK not in response.text
    assert KEY not in response.text
    return error


# What passes


def test_the_body_reaches_the_upstream_as_it_is(service: Service, upstream: Upstream) -> None:
    body = {
        "model": "org/m",
        "input": ["a", "日本 \u2028", ""],
        "encoding_format": "base64",
        "dimensions": 7,
        "user": "u",
        "x_unknown": {"deep": [1.5, None, {"er": 2**63}]},
    }
    assert service.client.post("/v1/embeddings", json=body).status_code == 200
    (asked,) = upstream.asked
    assert (asked.method, asked.path) == ("POST", "/v1/embeddings")
    assert asked.json() == body
    assert asked.headers["content-type"] == "application/json"
    assert int(asked.headers["content-length"]) == len(asked.body)


def test_no_encoding_is_asked_for_that_the_caller_did_not_ask_for(
    service: Service, upstream: Upstream
) -> None:
    embed(service)
    assert upstream.asked[0].json() == {"model": "m", "input": "hello"}


def test_the_answer_is_the_upstreams_byte_for_byte(service: Service) -> None:
    response = embed(service)
    assert response.status_code == 200
    assert response.data == json.dumps(ANSWER).encode()
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store, no-transform"
    assert response.headers["X-Request-Id"]


def test_base64_is_not_touched(service: Service, upstream: Upstream) -> None:
    coded = base64.b64encode(bytes(range(256)) * 16).decode()
    upstream.answers = [answer({"data": [{"embedding": coded}]})]
    assert embed(service, encoding_format="base64").json["data"][0]["embedding"] == coded


def test_the_services_own_key_is_sent_and_the_callers_is_not(service: Service, upstream: Upstream) -> None:
    headers = {"Authorization": "Bearer sk-of-the-caller", "OpenAI-Organization": "org-of-the-caller"}
    service.client.post("/v1/embeddings", json={"model": "m", "input": "x"}, headers=headers)
    (asked,) = upstream.asked
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert "of-the-caller" not in str(asked)


def test_nothing_is_written_down(service: Service) -> None:
    embed(service)
    assert service.count() == 0


def test_a_model_goes_to_its_own_upstream_by_its_name_there_and_never_to_a_fallback(
    tmp_path: Path, upstream: Upstream
) -> None:
    with upstream_of(refusal(500)) as broken:
        file = tmp_path / "upstreams.toml"
        file.write_text(f"""
            [upstreams.one]
            base_url = "{broken.base_url}"
            [upstreams.two]
            base_url = "{upstream.base_url}"
            [models.first]
            upstream = "one"
            fallbacks = ["second"]
            [models.second]
            upstream = "two"
            model = "second-there"
        """)
        settings = Settings.from_environ(
            {"UPSTREAMS": str(file), "EVENTLOG_URL": "memory://", "UPSTREAM_RETRIES": "0"}
        )
        with service_on(None, settings) as service:
            assert embed(service, model="second").status_code == 200
            assert upstream.asked[0].json()["model"] == "second-there"
            refused(embed(service, model="first"), 502, "upstream_error")
            refused(embed(service, model="third"), 404, "model_not_found", "model")
        assert (len(broken.asked), len(upstream.asked)) == (1, 1)


def test_the_demo_model_answers_too() -> None:
    with service_on(None) as service:
        made = embed(service, model="demo", input=["a cat", "a dog"]).json
        assert [len(each["embedding"]) for each in made["data"]] == [256, 256]
        refused(embed(service, model="demo", input=[]), 400, "upstream_rejected")
        refused(embed(service, model="other"), 404, "model_not_found", "model")


# What is refused here


@pytest.mark.parametrize(
    "name", ["api_key", "base_url", "api_base", "extra_headers", "extra_body", "organization", "proxy"]
)
def test_a_field_that_would_choose_where_it_goes_is_refused_by_name(
    service: Service, upstream: Upstream, name: str
) -> None:
    refused(embed(service, **{name: "http://127.0.0.1:9/"}), 400, "unknown_field", name)
    assert upstream.asked == []


@pytest.mark.parametrize(
    ("model", "code"),
    [
        (None, "required"),
        (7, "wrong_type"),
        ([], "wrong_type"),
        ("", "wrong_value"),
        ("x" * 300, "wrong_value"),
    ],
)
def test_a_model_is_needed(service: Service, upstream: Upstream, model: Any, code: str) -> None:
    refused(embed(service, model=model), 400, code, "model")
    assert upstream.asked == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "json"),
        (b"{", 400, "json"),
        (b"[]", 400, "wrong_type"),
        (b'{"model":"m","input":"\\ud800"}', 400, "json"),
        (b'{"model":"m","input":"\xff"}', 400, "json"),
        (b'{"model":"m","input":1e999}', 400, "json"),
        (b'{"model":"m","input":' + b"[" * 100 + b"]" * 100 + b"}", 400, "too_deep"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(
    service: Service, upstream: Upstream, body: bytes, status: int, code: str
) -> None:
    refused(service.client.post("/v1/embeddings", data=body, headers=JSON), status, code)
    assert upstream.asked == []


def test_another_kind_of_body_is_refused(service: Service) -> None:
    refused(service.client.post("/v1/embeddings", data={"model": "m"}), 415, "content_type")


def test_another_sites_page_is_refused(service: Service, upstream: Upstream) -> None:
    headers = {"Origin": "https://elsewhere.example"}
    response = service.client.post("/v1/embeddings", json={"model": "m", "input": "x"}, headers=headers)
    refused(response, 403, "origin")
    assert upstream.asked == []


def test_a_body_over_the_limit_is_refused(upstream: Upstream) -> None:
    with service_on(upstream, {"max_body_bytes": 1000}) as service:
        refused(embed(service, input="x" * 2000), 413, "too_large")
    assert upstream.asked == []


def test_any_json_is_answered(upstream: Upstream) -> None:
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    )
    fields = st.fixed_dictionaries(
        {}, optional={"model": st.just("m") | values, "input": values, "dimensions": values, "user": values}
    )
    with service_on(upstream) as service:

        @hypothesis_settings(
            deadline=None, database=None, max_examples=200, suppress_health_check=list(HealthCheck)
        )
        @given(fields | values)
        def anything(body: Any) -> None:
            before = len(upstream.asked)
            response = service.client.post("/v1/embeddings", data=json.dumps(body), headers=JSON)
            if response.status_code == 200:
                assert upstream.asked[-1].json() == body
            else:
                assert 400 <= response.status_code < 500, response.text
                assert len(upstream.asked) == before

        anything()
    assert upstream.asked


# Faults of the upstream


FAULTS: dict[str, tuple[Answer, int, str, int]] = {
    "key": (refusal(401), 502, "upstream_auth", 1),
    "forbidden": (refusal(403), 502, "upstream_auth", 1),
    "bad": (refusal(400), 400, "upstream_rejected", 1),
    "bad, why": (refusal(400, "unsupported_parameter"), 400, "unsupported_parameter", 1),
    "no such model": (refusal(404, "model_not_found"), 404, "model_not_found", 1),
    "unprocessable": (refusal(422), 422, "upstream_rejected", 1),
    "slow down": (refusal(429, retry_after="60"), 429, "rate_limit_exceeded", 1),
    "quota": (refusal(429, "insufficient_quota"), 429, "insufficient_quota", 1),
    "broken": (refusal(500), 502, "upstream_error", 3),
    "overloaded": (refusal(503), 503, "upstream_overloaded", 3),
    "redirect": (answer(b"", 302, Location="http://127.0.0.1:9/"), 502, "upstream_bad_response", 1),
    "html": (answer(LEAK.encode(), content_type="text/html"), 502, "upstream_bad_response", 1),
    "compressed": (answer(b"{}", content_encoding="gzip"), 502, "upstream_bad_response", 1),
    "empty": (answer(b""), 502, "upstream_bad_response", 1),
    "not json": (answer(b'{"data":[0.1'), 502, "upstream_bad_response", 1),
    "nan": (answer(b'{"data":[NaN]}'), 502, "upstream_bad_response", 1),
    "not utf-8": (answer(b'{"data":["\xff"]}'), 502, "upstream_bad_response", 1),
    "no object": (answer([1]), 502, "upstream_bad_response", 1),
    "no list": (answer({"data": "x"}), 502, "upstream_bad_response", 1),
    "nothing in it": (answer({}), 502, "upstream_bad_response", 1),
    "deep": (answer(b'{"data":' + b"[" * 100_000), 502, "upstream_bad_response", 1),
    "an error": (answer({"error": {"message": LEAK, "code": "invalid_api_key"}}), 502, "upstream_auth", 1),
    "an odd error": (answer({"error": LEAK}), 502, "upstream_error", 3),
    "cut": (lambda c: c.sendall(GOOD[:-9]), 502, "upstream_unreachable", 1),
    "closed": (lambda c: c.shutdown(socket.SHUT_RDWR), 502, "upstream_unreachable", 1),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_has_its_status_and_is_asked_again_where_that_may_help(
    service: Service, upstream: Upstream, what: str
) -> None:
    fault, status, code, requests = FAULTS[what]
    upstream.answers = [fault]
    refused(embed(service), status, code)
    assert len(upstream.asked) == requests


def test_how_long_to_wait_is_passed_on(service: Service, upstream: Upstream) -> None:
    upstream.answers = [refusal(429, retry_after="60")]
    response = embed(service)
    assert response.headers["Retry-After"] == "60"
    assert response.headers["x-should-retry"] == "true"


def test_an_upstream_that_is_down_is_unreachable(service: Service, upstream: Upstream) -> None:
    upstream.close()
    refused(embed(service), 502, "upstream_unreachable")


def test_a_fault_that_passes_is_not_seen(service: Service, upstream: Upstream) -> None:
    upstream.answers = [refusal(503), refusal(429, retry_after="0"), GOOD]
    assert embed(service).json == ANSWER
    assert len(upstream.asked) == 3


def test_what_may_have_been_billed_is_asked_again_only_where_that_is_wanted(upstream: Upstream) -> None:
    upstream.answers = [lambda c: c.shutdown(socket.SHUT_RDWR), GOOD]
    with service_on(upstream, {"retry_ambiguous": True}) as service:
        assert embed(service).json == ANSWER


def test_an_answer_over_the_limit_is_not_held(
    service: Service, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_relay, "MAX_EMBEDDINGS_BYTES", 100_000)
    upstream.answers = [answer({"data": [0.5] * 100_000})]
    refused(embed(service), 502, "upstream_bad_response")


@pytest.mark.parametrize("how", ["silence", "drip"])
def test_an_answer_that_takes_too_long_ends_by_the_clock_and_its_socket_is_closed(
    upstream: Upstream, how: str
) -> None:
    upstream.answers = [getattr(upstream, how)]
    with service_on(upstream, {"first_token_timeout_seconds": 0.3}) as service:
        refused(embed(service), 504, "upstream_timeout")
        assert upstream.left.wait(5)
        assert len(service.streams.questions) == 0
    assert len(upstream.asked) == 1


# With others


def in_background(asked: Callable[[], TestResponse]) -> gevent.Greenlet:
    return gevent.spawn(asked)


def test_a_worker_takes_only_so_many_at_once(upstream: Upstream) -> None:
    upstream.answers = [upstream.silence, GOOD]
    with service_on(upstream, {"max_streams": 1}) as service:
        first = in_background(lambda: embed(service))
        eventually(lambda: len(upstream.asked) == 1)
        response = embed(service)
        refused(response, 503, "overloaded")
        assert response.headers["Retry-After"] == "5"
        service.streams.drain(0, 0)
        assert first.get(timeout=5).status_code == 503


def test_a_worker_that_stops_lets_an_answer_come(upstream: Upstream) -> None:
    go = gevent.event.Event()

    def late(connection: Any) -> None:
        go.wait()
        connection.sendall(GOOD)

    upstream.answers = [late]
    with service_on(upstream) as service:
        asked = in_background(lambda: embed(service))
        eventually(lambda: len(upstream.asked) == 1)
        draining = gevent.spawn(service.streams.drain, 5.0, 0.0)
        eventually(lambda: service.client.get("/readyz").status_code == 503)
        refused(embed(service), 503, "overloaded")
        go.set()
        assert asked.get(timeout=5).json == ANSWER
        draining.get(timeout=5)


def test_a_worker_that_stops_ends_what_is_still_asked_and_says_so(upstream: Upstream) -> None:
    upstream.answers = [upstream.silence]
    with service_on(upstream) as service:
        asked = in_background(lambda: embed(service))
        eventually(lambda: len(upstream.asked) == 1)
        service.streams.drain(0.1, 0.0)
        refused(asked.get(timeout=5), 503, "interrupted")
    assert upstream.left.wait(5)
