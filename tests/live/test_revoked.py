"""A key that is revoked while it has connections open: over two workers, on each store they may share."""

import contextlib
import json
import threading
import time
from collections.abc import Callable

from tests.live.conftest import StartService
from tests.live.keyed import KEYS, bearer, keys_command
from tests.live.service import Answer, EventReader, Service, SSEEvent, Upstream, request, wait_until
from tests.live.test_sessions import form
from tests.live.websocket import Talk

ENDED_SECONDS = 5.0
"""What docs/access.md promises."""
BUSY_SECONDS = 3.0
"""For a test machine that does other things too."""
MANY = 8
"""Connections of which some come to each of two workers."""


def start(start_service: StartService, store: str, **environment: str) -> Service:
    return start_service(workers=2, environment={**KEYS, "EVENTLOG_URL": store, **environment})


def long_answer(token: str) -> str:
    return f"<<{json.dumps({'token': token, 'play': 'ok', 'tokens': 5000, 'pace_ms': 50})}>>"


def create(service: Service, key: str, prompt: str) -> str:
    body = {"prompt": prompt, "on_disconnect": "continue"}
    answer = service.request("POST", "/streams", body, bearer(key))
    assert answer.status == 201, answer
    return str(answer.json()["stream_id"])


def follow(service: Service, key: str, path: str) -> EventReader:
    return EventReader(service.port).open(path, bearer(key))


def end_of(reader: EventReader) -> SSEEvent:
    reader.read_all()
    return reader.events[-1]


class Waiting:
    """A request that is answered late, asked in a thread."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self.answer: Answer | None = None
        self.answered_at = 0.0
        self._ask = ask
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self.answer = self._ask()
        self.answered_at = time.monotonic()


def test_all_that_a_revoked_key_has_open_ends_within_seconds_on_every_worker(
    start_service: StartService, store: str, upstream: Upstream
) -> None:
    leaked, other = (keys_command(store, "create", "--name", name) for name in ("leaked", "other"))
    service = start(start_service, store)
    token = f"revoked-{time.time_ns()}"
    stream_id = create(service, leaked, long_answer(token))
    silent = create(service, leaked, f"<<{json.dumps({'token': token + '-s', 'play': 'hang'})}>>")
    others_run = create(service, other, long_answer(token + "-o"))
    others = follow(service, other, f"/streams/{others_run}")
    with contextlib.ExitStack() as open_:
        open_.enter_context(others)
        readers = [
            open_.enter_context(follow(service, leaked, f"/streams/{stream_id}?format=native"))
            for _ in range(MANY)
        ]
        talks = [open_.enter_context(Talk(service, additional_headers=bearer(leaked))) for _ in range(MANY)]
        for talk in talks[1:]:
            talk.ask("follow", stream_id=stream_id)
            talk.until_type("token")
        poll = Waiting(
            lambda: request(
                service.port, "GET", f"/streams/{silent}?wait=25&after=1.2", headers=bearer(leaked)
            )
        )
        for reader in readers:
            reader.read_until("token")
        upstream.wait_for_request(token)

        revoked_at = time.monotonic()
        keys_command(store, "revoke", leaked[10:18])

        ends = [end_of(reader) for reader in readers]
        closes = [talk.closed() for talk in talks]
        poll.thread.join(10)
        took = [*(event.received_at - revoked_at for event in ends), poll.answered_at - revoked_at]
        closed_by = upstream.wait_for_close(token)
        others.read_until("token")
        still = service.request("GET", f"/streams/{others_run}", headers=bearer(other)).json()["state"]

    # The command itself takes a second or two to start.
    assert max(took) < ENDED_SECONDS + BUSY_SECONDS + 2, took
    for event in ends:
        error = event.json()["error"]
        assert (error["type"], error["code"]) == ("not_authenticated", "key_revoked")
        assert event.json()["done"]
    assert set(closes) == {(1008, "key_revoked")}
    for talk in talks[1:]:
        dropped = talk.frames[-1]
        assert dropped["type"] == "dropped"
        assert dropped["error"]["code"] == "key_revoked"
        assert dropped["cursor"]
    assert poll.answer is not None
    assert poll.answer.status == 401
    assert poll.answer.json()["error"]["code"] == "key_revoked"
    assert closed_by, "what it runs stops costing"
    assert still == "running", "another key's stream goes on"
    said = service.log_text()
    assert "streams are cancelled: their key was revoked" in said
    assert leaked not in said


def test_after_a_sign_out_every_tab_is_told_and_the_run_goes_on(
    start_service: StartService, store: str, upstream: Upstream
) -> None:
    key = keys_command(store, "create", "--name", "Ana")
    service = start(start_service, store)
    ours = {"Origin": service.url, "Sec-Fetch-Site": "same-origin"}
    answer = form(service, "/sign-in", {"key": key}, ours)
    head = {**ours, "Cookie": answer.headers["set-cookie"].split(";")[0]}
    stream_id = create(service, key, long_answer(f"signed-out-{time.time_ns()}"))
    with contextlib.ExitStack() as open_:
        readers = [
            open_.enter_context(EventReader(service.port).open(f"/streams/{stream_id}", head))
            for _ in range(MANY)
        ]
        for reader in readers:
            reader.read_until("token")
        began = time.monotonic()
        token = answer.json()["csrf"]
        assert form(service, "/sign-out", {"csrf": token}, head).status in (204, 303)
        ends = [end_of(reader) for reader in readers]
    assert max(event.received_at for event in ends) - began < ENDED_SECONDS + BUSY_SECONDS
    assert {event.json()["error"]["code"] for event in ends} == {"session_ended"}
    state = service.request("GET", f"/streams/{stream_id}", headers=bearer(key)).json()["state"]
    assert state == "running", "it is the key's, which is as good as before"


def test_an_idle_websocket_ends_with_its_key(start_service: StartService, store: str) -> None:
    key = keys_command(store, "create", "--name", "idle")
    service = start(start_service, store)
    with Talk(service, additional_headers=bearer(key)) as talk:
        assert talk.ask("ping")["type"] == "pong"
        keys_command(store, "revoke", key[10:18])
        assert talk.closed(ENDED_SECONDS + BUSY_SECONDS) == (1008, "key_revoked")


def test_a_key_that_expires_ends_what_it_has_open(
    start_service: StartService, store: str, upstream: Upstream
) -> None:
    service = start(start_service, store)
    key = keys_command(store, "create", "--expires", "6s")
    stream_id = create(service, key, long_answer(f"expires-{time.time_ns()}"))
    with follow(service, key, f"/streams/{stream_id}?format=native") as reader:
        last = end_of(reader).json()
    assert last["error"]["code"] == "key_expired"


# What is refused


def test_failed_sign_ins_are_counted_over_all_workers(start_service: StartService, store: str) -> None:
    service = start(start_service, store, SIGN_IN_FAILURES_PER_MINUTE="6")
    ours = {"Origin": service.url, "Sec-Fetch-Site": "same-origin"}
    wait_until(lambda: time.time() % 60 < 50, 15, "the minute does not end meanwhile")
    statuses = [form(service, "/sign-in", {"key": "wrong"}, ours).status for _ in range(20)]
    assert statuses == [401] * 6 + [429] * 14


def test_refused_keys_are_in_the_log_and_in_the_metrics_of_all_workers(
    start_service: StartService, store: str
) -> None:
    admin = keys_command(store, "create", "--scopes", "admin")
    gone = keys_command(store, "create")
    keys_command(store, "revoke", gone[10:18])
    service = start(start_service, store)
    for _ in range(40):
        assert service.request("GET", "/threads", None, bearer(gone)).status == 401
    said = service.log_text()
    lines = [line for line in said.splitlines() if "access refused" in line]
    assert 1 <= len(lines) <= 20, "ten of a kind in a minute, by each of two workers"
    assert all(f"key_id={gone[10:18]} address=127.0.0.1 method=GET route=/threads" in line for line in lines)
    assert gone[20:] not in said
    metrics = service.request("GET", "/metrics", None, bearer(admin)).body.decode()
    assert 'sluice_access_refused_total{at="request",why="key_revoked"} 40' in metrics
