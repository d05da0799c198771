"""``/metrics`` beside the service: who sees it, and what a request leaves behind in it and in the log."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import g, request

from app import create_app
from streaming.principals import Principal
from tests.web.conftest import FAST, Service, refused

Make = Callable[..., Service]
TOKEN = {"Authorization": "Bearer a-token-for-scrapers"}


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Service] = []

    def make_(**settings: Any) -> Service:
        app = create_app(replace(FAST, **settings))

        @app.before_request
        def identify() -> None:
            if scopes := request.headers.get("Test-Scopes"):
                g.principal = Principal("key_1", "key", frozenset(scopes.split()))

        made.append(Service(app, lambda: 0))
        return made[-1]

    yield make_
    for service in made:
        service.streams.drain(0, 0)
        service.streams.close()


def test_in_the_open_mode_they_are_simply_there(make: Make) -> None:
    response = make().client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    assert response.headers["Cache-Control"] == "no-store"
    assert b'sluice_build_info{python="3.' in response.data
    assert response.data.endswith(b"\n")


@pytest.mark.parametrize("scopes", ["metrics", "admin", "run metrics"])
def test_a_key_with_the_scope_sees_them(make: Make, scopes: str) -> None:
    assert make().client.get("/metrics", headers={"Test-Scopes": scopes}).status_code == 200


@pytest.mark.parametrize("scopes", ["run", "read", "run read"])
def test_a_key_without_the_scope_does_not(make: Make, scopes: str) -> None:
    refused(make().client.get("/metrics", headers={"Test-Scopes": scopes}), 404, "not_found")


def test_with_a_token_they_are_shown_to_who_has_it_or_a_key(make: Make) -> None:
    client = make(metrics_token="a-token-for-scrapers").client
    assert client.get("/metrics", headers=TOKEN).status_code == 200
    assert client.get("/metrics", headers={"Test-Scopes": "metrics"}).status_code == 200
    refused(client.get("/metrics"), 404, "not_found")
    refused(client.get("/metrics", headers={"Authorization": "Bearer another"}), 404, "not_found")
    refused(client.get("/metrics", headers={"Test-Scopes": "run"}), 404, "not_found")


def test_with_a_port_of_their_own_they_are_not_here(make: Make) -> None:
    client = make(metrics_bind="9464", metrics_token="a-token-for-scrapers").client
    refused(client.get("/metrics", headers=TOKEN), 404, "not_found")
    refused(client.get("/metrics", headers={"Test-Scopes": "admin"}), 404, "not_found")


def test_requests_are_counted_by_the_pattern_of_their_address(make: Make) -> None:
    service = make()
    stream_id = service.finished()
    for _ in range(3):
        service.client.get(f"/streams/{stream_id}")
    service.client.get("/streams/st_unknown")
    service.client.get("/no/such/address?prompt=secret")
    text = service.client.get("/metrics").text
    assert 'sluice_http_requests_total{method="GET",route="/streams/<stream_id>",status="404"} 1.0' in text
    assert 'sluice_http_requests_total{method="GET",route="none",status="404"} 1.0' in text
    assert 'sluice_http_requests_total{method="POST",route="/streams",status="201"} 1.0' in text
    assert stream_id not in text
    assert "secret" not in text


@pytest.mark.parametrize("wanted", [True, False])
def test_a_line_for_each_request_is_written_if_it_is_wanted(
    make: Make, caplog: pytest.LogCaptureFixture, wanted: bool
) -> None:
    caplog.set_level(logging.INFO)
    service = make(access_log=wanted)
    response = service.client.get(
        "/stream?prompt=secret+words&message_id=m1", headers={"X-Request-Id": "req-1"}
    )
    assert response.status_code == 200
    lines = [record for record in caplog.records if record.message == "request answered"]
    assert len(lines) == wanted
    for line in lines:
        said = vars(line)
        assert (said["method"], said["route"], said["status"]) == ("GET", "/stream", 200)
        assert said["request_id"] == "req-1"
        assert len(said["trace_id"]) == 32
        assert said["milliseconds"] >= 0
    assert "secret" not in str([vars(record) for record in caplog.records])


def test_a_stream_has_one_line_at_its_start_and_one_at_its_end(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    service = make()
    stream_id = service.finished(prompt="secret words", model="demo")
    began, ended = [
        vars(record) for record in caplog.records if record.message in ("stream started", "stream ended")
    ]
    for line in (began, ended):
        assert (line["stream_id"], line["source"], line["model"]) == (stream_id, "chat", "demo")
        assert line["trace_id"] == began["trace_id"]
    assert (ended["state"], ended["outcome"]) == ("completed", "stop")
    assert ended["seconds"] >= ended["first_token_seconds"] >= 0
    assert ended["tokens_out"] > 0
    assert ended["bytes"] > 0


def test_with_keys_the_token_is_no_key_and_is_enough(make: Make) -> None:
    client = make(auth="keys", metrics_token="a-token-for-scrapers").client
    assert client.get("/metrics", headers=TOKEN).status_code == 200
    refused(client.get("/metrics"), 401, "not_authenticated")
    refused(client.get("/metrics", headers={"Authorization": "Bearer another"}), 401, "not_authenticated")
    refused(client.get("/usage", headers=TOKEN), 401, "not_authenticated")
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
