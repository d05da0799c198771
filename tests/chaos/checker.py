"""Check from outside what the service promises, with nothing but what its two ends wrote down.

``python -m tests.chaos.checker DIRECTORY`` reads the upstream's log, the clients'
log and what was done to the service meanwhile (for the times when a worker was
stopped on purpose), prints a table, and exits with 1 when a promise was broken.

Each promise is one function from `Evidence` to an `Outcome`; the promises in
words are in ``docs/reliability.md``.
"""

import hashlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tests.chaos.evidence import Evidence, Life, Reading, Span

END_WITHIN_SECONDS = 15.0
CANCELLED_WITHIN_SECONDS = 2.0
RELEASED_WITHIN_SECONDS = 1.0
ABANDONED_WITHIN_SECONDS = 5.0
"""After the time of grace, and the wait of a poll."""
MOST_RETRIES = 2
LEAK = 0.05
EXAMPLES = 3


class Outcome(NamedTuple):
    promise: str
    checked: int
    violations: list[str]
    note: str = ""


def prefix(evidence: Evidence) -> Outcome:
    """A reader's text is the upstream's, or a first part of it that a typed error or a cancel follows."""
    wrong = []
    for reading in evidence.readings:
        attempts = evidence.attempts_of(reading.stream)
        whole = reading.ending is not None and reading.ending.state == "completed"
        texts = [attempt.text for attempt in attempts if attempt.said_its_end or not whole]
        fits = reading.text in texts if whole else any(text.startswith(reading.text) for text in [*texts, ""])
        if not fits:
            wrong.append(
                f"{_name(reading)}: {len(reading.text)} characters, not {_difference(reading, texts)}"
            )
        end = reading.ending
        if end and end.sha and end.sha != hashlib.sha256(reading.text.encode()).hexdigest():
            wrong.append(f"{_name(reading)}: the text is not the one that text_sha256 is of")
        last = reading.marks[-1]
        if end and end.last_seq is not None and last.id and end.last_seq != last.place[1]:
            wrong.append(f"{_name(reading)}: last_seq is {end.last_seq} in event {last.id}")
    return Outcome("prefix", len(evidence.readings), wrong)


def agreement(evidence: Evidence) -> Outcome:
    """All readers of a stream have the same text at the same id."""
    checked, wrong = 0, []
    for readings in evidence.readings_by_stream.values():
        longest = max(readings, key=lambda reading: len(reading.text))
        lengths = {mark.id: mark.length for mark in longest.marks}
        for reading in readings:
            checked += 1
            if not longest.text.startswith(reading.text):
                wrong.append(f"{_name(reading)}: another text than {longest.reader}")
            for mark in reading.marks:
                if mark.id in lengths and lengths[mark.id] != mark.length and mark.id:
                    wrong.append(
                        f"{_name(reading)}: {mark.length} characters at {mark.id},"
                        f" {longest.reader} has {lengths[mark.id]}"
                    )
                    break
    return Outcome("agreement", checked, wrong)


def ids(evidence: Evidence) -> Outcome:
    """From message to message seq rises by just as much as the message says, and gen never falls."""
    checked, wrong = 0, []
    for reading in evidence.readings:
        gen, seq = 0, 0
        for mark in reading.marks:
            if not mark.id:
                gen, seq = gen, seq + mark.counted
                continue
            checked += 1
            next_gen, next_seq = mark.place
            step = next_seq - seq
            right = step == mark.counted if mark.counted else step > 0
            if mark.kind == "snapshot":
                right = step >= 0
            if not right or next_gen < gen:
                wrong.append(f"{_name(reading)}: {mark.id} ({mark.kind}, n={mark.counted}) after {gen}.{seq}")
                break
            gen, seq = next_gen, next_seq
    return Outcome("ids", checked, wrong)


def one_end(evidence: Evidence) -> Outcome:
    """A stream has one last event, the same for everybody, and its state is that one for ever."""
    wrong = []
    for stream, endings in evidence.endings.items():
        for name, values in (
            ("states", {end.state for end in endings if end.why != "[DONE]"}),
            ("reasons", {end.why for end in endings if end.why not in (None, "[DONE]")}),
            ("last ids", {end.id for end in endings if end.id}),
        ):
            if len(values) > 1:
                wrong.append(f"{stream}: {name} {sorted(map(str, values))}")
        last = next((end.id for end in endings if end.id), "")
        if last:
            wrong += _beyond(evidence, stream, last)
    wrong += [
        f"{_name(reading)}: {reading.after_end} messages after the last"
        for reading in evidence.readings
        if reading.after_end
    ]
    wrong += _running_again(evidence)
    return Outcome("one end", len(evidence.endings), wrong)


def _beyond(evidence: Evidence, stream: str, last: str) -> list[str]:
    end = int(last.partition(".")[2])
    return [
        f"{_name(reading)}: event {mark.id} beyond the last, {last}"
        for reading in evidence.readings_by_stream.get(stream, [])
        for mark in reading.marks[-1:]
        if mark.id and mark.place[1] > end
    ]


def _running_again(evidence: Evidence) -> list[str]:
    wrong = []
    for line in evidence.clients:
        stream, state = line.get("stream"), line.get("state")
        if state not in ("running", "queued", "cancelling") or line["ev"] == "create":
            continue
        ended = evidence.endings.get(stream or "")
        if ended and ended[0].at < line["asked_at"]:
            wrong.append(f"{stream}: {state} {line['t'] - ended[0].at:.2f} s after it was {ended[0].state}")
    return wrong


def honest_end(evidence: Evidence) -> Outcome:
    """Nobody is told ``completed`` or ``[DONE]`` before the upstream said that it had finished."""
    checked, wrong = 0, []
    for stream, endings in evidence.endings.items():
        said = [
            attempt.finish_at or attempt.done_at or 0.0
            for attempt in evidence.attempts_of(stream)
            if attempt.said_its_end
        ]
        for end in endings:
            if end.state == "completed":
                checked += 1
                if not said or min(said) > end.at:
                    wrong.append(f"{stream}: {end.why} at {end.id}, but the upstream had not finished")
                    break
    return Outcome("honest end", checked, wrong)


def no_hang(evidence: Evidence) -> Outcome:
    """Every reader ends soon after its stream's upstream has, and never waits in silence."""
    wrong = []
    took: list[float] = []
    for name, life in evidence.lives.items():
        if life.ended is None or life.how not in ("ended", "left"):
            wrong.append(f"{name} of {life.stream}: {life.how or 'never ended'}")
        elif life.how == "ended" and (begun := _could_end_at(evidence, life)) is not None:
            late = life.ended - begun - evidence.paused(begun, life.ended)
            took.append(late)
            if late > END_WITHIN_SECONDS:
                wrong.append(f"{name} of {life.stream}: ended {late:.1f} s after its upstream")
    most = 2 * evidence.heartbeat_seconds
    for span in evidence.spans:
        start, end = span.silence
        silent = end - start - evidence.paused(start, end)
        if silent > most + 0.5:
            wrong.append(f"{span.reader} of {span.stream}: {silent:.1f} s without a byte")
    return Outcome("no hang", len(evidence.lives) + len(evidence.spans), wrong, _spread("ended after", took))


def _could_end_at(evidence: Evidence, life: Life) -> float | None:
    """Return since when the reader could have known the end; ``None`` if nobody can tell."""
    attempts = evidence.attempts_of(life.stream)
    if not attempts:
        return max([life.began, *life.trouble])
    over_at = attempts[-1].over_at
    return None if over_at is None else max([over_at, life.began, *life.trouble])


def released(evidence: Evidence) -> Outcome:
    """The upstream's connection is closed soon after a cancel, after the end, and when nobody reads."""
    wrong, checked = [], 0
    took: list[float] = []
    cancelled: dict[str, float] = {}
    for line in evidence.clients:
        if line["ev"] == "cancel" and line["status"] in (200, 202):
            cancelled.setdefault(line["stream"], line["t"])
    last_present = _last_present(evidence)
    for stream in evidence.tokens:
        endings = evidence.endings.get(stream)
        for attempt in evidence.attempts_of(stream):
            if attempt.closed_by_us_at is not None:
                continue
            checked += 1
            # After [DONE] the upstream has nothing more to do.
            over_at = attempt.over_at or float("inf")
            causes = []
            if stream in cancelled:
                causes.append(("the cancel", cancelled[stream], CANCELLED_WITHIN_SECONDS))
                took.append(over_at - cancelled[stream] - evidence.paused(cancelled[stream], over_at))
            if endings:
                causes.append(("the end", endings[0].at, RELEASED_WITHIN_SECONDS))
            if stream in last_present:
                grace = evidence.grace_seconds + ABANDONED_WITHIN_SECONDS
                causes.append(("the last reader had left", last_present[stream], grace))
            for cause, since, within in causes:
                # A worker that was stopped between a create and its request makes the request when it wakes.
                at = max(since, attempt.received_at)
                late = over_at - at - evidence.paused(at, over_at)
                if late > within:
                    wrong.append(f"{stream}: upstream still open {late:.1f} s after {cause}")
                    break
    return Outcome("released", checked, wrong, _spread("closed after the receipt", took))


def _last_present(evidence: Evidence) -> dict[str, float]:
    """Return when the last reader left each stream that is to end without one."""
    found = {
        line["stream"]: line["t"]
        for line in evidence.creates
        if line.get("stream") and line["on"] in ("grace", "cancel")
    }
    for span in evidence.spans:
        if span.stream in found:
            found[span.stream] = max(found[span.stream], span.end)
    for line in evidence.clients:
        if line["ev"] in ("snapshot", "create") and line.get("stream") in found:
            found[line["stream"]] = max(found[line["stream"]], line["t"] + line.get("wait", 0.0))
        elif line["ev"] == "deaf":
            found.pop(line["stream"], None)
    return found


def attended(evidence: Evidence) -> Outcome:
    """No stream is ended as abandoned while somebody follows it."""
    asked = {line["stream"] for line in evidence.clients if line["ev"] == "cancel"}
    spans: dict[str, list[Span]] = defaultdict(list)
    for span in evidence.spans:
        spans[span.stream].append(span)
    wrong, checked = [], 0
    for stream, endings in evidence.endings.items():
        if stream in asked:
            continue
        checked += 1
        if endings[0].state != "cancelled":
            continue
        over_at = next((a.closed_by_peer_at for a in evidence.attempts_of(stream)), None) or endings[0].at
        since = over_at - evidence.grace_seconds + 0.5
        for span in spans[stream]:
            if span.start < since and span.end > over_at and not evidence.paused(since, over_at):
                wrong.append(f"{stream}: cancelled although {span.reader} had followed for a while")
                break
    return Outcome("attended", checked, wrong)


def one_request(evidence: Evidence) -> Outcome:
    """One stream and one request at the upstream for each create or key; again only before its first word."""
    wrong = []
    streams: dict[str, set[str]] = defaultdict(set)
    made: dict[str, int] = defaultdict(int)
    for line in evidence.creates:
        if line.get("stream"):
            streams[line["token"]].add(line["stream"])
            made[line["token"]] += line["status"] == 201
    first_word = _first_words(evidence)
    tokens = streams.keys() | evidence.attempts.keys()
    for token in tokens:
        if len(streams[token]) > 1:
            wrong.append(f"{token}: streams {sorted(streams[token])}")
        if made[token] > 1:
            wrong.append(f"{token}: made {made[token]} times")
        attempts = evidence.attempts.get(token, [])
        if len(attempts) > 1 + MOST_RETRIES:
            wrong.append(f"{token}: {len(attempts)} requests at the upstream")
        for before, again in pairwise(attempts):
            if before.closed_by_us_at is None and (before.text or before.closed_by_peer_at):
                wrong.append(f"{token}: a second request, though the upstream had not failed the first")
            elif again.received_at > first_word.get(token, float("inf")):
                wrong.append(f"{token}: a second request after its first word was shown")
    return Outcome("one request", len(tokens), wrong)


def _first_words(evidence: Evidence) -> dict[str, float]:
    """Return when the first word of each token was shown to anybody."""
    found: dict[str, float] = {}
    for line in evidence.clients:
        token = evidence.tokens.get(line.get("stream") or "")
        if token is None or token in found:
            continue
        if line.get("text") or any(text for _, _, _, text in line.get("m", ())):
            found[token] = line["t"]
    return found


def kept(evidence: Evidence) -> Outcome:
    """What anybody was shown is in the log afterwards, or its reader was told that it is lost."""
    wrong, checked = [], 0
    for stream, readings in evidence.readings_by_stream.items():
        audit = next((r for r in readings if r.reader.startswith("audit")), None)
        if audit is None or not audit.marks:
            continue
        there = {mark.id for mark in audit.marks}
        last = audit.marks[-1].place
        for reading in readings:
            checked += 1
            for mark in reading.marks:
                shown = mark.kind != "snapshot" and mark.id
                if (shown and mark.id not in there) or (mark.id and mark.place > last):
                    wrong.append(f"{_name(reading)}: saw {mark.id} ({mark.kind}), which the log has not")
                    break
        if audit.ending is None:
            wrong.append(f"{stream}: has no end in the log")
    if not evidence.may_lose:
        wrong += [
            f"{line['reader']} of {line['stream']}: cursor_lost, though nothing was lost"
            for line in evidence.clients
            if line["ev"] == "reset" and line["why"] == "cursor_lost"
        ]
    return Outcome("kept", checked, wrong)


def refusals(evidence: Evidence) -> Outcome:
    """Every refusal is an error object with a request id, and none is a 500."""
    wrong, checked = [], 0
    for line in evidence.clients:
        status = line.get("status", 0)
        if status < 400:
            continue
        checked += 1
        if status == 500:
            wrong.append(f"{line['ev']} of {line.get('stream') or line.get('token')}: 500")
        elif line["ev"] != "close":
            error = line.get("error")
            if not isinstance(error, dict) or not {"message", "type", "code", "request_id"} <= error.keys():
                wrong.append(f"{line['ev']}: {status} with {error!r}")
    return Outcome("refusals", checked, wrong)


def leaks(evidence: Evidence) -> Outcome:
    """Memory, descriptors, threads, the store's WAL and running streams are as before the load."""
    if evidence.resources is None:
        return Outcome("leaks", 0, [])
    before, after = evidence.resources["before"], evidence.resources["after"]
    wrong = [
        f"{name}: {before[name]:g} before, {after[name]:g} after"
        for name in before
        if after[name] > before[name] * (1 + LEAK)
    ]
    shown = ", ".join(f"{name} {before[name]:g} -> {after[name]:g}" for name in before)
    return Outcome("leaks", len(before), wrong, shown)


PROMISES: tuple[Callable[[Evidence], Outcome], ...] = (
    prefix,
    agreement,
    ids,
    one_end,
    honest_end,
    no_hang,
    released,
    attended,
    one_request,
    kept,
    refusals,
    leaks,
)


def check(evidence: Evidence) -> list[Outcome]:
    """Return the outcome of every promise."""
    return [promise(evidence) for promise in PROMISES]


def table(outcomes: Iterable[Outcome]) -> str:
    """Return the outcomes for people."""
    rows = [f"{'promise':12} {'checked':>9} {'violations':>10}"]
    for outcome in outcomes:
        rows.append(
            f"{outcome.promise:12} {outcome.checked:9} {len(outcome.violations):10}  {outcome.note}".rstrip()
        )
        rows += [f"    {violation}" for violation in outcome.violations[:EXAMPLES]]
    return "\n".join(rows)


def _name(reading: Reading) -> str:
    return f"{reading.reader} of {reading.stream}"


def _difference(reading: Reading, texts: Sequence[str]) -> str:
    if not texts:
        return "sent by any request that would fit its end"
    text = max(texts, key=len)
    at = next(
        (i for i, (a, b) in enumerate(zip(reading.text, text, strict=False)) if a != b),
        min(len(text), len(reading.text)),
    )
    return f"the upstream's {len(text)}: {reading.text[at : at + 30]!r} for {text[at : at + 30]!r} at {at}"


def _spread(what: str, seconds: list[float]) -> str:
    finite = sorted(s for s in seconds if s < float("inf"))
    if not finite:
        return ""
    shown = [f"p{p} {finite[min(len(finite) - 1, len(finite) * p // 100)]:.2f}" for p in (50, 99)]
    return f"{what} {', '.join(shown)}, max {finite[-1]:.2f} s"


def main(directory: Path) -> int:
    """Print the table of a campaign; return 1 when a promise was broken."""
    outcomes = check(Evidence.read(directory))
    print(table(outcomes))
    return int(any(outcome.violations for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
