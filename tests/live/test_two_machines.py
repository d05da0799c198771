"""Two services on one Redis: what is made on one is followed, polled and cancelled on the other."""

import json
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from tests.contracts.redis_server import RedisServer
from tests.live.conftest import StartService
from tests.live.service import PATIENCE_SECONDS, Service, Upstream, wait_until
from tests.live.upstream import Script, contents


@pytest.fixture
def machines(start_service: StartService, tmp_path: Path) -> Iterator[tuple[Service, Service]]:
    with RedisServer(tmp_path / "redis", "--appendonly", "yes") as server:
        a, b = (start_service(environment={"EVENTLOG_URL": server.url}) for _ in range(2))
        yield a, b
        for service in (a, b):
            service.kill()


def prompt(script: Script) -> str:
    return f"<<{json.dumps(script)}>>"


def heard(service: Service, stream_id: str, after: str | None = None) -> list[dict[str, object]]:
    with closing(service.follow(stream_id, after=after)) as reader:
        return [event.json() for event in reader]


def text_of(events: list[dict[str, object]]) -> str:
    return "".join(str(event["content"]) for event in events if event["type"] == "token")


def test_a_stream_made_on_one_machine_is_whole_on_the_other(machines: tuple[Service, Service]) -> None:
    a, b = machines
    script = {"play": "ok", "tokens": 60, "pace_ms": 10}

    stream_id = a.create(prompt(script))
    followed = heard(b, stream_id)

    assert text_of(followed) == "".join(contents(script))
    assert followed[-1]["type"] == "done"
    assert b.snapshot(stream_id)["text"] == a.snapshot(stream_id)["text"]


def test_a_reader_cut_off_on_one_machine_goes_on_on_the_other(machines: tuple[Service, Service]) -> None:
    a, b = machines
    script = {"play": "ok", "tokens": 80, "pace_ms": 10}
    stream_id = a.create(prompt(script))
    with closing(a.follow(stream_id)) as reader:
        seen = list(islice(reader, 20))

    rest = heard(b, stream_id, after=seen[-1].id)

    assert text_of([event.json() for event in seen]) + text_of(rest) == "".join(contents(script))


def test_one_key_on_two_machines_is_one_run(machines: tuple[Service, Service], upstream: Upstream) -> None:
    a, b = machines
    script = {"play": "ok", "tokens": 3, "token": "twice"}
    body = {"prompt": prompt(script), "message_id": "one"}

    ids = {service.request("POST", "/streams", body).json()["stream_id"] for service in (a, b, a)}

    assert len(ids) == 1
    wait_until(
        lambda: b.snapshot(ids.copy().pop())["state"] == "completed", PATIENCE_SECONDS, "the run has ended"
    )
    assert len(upstream.log("twice")) == 1


def test_a_cancel_on_one_machine_closes_the_upstream_of_the_other(
    machines: tuple[Service, Service], upstream: Upstream
) -> None:
    a, b = machines
    script = {"play": "ok", "tokens": 2000, "pace_ms": 50, "token": "far"}
    stream_id = a.create(prompt(script))
    upstream.wait_for_request("far")

    receipt = b.request("POST", f"/streams/{stream_id}/cancel").json()

    assert (receipt["state"], receipt["upstream"]) == ("cancelled", "closed")
    upstream.wait_for_close("far")
    assert a.snapshot(stream_id)["state"] == "cancelled"


def test_a_poll_on_one_machine_gets_what_is_new_on_the_other(machines: tuple[Service, Service]) -> None:
    a, b = machines
    script = {"play": "ok", "tokens": 40, "pace_ms": 20}
    stream_id = a.create(prompt(script))
    text, cursor, state = "", "", "running"

    while state == "running":
        polled = b.snapshot(stream_id, f"?wait=5&after={cursor}")
        text, cursor, state = text + polled["text"], polled["cursor"], polled["state"]

    assert (text, state) == ("".join(contents(script)), "completed")


def test_a_machine_that_dies_interrupts_its_runs_for_readers_of_the_other(
    machines: tuple[Service, Service],
) -> None:
    a, b = machines
    stream_id = a.create(prompt({"play": "ok", "tokens": 2000, "pace_ms": 50}))
    with closing(b.follow(stream_id)) as reader:
        before = [event.json() for event in islice(reader, 8)]
        a.kill()
        after = [event.json() for event in reader]

    last = after[-1]
    assert (last["type"], last["error"]["type"], last["error"]["retryable"]) == ("error", "interrupted", True)
    snapshot = b.snapshot(stream_id)
    assert (snapshot["state"], snapshot["text"]) == ("interrupted", text_of([*before, *after]))
