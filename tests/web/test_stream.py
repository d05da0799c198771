"""``GET /stream?prompt=…``: one line, and an EventSource that reconnects on its own."""

import json

import pytest

from streaming.events import Done, Token
from tests.doubles import Gate, ScriptedSource, UnsteadyLog, eventually
from tests.web.conftest import Compose, Service, heard, nothing_made, refused


def text_of_simple(events: list[object]) -> str:
    return "".join(json.loads(event.data).get("content", "") for event in events)  # type: ignore[attr-defined]


def test_one_request_asks_and_hears_the_answer(service: Service) -> None:
    response = service.client.get("/stream?prompt=hello")

    events = [json.loads(event.data) for event in heard(response)]
    assert events[0] == {"content": "", "done": False}
    assert events[-1] == {"done": True, "finish_reason": "stop"}
    stream_id = response.headers["Stream-Id"]
    assert response.headers["Content-Location"] == f"/streams/{stream_id}"
    assert "".join(event["content"] for event in events[:-1]) == service.snapshot(stream_id)["text"]
    assert response.headers["Cache-Control"] == "no-store, no-transform"


@pytest.mark.parametrize("name", ["native", "simple", "text", "ndjson"])
def test_every_format_can_be_asked_for(service: Service, name: str) -> None:
    response = service.client.get(f"/stream?prompt=hello&format={name}&buffer_tokens=5&metrics=1")

    assert response.status_code == 200
    assert response.data


def test_a_failure_is_said_in_the_stream(compose: Compose) -> None:
    service = compose(ScriptedSource([Token("so far")], RuntimeError("boom")))

    events = [json.loads(event.data) for event in heard(service.client.get("/stream?prompt=hello"))]

    assert events[1] == {"content": "so far", "done": False}
    assert events[-1]["done"] is True
    assert events[-1]["error"]["partial"] is True


# An EventSource reconnects


def test_a_reconnect_without_a_message_id_never_starts_a_second_run(service: Service) -> None:
    events = heard(service.client.get("/stream?prompt=hello"))

    for event in (events[0], events[3], events[-1]):
        headers = {"Last-Event-ID": event.last_event_id}
        response = service.client.get("/stream?prompt=hello", headers=headers)
        assert (response.status_code, response.data) == (204, b"")
    assert service.client.get("/stream?prompt=hello&after=1.4").status_code == 204
    assert service.count() == 1


def test_a_reconnect_with_a_message_id_joins_the_same_run_where_it_was(service: Service) -> None:
    url = "/stream?prompt=hello&message_id=m-1"
    first = service.client.get(url)
    whole = heard(first)
    for place in range(1, len(whole), 9):
        response = service.client.get(url, headers={"Last-Event-ID": whole[place - 1].last_event_id})
        assert response.headers["Stream-Id"] == first.headers["Stream-Id"]
        assert heard(response) == whole[place:]
    over = service.client.get(url, headers={"Last-Event-ID": whole[-1].last_event_id})
    assert (over.status_code, over.data) == (204, b"")
    assert service.count() == 1


def test_a_reload_with_a_message_id_hears_the_same_run_from_its_start(service: Service) -> None:
    url = "/stream?prompt=hello&message_id=m-1"
    first, again = service.client.get(url), service.client.get(url)

    assert again.headers["Stream-Id"] == first.headers["Stream-Id"]
    assert heard(again) == heard(first)
    assert service.count() == 1


def test_a_reconnect_joins_a_run_that_goes_on(compose: Compose) -> None:
    gate = Gate()
    source = ScriptedSource([Token("one ")], gate, [Token("two")], [Done("stop")])
    service = compose(source)
    url = "/stream?prompt=hello&message_id=m-1"
    first = service.client.get(url)
    blocks = first.iter_encoded()
    body = b""
    while b'"one "' not in body:
        body += next(blocks)
    first.close()
    cursor = body.split(b"id: ")[-1].split(b"\n")[0].decode()
    gate.open()

    rest = heard(service.client.get(url, headers={"Last-Event-ID": cursor}))

    assert text_of_simple(rest) == "two"
    assert source.opened == 1


@pytest.mark.parametrize("cursor", ["1.5", "2.1", "1.1"])
def test_a_reconnect_to_a_run_that_is_gone_never_starts_another(service: Service, cursor: str) -> None:
    url = "/stream?prompt=hello&message_id=m-1"
    stream_id = service.client.get(url).headers["Stream-Id"]
    service.client.delete(f"/streams/{stream_id}")

    response = service.client.get(url, headers={"Last-Event-ID": cursor})

    assert response.status_code in (204, 404, 410)
    assert service.count() == 0


def test_a_reconnect_with_a_message_id_nobody_used_never_starts_a_run(service: Service) -> None:
    url = "/stream?prompt=hello&message_id=from-before-the-restart"
    response = service.client.get(url, headers={"Last-Event-ID": "1.42"})

    assert response.status_code in (204, 404, 410)
    assert service.count() == 0


def test_a_message_id_with_another_prompt_is_refused(service: Service) -> None:
    service.client.get("/stream?prompt=hello&message_id=m-1")

    refused(service.client.get("/stream?prompt=goodbye&message_id=m-1"), 422, "idempotency_mismatch")
    assert service.count() == 1


def test_message_ids_of_one_route_are_not_those_of_another(service: Service) -> None:
    here = service.client.get("/stream?prompt=hello&message_id=m-1").headers["Stream-Id"]

    assert service.create(message_id="m-1") != here


def test_a_cursor_the_run_does_not_hold_is_lost(service: Service) -> None:
    url = "/stream?prompt=hello&message_id=m-1"
    heard(service.client.get(url))

    response = service.client.get(url, headers={"Last-Event-ID": "1.100000"})

    refused(response, 410, "cursor_lost")
    assert response.json["last_id"].startswith("1.")


# Bad requests


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("", "prompt"),
        ("prompt=", "prompt"),
        ("prompt=%20%0A", "prompt"),
        ("message=hello", "message"),
        ("prompt=hello&temperature=1", "temperature"),
        ("prompt=hello&model=gpt-9", "model"),
        ("prompt=hello&source=nobody", "source"),
        ("prompt=hello&format=xml", "format"),
        ("prompt=hello&format=", "format"),
        ("prompt=hello&format=_json_events", "format"),
        ("prompt=hello&on_disconnect=never", "on_disconnect"),
        ("prompt=hello&message_id=", "message_id"),
        ("prompt=hello&message_id=two%20words", "message_id"),
        ("prompt=hello&message_id=" + "x" * 256, "message_id"),
        ("prompt=hello&after=nonsense", "after"),
        ("prompt=hello&metrics=perhaps", "metrics"),
        ("prompt=hello&buffer_tokens=many", "buffer_tokens"),
        ("prompt=hello&buffer_tokens=-1", "buffer_tokens"),
        ("prompt=hello&buffer_tokens=1001", "buffer_tokens"),
        ("prompt=hello&buffer_tokens=%D9%A1", "buffer_tokens"),
        ("prompt=hello&buffer_ms=1e3", "buffer_ms"),
        ("prompt=hello&buffer_ms=99999999999999999999", "buffer_ms"),
        ("prompt=" + "x" * 200_001, "prompt"),
    ],
)
def test_a_bad_query_is_refused_by_name_and_starts_nothing(shared: Service, query: str, param: str) -> None:
    with nothing_made(shared):
        response = shared.client.get(f"/stream?{query}")

        assert 400 <= response.status_code < 500
        error = refused(response, response.status_code, response.json["error"]["type"])
        assert error["param"] == param


def test_invalid_utf_8_in_a_query_harms_nobody(service: Service) -> None:
    response = service.client.get("/stream?prompt=%ff%fe%ED%A0%80")

    assert response.status_code in (200, 400)


def test_a_head_request_starts_no_run(service: Service) -> None:
    service.client.head("/stream?prompt=hello")

    assert service.count() == 0


def test_a_reader_that_leaves_before_the_answer_begins_ends_its_run(compose: Compose) -> None:
    gate = Gate()
    source = ScriptedSource(gate)
    service = compose(source, UnsteadyLog())
    response = service.client.get("/stream?prompt=hello&on_disconnect=cancel")
    next(response.iter_encoded())
    gate.reached.wait(2)

    response.close()

    eventually(lambda: source.closed == 1, 1)
