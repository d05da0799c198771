"""Scenarios: the loads that are measured. What each is for stands beside it, for the report too."""

from typing import Literal

from msgspec import Struct, structs

from bench._knobs import Knobs


class Scenario(Struct, frozen=True):
    name: str
    about: str
    streams: int
    """At the same time."""
    chunks: int
    """Of one stream."""
    delay_ms: int = 0
    """From one chunk to the next; 0: as fast as they are taken."""
    ramp_per_second: int = 0
    seconds: float = 0.0
    """So long one stream after the other; 0: each once."""
    kind: Literal["streams", "fan-out", "resume"] = "streams"
    """``fan-out``: ``streams`` readers follow one stream. ``resume``: of one long, ended stream each
    reads the last ``chunks``."""
    log_chunks: int = 0
    """Of the stream that is resumed."""
    chunk_chars: int = 0
    memory: bool = False
    """Measure the memory of the open streams."""
    series: str = ""
    x: int = 0
    """The place in a plot of how the cost grows."""

    @property
    def knobs(self) -> Knobs:
        return Knobs(self.chunks, self.delay_ms * 1000, 0, self.chunk_chars)

    @property
    def planned_seconds(self) -> float:
        """How long it takes a server that keeps up."""
        ramp = self.streams / self.ramp_per_second if self.ramp_per_second else 0.0
        return self.seconds or ramp + self.chunks * self.delay_ms / 1000


PACED = Scenario(
    "paced-500", "500 streams of 20 chunks/s: the usual load of a full worker", 500, 160, 50, 500, memory=True
)
PACED_LESS = Scenario(
    "paced-200", "200 streams of 20 chunks/s: one that slow servers hold too", 200, 160, 50, 200
)
SHORT = Scenario("short", "requests of 10 chunks, 50 at a time: what a request costs", 50, 10, seconds=3)
BURST = Scenario("burst", "streams of 300 chunks as fast as it goes, 50 at a time", 50, 300, seconds=5)
OPEN = Scenario(
    "open-2000",
    "2,000 streams of one chunk a second: what an open stream holds",
    2000,
    8,
    1000,
    500,
    memory=True,
)
OPEN_MANY = Scenario(
    "open-5000", "5,000 streams of a chunk in 2 s, on one worker", 5000, 12, 2000, 400, memory=True
)
ONE = Scenario("one", "one stream of 50 chunks/s: the latency of an idle server", 1, 100, 20)
FAN_OUT = Scenario("fan-out-500", "one stream of 20 chunks/s, 500 readers", 500, 160, 50, 500, kind="fan-out")
SMOKE = Scenario("smoke", "20 streams of 20 chunks/s, to see that it works", 20, 20, 50, 100)
SMOKE_SHORT = Scenario("smoke-short", "requests of 10 chunks, 5 at a time", 5, 10, seconds=0.5)
WARM_UP = Scenario("warm-up", "", 20, 10, seconds=0.5)


def _series(name: str, about: str, base: Scenario, points: dict[int, dict[str, int]]) -> list[Scenario]:
    return [
        structs.replace(base, name=f"{name}-{x}", about=about, series=name, x=x, **changes)
        for x, changes in points.items()
    ]


_GROWTH = Scenario("", "", 200, 100, 50, 400)

GROWTH: dict[str, list[Scenario]] = {
    "streams": _series(
        "streams",
        "open streams, of 10 chunks/s",
        structs.replace(_GROWTH, delay_ms=100, chunks=50),
        {x: {"streams": x} for x in (50, 100, 200, 400, 800)},
    ),
    "rate": _series(
        "rate",
        "chunks/s of a stream, 100 streams",
        structs.replace(_GROWTH, streams=100, chunks=150),  # always, so that a request weighs the same
        {x: {"delay_ms": 1000 // x} for x in (10, 20, 50, 100)},
    ),
    "length": _series(
        "length",
        "characters of a chunk, 100 streams of 20 chunks/s",
        structs.replace(_GROWTH, streams=100),
        {x: {"chunk_chars": x} for x in (32, 128, 512, 2048, 8192)},
    ),
    "readers": _series(
        "readers",
        "readers of one stream of 20 chunks/s",
        structs.replace(_GROWTH, kind="fan-out"),
        {x: {"streams": x} for x in (10, 50, 100, 200, 500)},
    ),
    "log": _series(
        "log",
        "events in the log of a stream that is resumed 10 chunks before its end",
        Scenario("", "", 4, 10, seconds=2.0, kind="resume"),
        {x: {"log_chunks": x} for x in (100, 1000, 10_000, 99_900)},
    ),
}
"""A series for each thing that grows; ``x`` is how much of it there is."""
