"""Whether events come when they are sent, and keep coming: buffering, cut-offs, a busy worker."""

import itertools
from typing import NamedTuple

from streaming.doctor.findings import Finding
from streaming.doctor.measured import Measured, Silence, Ticks
from streaming.doctor.remedies import changes

TOGETHER = 0.3
"""Two ticks came together if their gap was less than this part of the one they were sent with."""
HELD_MS = 300.0
UNEVEN_MS = 1000.0
LATE_SENT_MS = 500.0
SLOW_FIRST_MS = 1000.0
SLOWEST_FIRST_MS = 5000.0
SLOW_BESIDE_MS = 1500.0
SAFE_SILENCE = 2.5
"""Heartbeats that fit into the time after which a silent stream is cut."""


class Pace(NamedTuple):
    """What one stream of ticks shows."""

    held_ms: float
    """How much later than the quickest tick the slowest came. Clocks need not agree for that."""
    together: float
    """Which part of the ticks came together with the one before."""
    late_sent_ms: float
    """How much later than planned the service itself sent one."""

    @property
    def is_buffered(self) -> bool:
        return self.together >= 0.5 and self.held_ms >= HELD_MS


def pace_of(ticks: Ticks) -> Pace | None:
    """Return None where too little came to tell."""
    pairs = list(zip(ticks.sent, ticks.came, strict=False))
    if len(pairs) < 3:
        return None
    delays = [came - sent for sent, came in pairs]
    gaps = list(zip(_gaps(ticks.sent), _gaps(ticks.came), strict=False))
    together = sum(came < TOGETHER * max(sent, 1.0) for sent, came in gaps) / len(gaps)
    off_plan = [sent - place * ticks.every_ms for place, sent in enumerate(ticks.sent)]
    return Pace(max(delays) - min(delays), together, max(off_plan) - min(off_plan))


def judge(measured: Measured) -> list[Finding]:
    pace = pace_of(measured.ticks) if measured.ticks else None
    return [
        *_ticks(measured, pace),
        *_first_byte(measured, pace),
        *_compression(measured),
        *_worker(measured, pace),
        *_at_once(measured),
        *_idle(measured),
        *_heartbeats(measured),
    ]


def _ticks(measured: Measured, pace: Pace | None) -> list[Finding]:
    ticks = measured.ticks
    if ticks is None:
        return []
    if pace is None or not ticks.whole or len(ticks.came) < ticks.asked:
        return [
            Finding(
                "fault",
                "cut",
                "The stream did not come whole",
                f"{len(ticks.came)} of {ticks.asked} ticks came, and {'the' if ticks.whole else 'no'} end",
                "Answers end in the middle.",
                changes("idle_cut", measured.headers),
            )
        ]
    said = (
        f"{ticks.asked} ticks, one each {ticks.every_ms:g} ms: the slowest came {pace.held_ms:.0f} ms later "
        f"than the quickest, {pace.together:.0%} came together with the one before"
    )
    if pace.is_buffered:
        return [
            Finding(
                "fault",
                "buffering",
                "Something holds events back and passes them on in bunches",
                said,
                "The answer appears at once at the end instead of word by word, and heartbeats do not help.",
                changes("buffering", measured.headers),
            )
        ]
    if pace.held_ms > UNEVEN_MS:
        return [
            Finding(
                "warning",
                "uneven",
                "Events come unevenly",
                said,
                "The answer stutters. The network loses packets, or something on the way is busy.",
            )
        ]
    return [Finding("ok", "buffering", "Events come as they are sent", said)]


def _first_byte(measured: Measured, pace: Pace | None) -> list[Finding]:
    if measured.ticks is None or not measured.ticks.came or (pace and pace.is_buffered):
        return []  # what is held back is late of course
    late = measured.ticks.first_byte_ms
    if late < SLOW_FIRST_MS:
        return [Finding("ok", "first_byte", "The first byte comes soon", f"{late:.0f} ms")]
    return [
        Finding(
            "warning" if late >= SLOWEST_FIRST_MS else "note",
            "first_byte",
            "The first byte comes late",
            f"{late:.0f} ms",
            "Nothing has been asked of a model yet, so all of it is the way and the service. Heroku's router "
            "gives up after 30 s.",
            changes("first_byte", measured.headers),
        )
    ]


def _compression(measured: Measured) -> list[Finding]:
    if measured.encoding is None:
        return []
    if measured.encoding in ("", "identity"):
        return [
            Finding("ok", "compression", "Event streams are not compressed", "asked with gzip, came plain")
        ]
    pace = pace_of(measured.squeezed) if measured.squeezed else None
    held = bool(pace and pace.is_buffered)
    told = f"Content-Encoding: {measured.encoding}"
    if pace:
        told += f"; {pace.together:.0%} of the ticks came together with the one before"
    return [
        Finding(
            "fault" if held else "warning",
            "compression",
            "Event streams are compressed" + (", and held back by it" if held else ""),
            told,
            "A compressor collects before it writes, and keeps some 300 KiB for each open stream. The "
            "service asks for none of it: Cache-Control: no-transform.",
            changes("compression", measured.headers),
        )
    ]


def _worker(measured: Measured, pace: Pace | None) -> list[Finding]:
    found = []
    if pace and pace.late_sent_ms > LATE_SENT_MS:
        found.append(
            Finding(
                "fault" if pace.late_sent_ms > 2 * LATE_SENT_MS else "warning",
                "blocked",
                "The worker itself was late: it stands still at times",
                f"by its own clock it sent a tick {pace.late_sent_ms:.0f} ms later than planned",
                "So long none of its streams goes on.",
                changes("blocked", measured.headers),
            )
        )
    if (beside := measured.answer_beside_ms) is None:
        return found
    if 0 <= beside < SLOW_BESIDE_MS:
        return [
            *found,
            Finding("ok", "beside", "Others are answered while a stream is open", f"{beside:.0f} ms"),
        ]
    return [
        *found,
        Finding(
            "fault",
            "one_at_a_time",
            "While a stream is open, others wait",
            "no answer until the stream had ended" if beside < 0 else f"an answer after {beside:.0f} ms",
            "Each reader holds a whole worker: with as many readers as workers the service is down.",
            changes("one_at_a_time", measured.headers),
        ),
    ]


def _at_once(measured: Measured) -> list[Finding]:
    asked, came = measured.opened_at_once, measured.opened
    if not asked:
        return []
    if came >= asked:
        return [Finding("ok", "at_once", "Many streams can be open", f"{came} of {asked} at the same time")]
    return [
        Finding(
            "warning",
            "few_at_once",
            "Not all of several streams were let in",
            f"{came} of {asked} at the same time",
            "Each tab and each client holds one; a proxy counts them by address, and an office has one.",
            changes("few_at_once", measured.headers),
        )
    ]


def _idle(measured: Measured) -> list[Finding]:
    plain = [each for each in measured.silences if not each.heartbeat_seconds]
    if not plain:
        return []
    cut = min((each for each in plain if not each.survived), key=_cut_after, default=None)
    if cut is None:
        longest = max(each.asked_seconds for each in plain)
        return [
            Finding(
                "ok", "idle", "A silent stream is not cut", f"silent for {longest:g} s without a heartbeat"
            )
        ]
    after = _cut_after(cut)
    how = "nothing came any more" if cut.mute else "the connection was cut"
    often = measured.heartbeat_seconds
    told = f"{how} after {after:.1f} s of silence; heartbeats come each {often:g} s"
    if after < often * 1.2:
        return [
            Finding(
                "fault",
                "idle_cut",
                "A silent stream is cut before its first heartbeat",
                told,
                "A model that thinks for a while loses its reader, who has to come back again and again.",
                changes("idle_cut", measured.headers),
            )
        ]
    tight = after < often * SAFE_SILENCE
    return [
        Finding(
            "warning" if tight else "note",
            "idle_cut",
            "A silent stream is cut"
            + (", with little room for heartbeats" if tight else "; heartbeats prevent it"),
            told,
            "One heartbeat that is late or lost then ends the stream."
            if tight
            else "Clients of other services behind the same proxy may feel it.",
            changes("idle_cut", measured.headers),
        )
    ]


def _heartbeats(measured: Measured) -> list[Finding]:
    found = []
    for silence in measured.silences:
        if not silence.heartbeat_seconds:
            continue
        due = int(min(silence.lasted_seconds, silence.asked_seconds) / silence.heartbeat_seconds - 0.2)
        told = (
            f"{len(silence.heartbeats)} came in {silence.lasted_seconds:.1f} s, one each "
            f"{silence.heartbeat_seconds:g} s was sent"
        )
        if not silence.survived:
            found.append(
                Finding(
                    "fault",
                    "heartbeat_cut",
                    "A stream is cut in spite of heartbeats",
                    told,
                    "Streams end while the model thinks.",
                    changes("idle_cut", measured.headers),
                )
            )
        elif len(silence.heartbeats) < due or _came_late(silence):
            found.append(
                Finding(
                    "fault",
                    "heartbeats_held",
                    "Heartbeats do not come when they are sent",
                    told,
                    "They are there to keep proxies and clients from giving up; held back, they do not.",
                    changes("buffering", measured.headers),
                )
            )
        else:
            found.append(Finding("ok", "heartbeats", "Heartbeats come through", told))
    return found


def _came_late(silence: Silence) -> bool:
    """Say whether one came when already the next was due."""
    places = enumerate(silence.heartbeats, start=1)
    return any(came > (place + 0.9) * silence.heartbeat_seconds + 0.5 for place, came in places)


def _cut_after(silence: Silence) -> float:
    # Where nothing says when it was cut, it was at most as long as was waited.
    return silence.asked_seconds if silence.mute else silence.lasted_seconds


def _gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]
