"""The checker catches every broken promise: each is planted here in logs that are right without it.

One stream of three words, two readers, a poll and an audit; nothing is run.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos import checker
from tests.chaos.evidence import Evidence, Line

STREAM, TOKEN = "st_1", "t1"
WORDS = ["t1.0 ", "t1.1 ", "t1.2 "]
TEXT = "".join(WORDS)
FINISH_AT = 10.4
END = {
    "state": "completed",
    "why": "stop",
    "last_seq": 6,
    "sha": hashlib.sha256(TEXT.encode()).hexdigest(),
}


class Logs:
    """Logs of one stream, to be spoiled."""

    def __init__(self) -> None:
        self.upstream: list[Line] = [
            {"ev": "request", "t": 10.0, "token": TOKEN, "request": 1},
            {
                "ev": "end",
                "t": 10.5,
                "token": TOKEN,
                "request": 1,
                "text": TEXT,
                "finish_at": FINISH_AT,
                "done_at": FINISH_AT,
                "closed_by_peer_at": None,
                "closed_by_us_at": None,
            },
        ]
        self.clients: list[Line] = [_create(9.9)]
        self.clients += _followed("reader-1", 1, 10.0)
        self.clients += _followed("reader-2", 2, 10.01)
        self.clients += [
            _snapshot(10.2, "running", TEXT[:5], "1.3"),
            _snapshot(11.0, "completed", TEXT, "1.6"),
        ]
        self.clients += _followed("audit-3", 3, 20.0)
        self.chaos: list[Line] = []
        self.more: dict[str, Any] = {}

    def evidence(self) -> Evidence:
        in_order = sorted(self.clients, key=lambda line: line["t"])
        return Evidence(self.upstream, in_order, self.chaos, 4.0, 2.0, **self.more)

    @property
    def sent(self) -> Line:
        return self.upstream[1]

    def of(self, reader: str, ev: str) -> list[Line]:
        return [line for line in self.clients if line.get("reader") == reader and line["ev"] == ev]

    def message(self, reader: str, number: int) -> list[Any]:
        """Return message ``number`` of a reader; each ``msgs`` line holds one."""
        message: list[Any] = self.of(reader, "msgs")[number]["m"][0]
        return message

    def cut(self, cancelled_at: float | None = None) -> None:
        """Let the stream be ended in its middle, by a cancel or because its worker died."""
        state, why = (
            ("cancelled", "cancelled") if cancelled_at else ("interrupted", "interrupted/worker_lost")
        )
        self.sent.update(text=TEXT[:10], finish_at=None, done_at=None, closed_by_peer_at=10.35)
        for line in self.clients:
            if "end" in line:
                line["end"] = {"state": state, "why": why}
            if line["ev"] == "msgs" and line["m"][0][3] == WORDS[2]:
                line["m"] = [[line["m"][0][0], 1, "status", ""]]
            if line["ev"] == "snapshot" and line["state"] == "completed":
                line.update(state=state, text=TEXT[:10], end={"state": state, "why": why})
        if cancelled_at:
            self.clients.append(_cancel(cancelled_at, "cancelled"))


def _create(at: float, **fields: Any) -> Line:
    made = {"ev": "create", "t": at, "asked_at": at - 0.01, "token": TOKEN, "key": "k", "on": "grace"}
    return made | {"status": 201, "stream": STREAM, "replayed": False, "state": "running"} | fields


def _cancel(at: float, state: str) -> Line:
    told = {"ev": "cancel", "t": at, "asked_at": at - 0.01, "stream": STREAM, "status": 200}
    return told | {"state": state, "upstream": "closed"}


def _snapshot(at: float, state: str, text: str, cursor: str) -> Line:
    line = {"ev": "snapshot", "t": at, "asked_at": at - 0.01, "stream": STREAM, "reader": None, "status": 200}
    line |= {"state": state, "text": text, "cursor": cursor, "wait": 0.0, "after": ""}
    return line | ({"end": END} if state == "completed" else {})


def _followed(reader: str, conn: int, at: float) -> list[Line]:
    who = {"reader": reader, "stream": STREAM}
    on = {"conn": conn, **who}
    messages: list[list[Any]] = [["1.1", 1, "start", ""], ["1.2", 1, "status", ""]]
    messages += [[f"1.{seq}", 1, "token", word] for seq, word in enumerate(WORDS, 3)]
    messages += [["1.6", 1, "done", ""]]
    lines: list[Line] = [{"ev": "open", "t": at, "format": "native", "after": "", **on}]
    for number, message in enumerate(messages):
        lines.append({"ev": "msgs", "t": at + 0.09 * (number + 1), "m": [message], **on})
    lines[-1] |= {"end": END}
    ended_at = at + 0.6
    lines.append(
        {"ev": "close", "t": ended_at, "how": "whole", "status": 200, "silence": [at, at + 0.1], **on}
    )
    lines.append({"ev": "reader_end", "t": ended_at, "how": "ended", **who})
    return lines


def _broken(logs: Logs) -> set[str]:
    return {outcome.promise for outcome in checker.check(logs.evidence()) if outcome.violations}


Spoil = Callable[[Logs], object]


def _drop_reader_end(logs: Logs, reader: str) -> None:
    logs.clients = [line for line in logs.clients if line not in logs.of(reader, "reader_end")]


def _another_request(logs: Logs, at: float, **first: Any) -> None:
    logs.sent.update(first)
    again = {**logs.upstream[1], "request": 2, "closed_by_us_at": None, "text": TEXT}
    again |= {"finish_at": FINISH_AT, "done_at": FINISH_AT}
    logs.upstream += [{"ev": "request", "t": at, "token": TOKEN, "request": 2}, again]


def _another_stream(logs: Logs) -> None:
    logs.clients.append(_create(9.95, stream="st_2"))


# Name of the promise, what is done to the logs.
PLANTED: dict[str, tuple[str, Spoil]] = {
    "a word is lost": ("prefix", lambda logs: logs.message("reader-1", 3).__setitem__(3, "")),
    "a word comes twice": ("prefix", lambda logs: logs.message("reader-1", 3).__setitem__(3, WORDS[1] * 2)),
    "two words change places": (
        "prefix",
        lambda logs: [
            logs.message("reader-1", 3).__setitem__(3, WORDS[2]),
            logs.message("reader-1", 4).__setitem__(3, WORDS[1]),
        ],
    ),
    "another stream's word": ("prefix", lambda logs: logs.message("reader-1", 2).__setitem__(3, "t2.0 ")),
    "completed without the last word": ("prefix", lambda logs: logs.sent.update(text=TEXT + "t1.3 ")),
    "a wrong checksum": (
        "prefix",
        lambda logs: logs.of("reader-1", "msgs")[-1].update(end={**END, "sha": "0" * 64}),
    ),
    "a wrong last_seq": (
        "prefix",
        lambda logs: logs.of("reader-1", "msgs")[-1].update(end={**END, "last_seq": 7}),
    ),
    "two readers differ": ("agreement", lambda logs: logs.message("reader-2", 2).__setitem__(3, "t1.0! ")),
    "the same text at another id": (
        "agreement",
        lambda logs: [
            logs.message("reader-2", 2).__setitem__(3, TEXT[:8]),
            logs.message("reader-2", 3).__setitem__(3, TEXT[8:10]),
        ],
    ),
    "an id is left out": ("ids", lambda logs: logs.clients.remove(logs.of("reader-1", "msgs")[1])),
    "n is too large": ("ids", lambda logs: logs.message("reader-1", 3).__setitem__(1, 2)),
    "gen falls": ("ids", lambda logs: logs.message("reader-1", 1).__setitem__(0, "0.2")),
    "an id comes twice": ("ids", lambda logs: logs.message("reader-1", 3).__setitem__(0, "1.3")),
    "two ends": (
        "one end",
        lambda logs: logs.of("reader-2", "msgs")[-1].update(end={"state": "failed", "why": "x/y"}),
    ),
    "two reasons": (
        "one end",
        lambda logs: logs.of("reader-2", "msgs")[-1].update(end={**END, "why": "length"}),
    ),
    "two last ids": ("one end", lambda logs: logs.message("reader-2", 5).__setitem__(0, "2.6")),
    "an event after the end": (
        "one end",
        lambda logs: logs.clients.append({**logs.of("reader-1", "msgs")[0], "t": 10.58}),
    ),
    "running again": ("one end", lambda logs: logs.clients.append(_snapshot(30.0, "running", "", "1.6"))),
    "a receipt that another state won": (
        "one end",
        lambda logs: logs.clients.append(_cancel(10.45, "cancelled")),
    ),
    "completed without a finish": (
        "honest end",
        lambda logs: logs.sent.update(finish_at=None, done_at=None, closed_by_us_at=10.4),
    ),
    "completed before the finish": (
        "honest end",
        lambda logs: logs.sent.update(finish_at=25.0, done_at=25.0),
    ),
    "a reader that never ends": ("no hang", lambda logs: _drop_reader_end(logs, "reader-1")),
    "a reader that gives up": (
        "no hang",
        lambda logs: logs.of("reader-1", "reader_end")[0].update(how="gave up"),
    ),
    "a reader that ends late": ("no hang", lambda logs: logs.of("reader-1", "reader_end")[0].update(t=26.0)),
    "silence without a heartbeat": (
        "no hang",
        lambda logs: logs.of("reader-1", "close")[0].update(silence=[10.0, 15.0]),
    ),
    "an upstream open after a cancel": (
        "released",
        lambda logs: [logs.cut(cancelled_at=10.3), logs.sent.update(closed_by_peer_at=12.4)],
    ),
    "an upstream open after the end": (
        "released",
        lambda logs: [logs.cut(), logs.sent.update(closed_by_peer_at=11.7)],
    ),
    "an upstream never closed": (
        "released",
        lambda logs: [logs.cut(), logs.sent.update(closed_by_peer_at=None)],
    ),
    "an upstream that nobody reads": (
        "released",
        lambda logs: [
            setattr(logs, "clients", [_create(9.9)]),
            logs.sent.update(finish_at=None, done_at=None, closed_by_peer_at=19.5),
        ],
    ),
    "ended under a reader": (
        "attended",
        lambda logs: [
            logs.cut(),
            [
                line.update(end={"state": "cancelled", "why": "cancelled"})
                for line in logs.clients
                if "end" in line
            ],
            logs.of("reader-1", "open")[0].update(t=1.0),
        ],
    ),
    "two streams for a key": ("one request", _another_stream),
    "two answers of 201": ("one request", lambda logs: logs.clients.append(_create(9.95))),
    "a second request beside the first": ("one request", lambda logs: _another_request(logs, 10.1)),
    "a second request after the first word": (
        "one request",
        lambda logs: _another_request(logs, 10.45, finish_at=None, done_at=None, closed_by_us_at=10.2),
    ),
    "a second request after a worker's death": (
        "one request",
        lambda logs: _another_request(
            logs, 10.05, text="", finish_at=None, done_at=None, closed_by_peer_at=10.02
        ),
    ),
    "four requests": (
        "one request",
        lambda logs: [
            _another_request(logs, 10.01, text="", finish_at=None, done_at=None, closed_by_us_at=10.0),
            *[
                logs.upstream.extend(
                    [{**logs.upstream[0], "request": number}, {**logs.upstream[1], "request": number}]
                )
                for number in (3, 4)
            ],
        ],
    ),
    "an event that is not in the log": (
        "kept",
        lambda logs: logs.clients.remove(logs.of("audit-3", "msgs")[2]),
    ),
    "an end that is not in the log": (
        "kept",
        lambda logs: logs.clients.remove(logs.of("audit-3", "msgs")[-1]),
    ),
    "a lost cursor for nothing": (
        "kept",
        lambda logs: logs.clients.append(
            {"ev": "reset", "t": 40.0, "reader": "reader-1", "stream": STREAM, "why": "cursor_lost"}
        ),
    ),
    "a 500": ("refusals", lambda logs: logs.of("reader-1", "close")[0].update(status=500)),
    "a refusal as a page": (
        "refusals",
        lambda logs: logs.clients.append(_create(9.95, status=503, error="not JSON: b'<html>'")),
    ),
    "a refusal without a request id": (
        "refusals",
        lambda logs: logs.clients.append(
            _create(9.95, status=503, error={"message": "", "type": "overloaded", "code": "streams"})
        ),
    ),
    "a leak": (
        "leaks",
        lambda logs: logs.more.update(resources={"before": {"threads": 20}, "after": {"threads": 22}}),
    ),
}


def test_logs_of_a_service_that_keeps_its_promises_have_no_violation() -> None:
    assert _broken(Logs()) == set()


def test_a_stream_cut_by_its_worker_s_death_is_no_violation() -> None:
    logs = Logs()
    logs.cut()
    assert _broken(logs) == set()


def test_a_cancelled_stream_is_no_violation() -> None:
    logs = Logs()
    logs.cut(cancelled_at=10.36)
    assert _broken(logs) == set()


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_violation_is_caught(what: str) -> None:
    promise, spoil = PLANTED[what]
    logs = Logs()
    spoil(logs)
    assert promise in _broken(logs)


def test_every_promise_is_caught_when_broken() -> None:
    assert {promise for promise, _ in PLANTED.values()} == {
        outcome.promise for outcome in checker.check(Logs().evidence())
    }


def test_a_pause_of_the_worker_is_not_held_against_it() -> None:
    logs = Logs()
    logs.cut()
    logs.sent.update(closed_by_peer_at=14.2)
    logs.of("reader-1", "close")[0].update(silence=[10.2, 15.0])
    logs.chaos = [{"what": "stop", "pid": 7, "t": 10.0}, {"what": "continue", "pid": 7, "t": 14.1}]
    assert _broken(logs) == set()


def test_a_retry_before_the_first_word_is_no_violation() -> None:
    logs = Logs()
    _another_request(logs, 10.02, text="", finish_at=None, done_at=None, closed_by_us_at=10.01)
    assert _broken(logs) == set()


def test_a_reader_that_began_again_is_judged_from_there() -> None:
    logs = Logs()
    logs.more["may_lose"] = True
    reset = {"ev": "reset", "t": 10.4, "reader": "reader-1", "stream": STREAM, "why": "cursor_lost"}
    logs.clients.append(reset)
    logs.clients = [line for line in logs.clients if line not in logs.of("reader-1", "msgs")[4:]]
    again = [line for line in _followed("reader-1", 4, 10.41) if line["ev"] == "msgs"]
    logs.clients += again
    assert _broken(logs) == set()


def test_the_table_names_the_broken_promise_and_its_first_example() -> None:
    logs = Logs()
    logs.message("reader-1", 3)[3] = ""
    table = checker.table(checker.check(logs.evidence()))
    assert "prefix" in table
    assert "reader-1 of st_1" in table
