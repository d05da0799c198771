"""The doctor's routes: ticks by the clock, bounded; what a service tells of itself, to operators only."""

import itertools
import json
import time
from typing import Any

import gevent
import pytest

from streaming.principals import Principal
from streaming.web import _principals, _service_facts, _ticks
from tests.web.conftest import Service, parse_event_stream, refused


def events(service: Service, query: str, **headers: str) -> list[dict[str, Any]]:
    response = service.client.get(f"/doctor/ticks?{query}", headers=headers)
    assert response.status_code == 200, response.text
    return [json.loads(heard.data) for heard in parse_event_stream(response.data).heard]


def test_ticks_come_by_the_clock_and_say_when(shared: Service) -> None:
    before = time.time() * 1000
    hello, *ticked, done = events(shared, "count=3&every_ms=30")

    assert [event["type"] for event in (hello, *ticked, done)] == ["hello", "tick", "tick", "tick", "done"]
    assert [event["n"] for event in ticked] == [1, 2, 3]
    assert done["done"] is True
    assert before - 1 <= hello["at"] <= ticked[0]["at"]
    gaps = [later["at"] - earlier["at"] for earlier, later in itertools.pairwise(ticked)]
    assert all(gap > 20 for gap in gaps), gaps


def test_silence_comes_before_the_ticks_with_heartbeats_on_request(shared: Service) -> None:
    plain = shared.client.get("/doctor/ticks?count=1&every_ms=1&silence_s=0.5")
    beating = shared.client.get("/doctor/ticks?count=1&every_ms=1&silence_s=0.5&heartbeat_s=0.2")

    assert plain.data.count(b": hb") == 0
    assert beating.data.count(b": hb") == 2
    heard = [json.loads(each.data) for each in parse_event_stream(plain.data).heard]
    assert heard[1]["at"] - heard[0]["at"] >= 490


def test_the_headers_are_those_of_every_event_stream(shared: Service) -> None:
    headers = shared.client.get("/doctor/ticks?count=0").headers
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert headers["Cache-Control"] == "no-store, no-transform"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["Stream-Id"] == "doctor"


def test_what_arrived_is_told_and_no_secret_of_it(shared: Service) -> None:
    sent = {"Last-Event-ID": "1.7", "Authorization": "Bearer sk-hidden", "Cookie": "a=hidden"}
    response = shared.client.get("/doctor/ticks?count=0", headers=sent)
    assert b"hidden" not in response.data
    hello = json.loads(parse_event_stream(response.data).heard[0].data)
    assert hello["seen"]["last_event_id"] == "1.7"
    assert hello["seen"]["host"] == "localhost"


def test_a_header_cannot_write_an_event(shared: Service) -> None:
    hello, done = events(shared, "count=0", **{"Last-Event-ID": "x\u2028\x85data: forged"})
    assert (hello["type"], done["type"]) == ("hello", "done")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("count=-1", "count"),
        ("count=201", "count"),
        ("count=1e3", "count"),
        ("every_ms=0", "every_ms"),
        ("every_ms=5001", "every_ms"),
        ("count=200&every_ms=5000", "count"),
        ("silence_s=-1", "silence_s"),
        ("silence_s=nan", "silence_s"),
        ("heartbeat=2", "heartbeat"),
        ("heartbeat_s=x", "heartbeat_s"),
        ("prompt=hi", None),
    ],
)
def test_a_query_that_cannot_be_used_is_refused_by_name(
    shared: Service, query: str, field: str | None
) -> None:
    error = refused(shared.client.get(f"/doctor/ticks?{query}"), 400, "invalid_request")
    assert error["param"] == (field or "prompt")


def test_only_so_many_tick_at_the_same_time(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ticks, "MOST_AT_ONCE", 2)
    query = "/doctor/ticks?count=0&silence_s=20"
    held = [service.client.get(query, buffered=False) for _ in range(2)]
    response = service.client.get(query)
    error = refused(response, 503, "overloaded", code="doctor")
    assert error["retryable"]
    assert response.headers["Retry-After"] == "5"
    held.pop().close()
    assert service.client.get("/doctor/ticks?count=0").status_code == 200
    held.pop().close()


def test_a_worker_that_stops_ends_its_ticks(service: Service) -> None:
    response = service.client.get("/doctor/ticks?count=0&silence_s=60", buffered=False)
    blocks = iter(response.response)
    assert b"hello" in next(blocks)

    draining = gevent.spawn(service.streams.drain, 5.0, 1.0)
    with gevent.Timeout(10):
        assert list(blocks) == []
    response.close()
    draining.join(10)


def test_another_site_s_page_cannot_use_it(shared: Service) -> None:
    stranger = {"Sec-Fetch-Site": "cross-site"}
    refused(shared.client.get("/doctor/ticks", headers=stranger), 403, "invalid_request", code="origin")
    response = shared.client.post("/doctor/findings", json={"url": "x"}, headers=stranger)
    refused(response, 403, "invalid_request", code="origin")


# Findings


def test_measurements_are_judged(shared: Service) -> None:
    asked = {"url": "http://localhost", "websocket_status": 0, "headers": {"server": "nginx"}}
    response = shared.client.post("/doctor/findings", json=asked)
    found = {each["code"]: each for each in response.json["findings"]}
    assert found["websocket"]["level"] == "warning"
    assert found["websocket"]["changes"][0]["where"] == "nginx"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({}, None),
        ({"url": "x", "more": 1}, None),
        ({"url": "x" * 301}, "url"),
        ({"url": "x", "ticks": []}, "ticks"),
        ({"url": "x", "headers": {"a": 1}}, "headers[...]"),
        (
            {"url": "x", "ticks": {"every_ms": 0, "asked": 1, "sent": [], "came": [], "first_byte_ms": 1}},
            "ticks.every_ms",
        ),
        ([], None),
    ],
)
def test_measurements_of_another_shape_are_refused(shared: Service, asked: Any, param: str | None) -> None:
    error = refused(shared.client.post("/doctor/findings", json=asked), 400, "invalid_request")
    if param:
        assert error["param"] == param


# The service itself


def test_a_service_tells_how_it_was_started(service: Service) -> None:
    told = service.client.get("/doctor/service").json
    assert told["facts"]["patched"] is True
    assert told["facts"]["store"]["kind"] in ("memory", "sqlite")
    # Flask's test client is no gunicorn, and that is what it says.
    assert {each["code"] for each in told["findings"]} >= {"server"}


@pytest.mark.parametrize("scopes", [frozenset(), frozenset({"run"}), frozenset({"read", "metrics"})])
def test_only_an_operator_is_told(
    shared: Service, monkeypatch: pytest.MonkeyPatch, scopes: frozenset[str]
) -> None:
    monkeypatch.setattr(_principals, "current", lambda: Principal("key_1", "key", scopes))
    response = shared.client.get("/doctor/service")
    assert response.status_code == 403
    assert b"gevent" not in response.data
    page = shared.client.get("/doctor")
    assert page.status_code == 200
    assert b"told to operators only" in page.data
    assert b"gevent" not in page.data


def test_the_page_has_a_policy_and_no_script_of_others(shared: Service) -> None:
    response = shared.client.get("/doctor")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert response.headers["Cache-Control"] == "no-store"


def test_a_loop_that_stands_still_is_noticed() -> None:
    watch = _service_facts.LoopWatch()
    gevent.sleep(0.25)
    assert (watch.worst_ms or 0) < 400
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        pass
    gevent.sleep(0.15)
    assert (watch.worst_ms or 0) > 400
