"""What a client can rely on while text streams: promptness, cancelling, resuming, sharing."""

import contextlib
import itertools
import json
import re
import selectors
import statistics
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.live.conftest import StartService
from tests.live.service import (
    PATIENCE_SECONDS,
    REQUEST_SECONDS,
    Answer,
    EventReader,
    Service,
    SSEEvent,
    Upstream,
    sequence_of,
    text_of,
    wait_until,
)
from tests.live.upstream import Script, contents

STAMP = re.compile(r"@(\d+):(\d+)@ ")
ERROR_KEYS = {"message", "type", "code", "param", "retryable", "partial", "request_id"}

_numbers = itertools.count(1)


def prompt_for(token: str, **script: Any) -> str:
    """Return a prompt that makes the upstream play ``script``, logged under ``token``."""
    return f"please <<{json.dumps({'token': token, **script})}>>"


@pytest.fixture
def token() -> str:
    """A name nobody else uses in the upstream's log."""
    return f"stream-{next(_numbers)}"


def lags_of(events: Iterable[SSEEvent]) -> list[float]:
    """Return, for each stamped token, the seconds from the upstream's send to our read."""
    lags = []
    for event in events:
        message = event.json()
        if message["type"] == "token":
            stamps = STAMP.findall(message["content"])
            lags += [event.received_at - int(nanoseconds) / 1e9 for _index, nanoseconds in stamps]
    return lags


# A token wakes whoever reads the upstream, whoever writes the log, and whoever reads that for the client.
WAKE_UPS = 3


def machine_seconds(upstream: Upstream, prompt: str) -> float:
    """Return what this machine, doing other things besides, makes that many processes wait for their turn.

    From the same tokens without the service: what they need to one process, the median.
    """
    asked = {"model": "test-model", "stream": True, "messages": [{"role": "user", "content": prompt}]}
    with EventReader(upstream.port).open("/v1/chat/completions", method="POST", body=asked) as reader:
        lags = [
            event.received_at - int(nanoseconds) / 1e9
            for event in reader
            for _index, nanoseconds in STAMP.findall(event.data.decode())
        ]
    return WAKE_UPS * statistics.median(lags)


def assert_error(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """Check an error answer and return its ``error``."""
    assert answer.status == status, answer
    assert answer.headers["content-type"].startswith("application/json")
    error = answer.json()["error"]
    assert error.keys() >= ERROR_KEYS, error
    assert error["code"] == code
    assert error["request_id"]
    return error


# Promptness.


def test_a_token_reaches_the_client_within_10_ms(service: Service, upstream: Upstream, token: str) -> None:
    prompt = prompt_for(token, tokens=30, pace_ms=50, stamp=True)

    with ThreadPoolExecutor() as beside, service.create_and_follow(prompt) as reader:
        machine = beside.submit(machine_seconds, upstream, prompt)
        lags = lags_of(reader)

    assert len(lags) == 30
    assert statistics.median(lags) <= 0.010 + machine.result(), sorted(lags)


def test_the_first_token_reaches_the_client_within_10_ms(
    service: Service, upstream: Upstream, token: str
) -> None:
    lags, machine = [], []
    for i in range(15):
        prompt = prompt_for(f"{token}-{i}", tokens=1, first_ms=100, stamp=True)
        with service.create_and_follow(prompt) as reader:
            lags += lags_of(reader)
        machine.append(machine_seconds(upstream, prompt))

    assert len(lags) == 15
    assert statistics.median(lags) <= 0.010 + statistics.median(machine), sorted(lags)


def test_a_created_stream_is_named_in_the_headers(service: Service, token: str) -> None:
    with service.create_and_follow(prompt_for(token, tokens=2)) as reader:
        events = list(reader)

    stream_id = reader.headers["stream-id"]
    assert events[0].json()["stream_id"] == stream_id
    assert reader.headers["content-location"].endswith(f"/streams/{stream_id}")
    assert reader.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reader.headers["cache-control"] == "no-store, no-transform"
    assert reader.headers["x-accel-buffering"] == "no"
    assert reader.headers["x-content-type-options"] == "nosniff"


def test_a_silent_stream_sends_heartbeats(service: Service, token: str) -> None:
    prompt = prompt_for(token, first_ms=12_000, tokens=1)

    started = time.monotonic()
    with service.create_and_follow(prompt) as reader:
        list(reader)

    beats = [at - started for at, _text in reader.comments]
    assert beats, "12 s without a heartbeat"
    assert beats[0] < 11


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_client_that_stops_reading_for_a_while_misses_nothing(
    service: Service, upstream: Upstream, token: str, version: str
) -> None:
    script = {"tokens": 2000, "pace_ms": 1, "fill": 3800}  # more than the buffers on the way hold
    with EventReader(service.port, version=version, buffer_bytes=4096) as reader:
        body = {"prompt": prompt_for(token, **script)}
        reader.open("/streams", {"Connection": "close"}, "POST", body)
        for _ in range(50):
            reader.read_until("token")  # it keeps up so long
        wait_until(lambda: upstream.log(token)[0]["finished"], 30, "the upstream has said everything")
        assert list(reader)

    events = reader.events
    assert reader.whole
    assert text_of(events) == "".join(contents(script))
    assert sequence_of(events) == sorted(set(sequence_of(events)))
    assert events[-1].json()["type"] == "done"


# Leaving and cancelling.

SILENCES: dict[str, tuple[Script, int]] = {
    "before the upstream's headers": ({"play": "hang"}, 0),
    "before the first token": ({"first_ms": 60_000}, 0),
    "after three tokens": ({"play": "half_open", "after": 3}, 3),
    "between tokens": ({"tokens": 1000, "pace_ms": 50}, 3),
}


@pytest.mark.parametrize(("script", "tokens"), SILENCES.values(), ids=SILENCES)
def test_a_client_that_leaves_closes_the_upstream_within_a_second(
    service: Service, upstream: Upstream, token: str, script: Script, tokens: int
) -> None:
    reader = service.create_and_follow(prompt_for(token, **script), on_disconnect="cancel")
    upstream.wait_for_request(token)
    for _ in range(tokens):
        reader.read_until("token")

    reader.close()
    left = time.monotonic()

    assert upstream.wait_for_close(token) - left <= 1.0
    stream_id = reader.headers["stream-id"]
    wait_until(
        lambda: service.snapshot(stream_id)["state"] == "cancelled",
        PATIENCE_SECONDS,
        "the stream is cancelled",
    )


def test_a_stream_with_another_reader_outlives_the_one_that_leaves(
    service: Service, upstream: Upstream, token: str
) -> None:
    leaving = service.create_and_follow(prompt_for(token, tokens=20, pace_ms=50), on_disconnect="cancel")
    leaving.read_until("token")
    with service.follow(leaving.headers["stream-id"]) as staying:
        staying.read_until("token")
        leaving.close()
        staying.read_all()

    assert staying.events[-1].json()["finish_reason"] == "stop"
    assert text_of(staying.events) == upstream.log(token)[0]["sent_text"]


@pytest.mark.parametrize(("script", "tokens"), SILENCES.values(), ids=SILENCES)
def test_a_cancel_closes_the_upstream_and_every_reader_sees_the_same_end(
    service: Service, upstream: Upstream, token: str, script: Script, tokens: int
) -> None:
    stream_id = service.create(prompt_for(token, **script))
    with service.follow(stream_id) as first, service.follow(stream_id) as second:
        upstream.wait_for_request(token)
        for _ in range(tokens):
            first.read_until("token")

        cancelled_at = time.monotonic()
        answer = service.request("POST", f"/streams/{stream_id}/cancel")
        first.read_all()
        second.read_all()

    receipt = answer.json()
    last = first.events[-1]
    assert answer.status == 200, answer
    assert upstream.wait_for_close(token) - cancelled_at <= 1.0
    assert receipt == {
        "stream_id": stream_id,
        "state": "cancelled",
        "cursor": last.id,
        "upstream": "closed",
    }
    assert (last.id, last.data) == (second.events[-1].id, second.events[-1].data)
    assert (last.json()["type"], last.json()["finish_reason"]) == ("done", "cancelled")
    assert text_of(first.events) == text_of(second.events)
    assert upstream.log(token)[0]["sent_text"].startswith(text_of(first.events))


def test_a_second_cancel_reports_the_state_that_won(service: Service, token: str) -> None:
    stream_id = service.create(prompt_for(token, play="hang"))
    cancels = [service.request("POST", f"/streams/{stream_id}/cancel") for _ in range(2)]

    assert [answer.json()["state"] for answer in cancels] == ["cancelled", "cancelled"]
    assert cancels[1].status == 200


def test_a_cancel_after_the_end_changes_nothing(service: Service, token: str) -> None:
    with service.create_and_follow(prompt_for(token, tokens=3)) as reader:
        reader.read_all()
    stream_id = reader.headers["stream-id"]

    answer = service.request("POST", f"/streams/{stream_id}/cancel")

    assert (answer.status, answer.json()["state"]) == (200, "completed")
    assert answer.json()["cursor"] == reader.events[-1].id


# Many streams.


def test_300_streams_of_one_worker_are_each_whole_and_in_order(
    start_service: StartService, upstream: Upstream, token: str
) -> None:
    count = 300
    service = start_service()
    upstream.reset()
    # All are open before the first sends text, so that they do run together.
    script = {"tokens": 20, "pace_ms": 100, "gate": token}
    readers = [EventReader(service.port) for _ in range(count)]
    with selectors.DefaultSelector() as selector:
        for i, reader in enumerate(readers):
            body = {"prompt": prompt_for(f"{token}-{i}", **script)}
            reader.start("/streams", method="POST", body=body)
            selector.register(reader, selectors.EVENT_READ)
        wait_until(lambda: upstream.stats()["playing"] == count, REQUEST_SECONDS, "all are open")
        upstream.let(token)
        while selector.get_map():
            for key, _events in selector.select(timeout=REQUEST_SECONDS):
                reader = key.fileobj
                reader.pump()
                if reader.ended:
                    selector.unregister(reader)
                    reader.close()

    expected = "".join(contents(script))
    statuses = {reader.status for reader in readers}
    lasts = [reader.events[-1].json() if reader.events else {} for reader in readers]
    failures = [
        bytes(r.raw[-300:]) for r, last in zip(readers, lasts, strict=True) if last.get("type") != "done"
    ]
    assert statuses <= {200, 201}, statuses
    assert failures == []
    assert {text_of(reader.events) for reader in readers} == {expected}
    for reader in readers:
        sequence_of(reader.events)
    assert upstream.stats()["peak_playing"] == count
    assert upstream.stats()["requests"] == count


def test_two_streams_in_sequence_share_an_upstream_connection(
    start_service: StartService, upstream: Upstream, token: str
) -> None:
    service = start_service()
    for _ in range(2):
        with service.create_and_follow(prompt_for(token, tokens=3)) as reader:
            reader.read_all()
        wait_until(lambda: upstream.log(token)[-1]["finished"], PATIENCE_SECONDS, "the upstream has finished")

    first, second = upstream.log(token)
    assert first["connection"] == second["connection"]


# Resuming.


@pytest.mark.parametrize("pace_ms", [0, 25], ids=["finished", "live"])
def test_a_reader_cut_at_every_event_has_exactly_the_upstream_s_text(
    service: Service, upstream: Upstream, token: str, pace_ms: int
) -> None:
    stream_id = service.create(prompt_for(token, tokens=40, pace_ms=pace_ms))
    if not pace_ms:
        wait_until(
            lambda: service.snapshot(stream_id)["state"] == "completed",
            PATIENCE_SECONDS,
            "the stream is complete",
        )

    events: list[SSEEvent] = []
    while not (events and events[-1].is_last):
        with service.follow(stream_id, after=events[-1].id if events else None) as reader:
            assert reader.status == 200
            events += reader.read(1)

    sequence_of(events)
    assert text_of(events) == upstream.log(token)[0]["sent_text"] == "".join(contents({"tokens": 40}))
    with service.follow(stream_id, after=events[-1].id) as reader:
        assert reader.status == 204


@pytest.mark.parametrize("where", ["header", "query", "both"])
def test_the_header_wins_over_the_query(service: Service, token: str, where: str) -> None:
    with service.create_and_follow(prompt_for(token, tokens=6)) as reader:
        events = list(reader)
    cursor, wrong = events[2].id, events[-1].id
    query = {"header": "", "query": f"?after={cursor}", "both": f"?after={wrong}"}[where]
    headers = {} if where == "query" else {"Last-Event-ID": cursor}

    with EventReader(service.port).open(f"/streams/{reader.headers['stream-id']}{query}", headers) as resumed:
        resumed.read_all()

    assert text_of(events[:3]) + text_of(resumed.events) == text_of(events)
    assert sequence_of(events[:3] + resumed.events)[-1] == sequence_of(events)[-1]


def test_a_cursor_of_zero_or_an_empty_one_reads_from_the_start(service: Service, token: str) -> None:
    with service.create_and_follow(prompt_for(token, tokens=3)) as reader:
        reader.read_all()
    path = f"/streams/{reader.headers['stream-id']}"

    for query in ("?after=", "?after=0.0", "?after=1.0"):
        with EventReader(service.port).open(path + query) as again:
            again.read_all()
        assert again.status == 200
        assert text_of(again.events) == text_of(reader.events)


BAD_CURSORS = [
    "abc",
    "1",
    "1.",
    ".1",
    "1.x",
    "-1.2",
    "1.2.3",
    "1,2",
    "1e1.2",
    "1.2%20",
    "%D9%A1.2",
    "1" * 50 + ".1",
]


@pytest.mark.parametrize("cursor", BAD_CURSORS)
@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
def test_a_malformed_cursor_is_refused(
    service: Service, finished_stream: EventReader, cursor: str, accept: str
) -> None:
    path = f"/streams/{finished_stream.headers['stream-id']}"

    assert_error(
        service.request("GET", f"{path}?after={cursor}", headers={"Accept": accept}), 400, "bad_cursor"
    )
    if "%" not in cursor:
        headers = {"Accept": accept, "Last-Event-ID": cursor}
        assert_error(service.request("GET", path, headers=headers), 400, "bad_cursor")


def test_a_repeated_cursor_is_refused(service: Service, finished_stream: EventReader) -> None:
    path = f"/streams/{finished_stream.headers['stream-id']}?after=1.1&after=1.2"

    assert_error(service.request("GET", path, headers={"Accept": "text/event-stream"}), 400, "bad_cursor")


@pytest.mark.parametrize("change", ["beyond the end", "of another generation"])
def test_a_cursor_the_log_does_not_have_is_lost(
    service: Service, finished_stream: EventReader, change: str
) -> None:
    last = finished_stream.events[-1].id
    gen, seq = (int(part) for part in last.split("."))
    cursor = f"{gen}.{seq + 1}" if change == "beyond the end" else f"{gen + 1}.{seq}"

    path = f"/streams/{finished_stream.headers['stream-id']}"
    answer = service.request("GET", path, headers={"Accept": "text/event-stream", "Last-Event-ID": cursor})

    assert_error(answer, 410, "cursor_lost")
    assert f'"last_id":"{last}"' in answer.body.decode().replace(" ", "")


@pytest.fixture(scope="module")
def finished_stream(service: Service) -> EventReader:
    """A reader of a stream that has ended, read to the end."""
    with service.create_and_follow(prompt_for("finished", tokens=5)) as reader:
        reader.read_all()
    return reader


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_stream_is_not_found(
    service: Service, finished_stream: EventReader, accept: str, method: str
) -> None:
    known = finished_stream.headers["stream-id"]
    # The store's part of the id stays: this is a stream of this store that never was.
    unknown = known[:11] + known[11:-1][::-1] + known[-1]

    suffix = "/cancel" if method == "POST" else ""
    answer = service.request(method, f"/streams/{unknown}{suffix}", headers={"Accept": accept})

    assert_error(answer, 404, "not_found")


def test_a_stream_of_another_store_is_lost(service: Service, finished_stream: EventReader) -> None:
    known = finished_stream.headers["stream-id"]
    foreign = "st_" + known[3:11][::-1] + known[11:]

    answer = service.request("GET", f"/streams/{foreign}", headers={"Accept": "text/event-stream"})

    assert_error(answer, 410, "stream_lost")


# Several workers, and their death.


def test_readers_on_two_workers_see_the_same_stream(
    service_two_workers: Service, upstream: Upstream, token: str
) -> None:
    stream_id = service_two_workers.create(prompt_for(token, tokens=30, pace_ms=50))
    with contextlib.ExitStack() as opened:
        readers = [opened.enter_context(service_two_workers.follow(stream_id)) for _ in range(8)]
        threads = [threading.Thread(target=reader.read_all) for reader in readers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)

    assert all(reader.whole for reader in readers)
    assert {text_of(reader.events) for reader in readers} == {upstream.log(token)[0]["sent_text"]}
    assert len({(reader.events[-1].id, reader.events[-1].data) for reader in readers}) == 1
    for reader in readers:
        sequence_of(reader.events)


def test_a_reader_in_another_process_follows_within_40_ms(
    start_service: StartService, upstream: Upstream, token: str
) -> None:
    producing, reading = start_service(), start_service()
    script = {"tokens": 40, "pace_ms": 50, "first_ms": 500, "stamp": True}
    stream_id = producing.create(prompt_for(token, **script))

    with ThreadPoolExecutor() as beside, reading.follow(stream_id) as reader:
        machine = beside.submit(machine_seconds, upstream, prompt_for(f"{token}-straight", **script))
        reader.read_all()

    lags = lags_of(reader.events)
    assert text_of(reader.events) == upstream.log(token)[0]["sent_text"]
    assert len(lags) == 40
    assert statistics.median(lags) <= 0.040 + machine.result(), sorted(lags)


def test_a_cancel_in_another_process_closes_the_upstream_within_a_second(
    start_service: StartService, upstream: Upstream, token: str
) -> None:
    producing, cancelling = start_service(), start_service()
    stream_id = producing.create(prompt_for(token, play="half_open", after=3))
    with producing.follow(stream_id) as reader:
        for _ in range(3):
            reader.read_until("token")
        cancelled_at = time.monotonic()
        answer = cancelling.request("POST", f"/streams/{stream_id}/cancel")
        reader.read_all()

    assert answer.status in (200, 202), answer
    assert upstream.wait_for_close(token) - cancelled_at <= 1.0
    assert reader.events[-1].json()["finish_reason"] == "cancelled"


def assert_interrupted(events: list[SSEEvent], sent_text: str) -> None:
    """The stream ended by the loss of its worker, with the text so far."""
    last = events[-1].json()
    assert (last["type"], last["error"]["type"]) == ("error", "interrupted"), last
    assert last["error"]["code"] in ("worker_lost", "lease_expired")
    assert (last["error"]["retryable"], last["error"]["partial"]) == (True, True)
    assert text_of(events)
    assert sent_text.startswith(text_of(events))
    sequence_of(events)


def test_the_death_of_a_producing_process_interrupts_its_streams_elsewhere(
    start_service: StartService, upstream: Upstream, token: str
) -> None:
    producing, reading = start_service(), start_service()
    stream_id = producing.create(prompt_for(token, tokens=1000, pace_ms=50))
    with reading.follow(stream_id) as reader:
        for _ in range(3):
            reader.read_until("token")
        producing.kill()
        killed_at = time.monotonic()
        reader.read_all()

    assert reader.events[-1].received_at - killed_at <= 15
    assert_interrupted(reader.events, upstream.log(token)[0]["sent_text"])
    assert upstream.wait_for_close(token) - killed_at <= 1.0
    assert reading.snapshot(stream_id)["state"] == "interrupted"


def test_the_reader_of_a_killed_worker_resumes_to_the_interruption(
    start_service: StartService, upstream: Upstream, token: str
) -> None:
    service = start_service()
    stream_id = service.create(prompt_for(token, tokens=1000, pace_ms=50))
    with service.follow(stream_id) as reader:
        for _ in range(3):
            reader.read_until("token")
        killed = service.kill_worker()
        killed_at = time.monotonic()
        reader.read_all()
    assert not reader.whole, "a killed worker's answer looks complete"

    wait_until(
        lambda: service.is_healthy() and not set(service.worker_pids()) & set(killed),
        PATIENCE_SECONDS,
        "a new worker answers",
    )
    with service.follow(stream_id, after=reader.events[-1].id) as resumed:
        assert resumed.status == 200, bytes(resumed.raw)
        resumed.read_all()

    assert resumed.events[-1].received_at - killed_at <= 15
    assert_interrupted(reader.events + resumed.events, upstream.log(token)[0]["sent_text"])


# Formats and polling.


def test_the_simple_stream_ends_with_done(service: Service, upstream: Upstream, token: str) -> None:
    path = f"/stream?prompt={_quoted(prompt_for(token, tokens=5))}"

    with EventReader(service.port).open(path) as reader:
        *messages, last = [event.json() for event in reader]

    assert "".join(message["content"] for message in messages) == upstream.log(token)[0]["sent_text"]
    assert all(message["done"] is False for message in messages)
    assert last == {"done": True, "finish_reason": "stop"}


def test_a_repeated_message_id_joins_the_run_it_started(
    service: Service, upstream: Upstream, token: str
) -> None:
    path = f"/stream?prompt={_quoted(prompt_for(token, tokens=10, pace_ms=50))}&message_id={token}"

    with EventReader(service.port).open(path) as first:
        got = first.read(3)
    with EventReader(service.port).open(path, {"Last-Event-ID": got[-1].id}) as second:
        got += list(second)

    (entry,) = upstream.log(token)
    assert "".join(event.json().get("content", "") for event in got) == entry["sent_text"]
    assert got[-1].is_last


def test_the_text_format_is_the_text_and_done(service: Service, token: str) -> None:
    text = "one\ntwo\n\nthree é€\n"
    stream_id = service.create(prompt_for(token, text=text, pieces=len(text)))

    with EventReader(service.port).open(f"/streams/{stream_id}?format=text") as reader:
        *parts, last = [event.data.decode() for event in reader]

    assert "".join(parts) == text
    assert last == "[DONE]"


def test_the_ndjson_format_is_native_events_by_line(service: Service, upstream: Upstream, token: str) -> None:
    stream_id = service.create(prompt_for(token, tokens=5))

    with EventReader(service.port).open(f"/streams/{stream_id}?format=ndjson") as reader:
        lines = reader.read_all().decode().splitlines()

    messages = [json.loads(line) for line in lines if line]
    text = "".join(message["content"] for message in messages if message["type"] == "token")
    assert reader.headers["content-type"].startswith("application/x-ndjson")
    assert text == upstream.log(token)[0]["sent_text"]
    assert (messages[0]["type"], messages[-1]["type"], messages[-1]["done"]) == ("start", "done", True)


def test_a_poll_waits_for_something_new(service: Service, upstream: Upstream, token: str) -> None:
    stream_id = service.create(prompt_for(token, tokens=10, pace_ms=100, first_ms=500))

    text, polls, snapshot = "", 0, service.snapshot(stream_id)
    text += snapshot["text"]
    while snapshot["state"] in ("queued", "running"):
        snapshot = service.snapshot(stream_id, f"?after={snapshot['cursor'] or ''}&wait=10")
        text += snapshot["text"]
        polls += 1
        assert polls < 60, "the poll does not wait"

    assert text == upstream.log(token)[0]["sent_text"]
    assert snapshot["state"] == "completed"
    assert service.snapshot(stream_id)["text"] == text


def test_a_poll_of_a_silent_stream_comes_back_when_its_wait_is_over(service: Service, token: str) -> None:
    stream_id = service.create(prompt_for(token, play="half_open", after=2))
    wait_until(
        lambda: service.snapshot(stream_id)["text"] == "w0 w1 ", PATIENCE_SECONDS, "the stream has two tokens"
    )
    cursor = service.snapshot(stream_id)["cursor"]

    started = time.monotonic()
    snapshot = service.snapshot(stream_id, f"?after={cursor}&wait=1")
    seconds = time.monotonic() - started
    service.request("POST", f"/streams/{stream_id}/cancel")

    assert 0.9 <= seconds <= 2.0
    assert (snapshot["state"], snapshot["text"], snapshot["cursor"]) == ("running", "", cursor)


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())
