"""``GET /streams?follow=…`` on real workers: who is there, who left, and what a stop says."""

import json
import os
import signal
from typing import Any

from tests.live.conftest import StartService
from tests.live.service import (
    PATIENCE_SECONDS,
    EventReader,
    Service,
    SSEEvent,
    Upstream,
    sequence_of,
    text_of,
    wait_until,
)
from tests.live.upstream import contents
from tests.live.v1 import new_token


def prompt(**script: Any) -> str:
    return f"<<{json.dumps(script)}>>"


def feed(service: Service, *followed: str) -> EventReader:
    return EventReader(service.port).open("/streams?" + "&".join(f"follow={each}" for each in followed))


def of(reader: EventReader, stream_id: str) -> list[SSEEvent]:
    return [event for event in reader.events if event.event == stream_id]


def test_many_answers_come_whole_and_at_once(service: Service, upstream: Upstream) -> None:
    gate = new_token()
    script = {"tokens": 60, "pace_ms": 20, "gate": gate}
    ids = [service.create(prompt(**script, fill=place + 5)) for place in range(20)]

    with feed(service, *ids) as reader:
        upstream.let(gate)
        reader.read_all()

    order = [event.event for event in reader.events if event.json()["type"] == "token"]
    assert order.index(ids[-1]) < len(order) / 4, "one waited for another"
    for place, stream_id in enumerate(ids):
        events = of(reader, stream_id)
        sequence_of(events)
        assert events[-1].is_last
        assert text_of(events) == "".join(contents({**script, "fill": place + 5}))


def test_streams_of_two_workers_come_on_one_connection(service_two_workers: Service) -> None:
    ids = [service_two_workers.create(prompt(tokens=20, pace_ms=20)) for _ in range(12)]

    with feed(service_two_workers, *ids) as reader:
        reader.read_all()

    for stream_id in ids:
        assert text_of(of(reader, stream_id)) == "".join(contents({"tokens": 20}))


def test_a_client_that_leaves_is_missed_by_every_run_at_once(service: Service, upstream: Upstream) -> None:
    names = [new_token() for _ in range(4)]
    ids = [
        service.create(prompt(play="half_open", after=1, token=name), on_disconnect="cancel")
        for name in names
    ]
    reader = feed(service, *ids[:3])
    reader.read(6)

    reader.close()

    for name in names[:3]:
        upstream.wait_for_close(name)
    assert service.snapshot(ids[3])["state"] == "running"
    service.request("POST", f"/streams/{ids[3]}/cancel")


def test_a_run_that_is_followed_elsewhere_too_goes_on(service: Service, upstream: Upstream) -> None:
    name = new_token()
    stream_id = service.create(prompt(play="half_open", after=1, token=name), on_disconnect="cancel")
    with service.follow(stream_id) as other:
        other.read(3)
        feed(service, stream_id).close()
        reader = feed(service, stream_id)
        reader.read(3)
        reader.close()
        assert service.snapshot(stream_id)["state"] == "running"
    upstream.wait_for_close(name)


def test_a_feed_of_a_silent_model_has_heartbeats(start_service: StartService) -> None:
    service = start_service(environment={"HEARTBEAT_SECONDS": "0.2"})
    stream_id = service.create(prompt(play="half_open", after=1, token=new_token()))

    with feed(service, stream_id) as reader:
        while len(reader.comments) < 5:
            reader.pump()


def test_a_stop_tells_every_run_of_a_feed_and_ends_it(start_service: StartService) -> None:
    service = start_service(environment={"DRAIN_SECONDS": "1"})
    ids = [service.create(prompt(tokens=2000, pace_ms=50)) for _ in range(3)]
    with feed(service, *ids) as reader:
        reader.read(9)
        os.kill(service.pid, signal.SIGTERM)
        reader.read_all()

    assert reader.whole
    for stream_id in ids:
        last = of(reader, stream_id)[-1].json()
        assert last["error"]["type"] == "interrupted"
    wait_until(service.has_ended, PATIENCE_SECONDS, "the service ends")


def test_a_worker_that_is_killed_is_told_of_by_the_next_feed(start_service: StartService) -> None:
    service = start_service()
    ids = [service.create(prompt(tokens=2000, pace_ms=20)) for _ in range(3)]
    with feed(service, *ids) as reader:
        reader.read(20)
        service.kill_worker()
        reader.read_all()
    cursors = [of(reader, stream_id)[-1].id for stream_id in ids]
    wait_until(service.is_healthy, PATIENCE_SECONDS, "another worker answers")

    with feed(service, *[f"{i}@{cursor}" for i, cursor in zip(ids, cursors, strict=True)]) as again:
        again.read_all()

    for stream_id in ids:
        events = [*of(reader, stream_id), *of(again, stream_id)]
        sequence_of(events)
        assert events[-1].json()["error"]["type"] == "interrupted"
        assert text_of(events) == service.snapshot(stream_id)["text"]
