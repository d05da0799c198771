"""``/ws`` through the real server, with a client of another make: nothing lost, nothing twice, no leak."""

import concurrent.futures
import contextlib
import hashlib
import itertools
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.live.conftest import StartService
from tests.live.service import PATIENCE_SECONDS, Service, Upstream, wait_until
from tests.live.upstream import contents
from tests.live.websocket import BINARY, CLOSE, PING, TEXT, Raw, Talk, events_of, frame, text_of

_numbers = itertools.count(1)


@pytest.fixture
def token() -> str:
    """A name nobody else uses in the upstream's log."""
    return f"ws-{next(_numbers)}"


@pytest.fixture(scope="module")
def service(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One worker, that a message of 100 kB is too large for."""
    service = Service(
        tmp_path_factory.mktemp("ws"), upstream.base_url, environment={"MAX_BODY_BYTES": "100000"}
    )
    yield service
    service.stop()
    assert_quiet(service)


@pytest.fixture(scope="module")
def two_workers(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers on one log."""
    service = Service(tmp_path_factory.mktemp("ws-two"), upstream.base_url, workers=2)
    yield service
    service.stop()
    assert_quiet(service)


def assert_quiet(service: Service) -> None:
    """Check that no disconnect left a warning or a traceback in the log."""
    log = service.log_text()
    assert "Traceback" not in log, log[-4000:]
    loud = [
        line for line in log.splitlines() if " WARNING " in line or " ERROR " in line or "[ERROR]" in line
    ]
    assert not loud, loud


def prompt(token: str = "", **script: Any) -> str:
    return f"please <<{json.dumps({'token': token, **script} if token else script)}>>"


def text(**script: Any) -> str:
    """Return what the upstream says for that script."""
    return "".join(contents(script))


def descriptors(service: Service) -> int:
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in service.worker_pids())


def resident_bytes(service: Service) -> int:
    (pid,) = service.worker_pids()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# One connection


def test_several_turns_on_one_connection(service: Service) -> None:
    with Talk(service) as talk:
        for tokens in (3, 30, 1):
            stream_id = talk.start(prompt(tokens=tokens))
            last = talk.to_the_end()[-1]
            assert last["finish_reason"] == "stop"
            told = text_of(events_of(talk.frames, stream_id))
            assert told == text(tokens=tokens)
            assert last["text_sha256"] == hashlib.sha256(told.encode()).hexdigest()
        assert talk.ask("ping")["type"] == "pong"


def test_several_runs_at_once_on_one_connection(service: Service) -> None:
    with Talk(service) as talk:
        runs = [talk.start(prompt(tokens=20 + i, pace_ms=10)) for i in range(5)]
        while sum(frame.get("done", False) for frame in talk.frames) < len(runs):
            talk.receive()
        for i, stream_id in enumerate(runs):
            assert text_of(events_of(talk.frames, stream_id)) == text(tokens=20 + i)


def test_a_repeated_start_joins_and_asks_the_upstream_once(
    service: Service, upstream: Upstream, token: str
) -> None:
    asked = prompt(token, tokens=20, pace_ms=30)
    with Talk(service) as talk:
        first = talk.start(asked, message_id=token)
        talk.until_type("token")
        talk.cut()
    with Talk(service) as talk:
        answer = talk.ask("start", prompt=asked, message_id=token)
        assert (answer["stream_id"], answer["replayed"]) == (first, True)
        talk.to_the_end()
        assert text_of(talk.frames) == text(tokens=20)
    # The same name, over HTTP.
    created = service.request("POST", "/streams", {"prompt": asked, "message_id": token})
    assert (created.status, created.json()["stream_id"]) == (200, first)
    assert len(upstream.log(token)) == 1


def test_readers_wishes_are_parameters_of_the_address(service: Service) -> None:
    with Talk(service, "?buffer_tokens=10&buffer_ms=2000") as talk:
        stream_id = talk.start(prompt(tokens=40, pace_ms=2))
        talk.to_the_end()
        events = events_of(talk.frames, stream_id)
        assert text_of(events) == text(tokens=40)
        assert sum(event["type"] == "token" for event in events) < 20


# Turns of a conversation


def test_turns_of_a_thread_know_what_was_said_also_after_a_reconnect(
    service: Service, upstream: Upstream, token: str
) -> None:
    asked = [prompt(token, tokens=tokens, turn=turn) for turn, tokens in enumerate((3, 4, 2))]
    with Talk(service) as talk:
        for question in asked[:2]:
            talk.start(question, thread=token)
            talk.to_the_end()
        talk.cut()
    with Talk(service) as talk:
        answer = talk.ask("start", prompt=asked[2], thread=token)
        assert answer["thread"] == token
        talk.to_the_end()

    told = [[message["content"] for message in each["body"]["messages"]] for each in upstream.log(token)]
    one, two = text(tokens=3), text(tokens=4)
    assert told == [
        [asked[0]],
        [asked[0], one, asked[1]],
        [asked[0], one, asked[1], two, asked[2]],
    ]


def test_a_thread_whose_answer_is_being_written_refuses_the_next_question(
    service: Service, token: str
) -> None:
    with Talk(service) as talk:
        talk.start(prompt(tokens=500, pace_ms=20), thread=token)
        refusal = talk.ask("start", prompt="and?", thread=token)
        assert (refusal["error"]["code"], refusal["error"]["param"]) == ("thread_busy", "thread")
        talk.ask("stop")
        if not any(frame.get("done") for frame in talk.frames):
            talk.to_the_end()
        assert talk.ask("start", prompt=prompt(tokens=1), thread=token)["type"] == "started"


# Pause, resume, stop


def test_a_pause_longer_than_the_answer_loses_nothing(service: Service) -> None:
    with Talk(service) as talk:
        stream_id = talk.start(prompt(tokens=60, pace_ms=10), on_disconnect="cancel")
        talk.until_type("token")
        assert talk.ask("pause")["type"] == "paused"
        before = len(talk.frames)

        wait_until(
            lambda: service.snapshot(stream_id)["state"] == "completed", PATIENCE_SECONDS, "the run goes on"
        )
        assert talk.ask("ping")["type"] == "pong"
        assert len(talk.frames) == before + 1, "only the pong came"

        assert talk.ask("resume")["type"] == "resumed"
        talk.to_the_end()
        assert text_of(events_of(talk.frames, stream_id)) == text(tokens=60)


def test_pausing_and_resuming_all_the_time_loses_nothing(service: Service) -> None:
    with Talk(service) as talk:
        stream_id = talk.start(prompt(tokens=150, pace_ms=5))
        while not any(frame.get("done") for frame in talk.frames):
            if talk.ask("pause")["type"] == "error":
                break  # it has ended
            mark = len(talk.frames)
            talk.ask("ping")
            assert [frame["type"] for frame in talk.frames[mark:]] == ["pong"], "an event came in a pause"
            talk.ask("resume")
            talk.receive()
        assert text_of(events_of(talk.frames, stream_id)) == text(tokens=150)


def test_a_stop_closes_the_upstream_and_keeps_the_text(
    service: Service, upstream: Upstream, token: str
) -> None:
    with Talk(service) as talk:
        stream_id = talk.start(prompt(token, tokens=2000, pace_ms=20))
        talk.until_type("token")
        receipt = talk.ask("stop")["receipt"]
        assert (receipt["state"], receipt["upstream"]) == ("cancelled", "closed")
        upstream.wait_for_close(token)
        if not any(frame.get("done") for frame in talk.frames):
            talk.to_the_end()
        events = events_of(talk.frames, stream_id)
        assert events[-1]["finish_reason"] == "cancelled"
        assert service.snapshot(stream_id)["text"] == text_of(events)
        assert talk.ask("stop")["receipt"]["upstream"] == "none"


# Reconnect


@pytest.mark.parametrize("seed", range(3))
def test_a_connection_cut_at_random_loses_and_repeats_nothing(two_workers: Service, seed: int) -> None:
    chance = random.Random(seed)
    frames: list[dict[str, Any]] = []
    with Talk(two_workers) as talk:
        stream_id = talk.start(prompt(tokens=300, pace_ms=5))
        cursor = ""
        cuts = 0
        while not any(frame.get("done") for frame in frames):
            for _ in range(chance.randrange(40)):
                frames.append(talk.receive())
                cursor = frames[-1].get("cursor", cursor)
                if frames[-1].get("done"):
                    break
            else:
                talk.cut()
                cuts += 1
                talk = Talk(two_workers)
                answer = talk.ask("follow", stream_id=stream_id, after=cursor)
                assert answer["type"] == "following", answer
                frames += [frame for frame in talk.frames if frame is not answer]
        talk.connection.close()
    assert cuts >= 5
    events = events_of(frames, stream_id)
    assert text_of(events) == text(tokens=300)
    assert events[-1]["text_sha256"] == hashlib.sha256(text_of(events).encode()).hexdigest()


def test_a_run_of_another_worker_is_followed_and_stopped(two_workers: Service) -> None:
    stream_ids = [two_workers.create(prompt(tokens=1000, pace_ms=20)) for _ in range(4)]
    with Talk(two_workers) as talk:
        for stream_id in stream_ids:
            assert talk.ask("follow", stream_id=stream_id)["type"] == "following"
            receipt = talk.ask("stop", stream_id=stream_id)["receipt"]
            assert (receipt["state"], receipt["upstream"]) == ("cancelled", "closed")
        wait_until(
            lambda: sum(f.get("done", False) for f in talk.frames) == 4 or talk.receive(),
            PATIENCE_SECONDS,
            "ends",
        )


def test_after_a_kill_the_client_comes_back_and_is_told(start_service: StartService) -> None:
    service = start_service()
    with Talk(service) as talk:
        stream_id = talk.start(prompt(tokens=2000, pace_ms=20))
        talk.until(lambda frame: text_of(talk.frames).count(" ") > 10)
        service.kill_worker()
        assert talk.closed()[0] == 1006
    cursor = [frame["cursor"] for frame in talk.frames if "cursor" in frame][-1]
    wait_until(service.is_healthy, PATIENCE_SECONDS, "a new worker answers")

    with Talk(service) as again:
        answer = again.ask("follow", stream_id=stream_id, after=cursor)
        assert answer["type"] == "following", answer
        last = again.to_the_end()[-1]

    assert (last["type"], last["error"]["type"], last["error"]["code"]) == (
        "error",
        "interrupted",
        "worker_lost",
    )
    events = events_of(talk.frames + again.frames, stream_id)
    assert text_of(events) == service.snapshot(stream_id)["text"]
    assert text(tokens=2000).startswith(text_of(events))


# Many, and slow ones


def test_three_hundred_at_once_all_hear_their_own_answer_and_leave_nothing(
    service: Service, start_service: StartService
) -> None:
    before = descriptors(service)
    all_are_open = threading.Barrier(300)

    def one(i: int) -> str:
        with Talk(service, open_timeout=60) as talk:
            stream_id = talk.start(prompt(tokens=10 + i % 7, pace_ms=50))
            all_are_open.wait(60)
            talk.to_the_end()
            return text_of(events_of(talk.frames, stream_id))

    with concurrent.futures.ThreadPoolExecutor(300) as pool:
        told = list(pool.map(one, range(300)))

    assert told == [text(tokens=10 + i % 7) for i in range(300)]
    # Connections to the upstream are kept for a while; those of the sockets are not.
    wait_until(lambda: established(service) == 0, PATIENCE_SECONDS, "no connection is left")
    # A connection may be closed on the wire a moment before its descriptor is.
    wait_until(lambda: descriptors(service) <= before + 320, PATIENCE_SECONDS, "no descriptor is left")


def established(service: Service) -> int:
    """Return how many connections to its port the service still holds."""
    rows = [line.split()[1:4] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(near.endswith(f":{service.port:04X}") and state in ("01", "08") for near, _, state in rows)


def test_a_client_that_does_not_read_holds_nothing_up_and_is_cut(
    start_service: StartService, upstream: Upstream, token: str
) -> None:
    service = start_service(environment={"WRITE_TIMEOUT_SECONDS": "2"})
    script: dict[str, Any] = {"tokens": 6000, "fill": 1000}
    asked = prompt(token, **script)
    memory_before = resident_bytes(service)
    with Raw(service, receive_buffer=4096) as deaf:
        assert b" 101 " in deaf.upgrade()
        start = {"type": "start", "prompt": asked, "on_disconnect": "continue", "message_id": token}
        deaf.send(TEXT, json.dumps(start).encode())
        wait_until(lambda: upstream.log(token), PATIENCE_SECONDS, "it runs")
        created = service.request(
            "POST", "/streams", start | {"type": None} and {k: v for k, v in start.items() if k != "type"}
        )
        stream_id = created.json()["stream_id"]
        wait_until(
            lambda: service.snapshot(stream_id)["state"] == "completed", 60, "the run is not held back"
        )
        wait_until(lambda: established(service) == 0, PATIENCE_SECONDS, "it is cut")
    assert resident_bytes(service) - memory_before < 60_000_000

    with Talk(service) as talk:
        talk.ask("follow", stream_id=stream_id)
        if not any(frame.get("done") for frame in talk.frames):
            talk.to_the_end()
        assert text_of(events_of(talk.frames, stream_id)) == text(**script)
    service.stop()
    assert_quiet(service)


def test_a_client_that_reads_slowly_gets_every_frame_whole(service: Service) -> None:
    script: dict[str, Any] = {"tokens": 400, "fill": 5000}
    with Talk(service, max_queue=1) as talk:
        stream_id = talk.start(prompt(**script))
        while not any(frame.get("done") for frame in talk.frames):
            talk.receive()
            time.sleep(0.005)
        assert text_of(events_of(talk.frames, stream_id)) == text(**script)


def test_a_flood_of_commands_is_not_piled_up(service: Service) -> None:
    before = resident_bytes(service)
    with Raw(service, receive_buffer=4096) as flood:
        flood.upgrade()
        flood.socket.settimeout(2)
        block = frame(TEXT, b'{"type":"ping","request":"%s"}' % (b"r" * 90)) * 500
        with pytest.raises(TimeoutError):  # its answers are not read, so it is not heard any more
            _send_often(flood, block, 2000)
        assert resident_bytes(service) - before < 30_000_000
        assert service.is_healthy()


def _send_often(raw: Raw, block: bytes, times: int) -> None:
    for _ in range(times):
        raw.socket.sendall(block)


# Leaving


def test_what_was_said_before_leaving_is_done(service: Service, upstream: Upstream) -> None:
    tokens = [f"ws-left-{i}" for i in range(3)]
    with Talk(service) as talk:
        runs = [talk.start(prompt(token, tokens=2000, pace_ms=20)) for token in tokens]
        for token in tokens:
            upstream.wait_for_request(token)
        for stream_id in runs:
            talk.send("stop", stream_id=stream_id)
    for token in tokens:
        upstream.wait_for_close(token)
    states = {service.snapshot(stream_id, "?wait=5")["state"] for stream_id in runs}
    assert states == {"cancelled"}


def test_a_client_that_goes_ends_its_presence_at_once(
    service: Service, upstream: Upstream, token: str
) -> None:
    with Talk(service) as talk:
        talk.start(prompt(token, tokens=2000, pace_ms=20), on_disconnect="cancel")
        talk.until_type("token")
    left = time.monotonic()
    assert upstream.wait_for_close(token) - left < 3


def test_a_client_that_is_cut_while_paused_ends_its_presence_too(
    service: Service, upstream: Upstream, token: str
) -> None:
    with Talk(service) as talk:
        talk.start(prompt(token, tokens=2000, pace_ms=20), on_disconnect="cancel")
        talk.until_type("token")
        talk.ask("pause")
        talk.cut()
        upstream.wait_for_close(token)


def test_a_client_that_vanishes_is_noticed_by_its_silence(
    start_service: StartService, upstream: Upstream, token: str
) -> None:
    service = start_service(environment={"WRITE_TIMEOUT_SECONDS": "1"})
    with Raw(service) as gone:
        gone.upgrade()
        start = {"type": "start", "prompt": prompt(token, tokens=5000, pace_ms=20), "on_disconnect": "cancel"}
        gone.send(TEXT, json.dumps(start).encode())  # and no pong, ever
        wait_until(lambda: upstream.log(token), PATIENCE_SECONDS, "it runs")
        upstream.wait_for_close(token)
        assert gone.close_code() == 1008
    service.stop()
    assert_quiet(service)


def test_an_idle_connection_is_closed_and_one_with_a_run_is_not(start_service: StartService) -> None:
    service = start_service(environment={"CONNECTION_SECONDS": "1"})
    began = time.monotonic()
    with Talk(service) as idle, Talk(service) as busy:
        busy.start(prompt(tokens=25, pace_ms=100))
        asked = time.monotonic()
        assert idle.closed() == (1000, "idle")
        closed = time.monotonic()
        assert closed - began > 0.9
        assert closed - asked < 3
        busy.to_the_end()
        assert text_of(busy.frames) == text(tokens=25)
        assert busy.closed() == (1000, "idle")
    service.stop()
    assert_quiet(service)


# Bad input


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(BINARY, b"{}"), 1003),
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(TEXT, b"{}", masked=False), 1002),
        (frame(3, b""), 1002),
        (frame(TEXT | 0x40, b"{}"), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(0, b"{}"), 1002),
        (b"\xff" * 200, 1002),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1002),
        (frame(TEXT, b"x" * 100_001), 1009),
        (frame(TEXT, b"x" * 60_000, final=False) + frame(0, b"x" * 60_000), 1009),
        (frame(TEXT, b"x" * 5_000_000), 1009),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, (1005).to_bytes(2, "big")), 1002),
        (frame(CLOSE, (1000).to_bytes(2, "big") + b"bye"), 1000),
        (frame(CLOSE, (4321).to_bytes(2, "big")), 4321),
        (frame(CLOSE, b""), 1005),
    ],
)
def test_what_is_no_frame_of_ours_is_closed_with_the_right_code(
    service: Service, sent: bytes, code: int
) -> None:
    with Raw(service) as raw:
        raw.upgrade()
        with contextlib.suppress(ConnectionError):
            raw.socket.sendall(sent)
        assert raw.close_code() == code
    assert service.is_healthy()


def test_refused_frames_leave_the_connection_usable(service: Service) -> None:
    with Talk(service) as talk:
        stream_id = talk.start(prompt(tokens=20, pace_ms=20))
        for bad in ("", "nope", "[]", '{"type":"fly"}', "[" * 50_000, '{"type":"start","colour":1}'):
            talk.connection.send(bad)
            refusal = talk.until(lambda frame: frame["type"] == "error")[-1]
            assert refusal["error"]["type"] == "invalid_request"
            assert "done" not in refusal
        assert refusal["error"]["param"] == "colour"
        if not any(frame.get("done") for frame in talk.frames):
            talk.to_the_end()
        assert text_of(events_of(talk.frames, stream_id)) == text(tokens=20)


@pytest.mark.parametrize("bytes_at_once", [1, 3])
def test_frames_may_come_in_pieces(service: Service, bytes_at_once: int) -> None:
    with Raw(service) as raw:
        raw.upgrade()
        sent = frame(TEXT, b'{"type":', final=False) + frame(PING, b"between") + frame(0, b'"ping"}')
        for at in range(0, len(sent), bytes_at_once):
            raw.socket.sendall(sent[at : at + bytes_at_once])
        found = b""
        while b'{"type":"pong"}' not in found:
            found += raw.socket.recv(65536)
        assert b"between" in found


def test_garbage_at_random_is_survived(service: Service) -> None:
    chance = random.Random(7)
    for _ in range(60):
        with Raw(service) as raw, contextlib.suppress(ConnectionError):
            raw.upgrade()
            raw.socket.sendall(chance.randbytes(chance.randrange(1, 400)))
    assert service.is_healthy()
    wait_until(lambda: established(service) == 0, PATIENCE_SECONDS, "no connection is left")


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.test"}, {"Sec-Fetch-Site": "cross-site"}])
def test_another_sites_page_may_not_connect(service: Service, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        Talk(service, additional_headers=headers)
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["error"]["code"] == "origin"


def test_our_own_page_may_connect(service: Service) -> None:
    with Talk(service, origin=service.url) as talk:
        assert talk.ask("ping")["type"] == "pong"


@pytest.mark.parametrize(
    "headers",
    [
        "Cookie: " + "c" * 8000 + "\r\n" + "X-More: " + "m" * 8000 + "\r\n" + "X-Yet: " + "y" * 8000 + "\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=nonsense\r\n",
        "Sec-WebSocket-Protocol: chat, superchat\r\n",
        "X-Odd: \xe4\xff\r\n",
    ],
)
def test_headers_that_are_none_of_its_business_do_not_break_the_handshake(
    service: Service, headers: str
) -> None:
    with Raw(service) as raw:
        head = raw.upgrade(headers)
        assert b" 101 " in head, head
        assert b"xtensions" not in head


def test_a_host_that_is_no_name_does_not_break_the_handshake(service: Service) -> None:
    with Raw(service) as raw:
        raw.socket.sendall(
            b"GET /ws HTTP/1.1\r\nHost: a..b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert b" 500 " not in raw.socket.recv(1000)


# The end of a worker


def test_a_deploy_closes_each_connection_when_its_run_has_ended(
    start_service: StartService, upstream: Upstream, token: str
) -> None:
    service = start_service(environment={"DRAIN_SECONDS": "4"})
    with Talk(service) as idle, Talk(service) as short, Talk(service) as long, Talk(service) as paused:
        short_run = short.start(prompt(tokens=30, pace_ms=50))
        long_run = long.start(prompt(token, tokens=5000, pace_ms=20))
        paused_run = paused.start(prompt(tokens=30, pace_ms=50))
        long.until_type("token")
        paused.ask("pause")

        told = time.monotonic()
        os.kill(service.pid, signal.SIGTERM)

        assert idle.closed(5)[0] == 1012
        assert paused.closed(5)[0] == 1012
        assert time.monotonic() - told < 3, "who waits for nothing is sent away first"
        refusal = long.ask("start", prompt="one more")
        assert (refusal["error"]["code"], refusal["error"]["retryable"]) == ("draining", True)
        assert short.closed(5)[0] == 1012
        assert time.monotonic() - told < 4
        assert text_of(events_of(short.frames, short_run)) == text(tokens=30), "it could end"
        assert long.closed(10)[0] == 1012
        last = events_of(long.frames, long_run)[-1]
        assert (last["error"]["type"], last["error"]["code"]) == ("interrupted", "shutdown")
        wait_until(service.has_ended, PATIENCE_SECONDS, "the service ends")
    upstream.wait_for_close(token)
    assert "graceful timeout" not in service.log_text()
    assert_quiet(service)

    later = start_service()
    cursor = [frame["cursor"] for frame in paused.frames if "cursor" in frame][-1]
    with Talk(later) as again:
        again.ask("follow", stream_id=paused_run, after=cursor)
        again.to_the_end()
    assert text_of(events_of(paused.frames + again.frames, paused_run)) == text(tokens=30)


def test_a_deploy_does_not_wait_for_clients_that_do_not_answer(start_service: StartService) -> None:
    service = start_service(environment={"DRAIN_SECONDS": "1"})
    with Raw(service) as mute, Raw(service, receive_buffer=4096) as deaf:
        mute.upgrade()
        deaf.upgrade()
        asked = prompt(tokens=20_000, fill=1000)
        deaf.send(TEXT, json.dumps({"type": "start", "prompt": asked}).encode())
        wait_until(lambda: "stream started" in service.log_text(), PATIENCE_SECONDS, "it runs")
        os.kill(service.pid, signal.SIGTERM)
        wait_until(service.has_ended, PATIENCE_SECONDS, "the service ends")
    # By its own clock: the server would have killed it, with a warning.
    assert "graceful timeout" not in service.log_text()
    assert_quiet(service)
