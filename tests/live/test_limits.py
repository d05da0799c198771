"""Limits and accounts as they hold over processes: several workers, a killed one, a full one."""

import concurrent.futures
import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import StartService
from tests.live.keyed import KEYS, bearer, keys_command
from tests.live.service import PATIENCE_SECONDS, Answer, EventReader, Service, Upstream, wait_until
from tests.live.websocket import Talk

NewKey = Callable[..., str]
HANGING = '<<{"play": "ok", "tokens": 2000, "pace_ms": 100}>>'


def new_key(store: str, *limits: str, scopes: str = "run") -> dict[str, str]:
    """Return the header of a new key with these limits."""
    told = [part for limit in limits for part in ("--limit", limit)]
    return bearer(keys_command(store, "create", "--scopes", scopes, *told))


def start(start_service: StartService, store: str, **environment: str) -> Service:
    return start_service(workers=2, environment={**KEYS, "EVENTLOG_URL": store, **environment})


def create(service: Service, who: dict[str, str], prompt: str = "hi", **fields: Any) -> Answer:
    return service.request("POST", "/streams", {"prompt": prompt, **fields}, who)


def at_once(count: int, ask: Callable[[], Answer]) -> list[int]:
    with concurrent.futures.ThreadPoolExecutor(count) as threads:
        asked = [threads.submit(ask) for _ in range(count)]
        return [each.result().status for each in asked]


def test_fifty_creates_at_once_over_two_workers_take_exactly_the_places_there_are(
    start_service: StartService, store: str
) -> None:
    who = new_key(store, "running=7", "creates_per_minute=0")
    service = start(start_service, store)
    statuses = at_once(50, lambda: create(service, who, HANGING, on_disconnect="continue"))
    assert (statuses.count(201), statuses.count(429)) == (7, 43), statuses


def test_fifty_creates_at_once_over_two_workers_are_no_more_than_a_minute_has(
    start_service: StartService, store: str
) -> None:
    who = new_key(store, "running=0", "creates_per_minute=9")
    service = start(start_service, store)
    statuses = at_once(50, lambda: create(service, who))
    assert (statuses.count(201), statuses.count(429)) == (9, 41), statuses


def test_the_places_of_killed_workers_are_free_again_and_their_runs_are_in_the_account(
    start_service: StartService, store: str
) -> None:
    who = new_key(store, "running=3", "creates_per_minute=0")
    service = start(start_service, store, LEASE_SECONDS="2")
    ids = [create(service, who, HANGING, on_disconnect="continue").json()["stream_id"] for _ in range(3)]
    assert create(service, who).status == 429
    wait_until(
        lambda: all(_text(service, who, id) for id in ids), PATIENCE_SECONDS, "every run has said something"
    )
    service.kill_worker()

    def ended() -> bool:
        return service.is_healthy() and all(
            service.request("GET", f"/streams/{id}", headers=who).json()["state"] == "interrupted"
            for id in ids
        )

    wait_until(ended, PATIENCE_SECONDS, "the runs of the killed workers have ended")
    assert [create(service, who).status for _ in range(3)] == [201, 201, 201]
    used = service.request("GET", "/usage?by=model", headers=who).json()["total"]
    assert used["runs"]["interrupted"] == 3
    assert used["estimated_runs"] >= 3
    assert used["tokens_out"] > 0


def _text(service: Service, who: dict[str, str], stream_id: str) -> str:
    return str(service.request("GET", f"/streams/{stream_id}", headers=who).json().get("text", ""))


def test_a_full_worker_still_cancels_and_tells_how_it_is(start_service: StartService) -> None:
    service = start_service(environment={"MAX_READERS": "30", "MAX_STREAMS": "10"})
    ids = [service.create(HANGING) for _ in range(10)]
    assert service.request("POST", "/streams", {"prompt": "x"}).status == 503
    readers = [service.follow(ids[at % 10], timeout_seconds=60) for at in range(30)]
    with pytest.raises(AssertionError, match="503"):
        _follow(service, ids[0])
    for path in ("/healthz", f"/streams/{ids[0]}"):
        assert _timed(service, "GET", path) < 1.0, path
    assert service.request("GET", "/readyz").status == 503, "it can take no run"
    for stream_id in ids:
        assert _timed(service, "POST", f"/streams/{stream_id}/cancel") < 1.0
    for reader in readers:
        reader.read_all()
        reader.close()
    with service.follow(service.create("hi")) as reader:
        reader.read_all()


def _timed(service: Service, method: str, path: str) -> float:
    began = time.monotonic()
    answer = service.request(method, path, headers={"Accept": "application/json"})
    assert answer.status == 200, answer
    return time.monotonic() - began


def _follow(service: Service, stream_id: str) -> None:
    with EventReader(service.port).open(f"/streams/{stream_id}") as reader:
        assert reader.status == 200, reader.status


def test_a_killed_worker_takes_no_reader_along(start_service: StartService, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'limits.db'}"
    who = new_key(store, "readers=2", "polls_per_second=0")
    # A lease that does not end meanwhile: that the worker is gone is seen by its process.
    service = start(start_service, store, LEASE_SECONDS="600")
    stream_id = create(service, who, HANGING).json()["stream_id"]
    headers = {**who, "Accept": "text/event-stream"}
    readers = [EventReader(service.port).open(f"/streams/{stream_id}", headers) for _ in range(2)]
    assert service.request("GET", f"/streams/{stream_id}", headers=headers).status == 429
    service.kill_worker()
    for reader in readers:
        reader.close()

    def follows() -> bool:
        if not service.is_healthy():
            return False
        return service.request("GET", f"/streams/{stream_id}", headers=headers).status == 200

    wait_until(follows, PATIENCE_SECONDS, "there is a place for a reader again")


def test_the_account_is_what_the_upstream_counted_over_many_runs(
    start_service: StartService, upstream: Upstream, store: str
) -> None:
    chance = random.Random(20261121)
    who = new_key(store, "running=0", "creates_per_minute=0", "polls_per_second=0")
    service = start(start_service, store, PRICES="test-model=0.25/2,other=1/8")
    upstream.reset()
    asked = [
        {
            "model": chance.choice(["test-model", "other"]),
            "messages": [
                {"role": "user", "content": f'{"x" * n} <<{{"tokens": {n}, "token": "used-{at}"}}>>'}
            ],
            "stream": chance.random() < 0.5,
        }
        for at, n in enumerate(chance.randrange(1, 40) for _ in range(200))
    ]

    def run(body: dict[str, Any]) -> int:
        return service.request("POST", "/v1/chat/completions", body, who).status

    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        assert set(threads.map(run, asked)) == {200}

    expected: dict[str, int] = {}
    for at, body in enumerate(asked):
        (entry,) = upstream.log(f"used-{at}")
        expected[body["model"]] = expected.get(body["model"], 0) + entry["sent_tokens"]
    used = service.request("GET", "/usage?by=model", headers=who).json()
    assert {row["model"]: row["tokens_out"] for row in used["data"]} == expected
    assert used["total"]["runs"] == {"completed": 200, "cancelled": 0, "failed": 0, "interrupted": 0}
    assert used["total"]["estimated_runs"] == 0
    tokens_in = {row["model"]: row["tokens_in"] for row in used["data"]}
    cost = (tokens_in["test-model"] * 0.25 + expected["test-model"] * 2) / 1e6
    cost += (tokens_in["other"] * 1 + expected["other"] * 8) / 1e6
    assert used["total"]["cost"] == pytest.approx(cost, abs=1e-9)


def test_a_websocket_hears_what_is_refused_and_when_to_ask_again(
    start_service: StartService, store: str
) -> None:
    who = new_key(store, "running=2", "readers_per_stream=1", "creates_per_minute=0")
    service = start(start_service, store)
    with contextlib.ExitStack() as open_ones:
        talk, other = (Talk(service, additional_headers=who) for _ in range(2))
        for each in (talk, other):
            open_ones.callback(each.connection.close)
        started = [talk.ask("start", prompt=HANGING)["stream_id"] for _ in range(2)]
        refused = talk.ask("start", prompt="x")
        assert (refused["type"], refused["error"]["code"]) == ("error", "running")
        assert refused["retry_after_seconds"] >= 1
        other.send("follow", stream_id=started[0])
        dropped = other.until_type("dropped")
        assert dropped["error"]["code"] == "readers"
        assert talk.ask("stop", stream_id=started[0])["receipt"]["state"] == "cancelled"
        assert talk.ask("start", prompt="x")["type"] == "started"
