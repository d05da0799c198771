"""One measurement: a target under a scenario, with everything started for it and gone afterwards."""

import http.client
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing

import msgspec
from msgspec import Struct

from bench import _scratch
from bench._knobs import Knobs
from bench._processes import NotStarted, Process, busy_seconds
from bench._scratch import Place
from bench.load import Job, Result
from bench.scenarios import WARM_UP, Scenario
from bench.targets import PROMPT, Ask, Missing, Server, Target

RIG_LIMIT = 0.85
# Of the server's core: more than what the kernel itself does there.
OTHERS_LIMIT = 0.15
# Longer than planned by so much: the server did not keep up.
HELD_SECONDS = 1.15
LOOK_SECONDS = 0.05
_ID_AND_NUMBER = re.compile(rb"id: ([0-9.]+)\ndata: [^\n]*@(\d+):\d+@")


class Row(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one measurement found. Costs are CPU time of the server's whole process tree."""

    target: str
    scenario: str
    round: int
    ok: int
    failed: int
    cpu_us_per_chunk: float
    cpu_us_per_request: float
    store_cpu_us_per_chunk: float | None = None
    """Of its database, where that is a process."""
    chunks_per_second: float
    first_token_ms: dict[str, float]
    latency_ms: dict[str, float]
    kib_per_stream: float | None = None
    """What PSS rose by, from after the warm-up to when all streams were open."""
    held: bool
    """It kept up with the upstream, and no stream failed."""
    rig_share: float
    """Of its core, upstream and load driver together."""
    rig_was_limit: bool
    others_share: float = 0.0
    """Of the server's core, what was taken by anything but the server."""
    faults: dict[str, int] = {}
    samples: list[str] = []

    @property
    def wall_us_per_chunk(self) -> float:
        """The inverse of the rate at which chunks came; how far a server falls behind."""
        return 1e6 / self.chunks_per_second if self.chunks_per_second else 0.0


class Unmeasured(Struct, frozen=True, kw_only=True):
    """A target that could not be measured, and why."""

    target: str
    reason: str
    missing: bool = False
    """Something is not installed; else it failed."""


def measure(target: Target, scenarios: Sequence[Scenario], round: int) -> Iterator[Row | Unmeasured]:
    """Start the target, warm it up, and measure it under each scenario."""
    with ExitStack() as ending:
        place = ending.enter_context(_scratch.place())
        try:
            server = target.start(ending, place)
            warm = _drive(place, _job(server, target.ask, WARM_UP), 90)
            if warm.failed or not warm.ok:
                raise NotStarted(f"does not stream: {warm.faults} {warm.samples[:1]}")
            for scenario in scenarios:
                yield _row(place, server, target, scenario, round)
        except (Missing, NotStarted) as error:
            yield Unmeasured(target=target.name, reason=str(error), missing=isinstance(error, Missing))


def _row(place: Place, server: Server, target: Target, scenario: Scenario, round: int) -> Row:
    job = _prepared(server, target.ask, scenario)
    store = server.store
    memory = server.process.pss_kib() if server.process else 0
    before = _cpu_seconds(server.process), _cpu_seconds(store), place.upstream.cpu_seconds()
    begun = time.monotonic()
    core_before = busy_seconds(place.cores.server)
    with _scratch.rig("bench.load", place.cores.rig, place.folder, msgspec.json.encode(job).decode()) as load:
        kib_per_stream = None
        if scenario.memory and server.process:
            streams = _wait_until_open(place, scenario, load)
            if streams:
                kib_per_stream = (server.process.pss_kib() - memory) / streams
        result = _result(load, scenario.planned_seconds * 10 + 90)
    seconds = time.monotonic() - begun
    core_spent = busy_seconds(place.cores.server) - core_before
    after = _cpu_seconds(server.process), _cpu_seconds(store), place.upstream.cpu_seconds()
    spent, store_spent, upstream_spent = (a - b for a, b in zip(after, before, strict=True))
    pinned = server.process and place.cores.server is not None
    rig_share = (upstream_spent + result.cpu_seconds) / max(result.seconds, 1e-9)
    late = seconds_over(result.seconds, scenario)
    return Row(
        target=target.name,
        scenario=scenario.name,
        round=round,
        ok=result.ok,
        failed=result.failed,
        cpu_us_per_chunk=spent * 1e6 / max(1, result.chunks),
        cpu_us_per_request=spent * 1e6 / max(1, result.ok),
        store_cpu_us_per_chunk=store_spent * 1e6 / max(1, result.chunks) if store else None,
        chunks_per_second=result.chunks / max(min(result.seconds, seconds), 1e-9),
        # Readers of one stream wait for each other, and a stream that is resumed was written long before.
        first_token_ms={} if scenario.kind == "fan-out" else result.first_token_ms,
        latency_ms={} if scenario.kind == "resume" else result.latency_ms,
        kib_per_stream=kib_per_stream,
        held=not result.failed and not late,
        rig_share=rig_share,
        rig_was_limit=rig_share >= RIG_LIMIT,
        others_share=max(0.0, core_spent - spent) / seconds if pinned else 0.0,
        faults=result.faults,
        samples=result.samples,
    )


def seconds_over(seconds: float, scenario: Scenario) -> bool:
    """Say whether it took noticeably longer than a server takes that keeps up."""
    return not scenario.seconds and seconds > HELD_SECONDS * scenario.planned_seconds + 0.5


def _cpu_seconds(process: Process | None) -> float:
    return process.cpu_seconds() if process else 0.0


def _wait_until_open(place: Place, scenario: Scenario, load: Process) -> int:
    """Return how many streams are open when all are, or as many as will be; 0 when that is not seen."""
    deadline = time.monotonic() + scenario.planned_seconds
    streams = 0
    while load.running and time.monotonic() < deadline:
        seen = place.open_streams()
        if seen >= scenario.streams or seen < streams:
            return seen
        streams = seen
        time.sleep(LOOK_SECONDS)
    return 0


def _drive(place: Place, job: Job, seconds: float) -> Result:
    with _scratch.rig("bench.load", place.cores.rig, place.folder, msgspec.json.encode(job).decode()) as load:
        return _result(load, seconds)


def _result(load: Process, seconds: float) -> Result:
    load.wait(seconds)
    assert load.stdout
    try:
        return msgspec.json.decode(load.stdout.read(), type=Result)
    except msgspec.DecodeError:
        raise NotStarted(f"the load driver failed: {load.said()}") from None


def _job(server: Server, ask: Ask, scenario: Scenario) -> Job:
    filled = ask.filled(PROMPT + str(scenario.knobs))
    return Job(
        port=server.port,
        path=filled.path,
        method=filled.method,
        body=filled.body,
        headers=filled.headers,
        end=filled.end,
        chunks=scenario.chunks,
        at_once=scenario.streams,
        total=0 if scenario.seconds else scenario.streams,
        seconds=scenario.seconds,
        ramp_per_second=scenario.ramp_per_second,
        timeout_seconds=60 + 3 * scenario.planned_seconds,
    )


def _prepared(server: Server, ask: Ask, scenario: Scenario) -> Job:
    """Return the job; where its streams are read and not made, that stream is made here."""
    job = _job(server, ask, scenario)
    if scenario.kind == "streams":
        return job
    if scenario.kind == "fan-out":
        # No chunk is sent before all readers are there.
        first_us = int((scenario.streams / scenario.ramp_per_second + 1.0) * 1e6)
        knobs = Knobs(scenario.chunks, scenario.delay_ms * 1000, first_us, scenario.chunk_chars)
        path = f"/streams/{_make_stream(server.port, knobs)}?format=native"
        headers, first = {}, 0
    else:
        path = f"/streams/{_make_stream(server.port, Knobs(scenario.log_chunks))}?format=native"
        cursor, first = _place_before_end(server.port, path, scenario)
        headers = {"Last-Event-ID": cursor}
    return msgspec.structs.replace(
        job, path=path, method="GET", body="", headers=headers, end='"done":true', first_chunk=first
    )


def _make_stream(port: int, knobs: Knobs) -> str:
    """Start a stream that nobody follows yet; return its id."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        body = msgspec.json.encode({"prompt": f"{PROMPT}{knobs}"})
        connection.request("POST", "/streams", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 201:
            raise NotStarted(f"no stream was made: {answer.status} {said[:300]!r}")
        stream_id: str = msgspec.json.decode(said)["stream_id"]
        return stream_id


def _place_before_end(port: int, path: str, scenario: Scenario) -> tuple[str, int]:
    """Read a stream to its end; return the id before its last chunks, and the first one's number."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
        connection.request("GET", path)
        tail = b""
        answer = connection.getresponse()
        while block := answer.read(1 << 20):
            tail = (tail + block)[-65536:]
    first = scenario.log_chunks - scenario.chunks
    for cursor, number in _ID_AND_NUMBER.findall(tail):
        if int(number) == first - 1:
            return cursor.decode(), first
    raise NotStarted(f"the long stream has no end to resume from: {tail[-300:]!r}")
