"""What a doctor makes of measurements: thresholds, words, and numbers that lie."""

import contextlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.doctor import judging, remedies, service, stores
from streaming.doctor.findings import Finding
from streaming.doctor.flow import pace_of
from streaming.doctor.measured import Measured, Seen, Silence, Ticks, Tls, read
from streaming.doctor.telling import summary, tell

REPOSITORY = Path(judging.__file__).parents[2]
GOOD_HEADERS = {
    "cache-control": "no-store, no-transform",
    "stream-id": "doctor",
    "content-type": "text/event-stream; charset=utf-8",
}


def ticks(delays_ms: list[float], every_ms: float = 100, sent_late_ms: float = 0) -> Ticks:
    """Return ticks that came so much later than they were sent; the last was sent late."""
    sent = [1e12 + place * every_ms for place in range(len(delays_ms))]
    sent[-1] += sent_late_ms
    came = [at + delay for at, delay in zip(sent, delays_ms, strict=True)]
    return Ticks(every_ms, len(sent), sent, came, first_byte_ms=20)


def found(**fields: Any) -> dict[str, Finding]:
    measured = Measured(**({"url": "http://127.0.0.1:8000"} | fields))
    return {finding.code: finding for finding in judging.judge(measured)}


# Buffering


def held_until_the_end(count: int) -> list[float]:
    return [(count - place) * 100.0 for place in range(count)]


def test_ticks_that_all_came_at_the_end_were_buffered() -> None:
    assert found(ticks=ticks(held_until_the_end(20)))["buffering"].level == "fault"


@pytest.mark.parametrize("clock_ms", [0, -3_600_000, 86_400_000])
def test_the_clocks_need_not_agree(clock_ms: float) -> None:
    quick = [clock_ms + delay for delay in [5, 9, 6, 40, 5, 7, 6, 5, 8, 5]]
    assert found(ticks=ticks(quick))["buffering"].level == "ok"
    held = [clock_ms + delay for delay in held_until_the_end(10)]
    assert found(ticks=ticks(held))["buffering"].level == "fault"


def test_bunches_of_five_were_buffered() -> None:
    delays = [float(400 - 100 * (place % 5)) for place in range(20)]
    assert found(ticks=ticks(delays))["buffering"].level == "fault"


def test_one_hiccup_is_not_buffering() -> None:
    delays = [5.0] * 20
    delays[10:13] = [220.0, 120.0, 20.0]
    assert found(ticks=ticks(delays))["buffering"].level == "ok"


def test_a_slow_but_steady_way_is_not_buffering() -> None:
    assert found(ticks=ticks([2000.0 + place % 3 for place in range(20)]))["buffering"].level == "ok"


def test_a_late_way_that_stutters_is_uneven() -> None:
    assert found(ticks=ticks([5.0] * 10 + [1500.0] + [1400.0] + [5.0] * 10))["uneven"].level == "warning"


def test_ticks_that_are_missing_are_a_cut() -> None:
    some = changed(ticks([5.0] * 10), asked=20)
    assert found(ticks=some)["cut"].level == "fault"
    assert found(ticks=changed(some, asked=10, whole=False))["cut"].level == "fault"


def test_too_few_ticks_tell_nothing() -> None:
    assert pace_of(ticks([5.0, 5.0])) is None


def test_a_worker_that_sent_late_is_told_from_a_way_that_is_slow() -> None:
    late = found(ticks=ticks([5.0] * 20, sent_late_ms=1200))
    assert late["blocked"].level == "fault"
    assert late["buffering"].level == "ok"
    assert "blocked" not in found(ticks=ticks([1200.0] * 20))


def test_a_buffered_stream_is_not_blamed_twice_for_its_first_byte() -> None:
    assert "first_byte" not in found(ticks=ticks(held_until_the_end(20)))


# Silence


def silence(asked: float, lasted: float, often: float = 0, **fields: Any) -> Silence:
    return Silence(asked, often, lasted, fields.pop("survived", lasted >= asked), **fields)


@pytest.mark.parametrize(
    ("cut_after", "level"), [(3.0, "fault"), (11.0, "fault"), (20.0, "warning"), (29.0, "note")]
)
def test_a_cut_is_judged_by_the_heartbeats_that_fit_before_it(cut_after: float, level: str) -> None:
    found_ = found(silences=[silence(30, cut_after), silence(2, 2)], heartbeat_seconds=10)
    assert found_["idle_cut"].level == level
    assert f"{cut_after:.1f} s" in found_["idle_cut"].measured


def test_of_streams_that_fell_mute_the_shortest_counts() -> None:
    mute = [silence(each, each + 5, survived=False, mute=True) for each in (30, 15)]
    assert "15.0 s" in found(silences=[*mute, silence(7, 7)])["idle_cut"].measured


def test_heartbeats_that_came_in_time_are_in_order() -> None:
    beats = [10.0, 20.1, 30.0]
    assert found(silences=[silence(30, 30, 10, heartbeats=beats)])["heartbeats"].level == "ok"


@pytest.mark.parametrize("beats", [[], [29.9, 29.9, 29.9], [0.0, 0.0, 0.0], [10.0]])
def test_heartbeats_that_are_held_or_lost_are_a_fault(beats: list[float]) -> None:
    assert found(silences=[silence(30, 30, 10, heartbeats=beats)])["heartbeats_held"].level == "fault"


def test_a_cut_in_spite_of_heartbeats_is_a_fault() -> None:
    cut = silence(30, 12, 10, survived=False, heartbeats=[10.0])
    assert found(silences=[cut])["heartbeat_cut"].level == "fault"


# The way besides


def test_compression_that_holds_back_is_worse_than_compression() -> None:
    plain = found(encoding="gzip", squeezed=ticks([5.0] * 10))
    held = found(encoding="gzip", squeezed=ticks(held_until_the_end(10)))
    assert (plain["compression"].level, held["compression"].level) == ("warning", "fault")
    assert found(encoding="")["compression"].level == "ok"


@pytest.mark.parametrize(
    ("fields", "code", "level"),
    [
        ({"answer_beside_ms": -1.0}, "one_at_a_time", "fault"),
        ({"answer_beside_ms": 4.0}, "beside", "ok"),
        ({"opened_at_once": 12, "opened": 6}, "few_at_once", "warning"),
        ({"websocket_status": 0}, "websocket", "warning"),
        ({"websocket_status": 401}, "http", "ok"),
        ({"websocket_status": 101}, "websocket", "ok"),
        ({"large_body_status": 413}, "large_body", "warning"),
        ({"large_body_status": 0}, "large_body", "warning"),
        ({"keeps_connection": False}, "keep_alive", "note"),
        ({"clock_ahead_seconds": 60.0, "clock_within_seconds": 0.1}, "clock", "warning"),
        ({"clock_ahead_seconds": 4.0, "clock_within_seconds": 5.0}, "clock", "ok"),
        ({"url": "http://chat.example.org"}, "no_tls", "warning"),
        ({"url": "https://x.example", "tls": Tls("TLSv1.3", False)}, "http1", "note"),
        ({"url": "https://x.example", "http": "1.1"}, "http1", "note"),
        ({"url": "https://x.example", "tls": Tls("TLSv1.3", True, 3.0)}, "certificate", "warning"),
        ({"url": "https://x.example", "tls": Tls("TLSv1.3", True, -3.0)}, "certificate", "fault"),
        ({"url": "https://x.example", "tls": Tls("TLSv1.1", True)}, "tls_version", "fault"),
        ({"sent_last_event_id": "1.7", "seen": Seen()}, "last_event_id", "fault"),
        ({"sent_idempotency_key": "k", "seen": Seen()}, "idempotency_key", "fault"),
        ({"url": "https://x.example", "seen": Seen(scheme="http")}, "forwarded_proto", "warning"),
        ({"url": "https://x.example", "seen": Seen(host="10.0.0.5:8000")}, "host", "warning"),
        ({"url": "https://x.eu", "seen": Seen(host="x.eu:443", scheme="https")}, "request_headers", "ok"),
        ({"headers": GOOD_HEADERS}, "answer_headers", "ok"),
        ({"headers": GOOD_HEADERS | {"cache-control": "public"}}, "cache_control", "warning"),
        ({"headers": GOOD_HEADERS | {"content-type": "text/html"}}, "content_type", "fault"),
        ({"headers": {**GOOD_HEADERS, "stream-id": ""}}, "stream_id", "fault"),
    ],
)  # fmt: skip
def test_each_thing_that_can_be_wrong_has_its_name(fields: dict[str, Any], code: str, level: str) -> None:
    findings = found(**fields)
    assert code in findings, findings
    assert findings[code].level == level


def test_what_was_not_measured_is_not_judged() -> None:
    assert found().keys() == {"http"}


def test_every_remedy_names_a_setting_for_somebody() -> None:
    for what in remedies.SETTINGS:
        for headers in ({}, {"server": "nginx"}, {"via": "1.1 heroku-router"}, {"server": "gunicorn"}):
            assert remedies.changes(what, headers), (what, headers)


def test_a_proxy_that_was_recognised_keeps_others_out() -> None:
    told = {change.where for change in remedies.changes("buffering", {"server": "nginx/1.22.1"})}
    assert told == {"nginx"}
    told = {change.where for change in remedies.changes("buffering", {"server": "gunicorn"})}
    assert {"nginx", "Caddy"} <= told


# Measurements that lie: a browser sends them, so anybody can


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(ANYTHING)
def test_any_json_is_judged_or_refused(asked: Any) -> None:
    with contextlib.suppress(msgspec.ValidationError):
        judging.judge(read({"url": "http://x", "ticks": asked, "silences": asked}))


@pytest.mark.parametrize("url", ["http://[", "http://[::1", "https://a]b", "", "//", "http://x:99999"])
def test_an_address_that_is_none_is_judged(url: str) -> None:
    judging.judge(Measured(url=url, seen=Seen(host="x"), headers={"server": "x"}))


numbers = st.floats(-1e15, 1e15) | st.sampled_from([0.0, -1.0, 1e15])


@given(
    st.lists(numbers, max_size=30),
    st.lists(numbers, max_size=30),
    st.floats(-1e10, 1e10),
    st.floats(-1e10, 1e10),
    st.text(max_size=50),
)
def test_numbers_of_any_size_are_judged(
    sent: list[float], came: list[float], one: float, other: float, text: str
) -> None:
    judging.judge(
        Measured(
            url=text,
            headers={"server": text, "cache-control": text},
            ticks=Ticks(1, len(sent), sent, came, one),
            encoding=text,
            squeezed=Ticks(60_000, 3, sent, came, one),
            silences=[Silence(one, other, one, False), Silence(other, one, other, True, came)],
            heartbeat_seconds=one,
            seen=Seen(text, text, text),
            clock_ahead_seconds=one,
            clock_within_seconds=other,
        )
    )


def test_infinity_is_refused() -> None:
    for wrong in (math.inf, math.nan):
        with pytest.raises(msgspec.ValidationError):
            read({"url": "x", "clock_ahead_seconds": wrong})


# The service


FACTS = service.Facts(
    at=0,
    python="3.11.7",
    gevent="26.9.0",
    patched=True,
    patched_late=(),
    loop_lag_ms=3.0,
    store=stores.Store("sqlite", "3.54.1", "NORMAL", "ext4", free_bytes=10 * stores.GIB),
    heartbeat_seconds=10,
    drain_seconds=18,
    open_files=20,
    file_limit=65536,
    server="gunicorn",
    worker_class="streaming.gevent_worker.LeanGeventWorker",
    workers=2,
    timeout_seconds=30,
    graceful_timeout_seconds=25,
    keepalive_seconds=75,
)


def wrong_with(**fields: Any) -> dict[str, str]:
    judged = service.judge(msgspec.structs.replace(FACTS, **fields))
    return {finding.code: finding.level for finding in judged if finding.level != "ok"}


def test_a_service_that_runs_as_it_should_has_nothing_wrong() -> None:
    assert wrong_with() == {}


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"worker_class": ""}, {"server": "warning"}),
        ({"worker_class": "gunicorn.workers.sync.SyncWorker"}, {"worker_class": "fault"}),
        ({"worker_class": "gunicorn.workers.ggevent.GeventWorker"}, {"worker_class": "note"}),
        ({"preload": True}, {"preload": "fault"}),
        ({"graceful_timeout_seconds": 10}, {"graceful_timeout": "warning"}),
        ({"max_requests": 1000}, {"max_requests": "warning"}),
        ({"keepalive_seconds": 2}, {"keepalive": "note"}),
        ({"patched": False}, {"not_patched": "fault"}),
        ({"patched_late": ("urllib3",)}, {"patched_late": "fault"}),
        ({"loop_lag_ms": 600}, {"loop": "warning"}),
        ({"loop_lag_ms": 3000}, {"loop": "fault"}),
        ({"file_limit": 256}, {"files": "warning"}),
        ({"open_files": 60_000}, {"files": "warning"}),
        ({"store": stores.Store("memory")}, {"memory_store": "fault"}),
        ({"store": stores.Store("memory"), "workers": 1}, {"memory_store": "warning"}),
        ({"store": stores.Store("sqlite", free_bytes=1000)}, {"disk": "warning"}),
        ({"store": stores.Store("sqlite", full=True)}, {"disk": "fault"}),
        ({"store": stores.Store("sqlite", file_system="overlay")}, {"ephemeral_disk": "note"}),
        ({"store": stores.Store("redis", unreachable="host:6379")}, {"store": "fault"}),
        ({"store": stores.Store("redis", policy="allkeys-lru")}, {"redis_policy": "fault"}),
        ({"store": stores.Store("redis", persistence="none")}, {"redis_persistence": "warning"}),
        ({"store": stores.Store("redis", persistence="none", replicas="1")}, {}),
        ({"store": stores.Store("redis", clock_ahead_seconds=-60)}, {"store_clock": "warning"}),
    ],
)  # fmt: skip
def test_each_wrong_start_has_its_name(fields: dict[str, Any], wrong: dict[str, str]) -> None:
    assert wrong_with(**fields) == wrong


def test_every_finding_that_is_not_ok_says_why_and_what_to_change() -> None:
    for finding in _all_bad():
        assert finding.why, finding
        assert finding.changes or finding.code == "uneven", finding


def _all_bad() -> Iterator[Finding]:
    bad = Measured(
        url="http://elsewhere.example",
        headers={"server": "nginx"},
        ticks=ticks(held_until_the_end(20), sent_late_ms=5000),
        encoding="gzip",
        silences=[silence(30, 3), silence(30, 12, 10, survived=False)],
        seen=Seen(host="other"),
        sent_last_event_id="1.7",
        answer_beside_ms=-1,
        opened_at_once=12,
        websocket_status=426,
        keeps_connection=False,
        large_body_status=413,
        clock_ahead_seconds=100,
    )
    store = stores.Store("redis", policy="volatile-lru", persistence="none", clock_ahead_seconds=9)
    facts = {"preload": True, "patched_late": ("x",), "loop_lag_ms": 2000, "file_limit": 9, "store": store}
    judged = [*judging.judge(bad), *service.judge(msgspec.structs.replace(FACTS, **facts))]
    assert len([each for each in judged if each.level != "ok"]) >= 18
    return (each for each in judged if each.level != "ok")


def test_a_report_has_no_control_characters_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    evil = Finding("fault", "x", "title\x1b[2J", "measured\r\x07", "why\x9b31m")
    tell("http://x", [evil], "", coloured=False)
    printed = capsys.readouterr().out
    assert not any(char in printed for char in "\x1b\r\x07\x9b")
    assert summary([evil, evil]) == "2 faults"


def test_the_document_names_every_finding() -> None:
    sources = Path(judging.__file__).parent.glob("*.py")
    code = "".join(path.read_text() for path in sources if path.name != "telling.py")
    names = set(re.findall(r'Finding\(\s*(?:"\w+"|[^,()]*?),\s*"(\w+)"', code))
    assert len(names) > 40, "the pattern finds none any more"
    told = set(re.findall(r"`(\w+)`", (REPOSITORY / "docs" / "doctor.md").read_text()))
    assert names - told == set()


def changed(value: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(value, **fields)
