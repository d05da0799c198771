"""What the logs of a campaign say: readings, endings, connections, requests at the upstream.

A reader is judged over all its connections together: what it was told since it
last had to start again from nothing.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

TERMINAL = frozenset({"completed", "cancelled", "failed", "interrupted"})

Line = dict[str, Any]


class Mark(NamedTuple):
    """How far a reader was after one message."""

    id: str
    counted: int
    """Events the message stands for; 0 where the format does not tell."""
    length: int
    """Of the text so far."""
    at: float
    kind: str
    """The message's type, or ``snapshot``."""

    @property
    def place(self) -> tuple[int, int]:
        """The id as ``(gen, seq)``."""
        gen, _, seq = self.id.partition(".")
        return int(gen), int(seq)


class Ending(NamedTuple):
    """A reader's, a poll's or a canceller's word for how a stream ended."""

    at: float
    id: str
    """Empty where it was not the last event that said so."""
    state: str
    why: str | None
    last_seq: int | None = None
    sha: str | None = None


@dataclass
class Reading:
    """What a reader was told since it last began at the beginning."""

    reader: str
    stream: str
    text: str = ""
    marks: list[Mark] = field(default_factory=list)
    ending: Ending | None = None
    after_end: int = 0
    """Messages that came after the last one."""


@dataclass
class Life:
    """A reader's connections."""

    stream: str
    began: float
    ended: float | None = None
    how: str = ""
    trouble: list[float] = field(default_factory=list)
    """When it was refused, or cut itself off."""


class Span(NamedTuple):
    """A connection that followed a stream; ``end`` is infinite when it was never closed."""

    stream: str
    reader: str
    start: float
    end: float
    silence: tuple[float, float]


@dataclass
class Attempt:
    """One request at the upstream."""

    token: str
    received_at: float
    text: str = ""
    finish_at: float | None = None
    done_at: float | None = None
    closed_by_peer_at: float | None = None
    closed_by_us_at: float | None = None

    @property
    def said_its_end(self) -> bool:
        return self.finish_at is not None or self.done_at is not None

    @property
    def over_at(self) -> float | None:
        """When nothing more could come of it."""
        if self.said_its_end:
            return self.done_at or self.finish_at
        return self.closed_by_peer_at or self.closed_by_us_at


@dataclass
class Evidence:
    """All that was written down in one campaign."""

    upstream: Sequence[Line]
    clients: Sequence[Line]
    chaos: Sequence[Line] = ()
    grace_seconds: float = 30.0
    heartbeat_seconds: float = 10.0
    may_lose: bool = False
    """The store itself was made to lose its newest events: readers must then be told."""
    resources: dict[str, dict[str, float]] | None = None

    @classmethod
    def read(cls, directory: Path) -> "Evidence":
        """Read what a campaign left in its directory."""
        meta = json.loads((directory / "campaign.json").read_text())
        return cls(
            _lines(directory / "upstream.jsonl"),
            _lines(directory / "clients.jsonl"),
            _lines(directory / "chaos.jsonl"),
            meta["grace_seconds"],
            meta["heartbeat_seconds"],
            meta.get("may_lose", False),
            meta.get("resources"),
        )

    @cached_property
    def attempts(self) -> dict[str, list[Attempt]]:
        """The requests at the upstream for each token, in order."""
        by_number: dict[int, Attempt] = {}
        for line in self.upstream:
            if line["ev"] == "request":
                by_number[line["request"]] = Attempt(line["token"], line["t"])
            else:
                attempt = by_number[line["request"]]
                attempt.text = line["text"]
                attempt.finish_at, attempt.done_at = line["finish_at"], line["done_at"]
                attempt.closed_by_peer_at = line["closed_by_peer_at"]
                attempt.closed_by_us_at = line["closed_by_us_at"]
        found: dict[str, list[Attempt]] = defaultdict(list)
        for attempt in by_number.values():
            found[attempt.token].append(attempt)
        return found

    @cached_property
    def creates(self) -> list[Line]:
        return [line for line in self.clients if line["ev"] == "create"]

    @cached_property
    def tokens(self) -> dict[str, str]:
        """The token of each stream that a creator was told of."""
        return {line["stream"]: line["token"] for line in self.creates if line.get("stream")}

    def attempts_of(self, stream: str) -> list[Attempt]:
        return self.attempts.get(self.tokens.get(stream, ""), [])

    @cached_property
    def readings(self) -> list[Reading]:
        """What each reader was told, in the order of its messages."""
        now: dict[str, Reading] = {}
        found: list[Reading] = []
        for line in self.clients:
            name = line.get("reader")
            if name is None or line["ev"] not in ("msgs", "snapshot", "reset"):
                continue
            if line["ev"] == "reset":
                now.pop(name, None)
                continue
            if line["ev"] == "snapshot" and line["status"] != 200:
                continue
            if name not in now:
                now[name] = Reading(name, line["stream"])
                found.append(now[name])
            _tell(now[name], line)
        return found

    @cached_property
    def readings_by_stream(self) -> dict[str, list[Reading]]:
        found: dict[str, list[Reading]] = defaultdict(list)
        for reading in self.readings:
            found[reading.stream].append(reading)
        return found

    @cached_property
    def endings(self) -> dict[str, list[Ending]]:
        """Everybody's word for how each stream ended, by time."""
        found: dict[str, list[Ending]] = defaultdict(list)
        for line in self.clients:
            stream, state = line.get("stream"), line.get("state")
            if stream and (end := line.get("end")):
                id = line["m"][-1][0] if line["ev"] == "msgs" else ""
                found[stream].append(_ending(line["t"], id, end))
            elif stream and state in TERMINAL:
                found[stream].append(Ending(line["t"], "", state, None))
        return found

    @cached_property
    def lives(self) -> dict[str, Life]:
        found: dict[str, Life] = {}
        for line in self.clients:
            name = line.get("reader")
            if name is None:
                continue
            life = found.setdefault(name, Life(line["stream"], line["t"]))
            if line["ev"] == "reader_end":
                life.ended, life.how = line["t"], line["how"]
            elif (
                line["ev"] in ("refused", "told")
                or line.get("how") == "cut by us"
                or (line["ev"] in ("snapshot", "close") and line["status"] >= 500)
            ):
                life.trouble.append(line["t"])
        return found

    @cached_property
    def spans(self) -> list[Span]:
        opened: dict[int, Line] = {}
        found = []
        for line in self.clients:
            if line["ev"] == "open":
                opened[line["conn"]] = line
            elif line["ev"] == "close" and (begin := opened.pop(line["conn"], None)):
                silence = (line["silence"][0], line["silence"][1])
                found.append(Span(line["stream"], line["reader"], begin["t"], line["t"], silence))
        for line in opened.values():
            at = line["t"]
            found.append(Span(line["stream"], line["reader"], at, float("inf"), (at, at)))
        return found

    @cached_property
    def pauses(self) -> list[tuple[float, float]]:
        """When some worker was stopped on purpose, or the whole service was down, in order."""
        begun: dict[Any, float] = {}
        found = []
        for line in self.chaos:
            if line["what"] in ("stop", "down"):
                begun[line["pid"]] = line["t"]
            elif line["what"] in ("continue", "up") and line["pid"] in begun:
                found.append((begun.pop(line["pid"]), line["t"]))
        return sorted(found)

    def paused(self, start: float, end: float) -> float:
        """Return how many seconds between two times fall into pauses; 0 where there is no end."""
        if end == float("inf"):
            return 0.0
        total, reached = 0.0, start
        for begin, over in self.pauses:
            begin, over = max(begin, reached), min(over, end)
            if over > begin:
                total += over - begin
                reached = over
        return total


def _lines(path: Path) -> list[Line]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _ending(at: float, id: str, end: Line) -> Ending:
    return Ending(at, id, end["state"], end["why"], end.get("last_seq"), end.get("sha"))


def _tell(reading: Reading, line: Line) -> None:
    at = line["t"]
    if line["ev"] == "snapshot":
        reading.text += line["text"]
        reading.marks.append(Mark(line["cursor"], 0, len(reading.text), at, "snapshot"))
        if line["state"] in TERMINAL and reading.ending is None:
            end = line.get("end") or {"state": line["state"], "why": None}
            reading.ending = _ending(at, "", end)
        return
    parts = [reading.text]
    length = len(reading.text)
    if reading.ending is not None:
        reading.after_end += len(line["m"])
    for id, counted, kind, text in line["m"]:
        parts.append(text)
        length += len(text)
        reading.marks.append(Mark(id, counted, length, at, kind))
    reading.text = "".join(parts)
    if end := line.get("end"):
        reading.ending = reading.ending or _ending(at, line["m"][-1][0], end)
