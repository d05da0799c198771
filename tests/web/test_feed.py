"""``GET /streams?follow=…``: several streams in one response."""

import json
from typing import Any

import pytest
from gevent.event import Event as Flag

from streaming.eventlogs import new_stream_id
from streaming.events import Token
from tests.doubles import EventSourceParser, Gate, Heard, ScriptedSource, eventually, running, says
from tests.web.conftest import Compose, Service, heard, refused

EVENTS = {"Accept": "text/event-stream"}


def feed(service: Service, *followed: str, **headers: str) -> list[Heard]:
    """Return all that a feed of these streams says, read to its end."""
    response = service.client.get("/streams", query_string={"follow": followed}, headers=EVENTS | headers)
    assert response.status_code == 200, response.text
    assert response.headers["Cache-Control"] == "no-store, no-transform"
    return heard(response)


def of(events: list[Heard], stream_id: str) -> list[tuple[str, str]]:
    """Return the data and the ids of what a feed says of one stream."""
    return [(event.data, event.last_event_id) for event in events if event.type == stream_id]


def error_of(events: list[Heard], stream_id: str) -> dict[str, Any]:
    ((data, _),) = of(events, stream_id)
    said: dict[str, Any] = json.loads(data)
    assert (said["type"], said["done"]) == ("error", True)
    assert "last_seq" not in said, "only the log's own last event counts events"
    error: dict[str, Any] = said["error"]
    return error


def test_each_stream_is_told_as_if_it_were_followed_alone(service: Service) -> None:
    ids = [service.finished(prompt=f"question {number}") for number in range(3)]

    events = feed(service, *ids)

    for stream_id in ids:
        alone = service.follow(f"/streams/{stream_id}")
        assert of(events, stream_id) == [(event.data, event.last_event_id) for event in alone]
    assert {event.type for event in events} == set(ids)


def test_each_stream_goes_on_from_its_own_cursor(service: Service) -> None:
    first, second = service.finished(), service.finished()
    alone = service.follow(f"/streams/{first}")

    events = feed(service, f"{first}@{alone[4].last_event_id}", second)

    assert of(events, first) == [(event.data, event.last_event_id) for event in alone[5:]]
    assert len(of(events, second)) == len(service.follow(f"/streams/{second}"))


def test_a_stream_that_was_read_to_its_end_says_its_end_again(service: Service) -> None:
    stream_id = service.finished()
    last = service.follow(f"/streams/{stream_id}")[-1]

    events = feed(service, f"{stream_id}@{last.last_event_id}")

    assert of(events, stream_id) == [(last.data, last.last_event_id)]


def test_streams_that_are_written_are_told_as_they_come(compose: Compose) -> None:
    gates = [Gate(), Gate()]
    service = compose(ScriptedSource([Token("one ")], gates[0], [Token("two ")], gates[1], *says("three")))
    ids = [service.create(), service.create()]
    parser = EventSourceParser()
    response = service.client.get("/streams", query_string={"follow": ids}, headers=EVENTS)
    blocks = response.iter_encoded()

    def text_of(stream_id: str) -> str:
        events = [json.loads(data) for data, _ in of(parser.heard, stream_id)]
        return "".join(event.get("content", "") for event in events)

    for said in ("one ", "one two ", "one two three"):
        while any(text_of(stream_id) != said for stream_id in ids):
            parser.feed(next(blocks))
        for gate in gates[:1]:
            gate.open()
        gates = gates[1:]
    for block in blocks:
        parser.feed(block)

    assert parser.retry == 1000
    assert all(json.loads(of(parser.heard, stream_id)[-1][0])["type"] == "done" for stream_id in ids)


def test_a_silent_feed_says_that_it_is_there(compose: Compose) -> None:
    gate = Gate()
    service = compose(ScriptedSource(gate, *says("late")), settings={"heartbeat_seconds": 0.05})
    stream_id = service.create()
    parser = EventSourceParser()
    blocks = service.client.get("/streams", query_string={"follow": stream_id}).iter_encoded()

    while len(parser.comments) < 4:
        parser.feed(next(blocks))
    gate.open()
    for block in blocks:
        parser.feed(block)

    assert json.loads(parser.heard[-1].data)["type"] == "done"


def test_a_feed_is_closed_now_and_then_between_two_events(compose: Compose) -> None:
    source = ScriptedSource(*[step for word in range(40) for step in ([Token(f"{word} ")], 0.01)], *says("x"))
    service = compose(source, settings={"connection_seconds": 0.1})

    events = feed(service, service.create(on_disconnect="continue"))

    assert 1 < len(events) < 40
    assert json.loads(events[-1].data)["type"] != "done"


def test_what_cannot_be_followed_is_named_and_the_rest_goes_on(service: Service) -> None:
    whole, erased, ahead, odd = (service.finished() for _ in range(4))
    service.client.delete(f"/streams/{erased}")
    elsewhere = new_stream_id("a" * 8)
    unknown = f"{whole[:-4]}zzzz"

    events = feed(service, erased, f"{ahead}@7.3", f"{odd}@x", unknown, elsewhere, whole)

    assert len(of(events, whole)) == len(service.follow(f"/streams/{whole}"))
    assert error_of(events, erased)["type"] == "stream_expired"
    assert error_of(events, ahead)["type"] == "cursor_lost"
    assert error_of(events, odd)["type"] == "bad_cursor"
    assert error_of(events, unknown)["type"] == "not_found"
    assert error_of(events, elsewhere)["type"] == "stream_lost"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "required"),
        ("follow=", "wrong_value"),
        ("follow=error", "wrong_value"),
        ("follow=message@1.1", "wrong_value"),
        ("follow=st_%0Aevent:%20error", "wrong_value"),
        ("follow=st_a@1.1@1.2", "wrong_value"),
        ("follow=st_a&follow=st_a@1.1", "wrong_value"),
        (f"follow=st_{'a' * 101}", "wrong_value"),
        (f"follow=st_a@{'1' * 65}", "wrong_value"),
        ("&".join(f"follow=st_{number}" for number in range(65)), "too_many"),
    ],
)
def test_a_feed_that_cannot_be_meant_is_refused(shared: Service, query: str, code: str) -> None:
    response = shared.client.get(f"/streams?{query}")

    refused(response, 400, "invalid_request", code=code, param="follow")


def test_a_feed_shows_metrics_to_who_asks(service: Service) -> None:
    refused(service.client.get("/streams?follow=st_a&metrics=2"), 400, "invalid_request", param="metrics")
    assert service.client.get("/streams?follow=st_a&metrics=1").status_code == 200


def test_an_event_source_that_comes_back_by_itself_is_stopped(service: Service) -> None:
    """The last id is of one stream only: going on from the address would repeat the others."""
    stream_id = service.finished()

    response = service.client.get(f"/streams?follow={stream_id}", headers=EVENTS | {"Last-Event-ID": "1.3"})

    assert response.status_code == 204


def test_a_client_that_leaves_is_missed_by_every_run_of_its_feed(compose: Compose) -> None:
    source = ScriptedSource([Token("one")], Gate())
    service = compose(source)
    ids = [service.create(on_disconnect="cancel") for _ in range(3)]
    response = service.client.get("/streams", query_string={"follow": ids[:2]}, headers=EVENTS)
    blocks = response.iter_encoded()
    next(blocks)

    response.close()

    for stream_id in ids[:2]:
        eventually(lambda i=stream_id: service.snapshot(i)["state"] == "cancelled")
    assert service.snapshot(ids[2])["state"] == "running"


def test_a_worker_that_stops_lets_go_of_its_feeds(compose: Compose) -> None:
    service = compose(ScriptedSource([Token("one")], Gate()))
    ids = [service.create(), service.create()]
    told: list[Heard] = []
    begun = Flag()

    def read() -> None:
        response = service.client.get("/streams", query_string={"follow": ids}, headers=EVENTS)
        parser = EventSourceParser()
        for block in response.iter_encoded():
            parser.feed(block)
            begun.set()
        told.extend(parser.heard)

    with running(read):
        assert begun.wait(5)
        service.streams.drain(0, 0)

    for stream_id in ids:
        last = json.loads(of(told, stream_id)[-1][0])
        assert last["error"]["type"] == "interrupted"
