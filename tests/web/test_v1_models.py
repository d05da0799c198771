"""What a request may name: of the settings, of the upstream, and when the upstream does not say."""

import socket
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from openai.types import Model

from streaming.web import v1_models
from tests.web.conftest import Service
from tests.web.upstream import Answer, Upstream, answer, refusal, service_on, upstream_of

LISTED = {
    "object": "list",
    "data": [
        {"id": "llama3.2:latest", "object": "model", "created": 1700000000, "owned_by": "library"},
        {"id": "org/small", "object": "model", "created": 1, "owned_by": "org", "root": "/disk/of/theirs"},
    ],
}


def names(service: Service) -> list[str]:
    response = service.client.get("/v1/models")
    assert response.status_code == 200, response.text
    assert response.json["object"] == "list"
    for model in response.json["data"]:
        assert set(model) == {"id", "object", "created", "owned_by"}
        Model.model_validate(model, strict=True)
    return [model["id"] for model in response.json["data"]]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with upstream_of(answer(LISTED)) as made:
        yield made


def test_without_an_upstream_there_is_the_demo_model() -> None:
    with service_on(None) as service:
        assert names(service) == ["demo"]
        assert service.client.get("/v1/models/demo").json["id"] == "demo"


def test_the_models_of_the_settings_are_listed_and_nobody_is_asked(upstream: Upstream) -> None:
    with service_on(upstream, {"models": ("small", "org/large")}) as service:
        assert names(service) == ["small", "org/large"]
    assert upstream.asked == []


def test_where_any_model_may_be_named_the_upstreams_list_is_shown(upstream: Upstream) -> None:
    with service_on(upstream) as service:
        assert names(service) == ["llama3.2:latest", "org/small"]
        (first, second) = service.client.get("/v1/models").json["data"]
    assert first == LISTED["data"][0]
    assert second == {"id": "org/small", "object": "model", "created": 1, "owned_by": "org"}
    assert [(asked.method, asked.path) for asked in upstream.asked] == [("GET", "/v1/models")]


def test_the_chosen_model_is_listed_by_whatever_name_the_server_has_it(upstream: Upstream) -> None:
    with service_on(upstream, {"model": "llama3.2"}) as service:
        assert names(service) == ["llama3.2", "llama3.2:latest", "org/small"]


@pytest.mark.parametrize("name", ["org/small", "llama3.2:latest", "org%2Fsmall"])
def test_one_model_is_shown_by_its_name_slashes_included(upstream: Upstream, name: str) -> None:
    with service_on(upstream) as service:
        shown = service.client.get(f"/v1/models/{name}")
    assert shown.status_code == 200
    assert shown.json["id"] == name.replace("%2F", "/")
    assert shown.json["object"] == "model"


@pytest.mark.parametrize(
    "name", ["gpt-99", "org/other", "org", "llama3.2:latest/", "x" * 5000, "%00", "..%2f.."]
)
def test_an_unknown_model_is_not_found(upstream: Upstream, name: str) -> None:
    with service_on(upstream) as service:
        refused = service.client.get(f"/v1/models/{name}")
    assert refused.status_code == 404
    error = refused.json["error"]
    assert (error["code"], error["param"], error["type"]) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    assert len(refused.data) < 1000


def test_the_list_is_kept_for_a_while(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    with service_on(upstream) as service:
        for _ in range(3):
            names(service)
        assert len(upstream.asked) == 1
    monkeypatch.setattr(v1_models, "KEPT_SECONDS", 0.0)
    with service_on(upstream) as service:
        for _ in range(3):
            names(service)
        assert len(upstream.asked) == 4


def test_all_who_ask_at_once_make_one_request(upstream: Upstream) -> None:
    with service_on(upstream) as service:
        asking = [gevent.spawn(lambda: names(service)) for _ in range(20)]
        gevent.joinall(asking, timeout=10, raise_error=True)
        assert all(greenlet.value == ["llama3.2:latest", "org/small"] for greenlet in asking)
    assert len(upstream.asked) == 1


NO_LISTS: dict[str, Answer] = {
    "no such route": refusal(404),
    "key": refusal(401),
    "broken": refusal(500),
    "html": answer(b"<html></html>", content_type="text/html"),
    "redirect": answer(b"", 302, Location="http://127.0.0.1:9/"),
    "empty": answer(b""),
    "not json": answer(b"{"),
    "no list": answer({"data": {"id": "x"}}),
    "an array": answer([]),
    "an error": answer({"error": {"message": "no"}}),
    "deep": answer(b'{"data":' + b"[" * 100_000),
    "utf-8": answer(b'{"data":[{"id":"\xff"}]}'),
    "huge": answer(b'{"data":[' + b" " * (5 * 1024 * 1024) + b"]}"),
    "compressed": answer(b"{}", content_encoding="gzip"),
    "cut": lambda connection: connection.sendall(answer(LISTED)[:-20]),
    "closed": lambda connection: connection.shutdown(socket.SHUT_RDWR),
}


@pytest.mark.parametrize("what", NO_LISTS)
def test_an_upstream_without_a_list_leaves_the_default_model(what: str) -> None:
    with upstream_of(NO_LISTS[what]) as upstream, service_on(upstream) as service:
        assert names(service) == ["gpt-5-mini"]
        assert names(service) == ["gpt-5-mini"]
        assert len(upstream.asked) == 1, "not everybody who wants a list asks a server that has none"


def test_an_upstream_that_is_down_leaves_the_default_model(upstream: Upstream) -> None:
    upstream.close()
    with service_on(upstream, {"model": "mine"}) as service:
        assert names(service) == ["mine"]


@pytest.mark.parametrize("how", ["silence", "drip"])
def test_an_upstream_that_does_not_come_to_an_end_is_left(
    upstream: Upstream, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(v1_models, "ASK_SECONDS", 0.2)
    upstream.answers = [getattr(upstream, how)]
    with service_on(upstream) as service:
        assert names(service) == ["gpt-5-mini"]
    assert upstream.left.wait(5)


def test_what_was_known_stands_while_the_upstream_is_away(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(v1_models, "KEPT_SECONDS", 0.0)
    with service_on(upstream) as service:
        assert names(service) == ["llama3.2:latest", "org/small"]
        upstream.answers = [refusal(503)]
        assert names(service) == ["llama3.2:latest", "org/small"]
    assert len(upstream.asked) == 2


@pytest.mark.parametrize(
    "odd", [None, 7, "x", [], {}, {"id": 7}, {"id": ""}, {"id": "x" * 300}, {"ID": "x"}, {"id": None}]
)
def test_what_is_not_a_model_is_passed_over(odd: Any) -> None:
    with upstream_of(answer({"data": [odd, {"id": "good"}]})) as upstream, service_on(upstream) as service:
        assert names(service) == ["good"]


@pytest.mark.parametrize("created", [None, "now", -1, 1.5, 2**70, True])
@pytest.mark.parametrize("owner", [None, 7, "x" * 300])
def test_odd_fields_of_a_model_are_mended(created: Any, owner: Any) -> None:
    listed = {"data": [{"id": "good", "created": created, "owned_by": owner}]}
    with upstream_of(answer(listed)) as upstream, service_on(upstream) as service:
        assert names(service) == ["good"]


def test_a_worker_that_stops_still_lists(upstream: Upstream) -> None:
    with service_on(upstream) as service:
        service.streams.drain(0, 0)
        assert names(service) == ["gpt-5-mini"]
    assert upstream.asked == []
