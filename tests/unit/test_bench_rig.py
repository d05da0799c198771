"""What of the benchmark must not be wrong: how each chunk is checked, and how answers are read."""

import socket
import subprocess
import sys
import threading
from array import array
from collections import deque
from contextlib import contextmanager

import msgspec
import pytest

from bench._answer import Answer, BadAnswer
from bench._knobs import Knobs, read_knobs
from bench._markers import Markers
from bench.load import Job, Result, quantiles_ms
from bench.targets import REPOSITORY

NOW = 10_000_000


def markers_of(*numbers, count=5, first=0, cut=0):
    """Feed these markers, in blocks of ``cut`` bytes or at once."""
    text = b"".join(b'data: {"content":"@%d:%d@ "}\n\n' % (number, NOW - 1000) for number in numbers)
    checked = Markers(count, array("q"), first)
    step = cut or len(text) or 1
    for at in range(0, len(text), step):
        checked.feed(text[at : at + step], NOW)
    return checked


@pytest.mark.parametrize("cut", range(40))
def test_chunks_that_come_once_and_in_order_are_right_wherever_reads_cut_them(cut):
    checked = markers_of(0, 1, 2, 3, 4, cut=cut)
    assert (checked.fault, checked.next) == ("", 5)


@pytest.mark.parametrize(
    ("numbers", "fault"),
    [
        ((0, 1, 3, 4), "1 lost"),
        ((0, 1, 2), "2 lost"),
        ((), "5 lost"),
        ((0, 1, 1, 2, 3, 4), "1 repeated"),
        ((0, 2, 1, 3, 4), "1 reordered"),
        ((0, 1, 2, 3, 4, 5), "1 too many"),
        ((0, 0, 2, 1, 4), "1 repeated, 1 reordered, 1 lost"),
        ((4, 3, 2, 1, 0), "4 reordered"),
    ],
)
def test_a_chunk_that_is_lost_repeated_or_out_of_order_is_named(numbers, fault):
    assert markers_of(*numbers).fault == fault


def test_a_resumed_stream_is_checked_from_its_first_chunk_on():
    assert markers_of(90, 91, 92, 93, 94, first=90).fault == ""
    assert markers_of(89, 90, 91, 92, 93, 94, first=90).fault == "1 repeated"


def test_a_claimed_number_beyond_the_end_makes_no_list_of_what_is_missing():
    checked = markers_of(10**15)
    assert checked.lost == 5
    assert "too many" in checked.fault


def test_latency_is_from_the_marker_to_the_read():
    latencies = array("q")
    Markers(1, latencies).feed(b"@0:9999000@", NOW)
    assert list(latencies) == [1000]


def test_quantiles_are_those_of_the_sorted_times():
    found = quantiles_ms(array("q", range(1_000_000, 102_000_000, 1_000_000)))
    assert (found["0.5"], found["0.99"], found["1"]) == (51.0, 100.0, 101.0)
    assert quantiles_ms(array("q")) == {}


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = HEAD + b"5\r\nHello\r\n1;x=y\r\n \r\n5\r\nworld\r\n0\r\n\r\n"
SIZED = b"HTTP/1.1 404 Not Found\r\nContent-Length: 11\r\n\r\nHello world"


@pytest.mark.parametrize(("wire", "status"), [(CHUNKED, 200), (SIZED, 404)])
def test_an_answer_is_the_same_however_it_is_cut(wire, status):
    for cut in range(1, len(wire)):
        answer = Answer()
        body = answer.feed(wire[:cut]) + answer.feed(wire[cut:])
        assert (body, answer.status, answer.complete) == (b"Hello world", status, True)
    answer = Answer()
    assert b"".join(answer.feed(wire[at : at + 1]) for at in range(len(wire))) == b"Hello world"


def test_an_answer_without_a_length_ends_with_its_connection():
    answer = Answer()
    assert answer.feed(b"HTTP/1.0 200 OK\r\n\r\nHello") == b"Hello"
    assert not answer.complete
    assert answer.end()


@pytest.mark.parametrize("wire", [CHUNKED[:-5], SIZED[:-1], CHUNKED[:20]])
def test_an_answer_that_was_cut_off_is_not_complete(wire):
    answer = Answer()
    answer.feed(wire)
    assert not answer.end()


@pytest.mark.parametrize(
    "wire", [b"SSH-2.0-x\r\n", b"HTTP/1.1 OK\r\n\r\n", CHUNKED.replace(b"5\r\nworld", b"zz\r\nworld")]
)
def test_what_is_no_answer_is_said_to_be_none(wire):
    answer = Answer()
    with pytest.raises(BadAnswer):
        deque(answer.feed(wire[at : at + 1]) for at in range(len(wire)))


def test_knobs_are_found_in_a_prompt():
    knobs = Knobs(chunks=3, delay_us=50_000, first_us=7, chunk_chars=100)
    assert read_knobs(f'{{"prompt":"Tell me. {knobs}"}}'.encode()) == knobs
    assert read_knobs(b"{}") == Knobs()


@contextmanager
def upstream():
    command = [sys.executable, "-m", "bench.upstream"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def load(port, **fields):
    """Return what the load driver finds."""
    body = f'{{"stream":true,"messages":[{{"content":"{fields.pop("knobs", Knobs(5))}"}}]}}'
    job = Job(port=port, path="/v1/chat/completions", body=body, end="[DONE]", chunks=5, **fields)
    command = [sys.executable, "-m", "bench.load", msgspec.json.encode(job).decode()]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, check=True, timeout=60)
    return msgspec.json.decode(done.stdout, type=Result)


def test_the_driver_finds_all_chunks_of_the_upstream_at_its_pace():
    with upstream() as port:
        result = load(port, at_once=20, total=40, knobs=Knobs(5, 20_000, 0, 200))
    assert (result.ok, result.failed, result.chunks) == (40, 0, 200)
    assert result.seconds >= 0.2  # two streams in turn, of 5 chunks and 20 ms each
    assert 0 < result.latency_ms["0.5"] < 20


def test_an_upstream_that_sends_too_few_or_too_many_chunks_is_noticed():
    with upstream() as port:
        assert load(port, total=2, knobs=Knobs(4)).faults == {"chunks lost": 2}
        assert load(port, total=1, knobs=Knobs(6)).faults == {"chunks too many": 1}


def chunked(*texts):
    return b"".join(b"%x\r\n%b\r\n" % (len(text), text) for text in texts)


@contextmanager
def answering(answer):
    """Serve one fixed answer to each connection, and close it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                with sock:
                    sock.recv(65536)
                    sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


GOOD = [b"@%d:1@ " % number for number in range(5)]


@pytest.mark.parametrize(
    ("answer", "faults"),
    [
        (HEAD + chunked(*GOOD, b"[DONE]") + b"0\r\n\r\n", {}),
        (HEAD + chunked(*GOOD) + b"0\r\n\r\n", {"no end": 1}),
        (HEAD + chunked(*GOOD, b"[DONE]"), {"cut off": 1}),
        (HEAD + chunked(GOOD[0], *GOOD, b"[DONE]") + b"0\r\n\r\n", {"chunks repeated": 1}),
        (HEAD + chunked(*GOOD[:2], *GOOD[:1:-1], b"[DONE]") + b"0\r\n\r\n", {"chunks reordered": 1}),
        (HEAD.replace(b"200", b"503") + b"0\r\n\r\n", {"status 503": 1}),
        (b"", {"cut off": 1}),
    ],
)
def test_each_way_a_stream_can_fail_is_counted_by_its_kind(answer, faults):
    with answering(answer) as port:
        result = load(port, total=1)
    assert result.faults == faults
    assert result.ok == (not faults)
    assert len(result.samples) == len(faults)


def test_a_port_nobody_listens_on_fails_and_does_not_hang():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = load(port, total=3, at_once=3)
    assert (result.ok, result.failed) == (0, 3)


def test_a_silent_server_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        result = load(listener.getsockname()[1], total=1, timeout_seconds=0.3)
    assert result.faults == {"time-out": 1}
