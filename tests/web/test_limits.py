"""What one principal may use, on every dialect's own terms."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from flask import g, request
from werkzeug.test import TestResponse

from app import create_app
from streaming.principals import Principal
from streaming.settings import Settings
from streaming.streams import Streams
from streaming.web import _principals
from tests.web.conftest import FAST, Service, refused

Make = Callable[..., Service]


@pytest.fixture
def make() -> Iterator[Make]:
    """Return a service that believes the header ``X-Who``; ``limits`` are those of a principal, by its id."""
    made: list[Streams] = []

    def make_(limits: Mapping[str, Mapping[str, Any]] | None = None, **settings: Any) -> Service:
        app = create_app(replace(FAST, **settings))
        made.append(app.extensions["streams"])

        @app.before_request
        def believe() -> None:
            if who := request.headers.get("X-Who"):
                scopes = frozenset({"run", "admin"} if who == "key_admin" else {"run"})
                kind: Any = who.partition("_")[0]
                g.principal = Principal(who, kind, scopes, limits=(limits or {}).get(who, {}))

        return Service(app, lambda: 0)

    yield make_
    for streams in made:
        streams.drain(0, 0)
        streams.close()


def create(service: Service, who: str = "key_a", **body: Any) -> TestResponse:
    return service.client.post("/streams", json={"prompt": "hello"} | body, headers={"X-Who": who})


def complete(service: Service, who: str = "key_a", **body: Any) -> TestResponse:
    asked = {"model": "demo", "messages": [{"role": "user", "content": "hello"}]} | body
    return service.client.post("/v1/chat/completions", json=asked, headers={"X-Who": who})


SLOW = {"demo_tokens_per_second": 5.0}
LONG = "tell me a long story"


# How many at the same time, how often


def test_a_principal_has_no_more_runs_than_it_may_and_a_place_again_when_one_ends(make: Make) -> None:
    service = make(running_per_principal=2, **SLOW)
    first = create(service).json["stream_id"]
    assert create(service).status_code == 201
    answer = create(service)
    refused(answer, 429, "rate_limited", code="running", retryable=True)
    assert int(answer.headers["Retry-After"]) >= 1
    assert create(service, "key_b").status_code == 201, "what one has running is another's business"
    service.client.post(f"/streams/{first}/cancel", headers={"X-Who": "key_a"})
    assert create(service).status_code == 201


def test_a_repeated_create_joins_its_run_though_no_more_may_be_started(make: Make) -> None:
    service = make(running_per_principal=1, creates_per_minute=1, **SLOW)
    first = create(service, message_id="m").json["stream_id"]
    again = create(service, message_id="m")
    assert (again.status_code, again.json["stream_id"]) == (200, first)
    refused(create(service, message_id="n"), 429, "rate_limited", code="creates")


def test_creates_of_a_minute_are_counted_over_every_dialect(make: Make) -> None:
    service = make(creates_per_minute=3)
    assert create(service).status_code == 201
    assert complete(service).status_code == 200
    who = {"X-Who": "key_a"}
    assert service.client.get("/stream?prompt=hello", headers=who).status_code == 200
    answer = service.client.post("/v1/responses", json={"model": "demo", "input": "hello"}, headers=who)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 61
    assert answer.json["error"]["type"] == "rate_limit_error"
    assert answer.json["error"]["code"] == "rate_limit_exceeded"
    assert answer.headers["x-should-retry"] == "true"
    asked = {"model": "demo", "input": "hello"}
    assert service.client.post("/v1/embeddings", json=asked, headers=who).status_code == 429
    assert service.client.post("/v1/embeddings", json=asked, headers={"X-Who": "key_b"}).status_code == 200


def test_openai_clients_hear_how_many_requests_they_have_left(make: Make) -> None:
    service = make(creates_per_minute=2)
    first, second = complete(service), complete(service)
    assert [answer.headers["x-ratelimit-limit-requests"] for answer in (first, second)] == ["2", "2"]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in (first, second)] == ["1", "0"]
    assert first.headers["x-ratelimit-reset-requests"] == "0s"
    assert re.fullmatch(r"[0-9.]+s", second.headers["x-ratelimit-reset-requests"])
    assert (
        "x-ratelimit-limit-requests"
        not in service.client.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]}
        ).headers
    )


def test_the_open_mode_has_no_limits_for_each(make: Make) -> None:
    service = make(running_per_principal=1, creates_per_minute=1, polls_per_second=1)
    ids = [service.create() for _ in range(5)]
    for _ in range(5):
        service.snapshot(ids[0])


def test_everybody_together_may_be_limited_also_in_the_open_mode(make: Make) -> None:
    service = make(total_creates_per_minute=2)
    assert service.create()
    assert create(service).status_code == 201
    refused(create(service, "key_b"), 429, "rate_limited", code="creates")
    assert service.client.post("/streams", json={"prompt": "x"}).status_code == 429


def test_visitors_have_limits_of_their_own_and_together(make: Make) -> None:
    service = make(visitor_creates_per_minute=2, visitors_creates_per_minute=3, visitor_running=0)
    assert [create(service, "visitor_1").status_code for _ in range(3)] == [201, 201, 429]
    assert [create(service, "visitor_2").status_code for _ in range(2)] == [201, 429]
    assert create(service, "key_a").status_code == 201


def test_polls_are_limited_and_following_is_not_polling(make: Make) -> None:
    service = make(polls_per_second=3)
    stream_id = create(service).json["stream_id"]
    at, who = f"/streams/{stream_id}", {"X-Who": "key_a"}
    answers = [service.client.get(at, headers=who) for _ in range(6)]
    refused(answers[-1], 429, "rate_limited", code="polls")
    assert service.client.get(f"{at}?format=native", headers=who).status_code in (200, 204)


def test_chatkit_says_in_words_that_no_more_runs_may_be_started(make: Make) -> None:
    service = make(creates_per_minute=1)
    assert create(service).status_code == 201
    content = [{"type": "input_text", "text": "hi"}]
    said = {"content": content, "attachments": [], "inference_options": {}}
    asked = {"type": "threads.create", "params": {"input": said}}
    answer = service.client.post("/chatkit", json=asked, headers={"X-Who": "key_a"})
    assert answer.status_code == 200
    assert "oo many requests: at most 1 a minute" in answer.text
    assert '"allow_retry":true' in answer.text.replace(" ", "")


def test_a_form_of_the_page_is_refused_in_a_page(make: Make) -> None:
    service = make(creates_per_minute=1)
    assert create(service).status_code == 201
    answer = service.client.post("/", data={"prompt": "hello"}, headers={"X-Who": "key_a"})
    assert answer.status_code == 429
    assert answer.headers["Retry-After"]


# Readers


def test_a_stream_and_a_principal_have_no_more_readers_than_they_may(make: Make) -> None:
    service = make(readers_per_stream=2, readers_per_principal=3, **SLOW)
    one, two = (create(service, prompt=LONG).json["stream_id"] for _ in range(2))
    who = {"X-Who": "key_a"}
    service.client.post(f"/streams/{two}/cancel", headers=who)

    def follow(stream_id: str) -> TestResponse:
        return service.client.get(f"/streams/{stream_id}?format=native", headers=who)

    with ExitStack() as readers, _principals.acting(Principal("key_a", "key")):
        for stream_id in (one, one):
            readers.enter_context(service.streams.seated(service.streams.reader(stream_id)))
        refused(follow(one), 429, "rate_limited", code="readers")
        assert follow(two).status_code == 200
        assert follow(two).status_code == 200, "its place was not given back"
        readers.enter_context(service.streams.seated(service.streams.reader(two)))
        refused(follow(two), 429, "rate_limited", code="readers")
        assert complete(service).status_code == 429
    assert follow(two).status_code == 200


def test_when_all_seats_of_a_worker_are_taken_the_rest_still_answers(make: Make) -> None:
    service = make(max_readers=1, **SLOW)
    stream_id = service.create(prompt=LONG)
    reader = service.client.get(f"/streams/{stream_id}?format=native", buffered=False)
    assert reader.status_code == 200
    answer = service.client.get(f"/streams/{stream_id}?format=native")
    refused(answer, 503, "overloaded", code="readers")
    assert answer.headers["Retry-After"]
    refused(service.client.get(f"/streams/{stream_id}?wait=5"), 503, "overloaded", code="readers")
    asked = {"messages": [{"role": "user", "content": "x"}]}
    assert service.client.post("/v1/chat/completions", json=asked).status_code == 503
    assert service.snapshot(stream_id)["state"] == "running"
    assert service.client.get("/healthz").status_code == 200
    assert service.client.get("/readyz").status_code == 200
    assert service.client.post(f"/streams/{stream_id}/cancel").json["state"] == "cancelled"
    reader.close()
    assert service.client.get(f"/streams/{stream_id}?format=native").status_code == 200


# What may be asked


def test_a_model_that_may_not_be_named_is_not_there(make: Make) -> None:
    service = make({"key_a": {"models": ["small"]}}, openai_base_url="http://127.0.0.1:9/v1", model="large")
    refused(create(service), 400, "invalid_request", code="unknown_model", param="model")
    answer = complete(service, model="large")
    assert answer.status_code == 404
    assert answer.json["error"]["code"] == "model_not_found"
    assert create(service, model="small").status_code == 201
    assert complete(service, "key_b", model="large").status_code != 404
    embeddings = service.client.post(
        "/v1/embeddings", json={"model": "large", "input": "x"}, headers={"X-Who": "key_a"}
    )
    assert embeddings.status_code == 404


def test_models_that_may_not_be_named_are_not_listed(make: Make) -> None:
    service = make(
        {"key_a": {"models": ["small"]}},
        openai_base_url="http://127.0.0.1:9/v1",
        models=("small", "large"),
    )

    def listed(who: str) -> list[str]:
        answer = service.client.get("/v1/models", headers={"X-Who": who})
        return [model["id"] for model in answer.json["data"]]

    assert listed("key_a") == ["small"]
    assert listed("key_b") == ["small", "large"]
    assert service.client.get("/v1/models/large", headers={"X-Who": "key_a"}).status_code == 404


def test_a_runnable_is_a_model_too(make: Make) -> None:
    service = make({"key_a": {"models": ["demo"]}}, runnables=Settings().runnables)
    known = service.client.get("/runnables", headers={"X-Who": "key_b"}).json["runnables"]
    assert known
    assert service.client.get("/runnables", headers={"X-Who": "key_a"}).json["runnables"] == []
    refused(create(service, source=known[0]["name"]), 400, "invalid_request", code="unknown_model")


@pytest.mark.parametrize("dialect", ["streams", "chat", "responses"])
def test_too_many_images_and_messages_are_refused_by_name(make: Make, dialect: str) -> None:
    service = make({"key_a": {"images": 1, "messages": 2}})
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    item = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    part = item if dialect == "responses" else picture
    field = "input" if dialect == "responses" else "messages"
    path = {"streams": "/streams", "chat": "/v1/chat/completions", "responses": "/v1/responses"}[dialect]

    def ask(*contents: Any) -> TestResponse:
        said = [{"role": "user", "content": content} for content in contents]
        return service.client.post(path, json={field: said, "model": "demo"}, headers={"X-Who": "key_a"})

    for answer, what in ((ask([part, part]), "2 images"), (ask("a", "b", "c"), "3 messages")):
        assert answer.status_code == 413
        assert answer.json["error"]["param"] == field
        assert what in answer.json["error"]["message"]
    assert ask([part], "b").status_code in (200, 201)


def test_more_output_than_allowed_is_lowered_and_the_answer_says_that_it_was_cut(make: Make) -> None:
    service = make({"key_b": {"max_output_tokens": 5}}, max_output_tokens=3)
    for body in ({}, {"max_tokens": 1000}, {"max_completion_tokens": 1000}, {"max_tokens": None}):
        answer = complete(service, **body)
        assert answer.status_code == 200, answer.text
        assert answer.json["choices"][0]["finish_reason"] == "length"
        assert answer.json["usage"]["completion_tokens"] == 3
    assert complete(service, max_tokens=2).json["usage"]["completion_tokens"] == 2
    assert complete(service, "key_b", max_tokens=10).json["usage"]["completion_tokens"] == 5
    who = {"X-Who": "key_a"}
    response = service.client.post(
        "/v1/responses", json={"model": "demo", "input": "hi", "max_output_tokens": 500}, headers=who
    ).json
    assert response["status"] == "incomplete"
    assert response["max_output_tokens"] == 3
    assert response["usage"]["output_tokens"] == 3
    stream_id = create(service, params={"max_tokens": 100}).json["stream_id"]
    assert service.client.get(f"/streams/{stream_id}?format=native", headers=who).data
    said = service.client.get(f"/streams/{stream_id}", headers=who).json
    assert said["finish_reason"] == "length"


# Budgets, and what was used


def test_a_days_budget_refuses_new_runs_once_it_is_used_up(make: Make) -> None:
    service = make({"key_a": {"tokens_per_day": 5}}, prices=("demo=1/2",), cost_per_day=0.0)
    assert complete(service).status_code == 200, "the run that uses it up is finished"
    answer = create(service)
    refused(answer, 429, "budget_spent", code="tokens_per_day", retryable=False)
    assert 1 <= int(answer.headers["Retry-After"]) <= 86_400
    openai = complete(service)
    assert openai.json["error"]["code"] == "insufficient_quota"
    assert openai.headers["x-should-retry"] == "false"
    assert complete(service, "key_b").status_code == 200


@pytest.mark.parametrize("what", ["bytes", "cost"])
def test_bytes_and_cost_have_budgets_too(make: Make, what: str) -> None:
    most = {"bytes": {"bytes_per_day": 10}, "cost": {"cost_per_day": 0.000001}}[what]
    service = make({"key_a": most}, prices=("demo=1/2",))
    assert complete(service).status_code == 200
    refused(create(service), 429, "budget_spent", code=f"{what}_per_day")


def test_visitors_together_and_everybody_have_budgets(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.limiter.KEPT_SECONDS", -1.0)
    service = make(visitors_tokens_per_day=5, total_tokens_per_day=1000)
    assert complete(service, "visitor_1").status_code == 200
    refused(create(service, "visitor_2"), 429, "budget_spent", code="tokens_per_day")
    assert complete(service, "key_a").status_code == 200
    small = make(total_cost_per_day=0.000001, prices=("demo=1/2",))
    assert complete(small, "key_a").status_code == 200
    refused(create(small, "key_b"), 429, "budget_spent", code="cost_per_day")
    assert small.client.post("/streams", json={"prompt": "x"}).status_code == 429


def usage(service: Service, who: str = "key_a", query: str = "") -> dict[str, Any]:
    answer = service.client.get(f"/usage{query}", headers={"X-Who": who})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json
    return found


def test_what_was_used_is_told_as_the_upstream_counted_it(make: Make) -> None:
    service = make(prices=("demo=1/2",))
    told = [complete(service).json["usage"] for _ in range(3)]
    complete(service, "key_b")
    (row,) = usage(service)["data"]
    tokens_in = sum(each["prompt_tokens"] for each in told)
    tokens_out = sum(each["completion_tokens"] for each in told)
    assert row["runs"] == {"completed": 3, "cancelled": 0, "failed": 0, "interrupted": 0}
    assert (row["tokens_in"], row["tokens_out"], row["estimated_runs"]) == (tokens_in, tokens_out, 0)
    assert row["cost"] == pytest.approx((tokens_in + 2 * tokens_out) / 1e6)
    assert row["model"] == "demo"
    assert row["bytes"] > 0
    assert usage(service)["total"]["cost"] == row["cost"]


def test_without_prices_there_is_no_cost(make: Make) -> None:
    service = make()
    complete(service)
    (row,) = usage(service)["data"]
    assert "cost" not in row
    assert row["unpriced_runs"] == 1


def test_only_an_admin_sees_what_others_used(make: Make) -> None:
    service = make()
    complete(service, "key_a")
    complete(service, "key_b")
    assert service.client.get("/usage?principal=all", headers={"X-Who": "key_a"}).status_code == 403
    assert service.client.get("/usage?principal=key_b", headers={"X-Who": "key_a"}).status_code == 403
    everybody = usage(service, "key_admin", "?principal=all&by=principal")
    assert [row["principal"] for row in everybody["data"]] == ["key_a", "key_b"]
    assert everybody["total"]["runs"]["completed"] == 2
    assert usage(service, "key_admin", "?principal=key_b")["total"]["runs"]["completed"] == 1
    assert usage(service, "key_admin")["data"] == []
    assert usage(service, "key_c")["total"] is None


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("from=yesterday", "from"),
        ("to=2026-13-01", "to"),
        ("to=20261121", "to"),
        ("from=2026-11-21&to=2026-11-20", "from"),
        ("from=2020-01-01&to=2026-11-20", "from"),
        ("by=owner", "by"),
        ("by=day,day", "by"),
        ("by=", "by"),
        ("since=2026-11-21", "since"),
    ],
)
def test_a_question_about_usage_that_makes_no_sense_is_refused_by_name(
    make: Make, query: str, param: str
) -> None:
    answer = make().client.get(f"/usage?{query}")
    refused(answer, 400, "invalid_request", param=param)


def test_the_first_days_there_are_can_be_asked_about(make: Make) -> None:
    assert make().client.get("/usage?to=0001-01-02").json["from"] == "0001-01-01"
