"""Measure the way to a service, step by step, from a terminal."""

import functools
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec

from streaming.doctor import judging
from streaming.doctor.findings import Finding, worst_first
from streaming.doctor.measured import LARGE_BODY_BYTES, Measured, Seen, Silence, Ticks
from streaming.doctor.remedies import changes
from streaming.doctor.wire import Reply, Stream, Unreachable, Way, now

TICKS = 20
EVERY_MS = 100
FEW = 10
AT_ONCE = 12
LAST_EVENT_ID = "1.7"
IDEMPOTENCY_KEY = "doctor-1"
PATIENCE_SECONDS = 15.0
BESIDE_SECONDS = 3.0
SHARES = (1.0, 0.5, 0.25)
"""Of the longest silence: where nobody says when a stream was cut, the shorter ones tell."""


class Refused(Exception):
    """There is an answer, and it is not this service's, or not for us: the rest cannot be measured."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.title)
        self.finding = finding


class Examined(NamedTuple):
    measured: Measured
    findings: list[Finding]
    """Worst first."""
    service: str
    """Why the service's own part is missing; empty: it is there."""


def examine(way: Way, silence_seconds: float, say: Callable[[str], None]) -> Examined:
    """Measure and judge; ``say`` is told what is being done. Takes a little longer than the silence.

    Raises `Unreachable`, and `Refused`.
    """
    shown = _without_secrets(way.url)
    say("asking whether it is there")
    first, keeps = way.ask_twice("/healthz")
    _check_first(first, shown)
    say(f"{TICKS} ticks")
    told = _ticks(way, TICKS)
    say("the same with Accept-Encoding: gzip")
    squeezed = _ticks(way, FEW, {"Accept-Encoding": "gzip"})
    say("a request beside an open stream")
    beside = _beside(way)
    say(f"{AT_ONCE} streams at the same time")
    opened = _at_once(way, AT_ONCE)
    say("WebSocket, a large body, TLS")
    websocket = way.upgrade("/ws")
    large = _large_body(way, shown)
    tls = way.tls()
    say(f"{silence_seconds:g} s of silence, with heartbeats and without")
    silences = _silences(way, silence_seconds, told.heartbeat_seconds)
    measured = Measured(
        url=shown,
        headers=told.headers,
        http=told.http,
        ticks=told.ticks,
        encoding=squeezed.headers.get("content-encoding", ""),
        squeezed=squeezed.ticks,
        silences=silences,
        heartbeat_seconds=told.heartbeat_seconds,
        seen=told.seen,
        sent_last_event_id=LAST_EVENT_ID,
        sent_idempotency_key=IDEMPOTENCY_KEY,
        answer_beside_ms=beside,
        opened_at_once=AT_ONCE,
        opened=opened,
        websocket_status=websocket,
        keeps_connection=keeps,
        large_body_status=large,
        clock_ahead_seconds=told.clock_ahead_seconds,
        clock_within_seconds=told.clock_within_seconds,
        tls=tls,
    )
    say("what the service tells of itself")
    own, missing = _service(way)
    return Examined(measured, worst_first([*judging.judge(measured), *own]), missing)


# Whether it is there


def _check_first(reply: Reply, url: str) -> None:
    headers = reply.headers
    if 300 <= reply.status < 400:
        where = _without_secrets(headers.get("location", "?"))
        why = "What is measured would be the redirect."
        raise Refused(
            Finding(
                "fault",
                "redirect",
                "This address leads elsewhere",
                f"{reply.status} to {where}",
                why,
                changes("redirect", headers),
            )
        )
    answer = reply.json()
    if reply.status != 200 or not isinstance(answer, dict) or "status" not in answer:
        told = f"{url}/healthz answers {reply.status}, {headers.get('content-type', 'without a type')}"
        why = "Something else answers here, or nothing is behind it: look at its upstream's address and port."
        raise Refused(Finding("fault", "no_service", "There is no such service at this address", told, why))


def _check_stream(stream: Stream) -> None:
    if stream.status == 200:
        return
    told = f"/doctor/ticks answers {stream.status}"
    if stream.status in (401, 403):
        title, why = "It does not let us in", "Give a key with --key that may run streams."
        raise Refused(Finding("fault", "not_allowed", title, told, why))
    if stream.status in (429, 503):
        title, why = "It is too busy to be examined", "Try again in a minute."
        raise Refused(Finding("fault", "busy", title, told, why))
    title = "The ticks cannot be had"
    raise Refused(Finding("fault", "no_ticks", title, told, "Something on the way refuses this address."))


# What is measured


class _Told(NamedTuple):
    ticks: Ticks
    headers: dict[str, str]
    http: str
    seen: Seen | None
    heartbeat_seconds: float
    clock_ahead_seconds: float | None
    clock_within_seconds: float


def _ticks(way: Way, count: int, headers: dict[str, str] | None = None) -> _Told:
    asked_at = now()
    sent = {"Last-Event-ID": LAST_EVENT_ID, "Idempotency-Key": IDEMPOTENCY_KEY, **(headers or {})}
    stream = way.stream(_path(count=count, every_ms=EVERY_MS), sent)
    with closing(stream):
        _check_stream(stream)
        hello: dict[str, Any] = {}
        ahead = within = 0.0
        ticked: list[tuple[float, float]] = []
        whole = False
        for at, event in stream.heard(PATIENCE_SECONDS):
            match event:
                case {"type": "hello", "at": float() | int() as stamp}:
                    hello = dict(event or {})
                    # It was written between the request and now: in the middle, give or take half of it.
                    ahead, within = stamp / 1000 - (asked_at + at) / 2, (at - asked_at) / 2
                case {"type": "tick", "at": float() | int() as stamp}:
                    ticked.append((stamp, at * 1000))
                case {"type": "done"}:
                    whole = True
        first_byte_ms = ((stream.first_byte_at or now()) - asked_at) * 1000
    ticks = Ticks(EVERY_MS, count, [s for s, _ in ticked], [c for _, c in ticked], first_byte_ms, whole)
    seen = None
    with suppress(msgspec.ValidationError):
        seen = msgspec.convert(hello.get("seen"), Seen)
    often = hello.get("heartbeat_seconds")
    often = float(often) if isinstance(often, int | float) and 0 < often < 1e6 else 10.0
    return _Told(ticks, stream.headers, stream.http, seen, often, ahead if hello else None, within)


def _beside(way: Way) -> float:
    """Return how many milliseconds a request takes while a stream is open, -1 for too many."""
    with closing(way.stream(_path(count=int(BESIDE_SECONDS * 10), every_ms=100))) as stream:
        _check_stream(stream)
        begun = time.monotonic()
        try:
            way.ask("GET", "/healthz", seconds=BESIDE_SECONDS - 0.5)
        except Unreachable:
            return -1.0
        return (time.monotonic() - begun) * 1000


def _at_once(way: Way, count: int) -> int:
    """Return how many of ``count`` streams begin while all are open."""
    streams: list[Stream] = []
    lock = threading.Lock()

    def open_one() -> None:
        with suppress(Unreachable):
            stream = way.stream(_path(count=0, silence_s=5), seconds=4.0)
            with lock:
                streams.append(stream)

    _together([open_one] * count, 8.0)
    with lock:
        begun = sum(stream.status == 200 for stream in streams)
        for stream in streams:
            stream.close()
    return begun


def _large_body(way: Way, url: str) -> int:
    body = msgspec.json.encode(Measured(url=url)).ljust(LARGE_BODY_BYTES)
    try:
        return way.ask("POST", "/doctor/findings", {"Content-Type": "application/json"}, body, 30.0).status
    except Unreachable:
        return 0


def _silences(way: Way, seconds: float, heartbeat_seconds: float) -> list[Silence]:
    """Listen to several silent streams at the same time."""
    # As often as the service sends them, where the silence is long enough to hear two.
    often = heartbeat_seconds if seconds >= 2.2 * heartbeat_seconds else seconds / 4
    asked = [(seconds, often), *((seconds * share, 0.0) for share in SHARES)]
    found: list[Silence] = []
    lock = threading.Lock()

    def listen(each: tuple[float, float]) -> None:
        with suppress(Unreachable):
            heard = _silence(way, *each)
            with lock:
                found.append(heard)

    _together([functools.partial(listen, each) for each in asked], seconds + 2 * PATIENCE_SECONDS)
    with lock:
        return list(found)


def _silence(way: Way, seconds: float, often: float) -> Silence:
    query = {"count": 1, "silence_s": seconds} | ({"heartbeat_s": often} if often else {})
    with closing(way.stream(_path(**query), seconds=seconds + PATIENCE_SECONDS)) as stream:
        begun = last = now()
        greeted = survived = False
        beats: list[float] = []
        for at, event in stream.heard(seconds + PATIENCE_SECONDS / 3):
            last = at
            match event:
                case None:
                    beats.append(at - begun)
                case {"type": "hello"}:
                    begun, greeted = at, True
                case {"type": "done"}:
                    survived = True
        ended = last if survived else now()
        mute = stream.silent or (greeted and not survived and ended - begun > seconds + 2)
        return Silence(seconds, often, max(0.0, ended - begun), survived, beats[:1000], mute and not survived)


def _service(way: Way) -> tuple[list[Finding], str]:
    """Return the service's own findings, or why they cannot be had."""
    try:
        reply = way.ask("GET", "/doctor/service", seconds=30.0)
    except Unreachable as error:
        return [], str(error)
    if reply.status in (401, 403):
        return [], "it tells only an operator: give a key with the scope admin"
    try:
        return msgspec.convert((reply.json() or {}).get("findings"), list[Finding]), ""
    except (msgspec.ValidationError, AttributeError):
        return [], f"/doctor/service answers {reply.status} and nothing of use"


def _together(jobs: list[Callable[[], None]], seconds: float) -> None:
    """Do all at the same time; leave behind what takes longer than ``seconds``."""
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _path(**query: float) -> str:
    return f"/doctor/ticks?{urlencode(query)}"


def _without_secrets(url: str) -> str:
    scheme, colon, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{colon}{authority.rpartition('@')[2]}{slash}{path}"[:300]
