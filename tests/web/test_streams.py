"""``/streams``: what a client sees of a run, from its creation to its erasure."""

import hashlib
import json
import time
from typing import Any

import gevent
import pytest
from werkzeug.test import TestResponse

from streaming import producer
from streaming.errors import UpstreamTruncated
from streaming.eventlogs import new_stream_id
from streaming.events import Cursor, Done, Reasoning, Token, ToolCall, ToolResult, Usage
from tests.doubles import (
    EventSourceParser,
    Gate,
    ScriptedSource,
    UnsteadyLog,
    eventually,
    parse_event_stream,
    says,
)
from tests.web.conftest import Compose, Service, heard, refused

STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}
EVENTS = {"Accept": "text/event-stream"}


def text_of(events: list[Any]) -> str:
    found = [json.loads(event.data) for event in events]
    return "".join(event["content"] for event in found if event["type"] == "token")


def reading(response: TestResponse) -> Any:
    """Return the blocks of a response that is still going on."""
    return response.iter_encoded()


# Create


def test_a_stream_is_created_and_says_where_it_is(service: Service) -> None:
    response = service.client.post("/streams", json={"prompt": "hello"})

    assert response.status_code == 201
    stream_id = response.json["stream_id"]
    assert response.json["state"] == "running"
    assert response.headers["Location"] == f"/streams/{stream_id}"
    assert response.headers["Stream-Id"] == stream_id
    assert response.headers["Cache-Control"] == "no-store"
    assert "Idempotent-Replayed" not in response.headers
    assert service.client.get(response.json["links"]["self"]).status_code == 200
    assert service.client.get(response.json["links"]["events"]).status_code == 200
    assert service.client.post(response.json["links"]["cancel"]).status_code == 200
    assert service.count() == 1


def test_a_create_can_be_answered_with_the_stream_itself(service: Service) -> None:
    response = service.client.post("/streams", json={"prompt": "hello"}, headers=EVENTS)

    assert response.status_code in (200, 201)
    stream_id = response.headers["Stream-Id"]
    assert response.headers["Content-Location"] == f"/streams/{stream_id}"
    assert {name: response.headers[name] for name in STREAM_HEADERS} == STREAM_HEADERS
    assert heard(response) == service.follow(f"/streams/{stream_id}")


@pytest.mark.parametrize(
    "accept", [None, "*/*", "application/json", "text/html,application/xhtml+xml,*/*;q=0.8"]
)
def test_who_does_not_ask_for_events_gets_json(service: Service, accept: str | None) -> None:
    headers = {"Accept": accept} if accept else {}
    response = service.client.post("/streams", json={"prompt": "hello"}, headers=headers)

    assert response.headers["Content-Type"] == "application/json"
    stream_id = response.json["stream_id"]
    assert service.client.get(f"/streams/{stream_id}", headers=headers).json["stream_id"] == stream_id


def test_several_messages_images_and_params_are_taken(service: Service) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    body = {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "what is this?"}, image]},
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "user", "content": "and now?"},
        ],
        "instructions": "in English",
        "model": "demo",
        "source": "chat",
        "params": {"temperature": 0, "max_tokens": 5, "stop": ["x"], "top_p": 1},
        "on_disconnect": "continue",
        "timeout_seconds": 60,
        "message_id": "m-1",
    }
    response = service.client.post("/streams", json=body)

    assert response.status_code == 201, response.text


# Follow


def test_the_native_events_are_complete_and_in_order(service: Service) -> None:
    stream_id = service.create()
    events = service.follow(f"/streams/{stream_id}")

    bodies = [json.loads(event.data) for event in events]
    assert bodies[0]["type"] == "start"
    assert bodies[0]["stream_id"] == stream_id
    assert (bodies[0]["source"], bodies[0]["model"]) == ("chat", "demo")
    assert isinstance(bodies[0]["created"], int)
    assert {event.type for event in events} == {"message"}, "onmessage hears everything"
    assert [body.get("done") for body in bodies] == [None] * (len(bodies) - 1) + [True]
    last = bodies[-1]
    assert last["type"] == "done"
    assert last["finish_reason"] == "stop"
    assert last["usage"]["completion_tokens"] > 0
    assert last["metrics"]["tokens"] == last["usage"]["completion_tokens"]
    assert last["text_sha256"] == hashlib.sha256(text_of(events).encode()).hexdigest()
    assert sum(body.get("n", 1) for body in bodies) == last["last_seq"]


def test_ids_rise_by_the_number_of_events_they_stand_for(service: Service) -> None:
    seq = 0
    for event in service.follow(f"/streams/{service.create()}"):
        seq += json.loads(event.data).get("n", 1)
        assert event.last_event_id == f"1.{seq}"


def test_the_time_to_reconnect_comes_with_the_first_event(service: Service) -> None:
    body = service.client.get(f"/streams/{service.finished()}", headers=EVENTS).data

    assert body.count(b"retry:") == 1
    first = body.partition(b"\n\n")[0]
    assert b"retry: " in first
    assert b"data: " in first
    assert b"id: " in first
    parser = parse_event_stream(body)
    assert parser.retry is not None
    assert 100 <= parser.retry <= 30_000


@pytest.mark.parametrize("name", ["native", "simple", "text", "ndjson"])
def test_a_stream_cut_after_any_event_goes_on_where_it_was(service: Service, name: str) -> None:
    stream_id = service.finished(params={"max_tokens": 6})
    path = f"/streams/{stream_id}?format={name}"
    if name == "ndjson":
        lines = service.client.get(path).data.splitlines()
        assert [json.loads(line)["type"] for line in lines][-1] == "done"
        assert service.client.get(path).headers["Content-Type"] == "application/x-ndjson"
        return
    whole = service.follow(path)
    ids = [event.last_event_id for event in whole]
    assert len(set(ids)) == len(ids)

    for place, event in enumerate(whole[:-1], 1):
        assert service.follow(path, **{"Last-Event-ID": event.last_event_id})[0].last_event_id == ids[place]
        response = service.client.get(f"{path}&after={event.last_event_id}", headers=EVENTS)
        assert [event.data for event in heard(response)][1:] == [event.data for event in whole[place + 1 :]]
    over = service.client.get(path, headers={"Last-Event-ID": ids[-1]})
    assert (over.status_code, over.data) == (204, b"")


def test_every_format_says_the_same_text(service: Service) -> None:
    stream_id = service.finished()
    path = f"/streams/{stream_id}?format="
    expected = service.snapshot(stream_id)["text"]

    native = text_of(service.follow(path + "native"))
    simple = [json.loads(event.data) for event in service.follow(path + "simple")]
    text = [event.data for event in service.follow(path + "text")]
    ndjson = [json.loads(line) for line in service.client.get(path + "ndjson").data.decode().split("\n")[:-1]]

    assert native == expected
    assert "".join(event["content"] for event in simple[:-1]) == expected
    assert simple[-1] == {"done": True, "finish_reason": "stop"}
    assert [event["done"] for event in simple] == [False] * (len(simple) - 1) + [True]
    assert text[-1] == "[DONE]"
    assert "".join(text[:-1]) == expected
    assert "".join(event["content"] for event in ndjson if event["type"] == "token") == expected


def test_last_event_id_wins_over_after(service: Service) -> None:
    stream_id = service.finished()
    ids = [event.last_event_id for event in service.follow(f"/streams/{stream_id}")]

    events = service.follow(f"/streams/{stream_id}?after={ids[0]}", **{"Last-Event-ID": ids[3]})

    assert events[0].last_event_id == ids[4]


@pytest.mark.parametrize("empty", ["", "0.0", "1.0", "9.0"])
def test_an_empty_cursor_is_the_start(service: Service, empty: str) -> None:
    stream_id = service.finished()

    by_header = service.follow(f"/streams/{stream_id}", **{"Last-Event-ID": empty})
    by_query = service.follow(f"/streams/{stream_id}?after={empty}")

    assert by_header == by_query == service.follow(f"/streams/{stream_id}")


def test_a_live_reader_sees_each_token_when_it_is_said(compose: Compose) -> None:
    gates = [Gate(), Gate()]
    service = compose(ScriptedSource([Token("one")], gates[0], [Token("two")], gates[1], [Done("stop")]))
    stream_id = service.create()
    parser = EventSourceParser()
    blocks = reading(service.client.get(f"/streams/{stream_id}", headers=EVENTS))

    for gate, word in zip(gates, ("one", "two"), strict=True):
        with gevent.Timeout(5):
            while f'"{word}"' not in "".join(event.data for event in parser.heard):
                parser.feed(next(blocks))
        gate.open()
    parser.feed(b"".join(blocks))
    assert json.loads(parser.heard[-1].data)["finish_reason"] == "stop"


def test_tokens_are_merged_for_who_wants_fewer_messages(service: Service) -> None:
    stream_id = service.finished()
    path = f"/streams/{stream_id}"
    plain, merged = service.follow(path), service.follow(f"{path}?buffer_tokens=10&buffer_ms=50")

    assert text_of(merged) == text_of(plain)
    assert len(merged) < len(plain) / 2
    for events in (plain, merged):
        bodies = [json.loads(event.data) for event in events]
        assert sum(body.get("n", 1) for body in bodies) == bodies[-1]["last_seq"]


def test_time_alone_merges_too(service: Service) -> None:
    path = f"/streams/{service.finished()}"

    merged = service.follow(f"{path}?buffer_ms=50")

    assert len(merged) < len(service.follow(path)) / 2


def test_live_metrics_are_shown_to_who_asks(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.tally.METRICS_SECONDS", 0.0)
    service = compose(ScriptedSource(*says("a", "b")))
    stream_id = service.finished()

    def types(query: str) -> set[str]:
        return {json.loads(event.data)["type"] for event in service.follow(f"/streams/{stream_id}{query}")}

    assert "metrics" not in types("")
    assert "metrics" not in types("?metrics=0")
    assert "metrics" in types("?metrics=1")
    assert "metrics" in types("?metrics=true")


def test_silence_is_filled_with_comments(compose: Compose) -> None:
    gate = Gate()
    service = compose(
        ScriptedSource([Token("one")], gate, [Done("stop")]), settings={"heartbeat_seconds": 0.02}
    )
    stream_id = service.create()
    blocks = reading(service.client.get(f"/streams/{stream_id}", headers=EVENTS))
    body = b""
    with gevent.Timeout(5):
        while body.count(b": hb\n") < 3:
            body += next(blocks)
    gate.open()
    body += b"".join(blocks)

    parser = parse_event_stream(body)
    assert len(parser.comments) >= 3
    assert b": hb\n\n" not in body, "an id and then an empty line make SDKs hear an empty event"
    assert all(event.data for event in parser.heard)


def test_events_a_format_does_not_show_are_silence_too(compose: Compose) -> None:
    thoughts = [step for _ in range(60) for step in ([Reasoning("hmm")], 0.01)]
    service = compose(
        ScriptedSource(*thoughts, [Token("done")], [Done("stop")]), settings={"heartbeat_seconds": 0.1}
    )
    stream_id = service.create()

    body = service.client.get(f"/streams/{stream_id}?format=text").data

    assert body.count(b": hb\n") >= 2, "0.6 s without a byte"


def test_a_reader_behind_of_a_stream_that_is_erased_is_told_so(compose: Compose) -> None:
    service = compose(ScriptedSource([Token("x")] * 600, [Done("stop")]))
    stream_id = service.finished()
    blocks = reading(service.client.get(f"/streams/{stream_id}", headers=EVENTS))
    parser = EventSourceParser()
    parser.feed(next(blocks))

    assert service.client.delete(f"/streams/{stream_id}").status_code == 204
    parser.feed(b"".join(blocks))

    last = json.loads(parser.heard[-1].data)
    assert (last["type"], last["error"]["type"]) == ("error", "stream_expired")


def test_a_store_that_fails_under_a_reader_is_said_in_band_and_without_an_id(compose: Compose) -> None:
    log = UnsteadyLog()
    service = compose(ScriptedSource([Token("x")] * 600, [Done("stop")]), log)
    stream_id = service.finished()
    blocks = reading(service.client.get(f"/streams/{stream_id}", headers=EVENTS))
    parser = EventSourceParser()
    parser.feed(next(blocks))
    before = parser.heard[-1].last_event_id

    log.broken = {"read"}
    parser.feed(b"".join(blocks))
    log.broken = set()

    last = parser.heard[-1]
    error = json.loads(last.data)["error"]
    assert (error["type"], error["retryable"]) == ("store_unavailable", True)
    assert last.last_event_id == before, "it can go on from there"


# Idempotency


def test_the_same_key_and_body_give_the_same_stream(service: Service) -> None:
    headers = {"Idempotency-Key": "key-1"}
    first = service.client.post("/streams", json={"prompt": "hello"}, headers=headers)
    again = service.client.post("/streams", json={"prompt": "hello"}, headers=headers)

    assert again.status_code in (200, 201)
    assert again.json["stream_id"] == first.json["stream_id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    assert "Idempotent-Replayed" not in first.headers
    assert service.count() == 1


def test_a_message_id_does_the_same(service: Service) -> None:
    body = {"prompt": "hello", "message_id": "m-1"}
    first = service.client.post("/streams", json=body)
    again = service.client.post("/streams", json=body, headers=EVENTS)

    assert again.headers["Stream-Id"] == first.json["stream_id"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert service.count() == 1
    events = heard(again)
    assert events == service.follow(f"/streams/{first.json['stream_id']}")


def test_a_body_written_another_way_is_the_same_body(service: Service) -> None:
    headers = {"Idempotency-Key": "key", "Content-Type": "application/json"}
    bodies = [
        b'{"prompt":"h\xc3\xa9","params":{"temperature":1,"top_p":0.5}}',
        b' {"params": {"top_p": 0.50, "temperature": 1.0},\n "prompt": "h\\u00e9"} ',
    ]
    ids = {service.client.post("/streams", data=body, headers=headers).json["stream_id"] for body in bodies}

    assert len(ids) == 1


@pytest.mark.parametrize(
    "other", [{"prompt": "hello!"}, {"prompt": "hello", "params": {"seed": 1}}, {"messages": []}]
)
def test_a_key_used_for_another_body_is_refused(service: Service, other: dict[str, Any]) -> None:
    headers = {"Idempotency-Key": "key"}
    service.client.post("/streams", json={"prompt": "hello"}, headers=headers)

    response = service.client.post("/streams", json=other, headers=headers)

    if "messages" in other:
        refused(response, 400, "invalid_request", param="messages")
    else:
        refused(response, 422, "idempotency_mismatch", retryable=False)
    assert service.count() == 1


def test_requests_at_the_same_time_with_one_key_make_one_run(service: Service) -> None:
    def ask() -> TestResponse:
        body = {"prompt": "hello", "message_id": "m"}
        return service.client.application.test_client().post("/streams", json=body)

    jobs = [gevent.spawn(ask) for _ in range(20)]
    gevent.joinall(jobs, timeout=10, raise_error=True)

    assert len({job.value.json["stream_id"] for job in jobs}) == 1
    assert sum(job.value.status_code == 201 for job in jobs) == 1
    assert service.count() == 1


def test_without_a_key_every_request_is_another_run(service: Service) -> None:
    assert len({service.create() for _ in range(3)}) == 3


# Snapshot, polling


def test_a_snapshot_holds_what_others_rely_on(service: Service) -> None:
    stream_id = service.finished()
    snapshot = service.snapshot(stream_id)

    assert snapshot["stream_id"] == stream_id
    assert snapshot["state"] == "completed"
    assert snapshot["finish_reason"] == "stop"
    assert snapshot["text"] == text_of(service.follow(f"/streams/{stream_id}"))
    assert snapshot["usage"]["completion_tokens"] > 0
    assert snapshot["metrics"]["tokens"] > 0
    assert (
        service.client.get(f"/streams/{stream_id}?format=native&after={snapshot['cursor']}").status_code
        == 204
    )


def test_a_snapshot_has_all_its_fields_at_any_time(compose: Compose) -> None:
    gate = Gate()
    service = compose(ScriptedSource([Token("a")], gate, [Done("stop")]))
    stream_id = service.create()
    gate.reached.wait(2)

    names = {"stream_id", "state", "text", "cursor", "usage", "metrics", "error"}
    assert set(service.snapshot(stream_id)) >= names
    gate.open()
    eventually(lambda: service.snapshot(stream_id)["state"] == "completed")
    assert set(service.snapshot(stream_id)) >= names


def test_polling_with_the_cursor_gives_each_part_once(compose: Compose) -> None:
    gates = [Gate() for _ in range(3)]
    steps = [step for place, gate in enumerate(gates) for step in ([Token(f"{place} ")], gate)]
    service = compose(ScriptedSource(*steps, [Usage({"completion_tokens": 3})], [Done("stop")]))
    stream_id = service.create()
    text, cursor, state = "", "", "running"
    for gate in gates:
        gate.reached.wait(2)
        snapshot = service.snapshot(stream_id, f"?after={cursor}")
        assert snapshot["state"] == "running"
        text, cursor = text + snapshot["text"], snapshot["cursor"]
        assert service.snapshot(stream_id, f"?after={cursor}")["text"] == ""
        gate.open()
    while state == "running":
        snapshot = service.snapshot(stream_id, f"?after={cursor}&wait=5")
        text, cursor, state = text + snapshot["text"], snapshot["cursor"], snapshot["state"]

    assert text == "0 1 2 "
    assert state == "completed"
    assert snapshot["finish_reason"] == "stop"
    again = service.snapshot(stream_id, f"?after={cursor}&wait=30")
    assert (again["text"], again["state"], again["cursor"]) == ("", "completed", cursor)


def test_a_long_poll_waits_for_something_new_and_not_longer(compose: Compose) -> None:
    gate = Gate()
    service = compose(
        ScriptedSource(gate, [Token("new")], [Done("stop")]), settings={"max_wait_seconds": 0.1}
    )
    stream_id = service.create()
    gate.reached.wait(2)
    cursor = service.snapshot(stream_id)["cursor"]

    before = time.monotonic()
    assert service.snapshot(stream_id, f"?after={cursor}&wait=3600")["cursor"] == cursor
    assert 0.08 < time.monotonic() - before < 2

    gevent.spawn_later(0.02, gate.open)
    assert "new" in service.snapshot(stream_id, f"?after={cursor}&wait=5")["text"]


def test_a_failed_run_is_a_snapshot_with_its_error(compose: Compose) -> None:
    service = compose(ScriptedSource([Token("so far")], RuntimeError("boom")))
    stream_id = service.finished()

    snapshot = service.snapshot(stream_id)
    assert (snapshot["state"], snapshot["text"]) == ("failed", "so far")
    assert snapshot["error"]["type"] == "internal_error"
    assert snapshot["error"]["partial"] is True
    assert "boom" not in json.dumps(snapshot)


def test_how_a_run_ended_is_told_wherever_the_cursor_is(compose: Compose) -> None:
    service = compose(ScriptedSource([Token("so far")], RuntimeError("boom")))
    stream_id = service.create()
    eventually(lambda: service.snapshot(stream_id)["state"] == "failed")
    whole = service.snapshot(stream_id)

    rest = service.snapshot(stream_id, f"?after={whole['cursor']}&events=1")

    assert rest == whole | {"text": "", "events": []}
    assert rest["error"]["type"] == whole["error"]["type"]
    assert rest["last_seq"] == whole["last_seq"]


def test_a_poll_keeps_a_run_going(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer, "TICK_SECONDS", 0.01)
    service = compose(ScriptedSource(Gate()), settings={"disconnect_grace_seconds": 0.3})
    stream_id = service.create()
    for _ in range(4):
        gevent.sleep(0.15)
        assert service.snapshot(stream_id)["state"] == "running"

    gevent.sleep(0.45)
    assert service.streams._log.head(stream_id).ended, "the grace counts from the last poll"


def test_a_reader_that_goes_ends_a_run_that_asked_for_it(compose: Compose) -> None:
    source = ScriptedSource([Token("x")], Gate())
    service = compose(source)
    stream_id = service.create(on_disconnect="cancel")
    response = service.client.get(f"/streams/{stream_id}", headers=EVENTS)
    next(reading(response))

    response.close()

    eventually(lambda: source.closed == 1, 1)
    assert eventually(lambda: service.snapshot(stream_id)["state"] == "cancelled")


# Cursors that cannot be continued


@pytest.mark.parametrize(
    "cursor",
    ["42", "1.", ".1", "1.2.3", "-1.2", "01.2", "1.02", "a.b", "1,2", "1.2 ", "1" * 41, "%00", "١.٢"],
)
@pytest.mark.parametrize("how", ["after", "Last-Event-ID"])
def test_a_cursor_of_another_form_is_refused(shared: Service, cursor: str, how: str) -> None:
    stream_id = shared.finished()
    if how == "after":
        response = shared.client.get(
            f"/streams/{stream_id}", query_string={"after": cursor.replace("%00", "\0")}
        )
    else:
        headers = {"Last-Event-ID": cursor.encode().decode("latin-1"), **EVENTS}
        if cursor == "1.2 ":
            headers["Last-Event-ID"] = "1.2 3"
        response = shared.client.get(f"/streams/{stream_id}", headers=headers)

    refused(response, 400, "bad_cursor")


def test_a_cursor_given_twice_is_refused(service: Service) -> None:
    stream_id = service.finished()

    refused(service.client.get(f"/streams/{stream_id}?after=1.1&after=1.2"), 400, "bad_cursor")
    twice = [("Last-Event-ID", "1.1"), ("Last-Event-ID", "1.2")]
    refused(service.client.get(f"/streams/{stream_id}", headers=twice), 400, "bad_cursor")


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
def test_a_cursor_the_log_does_not_hold_is_lost_and_told_the_last(service: Service, accept: str) -> None:
    stream_id = service.finished()
    last_id = service.snapshot(stream_id)["cursor"]
    for lost in (str(Cursor(1, 100_000)), str(Cursor(2, 1)), str(Cursor(0, 1))):
        response = service.client.get(f"/streams/{stream_id}?after={lost}", headers={"Accept": accept})
        refused(response, 410, "cursor_lost")
        assert response.json["last_id"] == last_id


def test_streams_that_are_not_there_say_why(service: Service) -> None:
    store = service.create()[3:11]
    elsewhere = new_stream_id("a" * 8 if store != "a" * 8 else "b" * 8)
    for method, suffix in (("get", ""), ("get", "?format=native"), ("post", "/cancel"), ("delete", "")):
        ask = getattr(service.client, method)
        refused(ask(f"/streams/{elsewhere}{suffix}"), 410, "stream_lost")
        refused(ask(f"/streams/{new_stream_id(store)}{suffix}"), 404, "not_found")
        for odd in ("x", "st_", "%00", "%F0%9F%98%80", "a" * 3000, "..%2f..", "%ED%A0%80"):
            refused(ask(f"/streams/{odd}{suffix}"), 404, "not_found")


# Cancel


def test_a_cancel_closes_the_upstream_and_says_so(compose: Compose) -> None:
    gate = Gate()
    source = ScriptedSource([Token("so far")], gate)
    service = compose(source)
    stream_id = service.create()
    gate.reached.wait(2)

    response = service.client.post(f"/streams/{stream_id}/cancel")

    assert response.status_code == 200
    assert source.closed == 1
    receipt = response.json
    assert (receipt["stream_id"], receipt["state"], receipt["upstream"]) == (stream_id, "cancelled", "closed")
    assert receipt["cursor"] == service.snapshot(stream_id)["cursor"]
    last = json.loads(service.follow(f"/streams/{stream_id}")[-1].data)
    assert (last["type"], last["finish_reason"], last["done"]) == ("done", "cancelled", True)
    assert service.snapshot(stream_id)["text"] == "so far"


def test_a_cancel_twice_tells_the_same_end(compose: Compose) -> None:
    service = compose(ScriptedSource(Gate()))
    stream_id = service.create()
    first = service.client.post(f"/streams/{stream_id}/cancel").json
    again = service.client.post(f"/streams/{stream_id}/cancel")

    assert again.status_code == 200
    assert again.json == first | {"upstream": "none"}


def test_a_cancel_of_a_stream_that_ended_tells_what_won(service: Service) -> None:
    response = service.client.post(f"/streams/{service.finished()}/cancel")

    assert (response.json["state"], response.json["upstream"]) == ("completed", "none")


def test_cancels_at_the_same_time_agree(compose: Compose) -> None:
    service = compose(ScriptedSource(Gate()))
    stream_id = service.create()

    def cancel() -> TestResponse:
        return service.client.application.test_client().post(f"/streams/{stream_id}/cancel")

    jobs = [gevent.spawn(cancel) for _ in range(10)]
    gevent.joinall(jobs, timeout=10, raise_error=True)

    assert {job.value.json["state"] for job in jobs} == {"cancelled"}
    assert len({job.value.json["cursor"] for job in jobs}) == 1


def test_a_cancel_and_the_end_of_a_run_leave_one_end(compose: Compose) -> None:
    for turns in range(12):
        gate = Gate()
        service = compose(ScriptedSource(gate, [Token("x"), Done("stop")]))
        stream_id = service.create()
        gate.reached.wait(2)
        gevent.spawn(gate.open)
        for _ in range(turns):
            gevent.sleep(0)
        receipt = service.client.post(f"/streams/{stream_id}/cancel").json
        bodies = [json.loads(event.data) for event in service.follow(f"/streams/{stream_id}")]
        assert [body.get("done") for body in bodies].count(True) == 1
        won = "cancelled" if bodies[-1]["finish_reason"] == "cancelled" else "completed"
        assert receipt["state"] == won == service.snapshot(stream_id)["state"]


# Erase


@pytest.mark.parametrize("running", [False, True])
def test_an_erased_stream_is_gone_for_good(compose: Compose, running: bool) -> None:
    source = ScriptedSource([Token("secret")], *([Gate()] if running else []), [Done("stop")])
    service = compose(source)
    stream_id = service.create() if running else service.finished()
    eventually(lambda: "secret" in service.snapshot(stream_id)["text"])

    response = service.client.delete(f"/streams/{stream_id}")

    assert (response.status_code, response.data) == (204, b"")
    eventually(lambda: source.closed == 1)
    for method, suffix in (("get", ""), ("get", "?format=text"), ("post", "/cancel"), ("delete", "")):
        answer = getattr(service.client, method)(f"/streams/{stream_id}{suffix}")
        refused(answer, 410, "stream_expired")
        assert b"secret" not in answer.data
    refused(service.client.get(f"/streams/{stream_id}?after=1.1"), 410, "stream_expired")


# Limits


def test_a_worker_that_is_full_refuses_before_any_work(compose: Compose) -> None:
    source = ScriptedSource(Gate())
    service = compose(source, settings={"max_streams": 3})
    for _ in range(3):
        service.create()

    response = service.client.post("/streams", json={"prompt": "one more"})

    refused(response, 503, "overloaded", retryable=True)
    assert int(response.headers["Retry-After"]) >= 1
    assert service.count() == 3
    assert service.client.get("/healthz").status_code == 200
    refused(service.client.get("/readyz"), 503, "overloaded")


def test_creates_at_the_same_time_cannot_pass_the_limit(compose: Compose) -> None:
    gate = Gate()
    full = compose(ScriptedSource(gate), settings={"max_streams": 3})
    full.streams._log.create = _slow(full.streams._log.create)  # type: ignore[method-assign]

    def ask() -> int:
        client = full.client.application.test_client()
        return int(client.post("/streams", json={"prompt": "hello"}).status_code)

    jobs = [gevent.spawn(ask) for _ in range(10)]
    gevent.joinall(jobs, timeout=1)

    assert all(job.ready() for job in jobs), "a create waits for other runs to end"
    assert sorted(job.value for job in jobs) == [201] * 3 + [503] * 7
    assert full.count() == 3


def _slow(create: Any) -> Any:
    def slowly(*arguments: Any) -> Any:
        gevent.sleep(0.01)  # as a commit does
        return create(*arguments)

    return slowly


def test_a_worker_that_stops_refuses_and_lets_its_readers_go(compose: Compose) -> None:
    service = compose(ScriptedSource([Token("so far")], Gate()))
    stream_id = service.create()
    response = service.client.get(f"/streams/{stream_id}", headers=EVENTS)
    parser = EventSourceParser()
    blocks = reading(response)
    parser.feed(next(blocks))

    draining = gevent.spawn(service.streams.drain, 0.05, 0.0)
    gevent.sleep(0.01)
    answer = service.client.post("/streams", json={"prompt": "hello"})
    refused(answer, 503, "overloaded", code="draining", retryable=True)
    assert answer.headers["Retry-After"] == "1"
    with gevent.Timeout(5):
        parser.feed(b"".join(blocks))
    draining.get(timeout=5)

    last = json.loads(parser.heard[-1].data)
    assert (last["type"], last["error"]["type"], last["error"]["code"]) == (
        "error",
        "interrupted",
        "shutdown",
    )
    assert last["error"]["retryable"] is True


# Going on with a text that was cut off


def test_a_text_that_was_cut_off_is_gone_on_with(compose: Compose) -> None:
    source = ScriptedSource([Token("half an ans")], UpstreamTruncated("cut off"))
    service = compose(source)
    cut_off = service.create(prompt="why?")
    eventually(lambda: service.snapshot(cut_off)["state"] == "failed")
    source._steps = ([Token("wer")], [Done("stop")])

    stream_id = service.create(prompt="why?", continues=cut_off)

    eventually(lambda: service.snapshot(stream_id)["state"] == "completed")
    asked = source.prompts[-1].messages
    assert [message["role"] for message in asked] == ["user", "assistant", "user"]
    assert asked[1]["content"] == "half an ans"
    start = json.loads(service.follow(f"/streams/{stream_id}")[0].data)
    assert start["continues"] == cut_off
    assert service.snapshot(stream_id)["text"] == "wer"


def test_only_what_has_ended_is_gone_on_with(compose: Compose) -> None:
    gate = Gate()
    service = compose(ScriptedSource([Token("a")], gate, [Done("stop")]))
    running = service.create()
    for continues, status, code in (
        (running, 409, "running"),
        ("st_unknown", 404, "not_found"),
        (new_stream_id("abcdefgh"), 410, "stream_lost"),
    ):
        refused = service.client.post("/streams", json={"prompt": "why?", "continues": continues})
        assert (refused.status_code, refused.json["error"]["code"]) == (status, code)
    gate.open()


# Connections that are closed before the end


def test_a_long_connection_is_closed_at_an_event_and_resumed(compose: Compose) -> None:
    gate = Gate()
    source = ScriptedSource([Token("one ")], gate, [Token("two")], [Done("stop")])
    service = compose(source, settings={"connection_seconds": 1e-6})
    stream_id = service.create()
    gate.reached.wait(2)

    first = service.follow(f"/streams/{stream_id}")
    gate.open()
    eventually(lambda: service.snapshot(stream_id)["state"] == "completed")
    rest = service.follow(f"/streams/{stream_id}", **{"Last-Event-ID": first[-1].last_event_id})

    assert (text_of(first), text_of(rest)) == ("one ", "two")
    assert json.loads(rest[-1].data)["type"] == "done"


def test_the_answer_to_a_create_is_never_closed_early(compose: Compose) -> None:
    service = compose(ScriptedSource(*says("a b c")), settings={"connection_seconds": 1e-6})

    events = heard(service.client.post("/streams", json={"prompt": "hello"}, headers=EVENTS))

    assert json.loads(events[-1].data)["type"] == "done"


def test_a_client_that_polls_is_given_events_with_their_neighbours_joined(compose: Compose) -> None:
    gate = Gate()
    call, result = ToolCall("c1", "weather", {"city": "Oslo"}, handled=True), ToolResult("c1", "weather", 9)
    steps = [[Token("a"), Token("b"), call], gate, [result, Token("c")], [Token("d")], [Done("stop")]]
    service = compose(ScriptedSource(*steps))
    stream_id = service.create()
    gate.reached.wait(2)
    first = service.snapshot(stream_id, "?events=1")
    assert first["events"] == [
        {"type": "token", "content": "ab"},
        {"type": "tool_call", "id": "c1", "tool": "weather", "args": {"city": "Oslo"}, "handled": True},
    ]
    gate.open()
    eventually(lambda: service.snapshot(stream_id)["state"] == "completed")
    rest = service.snapshot(stream_id, f"?events=1&after={first['cursor']}")
    assert rest["events"] == [
        {"type": "tool_result", "id": "c1", "tool": "weather", "result": 9},
        {"type": "token", "content": "cd"},
    ]
    assert "events" not in service.snapshot(stream_id)
    refused(service.client.get(f"/streams/{stream_id}?events=yes"), 400, "invalid_request", param="events")
